# SPDX-License-Identifier: Apache-2.0
"""GoogleTest binaries: two at a time, each judged by the XML report that it writes."""

import os
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

from trees import ROOT

# Suites whose name begins with this take more than three seconds. They run with --long.
LONG = "Long*"
SANITIZERS = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
    "LSAN_OPTIONS": f"suppressions={ROOT}/tests/lab/lsan.supp:print_suppressions=0",
}
TIMEOUT_S = 1_500  # of a hang: on a slow machine that is busy the largest binary takes 700
LONG_TIMEOUT_S = 2_400  # the long tests of one binary; ten thousand schedules are some of them


def binaries(tree, rooms=None):
    found = sorted((ROOT / tree / "tests" / "unit").glob("*/*_test"))
    return [path for path in found if os.access(path, os.X_OK) and path.is_file() and (rooms is None or path.parent.name in rooms)]


def run_all(step, say, paths, long=False, timeout_s=None, words=""):
    if not paths:
        raise RuntimeError("no test binary was built")
    timeout_s = timeout_s or (LONG_TIMEOUT_S if long else TIMEOUT_S)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        # The largest first, because they take longest.
        for line in pool.map(lambda path: run_one(step, path, long, timeout_s, words), sorted(paths, key=lambda path: -path.stat().st_size)):
            say(line)


def run_one(step, path, long, timeout_s, words):
    """Adds a case for each test of one binary. Returns its line, or the output of a failure."""
    pattern = f"*{words}*" if words else LONG if long else f"*-{LONG}"
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tidegate-gtest-") as folder:
        report = Path(folder) / "report.xml"
        # Without address randomisation, because TSan's shadow memory supports only some layouts.
        command = ["setarch", "-R", path, "--gtest_brief=1", f"--gtest_filter={pattern}", f"--gtest_output=xml:{report}"]
        try:
            done = subprocess.run(command, cwd=ROOT, env={**os.environ, **SANITIZERS}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s, stdin=subprocess.DEVNULL)
            status, output = done.returncode, done.stdout.decode(errors="replace")
        except subprocess.TimeoutExpired as error:
            status, output = "a timeout", (error.stdout or b"").decode(errors="replace")
        passed = failed = 0
        if report.exists():
            for case in ElementTree.parse(report).iter("testcase"):
                if case.get("status") != "run":
                    continue
                failure = "\n".join(f.get("message", "") for f in case.iter("failure"))
                step.add(f"{path.name}: {case.get('classname')}.{case.get('name')}", float(case.get("time", 0)), failure)
                passed, failed = passed + (not failure), failed + bool(failure)
        if status != 0 and not failed:
            failed = 1
            step.add(path.name, time.monotonic() - began, f"ended with {status}\n{output[-4000:]}")
    line = f"{path.name:<16}{passed:5} passed, {failed} failed ({time.monotonic() - began:.0f} s)"
    return f"{output}\n{line}" if failed else line
