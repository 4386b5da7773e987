# SPDX-License-Identifier: Apache-2.0
"""Hosts in network namespaces, joined by veth pairs, to measure what a machine forwards or receives over a wire.

    client 10.210.1.2 ---- 10.210.1.1 middle 10.210.2.1 ---- 10.210.2.2…9 backend
         10.210.3.2 ------------------------------------------ 10.210.3.1           (the straight way back)

In a Wire, the middle's interfaces have their own kernel threads (threaded NAPI). They are pinned to the server's
core, where everything else under test runs too. Clients, backends and their receiving run on the generator's core.
So the CPU time of the work is the busy time of the server's core. It includes the kernel's forwarding, processes,
and the interrupts between them.

A Pair is a client and a server. The server's kernel receives either on the generator's core, as from a network card
that interrupts another core; or on the server's core as in a Wire, so that everything a query costs its host is
counted.

Checksums are computed and segments cut before the first link, for every contender: the frames are those of a real
wire."""

import json
import os
import sys
import time
from pathlib import Path

from measure import GENERATOR_CORE, SERVER_CORE, TICK_NS, BenchError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "lab"))
import netns  # noqa: E402
from netns import in_namespace, ip, sh, sysctl  # noqa: E402

CLIENT, MIDDLE, BACKEND = "tgb-client", "tgb-middle", "tgb-backend"
# These names are unique on the machine, because a kernel thread carries only the first characters of its interface's
# name.
TO_CLIENT, TO_BACKEND = "tgbmid0", "tgbmid1"
FROM_CLIENT, FROM_BACKEND = "tgbcli0", "tgbback0"
STRAIGHT_TO_CLIENT, STRAIGHT_TO_BACKEND = "tgbback1", "tgbcli1"
VIP = "10.210.9.9"
SERVER = "10.210.1.1"
BACKENDS = [f"10.210.2.{i}" for i in range(2, 10)]


def remove_leftovers():
    known = sh("ip", "netns", "list").split()
    netns.remove_namespaces(*(name for name in (CLIENT, MIDDLE, BACKEND) if name in known))


def core_busy_ns(core):
    """A clock that stops while the core is idle or waits: the kernel counts idle time exactly, and samples the
    rest."""
    fields = next(line for line in open("/proc/stat") if line.startswith(f"cpu{core} ")).split()[1:]
    idle, waiting = int(fields[3]), int(fields[4])
    return time.monotonic_ns() - (idle + waiting) * TICK_NS


def napi_threads(interface):
    """The NAPI threads of an interface's queues. The kernel cuts their names at 15 characters."""
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            if comm.read_text().startswith(f"napi/{interface}-"):
                yield int(comm.parent.name)
        except OSError:
            pass


def nft(namespace, family, hook, *rules):
    """One table of one chain."""
    lines = [f"table {family} bench {{", "chain bench {", f"{hook};", *rules, "}", "}"]
    sh(*in_namespace(namespace, "nft", "-f", "-"), input="\n".join(lines) + "\n")


def counted(namespace, family):
    """The packets counted by those rules of nft() that have a counter."""
    listed = json.loads(sh(*in_namespace(namespace, "nft", "-j", "list", "table", family, "bench")))["nftables"]
    return sum(part["counter"]["packets"] for entry in listed for part in entry.get("rule", {}).get("expr", []) if "counter" in part)


class Hosts:
    """Namespaces and the programs in them, as the started server of a Contender. Everything that keeps the server's
    core busy counts."""

    def __init__(self, *namespaces):
        self.programs = []
        remove_leftovers()
        netns.add_namespaces(*namespaces)
        for namespace in namespaces:
            # Answers may take another way than requests.
            sysctl(namespace, "net/ipv4/conf/all/rp_filter=0", "net/ipv4/conf/default/rp_filter=0", "net/ipv6/conf/all/disable_ipv6=1", "net/ipv6/conf/default/disable_ipv6=1")

    def run(self, program):
        self.programs.append(program)
        return program

    def serve_on_core(self, *interfaces):
        """For interfaces of the middle. Call it once the server runs: a program that attaches XDP changes the set
        of queues."""
        for interface in interfaces:
            sh(*in_namespace(MIDDLE, "ethtool", "-K", interface, "gro", "on"))
            sh(*in_namespace(MIDDLE, "sh", "-c", f"echo 1 > /sys/class/net/{interface}/threaded"))
            threads = list(napi_threads(interface))
            if not threads:
                raise BenchError(f"{interface} has no kernel thread of its own")
            for thread in threads:
                os.sched_setaffinity(thread, {SERVER_CORE})

    def cpu_ns(self):
        return core_busy_ns(SERVER_CORE)

    def resident_kb(self):
        return sum(program.resident_kb() for program in self.programs)

    def stop(self):
        for program in self.programs:
            program.stop()
        remove_leftovers()


