# SPDX-License-Identifier: Apache-2.0
"""One version, whole or not at all: what a plane would refuse is refused before the commit, and a plane that has refused
a version serves what it served before, also after it was killed."""

import contextlib
import re
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import box
import netns
from lab import binary
from marks import long
from netns import sh, wait_until
from topology import HOSTS

ZONE = "$TTL 60\n@ IN SOA ns h 1 2 3 4 5\n@ IN NS ns\nns IN A 192.0.2.53\nwww IN A {}\n"
ADDRESS = "10.10.0.65"


def document(dns=f"{ADDRESS}:53", http=f"{ADDRESS}:80", more="", status=204):
    return (
        f'sites: [{{name: eu}}]\nnodes: [{{name: promise, site: eu, dns: {{listen: ["{dns}"], workers: 1}}, l7: {{workers: 1}}}}]\n'
        f"zones: [{{name: example.test, file: example.zone}}]\n"
        f'listeners: [{{name: http, bind: ["{http}"]}}]\nroutes: [{{name: all, path: "/*", status: {status}}}]\n{more}'
    )


def fault_lines(text):
    """The lines of a refusal that name a place, without the name of a daemon and the folder of the document."""
    return re.findall(r"^(?:tidegate-\w+: )?(?:\S*/)?((?:edge\.yaml|\S+\.zone):\d+:\d+: .*)$", text, re.MULTILINE)


CERTIFICATE = "certificates: [{name: www, certificate_file: www.crt, key_file: www.key}]\n"
SHOWN = CERTIFICATE + f'listeners: [{{name: http, bind: ["{ADDRESS}:80"]}}, {{name: tls, bind: ["{ADDRESS}:443"], tls: {{certificates: [www]}}}}]\n'
FETCHED = 'policies: [{name: tokens, authenticate: {jwt: {issuer: x, audience: [y], algorithms: [RS256], keys_url: "https://a.test/keys", keys_ca_file: ca.pem}}}]\n'
KEYS = {"a weak key": ["rsa:1024"], "a curve that TLS 1.3 has not": ["ec", "-pkeyopt", "ec_paramgen_curve:secp224r1"]}
# For each kind of fault: the zone, the rest of the document, the plane that would refuse it, and its message.
KINDS = {
    "a record": (ZONE.format("192.0.2.999"), "", "dns", "example.zone:5:10: not an IPv4 address"),
    "a CNAME": (ZONE.format("192.0.2.1") + "www IN CNAME ns\n", "", "dns", "example.zone:6:1: www.example.test. has a CNAME and other records"),
    "an included file": (ZONE.format("192.0.2.1") + "$INCLUDE more.zone\n", "", "dns", "more.zone:2:8: not an IPv6 address"),
    "a steer": (ZONE.format("192.0.2.1") + "a IN CNAME ns\n", "pools: [{name: p, backends: [{name: b, addresses: [192.0.2.9]}]}]\nsteers: [{name: a.example.test, policy: weighted, targets: [{pool: p}]}]\n", "dns", "edge.yaml:7:17: steer a.example.test.: the name is a CNAME in the zone example.test."),
    "a wrong key": (ZONE.format("192.0.2.1"), CERTIFICATE, "l7", "does not belong to certificate CN=a"),
    "a weak key": (ZONE.format("192.0.2.1"), CERTIFICATE, "l7", "no server can use it: ee key too small"),
    "no certificate": (ZONE.format("192.0.2.1"), CERTIFICATE, "l7", "certificate 'www' cannot be used"),
    "a key that no cipher takes": (ZONE.format("192.0.2.1"), SHOWN, "l7", "edge.yaml:6:111: no client can be served with certificate www, whose key is DSA 2048, from TLS 1.2 on: no suitable signature algorithm"),
    "a curve that TLS 1.3 has not": (ZONE.format("192.0.2.1"), SHOWN.replace("[www]", '[www], min_version: "1.3"'), "l7", "whose key is EC secp224r1, from TLS 1.3 on: no suitable signature algorithm"),
    "too many authorities": (ZONE.format("192.0.2.1"), SHOWN.replace("[www]", "[www], client_certificates: {ca_file: crowd.pem}"), "l7", "no client can be asked for a certificate of these authorities"),
    "authorities for keys": (ZONE.format("192.0.2.1"), FETCHED, "l7", "keys_ca_file 'ca.pem' cannot be used"),
    "a route twice": (ZONE.format("192.0.2.1"), "", "l7", "edge.yaml:5:"),
}  # fmt: skip


