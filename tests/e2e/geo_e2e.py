# SPDX-License-Identifier: Apache-2.0
"""Steering by a MaxMind database, read by libmaxminddb: the right site for a client's subnet, and a scope that says
how far the answer is valid."""

import os
import re

from dns_e2e import dig
from mmdb import database
from topology import VIP_EU, VIP_US

PARIS, CHICAGO = (48.86, 2.35), (41.88, -87.63)
PLACES = {
    "198.51.100.0/25": CHICAGO,
    "198.51.100.128/25": PARIS,
    "203.0.112.0/20": CHICAGO,
    "2001:db8:100::/48": CHICAGO,
    "2001:db8:101::/48": PARIS,
    "10.2.0.0/16": PARIS,  # the operator's own networks take precedence
}


def with_database(lab, name, text=None):
    """The lab's document together with a database."""
    path = lab.directory("edge") / "geo.yaml"
    original = text or (lab.directory("edge") / "edge.yaml").read_text()
    path.write_text(original.replace("geo:\n", f"geo:\n  mmdb: {lab.directory('edge') / name}\n"))
    return path


def steered(lab, subnet, server="10.10.0.53"):
    """The addresses for a subnet (A for IPv4, AAAA for IPv6), and the scope of the answer."""
    kind = "AAAA" if ":" in subnet else "A"
    answer = dig(lab, "client-eu", f"+subnet={subnet}", "www.example.test", kind, server=server)
    scope = re.search(r"CLIENT-SUBNET: \S+/\d+/(\d+)", answer)
    return re.findall(rf"\sIN\s{kind}\s(\S+)", answer), int(scope[1])


def test_a_database_places_clients_and_the_scope_is_as_wide_as_the_answer_holds(lab):
    (lab.directory("edge") / "places.mmdb").write_bytes(database(PLACES))
    lab.apply(with_database(lab, "places.mmdb"))
    try:
        for server in ("10.10.0.53", "fd10::53", "10.20.0.11"):
            assert steered(lab, "198.51.100.0/25", server) == ([VIP_US[0]], 25)
            assert steered(lab, "198.51.100.128/25", server) == ([VIP_EU[0]], 25)
            assert steered(lab, "203.0.113.0/24", server) == ([VIP_US[0]], 20)
            assert steered(lab, "2001:db8:100::/56", server) == ([VIP_US[1]], 48)
            assert steered(lab, "2001:db8:101::/56", server) == ([VIP_EU[1]], 48)
        # All longer prefixes of a network get the same answer. A shorter prefix is answered by its first address.
        assert steered(lab, "198.51.100.77/32") == ([VIP_US[0]], 25)
        assert steered(lab, "10.2.7.0/24")[0] == [VIP_US[0]], "an operator's network wins over the database"
        assert steered(lab, "192.0.2.0/24")[0] == [VIP_EU[0]], "what nobody knows goes to the default site"
        told = lab.plane("edge", "dns", "/explain?client=198.51.100.7&name=www.example.test").json()
        assert told["geo"]["source"] == "mmdb" and abs(told["geo"]["latitude"] - CHICAGO[0]) < 0.01, told["geo"]
    finally:
        lab.apply(lab.directory("edge") / "edge.yaml")
    assert steered(lab, "198.51.100.0/25")[0] == [VIP_EU[0]]


def test_a_broken_database_is_refused_by_name_and_the_version_before_stays(lab):
    whole = database(PLACES)
    path = lab.directory("edge") / "broken.mmdb"
    in_force = lab.plane("edge", "dns", "/status").json()["version"]
    for broken in (b"", b"not a database", whole[: len(whole) // 2], os.urandom(4096)):
        path.write_bytes(broken)
        refused = lab.tidegate("apply", with_database(lab, "broken.mmdb"), "--wait", check=False)
        said = refused.stdout + refused.stderr
        assert refused.returncode == 1 and "broken.mmdb" in said, refused
        status = lab.plane("edge", "dns", "/status").json()
        assert status["version"] == in_force and status["refused"] is None, "no version was made of it"
        assert steered(lab, "198.51.100.0/25")[0] == [VIP_EU[0]]
    lab.apply(lab.directory("edge") / "edge.yaml")


def test_a_database_cut_off_while_it_is_in_use_matters_to_nobody(lab):
    path = lab.directory("edge") / "cut.mmdb"
    path.write_bytes(database(PLACES))
    lab.apply(with_database(lab, "cut.mmdb"))
    try:
        os.truncate(path, 0)
        told = lab.plane("edge", "dns", "/explain?client=198.51.100.7&name=www.example.test").json()
        assert told["geo"]["source"] == "mmdb", told["geo"]
        assert steered(lab, "198.51.100.0/25") == ([VIP_US[0]], 25)
    finally:
        lab.apply(lab.directory("edge") / "edge.yaml")
