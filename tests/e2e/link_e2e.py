# SPDX-License-Identifier: Apache-2.0
"""The forwarder on a real segment: a switch with MLD snooping, links that go down and come up, stations that send
false messages."""

import contextlib
import os
import signal
import socket
import struct
import threading
import time

import segment
from marks import long
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


def driven_by(driver):
    return document(ports=f'[{{device: eth0, driver: {driver}, addresses: [10.66.0.2/24, "fd66::2/64"]}}]')


# A querier that asks often, and a switch that forgets members that have not reported within two of its queries.
SNOOPING = (
    "mcast_snooping 1 mcast_querier 1 mcast_query_interval 50 mcast_query_response_interval 20 mcast_startup_query_interval 50 "
    "mcast_membership_interval 150 mcast_mld_version 2"
)


def hears(witness, target, seconds=0.3):
    """True if a frame that names `target` arrives within a while."""
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
        mac = segment.mac_of(client)
        group = socket.inet_pton(socket.AF_INET6, "ff02::1:ff00:100")
        with raw_socket(client) as asking, raw_socket(witness) as others:

            def is_snooping():
                asking.send(solicitation(mac, "fd66::7", "ff02::1:ff00:100", VIP6, b"\1\1" + mac))
                return not hears(others, group + b"\x87\0")

            # A Linux bridge starts to snoop ten seconds after its first query. By then it has forgotten stations that
            # did not answer several queries.
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


@contextlib.contextmanager
def edge(name, text=None, hosts=("web1", "web2"), mtu=1500):
    """A client, a forwarder and its backends. Traffic is known to arrive."""
    with raised(name, mtu=mtu) as link:
        link.add_host("client", 7)
        link.add_host("l4")
        for number, host in enumerate(hosts, 11):
            link.add_backend(host, number, VIP4, VIP6)
        with link.echoes(*hosts), link.echoes(*hosts, vip=VIP6):
            forwarder = link.start_forwarder(text or document())
            link.wait_ready(forwarder)
            wait_until("traffic arrives", lambda: None not in link.answers(4, timeout=0.3) + link.answers(4, VIP6, timeout=0.3), 20, forwarder)
            yield link, forwarder


def works_again(link, forwarder, healthy=True):
    wait_until("the port is used again", lambda: link.metric(forwarder, "tidegate_l4_port_up") == 1, 15, forwarder)
    for vip in (VIP4, VIP6):
        wait_until("flows arrive again", lambda: None not in link.answers(4, vip, timeout=0.3), 15, forwarder)
    assert link.ask(forwarder, "/healthz").status == 200


def test_an_xdp_program_that_somebody_took_off_is_put_on_again(lab):
    with edge("xdpoff") as (link, forwarder):
        assert link.ask(forwarder, "/status").json()["ports"][0]["driver"] == "af_xdp"
        open_files = lambda: len(os.listdir(f"/proc/{sh('ip', 'netns', 'pids', link.namespace('l4')).split()[0]}/fd"))
        held = open_files()
        for times in (1, 2, 3):
            sh("ip", "-n", link.namespace("l4"), "link", "set", "eth0", "xdp", "off")
            wait_until("it is opened again", lambda: link.metric(forwarder, "tidegate_l4_port_reopened_total") == times, 15, forwarder)
            works_again(link, forwarder)
        # The connections over which this test asked may be open for a moment more.
        wait_until("each device was closed whole", lambda: open_files() <= held, 5, forwarder)


def test_a_second_forwarder_on_the_interface_does_not_silence_the_first(lab):
    with edge("second") as (link, forwarder):
        other = link.start_forwarder(document(ports='[{device: eth0, driver: af_xdp, addresses: [10.66.0.3/24]}]'), name="other")
        wait_until("the second gives up", lambda: not other.running(), 30)
        works_again(link, forwarder)


def test_a_link_that_is_down_is_said_and_left_and_taken_up_again(lab):
    for driver in ("af_xdp", "af_packet"):
        with edge("down", driven_by(driver)) as (link, forwarder):
            for namespace, port in ((link.switch, link.port("l4")), (link.namespace("l4"), "eth0")):
                ip(namespace, f"link set {port} down")
                wait_until("it is said", lambda: link.ask(forwarder, "/healthz").status == 503, 10, forwarder)
                assert "eth0: no link" in link.ask(forwarder, "/healthz").body.decode()
                assert link.metric(forwarder, "tidegate_l4_port_link") == 0
                ip(namespace, f"link set {port} up")
                works_again(link, forwarder)


