# SPDX-License-Identifier: Apache-2.0
"""What real clients see of the proxy's manners: an early answer over HTTP/2, uploads over a long way, plain HTTP on a
TLS port, and log files that are rotated under load."""

import contextlib
import gzip
import json
import os
import queue
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import box
from lab import HOSTS, open_socket
from marks import long
from netns import wait_until

WWW = "https://www.example.test"
PROXY = "10.10.0.11"
ROOT = Path(__file__).resolve().parents[2]


def test_curl_reads_a_413_that_comes_before_the_end_of_its_upload(lab):
    upload = lab.directory("client-eu") / "upload"
    upload.write_bytes(bytes(6_000_000))
    with lab.configured(("tls: {certificates: [example]}}", "tls: {certificates: [example]}, max_body: 100KB}")):
        post = lambda version, **more: lab.curl("client-eu", WWW + "/api/v1/post", version, "--data-binary", f"@{upload}", "-H", "Expect:", "-o", "/dev/null", "-w", "%{http_code}", vip=PROXY, **more)  # fmt: skip
        wait_until("the bound is in force", lambda: post("--http1.1", check=False).stdout == "413", 30)
        for _ in range(5):
            out = post("--http2", check=False)
            assert (out.returncode, out.stdout) == (0, "413"), out
    lab.settle()


