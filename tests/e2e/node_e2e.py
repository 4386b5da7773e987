# SPDX-License-Identifier: Apache-2.0
"""One machine: `tidegate run` starts every plane of it from one file, and each daemon also serves alone from that
file."""

import os
import signal

import box
from netns import wait_until

# The shape of conf/examples/single-node.yaml: eth1 is the forwarder's, eth0 the proxy's and the server's.
DOCUMENT = """\
sites:
  - {name: home, location: {latitude: 50.11, longitude: 8.68}}
nodes:
  - name: elsewhere
    l7: {}
  - name: box
    site: home
    l4: {ports: [{device: eth1, addresses: [10.10.0.62/24, "fd10::62/64"], gateways: [10.10.0.1, "fd10::1"]}], flows: 4096}
    l7: {workers: 1, access_log: "-"}
    cache: {enabled: true, ram: 8MB, disk: 32MB}
    dns: {listen: ["10.10.0.61:53", "[fd10::61]:53"]}
vips:
  - {name: web, site: home, addresses: [10.10.0.200, "fd10::200"]}
services:
  - {name: http, vip: web, port: 80, pool: proxies}
probes:
  - {name: app-alive, type: tcp, interval: 200ms}
pools:
  - name: proxies
    backends: [{name: box, node: box, addresses: [10.10.0.61, "fd10::61"]}]
  - name: app
    probe: app-alive
    backends: [{name: origin1, addresses: [10.10.0.21], port: 8080}]
listeners:
  - {name: http, bind: ["0.0.0.0:80", "[::]:80"]}
routes:
  - {name: fixed, path: /fixed, status: 200, body: "the first body\\n"}
  - {name: app, path: "/*", pool: app, cache: {enabled: true}}
zones:
  - {name: example.test, file: example.test.zone}
steers:
  - {name: www.example.test, ttl: 5s, targets: [{vip: web}]}
"""
TYPOS = DOCUMENT.replace("workers: 1", "wrokers: 1").replace("pool: app,", "pool: ap,").replace("ttl: 5s", "ttl: 5 parsecs")
PLANES = ("control", "l4", "l7", "dns")


def raised_node(lab):
    """A box with both ports, holding the VIP and the files."""
    return box.raised(second_port=True, vip=box.VIP)


def write_files(lab, node, text=DOCUMENT):
    (node.home / "example.test.zone").write_text((lab.directory("edge") / "example.test.zone").read_text())
    (node.home / "secret").write_text("a secret of sixteen bytes at least\n")
    return node.write("edge.yaml", text)


def fetch(lab, path, vip):
    return lab.curl("client-eu", f"http://www.example.test{path}", vip=vip).stdout


def ask(lab, kind="A", server="10.10.0.61"):
    return lab.run("client-eu", "dig", "+short", "+tries=1", "+time=3", f"@{server}", "www.example.test", kind).stdout.split()


def serves(lab):
    """Every plane does its work, over both families."""
    for vip, server, kind in ((box.VIP[0], "10.10.0.61", "A"), (box.VIP[1], "fd10::61", "AAAA")):
        assert fetch(lab, "/", vip) == "the origin's front page\n"
        assert ask(lab, kind, server) == [vip]


def faults_told(text):
    return text.count("^") == 3 and all(hint in text for hint in ("did you mean 'workers'", "did you mean 'app'", "parsecs"))


def start_node(lab, node):
    path = write_files(lab, node)
    node.write("tokens", "admin a-token-of-the-box box\n").chmod(0o600)
    node.write("token", "a-token-of-the-box\n")
    command = [box.BUILD / "control" / "tidegate", "run", path, "--node", "box", "--state", node.state_dir, "--run", node.run_dir]
    lab.certify(node.home, "fd10::61")
    command += ["--secret", node.home / "secret", "--listen", "[fd10::61]:9090", "--tokens", node.home / "tokens"]
    supervisor = node.start("run", *command, *lab.tls_options(node.home))
    for plane in PLANES:
        node.wait_ready(plane, supervisor)
    return path, supervisor


