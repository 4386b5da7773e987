# SPDX-License-Identifier: Apache-2.0
"""The control plane: the time from a change's commit until every plane has it in force, and what a change costs
connected clients, compared with a reload of nginx and of HAProxy.

Ours: one control with its proxy and its DNS server on one state. A change is one PUT of one route. It is complete
when every plane's /status names its version. A peer's reload is complete when a new connection gets the new answer.
Meanwhile 32 clients ask, each on one persistent connection that it reopens only when it must: `closed` counts the
connections that the server closed or broke."""

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from http_servers import PLAIN
from measure import BUILD, GENERATOR_CORE, SERVER_CORE, BenchError, Contender, Program, Row, Sample, Package, table, ready_with, tcp_ready

DNS = 7053
CLIENTS = 32


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))


def ask(path, method, target, body=None, headers={}):  # noqa: B006 (never written)
    connection = UnixConnection(path)
    connection.request(method, target, body, headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, text


def answers(path):
    def ready():
        try:
            return ask(path, "GET", "/healthz")[0] == 200
        except OSError:
            return False

    return ready


class Crowd(threading.Thread):
    """Clients with persistent connections. Each asks again and again until told to stop."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.closed, self.over = port, 0, threading.Event()
        self.sockets = [self.open() for _ in range(CLIENTS)]

    def open(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def run(self):
        while not self.over.is_set():
            for i, client in enumerate(self.sockets):
                try:
                    client.sendall(b"GET /x HTTP/1.1\r\nHost: www.example.test\r\n\r\n")
                    head = client.recv(65536)
                    ended = not head or b"connection: close" in head.lower()
                except OSError:
                    ended = True
                if ended:
                    self.closed += 1
                    client.close()
                    self.sockets[i] = self.open()
            time.sleep(0.001)  # this sets the pace, some thousand requests a second; it is not a wait

    def stop(self):
        self.over.set()
        self.join()
        for client in self.sockets:
            client.close()


def changes(change_once, port, count, settle=lambda: None):
    """`change_once(n)` makes the n-th change and returns when it is in force. `settle` waits, outside the measured
    time, until the next change may come."""
    numbers = iter(range(1, 1_000_000))

    def load(seconds):
        crowd = Crowd(port)
        crowd.start()
        durations_us = []
        began = time.monotonic()
        for _ in range(count if seconds >= 1 else 3):
            settle()
            start = time.monotonic()
            change_once(next(numbers))
            durations_us.append((time.monotonic() - start) * 1e6)
        took = time.monotonic() - began
        crowd.stop()
        durations_us.sort()
        return Sample(len(durations_us), took, durations_us[len(durations_us) // 2], durations_us[(len(durations_us) - 1) * 99 // 100], closed=crowd.closed)

    return load


# --- ours

FOLDERS = {}  # contender -> the folder of its current run


POLICIES = 50


HUNG_HOST = 7099
# The port of the hung host's control: the kernel accepts connections, and nobody answers.
hung_control = []


def tidegate(name, routes, policies=0, hung=False):
    """`policies`: so many, each bound to its share of the routes. `hung`: the edge has a second host, which hangs."""

    def start(folder):
        folder = Path(folder)
        FOLDERS[name] = folder
        (folder / "example.test.zone").write_text("$ORIGIN example.test.\n$TTL 300\n@ IN SOA ns1 hostmaster 1 3600 600 604800 60\n@ IN NS ns1\nns1 IN A 192.0.2.1\n")
        bound = (lambda i: f", policies: [p{i % policies}]") if policies else lambda _: ""
        more = "\n".join(f'  - {{name: r{i}, path: "/r/{i}", status: 200, body: "r{i}"{bound(i)}}}' for i in range(routes))
        second = f'  - {{name: hung, site: here, management: "127.0.0.1:{HUNG_HOST}", l7: {{workers: 1}}}}\n' if hung else ""
        if hung and not hung_control:
            hung_control.append(socket.create_server(("127.0.0.1", HUNG_HOST), backlog=1024))
        bundles = "\n".join(f"  - {json.dumps(policy(i, 0))}" for i in range(policies))
        (folder / "edge.yaml").write_text(f"""
sites: [{{name: here}}]
nodes:
  - {{name: bench, site: here, l7: {{workers: 1}}, dns: {{listen: ["127.0.0.1:{DNS}"]}}}}
{second}listeners: [{{name: plain, bind: ["127.0.0.1:{PLAIN}"]}}]
zones: [{{name: example.test, file: example.test.zone}}]
routes:
  - {{name: x, path: /x, status: 200, body: "0"}}
{more}
{bundles and "policies:"}
{bundles}
""")
        return run_planes(folder, ["--insecure", "--peer-token-file", "token"] if hung else [])

    return start


def run_planes(folder, options=()):
    """Control, proxy and DNS server on one state, with edge.yaml in force on each. `options`: of control, if it has
    other hosts, for which nobody waits."""
    common = f"--state {folder} --run {folder} --node bench"
    (folder / "token").write_text("a token of the benchmark\n")
    more = {"control": " " + " ".join(options)}
    script = " & ".join(f"{BUILD}/{plane}/tidegate-{plane} {common}{more.get(plane, '')}" for plane in ("control", "l7", "dns")) + " & wait"
    program = Program("tidegate", ["sh", "-c", script], SERVER_CORE, folder, answers(folder / "control.sock"))
    wait = [] if options else ["--wait"]
    applied = subprocess.run([BUILD / "control" / "tidegate", "--api", folder / "control.sock", "apply", folder / "edge.yaml", *wait], capture_output=True, text=True)
    if applied.returncode != 0:
        program.stop()
        raise BenchError(applied.stdout + applied.stderr)
    return program


def policy(i, n):
    """A bundle of an API; `n` makes it another one."""
    return {
        "name": f"p{i}",
        "limit": {"requests": 100 + n % 100, "per": "1s"},
        "respond": {"cors": {"origins": [f"https://shop{i}.example"]}, "security": {"hsts": "1d"}},
        "transform": {"request_headers": [{"set": "X-Client", "value": "{client}"}]},
    }


def change_route(name):
    return change_object(name, "routes/x", lambda n: {"name": "x", "path": "/x", "status": 200, "body": str(n)})


def change_policy(name):
    return change_object(name, "policies/p7", lambda n: policy(7, n))


def change_object(name, target, content):
    def change(n):
        folder = FOLDERS[name]
        status, text = ask(folder / "control.sock", "PUT", f"/v1/config/{target}", json.dumps(content(n)), {"If-Match": "*", "Content-Type": "application/json"})
        if status not in (200, 201):
            raise BenchError(f"PUT: {status} {text[:300]}")
        version = json.loads(text)["version"]
        for plane in ("l7", "dns"):
            deadline = time.monotonic() + 10
            while json.loads(ask(folder / f"{plane}.sock", "GET", "/status")[1])["version"] < version:
                if time.monotonic() > deadline:
                    raise BenchError(f"{plane} did not apply version {version}")

    return change


# --- the peers

def fetch():
    connection = http.client.HTTPConnection("127.0.0.1", PLAIN, timeout=5)
    connection.request("GET", "/x")
    body = connection.getresponse().read().decode().strip()
    connection.close()
    return body


def until_answered(n, tell):
    deadline = time.monotonic() + 10
    tell()
    while True:
        try:
            if fetch() == str(n):
                return
        except (OSError, http.client.HTTPException):
            pass
        if time.monotonic() > deadline:
            raise BenchError("the reload did not come into force")


class Notices:
    """What a service tells its manager (sd_notify). HAProxy's master loses a SIGUSR2 that comes before its READY."""

    def __init__(self, folder):
        self.path = str(Path(folder) / "notify.sock")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(10)
        self.awaited = 1  # READY messages still to come: one for the start, one for each reload

    def settle(self):
        while self.awaited:
            if b"READY=1" in self.socket.recv(4096):
                self.awaited -= 1


def nginx_text(folder, n, routes):
    more = "\n".join(f"location = /r/{i} {{ return 200 'r{i}'; }}" for i in range(routes))
    return f"""
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log stderr crit; user root;
events {{ worker_connections 1000; }}
http {{ access_log off; keepalive_requests 1000000000;
  server {{ listen 127.0.0.1:{PLAIN}; location = /x {{ return 200 '{n}'; }} {more} }} }}"""


def haproxy_global(more):
    return f"""
global
  nbthread 1
  {more}
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 2s
"""


def haproxy_text(n, routes):
    more = "\n".join(f"  http-request return status 200 content-type text/plain string r{i} if {{ path /r/{i} }}" for i in range(routes))
    return f"""{haproxy_global("maxconn 1000")}frontend f
  bind 127.0.0.1:{PLAIN}
  http-request return status 200 content-type text/plain string {n} if {{ path /x }}
{more}
"""


def nginx(routes):
    def start(folder):
        FOLDERS["nginx"] = Path(folder)
        (Path(folder) / "nginx.conf").write_text(nginx_text(folder, 0, routes))
        return Program("nginx", ["nginx", "-p", folder, "-c", "nginx.conf", "-e", "stderr"], SERVER_CORE, folder, ready_with(PLAIN, f"{folder}/nginx.pid"))

    def change(n):
        folder = FOLDERS["nginx"]
        (folder / "nginx.conf").write_text(nginx_text(folder, n, routes))
        until_answered(n, lambda: os.kill(int((folder / "nginx.pid").read_text()), signal.SIGHUP))

    return start, change


def haproxy(routes):
    notices = {}

    def start(folder):
        FOLDERS["haproxy"] = Path(folder)
        (Path(folder) / "haproxy.cfg").write_text(haproxy_text(0, routes))
        notices["haproxy"] = Notices(folder)
        command = ["haproxy", "-Ws", "-p", f"{folder}/haproxy.pid", "-f", "haproxy.cfg"]
        return Program("haproxy", command, SERVER_CORE, folder, ready_with(PLAIN, f"{folder}/haproxy.pid"), env={**os.environ, "NOTIFY_SOCKET": notices["haproxy"].path})

    def change(n):
        folder = FOLDERS["haproxy"]
        (folder / "haproxy.cfg").write_text(haproxy_text(n, routes))
        notices["haproxy"].awaited += 1
        until_answered(n, lambda: os.kill(int((folder / "haproxy.pid").read_text().split()[0]), signal.SIGUSR2))

    return start, change, lambda: notices["haproxy"].settle()


# --- a backend that fails

ORIGIN = 7081
CHECK_MS = 100


class Origin:
    """The probed server: it listens, is killed, and comes back."""

    def __init__(self, folder):
        self.folder, self.program = folder, None
        self.raise_()

    def raise_(self):
        script = f"import socket; s = socket.create_server(('127.0.0.1', {ORIGIN})); [s.accept()[0].close() for _ in iter(int, 1)]"
        self.program = Program("origin", ["/usr/bin/python3", "-c", script], GENERATOR_CORE, self.folder, tcp_ready(ORIGIN))

    def kill(self):
        self.program.stop()

    def ends_with(self, server):
        """When the bench stops the server, the origin stops too."""
        stop = server.stop

        def both():
            stop()
            self.program.stop()

        server.stop = both
        return server


ORIGINS = {}  # contender -> its Origin


def wait_for(what, condition):
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"not within 10 s: {what}")
        time.sleep(0.0005)


