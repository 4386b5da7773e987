# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 between the proxy and real backends: nginx by prior knowledge and by ALPN, and with grpc-js on both ends a
gRPC service."""

import contextlib
import json
import os
import queue
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from lab import HOSTS, open_socket
from marks import long
from netns import Process, wait_until

HERE = Path(__file__).resolve().parent
WWW = "https://www.example.test"
GRPC_PACKAGE = "@grpc/grpc-js@1.14.7"

NGINX = """
worker_processes 1; pid {home}/h2.pid; error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
  log_format protocol "$server_protocol $request_uri";
  access_log {home}/h2.log protocol;
  client_body_temp_path {home}/h2-tmp; proxy_temp_path {home}/h2-tmp; fastcgi_temp_path {home}/h2-tmp; uwsgi_temp_path {home}/h2-tmp; scgi_temp_path {home}/h2-tmp;
  default_type text/plain;
  server {{
    listen 8081 http2;
    listen 8107 http2;
    listen 8443 ssl http2;
    listen 8444 ssl;
    ssl_certificate {edge}/example.crt; ssl_certificate_key {edge}/example.key;
    location /far/ {{ alias {home}/www/; }}
    location /up/ {{ client_max_body_size 0; client_body_buffer_size 32m; proxy_pass http://10.10.0.21:8109; }}
    location ~ /file$ {{ root {home}/www; rewrite .* /slow/1m break; }}
    location / {{ return 200 "$server_protocol $request_method $request_uri\\n"; }}
  }}
  server {{ listen 8109; client_max_body_size 0; location / {{ return 200 "$content_length\\n"; }} }}
}}
"""


@contextlib.contextmanager
def nginx(lab):
    """An nginx on origin1: 8081 is HTTP/2 by prior knowledge, 8443 HTTP/2 by ALPN, 8444 HTTP/1.1 over TLS."""
    home = lab.directory("origin1")
    (home / "h2-tmp").mkdir(exist_ok=True)
    (home / "h2.conf").write_text(NGINX.format(home=home, edge=lab.directory("edge")))
    command = ["nginx", "-p", home, "-c", home / "h2.conf", "-e", "stderr", "-g", "daemon off;"]
    process = Process(HOSTS["origin1"].namespace, "origin1/nginx-h2", command, lab.log("origin1", "nginx-h2")).start()
    try:
        wait_until("nginx answers", lambda: lab.tcp_opens("origin1", HOSTS["origin1"].v4, 8444), process=process)
        yield process
    finally:
        process.stop()


class Far:
    """A relay on a host, in front of `to`, an address and port: each byte arrives `delay_s` after it was sent. It counts
    what is under way, towards the client or, for `counts` "up", towards the server."""

    def __init__(self, host, port, to, delay_s, counts="down"):
        self.host, self.to, self.delay_s, self.counts = host, to, delay_s, counts
        self.most_under_way = 0
        self.listener = open_socket(host, socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((HOSTS[host].v4, port))
        self.listener.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self.listener.accept()
                server = open_socket(self.host, socket.AF_INET, socket.SOCK_STREAM)
                server.connect(self.to)
                for ends, way in (((client, server), "up"), ((server, client), "down")):
                    self.carry(*ends, way == self.counts)

    def carry(self, source, target, counted):
        pieces = queue.SimpleQueue()
        under_way = [0]

        def take():
            with contextlib.suppress(OSError):
                while piece := source.recv(1 << 18):
                    under_way[0] += len(piece)
                    if counted:
                        self.most_under_way = max(self.most_under_way, under_way[0])
                    pieces.put((time.monotonic() + self.delay_s, piece))
            pieces.put((0, b""))

        def give():
            with contextlib.suppress(OSError):
                while (due_piece := pieces.get())[1]:
                    time.sleep(max(0.0, due_piece[0] - time.monotonic()))
                    target.sendall(due_piece[1])
                    under_way[0] -= len(due_piece[1])
                target.shutdown(socket.SHUT_WR)

        for run in (take, give):
            threading.Thread(target=run, daemon=True).start()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@long
def test_a_download_from_a_backend_that_is_far_away_is_not_held_to_a_small_window(lab):
    """A round trip of 50 ms. What the proxy lets the backend send in one grows while the client reads."""
    size = 24 << 20
    file = lab.directory("origin1") / "www/slow/far"
    file.write_bytes(os.urandom(1 << 20) * (size >> 20))
    pool = "  - {name: far, protocol: h2, backends: [{name: b, addresses: [10.10.0.21], port: 8106}]}\n"
    route = '  - {name: far, listeners: [https], hosts: [www.example.test], path: "/far/*", pool: far}\n'
    try:
        with nginx(lab), contextlib.closing(Far("origin1", 8106, (HOSTS["origin1"].v4, 8107), 0.025)) as far, lab.configured(("pools:\n", "pools:\n" + pool), ("routes:\n", "routes:\n" + route)):
            with tempfile.NamedTemporaryFile() as out:
                took = lab.curl("client-eu", f"{WWW}/far/slow/far", "-o", out.name, "-w", "%{time_total}").stdout
                assert Path(out.name).read_bytes() == file.read_bytes()
            print(f"      {size >> 20} MiB in {took} s; at most {far.most_under_way >> 10} KiB under way")
            assert far.most_under_way > 512 << 10, far.most_under_way  # the first window has 128 KiB
    finally:
        file.unlink()


@long
def test_an_upload_over_a_long_way_is_not_held_to_a_small_window(lab):
    """A round trip of 50 ms before the proxy, then behind it."""
    size = 24 << 20
    pool = "  - {{name: {0}, protocol: h2, backends: [{{name: b, addresses: [10.10.0.21], port: {1}}}]}}\n".format
    route = '  - {{name: {0}, listeners: [https], hosts: [www.example.test], path: "/up/{0}", pool: {0}}}\n'.format
    more = (("pools:\n", "pools:\n" + pool("far", 8106) + pool("near", 8107)), ("routes:\n", "routes:\n" + route("far") + route("near")))
    before, behind = ("origin1", 8113, ("10.10.0.11", 443), 0.025, "up"), ("origin1", 8106, ("10.10.0.21", 8107), 0.025, "up")
    with nginx(lab), lab.configured(*more), tempfile.NamedTemporaryFile() as file:
        file.write(os.urandom(1 << 20) * (size >> 20))
        file.flush()
        for where, name, port in ((before, "near", 8113), (behind, "far", 443)):
            with contextlib.closing(Far(*where)) as way:
                address = "10.10.0.21" if port == 8113 else "10.10.0.11"
                done = lab.run(
                    "client-eu", "curl", "-sS", "--http2", "--max-time", "60", "--cacert", lab.directory("edge") / "example.crt", "--resolve", f"www.example.test:{port}:{address}",
                    "-T", file.name, "-X", "POST", "-H", "Expect:", "-w", "%{time_total}", f"https://www.example.test:{port}/up/{name}", timeout=90,
                )  # fmt: skip
                length, took = done.stdout.split()
                assert int(length) == size, done.stdout
                print(f"      {size >> 20} MiB in {took} s to {name}; at most {way.most_under_way >> 10} KiB under way")
                assert way.most_under_way > 512 << 10, way.most_under_way  # the first window of a stream has 64 KiB


def pools(lab):
    """Pools and routes /plain, /alpn and /old, each to one of nginx's ports."""
    pool = "  - {{name: {0}, backends: [{{name: b, addresses: [10.10.0.21], port: {1}}}], {2}}}\n".format
    tls = "protocol: auto, tls: true, tls_server_name: www.example.test, tls_verify: false"
    listed = pool("plain", 8081, "protocol: h2") + pool("alpn", 8443, tls) + pool("old", 8444, tls)
    route = '  - {{name: {0}, listeners: [https], hosts: [www.example.test], path: "/{0}/*", pool: {0}}}\n'.format
    return lab.configured(("pools:\n", "pools:\n" + listed), ("routes:\n", "routes:\n" + "".join(map(route, ("plain", "alpn", "old")))))