def pid_of(node, plane):
    if plane == "control":
        return int(next(n for n in node.ask("control", "/v1/status").json()["nodes"] if n["name"] == "box")["pid"])
    return int(node.ask(plane, "/status").json()["pid"])


def test_run_raises_every_plane_of_a_node_from_one_file_and_restarts_a_killed_one(lab):
    with raised_node(lab) as node:
        path, supervisor = start_node(lab, node)
        wait_until("the TCP probe has its verdict", lambda: node.ask("control", "/v1/health").json()["words"]["backend/app/origin1"]["up"], 20)
        serves(lab)
        for plane in PLANES:
            old = pid_of(node, plane)
            os.kill(old, signal.SIGKILL)
            wait_until(f"{plane} runs again", lambda: node.ask(plane, "/healthz").status == 200 and pid_of(node, plane) != old, 60, supervisor)
            assert f"{plane:<7} | killed by signal 9; starting it again" in supervisor.log.read_text()
            serves(lab)
        # The file was the first version. Later versions come through control and reach every plane.
        path.write_text(DOCUMENT.replace("the first body", "the second body"))
        applied = node.tidegate("--api", node.run_dir / "control.sock", "apply", path, "--wait")
        assert applied.returncode == 0, applied.stderr
        far = [box.BUILD / "control" / "tidegate", "--api", "https://[fd10::61]:9090", "--ca", lab.authority(), "--token-file", node.home / "token"]
        assert "every plane has applied it" in lab.run("client-eu", *far, "status").stdout
        assert "unauthorized" in lab.run("client-eu", *far[:5], "status", check=False).stderr.lower().replace("401", "unauthorized")
        assert fetch(lab, "/fixed", box.VIP[0]) == "the second body\n"
        assert supervisor.stop() == 0, supervisor.tail()
        assert node.pids() == set(), "nothing of it is left"


def test_run_starts_nothing_from_a_faulty_file_and_tells_every_fault(lab):
    with raised_node(lab) as node:
        path = write_files(lab, node, TYPOS)
        common = ("--state", node.state_dir, "--run", node.run_dir)
        refused = node.tidegate("run", path, "--node", "box", *common)
        assert refused.returncode == 1 and faults_told(refused.stderr), refused
        assert list(node.run_dir.iterdir()) == [] and list(node.state_dir.iterdir()) == []
        write_files(lab, node)
        stranger = node.tidegate("run", path, "--node", "nobody", *common)
        assert stranger.returncode == 2 and "no node nobody" in stranger.stderr, stranger
        missing = node.tidegate("run", node.home / "none.yaml", *common)
        assert missing.returncode == 1 and "none.yaml" in missing.stderr, missing


def test_each_daemon_serves_alone_from_one_file_and_takes_it_anew_at_sighup(lab):
    with raised_node(lab) as node:
        path = write_files(lab, node)
        secret = ("--secret", node.home / "secret")
        daemons = {plane: node.start_plane(plane, path, *secret, "--state", node.state_dir) for plane in ("l4", "l7", "dns")}
        for plane, daemon in daemons.items():
            node.wait_ready(plane, daemon)
        serves(lab)
        assert fetch(lab, "/fixed", box.VIP[0]) == "the first body\n"

        def digests():
            return {plane: node.ask(plane, "/status").json()["version_digest"] for plane in daemons}

        before = digests()
        # Another route, address and port: each of the three is visible to clients.
        text = DOCUMENT.replace("the first body", "the second body").replace("targets: [{vip: web}]", "targets: [{pool: proxies}]")
        path.write_text(text.replace("port: 80, pool: proxies", "port: 81, pool: proxies").replace('"[::]:80"', '"[::]:80", "0.0.0.0:81"'))
        for daemon in daemons.values():
            daemon.popen.send_signal(signal.SIGHUP)
        for plane in daemons:
            wait_until(f"{plane} took the file anew", lambda: digests()[plane] != before[plane], 30, daemons[plane])
        assert ask(lab) == ["10.10.0.61"]
        assert lab.curl("client-eu", "http://www.example.test:81/fixed", "--resolve", f"www.example.test:81:{box.VIP[0]}").stdout == "the second body\n"
        assert not lab.tcp_opens("client-eu", box.VIP[0], 80), "the forwarder's service is at port 81 now"

        # A faulty file changes nothing, and every daemon reports all of its faults.
        after = digests()
        path.write_text(TYPOS)
        for plane, daemon in daemons.items():
            daemon.popen.send_signal(signal.SIGHUP)
            wait_until(f"{plane} told the faults", lambda d=daemon: "reload refused" in d.log.read_text(), 30, daemon)
            wait_until(f"{plane} told all of them", lambda d=daemon: faults_told(d.log.read_text().split("reload refused")[1]), 5, daemon)
            assert node.ask(plane, "/status").json()["refused"], plane
        assert digests() == after and ask(lab) == ["10.10.0.61"]


