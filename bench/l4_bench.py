# SPDX-License-Identifier: Apache-2.0
"""The forwarder compared with testpmd on the same device: CPU time per packet, and how far that is above testpmd's
io mode, which touches no packet."""

import os
import tempfile
from pathlib import Path

import l4_veth_bench
import measure
from captures import ACK, SYN, TCP, UDP, write_capture
from l4_servers import testpmd, tidegate
from measure import Contender, Row, Package

# Each flow is one frame in a 2 kB buffer, all from one pool. DPDK makes no pool larger than 2 GB, and it must fit
# into memory.
MOST = 20_000 if measure.smoke else 800_000 if os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") > 6 << 30 else 100_000


# Nanoseconds above testpmd's io mode.
LEVEL_NS = {"l2dsr": 45, "ipip": 60, "gue": 65, "vxlan": 70}
FLOOD_LEVEL_NS = 60
GUARD_LEVEL_NS = 15  # in addition, with lists and limits


def packet_row(folder, work, family, protocol, flows, backends, flags=ACK, room=None, forwarding="l2dsr", guarded=False):
    capture = Path(folder) / "received.pcap"
    frames = write_capture(capture, family, protocol, flows, backends, flags)
    peer = Package("dpdk-dev")
    contenders = [("tidegate-l4", tidegate([capture], frames, backends, room or flows, forwarding, guarded), "this commit")]
    # They do the same in every row. In a smoke run the row of one backend shows that they run.
    other_modes = () if measure.smoke and backends > 1 else ("macswap", "5tswap")
    contenders += [(f"testpmd {mode}", testpmd([capture], frames, mode), peer) for mode in other_modes]
    contenders += [("floor: testpmd io", testpmd([capture], frames, "io"), peer)]
    return Row(
        "l4",
        f"{work}, {backends:,} backends",
        [Contender(name, version, run.start, run.load, ours=run is contenders[0][1], floor="floor" in name) for name, run, version in contenders],
        unit="packet",
        level_ns=FLOOD_LEVEL_NS if room else LEVEL_NS[forwarding] + (GUARD_LEVEL_NS if guarded else 0),
    )


def scaling_row(folder, flows, backends):
    """How much more two workers on two cores forward than one on one core. Each has as many flows, and its own queue."""
    captures = [Path(folder) / f"queue{i}.pcap" for i in range(2)]
    frames = [write_capture(capture, 4, TCP, flows, backends, first=i * flows) for i, capture in enumerate(captures)]
    both, one = (captures, sum(frames)), (captures[:1], frames[0])
    peer = Package("dpdk-dev")
    contenders = [
        Contender(name, version, run.start, run.load, ours=version == "this commit")
        for name, run, version in (
            ("tidegate-l4, 2 workers", tidegate(*both, backends, flows), "this commit"),
            ("tidegate-l4, 1 worker", tidegate(*one, backends, flows), "this commit"),
            ("testpmd macswap, 2 cores", testpmd(*both, "macswap"), peer),
            ("testpmd macswap, 1 core", testpmd(*one, "macswap"), peer),
        )
    ]
    return Row("l4", f"one worker and two, TCP over IPv4, {flows:,} flows each, {backends:,} backends", contenders, unit="packet")


def rows():
    yield from l4_veth_bench.rows()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-capture-") as folder:
        for backends in (1, 100, 10_000):
            yield packet_row(folder, f"hit, TCP over IPv4, {MOST:,} flows", 4, TCP, MOST, backends)
        yield packet_row(folder, f"hit, TCP over IPv4, {MOST // 10:,} flows", 4, TCP, MOST // 10, 100)
        yield packet_row(folder, f"hit, UDP over IPv4, {MOST:,} flows", 4, UDP, MOST, 100)
        yield packet_row(folder, f"hit, TCP over IPv6, {MOST:,} flows", 6, TCP, MOST, 100)
        yield packet_row(folder, f"hit, UDP over IPv6, {MOST:,} flows", 6, UDP, MOST, 100)
        for family in (4,) if measure.smoke else (4, 6):
            work = f"hit with lists of 200,000 networks and bounds by service and source, TCP over IPv{family}, {MOST:,} flows"
            yield packet_row(folder, work, family, TCP, MOST, 100, guarded=True)
        for forwarding in ("ipip", "gue", "vxlan"):
            # In a smoke run one number of backends shows that everything runs.
            for backends in (100,) if measure.smoke else (100, 10_000):
                yield packet_row(folder, f"hit by {forwarding}, TCP over IPv4, {MOST:,} flows", 4, TCP, MOST, backends, forwarding=forwarding)
        yield scaling_row(folder, MOST // 2, 100)
        # Sixteen times as many flows as the table can hold: each flow is gone again before its next packet.
        room = MOST // 16
        yield packet_row(folder, f"miss and flood, SYNs of {MOST:,} flows into room for {room:,}", 4, TCP, MOST, 100, SYN, room)
        yield packet_row(folder, f"miss and flood, UDP of {MOST:,} flows into room for {room:,}", 4, UDP, MOST, 100, room=room)
