# SPDX-License-Identifier: Apache-2.0
"""The proxy compared with nginx, HAProxy and H2O."""

import resource

from generators import at_part_of_peak, grpc_unary, h2load, idle_tls, tls_handshakes, wrk
from http_servers import H2C, PLAIN, TLS, floor, grpc_origin, h2o, haproxy, nginx, tidegate
from measure import Contender, Row, Package

PLAIN_URL, TLS_URL = f"http://127.0.0.1:{PLAIN}/x", f"https://127.0.0.1:{TLS}/x"
# HAProxy reserves two descriptors for each possible connection. If a process may open only few, there are fewer than
# 10,000 connections.
IDLE_CONNECTIONS = min(10_000, (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 2_000) // 2)


def contenders(load, body_bytes, with_floor=False):
    listed = [
        Contender("tidegate-l7", "this commit", tidegate(body_bytes), load, ours=True),
        Contender("nginx", Package("nginx"), nginx(body_bytes), load),
        Contender("haproxy", Package("haproxy"), haproxy(body_bytes), load),
        Contender("h2o", Package("h2o"), h2o(body_bytes), load),
    ]
    if with_floor:
        listed.append(Contender("floor: canned answer", "", floor(body_bytes), load, floor=True))
    return listed


def rows():
    for name, size in (("1 kB", 1024), ("100 kB", 100 * 1024)):
        yield Row("l7", f"HTTP/1.1 plain, proxied, {name} (a proxied request is two of the floor's)", contenders(wrk(PLAIN_URL), size, with_floor=True))
        yield Row("l7", f"HTTP/1.1 TLS, proxied, {name}", contenders(wrk(TLS_URL), size))
        yield Row("l7", f"HTTP/2 plain, proxied, {name}", h2c_contenders(size))
        yield Row("l7", f"HTTP/2 TLS, proxied, {name}", contenders(h2load(TLS_URL), size))
    yield Row("l7", "gRPC unary, HTTP/2 plain on both sides", grpc_contenders())
    yield Row("l7", "HTTP/1.1 plain, proxied, 1 kB, with a breaker and a balancer", protected_contenders())
    # What one instance shall do: 100,000 requests/s on 100,000 connections, P99 below 50 ms, below 1 GB, below 80 % CPU.
    yield Row(
        "l7",
        f"a gateway instance: HTTP/1.1 plain, proxied, 1 kB, {IDLE_CONNECTIONS:,} connections, at 80 % of its own peak",
        [
            # All connections ask at once when the load begins.
            Contender("tidegate-l7", "this commit", tidegate(1024, pool="queue_size: 20000"), at_part_of_peak(PLAIN_URL, 0.8, IDLE_CONNECTIONS), ours=True)
        ],
    )
    yield Row("l7", "HTTP/1.1 plain, proxied, 1 kB, at 70 % of its own peak", contenders(at_part_of_peak(PLAIN_URL, 0.7), 1024))
    yield Row("l7", "HTTP/1.1 plain, proxied, 1 kB, 320 connections", contenders(wrk(PLAIN_URL, connections=320), 1024))
    yield Row("l7", "TLS 1.3 full handshakes (P-256)", contenders(tls_handshakes(TLS), 1024), unit="handshake")
    yield Row("l7", "TLS 1.3 resumed handshakes", contenders(tls_handshakes(TLS, resume=True), 1024), unit="handshake")
    yield Row("l7", f"{IDLE_CONNECTIONS:,} idle TLS 1.3 connections", contenders(idle_tls(TLS, IDLE_CONNECTIONS), 1024), unit="connection")
    yield Row(
        "l7",
        "HTTP/1.1 plain, proxied, 1 kB, among 100,000 routes",
        [
            Contender("tidegate-l7", "this commit", tidegate(1024, routes=100_000), wrk(f"http://127.0.0.1:{PLAIN}/r/77777/x"), ours=True),
            Contender("tidegate-l7, 10,000", "this commit", tidegate(1024, routes=10_000), wrk(f"http://127.0.0.1:{PLAIN}/r/7777/x")),
            Contender("tidegate-l7, 1 route", "this commit", tidegate(1024), wrk(PLAIN_URL)),
        ],
    )


def grpc_contenders():
    call = "http://127.0.0.1:{}/bench.Echo/Call".format
    separate = grpc_unary(call(H2C))  # nginx and HAProxy need a port of its own for HTTP/2 without TLS
    return [
        Contender("tidegate-l7", "this commit", tidegate(0, start_origin=grpc_origin, pool="protocol: h2"), grpc_unary(call(PLAIN)), ours=True),
        Contender("nginx grpc_pass", Package("nginx"), nginx(0, start_origin=grpc_origin, grpc=True), separate),
        Contender("haproxy", Package("haproxy"), haproxy(0, grpc=True), separate),
    ]


def protected_contenders():
    load = wrk(PLAIN_URL)
    protected = "policy: peak_ewma, breaker: {slow: 1s}, eject_after: 5"
    return [
        Contender("tidegate-l7", "this commit", tidegate(1024, pool=protected), load, ours=True),
        Contender("tidegate-l7, without", "this commit", tidegate(1024), load),
    ]


def h2c_contenders(size):
    """HTTP/2 without TLS, by prior knowledge. nginx needs a separate port for it, so it is not in this row."""
    load = h2load(PLAIN_URL)
    return [contender for contender in contenders(load, size) if contender.name in ("tidegate-l7", "h2o")]
