# SPDX-License-Identifier: Apache-2.0
"""The gate's steps. Each is one function of (step, say): it adds its cases to `step` and prints for people with
`say`."""

import os
import re
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import gtests
import trees
from trees import ROOT

PYTHON = "/usr/bin/python3"
ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}


def tracked(*patterns):
    return subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def formatting(step, say, files=None):
    files = tracked("*.cc", "*.h") if files is None else files
    if files:
        done = subprocess.run(["clang-format-14", "--dry-run", *files], cwd=ROOT, capture_output=True, text=True)
        wrong = sorted({line.split(":")[0] for line in done.stderr.splitlines() if ": " in line})
        step.add("clang-format", failure="not in the house format (./run format corrects it):\n" + "\n".join(wrong) if wrong else "")
        if wrong:
            say(step.cases[-1].failure)
    else:
        step.add("clang-format")


def builder(tree, targets=(), nice=0, whole=True):
    def build(step, say):
        trees.build(tree, targets, nice, say, whole)
        step.add(f"{tree} builds")

    return build


def unit(step, say, long=False, words=""):
    gtests.run_all(step, say, gtests.binaries("build-test"), long, words=words)


def tsan(step, say, long=False):
    gtests.run_all(step, say, gtests.binaries("build-tsan", trees.TSAN_LONG_ROOMS if long else trees.TSAN_ROOMS), long)


