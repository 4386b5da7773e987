#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Packet tests: the real tidegate-l4 over capture files (net_pcap), without root, device or network.

rx.pcap is what the forwarder receives, and tx.pcap is what it sends. Its admin socket tells what it counted and
explains.
usage: packets.py TIDEGATE_L4
"""
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

OURS = bytes.fromhex("027063617000")  # net_pcap's first device
ROUTER = bytes.fromhex("0200000000fe")
BACKENDS = {"web1": bytes.fromhex("020000000011"), "web2": bytes.fromhex("020000000012")}
BROADCAST = b"\xff" * 6
VIP4, VIP6, CLIENT4, CLIENT6 = "10.10.0.100", "fd10::100", "192.0.2.7", "2001:db8::7"

CONFIG = """
sites: [{{name: eu, location: {{latitude: 50, longitude: 8}}}}]
nodes:
  - name: l4
    site: eu
    l4:
      ports: [{{device: "{rx},{tx}", driver: pcap{vlan}, addresses: [10.10.0.2/24, "fd10::2/64"]}}]
      flows: 4096
vips: [{{name: vip, site: eu, addresses: [{vip4}, "{vip6}"]}}]
acls: [{{name: bad, networks: [203.0.113.0/24, "2001:db8:bad::/48"]}}]
services:
  - {{name: http, vip: vip, port: 80, protocol: tcp, pool: web, forwarding: {forwarding}{http}}}
  - {{name: dns, vip: vip, port: 53, protocol: udp, pool: web, forwarding: {forwarding}}}
pools:
  - name: web
    backends:
      - {{name: web1, addresses: [10.10.0.11, "fd10::11"]}}
      - {{name: web2, addresses: [10.10.0.12, "fd10::12"]}}
"""


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packed(address):
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def ethernet(kind, payload, to=OURS, source=ROUTER):
    return to + source + struct.pack("!H", kind) + payload


def ip(source, destination, protocol, payload, ttl=61, fragment=0, identity=7):
    if ":" in source:
        return struct.pack("!IHBB", 0x60000000, len(payload), protocol, ttl) + packed(source) + packed(destination) + payload
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), identity, fragment, ttl, protocol, 0)
    header += packed(source) + packed(destination)
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


def ip_frame(source, destination, protocol, payload, **more):
    return ethernet(0x86DD if ":" in source else 0x0800, ip(source, destination, protocol, payload, **more))


def tcp(source, destination, flags, payload=b""):
    return struct.pack("!HHIIBBHHH", source, destination, 1, 2, 0x50, flags, 8192, 0xBEEF, 0) + payload


def udp(source, destination, payload=b"query"):
    return struct.pack("!HHHH", source, destination, 8 + len(payload), 0xBEEF) + payload


def icmp4(kind, code, rest, body):
    message = struct.pack("!BBHI", kind, code, 0, rest) + body
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


def icmp6(source, destination, kind, body, hops=61):
    message = struct.pack("!BBH", kind, 0, 0) + body
    pseudo = packed(source) + packed(destination) + struct.pack("!II", len(message), 58)
    message = message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]
    return ip(source, destination, 58, message, ttl=hops)


def arp(operation, sender_mac, sender, target_mac, target, to):
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + sender_mac + packed(sender) + target_mac + packed(target)
    return ethernet(0x0806, body, to, sender_mac).ljust(60, b"\0")


def advertisement(mac, address):
    body = b"\x60\0\0\0" + packed(address) + b"\x02\x01" + mac
    return ethernet(0x86DD, icmp6(address, "fd10::2", 136, body, 255), OURS, mac)


def write_pcap(path, frames):
    with open(path, "wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for frame in frames:
            out.write(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)


def read_pcap(path):
    data = open(path, "rb").read()
    frames, at = [], 24
    while at < len(data):
        length = struct.unpack_from("<IIII", data, at)[2]
        frames.append(data[at + 16 : at + 16 + length])
        at += 16 + length
    return frames


class Admin(http.client.HTTPConnection):
    """HTTP over the daemon's unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


