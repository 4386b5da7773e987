# SPDX-License-Identifier: Apache-2.0
"""The limits of the proxy: memory when clients do not read, connections, retries; and several workers that act as
one."""

import contextlib
import hashlib
import socket
import subprocess
import threading
import uuid
from pathlib import Path

from cache_e2e import fresh_path, origin_hits
from l4_e2e import metric
from lab import HOSTS, open_socket
from load import SteadyLoad, connect, tls_context
from netns import in_namespace, wait_until

WWW = "https://www.example.test"
PROXY = "10.10.0.11"
MB = 1 << 20


def resident_bytes(process):
    """The resident memory of a process."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def large_file(lab, megabytes):
    """A file on both origins, on a route without a cache. Returns its path and its digest."""
    content = b"".join(b"%015d\n" % i for i in range(MB // 16)) * megabytes
    name = f"large-{uuid.uuid4().hex}"
    for origin in ("origin1", "origin2"):
        (lab.directory(origin) / "www" / name).write_bytes(content)
    return "/" + name, hashlib.sha256(content).hexdigest()


def received_bytes(lab, host):
    """Counted at the host's network interface, whoever sent them."""
    return int(lab.run(host, "cat", "/sys/class/net/eth0/statistics/rx_bytes").stdout)


def slowed_down(value, to):
    """A condition for wait_until: the value grew by less than `to` since the last call."""
    last = []

    def slow():
        last.append(value())
        return len(last) > 1 and last[-1] - last[-2] < to

    return slow


def test_clients_that_do_not_read_cost_little_memory_and_get_all_when_they_do(lab):
    path, digest = large_file(lab, 32)
    proxy = lab.process("proxy1", "l7")
    received = lambda: received_bytes(lab, "proxy1")
    context = tls_context(lab.directory("edge") / "example.crt")
    lab.curl("client-eu", WWW + path, "-o", "/dev/null", vip=PROXY)
    before, received_before = resident_bytes(proxy), received()
    idle, curls = [], []
    try:
        for _ in range(60):
            connection = connect("client-eu", PROXY, 443, "www.example.test", context)
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            connection.request("GET", path)
            idle.append((connection, connection.getresponse()))
        for _ in range(10):  # and over HTTP/2, where the window stays closed
            command = ["curl", "-sk", "--http2", "--limit-rate", "1000", "--max-time", "60", "-o", "/dev/null",
                       "--resolve", f"www.example.test:443:{PROXY}", WWW + path]  # fmt: skip
            curls.append(subprocess.Popen(in_namespace(HOSTS["client-eu"].namespace, *command)))
        wait_until("the answers have come to a halt", slowed_down(received, to=200_000), 60)
        # 70 answers of 32 MB: without a limit, the growth would be visible.
        assert 5 * MB < received() - received_before < 500 * MB, (received_before, received())
        assert resident_bytes(proxy) - before < 300 * MB, (before, resident_bytes(proxy))
        for _, answer in (idle[0], idle[-1]):
            assert hashlib.sha256(answer.read()).hexdigest() == digest
    finally:
        for connection, _ in idle:
            connection.sock.close()
            connection.close()
        for curl in curls:
            curl.kill()
            curl.wait()
        for origin in ("origin1", "origin2"):
            (lab.directory(origin) / "www" / path[1:]).unlink()
    assert lab.curl("client-eu", WWW + "/", vip=PROXY).stdout == "the origin's front page\n"


