# SPDX-License-Identifier: Apache-2.0
"""Honest clients and the proxy's limits, all at their defaults: each request is answered, and no counter of floods,
refusals or resets grows. The clients are real ones (Chromium, grpc-js, h2load, curl), and one that makes its frames
here, because libraries open their windows in large steps."""

import contextlib
import http.server
import json
import re
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import uuid
from pathlib import Path

from doors_e2e import allow_files
from lab import HOSTS, open_socket
from load import connect, tls_context
from marks import long
from netns import Process, wait_until

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent.parent / "bench"))
from attacks import ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame  # noqa: E402

NAME = "www.example.test"
WWW = f"https://{NAME}"
PROXY = "10.10.0.11"
GRPC_PACKAGE = "@grpc/grpc-js@1.14.7"
# Counters that grow when the proxy acts against a client, or a client against the proxy.
HARM = re.compile(
    r"tidegate_l7_(http2_floods|client_connections_refused|client_connections_recycled|requests_refused|http2_cancelled|failures|accept_failures)_total"
    r'|tidegate_l7_requests_total\{.*status="([345]xx|other)"'
)
HTTP2_ANSWERS = 'tidegate_l7_requests_total{protocol="h2",status="2xx"}'
HANDSHAKES = "tidegate_l7_tls_handshakes_total"


def counters(lab):
    """Every counter of the proxy that these tests look at, by name and labels."""
    lines = lab.plane("proxy1", "l7", "/metrics").body.decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if line.startswith("tidegate_l7_")]
    wanted = {name: float(value) for name, value in pairs if HARM.match(name) or name in (HTTP2_ANSWERS, HANDSHAKES)}
    assert {HTTP2_ANSWERS, HANDSHAKES} < wanted.keys() and sum("http2_floods" in name for name in wanted) > 3, sorted(wanted)
    return wanted


@contextlib.contextmanager
def unharmed(lab, connections, http2_requests=0):
    """The block's clients must make exactly that many TLS connections and HTTP/2 requests, and meet no limit of the
    proxy."""
    before = counters(lab)
    yield
    grew = lambda: {name: value - before.get(name, 0) for name, value in counters(lab).items()}
    wait_until(f"{http2_requests} requests over HTTP/2 are counted", lambda: grew()[HTTP2_ANSWERS] >= http2_requests)
    after = grew()
    assert not {name: by for name, by in after.items() if by and HARM.match(name)}, {name: by for name, by in after.items() if by}
    assert (after[HANDSHAKES], after[HTTP2_ANSWERS]) == (connections, http2_requests), after


def required(program, package):
    assert shutil.which(program), f"{program} is not installed: it comes with the package {package}, which './run test --long e2e' installs"
    return program


# --- h2load


def many_streams(lab, connections, requests):
    with unharmed(lab, connections, requests):
        out = lab.run("client-eu", "h2load", "-n", requests, "-c", connections, "-m", "100", "--connect-to", f"{PROXY}:443", WWW + "/api/v1/load").stdout
        assert "Application protocol: h2" in out, out
        assert f"{requests} succeeded, 0 failed, 0 errored, 0 timeout" in out and f"status codes: {requests} 2xx" in out, out


def test_a_hundred_streams_at_a_time_are_all_answered(lab):
    many_streams(lab, connections=4, requests=2000)


@long
def test_a_hundred_streams_at_a_time_are_all_answered_for_fifty_thousand_requests(lab):
    many_streams(lab, connections=8, requests=50_000)


# --- a reader with a small window


