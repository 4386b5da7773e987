# SPDX-License-Identifier: Apache-2.0
"""Daemons that are replaced by new processes while they serve. The loads never retry: every question that was sent has to be answered."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time
import box
import xdp_e2e
from failure_e2e import SlowReader
from lab import BUILD, binary, open_socket, unix_request
from load import SteadyLoad, connect, tls_context
from marks import TIMED, long
from netns import wait_until
from time_e2e import ask, patient_origin
from topology import DNS_EU, HOSTS

PROXY = (HOSTS["proxy1"].v4, HOSTS["proxy1"].v6)
WWW = "https://www.example.test"


class DnsLoad:
    """Questions over UDP, each from a socket of its own, and over TCP connections that stay. None is asked twice."""

    QUESTION = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + b"\x03www\x07example\x04test\x00" + struct.pack(">HH", 1, 1)

    def __init__(self, host, servers, port=53, udp=2, tcp=2):
        self.host, self.port = host, port
        self.lost, self.answered, self.closed = [], 0, 0
        self.mutex, self.stopped = threading.Lock(), threading.Event()
        kinds = [(self.over_udp, servers[i % len(servers)]) for i in range(udp)] + [(self.over_tcp, servers[i % len(servers)]) for i in range(tcp)]
        self.threads = [threading.Thread(target=kind, args=(server,), daemon=True) for kind, server in kinds]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        self.wait_for(20)
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for thread in self.threads:
            thread.join(30)

    def wait_for(self, more):
        target = self.answered + more
        wait_until(f"{more} questions more are answered", lambda: self.answered >= target or self.lost, 60)

    def note(self, answer, way):
        with self.mutex:
            if answer[:2] == self.QUESTION[:2] and answer[3] & 0x0F == 0 and answer[7] > 0:
                self.answered += 1
            else:
                self.lost.append(f"{way}: {answer!r}")

    def over_udp(self, server):
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        while not self.stopped.is_set():
            with open_socket(self.host, family, socket.SOCK_DGRAM) as sock:
                sock.settimeout(10)
                try:
                    sock.connect((server, self.port))
                    sock.send(self.QUESTION)
                    self.note(sock.recv(4096), "udp")
                except OSError as error:
                    self.note(b"", f"udp {error}")

    def over_tcp(self, server):
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        while not self.stopped.is_set():
            with open_socket(self.host, family, socket.SOCK_STREAM) as sock:
                sock.settimeout(10)
                try:
                    sock.connect((server, self.port))
                    for _ in range(40):
                        if self.stopped.is_set():
                            break
                        sock.sendall(struct.pack(">H", len(self.QUESTION)) + self.QUESTION)
                        self.note(sock.recv(4096)[2:], "tcp")
                except (OSError, IndexError) as error:
                    self.note(b"\0" * 8, f"tcp {error}")


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


def upgrade(run_dir, *arguments):
    command = [str(BUILD / "control" / "tidegate"), "upgrade", *map(str, arguments), "--run", str(run_dir)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)


def upgraded(lab, host, plane):
    """Upgrades it, and returns the new process's status."""
    before = lab.plane(host, plane, "/status").json()
    done = upgrade(lab.directory(host) / "run", plane)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "serves" in done.stdout and "sockets are handed over" in done.stdout, done.stdout
    after = lab.plane(host, plane, "/status").json()
    assert after["generation"] == before["generation"] + 1 and after["pid"] != before["pid"], after
    assert after["version"] == before["version"] and after["ready"], after
    return after


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


def is_gone(pid):
    """It holds no descriptor any more. Nobody may have asked for its exit status yet. The first thread is a zombie before
    the others have ended."""
    try:
        state = re.search(r"^State:\s+(\S)", open(f"/proc/{pid}/status").read(), re.MULTILINE)[1]
        return state == "Z" and len(os.listdir(f"/proc/{pid}/task")) == 1
    except (FileNotFoundError, ProcessLookupError):
        return True


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


ZONE = "$ORIGIN example.test.\n$TTL 60\n@ IN SOA ns1 hostmaster 1 3600 600 604800 60\n@ IN NS ns1\nns1 IN A 192.0.2.53\nwww IN A 192.0.2.80\n"