class Forwarder:
    """A tidegate-l4 that gets frames until it has received them all."""

    def __init__(self, program, frames, forwarding="l2dsr", vlan="", http="", more_ports=""):
        self.directory = tempfile.TemporaryDirectory(prefix="tidegate-l4-")
        base = self.directory.name
        self.tx = os.path.join(base, "tx.pcap")
        self.frames = frames
        write_pcap(os.path.join(base, "rx.pcap"), frames)
        config = CONFIG.format(forwarding=forwarding, vlan=vlan, http=http, rx=os.path.join(base, "rx.pcap"), tx=self.tx, vip4=VIP4, vip6=VIP6)
        if more_ports:
            config = config.replace(', addresses: [10.10.0.2/24, "fd10::2/64"]', more_ports.replace("RX", f"{base}/rx.pcap,{self.tx}"))
        open(os.path.join(base, "edge.yaml"), "w").write(config)
        open(os.path.join(base, "secret"), "w").write("a secret of the packet tests")
        self.log = open(os.path.join(base, "log"), "w+")
        self.process = subprocess.Popen(
            [program, "--config", f"{base}/edge.yaml", "--run", base, "--node", "l4", "--secret", f"{base}/secret"],
            stderr=self.log, stdout=self.log)
        self.socket = os.path.join(base, "l4.sock")

    def get(self, path):
        admin = Admin(self.socket)
        admin.request("GET", path)
        return admin.getresponse().read().decode()

    def metric(self, name):
        for line in self.get("/metrics").splitlines():
            if line.startswith(name + " "):
                return float(line.split()[-1])
        return 0.0

    def wait_until_received(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                # A frame is counted as received at the beginning of the burst, and by its result at the end of the
                # burst.
                if self.metric("tidegate_l4_received_packets_total") >= len(self.frames) and fates(self) >= len(self.frames):
                    return
            except OSError:
                pass  # not listening yet
            time.sleep(0.02)  # polls a process that has no other way to tell
        raise AssertionError("frames were not received, or not counted by what became of them:\n" + self.read_log())

    def read_log(self):
        self.log.seek(0)
        return self.log.read()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=30)
        assert status == 0, f"exit status {status}:\n{self.read_log()}"
        return read_pcap(self.tx)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()
        self.directory.cleanup()


def introductions():
    """What the backends say about themselves. Without it nothing can be forwarded."""
    out = []
    for number, mac in enumerate(BACKENDS.values(), start=1):
        out.append(arp(2, mac, f"10.10.0.1{number}", OURS, "10.10.0.2", OURS))
        out.append(advertisement(mac, f"fd10::1{number}"))
    return out


def forwarded(frames):
    """Sent frames that went to a backend and are not our own requests."""
    macs = set(BACKENDS.values())
    return [f for f in frames if f[:6] in macs and f[12:14] in (b"\x08\x00", b"\x86\xdd") and f[20:21] != b"\xff"]


def check_services_are_forwarded_and_pinned(program):
    traffic = []
    for port in range(2000, 2020):
        for flags in (0x02, 0x10, 0x18, 0x11):
            traffic.append(ip_frame(CLIENT4, VIP4, 6, tcp(port, 80, flags, b"x" * (port % 50))))
            traffic.append(ip_frame(CLIENT6, VIP6, 6, tcp(port, 80, flags)))
        traffic.append(ip_frame(CLIENT4, VIP4, 17, udp(port, 53)))
        traffic.append(ip_frame(CLIENT6, VIP6, 17, udp(port, 53)))
    with Forwarder(program, introductions() + traffic) as forwarder:
        forwarder.wait_until_received()
        said = {}
        for port in (2000, 2001, 2002):
            said[port] = json.loads(forwarder.get(
                f"/explain?client={CLIENT4}&client_port={port}&vip={VIP4}&port=80&protocol=tcp"))
        assert fates(forwarder) == len(forwarder.frames), "each frame is counted once"
        sent = forwarded(forwarder.stop())
    assert len(sent) == len(traffic), (len(sent), len(traffic))
    chosen = {}
    for before, after in zip(traffic, sent):
        assert after[12:] == before[12:], "only Ethernet addresses may change"
        assert after[6:12] == OURS
        is_v4 = before[12:14] == b"\x08\x00"
        flow = before[23:38] if is_v4 else before[20:21] + before[22:58]
        assert chosen.setdefault(flow, after[:6]) == after[:6], "a flow changed its backend"
        if is_v4 and before[23] == 6 and struct.unpack("!H", before[34:36])[0] in said:
            answer = said[struct.unpack("!H", before[34:36])[0]]
            assert answer["decision"] == "flow" and BACKENDS[answer["backend"]] == after[:6], answer
    assert len(set(chosen.values())) == 2, "both backends get flows"
    return chosen


