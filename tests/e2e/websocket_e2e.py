# SPDX-License-Identifier: Apache-2.0
"""WebSockets of HTTP/1 and of HTTP/2 clients (RFC 8441) to backends of both, and another protocol by Upgrade. The backend
of HTTP/2 is Node. In the long form the clients are Node and Chromium."""

import base64
import contextlib
import hashlib
import json
import os
import re
import signal
import socketserver
import tempfile
import threading
from pathlib import Path

from honest_e2e import ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, NAME, PREFACE, PROXY, SETTINGS, WINDOW_UPDATE, Server, frame, metric, required
from lab import HOSTS
from load import connect, tls_context
from marks import long
from netns import Process, wait_until
from upgrading import is_gone, upgraded

HERE = Path(__file__).resolve().parent
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PING = 6
KEY = base64.b64encode(b"sixteen bytes ok").decode()
MASK = b"mask"
PAGE = b"""<title>sockets</title><body><script>
const socket = new WebSocket(`wss://${location.host}/chat/room`);
const got = [];
socket.onopen = () => ['one', 'two', 'x'.repeat(70000)].forEach(text => socket.send(text));
socket.onmessage = event => { got.push(event.data.length); if (got.length === 3) socket.close(1000); };
socket.onclose = event => { document.body.textContent = `echoed ${got.join(' ')}, closed ${event.code} ${event.wasClean}.`; fetch('/chat/over'); };
</script><img src="/chat/wait">"""


class Origin(socketserver.StreamRequestHandler):
    """A WebSocket that echoes each message, the protocol "lines" that echoes each line, and a page. Chromium
    shows the page when it is loaded, and that waits for the image /chat/wait: it is answered when the page has asked for
    /chat/over."""

    over = threading.Event()

    def handle(self):
        while head := self.read_head():
            fields = {name.lower(): value for name, value in re.findall(r"^([^:\r\n]+): *([^\r\n]*)\r$", head, re.MULTILINE)}
            if fields.get("upgrade") == "websocket":
                accept = base64.b64encode(hashlib.sha1(fields["sec-websocket-key"].encode() + GUID).digest()).decode()
                self.say(f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode())
                return self.echo_messages()
            if fields.get("upgrade") == "lines":
                self.say(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n")
                for line in self.rfile:
                    self.say(b"> " + line)
                return self.say(b"the client has ended\n")
            if head.startswith("GET /chat/over "):
                self.over.set()
            if head.startswith("GET /chat/wait "):
                self.over.wait(60)
            self.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(PAGE) + PAGE)

    def say(self, data):
        self.wfile.write(data)
        self.wfile.flush()

    def read_head(self):
        lines = []
        while line := self.rfile.readline():
            lines.append(line.decode())
            if line == b"\r\n":
                return "".join(lines)
        return ""

    def echo_messages(self):
        while start := self.rfile.read(2):
            length = start[1] & 127
            if length == 126:
                length = int.from_bytes(self.rfile.read(2), "big")
            elif length == 127:
                length = int.from_bytes(self.rfile.read(8), "big")
            mask, data = self.rfile.read(4), self.rfile.read(length)
            data = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
            self.say(message(data, start[0]))
            if start[0] & 15 == 8:
                return


def message(data, first=0x82, mask=None):
    """A frame of RFC 6455."""
    masked = 0x80 if mask else 0
    if len(data) < 126:
        head = bytes([first, masked | len(data)])
    elif len(data) < 65536:
        head = bytes([first, masked | 126]) + len(data).to_bytes(2, "big")
    else:
        head = bytes([first, masked | 127]) + len(data).to_bytes(8, "big")
    return head + (mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data)) if mask else data)


@contextlib.contextmanager
def origin(lab):
    pool = "  - {name: chat, upgrades: [lines], backends: [{name: a, addresses: [10.10.0.21], port: 8098}]}\n"
    route = f'  - {{name: chat, listeners: [https], hosts: [{NAME}], path: "/chat/*", pool: chat}}\n'
    Origin.over.clear()
    server = Server("origin1", 8098, Origin)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        with lab.configured(("pools:\n", "pools:\n" + pool), ("routes:\n", "routes:\n" + route)):
            before = metric(lab, "tidegate_l7_tunnels_opened_total")
            yield lambda: metric(lab, "tidegate_l7_tunnels_opened_total") - before
            wait_until("all tunnels are closed", lambda: metric(lab, "tidegate_l7_tunnels_opened_total") == metric(lab, "tidegate_l7_tunnels_closed_total"))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def node(lab):
    """Node's WebSockets behind the routes /connect/* (HTTP/2 that allows them), /plain/* (HTTP/2 that does not) and
    /both/* (what TLS chooses: HTTP/2 that does not, HTTP/1.1 that does)."""
    tls = "protocol: auto, tls: true, tls_server_name: www.example.test, tls_verify: false"
    ports = {"connect": (8110, "protocol: h2"), "plain": (8111, "protocol: h2"), "both": (8112, tls)}
    pool = "  - {{name: {0}, {2}, backends: [{{name: a, addresses: [10.10.0.21], port: {1}}}]}}\n".format
    route = f'  - {{{{name: {{0}}, listeners: [https], hosts: [{NAME}], path: "/{{0}}/*", pool: {{0}}}}}}\n'.format
    pools = "".join(pool(name, *rest) for name, rest in ports.items())
    edge = lab.directory("edge")
    command = ["node", HERE / "websocket_server.js", "10.10.0.21", 8110, 8111, 8112, edge / "example.crt", edge / "example.key"]
    process = Process(HOSTS["origin1"].namespace, "origin1/node", command, lab.log("origin1", "node")).start()
    try:
        wait_until("Node listens", lambda: all(lab.tcp_opens("origin1", "10.10.0.21", port) for port, _ in ports.values()), process=process)
        with lab.configured(("pools:\n", "pools:\n" + pools), ("routes:\n", "routes:\n" + "".join(map(route, ports)))):
            yield
    finally:
        process.stop()


