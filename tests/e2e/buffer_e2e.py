# SPDX-License-Identifier: Apache-2.0
"""buffer_request and buffer_response before an application that serves one request at a time: Python's own WSGI server,
and in the long form gunicorn with one worker."""

import contextlib
import sys
import tempfile

from honest_e2e import metric, required
from lab import HOSTS
from load import connect, tls_context
from marks import long
from netns import Process, wait_until

NAME = "www.example.test"
PROXY = "10.10.0.11"
LARGE = 8 << 20
# /app/large: more than sockets hold. /app/...: how the body was framed, and how long it is.
APPLICATION = f"""
def application(environ, start_response):
    length = environ.get("CONTENT_LENGTH", "")
    body = environ["wsgi.input"].read(int(length or 0))
    if environ["PATH_INFO"].endswith("/large"):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "{LARGE}")])
        return [b"x" * {LARGE}]
    said = f"{{environ.get('HTTP_TRANSFER_ENCODING', 'length')}} {{length or 0}} {{len(body)}}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(said)))])
    return [said]

if __name__ == "__main__":
    from wsgiref.simple_server import make_server
    make_server("10.10.0.21", 8099, application).serve_forever()
"""


@contextlib.contextmanager
def application(lab, *command, keys):
    """The application on origin1, behind "/app/*"."""
    pool = f"  - {{name: app, {keys}, backends: [{{name: a, addresses: [10.10.0.21], port: 8099}}]}}\n"
    route = f'  - {{name: app, listeners: [https], hosts: [{NAME}], path: "/app/*", pool: app}}\n'
    with tempfile.TemporaryDirectory(prefix="tidegate-wsgi-") as home:
        with open(f"{home}/app.py", "w") as file:
            file.write(APPLICATION)
        process = Process(HOSTS["origin1"].namespace, "origin1/wsgi", ["env", f"PYTHONPATH={home}", *command, *([f"{home}/app.py"] if len(command) == 1 else [])], lab.log("origin1", "wsgi")).start()
        try:
            wait_until("the application listens", lambda: lab.tcp_opens("origin1", "10.10.0.21", 8099), process=process)
            with lab.configured(("pools:\n", "pools:\n" + pool), ("routes:\n", "routes:\n" + route)):
                yield
        finally:
            process.stop()


def client(lab, request):
    connection = connect("client-eu", PROXY, 443, NAME, tls_context(lab.directory("edge") / "example.crt"))
    connection.sock.sendall(request)
    return connection


def head(method, path, *fields):
    return "\r\n".join([f"{method} /app/{path} HTTP/1.1", f"Host: {NAME}", *fields, "", ""]).encode()


def answer(connection):
    got = connection.sock.makefile("rb")
    fields = dict(line.lower().rstrip().split(b": ", 1) for line in list(iter(got.readline, b"\r\n"))[1:])
    return got.read(int(fields[b"content-length"]))


def slow_clients_hold_nobody(lab):
    with contextlib.ExitStack() as clients:
        opened = lambda request: clients.enter_context(contextlib.closing(client(lab, request)))
        uploads = [opened(head("POST", "x", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n") for _ in range(3)]
        assert answer(opened(head("GET", "x"))) == b"length 0 0"  # three unfinished uploads would block it
        for upload in uploads:
            upload.sock.sendall(b"6\r\n world\r\n0\r\n\r\n")
            assert answer(upload) == b"length 11 11"
        waits = opened(head("POST", "x", "Expect: 100-continue", "Content-Length: 3"))
        assert waits.sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert answer(opened(head("GET", "x"))) == b"length 0 0"
        waits.sock.sendall(b"abc")
        assert answer(waits) == b"length 3 3"
        before = metric(lab, "tidegate_l7_responses_buffered_total")
        download = opened(head("GET", "large"))  # the client reads nothing
        wait_until("the application is rid of the answer", lambda: metric(lab, "tidegate_l7_responses_buffered_total") == before + 1)
        assert answer(opened(head("GET", "x"))) == b"length 0 0"
        assert answer(download) == b"x" * LARGE


def test_clients_that_are_slow_hold_no_worker_of_a_wsgi_application(lab):
    with application(lab, sys.executable, keys="buffer_request: 1MB, buffer_response: 16MB"):
        slow_clients_hold_nobody(lab)


@long
def test_clients_that_are_slow_hold_no_worker_of_gunicorn(lab):
    gunicorn = required("gunicorn", "gunicorn")
    with application(lab, gunicorn, "--workers", "1", "--bind", "10.10.0.21:8099", "app:application", keys="buffer_request: 1MB, buffer_response: 16MB"):
        slow_clients_hold_nobody(lab)