def check_a_restart_picks_the_same_backends(program):
    assert check_services_are_forwarded_and_pinned(program) == check_services_are_forwarded_and_pinned(program)


def check_its_own_protocols(program):
    echo = ip_frame(CLIENT4, VIP4, 1, icmp4(8, 0, 0x00010002, b"ping"))
    echo6 = ethernet(0x86DD, icmp6(CLIENT6, VIP6, 128, b"\0\1\0\2ping"))
    who_has = arp(1, ROUTER, "10.10.0.1", b"\0" * 6, VIP4, BROADCAST)
    solicitation = ethernet(
        0x86DD, icmp6("fd10::1", "ff02::1:ff00:100", 135, b"\0" * 4 + packed(VIP6) + b"\x01\x01" + ROUTER, 255),
        bytes.fromhex("3333ff000100"))
    with Forwarder(program, [echo, echo6, who_has, solicitation]) as forwarder:
        forwarder.wait_until_received()
        sent = forwarder.stop()
    assert ethernet(0x0800, ip(VIP4, CLIENT4, 1, icmp4(0, 0, 0x00010002, b"ping"), ttl=64), ROUTER, OURS) in sent
    assert ethernet(0x86DD, icmp6(VIP6, CLIENT6, 129, b"\0\1\0\2ping", 64), ROUTER, OURS) in sent
    assert arp(2, OURS, VIP4, ROUTER, "10.10.0.1", ROUTER) in sent
    answer = icmp6(VIP6, "fd10::1", 136, b"\x60\0\0\0" + packed(VIP6) + b"\x02\x01" + OURS, 255)
    assert ethernet(0x86DD, answer, ROUTER, OURS) in sent
    assert arp(1, OURS, VIP4, b"\0" * 6, VIP4, BROADCAST) in sent, "a VIP is announced"
    for number in (1, 2):
        assert arp(1, OURS, "10.10.0.2", b"\0" * 6, f"10.10.0.1{number}", BROADCAST) in sent, "backends are asked for"


def check_icmp_errors_and_fragments_follow_their_flow(program):
    traffic = []
    for port in range(3000, 3010):
        quoted = ip(VIP4, CLIENT4, 6, tcp(80, port, 0x10, b"x" * 1400))[:28]
        traffic.append(ip_frame(CLIENT4, VIP4, 6, tcp(port, 80, 0x02)))
        traffic.append(ip_frame("198.51.100.1", VIP4, 1, icmp4(3, 4, 1280, quoted)))
        traffic.append(ip_frame(CLIENT4, VIP4, 17, udp(port, 53, b"y" * 64), fragment=0x2000, identity=port))
        traffic.append(ip_frame(CLIENT4, VIP4, 17, b"z" * 64, fragment=9, identity=port))
    with Forwarder(program, introductions() + traffic) as forwarder:
        forwarder.wait_until_received()
        sent = forwarded(forwarder.stop())
    assert len(sent) == len(traffic), (len(sent), len(traffic))
    for first in range(0, len(sent), 2):
        assert sent[first][:6] == sent[first + 1][:6]


def fates(forwarder):
    """How many frames were counted under some outcome."""
    names = ("forwarded", "icmp_relayed", "answered", "punted", "consumed", "dropped")
    total = 0
    for line in forwarder.get("/metrics").splitlines():
        if any(line.startswith(f"tidegate_l4_{name}_packets_total") for name in names):
            total += float(line.split()[-1])
    return total


