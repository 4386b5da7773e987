# SPDX-License-Identifier: Apache-2.0
"""The forwarder through veth and AF_XDP, compared with the kernel's own ways to spread a service over backends.
veth.py describes the hosts and whose CPU time is counted. Eight backends, 1,024 flows. The forwarder and the floor
let answers go straight back to the client. nftables' translation and HAProxy need the answers to come back the same
way, which is part of their cost."""

import socket
from pathlib import Path

from generators import wrk
from l4_servers import admin_get
from measure import BUILD, GENERATOR_CORE, SERVER_CORE, BenchError, Contender, Program, Row, Sample, generate, Package
from veth import BACKEND, BACKENDS, CLIENT, FROM_BACKEND, MIDDLE, TO_BACKEND, TO_CLIENT, VIP, Wire, in_namespace, ip, netns, nft

UDP_PORT, TCP_PORT = 7053, 7080
FLOWS = 1024
SMALLEST_PAYLOAD = 18  # payload bytes of UDP in a 64-byte frame
OFFERED = 200_000  # datagrams per second


class Through:
    """A contender on its wire. `serve(wire, folder)` puts it in the middle."""

    def __init__(self, serve):
        self.serve = serve

    def start(self, folder):
        self.wire = Wire()
        try:
            # Datagrams are counted at the link and dropped there.
            nft(BACKEND, "netdev", f"type filter hook ingress device {FROM_BACKEND} priority 0", f"udp dport {UDP_PORT} drop")
            origin = in_namespace(BACKEND, BUILD / "bench" / "floor_http", f"0.0.0.0:{TCP_PORT}", 1024)
            self.wire.run(Origin("origin", origin, GENERATOR_CORE, folder))
            self.serve(self.wire, Path(folder))
            self.wire.serve_on_core(TO_CLIENT, TO_BACKEND)
        except BaseException:
            self.wire.stop()
            raise
        return self.wire


class Origin(Program):
    """It is not what is measured, so its memory does not count."""

    def resident_kb(self):
        return 0


def tidegate(wire, folder):
    listed = "\n".join(f"      - {{name: b{i}, addresses: [{address}]}}" for i, address in enumerate(BACKENDS))
    (folder / "secret").write_text("a secret of the benchmarks")
    (folder / "edge.yaml").write_text(f"""
sites: [{{name: here, location: {{latitude: 50, longitude: 8}}}}]
nodes:
  - name: l4
    site: here
    l4:
      ports:
        - {{device: {TO_CLIENT}, driver: auto, addresses: [10.210.1.1/24]}}
        - {{device: {TO_BACKEND}, driver: auto, addresses: [10.210.2.1/24]}}
      flows: 65536
      memory: 512MB
vips: [{{name: vip, site: here, addresses: [{VIP}]}}]
services:
  - {{name: tcp, vip: vip, port: {TCP_PORT}, protocol: tcp, pool: pool, forwarding: l2dsr}}
  - {{name: udp, vip: vip, port: {UDP_PORT}, protocol: udp, pool: pool, forwarding: l2dsr}}
pools:
  - name: pool
    backends:
{listed}
""")
    wire.answer_straight()
    command = in_namespace(MIDDLE, BUILD / "l4" / "tidegate-l4", "--config", "edge.yaml", "--run", folder, "--node", "l4", "--secret", "secret")
    admin = folder / "l4.sock"
    wire.run(Program("tidegate-l4", command, SERVER_CORE, folder, lambda: admin_get(admin, "/healthz")[0] == 200, ready_timeout_s=60))


def nftables(wire, folder):
    wire.route_the_middle()
    wire.answer_through_the_middle()
    chosen = ", ".join(f"{i} : {address}" for i, address in enumerate(BACKENDS))
    spread = lambda protocol: f"ip daddr {VIP} meta l4proto {protocol} dnat to jhash ip saddr . {protocol} sport mod {len(BACKENDS)} map {{ {chosen} }}"
    nft(MIDDLE, "ip", "type nat hook prerouting priority -100", spread("tcp"), spread("udp"))


def haproxy(wire, folder):
    wire.route_the_middle()
    ip(MIDDLE, f"addr add {VIP}/32 dev lo")
    servers = "\n".join(f"  server b{i} {address}:{TCP_PORT}" for i, address in enumerate(BACKENDS))
    (folder / "haproxy.cfg").write_text(f"""
global
  nbthread 1
  maxconn 9000
defaults
  mode tcp
  timeout client 60s
  timeout server 60s
  timeout connect 2s
frontend f
  bind {VIP}:{TCP_PORT}
  default_backend o
backend o
  balance roundrobin
{servers}
""")
    wire.run(Program("haproxy", in_namespace(MIDDLE, "haproxy", "-db", "-f", "haproxy.cfg"), SERVER_CORE, folder, listens_in_the_middle))


def listens_in_the_middle():
    with netns.open_socket(MIDDLE, socket.AF_INET, socket.SOCK_STREAM) as probe:
        return probe.connect_ex((VIP, TCP_PORT)) == 0


def routing(wire, folder):
    wire.route_the_middle()
    wire.answer_straight()
    ip(MIDDLE, f"route add {VIP} via {BACKENDS[0]}")


def datagrams(contender, rate):
    """Sends `rate` datagrams per second with a busy-waiting generator (0: as many as possible). What the backend's
    link received counts as forwarded."""

    def load(seconds):
        before = contender.wire.received_packets()
        command = in_namespace(CLIENT, BUILD / "bench" / "udp_flood", f"{VIP}:{UDP_PORT}", seconds or 0.1, rate, FLOWS, SMALLEST_PAYLOAD)
        out, busy = generate(command)
        sent, took = out.split()
        arrived = contender.wire.received_packets() - before
        if arrived < int(sent) / 100:
            raise BenchError(f"of {sent} datagrams only {arrived} arrived")
        return Sample(arrived, float(took), generator_busy=0 if rate else busy, offered_rate=int(sent) / float(took))

    return load


def requests(_):
    return wrk(f"http://{VIP}:{TCP_PORT}/x", prefix=in_namespace(CLIENT))


WAYS = {
    "tidegate-l4": (tidegate, "this commit"),
    "nftables jhash DNAT": (nftables, Package("nftables")),
    "haproxy, mode tcp": (haproxy, Package("haproxy")),
    "floor: plain routing": (routing, ""),
}


def row(work, names, load_of, unit="request"):
    contenders = []
    for name in names:
        serve, version = WAYS[name]
        through = Through(serve)
        contenders.append(Contender(name, version, through.start, load_of(through), ours=name == "tidegate-l4", floor="floor" in name))
    return Row("l4", work, contenders, unit=unit)


def rows():
    without_haproxy = [name for name in WAYS if "haproxy" not in name]
    yield row(f"veth, UDP of 64-byte frames, {OFFERED:,}/s offered", without_haproxy, lambda through: datagrams(through, OFFERED), "offered")
    yield row("veth, UDP of 64-byte frames, as many as come", without_haproxy, lambda through: datagrams(through, 0), "offered")
    yield row("veth, TCP, HTTP/1.1 requests of 1 kB over 32 connections", list(WAYS), requests)
