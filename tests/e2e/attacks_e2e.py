# SPDX-License-Identifier: Apache-2.0
"""Hostile clients, and a hostile backend. Each attacks beside a bystander on another host, whose requests must all
be answered.

The attacks are those of bench/attacks.py. They come from client-us and are limited in time and bytes. The tests
assert counts.
"""

import contextlib
import json
import selectors
import socket
import subprocess
import threading
import time
from pathlib import Path

from doors_e2e import NODE, exchange
from l4_e2e import metric
from lab import HOSTS, open_socket
from load import SteadyLoad
from netns import in_namespace, wait_until

ATTACKS = Path(__file__).resolve().parent.parent.parent / "bench" / "attacks.py"
PROXY, MB = "10.10.0.11", 1 << 20
PORT = 8095  # of the backend behind http://a/x, which the attacks ask for
CALM = "GOAWAY 11"  # ENHANCE_YOUR_CALM
MOST_S, MOST_MB = 4, 64  # for an attack that is not ended earlier


def count(lab, name, **labels):
    return metric(lab, "proxy1", "l7", f"tidegate_l7_{name}", **labels)


@contextlib.contextmanager
def growth(lab, name, **labels):
    """Yields a function that tells how much a counter has grown since the block began."""
    before = count(lab, name, **labels)
    yield lambda: count(lab, name, **labels) - before