def check_lists_bounds_and_resets_over_both_families(program):
    """What a denied client, a source that sends too much, and an unknown flow get."""
    keys = ", deny: [bad], reset_unknown: true, limits: {source_packets: 1, source_packets_burst: 5, source_prefix_v6: 48}"
    denied = [ip_frame("203.0.113.9", VIP4, 6, tcp(1, 80, 2)), ip_frame("2001:db8:bad::1", VIP6, 6, tcp(1, 80, 2))]
    honest = [ip_frame(client, VIP4 if "." in client else VIP6, 6, tcp(9, 80, 2)) for client in ("198.51.100.1", "2001:db8:2::1")]
    unknown = [ip_frame(client, VIP4 if "." in client else VIP6, 6, tcp(8, 80, 0x10)) for client in ("198.51.100.2", "2001:db8:3::1")]
    floods = []
    for client, vip in ((CLIENT4, VIP4), (CLIENT6, VIP6)):
        floods += [ip_frame(client, vip, 6, tcp(port, 80, 2)) for port in range(1000, 1020)]
    frames = denied + floods + honest + unknown
    with Forwarder(program, introductions() + frames, http=keys) as forwarder:
        forwarder.wait_until_received()
        dropped = {reason: forwarder.metric(f'tidegate_l4_dropped_packets_total{{reason="{reason}"}}') for reason in ("acl_denied", "source_packets")}
        assert forwarder.metric('tidegate_l4_acl_packets_total{acl="bad",decision="denied"}') == 2
        assert forwarder.metric('tidegate_l4_service_packets_total{service="http",vip="vip"}') == 12
        assert forwarder.metric('tidegate_l4_service_refused_packets_total{service="http",vip="vip"}') == 32
        assert forwarder.metric("tidegate_l4_resets_total") == 2
        bytes_of = forwarder.metric('tidegate_l4_dropped_bytes_total{reason="acl_denied"}')
        said = json.loads(forwarder.get(f"/explain?client=203.0.113.9&client_port=1&vip={VIP4}&port=80&protocol=tcp"))
        assert said["decision"] == "refused" and said["acl"] == "bad", said
        assert fates(forwarder) == len(forwarder.frames), "each frame is counted once"
        sent = forwarder.stop()
    assert dropped == {"acl_denied": 2, "source_packets": 30}, dropped
    assert bytes_of == sum(len(frame) for frame in denied)
    expected = floods[:5] + floods[20:25] + honest
    assert [frame[12:] for frame in forwarded(sent)] == [frame[12:] for frame in expected]
    for client, vip in (("198.51.100.2", VIP4), ("2001:db8:3::1", VIP6)):
        segment = struct.pack("!HHIIBBHHH", 80, 8, 2, 0, 0x50, 0x04, 0, 0, 0)
        pseudo = packed(vip) + packed(client) + (struct.pack("!BBH", 0, 6, 20) if "." in vip else struct.pack("!II", 20, 6))
        segment = segment[:16] + struct.pack("!H", checksum(pseudo + segment)) + segment[18:]
        answers = [frame for frame in sent if frame[:12] == ROUTER + OURS and frame.endswith(segment)]
        assert len(answers) == 1, f"one RST to {client}"


def check_a_priority_tag_is_taken_off(program):
    plain = ip_frame(CLIENT4, VIP4, 17, udp(4000, 53))
    question = arp(1, ROUTER, "10.10.0.1", b"\0" * 6, VIP4, BROADCAST)
    tagged = [frame[:12] + b"\x81\x00\xa0\x00" + frame[12:] for frame in (plain, question)]
    with Forwarder(program, introductions() + [plain] + tagged + [plain]) as forwarder:
        forwarder.wait_until_received()
        sent = forwarder.stop()
    assert [frame[12:] for frame in forwarded(sent)] == [plain[12:]] * 3, "as it would have come without the tag"
    assert len({frame[:12] for frame in forwarded(sent)}) == 1
    assert arp(2, OURS, VIP4, ROUTER, "10.10.0.1", ROUTER) in sent


def check_a_port_on_a_vlan_takes_and_sends_its_tags(program):
    plain = [ip_frame(CLIENT4, VIP4, 6, tcp(port, 80, 2)) for port in range(6000, 6010)] + [ip_frame(CLIENT6, VIP6, 17, udp(6000, 53))]
    question = arp(1, ROUTER, "10.10.0.1", b"\0" * 6, VIP4, BROADCAST)
    for config, tags in ((", vlan: 100", b"\x81\x00\x00\x64"), (", vlan: 100, outer_vlan: 7", b"\x88\xa8\x00\x07\x81\x00\x00\x64")):
        tagged = [frame[:12] + tags + frame[12:] for frame in introductions() + plain + [question]]
        for mode in ("l2dsr", "gue"):
            with Forwarder(program, tagged + plain, mode, config) as forwarder:
                forwarder.wait_until_received()
                assert forwarder.metric('tidegate_l4_dropped_packets_total{reason="other_vlan"}') == len(plain)
                assert fates(forwarder) == len(forwarder.frames), "each frame is counted once"
                sent = forwarder.stop()
            assert all(frame[12:].startswith(tags) for frame in sent), "every frame that leaves carries the tags"
            without = [frame[:12] + frame[12 + len(tags) :] for frame in sent]
            assert arp(2, OURS, VIP4, ROUTER, "10.10.0.1", ROUTER) in without
            carried = [f[12:] if mode == "l2dsr" else unpacked(f, mode)[3] for f in forwarded(without)]
            assert carried == [f[12:] if mode == "l2dsr" else f[14:] for f in plain], (config, mode)


