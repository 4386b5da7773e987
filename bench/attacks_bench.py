# SPDX-License-Identifier: Apache-2.0
"""What one hostile client does to a bystander: the proxy compared with nginx, and with an older build of itself.

TIDEGATE_BEFORE=DIR is a build tree of an older commit, measured as one more contender. The bystander asks for a
small cached page at a fixed rate over persistent connections. Attacker and bystander share the generator's core;
the server has its own.
"""

import json
import os
import tempfile
import threading
import time
from pathlib import Path

from attacks import ATTACKS
from http_servers import H2C, PLAIN, nginx, tidegate  # nginx speaks HTTP/2 without TLS on a separate port
from measure import ASK_ONCE, GENERATOR_CORE, Contender, Package, Program, Row, Sample, generate

HERE = Path(__file__).resolve().parent
URL = f"http://127.0.0.1:{PLAIN}/x"
BYSTANDERS, RATE_EACH = 4, 50
MOST_CONNECTIONS = {"idle_connections": 200}
# What our own proxy must achieve, on a machine where nothing else runs. Its worst row was 13 ms and 29 MB.
MOST_P99_MS, MOST_KEPT_MB = 50, 64


class Watched:
    """A server whose memory is sampled all the time."""

    def __init__(self, start):
        self.start_server = start

    def start(self, folder):
        self.server = self.start_server(folder)
        return self.server

    def load_of(self, name, port):
        def load(seconds):
            seconds = 1 if seconds == ASK_ONCE else max(1, round(seconds))
            before_kb, peak_kb, over = self.server.resident_kb(), [0], threading.Event()

            def watch():
                while not over.wait(0.05):
                    peak_kb[0] = max(peak_kb[0], self.server.resident_kb())

            watcher = threading.Thread(target=watch)
            watcher.start()
            with tempfile.TemporaryDirectory(prefix="tidegate-bench-attack-") as folder:
                attacker = Program("attacker", ["/usr/bin/python3", HERE / "attacks.py", name, port, seconds + 1], GENERATOR_CORE, folder)
                try:
                    sample = bystander(seconds)
                    attacker.popen.wait(30)
                    said = json.loads(Path(attacker.log.name).read_text().splitlines()[-1])
                finally:
                    over.set()
                    watcher.join()
                    attacker.stop()
            time.sleep(1)  # a server gives memory back within a second
            sample.extra = {
                "peak_mb": (peak_kb[0] - before_kb) / 1024, "kept_mb": (self.server.resident_kb() - before_kb) / 1024,
                "attack_mb": said["bytes"] / (1 << 20), "attack_requests": said["requests"], "attack_connections": said["connections"], "ended": said["ended"],
            }  # fmt: skip
            return sample

        return load


def bystander(seconds):
    """How many of the intended requests were answered, and how late. If none was answered, that is a result too."""
    with tempfile.NamedTemporaryFile(prefix="tidegate-h2load-") as log:
        generate(["h2load", "--h1", "-t1", f"-c{BYSTANDERS}", "-m1", f"--rps={RATE_EACH}", "-D", seconds, "-T", "5", f"--log-file={log.name}", URL])
        durations = sorted(int(line.split("\t")[2]) for line in Path(log.name).read_text().splitlines() if line.split("\t")[1] == "200")
    at = lambda part: durations[min(len(durations) - 1, int(len(durations) * part))] if durations else seconds * 1e6
    return Sample(len(durations), seconds, at(0.5), at(0.99))


def contenders(name):
    http2 = ATTACKS[name].startswith("HTTP/2")
    most = MOST_CONNECTIONS.get(name)
    limits = f"max_connections: {most}" if most else ""  # all other limits are the defaults
    listed = [("tidegate-l7", "this commit", tidegate(1024, cached=True, node_limits=limits), PLAIN, True)]
    if before := os.environ.get("TIDEGATE_BEFORE"):
        listed.append(("tidegate-l7 before", "TIDEGATE_BEFORE", tidegate(1024, cached=True, node_limits=limits, build=Path(before)), PLAIN, False))
    listed.append(("nginx", Package("nginx"), nginx(1024, cached=True, max_connections=most), H2C if http2 else PLAIN, False))
    for contender, version, start, port, ours in listed:
        watched = Watched(start)
        yield Contender(contender, version, watched.start, watched.load_of(name, port), ours=ours)


def rows():
    for name, work in ATTACKS.items():
        yield Row("attacks", work, list(contenders(name)), unit="attack")


def judge(report, seconds):
    """What is wrong with our own result of a row, as sentences."""
    asked = BYSTANDERS * RATE_EACH * seconds
    for result in report["results"]:
        if not result["ours"]:
            continue
        if result["operations"] < asked * 0.99:
            yield f"{result['name']} answered {result['operations']:,.0f} of the bystander's {asked:,.0f} requests"
        if result["p99_us"] > MOST_P99_MS * 1e3:
            yield f"{result['name']} answered the bystander with a p99 of {result['p99_us'] / 1e3:.1f} ms; the bound is {MOST_P99_MS} ms"
        if result["kept_mb"] > MOST_KEPT_MB:
            yield f"{result['name']} kept {result['kept_mb']:.1f} MB after the attack; the bound is {MOST_KEPT_MB} MB"