def script(step, say, name, command, root=False):
    """A test script that prints 'ok NAME' or 'Ran N tests'."""
    began = time.monotonic()
    environment = {**ENVIRONMENT, **gtests.SANITIZERS}
    whole = as_root([PYTHON, *command], environment) if root else [PYTHON, *command]
    done = subprocess.run(whole, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    passed = re.findall(r"^ok +(.*)$", done.stdout, re.MULTILINE) or [f"{name} {i + 1}" for i in range(int((re.findall(r"^Ran (\d+)", done.stdout, re.MULTILINE) or [0])[0]))]
    for case in passed if done.returncode == 0 or done.stdout.startswith("ok") else []:
        step.add(case, (time.monotonic() - began) / len(passed))
    if done.returncode != 0:
        step.add(name, time.monotonic() - began, f"ended with {done.returncode}\n{done.stdout[-4000:]}")
        say(done.stdout)
    say(f"{name}: {len(passed)} passed")


def packets(step, say):
    script(step, say, "the forwarder over capture files", ["tests/unit/l4/packets.py", "build-test/l4/tidegate-l4"])


def package(step, say):
    script(step, say, "the Debian package", ["tests/package/package_test.py"], root=True)


def container(step, say):
    script(step, say, "the container image", ["tests/package/container_test.py"], root=True)


def manifests(step, say):
    script(step, say, "the manifests for Kubernetes", ["tests/package/manifests_test.py", "build-bench"])


def pages(step, say):
    script(step, say, "the pages", ["tests/unit/docs/site_test.py"])


def bench_outputs(step, say):
    script(step, say, "what the benchmarks read out of their generators", ["tests/unit/bench/outputs_test.py"])


FUZZ_STEP_S = 150  # seconds of one core that all targets of the gate share
FUZZ_AT_LEAST_S = {"decider": 10}  # runs every mode of the forwarder


def fuzz(step, say, seconds=None, seed=1, only="", part=(1, 1)):
    """Every fuzz target for `seconds`, or for its share of the step's time, as many at a time as there are cores. The
    seed is the same each time, so that the gate judges a change only by what it changed. `part`, K of N: every
    Nth target, from the Kth on."""
    targets = [path for path in sorted((ROOT / "build-test" / "tests" / "fuzz").glob("*/*_fuzz")) if path.is_file() and only in ("", path.name.removesuffix("_fuzz"))]
    targets = targets[part[0] - 1 :: part[1]]
    if not targets:
        raise RuntimeError(f"no fuzzer {only}" if only else "no fuzzer was built")

    def seconds_of(target):
        return seconds or max(FUZZ_STEP_S // len(targets), FUZZ_AT_LEAST_S.get(target.name.removesuffix("_fuzz"), 3))

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for line in pool.map(lambda target: fuzz_one(step, target, seconds_of(target), seed), targets):
            say(line)


def fuzz_one(step, target, seconds, seed):
    room, name = target.parent.name, target.name.removesuffix("_fuzz")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tidegate-fuzz-") as scratch:
        command = [target, f"-seed={seed}", f"-max_total_time={seconds}", "-rss_limit_mb=4096", "-timeout=20", "-print_final_stats=1"]
        command += [f"-artifact_prefix={ROOT}/build-results/{name}-", scratch, ROOT / "tests" / "fuzz" / room / "corpus" / name]
        (ROOT / "build-results").mkdir(exist_ok=True)
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    executions = re.findall(r"number_of_executed_units: (\d+)", done.stdout)
    failure = "" if done.returncode == 0 else "\n".join(done.stdout.splitlines()[-40:])
    step.add(f"{room}/{name}", time.monotonic() - began, failure)
    return failure or f"{room}/{name:<20} {int(executions[0]):>10,} executions" if executions else f"{room}/{name} FAILED\n{failure}"


def e2e(step, say, prefix="tg", build="build-test", options=(), words=()):
    """One lab with real clients. Each line that run.py prints for a test is a case."""
    command = [PYTHON, "tests/e2e/run.py", *options, *words]
    env = {**ENVIRONMENT, **gtests.SANITIZERS, "TIDEGATE_BUILD": str(ROOT / build), "TIDEGATE_LAB_PREFIX": prefix}
    runner = subprocess.Popen(as_root(command, env), cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    last, text = "", []
    for line in runner.stdout:
        last = line.rstrip() or last
        say(line.rstrip())
        if case := re.match(r" +(ok|FAIL) +(.*?)(?: \(([\d.]+) s\))?$", line.rstrip()):
            text = [f"{case[2]} failed\n"]
            step.add(case[2], float(case[3] or 0), "" if case[1] == "ok" else text[0])
        elif step.cases and step.cases[-1].failure:
            text.append(line)
            step.cases[-1].failure = "".join(text)
    if runner.wait() != 0 and not step.failed:
        step.add("end to end", failure=f"ended with {runner.returncode}: {last}")


def as_root(command, env):
    if os.geteuid() == 0:
        return command
    names = [name for name in ("CI", "TIDEGATE_BUILD", "TIDEGATE_LAB_PREFIX", "PYTHONDONTWRITEBYTECODE", *gtests.SANITIZERS) if name in env]
    return ["sudo", f"--preserve-env={','.join(names)}", *command]


NETWORK_OF_ITS_OWN = ("unshare", "--net", "--mount", "sh", "-ec", 'ip link set lo up; mkdir -p /run/netns; mount -t tmpfs none /run/netns; exec "$@"', "sh")


def bench(step, say, arguments=("all", "--smoke"), build="build-bench"):
    """Checks that every benchmark and every peer runs. Figures are judged only with --judge. A run has a network and
    names of network namespaces of its own: all planes use the same ports and names, and several run in parallel."""
    env = {**ENVIRONMENT, "TIDEGATE_BUILD": str(ROOT / build)}
    began = time.monotonic()
    runner = subprocess.Popen(as_root([*NETWORK_OF_ITS_OWN, PYTHON, "bench/run.py", *arguments], env), cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    output = []
    for line in runner.stdout:
        output.append(line.rstrip())
        say(output[-1])
    runner.wait()
    for line in output:
        if failure := re.match(r"(.*) (?:did not run|beyond its bound): (.*)$", line.strip()):
            step.add(failure[1], failure=failure[2])
    if total := re.match(r"bench: (\d+) rows", output[-1] if output else ""):
        for row in range(int(total[1])):
            step.add(f"row {row + 1}", (time.monotonic() - began) / int(total[1]))
    if runner.returncode != 0 and not step.failed:
        step.add("benchmarks", failure="\n".join(output[-20:]))


def lint(step, say):
    """clang-tidy over the product's sources, from a tree without precompiled headers."""
    trees.configure("build-lint")
    sources = tracked(*(f"{room}/*.cc" for room in ("core", "conf", "l4", "l7", "cache", "dns", "control")))
    tidy = lambda source: subprocess.run(["clang-tidy-14", "-p", "build-lint", "--quiet", source], cwd=ROOT, capture_output=True, text=True)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for source, done in zip(sources, pool.map(tidy, sources)):
            found = sorted({line for line in done.stdout.splitlines() if re.search(r"(warning|error):", line)})
            step.add(source, failure="\n".join(found) if done.returncode != 0 else "")
            for line in found if done.returncode != 0 else ():
                say(line)


def coverage(step, say):
    gtests.run_all(step, say, gtests.binaries("build-coverage"))
    command = ["gcovr", "-r", ".", "build-coverage", "--exclude", "tests", "--exclude", "bench", "--gcov-ignore-parse-errors", "-j", str(os.cpu_count())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    say(done.stdout)
    step.add("gcovr", failure=done.stderr if done.returncode != 0 else "")
