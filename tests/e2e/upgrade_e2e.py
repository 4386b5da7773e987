# SPDX-License-Identifier: Apache-2.0
"""Daemons that are replaced by new processes while they serve. The loads never retry: every question that was sent has to be answered."""

import contextlib
import http.client
import concurrent.futures
import json
import os
import re
import signal
import socket
import threading

from failure_e2e import SlowReader
from lab import binary
from load import SteadyLoad, connect, tls_context
from marks import TIMED, long
from netns import wait_until
from time_e2e import ask, patient_origin
from topology import DNS_EU, HOSTS
from upgrading import DnsLoad, is_gone, upgrade, upgraded

PROXY = (HOSTS["proxy1"].v4, HOSTS["proxy1"].v6)
WWW = "https://www.example.test"


class Http2Load:
    """curl over HTTP/2, many requests on one connection. It opens another connection when it is told to (GOAWAY)."""

    BATCH = 200

    def __init__(self, lab, address):
        self.lab, self.address = lab, address
        self.failures, self.answered = [], 0
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        wait_until("HTTP/2 requests are answered", lambda: self.answered or self.failures, 30)
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join(60)

    def run(self):
        while not self.stopped.is_set():
            url = f"{WWW}/api/v1/load?n=[1-{self.BATCH}]"
            done = self.lab.curl("client-eu", url, "--http2", "-o", os.devnull, "-w", "%{http_code}-%{http_version}-%{errormsg}\n", vip=self.address, check=False)
            good = done.stdout.count("200-2-")
            self.answered += good
            if good != self.BATCH or done.returncode != 0:
                self.failures.append((done.returncode, [line for line in done.stdout.splitlines() if not line.startswith("200-2-")][:5]))


@contextlib.contextmanager
def ordinary_again(lab, *daemons):
    """Puts the lab's own processes in the place of those that upgrades left."""
    try:
        yield
    finally:
        for host, plane in daemons:
            status = lab.plane(host, plane, "/status").json()
            pids = [status["pid"], *(process["pid"] for process in status["draining_processes"])]
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            wait_until("every process is gone", lambda: all(is_gone(pid) for pid in pids), 20)
            lab.start_plane(host, plane)
        lab.wait_ready()
        lab.settle()


def plane_changes(lab):
    """Of the planes' states, as the control that leads has seen them: {series: count}."""
    series = {line for line in lab.api("GET", "/metrics").body.decode().splitlines() if line.startswith("tidegate_control_plane_changes_total")}
    assert series, "control counts them"
    return series


@contextlib.contextmanager
def connected_to(path):
    """A connection to a daemon's admin socket that stays open."""
    connection = http.client.HTTPConnection("plane")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(20)
    connection.sock.connect(str(path))
    with contextlib.closing(connection):
        yield connection


def alive(connection):
    connection.request("GET", "/alive")
    return json.loads(connection.getresponse().read())


