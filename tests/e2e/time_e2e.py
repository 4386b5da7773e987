# SPDX-License-Identifier: Apache-2.0
"""What time does to those who move slowly: WebSockets, event streams, slow downloads and uploads are not cut by any default. Clients that vanish are."""

import contextlib
import socket
import threading
import time

from honest_e2e import NAME, PROXY, HARM, counters
from lab import HOSTS, open_socket
from load import connect, tls_context
from marks import long
from netns import wait_until

PORT = 8096
PIECE = 4096


class PatientOrigin:
    """Answers by path: /events says something, is silent for `pause` seconds, and says the rest. /download sends a piece every half
    second for as long. /upload takes what it is sent. /chat is a WebSocket's upgrade and gives back what it gets."""

    def __init__(self, host, pause):
        self.pause = pause
        self.ended = threading.Event()  # a tunnel has ended
        self.listener = open_socket(host, socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((HOSTS[host].v4, PORT))
        self.listener.listen(64)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):  # closed
            while True:
                threading.Thread(target=self.serve, args=(self.listener.accept()[0],), daemon=True).start()

    def serve(self, client):
        with client, client.makefile("rb") as reader, contextlib.suppress(OSError):
            path = reader.readline().split()[1].decode().rsplit("/", 1)[-1]
            length = 0
            while (line := reader.readline()) not in (b"\r\n", b""):
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            getattr(self, path)(client, reader, length)

    def events(self, client, reader, length):
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: first\n\n")
        time.sleep(self.pause)  # what is tested is a silence
        client.sendall(b"data: last\n\n")

    def download(self, client, reader, length):
        pieces = int(2 * self.pause)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (pieces * PIECE))
        for _ in range(pieces):
            time.sleep(0.5)  # what is tested is a slow pace
            client.sendall(b"x" * PIECE)

    def upload(self, client, reader, length):
        body = reader.read(length)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nall" if len(body) == length else b"HTTP/1.1 400 Short\r\nContent-Length: 0\r\n\r\n")

    def chat(self, client, reader, length):
        client.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        while said := reader.read1(100):
            client.sendall(said)
        self.ended.set()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@contextlib.contextmanager
def patient_origin(lab, pause, pool_keys="", route_keys="", more=()):
    """`more`: further replacements in the lab's document."""
    pool = f"  - {{name: patient, backends: [{{name: a, addresses: [10.10.0.21], port: {PORT}}}]{pool_keys}}}\n"
    route = "".join(
        f'  - {{name: patient-{name}, listeners: [https], hosts: [{NAME}], path: "/time/{path}", pool: patient{keys}}}\n' for name, path, keys in (("rest", "*", route_keys), ("upload", "upload", ""))
    )
    with contextlib.closing(PatientOrigin("origin1", pause)) as origin, lab.configured(("pools:\n", "pools:\n" + pool), ("routes:\n", "routes:\n" + route), *more):
        yield origin


def dial(lab, host="client-eu"):
    return connect(host, PROXY, 443, NAME, tls_context(lab.directory("edge") / "example.crt"), timeout=120).sock


def ask(sock, path, more=""):
    sock.sendall(f"GET /time/{path} HTTP/1.1\r\nHost: {NAME}\r\n{more}\r\n".encode())


def read_to_end(sock):
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def chats(lab, pause):
    with dial(lab) as sock:
        ask(sock, "chat", "Connection: Upgrade\r\nUpgrade: websocket\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 101")
        time.sleep(pause)
        sock.sendall(b"still there?")
        same = sock.recv(100) == b"still there?"
        sock.unwrap().close()  # says that it ends, and receives the same
        return same


def hears_events(lab, pause):
    with dial(lab) as sock:
        ask(sock, "events", "Connection: close\r\n")
        return b"data: last" in read_to_end(sock)


def downloads(lab, pause):
    with dial(lab) as sock:
        ask(sock, "download", "Connection: close\r\n")
        return len(read_to_end(sock).partition(b"\r\n\r\n")[2]) == int(2 * pause) * PIECE


def uploads(lab, pause):
    pieces = int(2 * pause)
    with dial(lab) as sock:
        sock.sendall(f"POST /time/upload HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\nContent-Length: {pieces * PIECE}\r\n\r\n".encode())
        for _ in range(pieces):
            time.sleep(0.5)
            sock.sendall(b"x" * PIECE)
        return read_to_end(sock).endswith(b"all")


def streams_over_http2(lab, pause):
    known = ("--cacert", lab.directory("edge") / "example.crt", "--resolve", f"{NAME}:443:{PROXY}")
    return "data: last" in lab.run("client-eu", "curl", "-sS", *known, "--http2", f"https://{NAME}/time/events", timeout=2 * pause + 60).stdout


def all_are_served(lab, pause, *keys):
    with patient_origin(lab, pause, *keys):
        before = counters(lab)
        result = {}

        def run(user):
            result[user.__name__] = user(lab, pause)

        users = (chats, hears_events, downloads, uploads, streams_over_http2)
        threads = [threading.Thread(target=run, args=(user,)) for user in users]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert result == {user.__name__: True for user in users}, result
        grew = {name: value - before.get(name, 0) for name, value in counters(lab).items()}
        assert not {name: by for name, by in grew.items() if by and HARM.match(name)}, grew


def test_what_moves_slowly_outlives_the_time_in_which_a_response_must_begin(lab):
    """An upload has until the response's head is due; there first_byte_timeout counts from its end."""
    all_are_served(lab, 1, ", first_byte_timeout: 500ms", ", total_timeout: 500ms")


@long
def test_what_moves_slowly_is_served_for_longer_than_a_minute_at_the_defaults(lab):
    all_are_served(lab, 75)


@long
def test_a_client_that_vanishes_is_noticed_within_three_minutes(lab):
    """Its packets go nowhere from one moment on. A WebSocket may be silent for an hour; the kernel asks after a minute."""
    with patient_origin(lab, 0) as origin, contextlib.closing(dial(lab, "client-us")) as sock:
        ask(sock, "chat", "Connection: Upgrade\r\nUpgrade: websocket\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 101")
        lab.run("client-us", "ip", "route", "add", "blackhole", f"{PROXY}/32")
        try:
            wait_until("the proxy ends the tunnel of the vanished client", origin.ended.is_set, 180)
        finally:
            lab.run("client-us", "ip", "route", "del", "blackhole", f"{PROXY}/32")