class FrameReader:
    """One GET over HTTP/2 with a window that is opened again each time it has been used up."""

    def __init__(self, host, window):
        context = tls_context()
        context.set_alpn_protocols(["h2"])
        self.connection, self.window, self.buffer = connect(host, PROXY, 443, NAME, context), window, b""
        self.socket = self.connection.sock
        assert self.socket.selected_alpn_protocol() == "h2"

    def next_frame(self):
        """(type, flags, payload)"""
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
            received = self.socket.recv(65536)
            assert received, "the proxy closed the connection"
            self.buffer += received
        end = 9 + int.from_bytes(self.buffer[:3], "big")
        head, payload, self.buffer = self.buffer[:9], self.buffer[9:end], self.buffer[end:]
        return head[3], head[4], payload

    def get(self, path):
        """Returns (first byte of the header block, body, WINDOW_UPDATE frames sent)."""
        text = lambda name, value: bytes([name, len(value)]) + value.encode()  # HPACK: literal without indexing
        request = b"\x82\x87" + text(0x04, path) + text(0x01, NAME)
        window = b"\0\4" + self.window.to_bytes(4, "big")  # SETTINGS_INITIAL_WINDOW_SIZE
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, window) + frame(HEADERS, END_HEADERS | END_STREAM, 1, request))
        status, body, updates, unread = None, b"", 0, 0
        while True:
            kind, flags, payload = self.next_frame()
            assert kind not in (GOAWAY, RST_STREAM), (kind, payload, len(body))
            if kind == SETTINGS and not flags & ACK:
                self.socket.sendall(frame(SETTINGS, ACK, 0))
            elif kind == HEADERS:
                status = payload[0]
            elif kind == DATA:
                body, unread = body + payload, unread + len(payload)
                if not flags & END_STREAM and unread >= self.window:
                    more = unread.to_bytes(4, "big")
                    self.socket.sendall(frame(WINDOW_UPDATE, 0, 1, more) + frame(WINDOW_UPDATE, 0, 0, more))
                    updates, unread = updates + 2, 0
            if kind in (HEADERS, DATA) and flags & END_STREAM:
                return status, body, updates


def test_a_reader_that_opens_its_window_bit_by_bit_gets_its_whole_answer(lab):
    whole = b"".join(b"%015d\n" % i for i in range(12_800))
    path = f"/window-{uuid.uuid4().hex}"
    for origin in ("origin1", "origin2"):
        (lab.directory(origin) / "www" / path[1:]).write_bytes(whole)
    with unharmed(lab, connections=1, http2_requests=1):
        reader = FrameReader("client-eu", window=256)
        with contextlib.closing(reader.connection):
            status, body, updates = reader.get(path)
        assert status == 0x88 and body == whole, (status, len(body))  # index 8 of the static table: ":status: 200"
        assert updates > 1500, updates  # more frames than a client may send for free
    for origin in ("origin1", "origin2"):
        (lab.directory(origin) / "www" / path[1:]).unlink()


# --- cookies


def test_sixty_cookies_arrive_over_http1_and_http2(lab):
    cookies = [f"name{i}={uuid.uuid4().hex}" for i in range(60)]
    whole = "; ".join(cookies)
    crumbs = [option for cookie in cookies for option in ("-H", f"Cookie: {cookie}")]  # RFC 9113 §8.2.3: as browsers send them
    ways = (("--http1.1", "-H", f"Cookie: {whole}"), ("--http2", "-H", f"Cookie: {whole}"), ("--http2", *crumbs))
    with unharmed(lab, connections=3, http2_requests=2):
        for way in ways:
            out = lab.curl("client-eu", f"{WWW}/static/told/{uuid.uuid4().hex}", *way, "-w", "%{http_code} %{num_headers}", vip=PROXY).stdout
            assert out.startswith(f"cookie={whole} ") and "\n200 " in out, out


# --- many clients behind one address


def behind_one_address(lab, clients):
    """All clients are connected at the same time. Each asks, and asks again when all are connected."""
    allow_files(clients + 200)
    context, held = tls_context(lab.directory("edge") / "example.crt"), []
    with unharmed(lab, clients), contextlib.ExitStack() as stack:
        for _ in range(clients):
            held.append(stack.enter_context(contextlib.closing(connect("client-eu", PROXY, 443, NAME, context))))
        for turn in (1, 2):
            for client in held:
                client.request("GET", f"/api/v1/client?turn={turn}")
            for number, client in enumerate(held):
                answer = client.getresponse()
                body = answer.read()
                assert (answer.status, answer.will_close) == (200, False) and b"xff=10.1.0.2 " in body, (turn, number, answer.status, body)


def test_two_hundred_clients_behind_one_address_are_all_answered(lab):
    behind_one_address(lab, 200)


@long
def test_a_thousand_clients_behind_one_address_are_all_answered(lab):
    behind_one_address(lab, 1000)
    with unharmed(lab, connections=1000, http2_requests=10_000):  # and when all come at once, over HTTP/2
        out = lab.run("client-eu", "h2load", "-n", "10000", "-c", "1000", "-m", "10", "--connect-to", f"{PROXY}:443", WWW + "/api/v1/load").stdout
        assert "10000 succeeded, 0 failed, 0 errored, 0 timeout" in out and "status codes: 10000 2xx" in out, out


# --- a browser