def check_a_port_has_several_vlans(program):
    """The router is on the device's own VLAN, the backends are on two others, and a frame of a fourth one is nobody's."""
    own, near, far, other = b"", b"\x81\x00\x00\x07", b"\x88\xa8\x00\x07\x81\x00\x00\x64", b"\x81\x00\x00\x08"
    put = lambda tags, frame: frame[:12] + tags + frame[12:]
    plain = [ip_frame(CLIENT4, VIP4, 6, tcp(port, 80, 2)) for port in range(6000, 6010)]
    question = arp(1, ROUTER, "10.10.0.1", b"\0" * 6, VIP4, BROADCAST)
    for first, own in (("", b""), (", vlan: 9", b"\x81\x00\x00\x09")):
        ports = f', addresses: [10.10.1.2/24], gateways: [10.10.1.1]}}, {{device: near, shares: "RX", vlan: 7, addresses: [10.10.0.2/24, "fd10::2/64"]}}, {{device: far, shares: "RX", vlan: 100, outer_vlan: 7, addresses: [10.10.2.2/24]'
        frames = [put(near, frame) for frame in introductions()] + [put(own, frame) for frame in plain]
        frames += [put(near, question), put(far, question), put(other, question)]
        with Forwarder(program, frames, vlan=first, more_ports=ports) as forwarder:
            forwarder.wait_until_received()
            assert fates(forwarder) == len(frames), "each frame is counted once"
            assert forwarder.metric('tidegate_l4_dropped_packets_total{reason="vlan_tagged"}') + forwarder.metric('tidegate_l4_dropped_packets_total{reason="other_vlan"}') == 1
            sent = forwarder.stop()
        answers = [frame for frame in sent if frame[:6] == ROUTER]
        assert answers == [put(near, arp(2, OURS, VIP4, ROUTER, "10.10.0.1", ROUTER)), put(far, arp(2, OURS, VIP4, ROUTER, "10.10.0.1", ROUTER))], answers
        to_backends = [frame for frame in sent if frame[:6] in BACKENDS.values() and frame[12:].startswith(near + b"\x08\x00")]
        assert [frame[16:] for frame in to_backends] == [frame[12:] for frame in plain], "they leave by the VLAN of the backends"
        assert any(frame[12:].startswith(far + b"\x08\x06") for frame in sent), "the far VLAN is announced too"


def check_frames_of_a_large_mtu_are_forwarded_whole(program):
    payload = bytes(range(256)) * 34  # with its headers, shorter than 9,000 bytes even in a tunnel
    big = [ip_frame(CLIENT4, VIP4, 6, tcp(6000, 80, 0x10, payload)), ip_frame(CLIENT6, VIP6, 6, tcp(6000, 80, 0x10, payload))]
    small = [ip_frame(CLIENT4, VIP4, 17, udp(6000, 53))]
    longer = [ip_frame(CLIENT4, VIP4, 6, tcp(6001, 80, 0x10, b"x" * 8961))]  # one byte more than the link takes
    for config, mode, fitting, oversized in ((", mtu: 9000", "l2dsr", big + small, 0), (", mtu: 9000", "gue", big + small, 0), ("", "l2dsr", small, 3)):
        with Forwarder(program, introductions() + big + small + longer, mode, config) as forwarder:
            forwarder.wait_until_received()
            assert forwarder.metric('tidegate_l4_dropped_packets_total{reason="frame_oversized"}') == oversized
            assert forwarder.metric('tidegate_l4_dropped_packets_total{reason="exceeds_mtu"}') == (0 if oversized else 1)
            assert fates(forwarder) == len(forwarder.frames), "each frame is counted once"
            sent = forwarded(forwarder.stop())
        carried = [f[12:] if mode == "l2dsr" else unpacked(f, mode)[3] for f in sent]
        assert carried == [f[12:] if mode == "l2dsr" else f[14:] for f in fitting], (config, mode)


