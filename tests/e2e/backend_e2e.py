# SPDX-License-Identifier: Apache-2.0
"""The proxy and its backends: which one each policy picks, and what a client is told when a backend stops in the
middle."""

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import threading

from lab import HOSTS, open_socket
from marks import long
from netns import wait_until

WWW = "https://www.example.test"
PROXIES = ("10.10.0.11", "fd10::12")
RUNS = itertools.count(1)


class StuckOrigin:
    """Takes every request and then does what its path says: nothing, half a body, or a byte now and then for ever."""

    def __init__(self, host, port):
        self.listener = open_socket(host, socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((HOSTS[host].v4, port))
        self.listener.listen()
        self.ending = threading.Event()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        try:
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()
        except OSError:
            pass  # closed

    def serve(self, connection):
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = connection.recv(4096)
                if not piece:
                    return
                head += piece
            path = head.split()[1]
            try:
                if path != b"/stuck/silent":
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nhalf a body")
                while path == b"/stuck/drips" and not self.ending.wait(0.02):
                    connection.sendall(b".")
                connection.recv(1)  # until the proxy gives up
            except OSError:
                pass

    def close(self):
        self.ending.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def pools_of_every_kind(lab):
    """The lab's document with pools of each policy and pools that get stuck. It is in force for a block."""
    origins = "[{{name: origin1, addresses: [10.10.0.21], port: 8080, weight: {0}}}, {{name: origin2, addresses: [\"fd10::22\"], port: 8080, weight: {1}}}]".format
    pools = f"  - {{name: turns, policy: weighted_round_robin, backends: {origins(300, 100)}}}\n"
    pools += f"  - {{name: hashed, policy: consistent_hash, hash_on: path, load_bound: 100, backends: {origins(100, 100)}}}\n"
    stuck = "backends: [{name: b, addresses: [10.10.0.21], port: 8090}], retry_attempts: 0, eject_after: 0"
    pools += f"  - {{name: stuck, {stuck}, first_byte_timeout: 300ms, idle_timeout: 300ms}}\n"
    pools += f"  - {{name: patient, {stuck}}}\n"
    pools += "  - {name: nowhere, backends: [{name: b, addresses: [10.10.0.99], port: 80}], connect_timeout: 300ms, retry_attempts: 0, eject_after: 0}\n"
    pools += "  - {name: refusing, backends: [{name: b, addresses: [10.10.0.21], port: 9}], retry_attempts: 0, eject_after: 0}\n"
    route = '  - {{name: {0}, listeners: [https], hosts: [www.example.test], path: "/{1}", pool: {0}{2}}}\n'.format
    routes = route("turns", "api/turns/*", "") + route("hashed", "api/hashed/*", "") + route("stuck", "stuck/{how}", "")
    routes += route("patient", "stuck/drips", ", total_timeout: 500ms") + route("nowhere", "nowhere", "") + route("refusing", "refusing", "")
    return lab.configured(("pools:\n", "pools:\n" + pools), ("routes:\n", "routes:\n" + routes))


def origin_of(lab, path, proxy):
    return re.search(r"origin=(\w+)", lab.curl("client-eu", WWW + path, vip=proxy).stdout)[1]


def test_a_pool_in_turns_shares_requests_exactly_as_its_weights_say(lab):
    with pools_of_every_kind(lab):
        urls = [f"{WWW}/api/turns/{i}" for i in range(40)]
        out = lab.curl("client-eu", urls[0], *urls[1:], vip=PROXIES[0]).stdout
    assert (out.count("origin=origin1"), out.count("origin=origin2")) == (30, 10), out


def test_a_hashed_pool_gives_a_path_to_one_origin_whichever_proxy_is_asked(lab):
    paths = [f"/api/hashed/{i}" for i in range(12)]
    with pools_of_every_kind(lab):
        told = {path: [origin_of(lab, path, proxy) for proxy in PROXIES for _ in range(2)] for path in paths}
        explained = lab.plane("proxy1", "l7", f"/explain?client=10.1.0.2&url={WWW}{paths[0]}").json()
    assert all(len(set(origins)) == 1 for origins in told.values()), told
    assert {origins[0] for origins in told.values()} == {"origin1", "origin2"}, told
    assert explained["backend"] == told[paths[0]][0], explained


def tells_what_became(lab, versions):
    """`versions`: of HTTP, for each case in turn."""
    with pools_of_every_kind(lab), contextlib.closing(StuckOrigin("origin1", 8090)):
        for path, status, failure in (
            ("/nowhere", "504", "connect_timeout"),
            ("/refusing", "502", "connect_failed"),
            ("/stuck/silent", "504", "first_byte_timeout"),
            ("/stuck/half", "200", "body_timeout"),
            ("/stuck/drips", "200", "client_gone"),  # bytes move: total_timeout ends with the response's head
        ):
            asked = next(versions)
            for version in asked:
                out = lab.curl("client-eu", WWW + path, version, "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "1.5", vip=PROXIES[0], check=False)
                # An answer that breaks off must never look complete.
                assert out.stdout == status and (out.returncode != 0) == (status == "200"), (path, version, out)
            lines = lambda: [json.loads(line) for line in lab.log("proxy1", "l7").read_text(errors="replace").splitlines() if f'"{path}"' in line]
            wait_until(f"the log tells of {path}", lambda: len(lines()) >= len(asked), 10)
            assert {line["failure"] for line in lines()} == {failure}, lines()


def test_what_becomes_of_a_request_whose_backend_stops_is_told_by_status_and_log(lab):
    tells_what_became(lab, itertools.cycle((["--http1.1"], ["--http2"])))


@long
def test_it_is_told_alike_over_both_versions_of_http(lab):
    tells_what_became(lab, itertools.repeat(["--http1.1", "--http2"]))


def test_a_sticky_client_stays_on_its_origin_whichever_proxy_it_asks(lab):
    origins = '[{name: origin1, addresses: [10.10.0.21], port: 8080}, {name: origin2, addresses: ["fd10::22"], port: 8080}]'
    pools = "".join(f"  - {{name: by-{by}, sticky: {{by: {by}, name: X-Server}}, backends: {origins}}}\n" for by in ("cookie", "header"))
    routes = "".join(f'  - {{name: by-{by}, listeners: [https], hosts: [www.example.test], path: "/api/{by}/*", pool: by-{by}}}\n' for by in ("cookie", "header"))
    with lab.configured(("pools:\n", "pools:\n" + pools), ("routes:\n", "routes:\n" + routes)):
        for by in ("cookie", "header"):

            def ask(token, proxy, by=by):
                """Which origin answered, and the token that the answer has."""
                field = [] if token is None else ["-H", f"Cookie: other=1; X-Server={token}" if by == "cookie" else f"X-Server: {token}"]
                out = lab.curl("client-eu", f"{WWW}/api/{by}/x", "-i", *field, vip=proxy).stdout
                told = re.search(r"(?im)^(?:set-cookie: X-Server=|x-server: )([^;\r\n]+)", out)
                return re.search(r"origin=(\w+)", out)[1], told and told[1]

            firsts = [ask(None, PROXIES[0]) for _ in range(2)]
            assert {origin for origin, _ in firsts} == {"origin1", "origin2"}, firsts
            for origin, token in firsts:
                assert [ask(token, proxy) for proxy in PROXIES] == [(origin, None)] * 2, (by, origin, token)
            forged = firsts[0][1][:-4] + ("AAAA" if firsts[0][1][-4:] != "AAAA" else "BBBB")
            assert all(ask(forged, PROXIES[0])[1] not in (None, forged) for _ in range(2)), "a token that is not signed is replaced"


def test_a_breaker_stops_asking_a_backend_that_fails_and_explain_says_so(lab):
    broken = f"broken{next(RUNS)}"  # the breaker of a pool with the same name would still be open
    pool = f"  - {{name: {broken}, retry_attempts: 0, eject_after: 0, backends: [{{name: b, addresses: [10.10.0.21], port: 9}}], breaker: {{consecutive_failures: 2, open: 1h}}}}\n"
    pool += "  - {name: spared, retry_attempts: 1, eject_after: 1, backends: [{name: b, addresses: [10.10.0.21], port: 9}, {name: spare, addresses: [10.10.0.21], port: 8080, backup: true}]}\n"
    routes = "".join(f'  - {{name: {name}, listeners: [https], hosts: [www.example.test], path: "/api/{name}", pool: {name}}}\n' for name in (broken, "spared"))
    with lab.configured(("pools:\n", "pools:\n" + pool), ("routes:\n", "routes:\n" + routes)):
        status = lambda path: lab.curl("client-eu", WWW + path, "-o", "/dev/null", "-w", "%{http_code}", vip=PROXIES[0], check=False).stdout
        explain = lambda path: lab.plane("proxy1", "l7", f"/explain?client=10.1.0.2&url={WWW}{path}").json()
        assert [status(f"/api/{broken}") for _ in range(4)] == ["502", "502", "503", "503"]
        assert explain(f"/api/{broken}")["eligible"][0]["breaker"] == "open", explain(f"/api/{broken}")
        assert {status("/api/spared") for _ in range(4)} == {"200"}
        assert explain("/api/spared")["levels"]["backup"] == 1, explain("/api/spared")


@long
def test_a_name_as_a_backend_follows_its_answers_and_outlives_its_name_server(lab):
    pools = "  - {name: behind, backends: [{name: origin1, addresses: [10.10.0.21]}, {name: origin2, addresses: [10.10.0.22]}]}\n"
    pools += "  - {name: named, lookup_min: 50ms, lookup_max: 100ms, backends: [{name: app, host: app.example.test, port: 8080}]}\n"
    steer = "  - {name: app.example.test, policy: multivalue, ttl: 1s, targets: [{pool: behind}]}\n"
    route = '  - {name: named, listeners: [https], hosts: [www.example.test], path: "/api/named", pool: named}\n'
    resolver = ('  - name: proxy1\n    site: eu\n', '  - name: proxy1\n    site: eu\n    dns: {enabled: false, resolvers: ["10.10.0.53:53"]}\n')
    changes = [("pools:\n", "pools:\n" + pools), ("steers:\n", "steers:\n" + steer), ("routes:\n", "routes:\n" + route), resolver]
    with lab.configured(*changes):
        entry = lambda: lab.plane("proxy1", "l7", f"/explain?client=10.1.0.2&url={WWW}/api/named").json()["eligible"][0]
        servers = lambda: [server["backend"] for server in entry()["servers"]]
        urls = [f"{WWW}/api/named"] * 10
        origins = lambda: set(re.findall(r"origin=(\w+)", lab.curl("client-eu", urls[0], *urls[1:], vip=PROXIES[0]).stdout))
        wait_until("both addresses are found", lambda: servers() == ["app/10.10.0.21:8080", "app/10.10.0.22:8080"], 10)
        assert origins() == {"origin1", "origin2"}
        version = lab.plane("proxy1", "l7", "/status").json()["version"]
        lab.tidegate("drain", "backend", "behind/origin1", "--wait")
        try:
            wait_until("one address is left", lambda: servers() == ["app/10.10.0.22:8080"], 10)
            assert origins() == {"origin2"}
            dns = lab.process("edge", "dns")
            os.kill(dns.pid, signal.SIGSTOP)  # it does not answer any more
            try:
                wait_until("the lookup fails", lambda: entry()["lookup"] != "found", 30)
                assert servers() == ["app/10.10.0.22:8080"], entry()
                assert origins() == {"origin2"}
            finally:
                os.kill(dns.pid, signal.SIGCONT)
        finally:
            lab.tidegate("undrain", "backend", "behind/origin1", "--wait")
        wait_until("both are back", lambda: len(servers()) == 2, 30)
        assert lab.plane("proxy1", "l7", "/status").json()["version"] == version, "addresses are no version"


def test_probes_find_the_sick_servers_of_a_name_and_the_proxy_leaves_them_out(lab):
    """The name leads to origin1 and to the name server's own address, at which nothing listens on that port."""
    pools = "  - {name: behind, backends: [{name: origin1, addresses: [10.10.0.21]}, {name: origin2, addresses: [10.10.0.22]}, {name: nobody, addresses: [10.10.0.53]}]}\n"
    pools += "  - {name: checked, probe: named, all_down: closed, eject_after: 0, retry_attempts: 0, lookup_min: 50ms, lookup_max: 100ms, backends: [{name: app, host: app.example.test, port: 8080}]}\n"
    steer = "  - {name: app.example.test, policy: multivalue, ttl: 1s, targets: [{pool: behind}]}\n"
    route = '  - {name: checked, listeners: [https], hosts: [www.example.test], path: "/api/checked", pool: checked}\n'
    resolver = ("      nsid: edge\n", '      nsid: edge\n      resolvers: ["10.10.0.53:53"]\n')
    probe = "  - {name: named, type: tcp, interval: 50ms, rise: 1, fall: 1}\n"
    changes = [("pools:\n", "pools:\n" + pools), ("steers:\n", "steers:\n" + steer), ("routes:\n", "routes:\n" + route), ("probes:\n", "probes:\n" + probe)]
    with lab.configured(*changes, resolver):
        states = lambda: {entry["backend"]: entry["state"] for entry in lab.plane("proxy1", "l7", f"/explain?client=10.1.0.2&url={WWW}/api/checked").json()["eligible"]}
        origin1, origin2, nobody = ("app/10.10.0.21:8080", "app/10.10.0.22:8080", "app/10.10.0.53:8080")
        wait_until("each server has its verdict", lambda: states() == {origin1: "up", origin2: "up", nobody: "down"}, 20)
        urls = [f"{WWW}/api/checked"] * 10
        answers = lambda: lab.curl("client-eu", urls[0], *urls[1:], vip=PROXIES[0]).stdout
        origins = re.findall(r"origin=(\w+)", answers())
        assert len(origins) == 10 and set(origins) == {"origin1", "origin2"}, origins
        version = lab.plane("proxy1", "l7", "/status").json()["version"]
        assert any(pool["pool"] == "checked" and len(pool["backends"]) == 3 for pool in lab.api("GET", "/v1/health").json()["pools"])
        lab.tidegate("drain", "backend", "behind/origin1", "--wait")
        try:
            wait_until("its name no longer leads to origin1", lambda: states() == {origin2: "up", nobody: "down"}, 20)
            assert set(re.findall(r"origin=(\w+)", answers())) == {"origin2"}
        finally:
            lab.tidegate("undrain", "backend", "behind/origin1", "--wait")
        assert lab.plane("proxy1", "l7", "/status").json()["version"] == version, "addresses are no version"


def test_forwarder_and_dns_use_the_servers_that_a_name_leads_to(lab):
    """The name leads to both proxies, which listen on a port that only this service forwards to."""
    pools = "  - {name: behind, backends: [{name: one, addresses: [10.10.0.11]}, {name: two, addresses: [10.10.0.12]}]}\n"
    pools += "  - {name: named, lookup_min: 50ms, lookup_max: 100ms, backends: [{name: app, host: app.example.test, port: 8089}]}\n"
    service = "  - {name: named-eu, vip: vip-eu, port: 8089, protocol: tcp, pool: named}\n"
    steers = "  - {name: app.example.test, policy: multivalue, ttl: 1s, targets: [{pool: behind}]}\n  - {name: found.example.test, policy: multivalue, ttl: 1s, targets: [{pool: named}]}\n"
    listener = '  - {name: named, bind: ["0.0.0.0:8089"]}\n'
    route = '  - {name: named, listeners: [named], path: "/named", status: 200, body: "here\\n"}\n'
    changes = [("pools:\n", "pools:\n" + pools), ("services:\n", "services:\n" + service), ("steers:\n", "steers:\n" + steers)]
    changes += [("listeners:\n", "listeners:\n" + listener), ("routes:\n", "routes:\n" + route), ("      nsid: edge\n", '      nsid: edge\n      resolvers: ["10.10.0.53:53"]\n')]
    with lab.configured(*changes):
        answers = lambda: set(lab.run("client-eu", "dig", "+tries=1", "+time=3", "+short", "@10.10.0.53", "found.example.test", "A").stdout.split())
        servers = lambda: {entry["backend"]: entry["state"] for entry in lab.plane("l4", "l4", "/explain?client=10.1.0.2&vip=10.10.0.100&port=8089&protocol=tcp").json()["eligible"]}
        one, two = ("app/10.10.0.11:8089", "app/10.10.0.12:8089")
        wait_until("the forwarder has both", lambda: servers() == {one: "up", two: "up"}, 20)
        wait_until("DNS has both", lambda: answers() == {"10.10.0.11", "10.10.0.12"}, 20)
        assert lab.curl("client-eu", "http://10.10.0.100:8089/named").stdout.endswith("here\n")
        version = lab.plane("l4", "l4", "/status").json()["version"]
        lab.tidegate("drain", "backend", "behind/one", "--wait")
        try:
            wait_until("the forwarder gives the first one no new flows", lambda: servers() == {one: "draining", two: "up"}, 20)
            wait_until("DNS leaves it out", lambda: answers() == {"10.10.0.12"}, 20)
            assert lab.curl("client-eu", "http://10.10.0.100:8089/named").stdout.endswith("here\n")
        finally:
            lab.tidegate("undrain", "backend", "behind/one", "--wait")
        assert lab.plane("l4", "l4", "/status").json()["version"] == version, "addresses are no version"