def test_nginx_is_spoken_to_in_the_protocol_that_it_chooses(lab):
    with nginx(lab), pools(lab):
        for pool, protocol in (("plain", "HTTP/2.0"), ("alpn", "HTTP/2.0"), ("old", "HTTP/1.1")):
            for version in ("--http1.1", "--http2"):
                got = lab.curl("client-eu", f"{WWW}/{pool}/x?y=1", version).stdout
                assert got == f"{protocol} GET /{pool}/x?y=1\n", (pool, version, got)
        file = (lab.directory("origin1") / "www/slow/1m").read_bytes()
        for pool in ("plain", "alpn"):
            for version in ("--http1.1", "--http2"):
                with tempfile.NamedTemporaryFile() as out:
                    lab.curl("client-eu", f"{WWW}/{pool}/file", version, "-o", out.name)
                    assert Path(out.name).read_bytes() == file, (pool, version)


def test_no_client_notices_that_nginx_reloads_and_says_goaway(lab):
    with nginx(lab) as process, pools(lab):
        log = lab.directory("origin1") / "h2.log"
        load = subprocess.Popen(
            ["ip", "netns", "exec", HOSTS["client-eu"].namespace, "h2load", "-n", "1500", "-c", "6", "-m", "10", "--connect-to", "10.10.0.11:443", f"{WWW}/plain/x"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        for reload in range(1, 4):
            wait_until("some more requests came", lambda n=reload: log.exists() and log.read_text().count("\n") >= 150 * n)
            process.popen.send_signal(signal.SIGHUP)
        said = load.communicate(timeout=60)[0]
        assert re.search(r"1500 succeeded, 0 failed, 0 errored, 0 timeout", said), said
        assert "1500 2xx" in said, said


@contextlib.contextmanager
def grpc_js(lab):
    """Installs the package, and runs the service on origin1."""
    with tempfile.TemporaryDirectory(prefix="tidegate-grpc-") as home:
        install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--cache", f"{home}/cache", "--prefix", home, GRPC_PACKAGE]
        got = subprocess.run(install, capture_output=True, text=True, timeout=120, cwd=home)
        assert got.returncode == 0, f"npm could not install {GRPC_PACKAGE}, which this test is made of: {got.stderr[-1000:]}"
        command = ["env", f"NODE_PATH={home}/node_modules", "node", HERE / "grpc_calls.js", "serve", "10.10.0.21:8096"]
        process = Process(HOSTS["origin1"].namespace, "origin1/grpc", command, lab.log("origin1", "grpc")).start()
        try:
            wait_until("the service listens", lambda: lab.tcp_opens("origin1", HOSTS["origin1"].v4, 8096), process=process)
            yield home
        finally:
            process.stop()


@contextlib.contextmanager
def calls(lab, more=""):
    """The service, and one that is gone, behind the proxy. `more`: keys of the routes."""
    pool = "  - {name: grpc, protocol: h2, backends: [{name: a, addresses: [10.10.0.21], port: 8096}], eject_after: 0}\n"
    pool += "  - {name: gone, protocol: h2, backends: [{name: a, addresses: [10.10.0.21], port: 9}], eject_after: 0}\n"
    route = '  - {name: grpc, listeners: [https], hosts: [www.example.test], path: "/calls.Echo/*", pool: grpc' + more + "}\n"
    route += '  - {name: gone, listeners: [https], hosts: [www.example.test], path: "/calls.Gone/*", pool: gone' + more + "}\n"
    with grpc_js(lab) as home, lab.configured(("pools:\n", "pools:\n" + pool), ("routes:\n", "routes:\n" + route)):
        yield home


@long
def test_grpc_js_calls_a_grpc_js_service_through_the_proxy(lab):
    """Unary, client, server and both-way streams; the service's own errors; a deadline; a service that is gone."""
    with calls(lab) as home:
        done = lab.run(
            "client-eu", "env", f"NODE_PATH={home}/node_modules", "node", HERE / "grpc_calls.js", "call", "10.10.0.11:443", lab.directory("edge") / "example.crt", timeout=60,
        )  # fmt: skip
        seen = json.loads(done.stdout)
        assert seen == {
            "unary": ["0 ", "hello", "of the call"],
            "thousand": 1000,
            "up": ["0 ", "500"],
            "down": ["0 ", 500],
            "both": ["0 ", 200],
            "error": ["5 no such thing", "of the error"],
            "deadline": "4",
            "gone": ["14", "No connection to a backend could be made."],
            "unknown": "12",
        }, seen


@long
def test_a_client_of_grpc_web_calls_a_grpc_js_service(lab):
    """Unary and server streams; the service's own error; a service that is gone; both forms over both versions."""
    with calls(lab, ", grpc_web: true"):
        done = lab.run("client-eu", "node", HERE / "grpc_web_calls.js", "10.10.0.11", "www.example.test", lab.directory("edge") / "example.crt")
        told = [[True, "0", ["hello"], "of the call"], ["0", 300], ["5", "of the error"], "14"]
        assert json.loads(done.stdout) == {f"{version} {form}": told for version in ("http1", "http2") for form in ("binary", "text")}, done.stdout