class Backend:
    """Counts connections and requests. serve() makes it answer. Otherwise it keeps its clients waiting until they
    close."""

    def __init__(self):
        self.connections = self.requests = self.longest_line = 0
        self.ending, self.heads = False, {}
        self.listener = open_socket("origin1", socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((HOSTS["origin1"].v4, PORT))
        self.listener.listen(512)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.ending:
            for key, _ in self.selector.select(0.05):
                if key.fileobj is self.listener:
                    self.connections += 1
                    client = self.listener.accept()[0]
                    self.heads[client] = b""
                    self.selector.register(client, selectors.EVENT_READ)
                else:
                    self.read(key.fileobj)

    def read(self, client):
        with contextlib.suppress(OSError):
            if piece := client.recv(65536):
                head = self.heads[client] + piece
                if b"\r\n\r\n" in head:
                    self.requests += 1
                    self.longest_line = max(self.longest_line, *map(len, head.split(b"\r\n")))
                    head = b""
                    self.serve(client)
                self.heads[client] = head
                return
        self.selector.unregister(client)
        del self.heads[client]
        client.close()

    def serve(self, client):
        pass

    def close(self):
        self.ending = True
        self.thread.join(10)
        for client in (self.listener, *self.heads):
            client.close()
        self.selector.close()


class HintingBackend(Backend):
    """Sends interim answers until the proxy has had enough."""

    HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    MOST = 100_000

    def serve(self, client):
        client.settimeout(0.5)
        with contextlib.suppress(OSError):
            for _ in range(self.MOST // 100):
                client.sendall(self.HINT * 100)


@contextlib.contextmanager
def attacked(lab, backend=Backend, limits=""):
    """Provides what the attacks ask for: /x is a backend's, /x/NUMBER is a redirect that repeats the number. Yields
    the backend."""
    pool = f"  - {{name: attacked, retry_attempts: 0, eject_after: 0, backends: [{{name: b, addresses: [10.10.0.21], port: {PORT}}}]}}\n"
    routes = "  - {name: attacked, listeners: [http], hosts: [a], path: /x, pool: attacked}\n"
    routes += '  - {name: numbered, listeners: [http], hosts: [a], path: "/x/*", redirect: "https://{host}{path}", status: 308}\n'
    with contextlib.closing(backend()) as made:
        with lab.configured((NODE, NODE + limits), ("pools:\n", "pools:\n" + pool), ("routes:\n", "routes:\n" + routes)):
            yield made


@contextlib.contextmanager
def bystander(lab, host="client-eu"):
    """Requests over TLS through the same worker to an origin. All must be answered on connections that stay open.
    At the end the proxy must have its memory back."""
    with SteadyLoad(lab, host, vips=(PROXY,), connections=2) as load:
        arena_before = count(lab, "arena_bytes")
        yield load
        wait_until("the memory of heads is back", lambda: count(lab, "arena_bytes") < arena_before + MB, 5)
    assert load.tally.failures == [] and load.tally.closed == 0, load.tally
    assert load.tally.ok == load.tally.requests, load.tally


def address(lab, host):
    """What the proxy stores about a host's address."""
    return lab.plane("proxy1", "l7", f"/explain?url=http://www.example.test/&client={HOSTS[host].v4}").json()["client"]


class Attack:
    """One running attack. `said` is what it prints when it is over."""

    def __init__(self, name, host):
        command = in_namespace(HOSTS[host].namespace, "/usr/bin/python3", ATTACKS, name, f"{PROXY}:80", MOST_S, MOST_MB)
        self.name, self.said = name, None
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def under_way(self):
        return self.process.poll() is None

    def end(self):
        self.process.terminate()
        return self.result()

    def result(self):
        out, errors = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, (self.name, errors)
        self.said = json.loads(out)
        return self.said


@contextlib.contextmanager
def attack(lab, name, host="client-us"):
    """Runs until the block ends, or until the proxy or its own time limit ends it. At the end the proxy holds no
    connection of it."""
    made = Attack(name, host)
    try:
        yield made
    finally:
        if made.said is None:
            made.process.kill()
            made.process.communicate()
    wait_until("its connections are gone", lambda: address(lab, host)["connections"] == 0, 5)


def served_beside(load, attack, answers=20):
    """At least that many requests of the bystander are answered before the attack is over."""
    load.wait_for(answers)
    assert attack.under_way(), f"{attack.name} was over before the bystander had {answers} answers"


def test_crumbs_of_a_cookie_give_their_memory_back(lab):
    arena = lambda: count(lab, "arena_bytes")
    with attacked(lab) as backend, bystander(lab) as load:
        before = arena()
        with attack(lab, "cookie_crumbs") as crumbs:
            wait_until("the backend has all the requests", lambda: backend.requests == 120, 10)
            # 440 pieces of 34 bytes, joined.
            assert backend.longest_line == len("cookie: ") + 440 * 34 + 439 * 2, backend.longest_line
            # At least the cookies themselves, and not much more.
            assert 120 * 440 * 34 < arena() - before < 120 * 100 * 1024, (before, arena())
            served_beside(load, crumbs)
            said = crumbs.end()
        assert said["ended"] == "served" and said["requests"] == 119, said


def test_a_header_block_of_references_ends_its_connection(lab):
    with attacked(lab) as backend, bystander(lab) as load, growth(lab, "http2_floods_total", reason="header_bytes") as floods:
        with attack(lab, "hpack_references") as references:
            said = references.result()
        assert said["endings"] == {CALM: 1} and floods() == 1, (said, floods())
        # Only the head of the first request is accepted.
        assert backend.requests <= 1, backend.requests
        load.wait_for(20)


def test_frames_that_move_nothing_on_end_their_connection(lab):
    with attacked(lab), bystander(lab) as load, growth(lab, "http2_floods_total", reason="idle_frames") as floods:
        for number, name in enumerate(("window_updates", "empty_data", "priorities", "pings", "unknown_frames"), 1):
            with attack(lab, name) as flood:
                said = flood.result()
            assert said["endings"] == {CALM: 1} and floods() == number, (name, said, floods())
            assert said["bytes"] < 8 * MB, (name, said)
        load.wait_for(20)


def resets_are_sent_away_and_then_refused(lab, name, attacker, other):
    rate, burst, cost = 500, 500, 300  # a flood costs its address 200 resets, and 100 for the flood itself
    limits = f", connection_rate_per_client: {rate}, connection_burst_per_client: {burst}"
    with attacked(lab, limits=limits) as backend, contextlib.ExitStack() as counters:
        # One of the hosts may have been the attacker of the previous test. While its address owes connections, it would
        # be refused.
        for host in (attacker, other):
            wait_until(f"{host} owes nothing", lambda: address(lab, host)["new_connections_left"] == burst, 10)
        load = counters.enter_context(bystander(lab, other))
        floods = counters.enter_context(growth(lab, "http2_floods_total", reason="resets"))
        refused = counters.enter_context(growth(lab, "client_connections_refused_total", reason="client_rate"))
        cancelled = counters.enter_context(growth(lab, "http2_cancelled_total"))
        began = time.monotonic()
        with attack(lab, name, attacker) as resets:
            wait_until("it is refused", lambda: refused() > 0, 5)
            served_beside(load, resets)
            said = resets.end()
        # A flood begins while its address has some of the burst left, including what was restored since then.
        most = 1 + (burst + rate * (time.monotonic() - began)) / cost
        assert said["ended"] == CALM and 1 <= said["endings"][CALM] <= floods() <= most, (said, floods(), most)
        # Nearly all requests were reset before their work began. The others: a read may end between a request's two frames.
        assert cancelled() > 100 * floods(), (cancelled(), floods())
        assert backend.connections <= 20 * floods(), (backend.connections, floods())


def test_who_resets_requests_is_sent_away_and_then_refused(lab):
    resets_are_sent_away_and_then_refused(lab, "rapid_resets", "client-us", "client-eu")


def test_who_provokes_resets_is_sent_away_and_then_refused(lab):
    resets_are_sent_away_and_then_refused(lab, "provoked_resets", "client-eu", "client-us")


def test_who_pipelines_without_end_is_answered_in_order_at_his_share(lab):
    with attacked(lab), bystander(lab) as load, growth(lab, "turns_ended_total") as turns:
        with attack(lab, "pipelined") as pipelined:
            wait_until("the attack fills its turns", lambda: turns() > 10, 5)
            served_beside(load, pipelined)
            said = pipelined.end()
        assert said["endings"] == {"served": 1} and said["in_order"], said
        assert set(said["answers"]) == {"308"} and said["answers"]["308"] > 10 * 64, said


def test_connection_options_without_end_are_refused(lab):
    with attacked(lab) as backend, bystander(lab) as load, growth(lab, "requests_refused_total", reason="too_many_options") as refused:
        with attack(lab, "connection_options") as options:
            wait_until("some were refused", lambda: refused() >= 10, 5)
            served_beside(load, options, answers=10)
            said = options.end()
        assert set(said["answers"]) == {"431"} and 1 <= said["answers"]["431"] <= refused() <= said["connections"], (said, refused())
        assert backend.connections == 0


def test_connections_that_say_nothing_make_room(lab):
    ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with attacked(lab, limits=", max_connections: 200, max_connections_per_client: 200"), contextlib.ExitStack() as counters:
        recycled = counters.enter_context(growth(lab, "client_connections_recycled_total"))
        refused = counters.enter_context(growth(lab, "client_connections_refused_total"))
        with attack(lab, "idle_connections") as idle:
            wait_until("they are all here", lambda: recycled() >= 60, 5)
            for _ in range(20):
                assert exchange("client-eu", PROXY, 80, ask).startswith(b"HTTP/1.1 200 ")
            assert idle.under_way()
            said = idle.end()
        assert refused() == 0 and said["connections"] == 260 and said["endings"]["closed"] >= 60, (refused(), said)


def test_a_backend_that_sends_interim_answers_without_end_fails_its_request_alone(lab):
    with attacked(lab, backend=HintingBackend) as backend, bystander(lab) as load, growth(lab, "failures_total", reason="too_many_interim") as failed:
        for number, version in enumerate(("--http1.1", "--http2-prior-knowledge"), 1):
            status = lab.curl("client-us", "http://a/x", version, "-o", "/dev/null", "-w", "%{http_code}", vip=PROXY).stdout
            assert status == "502" and failed() == number, (version, status, failed())
            assert backend.requests == number, backend.requests
        load.wait_for(20)
