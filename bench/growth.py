# SPDX-License-Identifier: Apache-2.0
"""What growth costs: our CPU time per operation at a larger size divided by that at a smaller size, from rows that
ran anyway."""

# (what grows, factor, plane, larger row and contender, smaller row and contender). Words in the larger row's work
# select it.
PAIRS = [
    ("flows", 10, "l4", ("TCP over IPv4, 800,000 flows, 100 b", "tidegate-l4"), ("TCP over IPv4, 80,000 flows, 100 b", "tidegate-l4")),
    ("backends", 100, "l4", ("flows, 10,000 backends", "tidegate-l4"), ("TCP over IPv4, 800,000 flows, 100 b", "tidegate-l4")),
    ("connections", 10, "l7", ("1 kB, 320 connections", "tidegate-l7"), ("HTTP/1.1 plain, proxied, 1 kB (", "tidegate-l7")),
    ("routes", 10, "l7", ("among 100,000 routes", "tidegate-l7"), ("among 100,000 routes", "tidegate-l7, 10,000")),
    ("objects", 10, "cache", ("another of 10,000 objects", "tidegate-l7"), ("another of 1,000 objects", "tidegate-l7")),
    ("objects, RAM off", 10, "cache", ("another of 10,000 objects", "tidegate-l7, RAM off"), ("another of 1,000 objects", "tidegate-l7, RAM off")),
    ("records", 1000, "dns", ("static A out of 1,000,000", "tidegate-dns"), ("static A out of 1,000,000", "tidegate-dns, 1,000")),
    ("routes, a change", 1000, "control", ("among 10,000,", "tidegate"), ("among 10, in", "tidegate")),
]


def cpu_us(report, plane, work, name):
    for row in report:
        if row["plane"] == plane and work in row["work"]:
            return next((result["cpu_us"] for result in row["results"] if result["name"] == name and "error" not in result), None)
    return None


def print_growth(report):
    lines = []
    for what, factor, plane, larger, smaller in PAIRS:
        large_us, small_us = cpu_us(report, plane, *larger), cpu_us(report, plane, *smaller)
        if large_us and small_us:
            lines.append(f"  {f'{plane}: {what}':<28}{f'x{factor}':>7}{small_us:>14.3f}{large_us:>14.3f}{large_us / small_us:>9.2f}")
    if lines:
        print(f"\ngrowth: ours at a larger size\n  {'':<28}{'size':>7}{'CPU µs before':>14}{'after':>14}{'ratio':>9}")
        print("\n".join(lines))