def dns_document(workers):
    return f"""
nodes: [{{name: up, dns: {{listen: ["10.10.0.66:53"], workers: {workers}}}}}]
zones: [{{name: example.test, file: example.test.zone}}]
"""


class OneServer:
    """tidegate-dns alone on a machine, and programs that pretend to be its next release."""

    def __init__(self, machine):
        self.machine = machine
        machine.write("example.test.zone", ZONE)
        self.process = machine.start_plane("dns", machine.write("up.yaml", dns_document(1)))
        machine.wait_ready("dns", self.process)

    def status(self):
        return self.machine.ask("dns", "/status").json()

    def program(self, name, text):
        path = self.machine.write(name, text)
        path.chmod(0o755)
        return path

    def refused(self, *options):
        """An upgrade that fails: the old process goes on, and says why. Returns the reason."""
        before = self.status()
        done = upgrade(self.machine.run_dir, "dns", *options)
        assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
        after = self.status()
        assert (after["pid"], after["generation"], after["upgrade"]) == (before["pid"], before["generation"], None), after
        assert self.machine.ask("dns", "/healthz").status == 200
        assert "the old process goes on" in done.stderr, done.stderr
        return done.stderr


@contextlib.contextmanager
def one_server():
    with box.raised("up", 66) as machine:
        try:
            yield OneServer(machine)
        finally:
            end_all(machine)


def test_a_new_program_that_is_no_good_changes_nothing(lab):
    with one_server() as server, DnsLoad("client-eu", [server.machine.host.v4]) as load:
        real = binary("dns")
        assert "exit status 3" in server.refused("--program", server.program("crashes", "#!/bin/sh\nexit 3\n"))
        assert "signal 11" in server.refused("--program", server.program("faults", "#!/bin/sh\nkill -SEGV $$\n"))
        assert "not ready within 1000 ms" in server.refused("--within", 1, "--program", server.program("hangs", "#!/bin/sh\nexec sleep 1000\n"))
        assert "No such file" in server.refused("--program", server.machine.home / "absent")
        server.program("talks", "#!/usr/bin/python3\nimport os, socket\ns = socket.socket(fileno=3)\ns.send(b'nonsense')\ns.recv(100)\n")
        assert "no message of a hand-over" in server.refused("--program", server.machine.home / "talks")
        older = server.program("older", f'#!/bin/sh\nTIDEGATE_HAND_OVER=3:0 exec {real} "$@"\n')
        assert re.search(r"the hand-over's format is 0; this program \(\S+\) speaks 1 to 2", server.refused("--program", older))
        newer = server.program("newer", "#!/usr/bin/python3\nimport socket, struct\ns = socket.socket(fileno=3)\ns.send(b'TGHO' + struct.pack('>HHQHH', 3, 1, 0, 0, 0))\ns.recv(100)\n")
        assert "the hand-over's format is 3; this program speaks 1 to 2" in server.refused("--program", newer)
        assert "is tidegate-l7, not tidegate-dns" in server.refused("--program", binary("l7"))
        wrong = server.program("wrong_secret", f'#!/bin/sh\nexec {real} "$@" --secret /nonexistent\n')
        assert "cannot read the secret file /nonexistent" in server.refused("--program", wrong)
        server.machine.write("up.yaml", "nodes: [{name: up, dns: {listen: [nonsense]}}]\n")
        assert "nonsense" in server.refused(), "the new process cannot serve what the document says by now"
        server.machine.write("up.yaml", dns_document(1))
        metrics = server.machine.ask("dns", "/metrics").body.decode()
        assert re.search(r"^tidegate_dns_upgrade_failures_total ([89]|1\d)$", metrics, re.MULTILINE), metrics
        load.wait_for(20)
    assert load.lost == [], load.lost[:5]


# Speaks like an earlier release, in the earlier format. The running process must answer in that format, without later
# additions. In the end the present program takes over in the same format.
SPEAKS_THE_FORMAT_BEFORE = """#!/usr/bin/python3
import os, socket, struct, sys
old = socket.socket(fileno=3)
old.send(b"TGHO" + struct.pack(">HHQHH", {format}, 1, 0, len(b"{plane}\\n0.0.9\\n"), 0) + b"{plane}\\n0.0.9\\n")
kinds = []
while True:
    message, sockets, _, _ = socket.recv_fds(old, 65536, 253)
    magic, spoken, kind, _, text, items = struct.unpack(">4sHHQHH", message[:20])
    assert (magic, spoken) == (b"TGHO", {format}), message[:20]
    kinds += [message[20 + text + 20 * i] for i in range(items)]
    assert len(sockets) == items
    if kind == 3:  # every socket was sent
        sys.exit(40 + max(kinds))
"""


