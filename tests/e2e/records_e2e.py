# SPDX-License-Identifier: Apache-2.0
"""Records over the API and the command line, as the name servers of the lab answer them; and a site that sheds load."""

import socket

import box
import netns
from lab import LabError, open_socket
from marks import long

SERVER = "10.10.0.53"


def ask(lab, name, kind="A", server=SERVER, *options):
    return sorted(lab.run("client-eu", "dig", "+tries=1", "+time=3", "+short", *options, f"@{server}", name, kind).stdout.split())


def refused(lab, *words):
    try:
        lab.tidegate(*words)
    except LabError as error:
        return str(error)
    raise AssertionError(f"{words} was taken")


def test_a_record_is_set_answered_and_deleted_from_the_command_line(lab):
    saved = lab.directory("edge") / "saved.zone"
    lab.tidegate("records", "export", "example.test", saved)
    try:
        assert ask(lab, "fresh.example.test") == []
        told = lab.tidegate("records", "set", "example.test", "fresh", "A", "192.0.2.98", "192.0.2.99", "--ttl", "7", "--wait").stdout
        assert "1 object changed" in told, told
        assert ask(lab, "fresh.example.test") == ["192.0.2.98", "192.0.2.99"], "the planes have it when --wait returns"
        listed = lab.tidegate("records", "list", "example.test", "fresh").stdout
        assert [line.split() for line in listed.splitlines()[1:]] == [["fresh.example.test.", "7", "A", "192.0.2.98"],
                                                                      ["fresh.example.test.", "7", "A", "192.0.2.99"]], listed  # fmt: skip
        assert "unchanged" in lab.tidegate("records", "set", "example.test", "fresh", "A", "192.0.2.99", "192.0.2.98").stdout
        assert "not" in refused(lab, "records", "set", "example.test", "fresh", "A", "192.0.2.999")
        assert "did you mean 'example.test.'?" in refused(lab, "records", "list", "exampel.test")
        lab.tidegate("records", "delete", "example.test", "fresh", "A", "--wait")
        assert ask(lab, "fresh.example.test") == []
        assert "no such records" in refused(lab, "records", "delete", "example.test", "fresh", "A")
    finally:
        lab.tidegate("records", "import", "example.test", saved, "--wait")
    assert ask(lab, "fresh.example.test") == []


DOCUMENT = """\
sites:
  - {{name: near, location: {{latitude: 50, longitude: 8}}, shed_above: 40}}
  - {{name: far, location: {{latitude: 40, longitude: -74}}}}
nodes:
  - name: shed
    site: near
    l7: {{workers: 1, max_connections: 10, max_connections_per_client: 10}}
    dns: {{listen: ["{address}:53"]}}
listeners: [{{name: http, bind: ["{address}:80"]}}]
routes: [{{name: fixed, path: "/*", status: 200, body: "x"}}]
vips: [{{name: near, site: near, addresses: [192.0.2.1]}}, {{name: far, site: far, addresses: [192.0.2.2]}}]
zones: [{{name: example.test, file: example.test.zone}}]
geo: {{default_site: near}}
steers: [{{name: www.example.test, policy: shed, ttl: 1s, targets: [{{vip: near}}, {{vip: far}}]}}]
"""


@long
def test_a_loaded_site_sheds_clients_until_it_is_free_again(lab):
    """Real connections are the load of a real proxy; its report goes by control and the state to the name server."""
    with box.raised("shed", 67) as machine:
        address = machine.host.v4
        machine.write("example.test.zone", "$TTL 300\n@ IN SOA ns1 h 1 2 3 4 5\n@ NS ns1\nns1 A 192.0.2.53\n")
        document = machine.write("edge.yaml", DOCUMENT.format(address=address))
        (machine.home / "secret").write_text("a secret of sixteen bytes at least\n")
        command = [box.BUILD / "control" / "tidegate", "run", document, "--node", "shed", "--state", machine.state_dir, "--run", machine.run_dir]
        supervisor = machine.start("run", *command, "--secret", machine.home / "secret")
        for plane in ("control", "l7", "dns"):
            machine.wait_ready(plane, supervisor)

        def share():
            load = machine.ask("control", "/v1/health").json()["loads"].get("site/near")
            return 0 if load is None else load["shed_permille"]

        def sent_on():
            return sum(ask(lab, "www.example.test", "A", address, f"+subnet=10.7.{i}.0/24") == ["192.0.2.2"] for i in range(40))

        assert share() == 0 and sent_on() == 0
        connections = [open_socket("client-eu", socket.AF_INET, socket.SOCK_STREAM) for _ in range(8)]
        for connection in connections:
            connection.settimeout(20)
            connection.connect((address, 80))

        def share_under_load():
            """Uses each connection, so that none is idle."""
            for connection in connections:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert connection.recv(4096).startswith(b"HTTP/1.1 200")
            return share()

        try:
            netns.wait_until("the site sheds a third", lambda: share_under_load() > 330, 120, supervisor)
            netns.wait_until("the name server does so", lambda: sent_on() > 4, 10, supervisor)
            told = [machine.ask("dns", f"/explain?client=10.7.{i}.1&name=www.example.test").json() for i in range(40)]
            assert any("a nearer site sheds load" in each["reason"] for each in told), told[0]
        finally:
            for connection in connections:
                connection.close()
        netns.wait_until("the site is free again", lambda: share() == 0, 240, supervisor)
        assert sent_on() == 0
