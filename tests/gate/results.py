# SPDX-License-Identifier: Apache-2.0
"""The gate's results: the cases of each step, their times, a text for people and JUnit XML for machines."""

import resource
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from trees import ROOT

FOLDER = ROOT / "build-results"
TOLD_LINES = 40  # lines of a failure in the verdict: a traceback, and the last messages of the daemons
TOLD_COLUMNS = 400  # of each; JUnit XML has the whole failure


@dataclass
class Case:
    name: str
    seconds: float = 0
    failure: str = ""  # the error; empty: it passed


@dataclass
class Step:
    name: str
    cases: list = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0

    def add(self, name, seconds=0.0, failure=""):
        self.cases.append(Case(name, seconds, failure))

    @property
    def failed(self):
        return [case for case in self.cases if case.failure]


class Results:
    """Steps may run in several threads. Each writes its own Step, and lines are printed whole."""

    def __init__(self):
        self.steps, self.lock, self.began = [], threading.Lock(), time.monotonic()

    def say(self, text, step=""):
        with self.lock:
            for line in text.splitlines() or [""]:
                print(f"{step:<7}| {line}" if step else line, flush=True)

    def run(self, name, function):
        """Runs one step. An exception in it becomes a failed case, and the other steps continue."""
        step = Step(name)
        with self.lock:
            self.steps.append(step)
        self.say(f"==> {name}")
        try:
            function(step, lambda text: self.say(text, name))
        except Exception as error:  # a step may fail in any way
            step.add(name, failure=f"{type(error).__name__}: {error}")
            self.say(str(error), name)
        step.seconds = time.monotonic() - step.began
        self.say(f"{len(step.cases) - len(step.failed)} passed, {len(step.failed)} failed in {step.seconds:.0f} s", name)
        write_junit(step)

    def verdict(self):
        """Prints times and failures; the last line is 'N passed, N failed'. Returns the exit status."""
        self.say("\n" + "\n".join(f"{step.name:<14}{step.seconds:7.0f} s" for step in self.steps))
        used = resource.getrusage(resource.RUSAGE_CHILDREN)  # of the processes that have ended
        self.say(f"{'in all':<14}{time.monotonic() - self.began:7.0f} s, and {used.ru_utime + used.ru_stime:.0f} s of CPU")
        failed = [(step.name, case) for step in self.steps for case in step.failed]
        for step, case in failed:
            self.say(f"failed: {step}: {case.name}")
            for line in case.failure.strip().splitlines()[:TOLD_LINES]:
                self.say(f"    {line[:TOLD_COLUMNS]}")
        passed = sum(len(step.cases) for step in self.steps) - len(failed)
        if not passed and not failed:
            self.say("failed: no test ran")
            failed = [None]
        self.say(f"{passed} passed, {len(failed)} failed")
        return 1 if failed else 0


def write_junit(step):
    FOLDER.mkdir(exist_ok=True)
    suite = ElementTree.Element("testsuite", name=step.name, tests=str(len(step.cases)), failures=str(len(step.failed)), time=f"{step.seconds:.3f}")
    for case in step.cases:
        element = ElementTree.SubElement(suite, "testcase", classname=step.name, name=case.name, time=f"{case.seconds:.3f}")
        if case.failure:
            ElementTree.SubElement(element, "failure", message=case.failure.splitlines()[0][:200]).text = case.failure
    ElementTree.ElementTree(suite).write(Path(FOLDER) / f"{step.name.replace(' ', '-')}.xml", encoding="unicode", xml_declaration=True)
