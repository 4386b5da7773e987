# SPDX-License-Identifier: Apache-2.0
"""What a client cannot do: take more than its share of answers, or forge its address, its line in the log, or its
route."""

import json
import socket
import threading
import uuid

from lab import open_socket
from netns import wait_until

WWW = "https://www.example.test"
PROXY = "10.10.0.11"


def logged(lab, mark):
    """The line of the request that contains `mark`, from proxy1's access log."""
    lines = []

    def found():
        lines[:] = [line for line in lab.log("proxy1", "l7").read_text(errors="replace").splitlines() if line.startswith("{") and mark in line]
        return lines

    wait_until("the access log has the request", found, 30)
    return json.loads(lines[0])


def test_ten_thousand_pipelined_requests_read_late_are_all_answered_in_order(lab):
    count = 10_000
    client = open_socket("client-eu", socket.AF_INET, socket.SOCK_STREAM)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
    client.settimeout(60)
    client.connect((PROXY, 80))
    requests = b"".join(b"GET /n/%d HTTP/1.1\r\nHost: www.example.test\r\n\r\n" % i for i in range(count))
    sender = threading.Thread(target=client.sendall, args=(requests,), daemon=True)
    sender.start()
    # A bystander on the same worker is served while the first answers wait to be read.
    assert lab.curl("client-eu", WWW + "/", vip=PROXY).stdout == "the origin's front page\n"
    received, answered = b"", 0
    while answered < count:
        piece = client.recv(65536)
        assert piece, (answered, received[:200])
        received += piece
        while (end := received.find(b"\r\n\r\n")) >= 0:
            head, received = received[:end], received[end + 4 :]
            assert head.startswith(b"HTTP/1.1 308 ") and b"Location: https://www.example.test/n/%d\r\n" % answered in head, (answered, head)
            answered += 1
    sender.join(10)
    client.close()


def test_a_route_that_denies_is_not_passed_by_another_spelling_of_its_path(lab):
    status = lambda path: lab.curl("client-eu", WWW + path, "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}", vip=PROXY).stdout
    route = lambda path: json.loads(lab.plane("proxy1", "l7", "/explain?url=" + WWW + path).body)["route"]
    deny = '  - {name: deny, listeners: [https], hosts: [www.example.test], path: "/api/v1/admin/*", status: 403}\n  - {name: api,'
    with lab.configured(("  - {name: api,", deny)):
        wait_until("the route is in force", lambda: status("/api/v1/admin/x") == "403", 30)
        for path in ("//api/v1/admin/x", "/api//v1/admin/x", "/api/v1///admin//x", "/.//api/v1/admin/x", "/api/v1/%2e//admin/x"):
            assert status(path) == "403" and route(path) == "deny", path
        for path in ("/api/v1/..;/v1/admin/x", "/api/v1/admin\\x"):
            assert status(path) == "400", path
        # A path that is not denied reaches the origin as it was sent.
        assert "uri=/api//v1/open//x " in lab.curl("client-eu", WWW + "/api//v1/open//x", "--path-as-is", vip=PROXY).stdout
        with lab.configured(("  - {name: api,", deny), ("tls: {certificates: [example]}}", "tls: {certificates: [example]}, merge_slashes: false}")):
            wait_until("slashes count", lambda: status("/api/v1//admin/x") == "200", 30)
    lab.settle()


def test_no_request_is_missing_in_the_log_whatever_it_carries(lab):
    mark = uuid.uuid4().hex
    context = ["--http1.1", "-o", "/dev/null", "--path-as-is"]
    lab.curl("client-eu", f"{WWW}/api/v1/{mark}-agent", *context, "-A", "é" * 2050, vip=PROXY)
    lab.curl("client-eu", f"{WWW}/api/v1/{mark}-query?" + '"' * 4200, *context, vip=PROXY)
    lab.curl("client-eu", f"{WWW}/api/v1/{mark}-plain?q=1", *context, "-A", "honest/1.0", vip=PROXY)
    agent, query, plain = (logged(lab, f"{mark}-{what}") for what in ("agent", "query", "plain"))
    assert agent["cut"] == ["user_agent"] and agent["status"] == 200, agent
    assert query["cut"] == ["query"] and query["query"].startswith('""'), query
    assert "cut" not in plain and plain["query"] == "q=1" and plain["user_agent"] == "honest/1.0", plain


def test_an_unreadable_hop_does_not_make_the_clients_own_entry_believed(lab):
    chains = {"6.6.6.6, 203.0.113.9:51234": "203.0.113.9", "6.6.6.6, [2001:db8::1]:443": "2001:db8::1", "6.6.6.6, unknown": "10.1.0.2", "6.6.6.6,": "10.1.0.2", "6.6.6.6, 203.0.113.9": "203.0.113.9"}  # fmt: skip
    with lab.configured(("tls: {certificates: [example]}}", "tls: {certificates: [example]}, trusted_proxies: [10.1.0.0/16]}")):
        ask = lambda chain, mark: lab.curl("client-eu", f"{WWW}/api/v1/{mark}", "-o", "/dev/null", "-H", f"X-Forwarded-For: {chain}", vip=PROXY)

        def in_force():
            mark = uuid.uuid4().hex
            ask("203.0.113.77", mark)
            return logged(lab, mark)["client"] == "203.0.113.77"

        wait_until("the client is trusted as a proxy", in_force, 30)
        for chain, client in chains.items():
            mark = uuid.uuid4().hex
            ask(chain, mark)
            assert logged(lab, mark)["client"] == client, chain
    lab.settle()
