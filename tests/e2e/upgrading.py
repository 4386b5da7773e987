# SPDX-License-Identifier: Apache-2.0
"""What the tests of upgrades share: a server of its own, loads that never retry, and a service manager."""

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time

import box
from lab import BUILD, open_socket
from netns import wait_until


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


def is_gone(pid):
    """It holds no descriptor any more. Nobody may have asked for its exit status yet. The first thread is a zombie before
    the others have ended."""
    try:
        state = re.search(r"^State:\s+(\S)", open(f"/proc/{pid}/status").read(), re.MULTILINE)[1]
        return state == "Z" and len(os.listdir(f"/proc/{pid}/task")) == 1
    except (FileNotFoundError, ProcessLookupError):
        return True


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
PROXY_DOCUMENT = """
nodes: [{name: up, l7: {workers: 1, access_log: "-"}, cache: {enabled: true, ram: 1MB, disk: 32MB, path: cache}}]
pools: [{name: app, backends: [{name: origin1, addresses: [10.10.0.21], port: 8080}]}]
listeners: [{name: http, bind: ["10.10.0.66:80"]}]
routes:
  - {name: static, path: "/static/*", pool: app, cache: {enabled: true}}
  - {name: slow, path: "/*", pool: app}
"""


@contextlib.contextmanager
def one_proxy(document=PROXY_DOCUMENT):
    with box.raised("up", 66) as machine:
        process = machine.start_plane("l7", machine.write("up.yaml", document.replace("path: cache", f"path: {machine.home}/cache")), "--secret", machine.write("secret", "a secret of the site\n"))
        machine.wait_ready("l7", process)
        try:
            yield machine
        finally:
            end_all(machine)


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


def end_all(machine):
    """Processes that upgrades started are nobody's children here."""
    for pid in machine.pids():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    machine.processes.clear()