def http1_socket(lab, protocol, path="/chat/room"):
    """A connection with an open tunnel; its file to read from."""
    connection = connect("client-eu", PROXY, 443, NAME, tls_context(lab.directory("edge") / "example.crt"))
    connection.sock.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n".encode()
    )
    got = connection.sock.makefile("rb")
    head = b"".join(iter(got.readline, b"\r\n"))
    assert head.startswith(b"HTTP/1.1 101 ") and f"Upgrade: {protocol}\r\n".encode() in head, head
    return connection, got


class Http2Socket:
    """A WebSocket on stream 1 of a connection of its own, frame by frame."""

    def __init__(self, lab, path="/chat/room"):
        context = tls_context(lab.directory("edge") / "example.crt")
        context.set_alpn_protocols(["h2"])
        self.connection = connect("client-eu", PROXY, 443, NAME, context)
        self.got = self.connection.sock.makefile("rb")
        text = lambda value: bytes([len(value)]) + value.encode()
        # HPACK, literals without indexing: index 2 is :method, 4 :path, 1 :authority.
        request = b"\x02" + text("CONNECT") + b"\x00" + text(":protocol") + text("websocket") + b"\x87\x04" + text(path) + b"\x01" + text(NAME)
        request += b"\x00" + text("sec-websocket-version") + text("13")
        self.send(PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, request))
        kind, _, settings = self.next_frame()
        assert kind == SETTINGS and b"\0\x08\0\0\0\1" in settings, settings  # SETTINGS_ENABLE_CONNECT_PROTOCOL
        answer = self.next_of(HEADERS)[1]
        assert answer[0] == 0x88, answer  # index 8: ":status: 200"

    def send(self, data):
        self.connection.sock.sendall(data)

    def send_data(self, data):
        """In frames of the size that each receiver takes; altogether less than the first window of a stream, 65,535 bytes."""
        for at in range(0, len(data), 16_000):
            self.send(frame(DATA, 0, 1, data[at : at + 16_000]))

    def rest(self):
        """What comes up to END_STREAM. The windows are opened as it comes."""
        got = b""
        while True:
            flags, data = self.next_of(DATA)
            got += data
            if flags & END_STREAM:
                return got
            if data:
                more = len(data).to_bytes(4, "big")
                self.send(frame(WINDOW_UPDATE, 0, 0, more) + frame(WINDOW_UPDATE, 0, 1, more))

    def echoes(self, text):
        self.send_data(message(text, mask=MASK))
        return self.next_of(DATA)[1] == message(text)

    def hears_of_the_end(self):
        """The two GOAWAYs of a server that ends in order (RFC 9113 §6.8)."""
        assert self.next_of(GOAWAY)[1] == bytes.fromhex("7fffffff") + bytes(4), "the first one refuses nothing"
        assert self.next_of(GOAWAY)[1] == bytes.fromhex("00000001") + bytes(4), "the second one names the last stream"

    def next_frame(self):
        head = self.got.read(9)
        return head[3], head[4], self.got.read(int.from_bytes(head[:3], "big"))

    def next_of(self, wanted):
        while True:
            kind, flags, payload = self.next_frame()
            if kind == wanted:
                return flags, payload
            if kind == PING and not flags & ACK:
                self.send(frame(PING, ACK, 0, payload))
            assert kind not in (3, 7), (kind, payload)  # RST_STREAM, GOAWAY


def test_websockets_of_http1_and_http2_clients_reach_a_backend_of_http1(lab):
    with origin(lab) as opened:
        connection, got = http1_socket(lab, "websocket")
        with contextlib.closing(connection):
            connection.sock.sendall(message(b"hello", mask=MASK) + message(b"\x03\xe8", 0x88, MASK))
            assert got.read() == message(b"hello") + message(b"\x03\xe8", 0x88)  # up to the end of the connection
        socket = Http2Socket(lab)
        with contextlib.closing(socket.connection):
            socket.send(frame(DATA, 0, 1, message(b"hello", mask=MASK)))
            assert socket.next_of(DATA)[1] == message(b"hello")
            socket.send(frame(DATA, END_STREAM, 1, message(b"last", mask=MASK)))  # half-closes
            flags, data = socket.next_of(DATA)
            assert data == message(b"last"), data
            assert flags & END_STREAM or socket.next_of(DATA) == (END_STREAM, b"")
        assert opened() == 2, opened()


