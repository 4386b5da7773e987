# SPDX-License-Identifier: Apache-2.0
"""A change of configuration under load: it is applied as a whole, on every plane, without a closed connection or a
lost request."""

from load import SteadyLoad
from marks import long
from topology import VIP_EU


def change_under_load(lab, turns, requests):
    original = (lab.directory("edge") / "edge.yaml").read_text()
    path = lab.directory("edge") / "changing.yaml"
    with SteadyLoad(lab, "client-eu", connections=6) as load:
        for turn in range(turns):
            # Each turn adds a route and changes the weight of a backend.
            extra = f'  - {{name: extra-{turn}, listeners: [https], hosts: [www.example.test], path: "/extra/{turn}", pool: origins}}\n'
            changed = original.replace("routes:\n", "routes:\n" + extra).replace("weight: 200", f"weight: {200 + turn}")
            path.write_text(changed)
            lab.apply(path)
            load.wait_for(20)
        lab.apply(lab.directory("edge") / "edge.yaml")
        load.wait_for(20)
    assert load.tally.failures == [], load.tally.failures[:5]
    assert load.tally.closed == 0 and load.tally.connections == 6, load.tally
    assert load.tally.ok == load.tally.requests > requests


def test_a_good_change_under_load_closes_no_connection_and_fails_no_request(lab):
    change_under_load(lab, 3, 60)


@long
def test_many_changes_under_load_close_no_connection_and_fail_no_request(lab):
    change_under_load(lab, 10, 200)


def test_a_refused_change_under_load_is_not_felt(lab):
    path = lab.directory("edge") / "refused.yaml"
    path.write_text((lab.directory("edge") / "edge.yaml").read_text().replace("pool: origins", "pool: origin"))
    with SteadyLoad(lab, "client-eu") as load:
        refused = lab.tidegate("apply", path, check=False)
        assert refused.returncode == 1 and "did you mean 'origins'" in refused.stdout + refused.stderr
        load.wait_for(50)
    assert load.tally.failures == [] and load.tally.closed == 0


def test_a_rollback_restores_the_zone_of_that_version_too(lab):
    before = lab.api("GET", "/v1/status").json()["head"]["version"]
    zone = lab.directory("edge") / "example.test.zone"
    original = zone.read_text()
    zone.write_text(original.replace("2026010101", "2026010102") + "added IN TXT \"new\"\n")
    try:
        lab.apply(lab.directory("edge") / "edge.yaml")
        ask = lambda: lab.run("client-eu", "dig", "+short", "@10.10.0.53", "added.example.test", "TXT").stdout.strip()
        assert ask() == '"new"'
        lab.tidegate("rollback", str(before), "--wait")
        assert ask() == ""
    finally:
        zone.write_text(original)
        lab.apply(lab.directory("edge") / "edge.yaml")


def test_new_weights_reach_the_forwarder_and_leave_the_rest_alone(lab):
    tables = lambda: lab.plane("proxy1", "l7", "/status").json()
    path = lab.directory("edge") / "weights.yaml"
    path.write_text((lab.directory("edge") / "edge.yaml").read_text().replace("weight: 100}", "weight: 100, port: 0}"))
    lab.apply(path)
    head = lab.api("GET", "/v1/status").json()["head"]["version"]
    assert tables()["version"] == head
    assert VIP_EU[0] in lab.run("client-eu", "dig", "+short", "@10.10.0.53", "www.example.test").stdout
    lab.apply(lab.directory("edge") / "edge.yaml")