def test_an_interface_that_was_deleted_and_made_again_is_opened_again(lab):
    for driver in ("af_xdp", "af_packet"):
        with edge("remade", driven_by(driver)) as (link, forwarder):
            for _ in range(2):
                ip(link.switch, f"link del {link.port('l4')}")
                wait_until("it is said", lambda: "gone" in link.ask(forwarder, "/healthz").body.decode(), 10, forwarder)
                assert link.ask(forwarder, "/healthz").status == 503
                link.attach("l4")
                works_again(link, forwarder)
                told = link.ask(forwarder, "/status").json()["ports"][0]["mac"]
                assert bytes.fromhex(told.replace(":", "")) == segment.mac_of(link.namespace("l4")), "with its new MAC address"


TWO_PORTS = '[{device: eth0, addresses: [10.66.0.2/24, "fd66::2/64"]}, {device: eth1, addresses: [10.67.0.2/24]}]'


def test_of_two_ports_the_one_that_is_down_costs_no_flow(lab):
    with raised("two") as link:
        link.add_host("client", 7)
        link.add_host("l4")
        link.attach("l4", "eth1")
        link.add_backend("web1", 11, VIP4)
        ip(link.add_backend("web2", 12, VIP4), "addr add 10.67.0.12/24 dev eth0")
        with link.echoes("web1", "web2"):
            forwarder = link.start_forwarder(document(ports=TWO_PORTS).replace('10.66.0.12, "fd66::12"', "10.67.0.12"))
            link.wait_ready(forwarder)
            both = lambda: set(link.answers(16, timeout=0.3)) == {"web1", "web2"}
            wait_until("both backends are used", both, 20, forwarder)
            with contextlib.ExitStack() as kept:
                flows = [kept.enter_context(link.flow()) for _ in range(24)]
                assert {segment.answer_to(flow) for flow in flows} == {"web1", "web2"}
                ip(link.switch, f"link set {link.port('l4', 'eth1')} down")
                wait_until("it is said", lambda: link.metric(forwarder, "tidegate_l4_port_up") == 1, 10, forwarder)
                health = link.ask(forwarder, "/healthz")
                assert health.status == 200 and "eth1: no link" in health.body.decode()
                # Asked again if a datagram was lost: a flow that leads into the dead port never answers.
                served_by = lambda flow: next(filter(None, (segment.answer_to(flow) for _ in range(10))), None)
                assert [served_by(flow) for flow in flows] == ["web1"] * 24, "flows go on at the other one"
                assert link.answers(24) == ["web1"] * 24, "and new ones go there"
                told = link.ask(forwarder, "/explain?client=10.66.0.7&client_port=9&vip=vip&port=7000&protocol=udp").json()
                assert [b["why"] != "" for b in told["eligible"]] == [False, True], told
            ip(link.switch, f"link set {link.port('l4', 'eth1')} up")
            wait_until("both backends are used again", both, 20, forwarder)


def test_a_backend_whose_mac_stays_unknown_gets_no_new_flows_until_it_answers(lab):
    with edge("silent", document(backends=3)) as (link, forwarder):
        wait_until("it is found", lambda: link.metric(forwarder, "tidegate_l4_neighbours_silent") == 2, 15, forwarder)
        wait_until("it is left out", lambda: set(link.answers(40)) == {"web1", "web2"}, 15, forwarder)
        link.add_backend("web3", 13, VIP4, VIP6)
        with link.echoes("web3"):
            wait_until("it gets its share", lambda: "web3" in link.answers(16, timeout=0.3), 15, forwarder)
        assert link.metric(forwarder, "tidegate_l4_neighbours_silent") == 0


DRIVERS = ("af_xdp", "af_packet")


def test_datagrams_in_fragments_and_in_large_frames_reach_their_backend_on_every_driver(lab):
    for driver in DRIVERS:
        for mtu in (1500, 3000):
            with edge("frames", driven_by(driver), mtu=mtu) as (link, forwarder):
                for vip in (VIP4, VIP6):
                    for size in (1400, 2900, 8000):
                        with link.flow(vip=vip) as flow:
                            assert segment.answer_to(flow, b"x" * size) in ("web1", "web2"), f"{size} bytes to {vip} by {driver}, MTU {mtu}"


def fates(link, forwarder):
    return sum(
        link.metric(forwarder, f"tidegate_l4_{name}_packets_total") for name in ("forwarded", "icmp_relayed", "answered", "punted", "consumed", "dropped")
    )