def make_certificate(machine, kind):
    new = KEYS.get(kind, ["rsa:2048"])
    if kind == "a key that no cipher takes":
        sh("openssl", "dsaparam", "-out", machine.home / "parameters.pem", "2048")
        new = [f"dsa:{machine.home}/parameters.pem"]
    for name in ("www", "other"):
        sh("openssl", "req", "-x509", "-newkey", *new, "-nodes", "-days", "3", "-subj", "/CN=a", "-keyout", machine.home / f"{name}.key", "-out", machine.home / f"{name}.crt")
    if kind == "a wrong key":
        (machine.home / "other.key").rename(machine.home / "www.key")
    if kind == "too many authorities":
        units = "".join(f"/OU={'u' * 60}{number:04}" for number in range(1100))
        sh("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3", "-subj", f"/CN=crowd{units}", "-keyout", machine.home / "crowd.key", "-out", machine.home / "crowd.pem")
    if kind == "no certificate":
        machine.write("www.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def refused_alike(lab, kinds):
    before = lab.api("GET", "/v1/status").json()["head"]["version"]
    with box.raised("promise", 65) as machine:
        machine.write("more.zone", "; theirs\nb AAAA 192.0.2.1\n")
        for kind in kinds:
            zone, more, plane, said = KINDS[kind]
            machine.write("example.zone", zone)
            if "www.crt" in more:
                make_certificate(machine, kind)
            text = document(more=more)
            if kind == "a route twice":
                text = text.replace("routes: [", 'routes: [{name: one, path: "/x", status: 200}, {name: two, path: "/x", status: 204}, ')
            if "listeners:" in more:
                text = text.replace(next(line for line in text.splitlines(keepends=True) if line.startswith("listeners:")), "", 1)
            machine.write("ca.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            path = machine.write("edge.yaml", text)
            checked = machine.tidegate("check", path)
            faults = fault_lines(checked.stdout)
            assert checked.returncode == 1 and len(faults) == 1 and said in faults[0], (kind, checked)
            for options in (["--dry-run"], []):
                told = lab.tidegate("apply", path, *options, check=False)
                assert told.returncode == 1 and fault_lines(told.stderr) == faults, (kind, options, told)
            (machine.home / f"{plane}.log").unlink(missing_ok=True)
            daemon = machine.start_plane(plane, path)
            assert daemon.popen.wait(60) == 1 and fault_lines(daemon.log.read_text()) == faults, (kind, daemon.tail())
    assert lab.api("GET", "/v1/status").json()["head"]["version"] == before


def test_a_fault_is_refused_alike_by_check_dry_run_commit_and_the_plane_itself(lab):
    refused_alike(lab, ["a record", "a wrong key", "a curve that TLS 1.3 has not"])


@long
def test_faults_of_every_kind_are_refused_alike_by_all_four(lab):
    refused_alike(lab, KINDS)


HOLDER = f"""
import signal, socket
udp, tcp = socket.socket(type=socket.SOCK_DGRAM), socket.socket()
udp.bind(("{ADDRESS}", 5353)), tcp.bind(("{ADDRESS}", 8181)), tcp.listen()
print("held", flush=True)
signal.pause()
"""


def ask_www(lab):
    return lab.run("client-eu", "dig", "+short", "+tries=1", "+time=1", f"@{ADDRESS}", "www.example.test", "A", check=False).stdout.strip()


class Edge:
    """A control and its planes on a machine of their own. `options`: of control."""

    def __init__(self, machine, *options):
        self.machine = machine
        machine.write("example.zone", ZONE.format("192.0.2.1"))
        common = ["--state", machine.state_dir, "--run", machine.run_dir, "--node", "promise"]
        self.control = machine.start("control", binary("control"), *common, *options, "--config", self.write())
        self.start = {plane: lambda plane=plane: machine.start(plane, binary(plane), *common) for plane in ("dns", "l7")}
        self.running = {plane: begin() for plane, begin in self.start.items()}
        for plane, process in self.running.items():
            machine.wait_ready(plane, process)

    def write(self, **changes):
        return self.machine.write("edge.yaml", document(**changes))

    def tidegate(self, *arguments):
        return self.machine.tidegate("--api", self.machine.run_dir / "control.sock", *arguments)

    def apply(self, *options, **changes):
        return self.tidegate("apply", self.write(**changes), *options)

    def api(self, target):
        return self.machine.ask("control", target).json()

    def status(self, plane):
        return self.machine.ask(plane, "/status").json()

    def held(self, plane):
        return self.machine.ask(plane, "/candidate").json()["held"]

    def in_force(self):
        return self.api("/v1/versions")["in_force"]

    def votes(self, version):
        """How each plane voted on a version: {"l7": ("yes", "")}."""
        return {vote["plane"]: (vote["vote"], vote["why"]) for vote in self.api(f"/v1/status/versions/{version}")["votes"]}

    def hold_ports(self, name, program=None):
        (self.machine.home / f"{name}.log").unlink(missing_ok=True)  # an earlier holder with that name said it too
        holder = self.machine.start(name, "/usr/bin/python3", "-c", program or HOLDER)
        wait_until("the ports are held", lambda: "held" in holder.tail(), 20, holder)
        return holder


# Has the same user, and shares its port.
SHARER = f"""
import signal, socket
udp, tcp = socket.socket(type=socket.SOCK_DGRAM), socket.socket()
for one in (udp, tcp): one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
udp.bind(("{ADDRESS}", 5353)), tcp.bind(("{ADDRESS}", 8181)), tcp.listen()
print("held", flush=True)
signal.pause()
"""


def test_a_port_that_another_process_holds_is_refused_before_anything_changes(lab):
    with box.raised("promise", 65) as machine:
        edge = Edge(machine)
        for name, program in (("holder", HOLDER), ("sharer", SHARER)):
            holder = edge.hold_ports(name, program)
            refused = edge.apply(dns=f"{ADDRESS}:5353", http=f"{ADDRESS}:8181", status=200)
            assert refused.returncode == 1, refused
            assert f"promise/dns: cannot listen on {ADDRESS}:5353: Address already in use" in refused.stderr, (name, refused)
            assert f"promise/l7: listener http: cannot bind {ADDRESS}:8181: Address already in use" in refused.stderr, (name, refused)
            assert edge.in_force() == 1 and [edge.status(plane)["refused"] for plane in edge.running] == [None, None]
            assert [edge.held(plane) for plane in edge.running] == [None, None]
            last = edge.api("/v1/candidates")["refused"][0]
            assert {vote["plane"]: vote["vote"] for vote in last["votes"]} == {"dns": "no", "l7": "no"}, last
            assert edge.api(f"/v1/candidates/{last['candidate']}")["reasons"] == last["reasons"]
            holder.kill()
        # Only one of them says no. The other one releases what it held.
        holder = edge.hold_ports("holder")
        refused = edge.apply(dns=f"{ADDRESS}:5454", http=f"{ADDRESS}:8181", status=200)
        assert refused.returncode == 1 and "promise/dns" not in refused.stderr and "promise/l7" in refused.stderr, refused
        wait_until("dns lets go", lambda: edge.held("dns") is None, 20, edge.running["dns"])
        holder.kill()

        assert ask_www(lab) == "192.0.2.1"
        done = edge.apply(dns=f"{ADDRESS}:5353", http=f"{ADDRESS}:8181", status=200)
        assert done.returncode == 0 and "version 2" in done.stdout and "behind" not in done.stdout, done
        assert edge.votes(2) == {"dns": ("yes", ""), "l7": ("yes", "")}
        wait_until("both serve it", lambda: edge.api("/v1/status/versions/2")["in_force"] == 2, 20)
        code = lab.curl("client-eu", f"http://{ADDRESS}:8181/", "-o", "/dev/null", "-w", "%{http_code}").stdout
        assert code == "200", code
        dug = lab.run("client-eu", "dig", "+short", "-p", "5353", f"@{ADDRESS}", "www.example.test", "A", check=False).stdout.strip()
        assert dug == "192.0.2.1", dug


def test_what_takes_effect_at_a_start_only_is_refused_unless_that_is_allowed(lab):
    with box.raised("promise", 65) as machine:
        edge = Edge(machine)
        text = document()
        more = lambda workers, status: machine.write("edge.yaml", text.replace("l7: {workers: 1}", f"l7: {{workers: {workers}}}").replace("status: 204", f"status: {status}"))
        refused = edge.tidegate("apply", more(2, 204))
        assert refused.returncode == 1 and "promise/l7: takes effect only when it starts again: l7.workers" in refused.stderr, refused
        assert "--allow-restart" in refused.stderr and edge.in_force() == 1
        allowed = edge.tidegate("apply", more(2, 204), "--allow-restart")
        assert allowed.returncode == 0 and edge.in_force() == 2, allowed
        wait_until("l7 says so", lambda: edge.status("l7")["needs_restart"] == ["l7.workers"], 20)
        # Keys that already wait for a restart do not prevent other changes.
        assert edge.tidegate("apply", more(2, 200)).returncode == 0 and edge.in_force() == 3
        # Going back to what runs needs no restart.
        assert edge.tidegate("apply", more(1, 200)).returncode == 0
        wait_until("nothing waits", lambda: edge.status("l7")["needs_restart"] == [], 20)
        bad = machine.write("edge.yaml", text.replace("l7: {workers: 1}", "l7: {workers: 1, access_log: /nowhere/at/all.log}"))
        refused = edge.tidegate("apply", bad, "--allow-restart")
        assert refused.returncode == 1 and "l7.access_log: there is no directory /nowhere/at" in refused.stderr, refused


def test_a_silent_plane_is_waited_for_once_and_comes_after(lab):
    with box.raised("promise", 65) as machine:
        edge = Edge(machine)
        dns = edge.running["dns"].popen
        dns.send_signal(signal.SIGSTOP)
        try:
            first = edge.apply(status=200)
            assert first.returncode == 0 and "behind:    promise/dns: no answer within 500 ms" in first.stdout, first
            second = edge.apply(status=201)
            assert second.returncode == 0 and "promise/dns: it is known to be silent" in second.stdout, second
            assert edge.votes(3)["l7"] == ("yes", "") and edge.votes(3)["dns"][0] == "unreachable"
            refused = edge.apply("--require", "all", status=202)
            assert refused.returncode == 1 and "promise/dns" in refused.stderr and edge.in_force() == 3, refused
        finally:
            dns.send_signal(signal.SIGCONT)
        wait_until("dns comes after", lambda: edge.status("dns")["version"] == 3, 30)

        def all_vote():
            done = edge.apply("--require", "all", status=203)
            return done.returncode == 0

        wait_until("dns votes again", all_vote, 30)
        assert {vote for vote, _ in edge.votes(edge.in_force()).values()} == {"yes"}


def test_a_plane_that_refused_a_version_serves_what_it_served_before_when_it_is_killed(lab):
    with box.raised("promise", 65) as machine:
        assert machine.host.v4 == ADDRESS
        edge = Edge(machine)
        status, running = edge.status, edge.running
        # Ports that another process takes while the planes are away: no plane could refuse the version.
        for process in running.values():
            process.kill()
        holder = edge.hold_ports("holder")
        done = edge.apply(dns=f"{ADDRESS}:5353", http=f"{ADDRESS}:8181", status=200)
        assert done.returncode == 0 and done.stdout.count("behind: ") == 2, done
        for plane in running:
            running[plane] = edge.start[plane]()
            wait_until(f"{plane} serves again", lambda p=plane: machine.ask(p, "/healthz").status == 200, 30, running[plane])
            told = status(plane)
            assert (told["version"], told["behind"], told["ready"]) == (1, True, True) and "version 2: " in told["refused"], told
            assert "version 2 is refused: version 1, which was served before, is in force" in running[plane].tail(), running[plane].tail()
            assert f"tidegate_{plane}_config_behind 1\n" in machine.ask(plane, "/metrics").body.decode()
        assert ask_www(lab) == "192.0.2.1"
        assert lab.curl("client-eu", "http://www.example.test/", "-o", "/dev/null", "-w", "%{http_code}", vip=ADDRESS).stdout == "204"
        shown = edge.tidegate("status").stdout
        assert shown.count("behind") == 2 and shown.count("version 2: ") == 2, shown

        holder.kill()  # the reason for the refusal is gone
        for plane in running:
            wait_until(f"{plane} takes version 2", lambda p=plane: status(p)["version"] == 2, 60, running[plane])
            assert status(plane)["refused"] is None and status(plane)["behind"] is False
        assert edge.control.running()


def test_a_version_that_nobody_confirms_is_taken_back_on_every_plane(lab):
    with box.raised("promise", 65) as machine:
        edge = Edge(machine)
        tried = edge.apply("--confirm", "1s", status=200)
        assert tried.returncode == 0 and "provisional: `tidegate confirm 2` within 1 s keeps it" in tried.stdout, tried
        wait_until("version 1 is back", lambda: edge.in_force() == 3, 20, edge.control)
        wait_until("on both planes", lambda: [edge.status(plane)["version"] for plane in edge.running] == [3, 3], 20)
        code = lab.curl("client-eu", "http://www.example.test/", "-o", "/dev/null", "-w", "%{http_code}", vip=ADDRESS).stdout
        assert code == "204", code
        late = edge.tidegate("confirm", "2")
        assert late.returncode == 1 and "not provisional" in late.stderr, late

        assert edge.apply("--confirm", "60s", status=200).returncode == 0
        refused = edge.apply(status=201)
        assert refused.returncode == 1 and "version 4 is provisional" in refused.stderr, refused
        assert edge.tidegate("confirm", "4").returncode == 0
        assert edge.apply(status=201).returncode == 0 and edge.in_force() == 5


class VoteRelay:
    """Takes the place of a plane's admin socket, and passes everything on. Only the plane's vote stays here until
    deliver() or drop()."""

    def __init__(self, path):
        self.path, self.real = path, path.with_suffix(".real")
        path.rename(self.real)
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen()
        self.voted, self.decided, self.vote, self.delivers = threading.Event(), threading.Event(), b"", False
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.server.accept()
                threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        plane = socket.socket(socket.AF_UNIX)
        with client, plane, contextlib.suppress(OSError):
            plane.connect(str(self.real))
            question = client.recv(65536)
            asks_for_a_vote = question.startswith(b"POST /candidate")

            def pass_on():
                data = question
                with contextlib.suppress(OSError):
                    while data:
                        plane.sendall(data)
                        data = client.recv(65536)

            threading.Thread(target=pass_on, daemon=True).start()
            while answer := plane.recv(65536):
                if asks_for_a_vote:
                    self.vote = answer
                    self.voted.set()
                    self.decided.wait()
                    if not self.delivers:
                        return
                client.sendall(answer)

    def leave(self):
        """The plane's next process makes the socket again."""
        self.server.close()
        self.path.unlink()

    def decide(self, delivers):
        self.delivers = delivers
        self.decided.set()


def killed_while_prepared(lab, edge, killed, delivers, status):
    """Kills a plane that has prepared a candidate, and starts it again, before control has its vote. The vote then still
    arrives, or is lost. Returns whether the candidate was committed."""
    machine, other = edge.machine, "l7" if killed == "dns" else "dns"
    before = edge.in_force()
    relay = VoteRelay(machine.run_dir / f"{killed}.sock")
    with ThreadPoolExecutor(1) as beside:
        applying = beside.submit(edge.apply, dns=f"{ADDRESS}:5353", http=f"{ADDRESS}:8181", status=status)
        assert relay.voted.wait(60), edge.control.tail()
        assert b'"yes"' in relay.vote, relay.vote
        wait_until(f"{other} has prepared it too", lambda: edge.held(other), 60, edge.control)
        edge.running[killed].kill()
        relay.leave()
        edge.running[killed] = edge.start[killed]()
        machine.wait_ready(killed, edge.running[killed])
        assert not applying.done() and edge.in_force() == before
        assert (edge.status(killed)["version"], edge.held(killed)) == (before, None)
        relay.decide(delivers)
        told = applying.result()
    assert (told.returncode == 0) == (edge.in_force() == before + 1), (told, edge.in_force())
    now = edge.in_force()
    for plane in edge.running:
        wait_until(f"{plane} serves version {now}", lambda p=plane: edge.status(p)["version"] == now, 60, edge.running[plane])
        wait_until(f"{plane} holds nothing", lambda p=plane: edge.held(p) is None, 60, edge.running[plane])
        assert edge.status(plane)["refused"] is None, edge.status(plane)
    return now == before + 1


def served(lab, http, dns):
    """What clients get at these ports: the status of HTTP, "" without an answer, and the address of www."""
    code = lab.curl("client-eu", f"http://{ADDRESS}:{http}/", "-o", "/dev/null", "-w", "%{http_code}", vip=ADDRESS, check=False).stdout
    dug = lab.run("client-eu", "dig", "+short", "+tries=1", "+time=1", "-p", str(dns), f"@{ADDRESS}", "www.example.test", "A", check=False)
    return code, dug.stdout.strip() if dug.returncode == 0 else ""


@long
def test_a_plane_that_is_killed_while_it_holds_a_candidate_comes_back_whole(lab):
    with box.raised("promise", 65) as machine:
        edge = Edge(machine, "--prepare-timeout", "20000")
        before, after, nobody = ("204", "192.0.2.1"), ("200", "192.0.2.1"), ("000", "")
        for killed in ("dns", "l7"):
            assert not killed_while_prepared(lab, edge, killed, delivers=False, status=200), "its vote was lost"
            assert [served(lab, 80, 53), served(lab, 8181, 5353)] == [before, nobody], (served(lab, 80, 53), served(lab, 8181, 5353))
            # The ports that the dead process held are free, and what it had prepared hinders nobody.
            assert killed_while_prepared(lab, edge, killed, delivers=True, status=200), "each plane has voted yes"
            assert [served(lab, 8181, 5353), served(lab, 80, 53)] == [after, nobody], (served(lab, 8181, 5353), served(lab, 80, 53))
            assert edge.apply().returncode == 0
            wait_until("the first ports are back", lambda: served(lab, 80, 53) == before, 60)


def votes_of(answer):
    return {f"{vote['node']}/{vote['plane']}": vote["vote"] for vote in answer["votes"]}


def test_one_host_that_cannot_refuses_for_all_of_them(lab):
    edge = lab.directory("edge")
    path = edge / "port.yaml"
    path.write_text((edge / "edge.yaml").read_text().replace("listeners:\n", 'listeners:\n  - {name: more, bind: ["0.0.0.0:8181"]}\n'))
    before = lab.api("GET", "/v1/status").json()["head"]["version"]
    program = SHARER.replace(ADDRESS, "0.0.0.0")
    holder = netns.Process(HOSTS["proxy2"].namespace, "proxy2/holder", ["/usr/bin/python3", "-c", program], lab.directory("proxy2") / "holder.log").start()
    try:
        wait_until("the port is held", lambda: "held" in holder.tail(), 20, holder)
        refused = lab.tidegate("apply", path, check=False)
    finally:
        holder.kill()
    assert refused.returncode == 1 and "proxy2: l7: listener more: cannot bind 0.0.0.0:8181: Address already in use" in refused.stderr, refused
    last = lab.api("GET", "/v1/candidates").json()["refused"][0]
    voted = votes_of(last)
    assert voted == {"edge/dns": "yes", "l4/l4": "yes", "proxy1/l7": "yes", "proxy2/l7": "no", "us1/l7": "yes", "us1/dns": "yes"}, voted
    status = lab.api("GET", "/v1/status").json()
    assert {(node["name"], node["head"]["version"]) for node in status["nodes"]} == {(node["name"], before) for node in status["nodes"]}, status
    assert {plane["version"] for node in status["nodes"] for plane in node["planes"]} == {before}, status
    for host, plane in (("edge", "dns"), ("l4", "l4"), ("proxy1", "l7"), ("proxy2", "l7"), ("us1", "l7"), ("us1", "dns")):
        wait_until(f"{plane} of {host} lets go", lambda h=host, p=plane: lab.plane(h, p, "/candidate").json()["held"] is None, 20)

    try:
        done = lab.tidegate("apply", path, "--wait")
        assert "behind" not in done.stdout, done
        answer = lab.api("GET", f"/v1/status/versions/{before + 1}").json()
        assert set(votes_of(answer).values()) == {"yes"} and answer["prepared"] == 6 == answer["in_force"], answer
    finally:
        lab.apply(edge / "edge.yaml")
