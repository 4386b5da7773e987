"""The proxy beside nginx, HAProxy and H2O."""

from generators import h2load, tls_handshakes, wrk
from http_servers import PLAIN, TLS, floor, h2o, haproxy, nginx, tidegate
from measure import Contender, Row, package_version

PLAIN_URL, TLS_URL = f"http://127.0.0.1:{PLAIN}/x", f"https://127.0.0.1:{TLS}/x"


def contenders(load, body_bytes, with_floor=False, **ours):
    listed = [
        Contender("tidegate-l7", "this commit", tidegate(body_bytes, **ours), load, ours=True),
        Contender("nginx", package_version("nginx"), nginx(body_bytes), load),
        Contender("haproxy", package_version("haproxy"), haproxy(body_bytes), load),
        Contender("h2o", package_version("h2o"), h2o(body_bytes), load),
    ]
    if with_floor:
        listed.append(Contender("floor: canned answer", "", floor(body_bytes), load, floor=True))
    return listed


def rows():
    for name, size in (("1 kB", 1024), ("100 kB", 100 * 1024)):
        yield Row("l7", f"HTTP/1.1 plain, proxied, {name} (a proxied request is two of the floor's)", contenders(wrk(PLAIN_URL), size, with_floor=True))
        yield Row("l7", f"HTTP/1.1 TLS, proxied, {name}", contenders(wrk(TLS_URL), size))
        yield Row("l7", f"HTTP/2 TLS, proxied, {name}", contenders(h2load(TLS_URL), size))
    yield Row("l7", "TLS 1.3 full handshakes (P-256)", contenders(tls_handshakes(TLS), 1024), unit="handshake")
    yield Row("l7", "TLS 1.3 resumed handshakes", contenders(tls_handshakes(TLS, resume=True), 1024), unit="handshake")
    yield Row(
        "l7",
        "HTTP/1.1 plain, proxied, 1 kB, among 100,000 routes",
        [
            Contender("tidegate-l7", "this commit", tidegate(1024, routes=100_000), wrk(f"http://127.0.0.1:{PLAIN}/r/77777/x"), ours=True),
            Contender("tidegate-l7, 1 route", "this commit", tidegate(1024), wrk(PLAIN_URL)),
        ],
    )