def test_no_daemon_starts_from_a_faulty_file(lab):
    with raised_node(lab) as node:
        path = write_files(lab, node, TYPOS)
        for plane in ("l4", "l7", "dns"):
            daemon = node.start_plane(plane, path)
            assert daemon.popen.wait(30) == 1 and faults_told(daemon.tail(100)), daemon.tail(100)
        control = node.start("control", box.binary("control"), "--config", path, "--state", node.state_dir, "--run", node.run_dir)
        assert control.popen.wait(30) == 1 and faults_told(control.tail(100)), control.tail(100)


def test_run_joins_an_edge_that_another_host_leads(lab):
    with box.raised(management=6) as node:
        leaders = (lab.directory("edge") / "edge.yaml").read_text()
        member = '  - {name: box, site: eu, management: "10.99.0.6:9090", l7: {workers: 1, access_log: "-"}}\n'
        joined = lab.directory("edge") / "joined.yaml"
        joined.write_text(leaders.replace("nodes:\n", "nodes:\n" + member))
        # On this machine only the planes need the file: certificates and zones come from the leader.
        mine = node.write("edge.yaml", "nodes:\n" + member.replace("site: eu, ", ""))
        token = lab.directory("edge") / "token"
        node.write("tokens", f"admin {token.read_text()} lab\n").chmod(0o600)
        lab.apply(joined)
        try:
            command = [box.BUILD / "control" / "tidegate", "run", mine, "--node", "box", "--state", node.state_dir, "--run", node.run_dir]
            command += ["--secret", lab.directory("edge") / "secret", "--follow", "10.99.0.1:9090", "--peer-token-file", token]
            lab.certify(node.home, "10.99.0.6")
            supervisor = node.start("run", *command, "--listen", "10.99.0.6:9090", "--tokens", node.home / "tokens", *lab.tls_options(node.home))
            node.wait_ready("l7", supervisor)
            assert lab.curl("client-eu", "https://www.example.test/", vip="10.10.0.61").stdout == "the origin's front page\n"
            head = lab.api("GET", "/v1/status").json()["head"]
            of_box = lambda: next(n for n in lab.api("GET", "/v1/status").json()["nodes"] if n["name"] == "box")
            wait_until("the leader hears of it", lambda: of_box()["reachable"] and of_box()["planes"][0]["version"] == head["version"], 20, supervisor)
            lab.tidegate("drain", "backend", "origins/origin1", "--wait")
            told = node.ask("l7", "/explain?client=10.1.0.2&url=https://www.example.test/api/v1/x").json()
            assert {b["backend"]: b["state"] for b in told["eligible"]}.get("origin1") != "up", told
            lab.tidegate("undrain", "backend", "origins/origin1", "--wait")
            refused = node.tidegate("--api", node.run_dir / "control.sock", "drain", "site", "eu")
            assert refused.returncode == 1 and "10.99.0.1:9090" in refused.stderr, refused
            assert supervisor.stop() == 0 and node.pids() == set(), supervisor.tail()
        finally:
            lab.apply(lab.directory("edge") / "edge.yaml")