def in_the_format_before(machine, plane):
    """The running process hands over to a release before, which looks and gives up, and then to the present program, which
    speaks as that one does."""
    text = SPEAKS_THE_FORMAT_BEFORE.format(plane=plane, format=1)
    looks, speaks = machine.write(f"looks-{plane}", text), machine.write(f"speaks-{plane}", f'#!/bin/sh\nTIDEGATE_HAND_OVER=3:1 exec {binary(plane)} "$@"\n')
    for program in (looks, speaks):
        program.chmod(0o755)
    looked = upgrade(machine.run_dir, plane, "--program", looks)
    told = re.search(r"exit status (\d+)", looked.stderr)
    assert looked.returncode == 1 and told and 41 <= int(told[1]) <= 45, looked  # all but the memory of format 2, which is 46
    before = machine.ask(plane, "/status").json()
    done = upgrade(machine.run_dir, plane, "--program", speaks)
    assert done.returncode == 0 and "sockets are handed over" in done.stdout, done
    after = machine.ask(plane, "/status").json()
    assert after["pid"] != before["pid"] and after["generation"] == before["generation"] + 1, after


def test_a_downgrade_speaks_the_format_of_the_release_before(lab):
    """Down by one version, and up again, while questions come."""
    with one_server() as server, DnsLoad("client-eu", [server.machine.host.v4]) as load:
        in_the_format_before(server.machine, "dns")
        load.wait_for(50)
        assert upgrade(server.machine.run_dir, "dns").returncode == 0
        load.wait_for(50)
    assert load.lost == [], load.lost[:5]


def test_a_downgrade_of_the_proxy_leaves_its_counts_behind(lab):
    """Counts of a limit are handed over from format 2 on. The release before would not know what they are."""
    with one_proxy(LIMITED) as machine, contextlib.closing(http.client.HTTPConnection("www.example.test")) as client:

        def status():
            client.close()
            client.sock = open_socket("client-eu", socket.AF_INET, socket.SOCK_STREAM)
            client.sock.settimeout(20)
            client.sock.connect((machine.host.v4, 80))
            client.request("GET", "/api/v1/x")
            answer = client.getresponse()
            answer.read()
            return answer.status

        assert [status(), status()] == [200, 429]
        assert upgrade(machine.run_dir, "l7").returncode == 0
        assert status() == 429, "the count goes on"
        in_the_format_before(machine, "l7")
        assert [status(), status()] == [200, 429], "the count begins anew"


def test_more_and_fewer_workers_take_over_every_socket(lab):
    with one_server() as server, DnsLoad("client-eu", [server.machine.host.v4], udp=4, tcp=4) as load:
        for generation, workers in enumerate((4, 1, "auto", 3), 2):
            server.machine.write("up.yaml", dns_document(workers))
            done = upgrade(server.machine.run_dir, "dns")
            assert done.returncode == 0, done.stdout + done.stderr
            status = server.status()
            assert status["generation"] == generation and status["workers"] == (len(os.sched_getaffinity(0)) if workers == "auto" else workers), status
            load.wait_for(100)
        assert upgrade(server.machine.run_dir, "dns", "--wait").returncode == 0
        load.wait_for(50)
    assert load.lost == [], load.lost[:5]


def test_workers_auto_are_one_a_core_and_counted_anew_by_each_upgrade(lab):
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # what is started from here may use one core
    try:
        with one_proxy(PROXY_DOCUMENT.replace("workers: 1", "workers: auto")) as machine:
            os.sched_setaffinity(0, cores)
            before = machine.ask("l7", "/status").json()
            assert before["workers"] == 1, before
            os.sched_setaffinity(before["pid"], cores)
            assert machine.ask("l7", "/status").json()["workers"] == 1, "a process keeps its number"
            for wanted in (cores, {max(cores)}):  # more, then fewer that take over all sockets
                os.sched_setaffinity(machine.ask("l7", "/status").json()["pid"], wanted)
                done = upgrade(machine.run_dir, "l7")
                assert done.returncode == 0, done
                after = machine.ask("l7", "/status").json()
                assert after["workers"] == len(wanted) and after["needs_restart"] == [], after
                codes = [lab.curl("client-eu", "http://www.example.test/static/hello.txt", "-o", "/dev/null", "-w", "%{http_code}", vip=machine.host.v4).stdout for _ in range(8)]
                assert codes == ["200"] * 8, codes
    finally:
        os.sched_setaffinity(0, cores)