RESOURCES = 80
GIF = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")
PAGE = """<!doctype html><title>honest</title><link rel="icon" href="data:,">
<script>let loaded = 0, failed = 0, ran = 0;</script>
<body>
%s
<script>
addEventListener('load', () => {
  const turn = Number(sessionStorage.turn || 0) + 1;
  sessionStorage.turn = turn;
  sessionStorage.said = (sessionStorage.said || '') + `turn ${turn}: ${loaded} loaded, ${failed} failed, ${ran} ran. `;
  if (turn < 2) location.reload();
  else document.body.append(sessionStorage.said);
});
</script>
"""


def write_page(folder):
    """Half of its resources are scripts, half are images."""
    count = 'onload="loaded++" onerror="failed++"'
    tags = [f'<script async src="{i}.js" {count}></script>' if i % 2 else f'<img src="{i}.gif" {count}>' for i in range(RESOURCES)]
    (folder / "page.html").write_text(PAGE % "\n".join(tags))
    for i in range(RESOURCES):
        (folder / f"{i}.{'js' if i % 2 else 'gif'}").write_bytes(b"ran++;\n" if i % 2 else GIF)


@contextlib.contextmanager
def page_of_resources(lab):
    """A page whose resources no browser may keep. Yields its path."""
    folders = [lab.directory(origin) / "www/honest" for origin in ("origin1", "origin2")]
    for folder in folders:
        folder.mkdir()
        write_page(folder)
    # The lab's origins send no content types, but a page must have one.
    page = '  - {name: honest-page, listeners: [https], hosts: [www.example.test], path: /honest/page.html, pool: origins, response_headers: {Content-Type: text/html, Cache-Control: no-store}}\n'
    rest = '  - {name: honest, listeners: [https], hosts: [www.example.test], path: "/honest/*", pool: origins, response_headers: {Cache-Control: no-store}}\n'
    try:
        with lab.configured(("routes:\n", "routes:\n" + page + rest)):
            yield "/honest/page.html"
    finally:
        for folder in folders:
            shutil.rmtree(folder)


def events_of(net_log):
    """How often each event is in a browser's network log."""
    log = json.loads(net_log.read_text())
    names = {number: name for name, number in log["constants"]["logEventTypes"].items()}
    end = log["constants"]["logEventPhase"]["PHASE_END"]
    seen = dict.fromkeys(names.values(), 0)
    for event in log["events"]:
        if event["phase"] != end:  # an event with a duration is counted at its beginning
            seen[names[event["type"]]] += 1
    return seen


def loads_twice(lab, home, path):
    """Chromium loads that page, and once more, without a resource that fails."""
    done = lab.run(
        "client-eu", "env", f"HOME={home}", "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--no-proxy-server", "--ignore-certificate-errors", f"--user-data-dir={home}/profile",
        f"--host-resolver-rules=MAP {NAME} {PROXY}", f"--log-net-log={home}/net.json", "--virtual-time-budget=60000", "--dump-dom", WWW + path, timeout=150,
    )  # fmt: skip
    said = "".join(f"turn {turn}: {RESOURCES} loaded, 0 failed, {RESOURCES // 2} ran. " for turn in (1, 2))
    assert said in done.stdout, (done.stdout[-1500:], done.stderr[-1500:])


@long
def test_a_browser_loads_a_page_of_eighty_resources_and_loads_it_again(lab):
    """Chromium over TLS and HTTP/2. Its own network log shows that it saw neither GOAWAY nor a reset stream."""
    required("chromium", "chromium")
    with page_of_resources(lab) as path, tempfile.TemporaryDirectory(prefix="tidegate-chromium-") as home:
        before = counters(lab)
        # The browser may open a second connection in advance. So its connections are counted in its own log.
        loads_twice(lab, home, path)
        seen = events_of(Path(home) / "net.json")
    told = [seen[f"HTTP2_SESSION{event}"] for event in ("", "_RECV_GOAWAY", "_RECV_RST_STREAM", "_RECV_HEADERS")]
    assert told == [1, 0, 0, 2 * (RESOURCES + 1)], told
    grew = {name: value - before.get(name, 0) for name, value in counters(lab).items()}
    assert not {name: by for name, by in grew.items() if by and HARM.match(name)}, grew
    assert grew[HTTP2_ANSWERS] == 2 * (RESOURCES + 1), grew


# --- a backend with few connections


