#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Build trees: the purpose of each, how meson configures it, and how ninja builds it.

trees.py TREE [TARGET…]   configures the tree once, then builds the targets (default: everything in it)
"""

import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLANG = {"CC": "clang-14", "CXX": "clang++-14", "CXX_LD": "lld"}
# Several sources of a library are compiled as one. The names of a library's sources must not clash. Where people work it
# is a few: one changed source costs ten seconds. A tree that the gate makes from nothing is built whole, and takes a
# third less time with many. Whoever changes one source again and again may want `meson configure TREE -Dunity=off`.
FEW, MANY = 8, 32
TOGETHER = ("-Dunity=on", f"-Dunity_size={FEW}")
WHOLE = ("-Dunity=on", f"-Dunity_size={MANY}")
# Sanitizer reports need line numbers but no variables, and full debug information costs a fifth of the compile time.
LINES_ONLY = "-gline-tables-only"


def sanitized(sanitizers, *arguments):
    return ("-Db_lundef=false", "-Ddebug=false", "-Doptimization=0", f"-Db_sanitize={sanitizers}", f"-Dcpp_args={' '.join([LINES_ONLY, *arguments])}")


# The standard library's own assertions find more than UBSan in its code, and cost half as much code.
CHECKED = ("-D_GLIBCXX_ASSERTIONS", f"-fsanitize-ignorelist={ROOT}/tests/gate/ubsan-ignores.txt")
# A program of 110 MB that can be loaded anywhere has half a million addresses to correct at each start. The end-to-end
# tests start more than a thousand. Without it a start takes a quarter less CPU.
FIXED = ("-Dcpp_link_args=-no-pie",)


@dataclass(frozen=True)
class Tree:
    purpose: str
    options: tuple
    environment: dict = field(default_factory=dict)
    targets: tuple = ()  # targets of a bare build; empty: everything


# The rooms with objects that several threads share. A room's threads_test lists those of its tests that start threads.
TSAN_ROOMS = ("core", "conf", "cache", "dns", "l7", "l4")
TSAN_LONG_ROOMS = (*TSAN_ROOMS, "control")


def threads_tests(rooms):
    return tuple(f"tests/unit/{room}/{room}_threads_test" for room in rooms)


TREES = {
    # A new user's compiler may warn about things that ours does not. And g++ 12 with optimisation warns without a
    # reason (its bug 105651). So only the trees that clang builds treat warnings as errors.
    "build": Tree("optimised, with debug information", ("-Dtests=false", "-Dwerror=false", *TOGETHER)),
    "build-test": Tree("unit tests, fuzzers and daemons under ASan and UBSan", ("-Dfuzz=true", *TOGETHER, *FIXED, *sanitized("address,undefined", "-fno-pie", *CHECKED)), CLANG),
    "build-tsan": Tree("unit tests under TSan", (*WHOLE, *sanitized("thread")), CLANG, threads_tests(TSAN_ROOMS)),
    "build-bench": Tree("benchmarks and daemons, optimised as released", ("-Dbuildtype=release", "-Dbench=true", "-Dtests=false", "-Db_ndebug=false", "-Dwerror=false", *TOGETHER)),
    # As packages and `./run build` optimise. It takes less time than the level of a release.
    "build-gcc": Tree("daemons and benchmarks for the gate, by g++, optimised as packaged", ("-Dbuildtype=release", "-Doptimization=2", "-Dbench=true", "-Dtests=false", "-Db_ndebug=false", "-Dwerror=false", *WHOLE)),
    "build-lint": Tree("a compilation database for clang-tidy, without precompiled headers", ("-Db_pch=false",), CLANG),
    "build-coverage": Tree("unit tests with line coverage", ("-Db_coverage=true", "-Doptimization=0", "-Dwerror=false")),
}


class BuildError(Exception):
    pass


def environment(tree):
    env = {**os.environ, **tree.environment}
    if shutil.which("ccache"):
        # A precompiled header is compared by its content, not by its time stamp.
        env.setdefault("CCACHE_SLOPPINESS", "pch_defines,time_macros,include_file_mtime,include_file_ctime")
        if "CXX" in tree.environment:
            env |= {"CC": f"ccache {tree.environment['CC']}", "CXX": f"ccache {tree.environment['CXX']}"}
    return env


def compiles_many(folder):
    options = json.loads((folder / "meson-info/intro-buildoptions.json").read_text())
    return any(option["name"] == "unity_size" and option["value"] == MANY for option in options)


def configure(name, whole=False):
    """`whole`: a new tree compiles many sources as one. A tree that is there stays as it is, but one that many were
    compiled in goes back to a few when somebody works in it. `build` and `build-bench` are always compiled as for a
    release."""
    tree, folder = TREES[name], ROOT / name
    if (folder / "build.ninja").exists():
        if not whole and WHOLE[-1] not in tree.options and compiles_many(folder):
            subprocess.run(["meson", "configure", folder, TOGETHER[-1]], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        return
    options = [*tree.options, *(WHOLE if whole and tree.environment and TOGETHER[-1] in tree.options else ())]
    done = subprocess.run(["meson", "setup", folder, *options], cwd=ROOT, env=environment(tree), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)  # otherwise a half-configured tree would look complete
        raise BuildError(f"meson could not configure {name}:\n" + "\n".join(done.stdout.splitlines()[-20:]))


def build(name, targets=(), nice=0, say=print, whole=False):
    """Builds targets of a tree, and configures it before if it is not there (see configure). Without a terminal it prints
    a line for each tenth of the work. Errors are printed whole."""
    configure(name, whole)
    command = ["ninja", "-C", str(ROOT / name), *(targets or TREES[name].targets)]
    if nice:
        command = ["nice", "-n", str(nice), *command]
    if sys.stdout.isatty() and threading.current_thread() is threading.main_thread():
        if subprocess.run(command, env=environment(TREES[name])).returncode != 0:
            raise BuildError(f"{name} did not build")
        return
    ninja = subprocess.Popen(command, env=environment(TREES[name]), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output, tenth = [], 0
    for line in ninja.stdout:
        output.append(line)
        step, _, whole = line.split("]")[0].removeprefix("[").partition("/")
        if line.startswith("[") and step.isdigit() and whole.isdigit() and int(step) * 10 // int(whole) > tenth:
            tenth = int(step) * 10 // int(whole)
            say(f"{name}: {step} of {whole}")
    if ninja.wait() != 0:
        faults = [line for line in output if not line.startswith("[") or "FAILED" in line]
        raise BuildError(f"{name} did not build:\n" + "".join(faults[:80]))


def main(arguments):
    if not arguments or arguments[0] not in TREES:
        print(__doc__.strip(), *(f"  {name:<16}{tree.purpose}" for name, tree in TREES.items()), sep="\n", file=sys.stderr)
        return 2
    try:
        build(arguments[0], tuple(arguments[1:]))
    except BuildError as error:
        print(f"run: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