def started_beside(origin, start, what, condition):
    """Starts a server and waits until it has seen its origin. If that fails, neither is left running."""
    try:
        program = origin.ends_with(start())
    except BaseException:
        origin.program.stop()
        raise
    try:
        wait_for(what, condition)
    except BaseException:
        program.stop()
        raise
    return program


def deaths(name, is_left, is_back, count=table(30)):
    """The time from the death of the backend until everybody who would send work to it has stopped doing so."""

    def load(seconds):
        origin, durations_us, began = ORIGINS[name], [], time.monotonic()
        for _ in range(count if seconds >= 1 else 1):
            start = time.monotonic()
            origin.kill()
            wait_for("the backend is left", is_left)
            durations_us.append((time.monotonic() - start) * 1e6)
            origin.raise_()
            wait_for("the backend is back", is_back)
        durations_us.sort()
        return Sample(len(durations_us), time.monotonic() - began, durations_us[len(durations_us) // 2], durations_us[(len(durations_us) - 1) * 99 // 100])

    return load


def every_plane(state):
    """True if the proxy and the DNS server both use that state of the backend."""

    def decided():
        folder = FOLDERS["tidegate, failing"]
        name, url = "app.example.test", "http://app.example.test/"
        proxy = json.loads(ask(folder / "l7.sock", "GET", f"/explain?client=192.0.2.9&url={url}")[1])
        dns = json.loads(ask(folder / "dns.sock", "GET", f"/explain?client=192.0.2.9&name={name}")[1])
        return {proxy["eligible"][0]["state"], dns["candidates"][0]["state"]} == {state}

    return decided


def start_failing(folder):
    folder = Path(folder)
    FOLDERS["tidegate, failing"] = folder
    ORIGINS["tidegate"] = Origin(folder)
    (folder / "example.test.zone").write_text("$ORIGIN example.test.\n$TTL 300\n@ IN SOA ns1 hostmaster 1 3600 600 604800 60\n@ IN NS ns1\nns1 IN A 192.0.2.1\n")
    (folder / "edge.yaml").write_text(f"""
sites: [{{name: here}}]
nodes: [{{name: bench, site: here, l7: {{workers: 1}}, dns: {{listen: ["127.0.0.1:{DNS}"]}}}}]
probes: [{{name: alive, type: tcp, interval: {CHECK_MS}ms, timeout: {CHECK_MS}ms, rise: 1, fall: 1}}]
pools: [{{name: app, probe: alive, all_down: closed, backends: [{{name: one, addresses: [127.0.0.1], port: {ORIGIN}}}]}}]
listeners: [{{name: plain, bind: ["127.0.0.1:{PLAIN}"]}}]
zones: [{{name: example.test, file: example.test.zone}}]
steers: [{{name: app.example.test, policy: failover, all_down: closed, targets: [{{pool: app}}]}}]
routes: [{{name: app, path: "/*", pool: app}}]
""")
    return started_beside(ORIGINS["tidegate"], lambda: run_planes(folder), "the backend is up on every plane", every_plane("up"))


def haproxy_says(state):
    def says():
        with socket.socket(socket.AF_UNIX) as stats:
            stats.connect(str(FOLDERS["haproxy, failing"] / "stats.sock"))
            stats.sendall(b"show stat\n")
            text = b"".join(iter(lambda: stats.recv(65536), b"")).decode()
        return next(line for line in text.splitlines() if line.startswith("app,one,")).split(",")[17].startswith(state)

    return says


def start_failing_haproxy(folder):
    folder = Path(folder)
    FOLDERS["haproxy, failing"] = folder
    ORIGINS["haproxy"] = Origin(folder)
    (folder / "haproxy.cfg").write_text(f"""{haproxy_global(f"stats socket {folder}/stats.sock")}frontend f
  bind 127.0.0.1:{PLAIN}
  default_backend app
backend app
  server one 127.0.0.1:{ORIGIN} check inter {CHECK_MS} rise 1 fall 1
""")
    start = lambda: Program("haproxy", ["haproxy", "-db", "-f", "haproxy.cfg"], SERVER_CORE, folder, ready_with(PLAIN, folder / "stats.sock"))
    return started_beside(ORIGINS["haproxy"], start, "the backend is up", haproxy_says("UP"))


def rows():
    yield Row(
        "control",
        f"a backend is killed, until all have left it: probed every {CHECK_MS} ms by both",
        [
            Contender("tidegate: proxy and DNS", "this commit", start_failing, deaths("tidegate", every_plane("down"), every_plane("up")), ours=True),
            Contender("haproxy: itself", Package("haproxy"), start_failing_haproxy, deaths("haproxy", haproxy_says("DOWN"), haproxy_says("UP"))),
        ],
        unit="change",
    )
    for routes, count in ((10, table(100)), (table(1_000), table(30)), (table(10_000), table(30))):
        name = f"tidegate, {routes}"
        start_nginx, change_nginx = nginx(routes)
        start_haproxy, change_haproxy, settle_haproxy = haproxy(routes)
        yield Row(
            "control",
            f"a change of one route among {routes:,}, in force on every plane, under {CLIENTS} kept connections",
            [
                Contender("tidegate", "this commit", tidegate(name, routes), changes(change_route(name), PLAIN, count), ours=True),
                Contender("nginx reload", Package("nginx"), start_nginx, changes(change_nginx, PLAIN, count)),
                Contender("haproxy reload", Package("haproxy"), start_haproxy, changes(change_haproxy, PLAIN, count, settle_haproxy)),
            ],
            unit="change",
        )
    name = "tidegate, hung"
    yield Row(
        "control",
        f"a change of one of {table(10_000):,} routes while a second host hangs, in force on this host's planes, under {CLIENTS} kept connections",
        [Contender("tidegate", "this commit", tidegate(name, table(10_000), hung=True), changes(change_route(name), PLAIN, table(100)), ours=True)],
        unit="change",
    )
    name = "tidegate, policies"
    yield Row(
        "control",
        f"a change of one of {POLICIES} policies that {table(10_000):,} routes use, in force on every plane, under {CLIENTS} kept connections",
        [Contender("tidegate", "this commit", tidegate(name, table(10_000), POLICIES), changes(change_policy(name), PLAIN, table(100)), ours=True)],
        unit="change",
    )
