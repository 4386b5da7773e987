# SPDX-License-Identifier: Apache-2.0
"""One version, whole or not at all: what a plane would refuse is refused before the commit, and a plane that has refused
a version serves what it served before, also after it was killed."""

import re

import box
from lab import binary
from netns import sh, wait_until

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
# Per kind of fault: the zone, what else is in the document, the plane that would refuse it, and what is said.
KINDS = {
    "a record": (ZONE.format("192.0.2.999"), "", "dns", "example.zone:5:10: not an IPv4 address"),
    "a CNAME": (ZONE.format("192.0.2.1") + "www IN CNAME ns\n", "", "dns", "example.zone:6:1: www.example.test. has a CNAME and other records"),
    "an included file": (ZONE.format("192.0.2.1") + "$INCLUDE more.zone\n", "", "dns", "more.zone:2:8: not an IPv6 address"),
    "a steer": (ZONE.format("192.0.2.1") + "a IN CNAME ns\n", "pools: [{name: p, backends: [{name: b, addresses: [192.0.2.9]}]}]\nsteers: [{name: a.example.test, policy: weighted, targets: [{pool: p}]}]\n", "dns", "edge.yaml:7:17: steer a.example.test.: the name is a CNAME in the zone example.test."),
    "a wrong key": (ZONE.format("192.0.2.1"), CERTIFICATE, "l7", "does not belong to certificate CN=a"),
    "a weak key": (ZONE.format("192.0.2.1"), CERTIFICATE, "l7", "no server can use it: ee key too small"),
    "no certificate": (ZONE.format("192.0.2.1"), CERTIFICATE, "l7", "certificate 'www' cannot be used"),
    "a route twice": (ZONE.format("192.0.2.1"), "", "l7", "edge.yaml:5:"),
}  # fmt: skip


def make_certificate(machine, kind):
    new = {"a weak key": "rsa:1024"}.get(kind, "rsa:2048")
    for name in ("www", "other"):
        sh("openssl", "req", "-x509", "-newkey", new, "-nodes", "-days", "3", "-subj", "/CN=a", "-keyout", machine.home / f"{name}.key", "-out", machine.home / f"{name}.crt")
    if kind == "a wrong key":
        (machine.home / "other.key").rename(machine.home / "www.key")
    if kind == "no certificate":
        machine.write("www.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def test_a_fault_is_refused_alike_by_check_dry_run_commit_and_the_plane_itself(lab):
    before = lab.api("GET", "/v1/status").json()["head"]["version"]
    with box.raised("promise", 65) as machine:
        machine.write("more.zone", "; theirs\nb AAAA 192.0.2.1\n")
        for kind, (zone, more, plane, said) in KINDS.items():
            machine.write("example.zone", zone)
            if "www.crt" in more:
                make_certificate(machine, kind)
            text = document(more=more)
            if kind == "a route twice":
                text = text.replace("routes: [", 'routes: [{name: one, path: "/x", status: 200}, {name: two, path: "/x", status: 204}, ')
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


HOLDER = f"""
import signal, socket
udp, tcp = socket.socket(type=socket.SOCK_DGRAM), socket.socket()
udp.bind(("{ADDRESS}", 5353)), tcp.bind(("{ADDRESS}", 8181)), tcp.listen()
print("held", flush=True)
signal.pause()
"""


def ask_www(lab):
    return lab.run("client-eu", "dig", "+short", "+tries=1", "+time=1", f"@{ADDRESS}", "www.example.test", "A", check=False).stdout.strip()


def test_a_plane_that_refused_a_version_serves_what_it_served_before_when_it_is_killed(lab):
    with box.raised("promise", 65) as machine:
        assert machine.host.v4 == ADDRESS
        machine.write("example.zone", ZONE.format("192.0.2.1"))
        path = machine.write("edge.yaml", document())
        common = ["--state", machine.state_dir, "--run", machine.run_dir, "--node", "promise"]
        control = machine.start("control", binary("control"), *common, "--config", path)
        start = {plane: lambda plane=plane: machine.start(plane, binary(plane), *common) for plane in ("dns", "l7")}
        running = {plane: begin() for plane, begin in start.items()}
        for plane, process in running.items():
            machine.wait_ready(plane, process)
        status = lambda plane: machine.ask(plane, "/status").json()

        # Ports that another process holds: a fact of the host, which only its planes find.
        holder = machine.start("holder", "/usr/bin/python3", "-c", HOLDER)
        wait_until("the ports are held", lambda: "held" in holder.tail(), 20, holder)
        machine.write("edge.yaml", document(dns=f"{ADDRESS}:5353", http=f"{ADDRESS}:8181", status=200))
        done = machine.tidegate("--api", machine.run_dir / "control.sock", "apply", path)
        assert done.returncode == 0, done
        for plane in running:
            wait_until(f"{plane} refuses version 2", lambda p=plane: "version 2: " in (status(p)["refused"] or ""), 30, running[plane])
            running[plane].kill()
            running[plane] = start[plane]()
            wait_until(f"{plane} serves again", lambda p=plane: machine.ask(p, "/healthz").status == 200, 30, running[plane])
            told = status(plane)
            assert (told["version"], told["behind"], told["ready"]) == (1, True, True) and "version 2: " in told["refused"], told
            assert "version 2 is refused: version 1, which was served before, is in force" in running[plane].tail(), running[plane].tail()
            assert f"tidegate_{plane}_config_behind 1\n" in machine.ask(plane, "/metrics").body.decode()
        assert ask_www(lab) == "192.0.2.1"
        assert lab.curl("client-eu", "http://www.example.test/", "-o", "/dev/null", "-w", "%{http_code}", vip=ADDRESS).stdout == "204"
        shown = machine.tidegate("--api", machine.run_dir / "control.sock", "status").stdout
        assert shown.count("behind") == 2 and shown.count("version 2: ") == 2, shown

        holder.kill()  # the reason passes
        for plane in running:
            wait_until(f"{plane} takes version 2", lambda p=plane: status(p)["version"] == 2, 60, running[plane])
            assert status(plane)["refused"] is None and status(plane)["behind"] is False
        assert control.running()