def link(one, other):
    """Each end: (namespace, interface, addresses)."""
    (here, name, _), (there, peer, _) = one, other
    ip(None, f"link add {name} netns {here} type veth peer name {peer} netns {there}")
    for namespace, interface, listed in (one, other):
        ip(namespace, f"link set {interface} up", *[f"addr add {address}/24 dev {interface}" for address in listed])


def send_whole_frames(namespace, interface):
    sh(*in_namespace(namespace, "ethtool", "-K", interface, "tx", "off", "tso", "off", "gso", "off", "tx-udp-segmentation", "off"))


def receive_on(namespace, interface, core):
    sh(*in_namespace(namespace, "sh", "-c", f"echo {1 << core:x} > /sys/class/net/{interface}/queues/rx-0/rps_cpus"))


class Wire(Hosts):
    def __init__(self):
        super().__init__(CLIENT, MIDDLE, BACKEND)
        link((CLIENT, FROM_CLIENT, ["10.210.1.2"]), (MIDDLE, TO_CLIENT, []))
        link((BACKEND, FROM_BACKEND, BACKENDS), (MIDDLE, TO_BACKEND, []))
        link((BACKEND, STRAIGHT_TO_CLIENT, ["10.210.3.1"]), (CLIENT, STRAIGHT_TO_BACKEND, ["10.210.3.2"]))
        for namespace, interface in ((CLIENT, FROM_CLIENT), (CLIENT, STRAIGHT_TO_BACKEND), (BACKEND, FROM_BACKEND), (BACKEND, STRAIGHT_TO_CLIENT)):
            send_whole_frames(namespace, interface)
            receive_on(namespace, interface, GENERATOR_CORE)
        ip(CLIENT, f"route add {VIP} via 10.210.1.1")
        # A VIP on lo, which the backend's interfaces do not announce.
        sysctl(BACKEND, "net/ipv4/conf/all/arp_ignore=1", "net/ipv4/conf/all/arp_announce=2", "net/core/somaxconn=4096")
        ip(BACKEND, f"addr add {VIP}/32 dev lo")

    def route_the_middle(self):
        """For kernel contenders: the middle is a router."""
        sysctl(MIDDLE, "net/ipv4/ip_forward=1")
        ip(MIDDLE, f"addr add 10.210.1.1/24 dev {TO_CLIENT}", f"addr add 10.210.2.1/24 dev {TO_BACKEND}")

    def answer_straight(self):
        ip(BACKEND, "route add 10.210.1.0/24 via 10.210.3.2")

    def answer_through_the_middle(self):
        ip(BACKEND, "route add 10.210.1.0/24 via 10.210.2.1")

    def received_packets(self):
        """Packets that the backend received over the link from the middle."""
        shown = json.loads(sh("ip", "-n", BACKEND, "-j", "-s", "link", "show", "dev", FROM_BACKEND))
        return shown[0]["stats64"]["rx"]["packets"]


class Pair(Hosts):
    def __init__(self):
        super().__init__(CLIENT, MIDDLE)
        link((CLIENT, FROM_CLIENT, ["10.210.1.2"]), (MIDDLE, TO_CLIENT, [SERVER]))
        send_whole_frames(CLIENT, FROM_CLIENT)

    def receive_on_both_cores(self):
        """On the server's core: what a query costs its host, from the first interrupt on. On the generator's core:
        what the client receives."""
        self.serve_on_core(TO_CLIENT)
        receive_on(CLIENT, FROM_CLIENT, GENERATOR_CORE)