def upgrade_under_load(lab, times, size="1m"):
    lab.settle()
    with contextlib.ExitStack() as stack:
        stack.enter_context(ordinary_again(lab, ("proxy1", "l7"), ("edge", "dns")))
        # The WebSocket of the first process outlives all upgrades.
        stack.enter_context(patient_origin(lab, 1, more=[('l7: {workers: 1, access_log: "-"}', 'l7: {workers: 1, access_log: "-", drain_timeout: 2h}')]))
        chat = stack.enter_context(dial_to(lab, PROXY[0]))
        ask(chat, "chat", "Connection: Upgrade\r\nUpgrade: websocket\r\n")
        assert chat.recv(4096).startswith(b"HTTP/1.1 101")
        changes = plane_changes(lab)
        # Control's question may wait at the old process's socket while the new one takes the path.
        asker = stack.enter_context(connected_to(lab.directory("proxy1") / "run" / "l7.sock"))
        assert alive(asker)["state"] == "up"
        with SteadyLoad(lab, "client-eu", vips=PROXY) as http1, Http2Load(lab, PROXY[0]) as http2, DnsLoad("client-eu", DNS_EU) as dns:
            download = SlowReader("client-eu", PROXY[0], f"/slow/{size}")
            assert download.answer.status == 200
            for turn in range(times):
                upgraded(lab, "proxy1", "l7")
                assert alive(asker)["state"] == "followed", "the old process does not speak for the plane"
                asker.request("GET", "/candidate")
                assert json.loads(asker.getresponse().read())["state"] == "followed", "nor does it vote"
                upgraded(lab, "edge", "dns")
                http1.wait_for(100)
                dns.wait_for(100)
                answered = http2.answered
                wait_until("HTTP/2 goes on", lambda: http2.answered > answered or http2.failures, 30)
                chat.sendall(b"still %d?" % turn)
                assert chat.recv(100) == b"still %d?" % turn, "a WebSocket of the first process lives on"
            assert download.rest() == b"".join(b"%015d\n" % i for i in range(64 * 1024)) * int(size[0])
        assert http1.tally.failures == [], http1.tally.failures[:5]
        assert http2.failures == [], http2.failures[:5]
        assert dns.lost == [], dns.lost[:5]
        assert plane_changes(lab) == changes, "control takes nobody out of the steering"
        draining = lab.plane("proxy1", "l7", "/status").json()["draining_processes"]
        assert [process for process in draining if process["connections"] > 0], "the first process serves the WebSocket"
        chat.close()
        wait_until("the old processes have ended", lambda: lab.plane("proxy1", "l7", "/status").json()["draining_processes"] == [], 60)
        metrics = lab.plane("proxy1", "l7", "/metrics").body.decode()
        assert f"tidegate_l7_generation {times + 1}\n" in metrics and "tidegate_l7_draining_processes 0\n" in metrics


@contextlib.contextmanager
def dial_to(lab, address):
    sock = connect("client-eu", address, 443, "www.example.test", tls_context(lab.directory("edge") / "example.crt"), timeout=120).sock
    try:
        yield sock
    finally:
        sock.close()


def test_two_upgrades_under_load_lose_refuse_and_reset_nothing(lab):
    upgrade_under_load(lab, 2)


@long
def test_many_upgrades_in_a_row_lose_nothing(lab):
    upgrade_under_load(lab, 20, "8m")


@long
def test_twenty_upgrades_under_as_much_load_as_one_core_gives_lose_nothing(lab):
    """wrk counts what is refused, reset or late, and opens another connection only when an answer says so."""
    seconds, told = 60, {}
    lab.settle()
    with ordinary_again(lab, ("proxy1", "l7")):
        load = threading.Thread(target=lambda: told.update(out=lab.run("client-eu", "wrk", "-t", "1", "-c", "64", "-d", f"{seconds}s", "--timeout", "10s", f"http://{PROXY[0]}/healthz", timeout=seconds + 60).stdout))
        load.start()
        upgrades = 0
        while load.is_alive() and upgrades < 20:
            upgraded(lab, "proxy1", "l7")
            upgrades += 1
        load.join()
    assert upgrades == 20, f"only {upgrades} upgrades in {seconds} s"
    assert "Socket errors" not in told["out"] and "Non-2xx" not in told["out"], told["out"]
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", told["out"])[1])
    print(f"      {rate:.0f} requests/s during {upgrades} upgrades")
    assert not TIMED or rate >= 5_000, told["out"]


# Each of 64 connections waits after an answer, so that all of them together ask 5,000 times per second if answers come
# fast.
PACE, PACED_CONNECTIONS, PACED_RATE = "function delay() return 12 end\n", 64, 5_000
PACED_PATH = "/static/varied/paced"


def wrk(lab, script):
    """What 64 clients see in one second who ask at that pace over TLS for what the proxy has in its cache: (requests a
    second, P99 in ms). None may be refused or reset."""
    out = lab.run("client-eu", "wrk", "-t", "1", "-c", PACED_CONNECTIONS, "-d", "1s", "-s", script, "-H", "Host: www.example.test", "--latency", "--timeout", "10s", f"https://{PROXY[0]}{PACED_PATH}", timeout=60).stdout
    assert "Socket errors" not in out and "Non-2xx" not in out, out
    number, unit = re.search(r"^ +99% +([\d.]+)(us|ms|s)$", out, re.MULTILINE).groups()
    return float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]), float(number) * {"us": 0.001, "ms": 1, "s": 1_000}[unit]