@long
def test_websockets_of_http1_and_http2_clients_reach_a_backend_of_http2(lab):
    """Where its HTTP/2 does not allow them, a pool with "auto" opens them over HTTP/1.1."""
    required("node", "nodejs")
    said = message(b"hello", mask=MASK) + message(b"x" * 50_000, mask=MASK) + message(b"\x03\xe8", 0x88, MASK)
    heard = message(b"hello") + message(b"x" * 50_000) + message(b"\x03\xe8", 0x88)
    unsupported = 'tidegate_l7_failures_total{reason="tunnels_unsupported"}'
    with node(lab):
        before = metric(lab, unsupported)
        for path in ("/connect/room", "/both/room"):
            connection, got = http1_socket(lab, "websocket", path)
            with contextlib.closing(connection):
                connection.sock.sendall(said)
                assert got.read() == heard, path  # up to the end of the connection
            socket = Http2Socket(lab, path)
            with contextlib.closing(socket.connection):
                socket.send_data(said)
                assert socket.rest() == heard, path
        done = lab.curl("client-eu", f"https://{NAME}/plain/room", "--http1.1", "-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13", "-H", f"Sec-WebSocket-Key: {KEY}", "-w", "%{http_code}", vip=PROXY)
        assert done.stdout.endswith("501"), done.stdout
        assert metric(lab, unsupported) - before == 1
        assert lab.curl("client-eu", f"https://{NAME}/connect/page").stdout == "GET over HTTP/2\n"


@long
def test_a_websocket_over_http2_outlives_an_upgrade_and_a_sigterm(lab):
    """Each time its client hears GOAWAY, and its process ends only when the WebSocket has."""
    pids = [lab.plane("proxy1", "l7", "/status").json()["pid"]]
    with origin(lab):
        try:
            first = Http2Socket(lab)
            pids.append(upgraded(lab, "proxy1", "l7")["pid"])
            second = Http2Socket(lab)
            os.kill(pids[1], signal.SIGTERM)
            for socket, pid in zip((first, second), pids):
                socket.hears_of_the_end()
                assert socket.echoes(b"still there?") and not is_gone(pid)
                socket.send(frame(DATA, END_STREAM, 1, b""))
                assert socket.rest() == b""
                wait_until("the process has ended", lambda pid=pid: is_gone(pid))
                socket.connection.close()
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            wait_until("every process is gone", lambda: all(map(is_gone, pids)))
            lab.start_plane("proxy1", "l7")
            lab.wait_ready()
            lab.settle()


def test_a_protocol_that_the_pool_allows_is_tunnelled(lab):
    with origin(lab) as opened:
        connection, got = http1_socket(lab, "lines")
        with contextlib.closing(connection), got:  # the file keeps the socket open, too
            connection.sock.sendall(b"a line\n")
            assert got.readline() == b"> a line\n"
        assert opened() == 1, opened()


@long
def test_node_and_chromium_open_websockets_over_http2(lab):
    """Node over both versions of HTTP, with messages of many sizes; Chromium, whose network log says that its WebSocket
    was a stream of the page's own HTTP/2 connection."""
    required("node", "nodejs")
    required("chromium", "chromium")
    certificate = lab.directory("edge") / "example.crt"
    with origin(lab) as opened, tempfile.TemporaryDirectory(prefix="tidegate-chromium-") as home:
        done = lab.run("client-eu", "node", HERE / "websocket_client.js", PROXY, NAME, certificate)
        assert json.loads(done.stdout) == {"http1": "12 messages", "http2": "12 messages", "streams": "32 of 32"}, done.stdout
        assert opened() == 34, opened()
        done = lab.run(
            "client-eu", "env", f"HOME={home}", "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--no-proxy-server", "--ignore-certificate-errors", f"--user-data-dir={home}/profile",
            f"--host-resolver-rules=MAP {NAME} {PROXY}", f"--log-net-log={home}/net.json", "--timeout=60000", "--dump-dom", f"https://{NAME}/chat/page", timeout=150,
        )  # fmt: skip
        assert "echoed 3 3 70000, closed 1000 true." in done.stdout, (done.stdout[-1500:], done.stderr[-1500:])
        assert ":protocol: websocket" in (Path(home) / "net.json").read_text(), "the WebSocket was no stream of HTTP/2"


@long
def test_node_speaks_through_the_proxy_to_node_over_http2(lab):
    """Messages of many sizes, and 32 WebSockets at once, from clients of both versions of HTTP."""
    required("node", "nodejs")
    with node(lab):
        for path in ("/connect/room", "/both/room"):
            done = lab.run("client-eu", "node", HERE / "websocket_client.js", PROXY, NAME, lab.directory("edge") / "example.crt", path)
            assert json.loads(done.stdout) == {"http1": "12 messages", "http2": "12 messages", "streams": "32 of 32"}, (path, done.stdout)
