# SPDX-License-Identifier: Apache-2.0
"""Shared by every bench: pinned processes, their CPU time to the nanosecond, repeats in turn, and the table.

The server under test runs on core 0, and everything that loads it on core 1. CPU time is the sum over all threads
of the server's whole process tree (schedstat), divided by the number of operations that the generator counted.
"""

import os
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

SERVER_CORE, GENERATOR_CORE = 0, 1
# A smoke run is one repeat of one second: it only shows that everything runs. Large tables are then a tenth of their
# size. Set it before a plane's bench is imported.
smoke = False
ASK_ONCE = 0  # as the seconds of a load: one request, if the generator can do that


def table(size):
    return size // 10 if smoke else size


BUILD = Path(os.environ.get("TIDEGATE_BUILD", Path(__file__).resolve().parent.parent / "build-bench"))


class BenchError(Exception):
    pass


def in_session(leader):
    """Every process of a session. It has those whose parent is gone, too."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rsplit(")", 1)[1].split()[3]) == leader:
                yield int(stat.parent.name)
        except OSError:
            pass


def tree(pid):
    """A process and all its descendants."""
    pids, queue = [], [pid]
    while queue:
        current = queue.pop()
        pids.append(current)
        for task in Path(f"/proc/{current}/task").glob("*/children"):
            try:
                queue += [int(child) for child in task.read_text().split()]
            except OSError:
                pass
    return pids


TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def cpu_ns(pid):
    """To the nanosecond from the living threads. From the process's own ticks if threads that have ended used more."""
    total = 0
    for process in tree(pid):
        living = 0
        try:
            for task in Path(f"/proc/{process}/task").glob("*/schedstat"):
                living += int(task.read_text().split()[0])
            ticks = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        ever = (int(ticks[11]) + int(ticks[12])) * TICK_NS
        total += ever if ever > living + 10 * TICK_NS else living
    return total


def resident_kb(pid):
    """Proportional set size: the memory that would become free if the tree ended."""
    total = 0
    for process in tree(pid):
        try:
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        except OSError:
            pass
    return total


class Program:
    """A pinned process in its own folder."""

    orphans_end_within_s = 0  # set where descendants clean up and end by themselves after the process is gone

    def __init__(self, name, command, core, folder, ready=None, ready_timeout_s=30, stdin=False, **options):
        self.name = name
        self.log = open(Path(folder) / f"{name}.log", "wb")
        began = time.monotonic()
        self.popen = subprocess.Popen(
            ["taskset", "-c", str(core), *map(str, command)], stdout=self.log, stderr=subprocess.STDOUT, stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            cwd=folder, start_new_session=True, **options,
        )  # fmt: skip
        if ready:
            self.await_ready(ready, ready_timeout_s)
        self.ready_after_s = time.monotonic() - began  # earlier output does not count for its time

    def await_ready(self, ready, timeout_s):
        deadline = time.monotonic() + timeout_s
        while not ready():
            if self.popen.poll() is not None or time.monotonic() > deadline:
                tail = Path(self.log.name).read_text(errors="replace")[-1500:]
                self.stop()
                raise BenchError(f"{self.name} did not come up:\n{tail}")
            time.sleep(0.001)  # a start is measured with this precision

    @property
    def pid(self):
        return self.popen.pid

    def cpu_ns(self):
        return cpu_ns(self.pid)

    def resident_kb(self):
        return resident_kb(self.pid)

    def stop(self):
        pids = tree(self.pid)
        pids += [pid for pid in in_session(self.pid) if pid not in pids]
        for pid in pids:  # the parent first, because it would replace a child that dies
            deadline = time.monotonic() + self.orphans_end_within_s
            while pid != self.pid and alive(pid) and time.monotonic() < deadline:
                time.sleep(0.005)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.popen.wait()
        self.log.close()
        # The next server needs the same ports, so wait until none of these holds them.
        while any(alive(pid) for pid in pids):
            time.sleep(0.005)


def alive(pid):
    """It may still hold descriptors, its ports among them. The first thread is a zombie before the others have ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return state not in "ZX" or len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False


def tcp_ready(port, address="127.0.0.1"):
    def opens():
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            return probe.connect_ex((address, port)) == 0

    return opens


def ready_with(port, path):
    """For a server that opens its port first, and only then writes its process id or names its control socket."""
    opens, path = tcp_ready(port), Path(path)
    return lambda: opens() and (path.is_socket() or (path.is_file() and path.stat().st_size > 0))


def generate(command, timeout_s=120):
    """Runs a generator on its core. Returns its output and how busy it kept that core (1.0: it was the limit)."""
    before, began = os.times(), time.monotonic()
    done = subprocess.run(["taskset", "-c", str(GENERATOR_CORE), *map(str, command)], capture_output=True, text=True, timeout=timeout_s)
    after, took = os.times(), time.monotonic() - began
    if done.returncode != 0:
        raise BenchError(f"{command[0]} exited {done.returncode}: {done.stderr[-500:]}{done.stdout[-500:]}")
    busy = (after.children_user + after.children_system - before.children_user - before.children_system) / took
    return done.stdout, busy


@dataclass
class Sample:
    operations: int
    seconds: float
    p50_us: float = 0
    p99_us: float = 0
    cpu_us: float = 0  # per operation
    generator_busy: float = 0
    server_busy: float = 0
    resident_kb: int = 0
    each_kb: float = 0  # memory that one operation leaves in the server
    origin_requests: float = 0
    whole_p99_us: float = 0
    offered_rate: float = 0  # per second, where the offered load sets the pace and not the answers
    closed: float = 0  # connections that the server ended on its own
    extra: dict = field(default_factory=dict)  # figures of this plane, by name; text is shown as it is
    held: object = None  # a Program that keeps the effect of the operations until memory was measured

    @property
    def rate(self):
        return self.operations / self.seconds if self.seconds else 0


class Package:
    """The Debian package of a contender. As text it is the package's version."""

    def __init__(self, name):
        self.name = name

    def __str__(self):
        done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", self.name], capture_output=True, text=True)
        return done.stdout.split("-")[0].split("+")[0] if done.returncode == 0 else "not installed"