def test_every_frame_that_came_is_counted_once_and_by_what_became_of_it(lab):
    for driver in DRIVERS:
        with edge("fates", driven_by(driver)) as (link, forwarder):
            client, router = link.namespace("client"), segment.mac_of(link.namespace("l4"))
            for vip in (VIP4, VIP6):
                with link.flow(vip=vip) as flow, link.flow(vip=vip, port=9) as nobody:
                    for size in (10, 3000):
                        assert segment.answer_to(flow, b"x" * size)
                    for _ in range(20):
                        nobody.send(b"no such service")
                assert link.pings("client", vip)
            with raw_socket(client) as raw:
                for ether_type in (b"\x88\xcc", b"\x81\x00"):
                    raw.send(router + segment.mac_of(client) + ether_type + b"\0\7" + bytes(50))
            dropped = lambda reason: link.metric(forwarder, "tidegate_l4_dropped_packets_total", reason=reason)
            wait_until("the last is counted", lambda: dropped("not_ip") >= 1 and dropped("no_service") == 40, 10, forwarder)

            def adds_up():
                before = link.metric(forwarder, "tidegate_l4_received_packets_total")
                became, by_device = fates(link, forwarder), link.metric(forwarder, "tidegate_l4_port_received_packets_total")
                # Stations send at any time, so the comparison counts only if nothing arrived between the readings.
                return before == link.metric(forwarder, "tidegate_l4_received_packets_total") and before == became == by_device

            wait_until(f"the counters of {driver} add up", adds_up, 10, forwarder)
            sent = lambda: link.metric(forwarder, "tidegate_l4_sent_packets_total")
            wait_until("and what went out too", lambda: sent() == link.metric(forwarder, "tidegate_l4_port_sent_packets_total"), 10, forwarder)


class Asker(threading.Thread):
    """Asks over flows that began before, one after the other. Each must be answered, and by its backend."""

    def __init__(self, flows):
        super().__init__(daemon=True)
        self.flows = [(flow, segment.answer_to(flow)) for flow in flows]
        self.asked, self.wrong, self.stop = 0, [], False

    def run(self):
        while not self.stop:
            for flow, backend in self.flows:
                self.asked += 1
                if (answer := segment.answer_to(flow)) != backend:
                    self.wrong.append((backend, answer))


def check_changes(seconds):
    """The pool changes as often as the forwarder can read the document: weights, and a third backend that comes and goes."""
    text = lambda changes: document(backends=2 + changes % 2, more=", maglev_slots: 251").replace("name: web1,", f"name: web1, weight: {60 + 20 * (changes % 5)},")
    with edge("changes", text(0)) as (link, forwarder), contextlib.ExitStack() as kept:
        path = forwarder.run_dir / "edge.yaml"
        digest = lambda: link.ask(forwarder, "/status").json()["digest"]
        wait_until("both backends answer", lambda: set(link.answers(16, timeout=0.3)) == {"web1", "web2"}, 20, forwarder)
        asker = Asker([kept.enter_context(link.flow()) for _ in range(32)])
        assert {backend for _, backend in asker.flows} == {"web1", "web2"}, asker.flows
        asker.start()
        began, changes, before = time.monotonic(), 0, digest()
        while time.monotonic() < began + seconds:
            changes += 1
            path.write_text(text(changes))
            forwarder.popen.send_signal(signal.SIGHUP)
            wait_until("it is in force", lambda: digest() != before, 10, forwarder)
            before = digest()
        asker.stop = True
        asker.join()
        assert asker.wrong == [] and asker.asked > changes > 2 * seconds, (asker.wrong, asker.asked, changes)

        def adds_up():
            received = link.metric(forwarder, "tidegate_l4_received_packets_total")
            return received == fates(link, forwarder) == link.metric(forwarder, "tidegate_l4_received_packets_total")

        wait_until("the counters add up", adds_up, 10, forwarder)


def test_changes_as_fast_as_they_are_read_cost_no_packet_of_an_established_flow(_):
    check_changes(1)


@long
def test_changes_for_a_minute_cost_no_packet_of_an_established_flow(_):
    check_changes(60)


def test_a_station_that_claims_a_vip_is_named_in_the_log(lab):
    with edge("conflict") as (link, forwarder):
        mac, vip = bytes.fromhex("020000000066"), socket.inet_pton(socket.AF_INET, VIP4)
        with raw_socket(link.namespace("client")) as raw:
            for _ in range(3):
                body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + mac + vip + mac + vip
                raw.send((b"\xff" * 6 + mac + b"\x08\x06" + body).ljust(60, b"\0"))
        said = lambda: [line for line in forwarder.log.read_text().splitlines() if "02:00:00:00:00:66" in line]
        wait_until("it is said", said, 10, forwarder)
        wait_until("all are counted", lambda: link.metric(forwarder, "tidegate_l4_dropped_packets_total", reason="vip_conflict") == 3, 10)
        assert len(said()) == 1 and VIP4 in said()[0], said()


# A bridge starts to snoop after ten seconds. Neighbours are given up after three. An interface takes time to come and
# go.
for test in (
    test_an_ipv6_vip_is_found_behind_a_switch_that_snoops,
    test_an_xdp_program_that_somebody_took_off_is_put_on_again,
    test_an_interface_that_was_deleted_and_made_again_is_opened_again,
    test_a_backend_whose_mac_stays_unknown_gets_no_new_flows_until_it_answers,
    test_datagrams_in_fragments_and_in_large_frames_reach_their_backend_on_every_driver,
):
    test.long = True