def check_bad_frames_are_counted_by_name(program):
    syn = ip_frame(CLIENT4, VIP4, 6, tcp(1, 80, 2))
    bad = {
        "frame_truncated": [b"\0" * 13],
        "vlan_tagged": [OURS + ROUTER + b"\x81\x00\0\1" + syn[12:]],
        "icmp_checksum": [ip_frame(CLIENT4, VIP4, 1, icmp4(8, 0, 1, b"ping")[:-1] + b"x")],
        "mld_malformed": [ethernet(0x86DD, icmp6(CLIENT6, "ff02::1", 130, b"\0" * 24, 255), bytes.fromhex("333300000001"))],
        "not_ip": [ethernet(0x88CC, b"\0" * 46)],
        "other_station": [b"\x02\x99\x99\x99\x99\x99" + syn[6:]],
        "ip4_header": [ethernet(0x0800, b"\x44" + syn[15:])],
        "ip4_length": [syn[:-1], syn[:40]],
        "tcp_malformed": [ip_frame(CLIENT4, VIP4, 6, b"\0" * 19)],
        "udp_malformed": [ip_frame(CLIENT4, VIP4, 17, b"\0" * 7)],
        "no_service": [ip_frame(CLIENT4, VIP4, 6, tcp(1, 81, 2))],
        "not_local": [ip_frame(CLIENT4, "10.10.0.77", 6, tcp(1, 80, 2))],
        "martian_source": [ip_frame("127.0.0.1", VIP4, 6, tcp(1, 80, 2))],
        "fragment_without_first": [ip_frame(CLIENT4, VIP4, 17, b"z" * 64, fragment=9, identity=1)],
        "neighbour_unresolved": [syn],
        "vip_conflict": [arp(2, ROUTER, VIP4, OURS, "10.10.0.2", OURS)],
    }
    frames = [frame for group in bad.values() for frame in group]
    with Forwarder(program, frames) as forwarder:
        forwarder.wait_until_received()
        counted = {reason: forwarder.metric(f'tidegate_l4_dropped_packets_total{{reason="{reason}"}}') for reason in bad}
        assert fates(forwarder) == len(frames), "each once"
        shown = json.loads(forwarder.get("/dropped"))
        sent = forwarder.stop()
    assert counted == {reason: len(group) for reason, group in bad.items()}, counted
    assert {(entry["reason"], entry["head"], entry["bytes"]) for entry in shown} == {
        (reason, frame[:96].hex(), len(frame)) for reason, group in bad.items() for frame in group
    }, "the operator sees the frames themselves"
    assert not forwarded(sent)


def unpacked(frame, mode):
    """Reads a tunnelled frame: outer source and destination, the UDP port it is for, and the packet inside."""
    is_v4 = frame[12:14] == b"\x08\x00"
    outer = frame[14:]
    if is_v4:
        assert checksum(outer[:20]) == 0 and struct.unpack("!H", outer[2:4])[0] == len(outer) and outer[6:8] == b"\x40\x00"
        protocol, ends, at = outer[9], (outer[12:16], outer[16:20]), 20
    else:
        assert struct.unpack("!H", outer[4:6])[0] == len(outer) - 40
        protocol, ends, at = outer[6], (outer[8:24], outer[24:40]), 40
    port = None
    if mode != "ipip":
        assert protocol == 17 and struct.unpack("!H", outer[at + 4 : at + 6])[0] == len(outer) - at
        port = struct.unpack("!H", outer[at + 2 : at + 4])[0]
        if mode == "gue":
            protocol, at = outer[at + 9], at + 12
        else:
            assert outer[at + 8 : at + 16] == b"\x08\0\0\0\0\0\x64\0"
            assert outer[at + 16 : at + 22] == bytes.fromhex("027467767862")
            protocol, at = {b"\x08\x00": 4, b"\x86\xdd": 41}[outer[at + 28 : at + 30]], at + 30
    inside = outer[at:]
    assert protocol == (4 if inside[0] >> 4 == 4 else 41)
    return ends[0], ends[1], port, inside


