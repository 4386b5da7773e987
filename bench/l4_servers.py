# SPDX-License-Identifier: Apache-2.0
"""The forwarder and DPDK's own testpmd on the same virtual device: net_pcap, which delivers a capture again and
again and drops what is sent. Both run on core 0, with buffers of 2 kB in plain pages and bursts of 64."""

import http.client
import re
import socket
import time
from pathlib import Path

from captures import VIP4, VIP6, backend4, backend6
from measure import BUILD, GENERATOR_CORE, SERVER_CORE, BenchError, Program, Sample


class Admin(http.client.HTTPConnection):
    """HTTP over a daemon's unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(self.path)


def admin_get(path, target):
    """Returns status and body. The status is 0 while nobody listens."""
    try:
        admin = Admin(path)
        admin.request("GET", target)
        answer = admin.getresponse()
        return answer.status, answer.read().decode()
    except OSError:
        return 0, ""


def metric(text, name):
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


class PacketLoad:
    """`counters(program)` returns (received, forwarded). The device itself makes the load, so a run is two readings
    of the counters. `share` is the part of the capture's frames that must be forwarded."""

    def __init__(self, start, counters, share=1.0):
        self.start_program, self.counters, self.share = start, counters, share

    def start(self, folder):
        self.program = self.start_program(folder)
        return self.program

    def load(self, seconds):
        received, forwarded = self.counters(self.program)
        began = time.monotonic()
        time.sleep(seconds or 0.1)
        received_after, forwarded_after = self.counters(self.program)
        took = time.monotonic() - began
        if forwarded_after - forwarded < 0.95 * self.share * (received_after - received):
            raise BenchError(f"of {received_after - received:,.0f} frames only {forwarded_after - forwarded:,.0f} went on")
        return Sample(int(received_after - received), took)


def memory_mb(frames):
    return 512 + (frames + 20_000) * 3_600 // (1 << 20)


def denied_networks():
    """100,000 networks of IPv4 and as many of IPv6, spread over the space, without the clients of the captures."""
    lines = []
    for number in range(100_000):
        spread = number * 2_654_435_761 % (1 << 32)
        first = spread >> 24
        lines.append(f"{224 if first in (10, 11) else first}.{spread >> 16 & 255}.{spread >> 8 & 255}.0/24")
        lines.append(f"2a{spread >> 24:02x}:{spread >> 8 & 0xFFFF:x}:{spread & 255:x}::/48")
    return lines


# Lists and limits that match no client of the captures, but are checked for each packet.
GUARDS = ", deny: [bad4, bad6], limits: {packets: 100000000, source_packets: 100000000, flows: 100000000, source_flows: 100000000}"


def cores_of(captures):
    """A core for each queue, and each queue has a capture of its own."""
    return [SERVER_CORE, GENERATOR_CORE][: len(captures)]


def tidegate(captures, frames, backends, flows, forwarding="l2dsr", guarded=False):
    """`captures`: one for each worker. `frames`: in all of them."""
    device = ",rx_pcap=".join(map(str, captures))
    if forwarding == "vxlan":
        forwarding += ", vni: 1"
    if guarded:
        forwarding += GUARDS

    def start(folder):
        listed = "\n".join(f'      - {{name: b{i}, addresses: [{backend4(i)}, "{backend6(i)}"]}}' for i in range(backends))
        (Path(folder) / "secret").write_text("a secret of the benchmarks")
        networks = denied_networks()
        (Path(folder) / "bad4.txt").write_text("\n".join(networks[::2]))
        (Path(folder) / "bad6.txt").write_text("\n".join(networks[1::2]))
        lists = "acls: [{name: bad4, file: bad4.txt}, {name: bad6, file: bad6.txt}]" if guarded else ""
        (Path(folder) / "edge.yaml").write_text(f"""
sites: [{{name: here, location: {{latitude: 50, longitude: 8}}}}]
nodes:
  - name: l4
    site: here
    l4:
      workers: {len(captures)}
      ports: [{{device: "{device},infinite_rx=1", driver: pcap, addresses: [10.200.0.2/16, "fd10:200::2/64"]}}]
      flows: {flows}
      memory: {memory_mb(frames)}MB
      maglev_slots: 65537
vips: [{{name: vip, site: here, addresses: [{VIP4}, "{VIP6}"]}}]
{lists}
services:
  - {{name: tcp, vip: vip, port: 80, protocol: tcp, pool: pool, forwarding: {forwarding}}}
  - {{name: udp, vip: vip, port: 53, protocol: udp, pool: pool, forwarding: {forwarding}}}
pools:
  - name: pool
    backends:
{listed}
""")
        command = [BUILD / "l4" / "tidegate-l4", "--config", "edge.yaml", "--run", folder, "--node", "l4", "--secret", "secret"]
        admin = Path(folder) / "l4.sock"
        program = Program("tidegate-l4", command, ",".join(map(str, cores_of(captures))), folder, lambda: admin_get(admin, "/healthz")[0] == 200, ready_timeout_s=60)
        program.admin = admin
        return program

    def counters(program):
        text = admin_get(program.admin, "/metrics")[1]
        return metric(text, "tidegate_l4_received_packets_total"), metric(text, "tidegate_l4_forwarded_packets_total")

    # In the capture every backend announces itself once for each family. Those frames are consumed, not forwarded.
    return PacketLoad(start, counters, share=1 - 2 * backends * len(captures) / frames)


def testpmd(captures, frames, mode):
    cores, queues = cores_of(captures), len(captures)
    received = ",".join(f"rx_pcap={capture}" for capture in captures)
    lcores = ",".join([f"0@{SERVER_CORE}", *(f"{i + 1}@{core}" for i, core in enumerate(cores))])

    def start(folder):
        command = [
            "stdbuf", "-oL", "dpdk-testpmd", "--lcores", lcores, "--no-huge", "-m", memory_mb(frames), "--no-pci", "--no-shconf", "--no-telemetry",
            "--vdev", f"net_pcap0,{received},infinite_rx=1", "--", "-i", "--auto-start", f"--forward-mode={mode}", "--port-topology=loop",
            f"--nb-cores={queues}", f"--rxq={queues}", f"--txq={queues}", "--burst=64", "--rxd=1024", "--txd=1024", f"--total-num-mbufs={frames + 8191}", "--no-mlockall",
        ]  # fmt: skip
        program = Program(f"testpmd-{mode}", command, ",".join(map(str, cores)), folder, stdin=True)
        program.log_path = Path(folder) / f"testpmd-{mode}.log"
        program.await_ready(lambda: "testpmd>" in program.log_path.read_text(errors="replace"), 60)
        return program

    def counters(program):
        seen = program.log_path.stat().st_size
        program.popen.stdin.write(b"show port stats 0\n")
        program.popen.stdin.flush()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            text = program.log_path.read_text(errors="replace")[seen:]
            found = re.search(r"RX-packets: (\d+).*TX-packets: (\d+).*Tx-pps", text, re.DOTALL)
            if found:
                return int(found[1]), int(found[2])
            time.sleep(0.001)
        raise BenchError("testpmd does not answer")

    return PacketLoad(start, counters)
