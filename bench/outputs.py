# SPDX-License-Identifier: Apache-2.0
"""Reads the output of the generators into Samples. Pure: text in, figures out. A ValueError names what was not
found."""

import re

from measure import Sample

US_OF_UNIT = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000}
DURATION = r"([\d.]+)(us|ms|s|m)\b"


def found(pattern, text):
    """The groups of the first match. A single group is returned by itself."""
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"nothing like /{pattern}/ in the generator's output: {text.strip()[-300:]!r}")
    return match[1] if len(match.groups()) == 1 else match.groups()


def microseconds_after(pattern, text):
    number, unit = found(pattern + DURATION, text)
    return float(number) * US_OF_UNIT[unit]


def wrk_sample(out, busy):
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)", out)
    if bad:
        raise ValueError(f"wrk saw failures: {bad[0]}")
    count = int(found(r"(\d+) requests in ", out))
    took_us = microseconds_after(r"\d+ requests in ", out)
    at = lambda percent: microseconds_after(rf"{percent}%\s+", out)
    return Sample(count, took_us / 1e6, at(50), at(99), generator_busy=busy)


def h2load_sample(out, log, busy):
    """`log` is the file of --log-file with one line per request: start, status, duration in microseconds."""
    requests = (line.split("\t") for line in log.splitlines())
    durations = sorted(int(duration) for _, status, duration in requests if status == "200")
    count = int(found(r"(\d+) succeeded", out))
    if re.search(r"[1-9]\d* failed", out) or not durations:
        raise ValueError("h2load saw failures: " + found(r"requests: (.*)", out))
    took_us = microseconds_after(r"finished in ", out)
    return Sample(count, took_us / 1e6, durations[len(durations) // 2], durations[len(durations) * 99 // 100], generator_busy=busy)


def dnsperf_sample(out, busy):
    """dnsperf reports only the mean and the worst latency, which are put in the places of p50 and p99."""
    count = int(found(r"Queries completed:\s+(\d+)", out))
    took = float(found(r"Run time \(s\):\s+([\d.]+)", out))
    mean, worst = found(r"Average Latency \(s\):\s+([\d.]+) \(min [\d.]+, max ([\d.]+)\)", out)
    return Sample(count, took, float(mean) * 1e6, float(worst) * 1e6, generator_busy=busy)
