"""The forwarder on a real segment: a switch that snoops, links that go and come, stations that say wrong things."""

import contextlib
import socket
import struct

import segment
from netns import ip, sh, wait_until
from segment import VIP4, VIP6, raised, raw_socket


def document(ports='[{device: eth0, addresses: [10.66.0.2/24, "fd66::2/64"]}]', pools="", backends=2, more=""):
    listed = "\n".join(f'      - {{name: web{i}, addresses: [10.66.0.1{i}, "fd66::1{i}"]}}' for i in range(1, backends + 1))
    return f"""
nodes:
  - name: l4
    l4: {{ports: {ports}, flows: 4096{more}}}
vips: [{{name: vip, addresses: [{VIP4}, "{VIP6}"]}}]
services:
  - {{name: dns, vip: vip, port: 7000, protocol: udp, pool: web}}
  - {{name: http, vip: vip, port: 80, protocol: tcp, pool: web}}
pools:
  - name: web
    backends:
{listed}
{pools}"""


# A querier that asks often, and a switch that forgets who was not heard within two of its questions.
SNOOPING = (
    "mcast_snooping 1 mcast_querier 1 mcast_query_interval 50 mcast_query_response_interval 20 mcast_startup_query_interval 50 "
    "mcast_membership_interval 150 mcast_mld_version 2"
)


def hears(witness, target, seconds=0.3):
    """Whether a frame that names `target` comes by within a while."""
    with contextlib.suppress(socket.timeout):
        while True:
            if target in witness.recv(2048):
                return True
    return False


def solicitation(mac, source, destination, target, options=b""):
    """A neighbour solicitation."""
    source, destination, target = (socket.inet_pton(socket.AF_INET6, a) for a in (source, destination, target))
    body = struct.pack("!BBHI", 135, 0, 0, 0) + target + options
    total = segment.checksum(source + destination + struct.pack("!II", len(body), 58) + body)
    body = body[:2] + struct.pack("!H", total) + body[4:]
    header = struct.pack("!IHBB", 0x60000000, len(body), 58, 255) + source + destination
    return b"\x33\x33" + destination[12:] + mac + b"\x86\xdd" + header + body


def test_an_ipv6_vip_is_found_behind_a_switch_that_snoops(lab):
    with raised("mld", SNOOPING) as link:
        client, witness = link.add_host("client", 7), link.add_host("witness", 8)
        link.add_host("l4")
        forwarder = link.start_forwarder(document())
        link.wait_ready(forwarder)
        mac, vip = segment.mac_of(client), socket.inet_pton(socket.AF_INET6, VIP6)
        group = socket.inet_pton(socket.AF_INET6, "ff02::1:ff00:100")
        with raw_socket(client) as asking, raw_socket(witness) as others:

            def is_snooping():
                asking.send(solicitation(mac, "fd66::7", "ff02::1:ff00:100", VIP6, b"\1\1" + mac))
                return not hears(others, group + b"\x87\0")

            # A Linux bridge begins ten seconds after its first query. By then it has forgotten who did not answer several.
            wait_until("the switch keeps solicitations from those who did not ask for them", is_snooping, 40)
        assert link.pings("client", VIP6), "the VIP is found"
        assert link.pings("client", "fd66::2"), "and the forwarder's own address"
        groups = sh("bridge", "-n", link.switch, "mdb", "show")
        assert "ff02::1:ff00:100" in groups and "l4-eth0" in groups, groups
        assert link.metric(forwarder, "tidegate_l4_mld_reports_total") > 4


def test_who_asks_the_forwarder_alone_without_its_mac_is_answered_alone(lab):
    with raised("nud") as link:
        client = link.add_host("client", 7)
        link.add_host("l4")
        link.wait_ready(link.start_forwarder(document()))
        assert link.pings("client", VIP6)
        mac, router = segment.mac_of(client), segment.mac_of(link.namespace("l4"))
        source, vip = (socket.inet_pton(socket.AF_INET6, a) for a in ("fd66::7", VIP6))
        with raw_socket(client) as raw:
            raw.send(router + solicitation(mac, "fd66::7", VIP6, VIP6)[6:])
            while True:
                answer = raw.recv(2048)
                if answer[12:14] == b"\x86\xdd" and answer[54:55] == b"\x88" and answer[62:78] == vip:
                    break
        assert answer[:6] == mac and answer[38:54] == source, "to who asked, and to nobody else"
        assert answer[58] & 0x40, "solicited"
