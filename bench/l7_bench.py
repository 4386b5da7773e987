# SPDX-License-Identifier: Apache-2.0
"""The proxy compared with nginx, HAProxy and H2O."""

import http.client
import resource

from generators import at_part_of_peak, grpc_unary, h2load, idle_tls, tls_handshakes, wrk
from http_servers import H2C, PLAIN, TLS, floor, grpc_origin, h2o, haproxy, json_origin, nginx, tidegate
from measure import Contender, Row, Package
from tokens import issuer

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
    yield Row("l7", "HTTP/1.1 plain, proxied, 20 kB of JSON, gzip", gzip_contenders(), unit="compressed")
    yield Row("l7", "HTTP/1.1 plain, proxied, 1 kB, JWT ES256, limit and CORS", policed_contenders())
    # What one instance should achieve: 100,000 requests/s on 100,000 connections, P99 below 50 ms, below 1 GB, below 80
    # % CPU.
    yield Row(
        "l7",
        f"a gateway instance: HTTP/1.1 plain, proxied, 1 kB, {IDLE_CONNECTIONS:,} connections, at 80 % of its own peak",
        [
            Contender("tidegate-l7", "this commit", tidegate(1024), at_part_of_peak(PLAIN_URL, 0.8, IDLE_CONNECTIONS, spread=True), ours=True)
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
    """We tell the backend who asked and by which id, and sign both ways with Via. HAProxy adds no field by itself, so it
    runs twice: as it is, and with these fields."""
    call = "http://127.0.0.1:{}/bench.Echo/Call".format
    separate = grpc_unary(call(H2C))  # nginx and HAProxy need a separate port for HTTP/2 without TLS
    fields = """  option forwardfor
  unique-id-format %[uuid()]
  unique-id-header X-Request-ID
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header Via "2 bench"
  http-response set-header Via "2 bench"
  http-response set-header X-Request-ID %[unique-id]"""
    return [
        Contender("tidegate-l7", "this commit", tidegate(0, start_origin=grpc_origin, pool="protocol: h2"), grpc_unary(call(PLAIN)), ours=True),
        Contender("nginx grpc_pass", Package("nginx"), nginx(0, start_origin=grpc_origin, grpc=True), separate),
        Contender("haproxy", Package("haproxy"), haproxy(0, grpc=True), separate),
        Contender("haproxy, the same fields", Package("haproxy"), haproxy(0, grpc=True, frontend=fields), separate),
    ]


def protected_contenders():
    load = wrk(PLAIN_URL)
    protected = "policy: peak_ewma, breaker: {slow: 1s}, eject_after: 5"
    return [
        Contender("tidegate-l7", "this commit", tidegate(1024, pool=protected), load, ours=True),
        Contender("tidegate-l7, without", "this commit", tidegate(1024), load),
    ]


def compressed(load):
    """The load, and how long one body is as the client gets it."""

    def with_bytes(seconds):
        sample = load(seconds)
        connection = http.client.HTTPConnection("127.0.0.1", PLAIN, timeout=10)
        connection.request("GET", "/x", headers={"Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        sample.extra["body_bytes"] = len(answer.read())
        connection.close()
        return sample

    return with_bytes


def gzip_contenders():
    """Both compress each answer anew, as those of an API. The level that is wanted: 0.35 of nginx's CPU time for 1.02
    of its bytes."""
    load = compressed(wrk(PLAIN_URL, headers=("Accept-Encoding: gzip",)))
    gzip = "gzip on; gzip_comp_level 1; gzip_types application/json; gzip_proxied any; gzip_min_length 0;"
    return [
        Contender("tidegate-l7", "this commit", tidegate(0, start_origin=json_origin, policy="compress: {codings: [gzip]}"), load, ours=True),
        Contender("tidegate-l7, as it is", "this commit", tidegate(0, start_origin=json_origin), load),
        Contender("nginx, gzip 1", Package("nginx"), nginx(0, start_origin=json_origin, more=gzip), load),
        Contender("nginx, as it is", Package("nginx"), nginx(0, start_origin=json_origin), load),
    ]


def policed_contenders():
    """Each request has a token that is checked, counts towards a limit that is never reached, and is from another
    origin. The levels that are wanted: 1.25 of the bare route, 0.8 of HAProxy."""
    keys = issuer()
    load = wrk(PLAIN_URL, headers=(f"Authorization: Bearer {keys.token}", "Origin: https://shop.example"))
    policy = f"""authenticate: {{jwt: {{keys_file: "{keys.jwks}", algorithms: [ES256], issuer: "https://id.test", audience: [api]}}}},
      limit: {{requests: 1000000, per: 1s, by: [client]}}, respond: {{cors: {{origins: ["https://shop.example"]}}}}"""
    frontend = f"""  stick-table type ip size 1m expire 10s store http_req_rate(1s)
  http-request track-sc0 src
  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 1000000000 }}
  http-request set-var(txn.bearer) http_auth_bearer
  http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_header_query('$.alg') -m str ES256 }}
  http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.iss') -m str https://id.test }}
  http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify("ES256","{keys.public}") -m int 1 }}
  http-after-response set-header Access-Control-Allow-Origin https://shop.example
  http-after-response set-header Vary Origin"""
    return [
        Contender("tidegate-l7", "this commit", tidegate(1024, policy=policy), load, ours=True),
        Contender("tidegate-l7, bare route", "this commit", tidegate(1024), load),
        Contender("haproxy, jwt_verify", Package("haproxy"), haproxy(1024, frontend=frontend), load),
        Contender("haproxy, bare", Package("haproxy"), haproxy(1024), load),
    ]


def h2c_contenders(size):
    """HTTP/2 without TLS, by prior knowledge. nginx needs a separate port for it, so it is not in this row."""
    load = h2load(PLAIN_URL)
    return [contender for contender in contenders(load, size) if contender.name in ("tidegate-l7", "h2o")]
