# SPDX-License-Identifier: Apache-2.0
"""Rows as tables: for a terminal while they run, and in Markdown for the recorded results."""

from measure import summary

MS, S = 1e3, 1e6  # a millisecond and a second in microseconds


def above_floor_ns(result, floor):
    return f"{(result['cpu_us'] - floor['cpu_us']) * 1000:.0f}" if floor else ""


# For each unit of a row: heading, width, and the text for a result (its second argument is the row's floor).
RATE = ("rate/s", 11, lambda r, _: f"{r['rate']:,.0f}")
CPU_US = ("CPU µs", 9, lambda r, _: f"{r['cpu_us']:.2f}")
CPU_NS = ("CPU ns", 9, lambda r, _: f"{r['cpu_us'] * 1000:,.1f}")
REQUEST = [RATE, ("p50 µs", 9, lambda r, _: f"{r['p50_us']:,.0f}"), ("p99 µs", 9, lambda r, _: f"{r['p99_us']:,.0f}"), CPU_US]
COLUMNS = {
    "compressed": [*REQUEST, ("body bytes", 12, lambda r, _: f"{r['body_bytes']:,.0f}")],
    "call": [CPU_NS, ("real ns", 12, lambda r, _: f"{r['p50_us'] * 1000:,.1f}")],
    "packet": [RATE, CPU_NS, ("ns above floor", 16, above_floor_ns)],
    "offered": [("offered/s", 11, lambda r, _: f"{r['offered_rate']:,.0f}"), RATE, CPU_NS, ("ns above floor", 16, above_floor_ns)],
    "start": [("seconds", 9, lambda r, _: f"{r['p50_us'] / S:.2f}"), ("CPU s", 9, lambda r, _: f"{r['cpu_us'] / S:.2f}")],
    "connection": [("connections", 12, lambda r, _: f"{r['operations']:,.0f}"), ("kB each", 9, lambda r, _: f"{r['each_kb']:.1f}"), CPU_US],
    "change": [
        ("changes", 9, lambda r, _: f"{r['operations']:,.0f}"),
        ("p50 ms", 8, lambda r, _: f"{r['p50_us'] / MS:.1f}"),
        ("p99 ms", 8, lambda r, _: f"{r['p99_us'] / MS:.1f}"),
        ("closed", 8, lambda r, _: f"{r['closed']:,.0f}"),
        ("CPU ms", 9, lambda r, _: f"{r['cpu_us'] / MS:.2f}"),
    ],
    "attack": [
        ("served", 8, lambda r, _: f"{r['operations']:,.0f}"),
        ("p50 ms", 8, lambda r, _: f"{r['p50_us'] / MS:.1f}"),
        ("p99 ms", 8, lambda r, _: f"{r['p99_us'] / MS:.1f}"),
        ("MB at most", 11, lambda r, _: f"{r['peak_mb']:.1f}"),
        ("MB kept", 9, lambda r, _: f"{r['kept_mb']:.1f}"),
        ("sent MB", 9, lambda r, _: f"{r['attack_mb']:.1f}"),
        ("requests", 10, lambda r, _: f"{r['attack_requests']:,.0f}"),
        ("connections", 12, lambda r, _: f"{r['attack_connections']:,.0f}"),
        ("ended by", 11, lambda r, _: r["ended"]),
    ],
    "herd": [
        ("asked origin", 13, lambda r, _: f"{r['origin_requests']:,.0f}"),
        ("first p50 ms", 13, lambda r, _: f"{r['p50_us'] / MS:.1f}"),
        ("p99 ms", 8, lambda r, _: f"{r['p99_us'] / MS:.1f}"),
        ("whole p99 ms", 13, lambda r, _: f"{r['whole_p99_us'] / MS:.1f}"),
        CPU_US,
    ],
}
# Headings of every row. `ours/it` is our CPU time divided by theirs.
LAST_HEADINGS = [("±", 6), ("MB", 8), ("ours/it", 9), ("it/floor", 9)]
GENERATOR_WAS_THE_LIMIT = "the generator was the limit"


def columns(unit):
    return COLUMNS.get(unit, REQUEST)


def last_figures(result, ours, floor):
    ratio = f"{ours['cpu_us'] / result['cpu_us']:.2f}" if ours and result["cpu_us"] and not result["ours"] else ""
    above = f"{result['cpu_us'] / floor['cpu_us']:.2f}" if floor and floor["cpu_us"] else ""
    return [f"{result['spread']:.0%}", f"{result['resident_kb'] / 1024:.1f}", ratio, above]


def last_words(error):
    """The last non-empty line: a tool's log ends with the reason why it ended."""
    lines = [line for line in error.splitlines() if any(map(str.isalpha, line))]
    return lines[-1][:110] if lines else "?"


def report_of(row):
    """The figures of a row, as they are kept in JSON."""
    results = [summary(contender) or {"name": contender.name, "error": contender.error, "source": contender.source} for contender in row.contenders]
    return {"plane": row.plane, "work": row.work, "unit": row.unit, "level_ns": row.level_ns, "results": results}


def measured(report, key):
    return next((result for result in report["results"] if result.get(key)), None)


def level_of(report):
    """The row's level beside what was measured, in words; empty if it has none."""
    ours, floor = measured(report, "ours"), measured(report, "floor")
    if report.get("level_ns") is None or not ours or not floor:
        return ""
    above = (ours["cpu_us"] - floor["cpu_us"]) * 1000
    return f"level: {report['level_ns']:.0f} ns above the floor; measured {above:.0f}"


def print_text(report):
    ours, floor = measured(report, "ours"), measured(report, "floor")
    shown = columns(report["unit"])
    width = max(22, *(len(result["name"]) + 1 for result in report["results"]))
    print(f"\n{report['plane']}: {report['work']}")
    if level := level_of(report):
        print(f"  {level}")
    print(f"  {'':<{width}}" + "".join(f"{heading:>{wide}}" for heading, wide, *_ in [*shown, *LAST_HEADINGS]) + "  version")
    for result in report["results"]:
        if "error" in result:
            print(f"  {result['name']:<{width}}did not run: ({result['source']}) {last_words(result['error'])}")
            continue
        if result["asked_once"]:
            print(f"  {result['name']:<{width}}answered  {result['version']}")
            continue
        figures = "".join(f"{show(result, floor):>{wide}}" for _, wide, show in shown)
        last = "".join(f"{text:>{wide}}" for text, (_, wide) in zip(last_figures(result, ours, floor), LAST_HEADINGS))
        note = f"  [{GENERATOR_WAS_THE_LIMIT}]" if result["generator_limited"] else ""
        print(f"  {result['name']:<{width}}{figures}{last}  {result['version']}{note}")


def markdown(report):
    ours, floor = measured(report, "ours"), measured(report, "floor")
    shown = columns(report["unit"])
    headings = [heading for heading, *_ in [*shown, *LAST_HEADINGS]]
    level = level_of(report)
    title = f"**{report['work']}**" + (f" ({level})" if level else "")
    lines = [title, "", f"| |{'|'.join(headings)}|version|", f"|---|{'---:|' * len(headings)}---|"]
    for result in report["results"]:
        if "error" in result:
            lines.append(f"|{result['name']}{'|' * len(headings)}|did not run|")
            continue
        figures = [show(result, floor) for _, _, show in shown] + last_figures(result, ours, floor)
        note = f" ({GENERATOR_WAS_THE_LIMIT})" if result["generator_limited"] else ""
        lines.append(f"|{result['name']}|{'|'.join(figures)}|{result['version']}{note}|")
    return "\n".join(lines) + "\n"