@contextlib.contextmanager
def small_backend(lab, port, keys):
    """The proxies' pool for "/small/*": one backend, of which they may use few connections."""
    pool = f"  - {{name: small, {keys}, backends: [{{name: a, addresses: [10.10.0.21], port: {port}}}]}}\n"
    route = f'  - {{name: small, listeners: [https], hosts: [{NAME}], path: "/small/*", pool: small, response_headers: {{Cache-Control: no-store}}}}\n'
    with lab.configured(("pools:\n", "pools:\n" + pool), ("routes:\n", "routes:\n" + route)):
        yield


def queued(lab):
    return metric(lab, 'tidegate_l7_pool_queued_requests_total{pool="small"}')


def metric(lab, series):
    lines = lab.plane("proxy1", "l7", "/metrics").body.decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(series))


def test_eighty_requests_at_once_wait_for_a_backend_with_two_connections(lab):
    folder = lab.directory("origin1") / "www/small"
    folder.mkdir()
    (folder / "x").write_text("small\n")
    try:
        with small_backend(lab, 8080, "max_connections: 2"), unharmed(lab, 1, 80):
            out = lab.run("client-eu", "h2load", "-n", "80", "-c", "1", "-m", "80", "--connect-to", f"{PROXY}:443", WWW + "/small/x").stdout
            assert "80 succeeded, 0 failed, 0 errored, 0 timeout" in out and "status codes: 80 2xx" in out, out
            assert queued(lab) >= 70, queued(lab)
    finally:
        shutil.rmtree(folder)


# Its kernel holds two connections that it has not accepted; it answers one at a time and closes it.
FEW_AT_A_TIME = """
import contextlib, socket
server = socket.create_server(("10.10.0.21", 8098), backlog=1)
while True:
    client = server.accept()[0]
    with contextlib.suppress(OSError):  # the proxy may have given it up
        if b"\\r\\n\\r\\n" in client.recv(65536):
            client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 6\\r\\nConnection: close\\r\\n\\r\\nsmall\\n")
    client.close()
"""


@long
def test_eighty_requests_at_once_wait_for_a_backend_that_accepts_few_connections(lab):
    with tempfile.TemporaryDirectory(prefix="tidegate-few-") as home:
        server = Process(HOSTS["origin1"].namespace, "origin1/few", [sys.executable, "-c", FEW_AT_A_TIME], Path(home) / "log").start()
        try:
            wait_until("the server listens", lambda: lab.tcp_opens("origin1", "10.10.0.21", 8098), process=server)
            with small_backend(lab, 8098, "max_connections: 4096"), unharmed(lab, 1, 80):
                out = lab.run("client-eu", "h2load", "-n", "80", "-c", "1", "-m", "80", "--connect-to", f"{PROXY}:443", WWW + "/small/x").stdout
                assert "80 succeeded, 0 failed, 0 errored, 0 timeout" in out and "status codes: 80 2xx" in out, out
                assert metric(lab, 'tidegate_l7_backend_connections_not_accepted_total{pool="small"') > 0 and metric(lab, 'tidegate_l7_backend_failures_total{pool="small"') == 0
        finally:
            server.stop()


NODE_ORIGIN = 'require("http").createServer((request, response) => response.end("small\\n")).listen(8099, "10.10.0.21")'


@long
def test_two_and_a_half_thousand_requests_at_once_are_answered_by_a_healthy_node_origin(lab):
    """More connections at once than the origin's kernel takes: some of them are sent a second SYN, after a second."""
    required("node", "nodejs")
    with tempfile.TemporaryDirectory(prefix="tidegate-node-") as home:
        server = Process(HOSTS["origin1"].namespace, "origin1/node", ["node", "-e", NODE_ORIGIN], Path(home) / "log").start()
        try:
            wait_until("Node listens", lambda: lab.tcp_opens("origin1", "10.10.0.21", 8099), process=server)
            with small_backend(lab, 8099, "max_connections: 4096"), unharmed(lab, 50, 20_000):
                out = lab.run("client-eu", "h2load", "-n", "20000", "-c", "50", "-m", "50", "--connect-to", f"{PROXY}:443", WWW + "/small/x", timeout=120).stdout
                assert "20000 succeeded, 0 failed, 0 errored, 0 timeout" in out and "status codes: 20000 2xx" in out, out
        finally:
            server.stop()


