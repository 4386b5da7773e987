# SPDX-License-Identifier: Apache-2.0
"""Several VLANs on one interface of a forwarder. The kernel here has no 8021q, so the stations are a raw socket that
writes and reads the tags itself."""

import contextlib
import socket
import struct
import time

from netns import in_namespace, sh, wait_until
from segment import VIP4, Tap, raised

CLIENT, BACKEND = bytes.fromhex("02000000c001"), bytes.fromhex("02000000b001")
OWN, NEAR, FAR = b"", b"\x81\x00\x00\x07", b"\x88\xa8\x00\x07\x81\x00\x00\x64"

DOCUMENT = f"""
nodes:
  - name: l4
    l4:
      flows: 4096
      ports:
        - {{device: eth0, driver: DRIVER, addresses: [10.66.0.2/24]}}
        - {{device: near, shares: eth0, vlan: 7, addresses: [10.67.0.2/24]}}
        - {{device: far, shares: eth0, vlan: 100, outer_vlan: 7, addresses: [10.68.0.2/24]}}
vips: [{{name: vip, addresses: [{VIP4}]}}]
services:
  - {{name: near, vip: vip, port: 7, protocol: udp, pool: near}}
  - {{name: far, vip: vip, port: 8, protocol: udp, pool: far}}
pools:
  - {{name: near, backends: [{{name: b, addresses: [10.67.0.11]}}]}}
  - {{name: far, backends: [{{name: b, addresses: [10.68.0.11]}}]}}
"""


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def datagram(to, port):
    """From the client to the VIP. A UDP checksum of 0 is none."""
    body = struct.pack("!HHHH", 4000, port, 12, 0) + b"tags"
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0, 64, 17, 0, socket.inet_aton("10.66.0.7"), socket.inet_aton(VIP4))
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return to + CLIENT + b"\x08\x00" + header + body


def arp(operation, source, source_ip, target, target_ip, to):
    return to + source + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + source + socket.inet_aton(source_ip) + target + socket.inet_aton(target_ip)


class Stations(Tap):
    """All stations of the link: what they send and hear, with tags."""

    def send(self, tags, frame):
        self.socket.send(frame[:12] + tags + frame[12:])

    def hear_until(self, what, wanted, within_s=20):
        """Answers questions for the backends' addresses, each in its own VLAN, until a frame comes that is wanted."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            with contextlib.suppress(TimeoutError):
                frame = self.hear()
                if frame is None:
                    continue
                if wanted(frame):
                    return frame
                for tags, address in ((NEAR, "10.67.0.11"), (FAR, "10.68.0.11")):
                    question = frame[12 + len(tags) :]
                    if frame[12:].startswith(tags + b"\x08\x06\0\1\x08\0\6\4\0\1") and question[26:30] == socket.inet_aton(address):
                        self.send(tags, arp(2, BACKEND, address, frame[6:12], socket.inet_ntoa(question[16:20]), frame[6:12]))
        raise AssertionError(f"{what} did not come")


def check_vlans(driver):
    with raised("vlan") as link:
        link.add_host("peer")
        link.add_host("l4")
        # A NIC that takes tags off hides them from XDP. For a veth its other end decides: it sends tags beside the frame.
        sh(*in_namespace(link.switch, "ethtool", "-K", link.port("l4"), "txvlan", "off", "tx-vlan-stag-hw-insert", "off"))
        with contextlib.closing(Stations(link.namespace("peer"), "eth0", 0.2)) as stations:
            forwarder = link.start_forwarder(DOCUMENT.replace("DRIVER", driver))
            link.wait_ready(forwarder)
            resolved = lambda: link.metric(forwarder, "tidegate_l4_neighbours_resolved") == 2
            stations.hear_until("a question for the far backend", lambda frame: frame[12:].startswith(FAR + b"\x08\x06"))
            for tags in (OWN, NEAR, FAR):
                stations.send(tags, arp(1, CLIENT, "10.66.0.7", b"\0" * 6, VIP4, b"\xff" * 6))
                answer = stations.hear_until("the answer for the VIP", lambda frame: frame[:6] == CLIENT)
                assert answer[12:].startswith(tags + b"\x08\x06"), (tags, answer)
            ours = answer[6:12]
            wait_until("the backends are known", lambda: resolved() or answer_questions(stations), 20, forwarder)
            for tags, port in ((NEAR, 7), (FAR, 8)):
                stations.send(OWN, datagram(ours, port))
                got = stations.hear_until("the datagram", lambda frame: frame[:6] == BACKEND and frame[-4:] == b"tags")
                assert got == BACKEND + ours + tags + datagram(ours, port)[12:], (tags, got)
            dropped = lambda: link.metric(forwarder, "tidegate_l4_dropped_packets_total", reason="vlan_tagged")
            before = dropped()
            stations.send(b"\x81\x00\x00\x08", datagram(ours, 7))
            wait_until("a frame of another VLAN is dropped", lambda: dropped() == before + 1, 20, forwarder)
            assert link.ask(forwarder, "/healthz").body == b"ok\n"


def answer_questions(stations):
    with contextlib.suppress(AssertionError):
        stations.hear_until("anything", lambda _: False, 0.3)
    return False


def test_an_interface_has_several_vlans_by_af_xdp(_):
    check_vlans("af_xdp")


def test_an_interface_has_several_vlans_by_af_packet(_):
    check_vlans("af_packet")
