"""The cache beside nginx, Varnish, Traffic Server and H2O's static files."""

from generators import h2load, wrk
from http_servers import PLAIN, TLS, floor, h2o, nginx, tidegate, trafficserver, varnish
from measure import Contender, Row, package_version

PLAIN_URL, TLS_URL = f"http://127.0.0.1:{PLAIN}/x", f"https://127.0.0.1:{TLS}/x"


def contenders(load, size, tls=False):
    listed = [
        Contender("tidegate-l7", "this commit", tidegate(size, cached=True), load, ours=True),
        Contender("tidegate-l7, RAM off", "this commit", tidegate(size, cached=True, ram=False), load),
        Contender("nginx cache", package_version("nginx"), nginx(size, cached=True), load),
        Contender("h2o static file", package_version("h2o"), h2o(size, static=True), load),
    ]
    if not tls:
        listed.insert(3, Contender("varnish", package_version("varnish"), varnish(size), load))
        listed.insert(4, Contender("trafficserver", package_version("trafficserver"), trafficserver(size), load))
        listed.append(Contender("floor: canned answer", "", floor(size), load, floor=True))
    return listed


def rows():
    for name, size in (("1 kB", 1024), ("100 kB", 100 * 1024)):
        yield Row("cache", f"hit, HTTP/1.1 plain, {name}", contenders(wrk(PLAIN_URL), size))
        yield Row("cache", f"hit, HTTP/1.1 TLS, {name}", contenders(wrk(TLS_URL), size, tls=True))
        yield Row("cache", f"hit, HTTP/2 TLS, {name}", contenders(h2load(TLS_URL), size, tls=True))
