#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the end-to-end tests: every test_* function of every *_e2e.py here, on one lab. A test's name is a sentence; its
failure is printed whole with the tail of every daemon's log it made.

run.py [OPTIONS] [WORD…]    those whose module or name holds one of the words
  --long           those marked long (over three seconds) instead of the others
  --timed          on an optimised build alone on its machine: tests judge times too
  --repeat=N       each of them N times in a row
  --busy           beside a process that keeps one core busy
  --part=K/N       every Nth module, from the Kth on
  --queue=FILE     take modules one by one from FILE, which several labs share; whoever comes first fills it
"""

import argparse
import fcntl
import importlib
import os
import re
import subprocess
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "lab")]
from lab import Lab, LabError  # noqa: E402

# Harmless modules first. Those that kill and damage come last.
MODULES = [
    "lab_e2e", "dns_e2e", "steer_e2e", "names_e2e", "zones_e2e", "xdp_e2e", "geo_e2e", "httpdns_e2e", "l4_e2e", "link_e2e", "vlan_e2e", "bond_e2e", "guard_e2e", "tunnel_e2e", "restart_e2e", "shared_flows_e2e", "takeover_e2e", "second_chance_e2e", "l7_e2e", "forgery_e2e", "fields_e2e", "tls_e2e", "backend_e2e", "policy_e2e", "policy_flow_e2e", "identity_e2e", "http2_backend_e2e", "websocket_e2e", "buffer_e2e", "proxy_protocol_e2e", "bounds_e2e", "doors_e2e", "honest_e2e", "time_e2e", "cache_e2e", "control_e2e", "records_e2e", "explain_e2e", "cli_e2e", "init_e2e", "import_e2e", "imported_e2e", "gateway_e2e", "node_e2e", "secrets_e2e", "acme_e2e", "ocsp_e2e", "promise_e2e", "etcd_e2e", "change_e2e", "upgrade_e2e", "new_process_e2e", "service_e2e", "store_e2e", "attacks_e2e", "planes_e2e", "probes_e2e", "announce_e2e", "failure_e2e",
    "damage_e2e",
]  # fmt: skip
COLOUR = {True: "\033[32m✓\033[0m", False: "\033[31m✗\033[0m"} if sys.stdout.isatty() else {True: "ok  ", False: "FAIL"}


def sentence(function):
    return function.__name__.removeprefix("test_").replace("_", " ")


def restore(lab):
    """After a failed test: starts every daemon, removes every override, and puts the lab's own configuration in
    force."""
    for name, process in list(lab.processes.items()):
        host, daemon = name.split("/")
        if not process.running():
            {"nginx": lab.start_origin, "control": lab.start_control}.get(daemon, lambda h, d=daemon: lab.start_plane(h, d))(host)
    for key in lab.api("GET", "/v1/admin").json().get("words", {}):
        lab.api("DELETE", f"/v1/admin/{key}")
    lab.apply(lab.directory("edge") / "edge.yaml")
    lab.wait_ready()


def tests_of(module, options):
    """Returns (module, test) for each chosen test of a module, in the order of its file."""
    loaded = importlib.import_module(module)
    names = re.findall(r"^def (test_\w+)", (HERE / f"{module}.py").read_text(), re.MULTILINE)
    tests = [(module, getattr(loaded, name)) for name in names if any(word in f"{module} {name}" for word in options.words or [""])]
    return [(module, test) for module, test in tests if getattr(test, "long", False) == options.long]


def queued(path):
    """Takes the first module off a queue that other labs use too."""
    while True:
        with open(path, "a+") as queue:
            fcntl.flock(queue, fcntl.LOCK_EX)
            queue.seek(0)
            listed = queue.read().split()
            if not listed:
                listed = [*MODULES, "."]
            if listed == ["."]:
                return
            queue.truncate(0)
            queue.write(" ".join(listed[1:]))
        yield listed[0]


def modules(options):
    if options.queue:
        return queued(options.queue)
    part, parts = map(int, options.part.split("/"))
    return MODULES[part - 1 :: parts]


def run_test(lab, test, options):
    """Runs one test as often as asked. Returns whether it passed."""
    marks = {name: process.log.stat().st_size for name, process in lab.processes.items() if process.log.exists()}
    began = time.monotonic()
    try:
        for _ in range(options.repeat):
            test(lab)
    except Exception:  # a test may fail in any way, and the next one must still run
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
        return False
    print(f"    {COLOUR[True]} {sentence(test)} ({time.monotonic() - began:.2f} s)", flush=True)
    return True


def options_of(arguments):
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--timed", action="store_true")
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--queue", default="")
    return parser.parse_args(arguments)


def main(arguments):
    options = options_of(arguments)
    if options.timed:
        os.environ["TIDEGATE_TIMED"] = "1"  # set before any module reads it
    if not any(tests_of(module, options) for module in MODULES):
        print(f"no test holds '{' '.join(options.words)}'\n0 passed, 1 failed")
        return 1
    lab, passed, failed = Lab(), 0, 0
    started = time.monotonic()
    try:
        lab.up()
    except LabError as error:
        print(f"the lab did not come up: {error}\n0 passed, 1 failed")
        return 1
    print(f"  lab raised in {time.monotonic() - started:.1f} s", flush=True)
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if options.busy else None
    try:
        for module in modules(options):
            tests = tests_of(module, options)
            if tests:
                print(f"  {module.removesuffix('_e2e')}", flush=True)
            for _, test in tests:
                held = run_test(lab, test, options)
                passed, failed = passed + held, failed + (not held)
    finally:
        if busy:
            busy.kill()
            busy.wait()
        bad = lab.down()
    for name, (status, tail) in bad.items():
        failed += 1
        print(f"    {COLOUR[False]} {name} ended with status {status} when told to stop\n{tail}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
