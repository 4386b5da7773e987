# SPDX-License-Identifier: Apache-2.0
"""A client that never retries: persistent TLS connections from a lab host. Every failure is kept with its time and
reason."""

import http.client
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field

from lab import open_socket
from topology import VIP_EU


def tls_context(ca=None, versions=None):
    context = ssl.create_default_context(cafile=str(ca)) if ca else ssl._create_unverified_context()
    if versions:
        context.minimum_version = context.maximum_version = versions
    return context


def connect(host, address, port, server_name=None, context=None, timeout=10):
    """A TCP or TLS connection from a lab host: an http.client connection that does not reconnect by itself."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = open_socket(host, family, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect((address, port))
        if context is not None:
            sock = context.wrap_socket(sock, server_hostname=server_name)
    except OSError:
        sock.close()
        raise
    connection = http.client.HTTPConnection(server_name or address)
    connection.auto_open = 0
    connection.sock = sock
    return connection


@dataclass
class Failure:
    at: float  # monotonic seconds
    method: str
    reason: str


@dataclass
class Tally:
    requests: int = 0
    ok: int = 0
    connections: int = 0
    closed: int = 0  # connections that the server ended, announced or not
    failures: list = field(default_factory=list)

    def failures_after(self, moment):
        return [f for f in self.failures if f.at > moment]


class SteadyLoad:
    """`with SteadyLoad(lab, "client-eu") as load:` — GETs and POSTs in turn until the block ends, over IPv4 and IPv6 alike; then load.tally is final."""

    def __init__(self, lab, host, vips=VIP_EU, name="www.example.test", path="/api/v1/load", connections=4, pause_s=0.002):
        self.host, self.name, self.path, self.pause_s = host, name, path, pause_s
        self.tally = Tally()
        self._mutex = threading.Lock()
        self._stop = threading.Event()
        self._answered = threading.Condition(self._mutex)
        self._context = tls_context(lab.directory("edge") / "example.crt")
        self._threads = [threading.Thread(target=self._worker, args=(vips[i % len(vips)],), daemon=True) for i in range(connections)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        self.wait_for(20)
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def wait_for(self, more, timeout_s=20):
        """Waits until that many more requests were answered correctly."""
        with self._mutex:
            target = self.tally.ok + more
            if not self._answered.wait_for(lambda: self.tally.ok >= target, timeout_s):
                raise AssertionError(f"only {self.tally.ok} of {target} requests answered; last failures {self.tally.failures[-3:]}")

    def _worker(self, vip):
        connection, turn = None, 0
        while not self._stop.is_set():
            method = "POST" if turn % 2 else "GET"
            turn += 1
            try:
                if connection is None:
                    connection = connect(self.host, vip, 443, self.name, self._context)
                    with self._mutex:
                        self.tally.connections += 1
                connection.request(method, self.path, body=b"payload" if method == "POST" else None)
                response = connection.getresponse()
                response.read()
                closing = connection.sock is None or response.will_close
                with self._mutex:
                    self.tally.requests += 1
                    if response.status == 200:
                        self.tally.ok += 1
                        self._answered.notify_all()
                    else:
                        self.tally.failures.append(Failure(time.monotonic(), method, f"status {response.status}"))
                    if closing:
                        self.tally.closed += 1
            except (OSError, http.client.HTTPException) as error:
                closing = True
                with self._mutex:
                    self.tally.requests += 1
                    self.tally.closed += connection is not None
                    self.tally.failures.append(Failure(time.monotonic(), method, f"{type(error).__name__}: {error}"))
                self._stop.wait(0.02)
            if closing and connection is not None:
                connection.close()
                connection = None
            self._stop.wait(self.pause_s)
        if connection is not None:
            connection.close()