class BreakingOrigin:
    """Takes each request and closes without an answer. Counts them."""

    def __init__(self, host, port):
        self.asked = 0
        self.listener = open_socket(host, socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((HOSTS[host].v4, port))
        self.listener.listen(64)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self.listener.accept()
                with connection, contextlib.suppress(OSError):
                    if connection.recv(4096):
                        self.asked += 1

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def test_retries_end_where_their_budget_does(lab):
    requests, budget = 300, 0.1
    backends = "{name: a, addresses: [10.10.0.21], port: 8091}, {name: b, addresses: [10.10.0.21], port: 8092}, {name: c, addresses: [10.10.0.21], port: 8093}"
    pool = f"  - {{name: breaking, retry_attempts: 2, retry_budget: {budget}, eject_after: 0, backends: [{backends}]}}\n"
    route = '  - {name: breaking, listeners: [https], hosts: [www.example.test], path: "/breaking", pool: breaking}\n'
    with contextlib.ExitStack() as stack:
        origins = [stack.enter_context(contextlib.closing(BreakingOrigin("origin1", port))) for port in (8091, 8092, 8093)]
        stack.enter_context(lab.configured(("pools:\n", "pools:\n" + pool), ("routes:\n", "routes:\n" + route)))
        count = lambda name: metric(lab, "proxy1", "l7", f"tidegate_l7_{name}_total")
        retries, denied = count("retries"), count("retries_denied")
        urls = [WWW + "/breaking"] * requests
        out = lab.curl("client-eu", urls[0], *urls[1:], "-o", "/dev/null", "-w", "%{http_code}\n", vip=PROXY, check=False).stdout
        assert out.split()[:1] == ["502"], out[:200]
        took = count("retries") - retries
        assert sum(origin.asked for origin in origins) == requests + took
        # The budget is a tenth of the requests, plus a minimum that applies to any budget: 5 at once and 5 a second.
        assert 0.5 * budget * requests <= took <= budget * requests + 5 + 5 * 20, took
        assert count("retries_denied") > denied


def worker_cpu_ns(process):
    """CPU time of each worker thread."""
    tasks = Path(f"/proc/{process.pid}/task")
    return {task.name: int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir() if (task / "comm").read_text().startswith("l7-worker")}


def restart_proxy(lab, host):
    assert lab.process(host, "l7").stop() == 0
    lab.start_plane(host, "l7")
    lab.wait_ready(host)
    lab.settle()


def test_two_workers_serve_as_one(lab):
    one, two = 'management: "10.99.0.3:9090"\n    l7: {workers: 1', 'management: "10.99.0.3:9090"\n    l7: {workers: 2'
    at_a_restart = ("--allow-restart",)
    with lab.configured((one, two), options=at_a_restart):
        restart_proxy(lab, "proxy1")
        proxy = lab.process("proxy1", "l7")
        before = worker_cpu_ns(proxy)
        assert len(before) == 2, before
        with SteadyLoad(lab, "client-eu", vips=(PROXY,), connections=32, pause_s=0) as load:
            # A herd over many connections, and so over both workers, costs the origins one request.
            path = fresh_path(lab)
            out = lab.run("client-eu", "h2load", "-n", "64", "-c", "32", "--connect-to", f"{PROXY}:443", WWW + path).stdout
            assert "64 succeeded" in out and origin_hits(lab, path) == 1, (out, origin_hits(lab, path))
            lab.tidegate("purge", WWW + path, "--wait")
            lab.curl("client-eu", WWW + path, "-o", "/dev/null", vip=PROXY)
            assert origin_hits(lab, path) == 2
            # A change of version reaches both workers: whichever is asked, it answers by the new version.
            route = '  - {name: newer, listeners: [https], hosts: [www.example.test], path: "/newer", status: 204}\n'
            with lab.configured((one, two), ("routes:\n", "routes:\n" + route), options=at_a_restart):
                out = lab.run("client-eu", "h2load", "-n", "64", "-c", "32", "--connect-to", f"{PROXY}:443", WWW + "/newer").stdout
                assert "64 2xx" in out, out
            load.wait_for(500)
        assert load.tally.failures == [] and load.tally.closed == 0, load.tally
        spent = [after - before[thread] for thread, after in worker_cpu_ns(proxy).items()]
        assert min(spent) > 0.1 * sum(spent), spent
    restart_proxy(lab, "proxy1")