@dataclass
class Contender:
    name: str
    version: object  # "this commit", "" or a Package
    start: object  # (folder) -> a running Program, or an object with cpu_ns, resident_kb and stop; None: the samples exist already
    load: object  # (seconds) -> Sample without the server's part; None: the start itself is the operation
    ours: bool = False
    floor: bool = False
    prepare: object = None  # () -> None: what the server must have seen before it is warmed up and measured
    samples: list = field(default_factory=list)
    error: str = ""
    asked_once: bool = False  # it only started and answered; nothing was measured

    @property
    def is_built_here(self):
        return not isinstance(self.version, Package)

    @property
    def source(self):
        """Where it comes from, for a person who reads that it did not run."""
        return "built here" if self.is_built_here else f"Debian package {self.version.name}, {self.version}"


@dataclass
class Row:
    plane: str
    work: str
    contenders: list
    unit: str = "request"
    level_ns: float | None = None  # the most that ours should take above the floor; None: no target


def run_once(contender, seconds):
    """`seconds` of load after a short warm-up. In a smoke run there is no warm-up, and contenders that are not
    measured get ASK_ONCE."""
    folder = tempfile.mkdtemp(prefix="tidegate-bench-")
    os.chmod(folder, 0o755)
    server = None
    try:
        server = contender.start(folder)
        if contender.load is None:
            took = server.ready_after_s
            return Sample(1, took, took * 1e6, took * 1e6, cpu_us=server.cpu_ns() / 1000, resident_kb=server.resident_kb())
        if contender.prepare:
            contender.prepare()
        if not smoke:
            contender.load(0.3)  # warm up
        before, began, memory_kb = server.cpu_ns(), time.monotonic(), server.resident_kb()
        sample = contender.load(seconds)
        used, took = server.cpu_ns() - before, time.monotonic() - began
        sample.cpu_us = used / 1000 / max(sample.operations, 1)
        sample.server_busy = used / 1e9 / took
        sample.resident_kb = server.resident_kb()
        sample.each_kb = (sample.resident_kb - memory_kb) / max(sample.operations, 1)
        if sample.held:
            sample.held.stop()
            sample.held = None
        return sample
    finally:
        if server:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def run_row(row, seconds, repeats, progress):
    """Runs the contenders in turn, repeat by repeat, so that a change in the machine's speed affects all of them."""
    floor = next((contender for contender in row.contenders if contender.floor), None)
    for contender in row.contenders:
        contender.asked_once = smoke and contender.load is not None and contender.version != "this commit" and contender is not floor
    for repeat in range(repeats):
        for contender in row.contenders:
            if contender.error or contender.start is None:
                continue
            progress(f"{row.plane}: {row.work}: {contender.name} {repeat + 1}/{repeats}")
            for last_try in (False, True):  # one lost port or packet is allowed
                try:
                    contender.samples.append(run_once(contender, ASK_ONCE if contender.asked_once else seconds))
                    break
                except Exception as error:  # a failure of one contender must not stop the others
                    if last_try:
                        contender.error = f"{type(error).__name__}: {error}"


def summary(contender):
    """Median and spread (half the range over the median) of the repeats."""
    if not contender.samples:
        return None
    middle = lambda key: statistics.median(key(s) for s in contender.samples)
    cpu = [s.cpu_us for s in contender.samples]
    return {
        "name": contender.name,
        "version": str(contender.version),
        "asked_once": contender.asked_once,
        "operations": middle(lambda s: s.operations),
        "rate": middle(lambda s: s.rate),
        "p50_us": middle(lambda s: s.p50_us),
        "p99_us": middle(lambda s: s.p99_us),
        "cpu_us": statistics.median(cpu),
        "spread": (max(cpu) - min(cpu)) / 2 / statistics.median(cpu) if statistics.median(cpu) else 0,
        "resident_kb": middle(lambda s: s.resident_kb),
        "each_kb": middle(lambda s: s.each_kb),
        "origin_requests": middle(lambda s: s.origin_requests),
        "offered_rate": middle(lambda s: s.offered_rate),
        "closed": middle(lambda s: s.closed),
        "whole_p99_us": middle(lambda s: s.whole_p99_us),
        "generator_limited": middle(lambda s: s.generator_busy) > 0.95 and middle(lambda s: s.server_busy) < 0.9,
        "repeats": len(contender.samples),
        **{key: value if isinstance(value, str) else middle(lambda s, k=key: s.extra[k]) for key, value in contender.samples[-1].extra.items()},
        "floor": contender.floor,
        "ours": contender.ours,
    }
