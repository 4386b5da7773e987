#!/usr/bin/python3
"""Runs the end-to-end tests: every test_* function of every *_e2e.py here, on one lab. `run.py WORD` runs those whose module
or name holds WORD. A test's name is a sentence; its failure is printed whole with the tail of every daemon's log it made."""

import importlib
import re
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "lab")]
from lab import Lab, LabError  # noqa: E402

# Gentle ones first; those that kill and damage last.
MODULES = [
    "lab_e2e", "dns_e2e", "names_e2e", "xdp_e2e", "geo_e2e", "httpdns_e2e", "l4_e2e", "link_e2e", "l7_e2e", "forgery_e2e", "tls_e2e", "backend_e2e", "bounds_e2e", "doors_e2e", "cache_e2e", "control_e2e", "cli_e2e", "node_e2e", "change_e2e", "failure_e2e",
    "damage_e2e",
]  # fmt: skip
COLOUR = {True: "\033[32m✓\033[0m", False: "\033[31m✗\033[0m"} if sys.stdout.isatty() else {True: "ok  ", False: "FAIL"}


def sentence(function):
    return function.__name__.removeprefix("test_").replace("_", " ")


def restore(lab):
    """After a failed test: every daemon running, no word standing, the lab's own configuration in force."""
    for name, process in list(lab.processes.items()):
        host, daemon = name.split("/")
        if not process.running():
            {"nginx": lab.start_origin, "control": lab.start_control}.get(daemon, lambda h, d=daemon: lab.start_plane(h, d))(host)
    for key in lab.api("GET", "/v1/admin").json().get("words", {}):
        lab.api("DELETE", f"/v1/admin/{key}")
    lab.apply(lab.directory("edge") / "edge.yaml")
    lab.wait_ready()


def main(word):
    tests = []
    for module in MODULES:
        loaded = importlib.import_module(module)
        names = re.findall(r"^def (test_\w+)", (HERE / f"{module}.py").read_text(), re.MULTILINE)
        tests += [(module, getattr(loaded, name)) for name in names if word in f"{module} {name}"]
    if not tests:
        print(f"no test holds '{word}'\n0 passed, 1 failed")
        return 1
    lab, passed, failed, current = Lab(), 0, 0, None
    started = time.monotonic()
    try:
        lab.up()
    except LabError as error:
        print(f"the lab did not come up: {error}\n0 passed, {len(tests)} failed")
        return 1
    print(f"  lab raised in {time.monotonic() - started:.1f} s")
    try:
        for module, test in tests:
            if module != current:
                print(f"  {module.removesuffix('_e2e')}")
                current = module
            marks = {name: process.log.stat().st_size for name, process in lab.processes.items() if process.log.exists()}
            began = time.monotonic()
            try:
                test(lab)
                passed += 1
                print(f"    {COLOUR[True]} {sentence(test)} ({time.monotonic() - began:.2f} s)", flush=True)
            except Exception:  # a test may fail in any way; the next one still runs
                failed += 1
                print(f"    {COLOUR[False]} {sentence(test)}\n{traceback.format_exc()}", flush=True)
                for name, process in lab.processes.items():
                    said = process.log.read_bytes()[marks.get(name, 0) :].decode(errors="replace").splitlines()
                    said = [line for line in said if not line.startswith("{")]
                    if said:
                        print(f"      {name}: " + f"\n      {name}: ".join(said[-12:]))
                try:
                    restore(lab)
                except Exception as error:
                    print(f"      the lab could not be restored: {error}")
    finally:
        bad = lab.down()
    for name, (status, tail) in bad.items():
        failed += 1
        print(f"    {COLOUR[False]} {name} ended with status {status} when told to stop\n{tail}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