def test_queries_by_af_xdp_are_taken_over_too(lab):
    with xdp_e2e.server() as server:
        try:
            server.start()
            taken = server.by_xdp()
            with DnsLoad("client-eu", server.addresses) as load:
                dies_when_the_old_one_has_let_go(server.machine, "dns")
                before = server.by_xdp()
                wait_until("queries come by AF_XDP again", lambda: server.by_xdp() > before or load.lost, 30)
                for _ in range(2):
                    done = upgrade(server.machine.run_dir, "dns")
                    assert done.returncode == 0, done.stdout + done.stderr
                    taken = server.by_xdp()
                    wait_until("queries come by AF_XDP again", lambda before=taken: server.by_xdp() > before or load.lost, 30)
                    load.wait_for(50)
            assert load.lost == [], load.lost[:5]
            assert server.programs() > 0
        finally:
            end_all(server.machine)


# Acts as the following process, and ends when the old one has released the lock: a crash at the worst time.
DIES = """#!/usr/bin/python3
import os, socket, struct
old = socket.socket(fileno=3)
def say(kind, text):
    old.send(b"TGHO" + struct.pack(">HHQHH", 1, kind, 0, len(text), 0) + text)
say(1, b"{plane}\\n0.1.0\\n")
while True:
    message, sockets, _, _ = socket.recv_fds(old, 65536, 253)
    kind = struct.unpack(">H", message[6:8])[0]
    for fd in sockets:
        os.close(fd)
    if kind == 3:  # every socket was sent
        say(4, b"nothing")
    if kind == 5:  # go
        os._exit(7)
"""


def dies_when_the_old_one_has_let_go(machine, plane):
    path = machine.write(f"dies-{plane}", DIES.format(plane=plane))
    path.chmod(0o755)
    before = machine.ask(plane, "/status").json()
    done = upgrade(machine.run_dir, plane, "--program", path)
    assert done.returncode == 1 and "has let go" in done.stdout and "exit status 7" in done.stderr, done
    after = machine.ask(plane, "/status").json()
    assert (after["pid"], after["generation"], after["upgrade"]) == (before["pid"], before["generation"], None), after


PROXY_DOCUMENT = """
nodes: [{name: up, l7: {workers: 1, access_log: "-"}, cache: {enabled: true, ram: 1MB, disk: 32MB, path: cache}}]
pools: [{name: app, backends: [{name: origin1, addresses: [10.10.0.21], port: 8080}]}]
listeners: [{name: http, bind: ["10.10.0.66:80"]}]
routes:
  - {name: static, path: "/static/*", pool: app, cache: {enabled: true}}
  - {name: slow, path: "/*", pool: app}
"""


LIMITED = PROXY_DOCUMENT.replace("routes:", "policies: [{name: few, limit: {requests: 1, per: 1h, burst: 1}}]\nroutes:").replace('path: "/*"', 'path: "/*", policies: [few]')


@contextlib.contextmanager
def one_proxy(document=PROXY_DOCUMENT):
    with box.raised("up", 66) as machine:
        process = machine.start_plane("l7", machine.write("up.yaml", document.replace("path: cache", f"path: {machine.home}/cache")), "--secret", machine.write("secret", "a secret of the site\n"))
        machine.wait_ready("l7", process)
        try:
            yield machine
        finally:
            end_all(machine)