class Sink:
    """An origin that reads each request's whole body before it answers."""

    def __init__(self, host, port):
        self.listener = open_socket(host, socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((HOSTS[host].v4, port))
        self.listener.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        try:
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()
        except OSError:
            pass  # closed

    def serve(self, connection):
        with connection, connection.makefile("rb") as stream:
            while stream.readline():
                length = 0
                while (line := stream.readline().strip().lower()) != b"":
                    if line.startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                taken = 0
                while taken < length and (piece := stream.read(min(length - taken, 1 << 16))):
                    taken += len(piece)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%d" % (len(str(taken)), taken))

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class LongWay:
    """A relay to the proxy on a host of the lab. Each byte arrives so many seconds later, in either direction, and any
    number of bytes may be on their way."""

    def __init__(self, host, port, seconds):
        self.host, self.seconds = host, seconds
        self.listener = open_socket(host, socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", port))
        self.listener.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        try:
            while True:
                near, _ = self.listener.accept()
                far = open_socket(self.host, socket.AF_INET, socket.SOCK_STREAM)
                far.connect((PROXY, 443))
                for source, target in ((near, far), (far, near)):
                    target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    way = queue.SimpleQueue()
                    threading.Thread(target=self.read, args=(source, way), daemon=True).start()
                    threading.Thread(target=self.write, args=(target, way), daemon=True).start()
        except OSError:
            pass  # closed

    def read(self, source, way):
        piece = b"-"
        while piece:
            try:
                piece = source.recv(1 << 16)
            except OSError:
                piece = b""
            way.put((time.monotonic() + self.seconds, piece))

    def write(self, target, way):
        with contextlib.suppress(OSError):
            while True:
                due, piece = way.get()
                time.sleep(max(0, due - time.monotonic()))
                if not piece:
                    return target.shutdown(socket.SHUT_WR)
                target.sendall(piece)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def test_an_upload_over_http2_is_not_held_up_by_fifty_milliseconds(lab):
    upload = lab.directory("client-eu") / "upload"
    upload.write_bytes(bytes(10_000_000))
    sink = "  - {name: sink, backends: [{name: b, addresses: [10.10.0.21], port: 8091}]}\n"
    route = "  - {name: sink, listeners: [https], hosts: [www.example.test], path: /sink, pool: sink}\n"
    took = {}
    with lab.configured(("pools:\n", "pools:\n" + sink), ("routes:\n", "routes:\n" + route)), contextlib.closing(Sink("origin1", 8091)), contextlib.closing(LongWay("client-eu", 8443, 0.025)):
        for version in ("--http1.1", "--http2"):
            out = lab.curl(
                "client-eu", WWW + "/sink", version, "--data-binary", f"@{upload}", "-H", "Expect:", "-w", " %{http_code} %{time_total}", "--connect-to", "::127.0.0.1:8443"
            ).stdout.split()  # fmt: skip
            assert out[:2] == ["10000000", "200"], (version, out)
            took[version] = float(out[2])
    lab.settle()
    print(f"      10 MB at 50 ms: {took}")
    # With a window of 64 KB it cannot take less than 152 round trips, which are 7.6 s.
    assert took["--http2"] < 5, took


def test_plain_http_on_a_tls_port_is_told_so_in_plain_text(lab):
    out = lab.curl("client-eu", "http://www.example.test:443/", "-i", "--connect-to", f"::{PROXY}:443").stdout
    assert out.startswith("HTTP/1.1 400 ") and "speaks TLS" in out, out


def test_no_line_is_lost_when_the_log_is_renamed_and_sigusr1_is_sent_under_load(lab):
    with box.raised() as machine:
        log = machine.home / "access.log"
        config = machine.write("edge.yaml", f"""\
nodes: [{{name: {machine.host.name}, l7: {{access_log: "{log}"}}}}]
listeners: [{{name: l, bind: ["127.0.0.1:8080"]}}]
routes: [{{name: r, status: 200, body: ok}}]
""")  # fmt: skip
        plane = machine.start_plane("l7", config)
        machine.wait_ready("l7", plane)
        count = 3000
        load = machine.start("load", "h2load", "--h1", "-n", str(count), "-c", "4", "http://127.0.0.1:8080/")
        lines = lambda path: path.read_bytes().count(b"\n") if path.exists() else 0
        wait_until("the load runs", lambda: lines(log) > 0, 30)
        rotated = []
        while len(rotated) < 3:
            old = Path(f"{log}.{len(rotated)}")
            log.rename(old)
            rotated.append(old)
            os.kill(plane.pid, signal.SIGUSR1)
            wait_until("the log goes on in a new file", log.exists, 10)
        wait_until("the load is over", lambda: not load.running(), 60)
        assert f"{count} succeeded" in load.tail(), load.tail()
        wait_until("every line is there", lambda: lines(log) + sum(map(lines, rotated)) == count, 10)
        for path in (log, *rotated):
            for line in path.read_text().splitlines():
                assert json.loads(line)["status"] == 200


@long
def test_logrotate_loses_no_line_with_the_rules_of_the_package(lab):
    with box.raised() as machine:
        folder = machine.home / "log"
        folder.mkdir(mode=0o750)
        log = folder / "access.log"
        config = machine.write("edge.yaml", f"""\
nodes: [{{name: {machine.host.name}, l7: {{access_log: "{log}"}}}}]
listeners: [{{name: l, bind: ["127.0.0.1:8080"]}}]
routes: [{{name: r, status: 200, body: ok}}]
""")  # fmt: skip
        plane = machine.start_plane("l7", config)
        machine.wait_ready("l7", plane)
        rules = (ROOT / "debian" / "tidegate.logrotate").read_text()
        assert "/var/log/tidegate/*.log {" in rules
        machine.write("rules", rules.replace("/var/log/tidegate/", f"{folder}/")).chmod(0o644)
        # No systemd runs here. The unit's main process is the proxy.
        systemctl = machine.write("systemctl", f'#!/bin/sh\n[ "$*" = "kill --signal=USR1 --kill-whom=main tidegate-l7.service" ] || exit 1\nkill -USR1 {plane.pid} && echo told >> {machine.home}/told\n')
        systemctl.chmod(0o755)
        environment = {**os.environ, "PATH": f"{machine.home}:/usr/sbin:{os.environ['PATH']}"}
        count = 6000
        load = machine.start("load", "h2load", "--h1", "-n", str(count), "-c", "4", "http://127.0.0.1:8080/")
        for turn in range(1, 4):
            wait_until("a line is in the log", lambda: log.exists() and log.stat().st_size > 0, 30)
            done = subprocess.run(["logrotate", "--force", "--state", machine.home / "rotated", machine.home / "rules"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
            assert done.returncode == 0 and done.stdout == "", done
            assert (machine.home / "told").read_text() == "told\n" * turn
            wait_until("the log goes on in a new file", log.exists, 10)
            assert log.stat().st_mode & 0o777 == 0o640, oct(log.stat().st_mode)
        wait_until("the load is over", lambda: not load.running(), 60)
        assert f"{count} succeeded" in load.tail(), load.tail()
        assert {path.name for path in folder.iterdir()} == {"access.log", "access.log.1", "access.log.2.gz", "access.log.3.gz"}

        def lines():
            texts = [gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes() for path in folder.iterdir()]
            return [json.loads(line)["status"] for text in texts for line in text.splitlines(keepends=True) if line.endswith(b"\n")]

        wait_until("every line is there", lambda: lines() == [200] * count, 10)
