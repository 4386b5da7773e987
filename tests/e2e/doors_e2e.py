# SPDX-License-Identifier: Apache-2.0
"""Too many clients at the listeners of every plane: clients that hold connections, and hosts that run out of
descriptors. Each test has a bystander."""

import contextlib
import os
import resource
import socket

from l4_e2e import metric
from lab import HOSTS, open_socket
from load import connect, tls_context

WWW = "https://www.example.test"
PROXY = "10.10.0.11"
DNS = "10.10.0.53"
NODE = 'management: "10.99.0.3:9090"\n    l7: {workers: 1'
REFUSED = "tidegate_l7_client_connections_refused_total"


def allow_files(files):
    """Lets this process open that many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, hard), hard))


@contextlib.contextmanager
def crowd(host, address, port, size, say=b""):
    """That many connections that send `say` and then nothing, until the block ends. The server may close some."""
    allow_files(size + 200)
    held = []
    try:
        for _ in range(size):
            client = open_socket(host, socket.AF_INET, socket.SOCK_STREAM)
            client.settimeout(10)
            held.append(client)
            client.connect((address, port))
            if say:
                with contextlib.suppress(OSError):
                    client.sendall(say)
        yield held
    finally:
        for client in held:
            client.close()


@contextlib.contextmanager
def silent_origin(lab, *more):
    """An origin behind /silent that accepts connections and never answers. It is in force (with the changes of
    `more`) until the block ends."""
    pool = "  - {name: silent, backends: [{name: a, addresses: [10.10.0.21], port: 8094}]}\n"
    route = '  - {name: silent, listeners: [https], hosts: [www.example.test], path: "/silent", pool: silent}\n'
    with contextlib.closing(open_socket("origin1", socket.AF_INET, socket.SOCK_STREAM)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOSTS["origin1"].v4, 8094))
        listener.listen(512)
        with lab.configured(("pools:\n", "pools:\n" + pool), ("routes:\n", "routes:\n" + route), *more):
            yield


@contextlib.contextmanager
def busy_crowd(host, size):
    """That many requests in progress, over TLS, to the silent origin. The proxy may refuse some. Yields how many it
    accepted."""
    whole = b"GET /silent HTTP/1.1\r\nHost: www.example.test\r\n\r\n"
    context, held = tls_context(), []
    try:
        for _ in range(size):
            with contextlib.suppress(OSError):
                held.append(connect(host, PROXY, 443, "www.example.test", context))
                held[-1].sock.sendall(whole)
        yield len(held)
    finally:
        for client in held:
            client.close()


def exchange(host, address, port, ask):
    """Returns the first bytes of the answer on a new connection."""
    with contextlib.closing(open_socket(host, socket.AF_INET, socket.SOCK_STREAM)) as client:
        client.settimeout(10)
        client.connect((address, port))
        client.sendall(ask)
        return client.recv(4096)


def test_at_max_connections_the_idle_make_room_and_bystanders_are_served(lab):
    refused, recycled = (lambda: metric(lab, "proxy1", "l7", REFUSED)), (lambda: metric(lab, "proxy1", "l7", "tidegate_l7_client_connections_recycled_total"))
    before, recycled_before = refused(), recycled()
    ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with lab.configured((NODE, NODE + ", max_connections: 200, max_connections_per_client: 200")):
        with crowd("client-eu", PROXY, 80, 260, b"GET / HTTP/1.1\r\nHo"), crowd("client-eu", PROXY, 443, 20):
            for _ in range(20):
                assert exchange("client-us", PROXY, 80, ask).startswith(b"HTTP/1.1 200 ")
        assert refused() == before, (before, refused())
        assert recycled() - recycled_before >= 80, (recycled_before, recycled())
    lab.settle()


def test_an_address_has_its_share_and_no_more(lab):
    refused = lambda: metric(lab, "proxy1", "l7", REFUSED, reason="client_connections")
    before = refused()
    with silent_origin(lab, (NODE, NODE + ", max_connections: 40")):
        # These connections have requests in progress. So none is closed for another client.
        with busy_crowd("client-eu", 15) as taken:
            assert taken == 10 and refused() - before == 5, (taken, before, refused())
            assert exchange("client-us", PROXY, 80, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 200 ")
            explained = lab.plane("proxy1", "l7", "/explain?url=http://www.example.test/&client=10.1.0.2").json()["client"]
            assert explained == {"connections": 10, "most_connections": 10, "new_connections_left": explained["new_connections_left"]}, explained
    lab.settle()


def test_idle_connections_leave_httpdns_and_doh_open(lab):
    for say in (b"", b"GET /dns-query HTTP/1.1\r\nHo"):
        with crowd("client-eu", DNS, 8053, 1_100, say):
            for _ in range(10):
                got = exchange("client-us", DNS, 8053, b"GET /1001/d?host=www.example.test HTTP/1.1\r\nHost: h\r\n\r\n")
                assert got.startswith(b"HTTP/1.1 200 "), got[:200]
            assert exchange("client-eu", DNS, 8053, b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n").startswith(b"HTTP/1.1 404 ")


def test_idle_connections_leave_dns_over_tcp_open(lab):
    query = bytes.fromhex("001e 0001 0100 0001 0000 0000 0000 03777777 076578616d706c65 0474657374 00 0001 0001".replace(" ", ""))
    query = len(query[2:]).to_bytes(2, "big") + query[2:]
    with contextlib.closing(open_socket("client-us", socket.AF_INET, socket.SOCK_STREAM)) as first:
        first.settimeout(10)
        first.connect((DNS, 53))
        with crowd("client-eu", DNS, 53, 1_100):
            for _ in range(10):
                assert exchange("client-us", DNS, 53, query)[2:4] == b"\x00\x01"
            # A client that came before the crowd keeps its connection: only connections of the crowd were closed to
            # make room.
            first.sendall(query)
            assert first.recv(4096)[2:4] == b"\x00\x01"


def test_a_crowd_at_the_controls_port_locks_out_neither_root_nor_others(lab):
    address, port = HOSTS["edge"].control.split(":")
    curl = ("curl", "-sk", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}", f"https://{address}:{port}/healthz")
    with crowd("proxy2", address, int(port), 1_100):
        assert lab.api("GET", "/v1/status").status == 200
        assert lab.run("proxy1", *curl).stdout in ("200", "401"), "a newcomer from another host"
        assert lab.run("proxy2", *curl).stdout in ("200", "401"), "a newcomer from the crowd's own"
    lab.wait_applied()


def test_without_descriptors_no_backend_is_blamed_and_the_admin_socket_answers(lab):
    proxy = lab.process("proxy1", "l7")
    count = lambda name, **labels: metric(lab, "proxy1", "l7", f"tidegate_l7_{name}", **labels)
    ejections, failures = count("ejections_total"), count("backend_failures_total")
    before = resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE)
    with silent_origin(lab), contextlib.ExitStack() as stack:
        # Fewer places than the crowd needs, in addition to what earlier tests have left open in the proxy.
        limit = len(os.listdir(f"/proc/{proxy.pid}/fd")) + 60
        resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (limit, before[1]))
        stack.callback(resource.prlimit, proxy.pid, resource.RLIMIT_NOFILE, before)
        with crowd("client-eu", PROXY, 80, 120):
            codes = [lab.curl("client-us", WWW + "/api/v1/load", "-o", "/dev/null", "-w", "%{http_code}", vip=PROXY, check=False).stdout for _ in range(10)]
            assert codes == ["200"] * 10, (codes, limit)
        # These requests do not end. A new client is refused or gets an error, and no backend is charged.
        with busy_crowd("client-eu", 120):
            assert count("client_connections_refused_total", reason="descriptors") + count("failures_total", reason="out_of_sockets") > 0
            assert lab.plane("proxy1", "l7", "/healthz").status == 200
            assert lab.plane("proxy1", "l7", "/status").json()["ready"]
    assert (count("ejections_total"), count("backend_failures_total")) == (ejections, failures)
    assert lab.curl("client-us", WWW + "/api/v1/load", "-o", "/dev/null", "-w", "%{http_code}", vip=PROXY).stdout == "200"
    lab.settle()


def test_two_hundred_connections_of_one_client_are_served(lab):
    out = lab.run("client-eu", "h2load", "-n", "2000", "-c", "200", "-m", "10", "--connect-to", f"{PROXY}:443", WWW + "/").stdout
    assert "2000 succeeded" in out, out
