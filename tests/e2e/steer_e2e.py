# SPDX-License-Identifier: Apache-2.0
"""Steering policies in the real daemons: maps, steers within steers, aliases that NSD serves, overrides of one target."""

import box
import netns
from lab import LabError

NSD_PORT = 5353
ELSEWHERE = """\
$TTL 1
@ IN SOA ns a 1 3600 600 604800 1
@ IN NS ns
ns IN A 192.0.2.1
cdn IN CNAME edge
edge IN A {address}
"""


def short(lab, server, *words):
    return sorted(lab.run("client-eu", "dig", "+tries=1", "+time=3", "+short", f"@{server}", *words).stdout.split())


def write_elsewhere(machine, address):
    machine.write("elsewhere.test.zone", ELSEWHERE.format(address=address))


def start_nsd(machine):
    """The name server of somebody else, which the aliases are looked up at."""
    address, home = machine.host.v4, machine.home
    write_elsewhere(machine, "198.51.100.7")
    machine.write(
        "nsd.conf",
        f'server:\n  ip-address: {address}@{NSD_PORT}\n  username: ""\n  zonesdir: "{home}"\n  database: ""\n  pidfile: "{home}/nsd.pid"\n'
        f'  xfrdfile: "{home}/xfrd"\n  zonelistfile: "{home}/zones"\n  xfrdir: "{home}"\n  rrl-ratelimit: 0\n'
        'remote-control:\n  control-enable: no\nzone:\n  name: elsewhere.test\n  zonefile: elsewhere.test.zone\n',
    )  # fmt: skip
    return machine.start("nsd", "nsd", "-d", "-c", machine.home / "nsd.conf")


def test_maps_nested_steers_and_aliases_are_answered_by_the_daemon(lab):
    with box.raised("steers", 65) as machine:
        address = machine.host.v4
        start_nsd(machine)
        machine.write("example.test.zone", "$TTL 300\n@ IN SOA ns1 h 1 2 3 4 5\n@ NS ns1\nns1 A 192.0.2.53\n")
        document = machine.write(
            "edge.yaml",
            f'nodes: [{{name: steers, dns: {{listen: ["{address}:53"], resolvers: ["{address}:{NSD_PORT}"]}}}}]\n'
            "zones: [{name: example.test, file: example.test.zone}]\n"
            "vips: [{name: a, addresses: [192.0.2.1]}, {name: b, addresses: [192.0.2.2]}]\n"
            "steers:\n"
            "  - {name: example.test, policy: failover, targets: [{alias: cdn.elsewhere.test}]}\n"
            "  - {name: inner.example.test, policy: failover, targets: [{vip: a}]}\n"
            "  - name: '*.map.example.test'\n"
            "    policy: map\n"
            "    targets: [{steer: inner.example.test, networks: [10.7.0.0/16]}, {vip: b}]\n",
        )  # fmt: skip
        ours = machine.start_plane("dns", document)
        machine.wait_ready("dns", ours)
        netns.wait_until("the alias is looked up", lambda: short(lab, address, "example.test", "A") == ["198.51.100.7"], 20, ours)
        assert short(lab, address, "+tcp", "example.test", "AAAA") == [], "the name has none"
        assert short(lab, address, "+subnet=10.7.1.0/24", "x.map.example.test", "A") == ["192.0.2.1"]
        assert short(lab, address, "+subnet=10.8.1.0/24", "y.map.example.test", "A") == ["192.0.2.2"]
        told = machine.ask("dns", "/explain?client=10.7.1.1&name=x.map.example.test").json()
        assert told["policy"] == "map" and told["answers"] == ["192.0.2.1"], told
        metrics = machine.ask("dns", "/metrics").body.decode()
        assert 'tidegate_dns_alias_lookups_total{result="found"}' in metrics, metrics


def test_an_override_takes_a_vip_or_one_target_out_of_the_answers(lab):
    names = ("www.example.test", "alias.example.test")
    before = [short(lab, "10.10.0.53", name, "A") for name in names]
    assert before[0], before
    lab.tidegate("drain", "vip", "vip-eu", "--wait")
    try:
        drained = short(lab, "10.10.0.53", "www.example.test", "A")
        assert drained and drained != before[0], drained
    finally:
        lab.tidegate("undrain", "vip", "vip-eu", "--wait")
    lab.tidegate("drain", "target", "www.example.test/vip:vip-eu", "--wait")
    try:
        assert short(lab, "10.10.0.53", "www.example.test", "A") == drained
    finally:
        lab.tidegate("undrain", "target", "www.example.test/vip:vip-eu", "--wait")
    assert short(lab, "10.10.0.53", "www.example.test", "A") == before[0]
    for words, hint in ((("vip", "vip-ue"), "did you mean 'vip-eu'?"), (("target", "www.example.test/vip:no"), "its targets are"),
                        (("target", "www.example.test"), "STEER/TYPE:NAME")):  # fmt: skip
        try:
            lab.tidegate("drain", *words)
        except LabError as refused:
            assert hint in str(refused), refused
        else:
            raise AssertionError(f"{words} was taken")