@long
def test_a_browser_loads_a_page_of_eighty_resources_from_python_s_own_server(lab):
    """`python3 -m http.server` closes each connection, and its kernel holds five that it has not accepted."""
    required("chromium", "chromium")
    with tempfile.TemporaryDirectory(prefix="tidegate-chromium-") as home:
        folder = Path(home) / "www/small"
        folder.mkdir(parents=True)
        write_page(folder)
        server = Process(HOSTS["origin1"].namespace, "origin1/python", ["python3", "-m", "http.server", "8097", "--bind", "10.10.0.21", "--directory", folder.parent], Path(home) / "log").start()
        try:
            wait_until("python's server listens", lambda: lab.tcp_opens("origin1", "10.10.0.21", 8097), process=server)
            for keys in ("max_connections: 4", "max_connections: 4096"):
                with small_backend(lab, 8097, keys):
                    before = counters(lab)
                    loads_twice(lab, home, "/small/page.html")
                    grew = {name: value - before.get(name, 0) for name, value in counters(lab).items()}
                    assert not {name: by for name, by in grew.items() if by and HARM.match(name)}, (keys, grew)
        finally:
            server.stop()


# --- gRPC


class GrpcBackend(http.server.BaseHTTPRequestHandler):
    """gRPC messages over HTTP/1.1, without trailers: /Say returns a message, /Count returns how many there were."""

    protocol_version = "HTTP/1.1"

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_POST(self):
        body, messages = self.body(), []
        while body:  # each: one byte of flags, four of length
            end = 5 + int.from_bytes(body[1:5], "big")
            messages.append(body[5:end])
            body = body[end:]
        answer = str(len(messages)).encode() if self.path.endswith("/Count") else messages[0]
        self.send_response(200)
        self.send_header("Content-Type", "application/grpc")
        self.send_header("Content-Length", str(5 + len(answer)))
        self.end_headers()
        self.wfile.write(b"\0" + len(answer).to_bytes(4, "big") + answer)

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True

    def __init__(self, host, port, handler):
        super().__init__((HOSTS[host].v4, port), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = open_socket(host, socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((HOSTS[host].v4, port))
        self.socket.listen(256)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (OSError, ValueError)):  # the connection ended within a request; the client reports it
            super().handle_error(request, client_address)


@contextlib.contextmanager
def grpc_backend(lab):
    pool = "  - {name: grpc, backends: [{name: a, addresses: [10.10.0.21], port: 8095}]}\n"
    route = '  - {name: grpc, listeners: [https], hosts: [www.example.test], path: "/honest.Echo/*", pool: grpc}\n'
    server = Server("origin1", 8095, GrpcBackend)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        with lab.configured(("pools:\n", "pools:\n" + pool), ("routes:\n", "routes:\n" + route)):
            yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@long
def test_grpc_calls_streams_and_keepalive_pings_keep_their_connection(lab):
    """@grpc/grpc-js: small calls, a client stream of small messages, and then only pings, 20 a second. Real users
    send one in some seconds.

    What this shows: one HTTP/2 connection carries all of it without GOAWAY, and each call gets the message of its
    answer. What it does not show: a call that succeeds. The proxy speaks HTTP/1.1 to its backends and forwards no
    trailers, and gRPC's status is a trailer. So the client ends each call with the status INTERNAL, which it makes
    itself, as it must."""
    required("node", "nodejs")
    required("npm", "npm")
    calls, messages, pings = 300, 5000, 40
    with tempfile.TemporaryDirectory(prefix="tidegate-grpc-") as home:
        install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--cache", f"{home}/cache", "--prefix", home, GRPC_PACKAGE]
        got = subprocess.run(install, capture_output=True, text=True, timeout=120, cwd=home)
        assert got.returncode == 0, f"npm could not install {GRPC_PACKAGE}, which this test is made of: {got.stderr[-1000:]}"
        with grpc_backend(lab), unharmed(lab, connections=1, http2_requests=2 * calls + 1):
            done = lab.run(
                "client-eu", "env", f"NODE_PATH={home}/node_modules", "node", HERE / "grpc_client.js", f"{PROXY}:443", lab.directory("edge") / "example.crt",
                calls, messages, pings, timeout=90,
            )  # fmt: skip
            seen = json.loads(done.stdout)
            assert (seen["connections"], seen["goaways"]) == (1, 0) and seen["pongs"] >= pings, seen
            assert (seen["answers"], seen["wrong"], seen["counted"]) == (2 * calls, [], str(messages)), seen
            assert list(seen["statuses"].values()) == [2 * calls + 1] and "without gRPC status" in list(seen["statuses"])[0], seen