def test_a_new_process_that_dies_when_the_old_one_has_let_go_leaves_it_whole(lab):
    """The cache's disk tier takes responses again, and the next upgrade finds them."""
    with one_proxy() as machine, contextlib.closing(http.client.HTTPConnection("www.example.test")) as client:
        client.sock = open_socket("client-eu", socket.AF_INET, socket.SOCK_STREAM)
        client.sock.settimeout(20)
        client.sock.connect((machine.host.v4, 80))

        def get(path):
            client.request("GET", path)
            answer = client.getresponse()
            assert answer.status == 200 and answer.read()
            return answer.getheader("cache-status", "")

        def stored():
            found = re.search(r'^tidegate_cache_stored_total\{tier="disk"\} (\d+)$', machine.ask("l7", "/metrics").body.decode(), re.MULTILINE)
            return int(found[1])

        get("/static/varied/a")
        wait_until("the first response is on the disk", lambda: stored() == 1, 20)
        for _ in range(2):
            dies_when_the_old_one_has_let_go(machine, "l7")
        wait_until("the disk tier is not frozen", lambda: machine.ask("l7", "/healthz").body == b"ok\n", 20)
        get("/static/varied/b")
        wait_until("the disk takes responses again", lambda: stored() == 2, 20)
        done = upgrade(machine.run_dir, "l7")
        assert done.returncode == 0, done
        client.close()
        client.sock = open_socket("client-eu", socket.AF_INET, socket.SOCK_STREAM)
        client.sock.connect((machine.host.v4, 80))
        wait_until("the new process has the index", lambda: not machine.ask("l7", "/status").json()["cache"]["loading"])
        assert "hit" in get("/static/varied/a") and "hit" in get("/static/varied/b")


def test_a_process_that_drains_ignores_a_reload_and_ends_at_once_when_told_to(lab):
    with one_proxy() as machine:
        old = machine.ask("l7", "/status").json()["pid"]
        answers = []
        for _ in range(2):
            sock = open_socket("client-eu", socket.AF_INET, socket.SOCK_STREAM)
            sock.settimeout(20)
            sock.connect((machine.host.v4, 80))
            sock.sendall(b"GET /api/v1/x HTTP/1.1\r\nHost: www.example.test\r\n")  # the last line follows
            answers.append(sock)
        wait_until("the proxy has both connections", lambda: "tidegate_l7_client_connections 2\n" in machine.ask("l7", "/metrics").body.decode(), 20)
        assert upgrade(machine.run_dir, "l7").returncode == 0
        draining = lambda: machine.ask("l7", "/status").json()["draining_processes"]
        assert [process["pid"] for process in draining()] == [old], draining()
        os.kill(old, signal.SIGHUP)
        answers[0].sendall(b"\r\n")
        assert b"200 OK" in answers[0].recv(65536), "it serves what it has"
        os.kill(old, signal.SIGTERM)
        wait_until("it has ended", lambda: draining() == [] and is_gone(old), 20)
        assert answers[1].recv(100) == b""
        assert machine.ask("l7", "/healthz").body == b"ok\n"
        for sock in answers:
            sock.close()


