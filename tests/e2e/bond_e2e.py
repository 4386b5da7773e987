# SPDX-License-Identifier: Apache-2.0
"""Ports of the forwarder that bond several interfaces. The kernel here has no bonding, so the other end of a bond is a
second forwarder's."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import segment
from marks import long
from netns import in_namespace, ip, sh, sysctl, wait_until
from segment import VIP4, Tap, raised

DRIVERS = ("af_packet", "af_xdp")


def document(ports, backend):
    return f"""
nodes:
  - name: l4
    l4: {{flows: 4096, memory: 256MB, ports: [{ports}]}}
vips: [{{name: vip, addresses: [{VIP4}]}}]
services: [{{name: who, vip: vip, port: 7000, protocol: udp, pool: web}}]
pools: [{{name: web, backends: [{{name: web1, addresses: [{backend}]}}]}}]
"""


def members(link, forwarder):
    """By device, what /status tells about each member of the only bond."""
    ports = link.ask(forwarder, "/status").json()["ports"]
    return {member["device"]: member for port in ports for member in port.get("members", [])}


def used(link, forwarder):
    return {device for device, member in members(link, forwarder).items() if member["used"]}


@contextlib.contextmanager
def backup():
    """A client, a backend and a forwarder whose two interfaces are on one switch."""
    with raised("backup") as link:
        link.add_host("client", 7)
        link.add_host("l4")
        link.attach("l4", "eth1")
        link.add_backend("web1", 11, VIP4)
        with link.echoes("web1"):
            forwarder = link.start_forwarder(document("{device: bond0, members: [eth0, eth1], addresses: [10.66.0.2/24]}", "10.66.0.11"))
            link.wait_ready(forwarder)
            wait_until("traffic arrives", lambda: None not in link.answers(4, timeout=0.3), 20, forwarder)
            yield link, forwarder


def check_active_backup():
    with backup() as (link, forwarder), link.flow() as flow:
        assert used(link, forwarder) == {"eth0"}
        assert link.metric(forwarder, "tidegate_l4_port_member_up") == 2
        for lost, other in (("eth0", "eth1"), ("eth1", "eth0")):
            ip(link.switch, f"link set {link.port('l4', lost)} down")
            wait_until("the flow goes on by the other", lambda: segment.answer_to(flow) == "web1", 10, forwarder)
            wait_until("it is said", lambda: used(link, forwarder) == {other}, 10, forwarder)
            health = link.ask(forwarder, "/healthz")
            assert health.status == 200 and f"bond0: {lost}: no link" in health.body.decode(), health.body
            assert link.metric(forwarder, "tidegate_l4_port_up") == 1
            assert link.metric(forwarder, "tidegate_l4_port_member_up", member=lost) == 0
            ip(link.switch, f"link set {link.port('l4', lost)} up")
            wait_until("it is up again", lambda: link.metric(forwarder, "tidegate_l4_port_member_up") == 2, 10, forwarder)
            assert segment.answer_to(flow) == "web1"
        for lost in ("eth0", "eth1"):
            ip(link.switch, f"link set {link.port('l4', lost)} down")
        wait_until("that no member works is said", lambda: link.ask(forwarder, "/healthz").status == 503, 10, forwarder)
        ip(link.switch, f"link set {link.port('l4')} up")
        wait_until("it works again", lambda: segment.answer_to(flow) == "web1", 10, forwarder)


def test_a_bond_goes_on_by_its_other_member(_):
    check_active_backup()


@long
def test_a_member_that_is_gone_costs_no_flow_and_is_taken_in_again(_):
    with backup() as (link, forwarder), link.flow() as flow:
        for lost, other in (("eth0", "eth1"), ("eth1", "eth0")):
            ip(link.switch, f"link del {link.port('l4', lost)}")
            wait_until("the flow goes on by the other", lambda: segment.answer_to(flow) == "web1", 10, forwarder)
            wait_until("it is said", lambda: "gone" in members(link, forwarder)[lost]["problem"], 10, forwarder)
            assert used(link, forwarder) == {other} and link.ask(forwarder, "/healthz").status == 200
            link.attach("l4", lost)
            wait_until("it is a member again", lambda: link.metric(forwarder, "tidegate_l4_port_member_up") == 2, 15, forwarder)
            wait_until("the flow goes on", lambda: segment.answer_to(flow) == "web1", 10, forwarder)


@long
def test_a_bond_starts_with_the_members_that_there_are(_):
    with backup() as (link, first):
        assert first.stop() == 0
        ip(link.switch, f"link del {link.port('l4')}")
        forwarder = link.start_forwarder((link.home / "l4/edge.yaml").read_text(), name="again")
        link.wait_ready(forwarder)
        wait_until("traffic arrives", lambda: None not in link.answers(4, timeout=0.3), 20, forwarder)
        assert used(link, forwarder) == {"eth1"} and "eth0: the interface is gone" in link.ask(forwarder, "/healthz").body.decode()


@contextlib.contextmanager
def chain(mode, driver, tag=None):
    """client - near - two links - far - web1, which answers the client directly. Both forwarders bond the links, and
    send every frame over the bond with a VLAN's tag if one is given."""
    with raised("bond") as link:
        link.add_host("client", 7)
        near, far = link.add_host("l4near"), link.namespace("l4far")
        web1 = link.add_backend("web1", 11, VIP4)
        link.namespaces.append(far)
        segment.netns.add_namespaces(far)
        for name, left, right in (("bond-a", near, far), ("bond-b", near, far), ("eth1", far, web1)):
            ip(None, f"link add {name} netns {left} type veth peer name {name} netns {right}")
            for namespace in (left, right):
                sysctl(namespace, f"net/ipv6/conf/{name}/disable_ipv6=1")
                ip(namespace, f"link set {name} up")
                if tag:  # otherwise the other end of a veth gets the tag beside the frame, where XDP does not see it
                    sh(*in_namespace(namespace, "ethtool", "-K", name, "txvlan", "off", "tx-vlan-stag-hw-insert", "off"))
        ip(web1, "addr add 10.68.0.11/24 dev eth1")
        bond = f"{{device: bond0, driver: {driver}, bond: {mode}, members: [bond-a, bond-b], vlan: {tag or 0}, addresses: [10.67.0.%d/24]}}"
        documents = {
            "l4near": document(bond % 2 + ", {device: eth0, addresses: [10.66.0.2/24]}", "10.67.0.3"),
            "l4far": document(bond % 3 + ", {device: eth1, addresses: [10.68.0.2/24]}", "10.68.0.11"),
        }
        with link.echoes("web1"):
            forwarders = [link.start_forwarder(text, host=host, name=host) for host, text in documents.items()]
            for forwarder in forwarders:
                link.wait_ready(forwarder)
            yield link, *forwarders


