# SPDX-License-Identifier: Apache-2.0
"""What runs in which order: the gate, its quick form, and the named parts of --long.

A phase is a list of lanes that run in parallel. A lane is a list of steps that run one after the other; in the place of
a step it can have a phase. A separate step builds each tree, before the steps that need it.
"""

import tempfile
from dataclasses import dataclass
from functools import partial

import checks
import gtests
import trees

BUILD, TEST, LAB, LONG, BENCH, PACKAGE = "build", "test", "lab", "long", "bench", "package"  # groups of packages, as ./run names them


@dataclass(frozen=True)
class Step:
    name: str
    run: object  # (step, say)
    word: str  # its name for --only
    packages: tuple = (BUILD, TEST)


def build_step(tree, word, nice=0):
    return Step(f"build {tree.removeprefix('build-')}", checks.builder(tree, nice=nice), word, (BUILD, TEST, BENCH) if tree in ("build-bench", "build-gcc") else (BUILD, TEST))


SCRATCH = tempfile.TemporaryDirectory(prefix="tidegate-gate-")  # removed when the gate ends


def labs(count, *options, build="build-test", words=()):
    """Several labs in parallel: each takes the next module of end-to-end tests from one queue."""
    queue = f"{SCRATCH.name}/modules-{build}"
    packages = (BUILD, TEST, LAB, LONG) if "--long" in options else (BUILD, TEST, LAB)
    return [
        [Step(f"e2e {'' if build == 'build-test' else 'g++ '}{i + 1}", partial(checks.e2e, prefix=f"tg{i + 1 if i else ''}", build=build, options=(f"--queue={queue}", *options), words=words), "e2e", packages)]
        for i in range(count)
    ]


# Lanes of about the same length. Most of a short run is waiting. The end-to-end tests run every attack, so that plane
# is left out.
BENCH_LANES = (("micro",), ("l4",), ("l7", "dns"), ("cache", "control"))


def gate():
    """The labs and the TSan tests mostly wait. The builds use that time."""
    return [
        [
            [Step("format", checks.formatting, "format"), Step("pages", checks.pages, "unit")],
            [build_step("build-test", "unit fuzz e2e")],
        ],
        [
            *labs(2),
            [
                Step("unit", checks.unit, "unit"),
                Step("packets", checks.packets, "unit"),
                Step("outputs", checks.bench_outputs, "unit"),
                Step("fuzz", checks.fuzz, "fuzz"),
            ],
            [
                build_step("build-tsan", "tsan", nice=10),
                [[Step("tsan", checks.tsan, "tsan")], [build_step("build-gcc", "bench e2e", nice=10)]],
            ],
        ],
        # Some of the same tests on what users get: g++, optimised as packaged. `--long e2e-gcc` runs all of them, at the
        # level of a release. The figures of the benchmarks' short run are not judged, so they can disturb each other.
        [
            *labs(1, build="build-gcc", words=("dns_e2e", "l4_e2e", "l7_e2e", "cache_e2e", "control_e2e")),
            *[[Step(f"bench {i + 1}", partial(checks.bench, arguments=(*planes, "--smoke"), build="build-gcc"), "bench", (BUILD, TEST, LAB, BENCH))] for i, planes in enumerate(BENCH_LANES)],
        ],
    ]


def chosen(phases, words):
    """The part of `phases` that the words of --only name. A build is kept together with whatever needs it."""
    def of_lane(lane):
        kept = [of_phase(step) if isinstance(step, list) else step for step in lane]
        return [step for step in kept if step and (isinstance(step, list) or set(step.word.split()) & set(words))]

    def of_phase(phase):
        return [lane for lane in map(of_lane, phase) if lane]

    return [phase for phase in map(of_phase, phases) if phase]


def steps_of(phases):
    """Every step, also those of phases in lanes."""
    for phase in phases:
        for lane in phase:
            for step in lane:
                yield from steps_of([step]) if isinstance(step, list) else [step]


