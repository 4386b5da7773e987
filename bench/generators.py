"""Load generators as functions of seconds: wrk, h2load, dnsperf and our own; each returns a Sample."""

import itertools
import tempfile
import urllib.request
from pathlib import Path

from measure import BUILD, GENERATOR_CORE, Program, Sample, generate
from outputs import dnsperf_sample, h2load_sample, wrk_sample


def wrk(url, connections=32, headers=(), script=None, prefix=()):
    """`script`: Lua for wrk, to ask for another path each time; `prefix`: what runs wrk elsewhere."""

    def load(seconds):
        whole = max(1, round(seconds))
        options = [part for header in headers for part in ("-H", header)] + (["-s", script] if script else [])
        out, busy = generate([*prefix, "wrk", "-t1", f"-c{connections}", f"-d{whole}s", "--latency", *options, url])
        return wrk_sample(out, busy)

    return load


def at_part_of_peak(url, part, connections=32):
    """HTTP/1.1 at `part` of the rate that the server reaches when it is asked for all it can."""
    flat_out = wrk(url, connections)

    def load(seconds):
        rate_each = max(1, round(flat_out(1).rate * part / connections))
        return h2load(url, connections, 1, ("--h1", f"--rps={rate_each}"))(seconds)

    return load


def h2load(url, connections=8, streams=10, options=()):
    def load(seconds):
        with tempfile.NamedTemporaryFile(prefix="tidegate-h2load-") as log:
            out, busy = generate(
                ["h2load", "-t1", f"-c{connections}", f"-m{streams}", "-D", max(1, round(seconds)), f"--log-file={log.name}", *options, url]
            )
            return h2load_sample(out, Path(log.name).read_text(), busy)

    return load


def each_once(port, paths):
    """Asks for every path once, one after the other."""

    def prepare():
        with tempfile.NamedTemporaryFile("w", prefix="tidegate-paths-") as listed:
            listed.write("".join(f"http://127.0.0.1:{port}{path}\n" for path in paths))
            listed.flush()
            generate(["h2load", "--h1", "-t1", "-c1", "-m1", "-n", len(paths), "-i", listed.name])

    return prepare


def tls_handshakes(port, resume=False):
    def load(seconds):
        command = [BUILD / "bench" / "tls_clients", "handshakes", f"127.0.0.1:{port}", "www.example.test", max(1, round(seconds))]
        out, busy = generate(command + (["resume"] if resume else []))
        count, took, p50, p99 = out.split()
        return Sample(int(count), float(took), float(p50), float(p99), generator_busy=busy)

    return load


def idle_tls(port, connections):
    """Opens connections, asks once on each, and holds them. A run of a second opens a few only."""

    def load(seconds):
        count = connections if seconds >= 2 else 200
        folder = tempfile.TemporaryDirectory(prefix="tidegate-bench-idle-")
        command = [BUILD / "bench" / "tls_clients", "idle", f"127.0.0.1:{port}", "www.example.test", count]
        crowd = Program("crowd", command, GENERATOR_CORE, folder.name, stdin=True)
        crowd.folder = folder  # goes when the crowd does
        crowd.await_ready(lambda: "ready" in Path(crowd.log.name).read_text(), 120)
        if seconds < 1:  # to warm the server: none of these may stay
            crowd.stop()
            return Sample(count, 1)
        return Sample(count, 1, held=crowd)

    return load


def herd(address, path_of, clients, origin_port):
    """All at once; what the origin was asked is counted by itself."""
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
    """128 outstanding queries of our own generator, which batches; latency measured query by query."""

    def load(seconds):
        command = [*prefix, BUILD / "bench" / "dns_clients", address, max(1, round(seconds)), names] + (["ecs"] if ecs else [])
        out, busy = generate(command)
        count, took, p50, p99, lost = out.split()
        if int(lost) > int(count) / 100:
            raise ValueError(f"{lost} of {count} queries were lost")
        return Sample(int(count), float(took), float(p50), float(p99), generator_busy=busy)

    return load


def dnsperf_tcp(port, queries):
    """dnsperf over TCP; it knows the mean and the worst latency only, which stand in the columns of p50 and p99."""

    def load(seconds):
        out, busy = generate(["dnsperf", "-m", "tcp", "-s", "127.0.0.1", "-p", port, "-d", queries, "-l", max(1, round(seconds)), "-c", 8, "-T", 1, "-q", 128])
        return dnsperf_sample(out, busy)

    return load