def check_tunnels_carry_packets_as_the_clients_sent_them(program):
    addresses = {packed(f"10.10.0.1{n}"): mac for n, mac in enumerate(BACKENDS.values(), 1)}
    addresses |= {packed(f"fd10::1{n}"): mac for n, mac in enumerate(BACKENDS.values(), 1)}
    for mode, port in (("ipip", None), ("gue", 6080), ("vxlan", 4789)):
        traffic = []
        for client in range(5000, 5020):
            traffic.append(ip_frame(CLIENT4, VIP4, 6, tcp(client, 80, 0x02)))
            traffic.append(ip_frame(CLIENT6, VIP6, 6, tcp(client, 80, 0x02)))
            traffic.append(ip_frame(CLIENT4, VIP4, 17, udp(client, 53, b"y" * 64), fragment=0x2000, identity=client))
            traffic.append(ip_frame(CLIENT4, VIP4, 17, b"z" * 64, fragment=9, identity=client))
            quoted = ip(VIP4, CLIENT4, 6, tcp(80, client, 0x10, b"x" * 1400))[:28]
            traffic.append(ip_frame("198.51.100.1", VIP4, 1, icmp4(3, 4, 1280, quoted)))
        with Forwarder(program, introductions() + traffic, mode + (", vni: 100" if mode == "vxlan" else "")) as forwarder:
            forwarder.wait_until_received()
            assert fates(forwarder) == len(forwarder.frames), "each frame is counted once"
            assert forwarder.metric(f'tidegate_l4_tunnelled_packets_total{{mode="{mode}"}}') == len(traffic)
            answer = json.loads(forwarder.get(f"/explain?client={CLIENT4}&client_port=5000&vip={VIP4}&port=80&protocol=tcp"))
            assert answer["forwarding"] == mode and answer["decision"] == "flow", answer
            sent = [f for f in forwarder.stop() if f[:6] in addresses.values() and f[12:14] in (b"\x08\x00", b"\x86\xdd") and f[20:21] != b"\x3a"]
        assert len(sent) == len(traffic), (mode, len(sent), len(traffic))
        for before, after in zip(traffic, sent):
            source, destination, to_port, inside = unpacked(after, mode)
            assert inside == before[14:], f"{mode}: the packet inside changed"
            assert addresses[destination] == after[:6] and after[6:12] == OURS and to_port == port
            assert source in (packed("10.10.0.2"), packed("fd10::2"))


def check_a_packet_that_does_not_fit_is_answered(program):
    big4, big6 = (ip_frame(CLIENT4, VIP4, 6, tcp(7, 80, 0x10, b"x" * 1460), fragment=0x4000), ip_frame(CLIENT6, VIP6, 6, tcp(7, 80, 0x10, b"x" * 1440)))
    stubborn = ip_frame(CLIENT4, VIP4, 6, tcp(8, 80, 0x10, b"x" * 1460))
    with Forwarder(program, introductions() + [big4, big6, stubborn], "gue") as forwarder:
        forwarder.wait_until_received()
        assert forwarder.metric("tidegate_l4_too_big_packets_total") == 2
        assert forwarder.metric('tidegate_l4_dropped_packets_total{reason="exceeds_mtu"}') == 1
        assert fates(forwarder) == len(forwarder.frames), "each frame is counted once"
        sent = forwarder.stop()
    error4 = icmp4(3, 4, 1468, big4[14 : 14 + 548])
    header4 = struct.pack("!BBHHHBBH", 0x45, 0xC0, 28 + 548, 0, 0, 64, 1, 0) + packed(VIP4) + packed(CLIENT4)
    header4 = header4[:10] + struct.pack("!H", checksum(header4)) + header4[12:]
    assert ROUTER + OURS + b"\x08\x00" + header4 + error4 in sent
    error6 = icmp6(VIP6, CLIENT6, 2, struct.pack("!I", 1448) + big6[14 : 14 + 1232], 64)
    assert ROUTER + OURS + b"\x86\xdd" + error6 in sent


def main():
    checks = [fn for name, fn in sorted(globals().items()) if name.startswith("check_") and callable(fn)]
    for check in checks:
        check(sys.argv[1])
        print("ok", check.__name__[len("check_"):].replace("_", " "), flush=True)


if __name__ == "__main__":
    main()