def quick(files, rooms):
    """Format and the units of the rooms that changed."""
    targets = tuple(f"tests/unit/{room}/{room}_test" for room in rooms)
    sources = [file for file in files if file.endswith((".cc", ".h"))]
    phases = [[[Step("format", partial(checks.formatting, files=sources), "format"), Step("pages", checks.pages, "unit")]]]
    if targets:
        run = lambda step, say: gtests.run_all(step, say, gtests.binaries("build-test", rooms))
        phases += [[[Step("build test", checks.builder("build-test", targets, whole=False), "unit"), Step("unit", run, "unit")]]]
    return phases


# Phases of one build each.
TEST_TREE = [[build_step("build-test", "build")]]
TSAN_TREE = [[Step("build tsan", checks.builder("build-tsan", trees.threads_tests(trees.TSAN_LONG_ROOMS)), "build")]]
RELEASE_TREE = [[build_step("build-bench", "build")]]

# Each takes under an hour on two cores.
LONG_PARTS = {
    "units": ("unit tests that take over three seconds, under ASan+UBSan and under TSan", lambda: [
        TEST_TREE, [[Step("unit", partial(checks.unit, long=True), "unit")]], TSAN_TREE, [[Step("tsan", partial(checks.tsan, long=True), "tsan")]],
    ]),
    **{f"fuzz-{i}": (f"every fuzzer for five minutes, with a different seed each time: part {i} of 2", lambda i=i: [
        TEST_TREE, [[Step("fuzz", partial(checks.fuzz, seconds=300, seed=0, part=(i, 2)), "fuzz")]],
    ]) for i in (1, 2)},
    "e2e": ("end-to-end tests that take over three seconds", lambda: [TEST_TREE, labs(2, "--long")]),
    "e2e-release": ("the same tests on the optimised tree; they also judge times", lambda: [RELEASE_TREE, labs(1, "--long", "--timed", build="build-bench")]),
    "e2e-gcc": ("the gate's end-to-end tests on the optimised tree", lambda: [RELEASE_TREE, labs(2, build="build-bench")]),
    "attacks": ("hostile clients against the optimised tree and against nginx: what a bystander gets, p99 and memory", lambda: [
        [[build_step("build-bench", "build")]],
        [[Step("attacks", partial(checks.bench, arguments=("attacks", "--judge")), "bench", (BUILD, TEST, LAB, BENCH))]],
    ]),
    "package": ("the Debian package: built twice, judged, installed on a fresh root, served from, removed", lambda: [
        [[Step("package", checks.package, "package", (BUILD, LAB, LONG, PACKAGE))]],
    ]),
    "container": ("the container image, built whole and served from, and the manifests for Kubernetes", lambda: [
        RELEASE_TREE,
        [[Step("manifests", checks.manifests, "manifests", (BUILD, LAB, LONG)), Step("container", checks.container, "container", (BUILD, LAB, PACKAGE))]],
    ]),
    **{f"e2e-repeat-{i}": (f"the end-to-end tests 20 times in a row: part {i} of 2", lambda i=i: [TEST_TREE, labs(2, "--repeat=20", f"--part={i}/2")]) for i in (1, 2)},
    **{f"e2e-busy-{i}": (f"the end-to-end tests 20 times beside a busy core: part {i} of 3", lambda i=i: [TEST_TREE, labs(1, "--repeat=20", f"--part={i}/3", "--busy")]) for i in (1, 2, 3)},
}  # fmt: skip


LINT = [[[Step("format", checks.formatting, "format"), Step("clang-tidy", checks.lint, "lint")]]]
COVERAGE = [[[Step("coverage", checks.coverage, "coverage")]]]


def fuzz(target, seconds):
    """One fuzz target, or all, with a different seed each time."""
    return [TEST_TREE, [[Step("fuzz", partial(checks.fuzz, seconds=seconds, seed=0, only=target), "fuzz")]]]


def repeat(count, words):
    """Unit and end-to-end tests whose name contains `words`, `count` times."""
    def units(step, say):
        for _ in range(count):
            gtests.run_all(step, say, gtests.binaries("build-test"), words=words)

    options = (f"--repeat={count}",)
    return [TEST_TREE, [[Step("unit", units, "unit"), Step("e2e", partial(checks.e2e, options=options, words=(words,)), "e2e", (BUILD, TEST, LAB))]]]
