# SPDX-License-Identifier: Apache-2.0
"""The hot functions one by one (Google Benchmark, bench/micro): the time of one call, without sockets, devices or
processes."""

import json
import subprocess

import measure
from measure import BUILD, SERVER_CORE, BenchError, Contender, Row, Sample

ROOMS = ["core", "conf", "l4", "l7", "cache", "dns"]
REPETITIONS = 3
NS = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}


def run(room):
    command = ["taskset", "-c", SERVER_CORE, BUILD / "bench" / "micro" / f"micro_{room}", "--benchmark_format=json", f"--benchmark_min_time={0.01 if measure.smoke else 0.1}"]
    done = subprocess.run([*map(str, command), f"--benchmark_repetitions={1 if measure.smoke else REPETITIONS}"], capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchError(done.stderr)
    return [result for result in json.loads(done.stdout)["benchmarks"] if result["run_type"] == "iteration"]


def sample(result):
    unit_ns = NS[result["time_unit"]]
    cpu_ns, real_ns = result["cpu_time"] * unit_ns, result["real_time"] * unit_ns
    if "items_per_second" in result:  # one call handles a burst, so take the time of one packet
        real_ns *= 1e9 / result["items_per_second"] / cpu_ns
        cpu_ns = 1e9 / result["items_per_second"]
    return Sample(1, real_ns / 1e9, p50_us=real_ns / 1e3, cpu_us=cpu_ns / 1e3)


def rows():
    for room in ROOMS:
        contenders = {}
        try:
            results = run(room)
        except (BenchError, OSError) as error:
            contenders[room] = Contender(room, "this commit", None, None, error=str(error) or "it failed")
            results = []
        for result in results:
            name = result["run_name"].split("/iterations:")[0]
            contender = contenders.setdefault(name, Contender(name, "this commit", None, None))
            if result.get("error_occurred"):
                contender.error = result["error_message"]
            else:
                contender.samples.append(sample(result))
        yield Row("micro", room, list(contenders.values()), unit="call")
