# SPDX-License-Identifier: Apache-2.0
"""The cache compared with nginx, Varnish, Traffic Server and H2O's static files."""

import tempfile
from pathlib import Path

from generators import each_once, h2load, herd, wrk
from http_servers import ORIGIN, PLAIN, TLS, floor, h2o, nginx, slow_origin, tidegate, trafficserver, varnish
from measure import Contender, Row, Package, table

PLAIN_URL, TLS_URL = f"http://127.0.0.1:{PLAIN}/x", f"https://127.0.0.1:{TLS}/x"
ORIGIN_DELAY_MS = 300


def ours(start, load, name="tidegate-l7"):
    return Contender(name, "this commit", start, load, ours=name == "tidegate-l7")


def hit_contenders(load, size, tls=False):
    listed = [
        ours(tidegate(size, cached=True), load),
        ours(tidegate(size, cached=True, ram=False), load, "tidegate-l7, RAM off"),
        Contender("nginx cache", Package("nginx"), nginx(size, cached=True), load),
        Contender("h2o static file", Package("h2o"), h2o(size, static=True), load),
    ]
    if not tls:
        listed.insert(3, Contender("varnish", Package("varnish"), varnish(size), load))
        listed.insert(4, Contender("trafficserver", Package("trafficserver"), trafficserver(size), load))
        listed.append(Contender("floor: canned answer", "", floor(size), load, floor=True))
    return listed


def caches(load, size, start_origin=None):
    return [
        ours(tidegate(size, cached=True, start_origin=start_origin), load),
        Contender("nginx cache, lock", Package("nginx"), nginx(size, cached=True, lock=True, start_origin=start_origin), load),
        Contender("varnish", Package("varnish"), varnish(size, start_origin), load),
        Contender("trafficserver", Package("trafficserver"), trafficserver(size, start_origin), load),
    ]


def direct(size, cache_control, load):
    """The origin itself, with nothing in front of it."""
    return Contender("direct to the origin", "", slow_origin(size, ORIGIN_DELAY_MS, cache_control, PLAIN), load, floor=True)


def herd_rows():
    size = 1024
    for clients in (100, 1000):
        for what, cache_control in (("cold key", "max-age=3600"), ("uncacheable", "no-store")):
            start_origin = slow_origin(size, ORIGIN_DELAY_MS, cache_control)
            load = herd(f"127.0.0.1:{PLAIN}", lambda n: f"/cold/{n}", clients, ORIGIN)
            alone = herd(f"127.0.0.1:{PLAIN}", lambda n: f"/cold/{n}", clients, PLAIN)
            work = f"herd of {clients:,} on one {what}, the origin takes {ORIGIN_DELAY_MS} ms"
            yield Row("cache", work, [*caches(load, size, start_origin), direct(size, cache_control, alone)], unit="herd")


def paths(folder, objects):
    """A script for wrk that asks for one of `objects` paths each time."""
    script = Path(folder) / f"paths-{objects}.lua"
    script.write_text(f"math.randomseed(7)\nrequest = function() return wrk.format(nil, '/o/' .. math.random(1, {objects})) end\n")
    return script


def rows():
    for name, size in (("1 kB", 1024), ("100 kB", 100 * 1024)):
        yield Row("cache", f"hit, HTTP/1.1 plain, {name}", hit_contenders(wrk(PLAIN_URL), size))
        yield Row("cache", f"hit, HTTP/1.1 TLS, {name}", hit_contenders(wrk(TLS_URL), size, tls=True))
        yield Row("cache", f"hit, HTTP/2 TLS, {name}", hit_contenders(h2load(TLS_URL), size, tls=True))
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-paths-") as folder:
        for objects in (table(1_000), table(10_000)):
            load = wrk(PLAIN_URL, script=paths(folder, objects))
            listed = [ours(tidegate(1024, cached=True), load), ours(tidegate(1024, cached=True, ram=False), load, "tidegate-l7, RAM off"), *caches(load, 1024)[1:]]
            for contender in listed:
                contender.prepare = each_once(PLAIN, [f"/o/{n}" for n in range(1, objects + 1)])
            yield Row("cache", f"hit, HTTP/1.1 plain, 1 kB, each time another of {objects:,} objects", listed)
        churn = wrk(PLAIN_URL, script=paths(folder, 10_000_000))
        yield Row("cache", "fill churn: 10 kB, hardly any asked for twice", caches(churn, 10 * 1024))
    yield from herd_rows()