@contextlib.contextmanager
def websockets(lab, count):
    """WebSockets that stay open. At the end each of them has to answer."""

    def opened(_):
        sock = connect("client-eu", PROXY[0], 443, "www.example.test", tls_context(), timeout=120).sock
        ask(sock, "chat", "Connection: Upgrade\r\nUpgrade: websocket\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 101")
        return sock

    with concurrent.futures.ThreadPoolExecutor(8) as pool, contextlib.ExitStack() as stack:
        chats = [stack.enter_context(sock) for sock in pool.map(opened, range(count))]
        yield
        for number, chat in enumerate(chats):
            chat.sendall(b"still %d?" % number)
            assert chat.recv(100) == b"still %d?" % number, f"WebSocket {number} of {count} is gone"


@long
def test_upgrades_with_everything_under_way_lose_nothing_and_take_no_time(lab):
    """WebSockets, a slow download and a DNS load go on all the time. Each upgrade of the proxy begins in a second of 5,000
    requests, and between them are as many such seconds without one. Timed: 20 upgrades among 1,000 WebSockets, and the
    P99 of each second around one is at most twice that of the middle second without."""
    upgrades, chats, size = (20, 1_000, "8m") if TIMED else (3, 50, "1m")
    lab.settle()
    quiet, around = [], []
    script = lab.directory("client-eu") / "pace.lua"
    script.write_text(PACE)
    cached = lambda: "; hit" in lab.curl("client-eu", WWW + PACED_PATH, "-D", "-", "-o", os.devnull, vip=PROXY[0]).stdout.lower()
    wait_until("what is asked for is cached", cached)
    with contextlib.ExitStack() as stack:
        stack.enter_context(ordinary_again(lab, ("proxy1", "l7"), ("edge", "dns")))
        stack.enter_context(patient_origin(lab, 1, more=[('l7: {workers: 1, access_log: "-"}', 'l7: {workers: 1, access_log: "-", drain_timeout: 2h}')]))
        stack.enter_context(websockets(lab, chats))
        dns = stack.enter_context(DnsLoad("client-eu", DNS_EU))
        download = SlowReader("client-eu", PROXY[0], f"/slow/{size}")
        assert download.answer.status == 200
        open_connections = lambda: int(re.search(r"^tidegate_l7_client_connections (\d+)$", lab.plane("proxy1", "l7", "/metrics").body.decode(), re.MULTILINE)[1])
        for _ in range(upgrades):
            quiet.append(wrk(lab, script))
            before = open_connections()
            with concurrent.futures.ThreadPoolExecutor() as pool:
                load = pool.submit(wrk, lab, script)
                wait_until("the load has begun", lambda: open_connections() >= before + PACED_CONNECTIONS or load.done(), 20)
                upgraded(lab, "proxy1", "l7")
                around.append(load.result())
            upgraded(lab, "edge", "dns")
        assert download.rest() == b"".join(b"%015d\n" % i for i in range(64 * 1024)) * int(size[0])
        dns.wait_for(100)
        assert dns.lost == [], dns.lost[:5]
    middle = lambda values: sorted(values)[len(values) // 2]
    for kind, seconds in (("without", quiet), ("around", around)):
        print(f"      {kind} an upgrade: {middle([rate for rate, _ in seconds]):.0f} requests/s in the middle; P99 in ms: {' '.join(f'{p99:.2f}' for p99 in sorted(p99 for _, p99 in seconds))}")
    limit_ms = 2 * middle([p99 for _, p99 in quiet])
    # A request without an answer in its second is not in the P99. So the rate is checked too.
    late = [(round(rate), p99) for rate, p99 in around if p99 > limit_ms or rate < 0.8 * PACED_RATE]
    assert not TIMED or (middle([rate for rate, _ in around]) >= 0.9 * PACED_RATE and not late), (limit_ms, late)


def test_the_cache_is_taken_over_warm_and_a_purge_in_between_holds(lab):
    lab.settle()
    with ordinary_again(lab, ("proxy1", "l7")):

        def cached(path):
            return lab.curl("client-eu", WWW + path, "-D", "-", "-o", os.devnull, vip=PROXY[0]).stdout.lower()

        cached("/static/8m")
        wait_until("8m is a hit", lambda: "; hit" in cached("/static/8m"))
        kept = "/static/8m"
        slow = SlowReader("client-eu", PROXY[0], kept)  # from the disk tier of the process that is replaced
        assert slow.answer.status == 200
        upgraded(lab, "proxy1", "l7")
        wait_until("the new process has the index", lambda: not lab.plane("proxy1", "l7", "/status").json()["cache"]["loading"])
        assert "; hit" in cached(kept), "what the old process stored is served by the new one"
        lab.tidegate("purge", WWW + kept, "--wait")
        assert "; hit" not in cached(kept), "the purge is the new process's"
        assert slow.rest() == b"".join(b"%015d\n" % i for i in range(64 * 1024)) * 8, "the old process ends its body from what was there"


def of_another_cache(path):
    """A copy of the proxy whose cache has another format on the disk."""
    program = binary("l7").read_bytes()
    assert b"-cache 2" in program, "the format's name has changed: see kStoreFormat"
    path.write_bytes(program.replace(b"-cache 2", b"-cache 3"))
    path.chmod(0o755)
    return path


@long
def test_an_upgrade_over_another_format_of_the_cache_says_so_and_begins_with_an_empty_disk(lab):
    lab.settle()
    with ordinary_again(lab, ("proxy1", "l7")):

        def cached():
            return lab.curl("client-eu", WWW + "/static/8m", "-D", "-", "-o", os.devnull, vip=PROXY[0]).stdout.lower()

        wait_until("8m is a hit", lambda: "; hit" in cached())
        run_dir, log = lab.directory("proxy1") / "run", lab.directory("proxy1") / "l7.log"
        told_before = log.stat().st_size
        slow = SlowReader("client-eu", PROXY[0], "/static/8m")  # from the disk tier of the process that is replaced
        assert slow.answer.status == 200
        program = of_another_cache(lab.directory("proxy1") / "l7-of-another-cache")
        try:
            with SteadyLoad(lab, "client-eu", vips=PROXY) as load:
                load.wait_for(50)
                done = upgrade(run_dir, "l7", "--program", program)
                load.wait_for(50)
                changes = "the disk's data begins empty: its format changes from tidegate-cache 2 to tidegate-cache 3"
                assert done.returncode == 0 and changes in done.stdout, (done.stdout, done.stderr)
                status = lab.plane("proxy1", "l7", "/status").json()
                wait_until("the new process has looked at its disk", lambda: not lab.plane("proxy1", "l7", "/status").json()["cache"]["loading"])
                assert "; hit" not in cached(), "it is fetched again"
                wait_until("it is stored again", lambda: "; hit" in cached())
            assert load.tally.failures == [], load.tally.failures[:5]
            assert slow.rest() == b"".join(b"%015d\n" % i for i in range(64 * 1024)) * 8, "the old process ends its body from what was there"
            log_text = log.read_bytes()[told_before:].decode(errors="replace")
            assert f"upgrade: data: {changes}" in log_text and "its format is tidegate-cache 2, this program's is tidegate-cache 3" in log_text, log_text[-2000:]
            assert status["ready"] and lab.plane("proxy1", "l7", "/status").json()["cache"]["disk_trouble"] is None
            # The upgrade to the earlier release works in the same way.
            done = upgrade(run_dir, "l7", "--program", binary("l7"))
            assert done.returncode == 0 and "its format changes from tidegate-cache 3 to tidegate-cache 2" in done.stdout, done
            wait_until("it is stored again", lambda: "; hit" in cached())
        finally:
            program.unlink()