def check_both_members_carry(mode, driver):
    with chain(mode, driver) as (link, near, far):
        both = {"bond-a", "bond-b"}
        wait_until("both members are used", lambda: used(link, near) == used(link, far) == both, 30, near)
        wait_until("traffic arrives", lambda: link.answers(8, timeout=0.3) == ["web1"] * 8, 20, near)
        carried = lambda member: link.metric(near, "tidegate_l4_port_member_sent_packets_total", member=member)
        before = {member: carried(member) for member in both}
        assert link.answers(40) == ["web1"] * 40
        wait_until("each member carries flows", lambda: all(carried(member) - before[member] >= 8 for member in both), 5, near)
        if mode == "lacp":
            partners = {member["partner"] for member in members(link, near).values()}
            assert partners == {link.ask(far, "/status").json()["ports"][0]["mac"]}, partners
        ip(link.namespace("l4far"), "link set bond-a down")
        wait_until("the bond goes on without it", lambda: used(link, near) == used(link, far) == {"bond-b"}, 30, near)
        assert link.answers(20) == ["web1"] * 20
        assert "bond0: bond-a: no link" in link.ask(near, "/healthz").body.decode()
        ip(link.namespace("l4far"), "link set bond-a up")
        wait_until("it is used again", lambda: used(link, near) == used(link, far) == both, 30, near)
        assert link.answers(40) == ["web1"] * 40


@long
def test_a_balanced_bond_spreads_flows_over_its_members(_):
    check_both_members_carry("balance", "af_packet")


@long
def test_a_bond_agrees_with_its_partner_by_lacp(_):
    for driver in DRIVERS:
        check_both_members_carry("lacp", driver)


def vlans_on(namespace, device, count):
    """The VLANs of the next IPv4 packets that arrive at a device; None: a packet without a tag."""
    vlans = []
    with contextlib.closing(Tap(namespace, device, 10)) as tap:
        while len(vlans) < count:
            frame = tap.hear() or b""
            if frame[12:14] == b"\x08\x00":
                vlans.append(None)
            elif frame[12:14] == b"\x81\x00" and frame[16:18] == b"\x08\x00":
                vlans.append(int.from_bytes(frame[14:16], "big") & 0xFFF)
    return vlans


@long
def test_a_vlan_over_a_bond_is_tagged_on_each_member(_):
    for mode, driver in (("balance", "af_packet"), ("lacp", "af_packet"), ("lacp", "af_xdp")):
        with chain(mode, driver, tag=7) as (link, near, far):
            both = {"bond-a", "bond-b"}
            wait_until("both members are used", lambda: used(link, near) == used(link, far) == both, 30, near)
            wait_until("traffic arrives", lambda: link.answers(8, timeout=0.3) == ["web1"] * 8, 20, near)
            for member in both if driver == "af_packet" else ():  # AF_XDP takes frames before a packet socket hears them
                with ThreadPoolExecutor(1) as pool:
                    seen = pool.submit(vlans_on, link.namespace("l4far"), member, 8)
                    while not seen.done():
                        assert link.answers(20) == ["web1"] * 20
                    assert seen.result() == [7] * 8, (mode, driver, member, seen.result())
            assert not link.metric(far, "tidegate_l4_dropped_packets_total", reason="vlan_tagged")


@long
def test_a_bond_without_a_partner_is_left_out_and_taken_in_when_one_answers(_):
    with chain("lacp", "af_packet") as (link, near, far):
        wait_until("both agree", lambda: len(used(link, near)) == 2, 30, near)
        text = (link.home / "l4far/edge.yaml").read_text()
        assert far.stop() == 0
        # LACP's short time-out is three seconds, its long one 90.
        wait_until("the partner is missed", lambda: "LACP" in link.ask(near, "/healthz").body.decode(), 100, near)
        again = link.start_forwarder(text, host="l4far", name="again")
        link.wait_ready(again)
        wait_until("both agree again", lambda: len(used(link, near)) == len(used(link, again)) == 2, 30, near)
        wait_until("traffic arrives", lambda: link.answers(8, timeout=0.3) == ["web1"] * 8, 20, near)
