#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""./run test [OPTIONS]: the gate. Its last line is 'N passed, N failed'; build-results/ holds JUnit XML of each step.

  (nothing)          everything that a change must pass
  --quick            the format, and the unit tests of the rooms that differ from the last commit
  --only WORDS       some of: format unit tsan fuzz bench e2e       e.g. ./run test --only "unit e2e"
  --long PART        one part of the slow tests; `--long list` prints the parts
  --repeat N WORDS   the unit and end-to-end tests whose name contains WORDS, N times
"""

import argparse
import sys
import threading

import changed
import plan
from results import Results

WORDS = ("format", "unit", "tsan", "fuzz", "bench", "e2e")


class Misuse(Exception):
    pass


def parse(arguments):
    parser = argparse.ArgumentParser(add_help=False)
    parser.error = lambda message: (_ for _ in ()).throw(Misuse(message))
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--packages", action="store_true")  # for ./run: prints which groups to install, then ends
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--quick", action="store_true")
    one.add_argument("--only")
    one.add_argument("--long")
    one.add_argument("--repeat", nargs=2, metavar=("N", "WORDS"))
    # Other verbs of ./run, which report their results like the gate.
    one.add_argument("--fuzz", nargs=2, metavar=("TARGET", "SECONDS"))
    one.add_argument("--hook", action="store_true")
    one.add_argument("--lint", action="store_true")
    one.add_argument("--coverage", action="store_true")
    return parser.parse_args(arguments)


def phases_of(options):
    if options.long == "list":
        return None
    if options.long is not None:
        if options.long not in plan.LONG_PARTS:
            raise Misuse(f"no part '{options.long}'; there are {', '.join(plan.LONG_PARTS)}")
        return plan.LONG_PARTS[options.long][1]()
    if options.repeat:
        if not options.repeat[0].isdigit() or int(options.repeat[0]) < 1:
            raise Misuse(f"--repeat wants a number from 1 on, not '{options.repeat[0]}'")
        return plan.repeat(int(options.repeat[0]), options.repeat[1])
    if options.fuzz:
        if not options.fuzz[1].isdigit():
            raise Misuse(f"a fuzzer runs for a number of seconds, not '{options.fuzz[1]}'")
        return plan.fuzz(options.fuzz[0], int(options.fuzz[1]))
    if options.hook:
        return plan.quick(changed.changed_files(), ["rooms"])
    if options.lint:
        return plan.LINT
    if options.coverage:
        return plan.COVERAGE
    if options.quick:
        files = changed.changed_files()
        return plan.quick(files, changed.rooms_of(files))
    words = options.only.split() if options.only else WORDS
    for word in words:
        if word not in WORDS:
            raise Misuse(f"no step '{word}'; there are {', '.join(WORDS)}")
    return plan.chosen(plan.gate(), words)


def run_phase(phase, results):
    """Runs its lanes in parallel. A step whose tree was not built fails by itself."""
    lanes = [threading.Thread(target=run_lane, args=(lane, results)) for lane in phase]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()


def run_lane(lane, results):
    for step in lane:
        if isinstance(step, list):
            run_phase(step, results)
        else:
            results.run(step.name, step.run)


def run(phases):
    results = Results()
    for phase in phases:
        run_phase(phase, results)
    return results.verdict()


def main(arguments):
    try:
        options = parse(arguments)
        if options.help:
            print(__doc__.strip())
            return 0
        phases = phases_of(options)
    except Misuse as error:
        print(f"run: test: {error}\nTry ./run test --help", file=sys.stderr)
        return 2
    if phases is None:
        if not options.packages:
            print("\n".join(f"  {name:<14}{purpose}" for name, (purpose, _) in plan.LONG_PARTS.items()))
        return 0
    if options.packages:
        print(*sorted({group for step in plan.steps_of(phases) for group in step.packages}))
        return 0
    return run(phases)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
