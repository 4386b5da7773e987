#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""./run bench [PLANE…] [--seconds N] [--repeats N] [--smoke] [--json FILE] [--markdown FILE] [--only WORD]

Runs ours and the peers in turn on the same work, pinned to one core. Prints rate, latency, CPU time per operation,
memory and two ratios. `ours/it` below 1 means that we need less CPU time than that peer. `it/floor` is the distance
to the least that the kernel or the device allows. Planes: l4 l7 cache dns control attacks micro all (default).
"""

import argparse
import datetime
import importlib
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from growth import print_growth  # noqa: E402
import measure  # noqa: E402
from measure import run_row  # noqa: E402
from tables import markdown, print_text, report_of  # noqa: E402

PLANES = ["l4", "l7", "cache", "dns", "control", "attacks", "micro"]


def machine():
    model = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    return f"{model}, {os.cpu_count()} cores, kernel {platform.release()}"


def main():
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("planes", nargs="*", default=["all"], metavar="PLANE")
    parser.add_argument("--seconds", type=float, default=3, help="seconds of load per contender and repeat (default 3)")
    parser.add_argument("--repeats", type=int, default=5, help="number of interleaved repeats (default 5)")
    parser.add_argument("--smoke", action="store_true", help="only check that everything runs: ours and one floor per row for a second; every other contender answers once")
    parser.add_argument("--judge", action="store_true", help="fail if a figure of ours is beyond its bound; only the attacks have bounds")
    parser.add_argument("--json", metavar="FILE", help="also write every figure to FILE")
    parser.add_argument("--markdown", metavar="FILE", help="also write the tables to FILE, in the form of RESULTS.md")
    parser.add_argument("--only", default="", metavar="WORD", help="only rows whose work contains WORD")
    options = parser.parse_args()
    most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))  # for servers and generators alike
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every `finally` ends the processes it started
    planes = PLANES if "all" in options.planes else options.planes
    if options.smoke and "all" in options.planes:
        planes = [plane for plane in PLANES if plane != "attacks"]  # the end-to-end tests run every attack
    unknown = [plane for plane in planes if plane not in PLANES]
    if unknown:
        parser.error(f"no plane '{unknown[0]}'; there are {', '.join(PLANES)}")
    if options.smoke:
        measure.smoke, options.seconds, options.repeats = True, 1, 1
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout.strip()
    print(f"commit {commit}, {datetime.date.today()}, {machine()}\n{options.repeats} interleaved repeats of {options.seconds:g} s; server on core 0, generator on core 1")
    if measure.smoke:
        print("a smoke run: tables are a tenth of their size, peers are asked once, no figure is one to keep")
    progress = (lambda text: print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)) if sys.stderr.isatty() else lambda text: None
    report, missing, broken, beyond = [], 0, 0, 0
    for plane in planes:
        began = time.monotonic()
        benches = importlib.import_module(f"{plane}_bench")
        for row in benches.rows():
            if options.only not in row.work:
                continue
            run_row(row, options.seconds, options.repeats, progress)
            progress("")
            report.append(report_of(row))
            print_text(report[-1])
            ran = {result["name"] for result in report[-1]["results"] if "error" not in result}
            missing += sum(1 for contender in row.contenders if contender.name not in ran)
            broken += sum(1 for contender in row.contenders if contender.name not in ran and contender.is_built_here)
            for fault in judge(benches, report[-1], options):
                print(f"  {row.work}: beyond its bound: {fault}")
                beyond += 1
        print(f"\n{plane}: took {time.monotonic() - began:.0f} s")
    print_growth(report)
    if options.json:
        Path(options.json).write_text(json.dumps({"commit": commit, "machine": machine(), "rows": report}, indent=1))
    if options.markdown:
        Path(options.markdown).write_text("\n".join(markdown(row) for row in report))
    print(f"\nbench: {len(report)} rows, {broken} of our own and {missing - broken} of the peers' runs failed")
    return 1 if missing or beyond or not report else 0


def judge(benches, report, options):
    if not options.judge or not hasattr(benches, "judge") or any("error" in result for result in report["results"]):
        return []
    return benches.judge(report, options.seconds)


if __name__ == "__main__":
    sys.exit(main())