class Manager:
    """What a service manager is to a daemon (sd_notify(3)): a socket that hears, and knows who speaks."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(str(path))
        self.socket.settimeout(30)
        self.heard = []

    def wait_for(self, pid, word):
        """Until the process has said this line. Returns what was heard meanwhile: [(pid, lines)]."""
        begin, deadline = len(self.heard), time.monotonic() + 30
        while True:
            assert time.monotonic() < deadline, f"process {pid} did not say {word}: {self.heard}"
            message, control, _, _ = self.socket.recvmsg(4096, 256)
            parts = {kind: data for _, kind, data in control}
            for (descriptor,) in struct.iter_unpack("i", parts.get(socket.SCM_RIGHTS, b"")):
                os.close(descriptor)  # this manager keeps no descriptors
            self.heard.append((struct.unpack("iII", parts[socket.SCM_CREDENTIALS])[0], message.decode().splitlines()))
            if self.heard[-1][0] == pid and word in self.heard[-1][1]:
                return self.heard[begin:]


def test_a_service_manager_hears_which_process_is_the_daemon_and_the_new_one_feeds_its_watchdog(lab):
    with box.raised("up", 66) as machine:
        machine.write("example.test.zone", ZONE)
        manager = Manager(machine.home / "notify")
        try:
            daemon = machine.start("dns", "env", f"NOTIFY_SOCKET={manager.path}", "WATCHDOG_USEC=1000000", binary("dns"), "--config", machine.write("up.yaml", dns_document(1)), "--run", machine.run_dir, "--node", "up")
            machine.wait_ready("dns", daemon)
            old = machine.ask("dns", "/status").json()["pid"]
            manager.wait_for(old, "READY=1")
            assert upgrade(machine.run_dir, "dns").returncode == 0  # what the unit's ExecReload does
            new = machine.ask("dns", "/status").json()["pid"]
            manager.wait_for(old, f"MAINPID={new}")
            after = manager.wait_for(new, "WATCHDOG=1") + manager.wait_for(new, "WATCHDOG=1")
            assert {pid for pid, _ in after} == {new}, "the old one says nothing more"
        finally:
            manager.socket.close()
            end_all(machine)


def test_under_tidegate_run_upgrades_are_no_crashes_and_no_process_outlives_it(lab):
    with box.raised("up", 66) as machine:
        machine.write("example.test.zone", ZONE)
        path = machine.write("up.yaml", dns_document(2))
        run = lambda: machine.start("run", BUILD / "control" / "tidegate", "run", path, "--node", "up", "--state", machine.state_dir, "--run", machine.run_dir)
        supervisor = run()
        machine.wait_ready("dns", supervisor)
        pid = lambda: machine.ask("dns", "/status").json()["pid"]
        said = lambda words: words in supervisor.log.read_text()
        with DnsLoad("client-eu", [machine.host.v4]) as load:
            for _ in range(2):
                before = pid()
                done = upgrade(machine.run_dir, "dns")
                assert done.returncode == 0, done
                assert said(f"upgraded: process {pid()} serves, process {before} finishes its connections")
                load.wait_for(20)
                wait_until("the old one has ended", lambda before=before: said(f"process {before}, which was replaced: "), 60, supervisor)
        assert load.lost == [], load.lost[:5]
        assert not said("starting it again"), supervisor.tail()
        upgraded_to = pid()
        os.kill(upgraded_to, signal.SIGKILL)
        wait_until("a crashed one is started again", lambda: machine.ask("dns", "/status").json()["generation"] == 1 and said("starting it again"), 60, supervisor)
        assert upgrade(machine.run_dir, "dns").returncode == 0
        assert supervisor.stop() == 0 and machine.pids() == set(), supervisor.tail()
        supervisor = run()
        machine.wait_ready("dns", supervisor)
        assert upgrade(machine.run_dir, "dns").returncode == 0
        supervisor.popen.kill()
        supervisor.popen.wait(20)
        wait_until("nothing outlives it", lambda: machine.pids() == set(), 60)


def end_all(machine):
    """Processes that upgrades started are nobody's children here."""
    for pid in machine.pids():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    machine.processes.clear()


def test_one_upgrade_at_a_time_only_by_its_user_and_ended_by_a_signal(lab):
    with one_server() as server:
        hangs = server.program("hangs", "#!/bin/sh\nexec sleep 1000\n")
        path = server.machine.run_dir / "dns.sock"
        path.chmod(0o666)
        server.machine.home.chmod(0o755)
        stranger = subprocess.run(
            ["setpriv", "--reuid", "65534", "--clear-groups", "curl", "-s", "-X", "POST", "--unix-socket", str(path), "http://x/upgrade"], stdout=subprocess.PIPE, text=True
        )
        assert '"status":403' in stranger.stdout.replace(" ", ""), stranger
        hanging = subprocess.Popen([str(BUILD / "control" / "tidegate"), "upgrade", "dns", "--run", str(server.machine.run_dir), "--program", str(hangs)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        pid = wait_until("the new process runs", lambda: (server.status()["upgrade"] or {}).get("pid"), 20)
        second = upgrade(server.machine.run_dir, "dns")
        assert second.returncode == 1 and f"an upgrade is under way: process {pid}" in second.stderr, second.stderr
        server.process.popen.send_signal(signal.SIGTERM)
        out, err = hanging.communicate(timeout=30)
        assert hanging.returncode in (1, 3) and err, (hanging.returncode, out, err)
        assert server.process.popen.wait(30) == 0
        wait_until("the new process is gone", lambda: is_gone(pid), 20)


def test_what_hands_nothing_over_says_what_to_do_instead(lab):
    done = upgrade(lab.directory("l4") / "run", "control")
    assert done.returncode == 1 and "systemctl restart tidegate-control" in done.stderr, done.stderr
    nobody = upgrade(lab.directory("edge") / "nowhere", "l7")
    assert nobody.returncode == 3 and "l7" in nobody.stderr, nobody
