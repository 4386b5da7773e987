# SPDX-License-Identifier: Apache-2.0
"""Load generators as functions of seconds: wrk, h2load, dnsperf and our own. Each returns a Sample."""

import itertools
import tempfile
import urllib.request
from pathlib import Path

from measure import ASK_ONCE, BUILD, GENERATOR_CORE, Program, Sample, generate
from outputs import dnsperf_sample, h2load_sample, wrk_sample


def ask_once(url, headers=(), prefix=(), options=()):
    """One request by h2load. It must be answered."""
    fields = [part for header in headers for part in ("-H", header)]
    out, _ = generate([*prefix, "h2load", "-t1", "-c1", "-n1", *options, *fields, url])
    if " 1 done" not in out:
        raise ValueError(f"{url} was not answered: {out[-300:]}")
    return Sample(1, 1)


def dig_once(address, names, prefix=(), options=()):
    """One query by dig. It must be answered. `names` is a file with one name per line."""
    host, port = address.rsplit(":", 1)
    name = Path(names).read_text().split()[0]
    out, _ = generate([*prefix, "dig", f"@{host}", "-p", port, "+tries=3", "+time=1", *options, name])
    if "status:" not in out:
        raise ValueError(f"{address} did not answer for {name}: {out[-300:]}")
    return Sample(1, 1)


def wrk(url, connections=32, headers=(), script=None, prefix=()):
    """`script` is Lua for wrk, to ask for a different path each time. `prefix` is a command that runs wrk
    elsewhere."""

    def load(seconds):
        if seconds == ASK_ONCE and not script:
            return ask_once(url, headers, prefix, ("--h1",))
        whole = max(1, round(seconds))
        options = [part for header in headers for part in ("-H", header)] + (["-s", script] if script else [])
        out, busy = generate([*prefix, "wrk", "-t1", f"-c{connections}", f"-d{whole}s", "--latency", *options, url])
        return wrk_sample(out, busy)

    return load


def at_part_of_peak(url, part, connections=32, spread=False):
    """HTTP/1.1 at `part` of the highest rate that the server reaches with few connections.

    With `spread` the connections are opened one after the other within a second. h2load lets each connection ask at
    equal intervals from its opening on. Connections that are opened together so ask together, for ever: the answer
    time is then that of a wave as large as their number, and says little of the server."""
    flat_out = wrk(url)

    def load(seconds):
        if seconds == ASK_ONCE:
            return ask_once(url, options=("--h1",))
        rate_each = max(1, round(flat_out(1).rate * part / connections))
        options = ("--h1", f"--rps={rate_each}")
        if not spread:
            return h2load(url, connections, 1, options)(seconds)
        each = rate_each * max(1, round(seconds))
        return h2load(url, connections, 1, (*options, "-n", connections * each, "-r", max(1, connections // 100), "--rate-period=10ms"), timed=False)(seconds)

    return load


def h2load(url, connections=8, streams=10, options=(), timed=True):
    """Without `timed`, `options` say how many requests there are."""

    def load(seconds):
        if seconds == ASK_ONCE:
            return ask_once(url, options=options)
        with tempfile.NamedTemporaryFile(prefix="tidegate-h2load-") as log:
            time = ("-D", max(1, round(seconds))) if timed else ()
            out, busy = generate(["h2load", "-t1", f"-c{connections}", f"-m{streams}", *time, f"--log-file={log.name}", *options, url])
            return h2load_sample(out, Path(log.name).read_text(), busy)

    return load


def grpc_unary(url):
    """Unary calls of gRPC with a message of 64 bytes."""

    def load(seconds):
        with tempfile.NamedTemporaryFile(prefix="tidegate-grpc-") as call:
            call.write(bytes([0, 0, 0, 0, 64]) + b"m" * 64)
            call.flush()
            return h2load(url, options=("-d", call.name, "-H", "content-type: application/grpc", "-H", "te: trailers"))(seconds)

    return load


def each_once(port, paths):
    """Asks for every path once, in order."""

    def prepare():
        with tempfile.NamedTemporaryFile("w", prefix="tidegate-paths-") as listed:
            listed.write("".join(f"http://127.0.0.1:{port}{path}\n" for path in paths))
            listed.flush()
            generate(["h2load", "--h1", "-t1", "-c1", "-m1", "-n", len(paths), "-i", listed.name])

    return prepare


def tls_handshakes(port, resume=False):
    def load(seconds):
        if seconds == ASK_ONCE:
            return ask_once(f"https://127.0.0.1:{port}/x")
        command = [BUILD / "bench" / "tls_clients", "handshakes", f"127.0.0.1:{port}", "www.example.test", max(1, round(seconds))]
        out, busy = generate(command + (["resume"] if resume else []))
        count, took, p50, p99 = out.split()
        return Sample(int(count), float(took), float(p50), float(p99), generator_busy=busy)

    return load


def idle_tls(port, connections):
    """Opens connections, asks once on each, and holds them. A run of one second opens only a few."""

    def load(seconds):
        count = connections if seconds >= 2 else 200
        folder = tempfile.TemporaryDirectory(prefix="tidegate-bench-idle-")
        command = [BUILD / "bench" / "tls_clients", "idle", f"127.0.0.1:{port}", "www.example.test", count]
        crowd = Program("crowd", command, GENERATOR_CORE, folder.name, stdin=True)
        crowd.folder = folder  # is removed when the connections close
        crowd.await_ready(lambda: "ready" in Path(crowd.log.name).read_text(), 120)
        if seconds < 1:  # only warms the server, so no connection may stay
            crowd.stop()
            return Sample(count, 1)
        return Sample(count, 1, held=crowd)

    return load


def herd(address, path_of, clients, origin_port):
    """All clients ask at once. The requests that reach the origin are counted separately."""
    numbers = itertools.count()

    def asked():
        return int(urllib.request.urlopen(f"http://127.0.0.1:{origin_port}/count").read())

    def load(seconds):
        before = asked()
        out, busy = generate([BUILD / "bench" / "herd", "clients", address, path_of(next(numbers)), clients])
        count, first_p50, first_p99, _, whole_p99 = out.split()
        return Sample(
            int(count), float(whole_p99) / 1e6, float(first_p50), float(first_p99), generator_busy=busy,
            origin_requests=asked() - before, whole_p99_us=float(whole_p99),
        )  # fmt: skip

    return load


def dns_clients(address, names, ecs=False, prefix=()):
    """128 outstanding queries of our own generator, which sends in batches. The latency of each query is measured."""

    def load(seconds):
        if seconds == ASK_ONCE:
            return dig_once(address, names, prefix, ("+subnet=10.0.0.0/24",) if ecs else ())
        command = [*prefix, BUILD / "bench" / "dns_clients", address, max(1, round(seconds)), names] + (["ecs"] if ecs else [])
        out, busy = generate(command)
        count, took, p50, p99, lost = out.split()
        if int(lost) > int(count) / 100:
            raise ValueError(f"{lost} of {count} queries were lost")
        return Sample(int(count), float(took), float(p50), float(p99), generator_busy=busy)

    return load


def dnsperf_tcp(port, queries):
    """dnsperf over TCP. It reports only the mean and the worst latency, which are put in the columns of p50 and
    p99."""

    def load(seconds):
        if seconds == ASK_ONCE:
            return dig_once(f"127.0.0.1:{port}", queries, options=("+tcp",))
        out, busy = generate(["dnsperf", "-m", "tcp", "-s", "127.0.0.1", "-p", port, "-d", queries, "-l", max(1, round(seconds)), "-c", 8, "-T", 1, "-q", 128])
        return dnsperf_sample(out, busy)

    return load
