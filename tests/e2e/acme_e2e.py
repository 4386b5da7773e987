# SPDX-License-Identifier: Apache-2.0
"""Certificates from an authority: Debian's pebble, which rejects every second nonce, and our proxy and control."""

import base64
import contextlib
import json
import signal
import subprocess
import time

import box
import etcd_e2e
from lab import binary
from marks import long
from netns import sh, wait_until

ADDRESS = "10.10.0.81"


def curl(machine, *words):
    command = box.netns.in_namespace(machine.host.namespace, "curl", "-m", "10", *words)
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)


class Authority:
    """A pebble on a machine of its own, and the DNS server that it asks: every name leads to `address`."""

    def __init__(self, machine, own=ADDRESS, accounts=None):
        """`accounts`: {key id: key in base64url} of the accounts that it asks for; None: it takes everybody."""
        self.machine, self.own = machine, own
        sh(*"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=pebble".split(),
           "-addext", f"subjectAltName=IP:{own}", "-keyout", machine.home / "pebble.key", "-out", machine.home / "pebble.crt")  # fmt: skip
        config = {
            "listenAddress": f"{own}:14000", "managementListenAddress": f"{own}:15000", "httpPort": 80, "tlsPort": 443,
            "certificate": str(machine.home / "pebble.crt"), "privateKey": str(machine.home / "pebble.key"),
            "ocspResponderURL": "", "externalAccountBindingRequired": accounts is not None, "externalAccountMACKeys": accounts or {},
        }  # fmt: skip
        machine.write("pebble.json", json.dumps({"pebble": config}))
        self.process = self.names = None

    def start(self, address, reject=50, dns=None, pace="PEBBLE_VA_NOSLEEP=1"):
        if dns is None:
            dns = f"{self.own}:8053"
            self.names = self.machine.start(
                "names", "/usr/bin/pebble-challtestsrv", "-defaultIPv4", address, "-defaultIPv6", "", "-dns01", dns,
                "-http01", "", "-https01", "", "-tlsalpn01", "", "-management", f"{self.own}:8055",
            )  # fmt: skip
        self.process = self.machine.start(
            "pebble", "/usr/bin/env", pace, f"PEBBLE_WFE_NONCEREJECT={reject}", "PEBBLE_AUTHZREUSE=0",
            "/usr/bin/pebble", "-config", self.machine.home / "pebble.json", "-dnsserver", dns,
        )  # fmt: skip
        wait_until("pebble answers", lambda: self.fetch("14000", "/dir") is not None, 60, self.process)

    def fetch(self, port, path):
        told = curl(self.machine, "-s", "-f", "--cacert", self.machine.home / "pebble.crt", f"https://{self.own}:{port}{path}")
        return told.stdout if told.returncode == 0 else None

    def write_roots(self):
        return self.machine.write("roots.pem", self.fetch("15000", "/roots/0"))

    def stop(self):
        for process in (self.process, self.names):
            if process is not None:
                process.kill()


def document(count, address=ADDRESS, nodes="  - {name: acme, site: home, l7: {workers: 1}}", names=lambda n: [f"www{n}.example.test"], challenge=lambda n: "http-01", more=""):
    certificates = "\n".join(f"  - {{name: c{n}, acme: {{names: {json.dumps(names(n))}, challenge: {challenge(n)}}}}}" for n in range(count))
    used = ", ".join(f"c{n}" for n in range(count))
    return (
        f"sites: [{{name: home}}]\nnodes:\n{nodes}\n"
        f"acme: {{directory: 'https://{address}:14000/dir', contact: ['mailto:ops@example.test'], terms_agreed: true, ca_file: pebble.crt}}\n"
        f"certificates:\n{certificates}\n"
        f"listeners:\n  - {{name: http, bind: ['0.0.0.0:80']}}\n  - {{name: https, bind: ['0.0.0.0:443'], tls: {{certificates: [{used}]}}}}\n"
        f"routes: [{{name: all, path: '/*', status: 200, body: 'served'}}]\n{more}"
    )


@contextlib.contextmanager
def raised(accounts=None):
    with box.raised("acme", 81) as machine:
        authority = Authority(machine, accounts=accounts)
        try:
            yield machine, authority
        finally:
            authority.stop()


def start_daemons(machine, authority, text, planes=("l7",)):
    """The authority answers again when the caller sends it SIGCONT."""
    authority.process.popen.send_signal(signal.SIGSTOP)
    path = machine.write("edge.yaml", text)
    common = ["--state", machine.state_dir, "--run", machine.run_dir, "--node", "acme"]
    machine.wait_ready("control", machine.start("control", binary("control"), *common, "--config", path))
    for plane in planes:
        machine.wait_ready(plane, machine.start(plane, binary(plane), *common))


def certificates(machine):
    return {each["name"]: each for each in machine.ask("control", "/v1/certificates").json()["certificates"]}


def page(machine, name, *options, address=ADDRESS):
    told = curl(machine, "-s", "--resolve", f"{name}:443:{address}", *options, f"https://{name}/")
    return told.stdout if told.returncode == 0 else f"curl: {told.returncode} {told.stderr}"


def wait_issued(machine, timeout_s=60):
    """Waits until every certificate is issued. A try that failed is a fault at once."""

    def issued():
        told = certificates(machine).values()
        failed = [each for each in told if each.get("failures")]
        assert not failed, failed
        return all(each["state"] == "issued" for each in told)

    wait_until("every certificate is issued", issued, timeout_s)


def test_a_self_made_certificate_is_served_until_the_authority_issued_one(lab):
    with raised() as (machine, authority):
        authority.start(ADDRESS)
        start_daemons(machine, authority, document(3))
        assert page(machine, "www1.example.test", "-k") == "served"
        assert {each["state"] for each in certificates(machine).values()} == {"self-made"}
        authority.process.popen.send_signal(signal.SIGCONT)
        wait_issued(machine)
        roots = authority.write_roots()
        for n in range(3):
            wait_until("the proxy shows it", lambda n=n: page(machine, f"www{n}.example.test", "--cacert", roots) == "served", 20)
        assert machine.ask("control", "/v1/node/status").json()["head"]["version"] == 1, "no version came of it"
        assert 'tidegate_control_acme_orders_total{result="issued"} 3' in machine.ask("control", "/metrics").body.decode()
        assert machine.tidegate("certificates", "--api", machine.run_dir / "control.sock").stdout.count("issued") == 3


def test_an_authority_that_asks_for_an_account_of_its_own_gets_it(lab):
    key = base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")
    with raised({"kid-1": key}) as (machine, authority):
        authority.start(ADDRESS)
        bound = lambda words: document(1).replace("terms_agreed: true", f"terms_agreed: true{words}")
        start_daemons(machine, authority, bound(f", eab_key_id: kid-2, eab_key: {key}"))
        authority.process.popen.send_signal(signal.SIGCONT)
        wait_until("the authority does not know this account", lambda: certificates(machine)["c0"].get("error"), 30)
        assert certificates(machine)["c0"]["state"] == "self-made"
        machine.write("edge.yaml", bound(f", eab_key_id: kid-1, eab_key: {key}"))
        applied = machine.tidegate("--api", machine.run_dir / "control.sock", "apply", machine.home / "edge.yaml")
        assert applied.returncode == 0, applied.stderr
        wait_until("it is issued", lambda: certificates(machine)["c0"]["state"] == "issued", 30)
        roots = authority.write_roots()
        wait_until("the proxy shows it", lambda: page(machine, "www0.example.test", "--cacert", roots) == "served", 20)


ZONE = f"""$ORIGIN example.test.
$TTL 60
@    IN SOA ns hostmaster 1 3600 600 604800 60
     IN NS  ns
ns   IN A   {ADDRESS}
*    IN A   {ADDRESS}
"""


def test_wildcards_by_our_name_server_and_a_name_by_tls_alone(lab):
    with raised() as (machine, authority):
        machine.write("example.test.zone", ZONE)
        text = document(
            2,
            nodes=f"  - {{name: acme, site: home, l7: {{workers: 1}}, dns: {{listen: ['{ADDRESS}:53']}}}}",
            names=lambda n: ["*.example.test", "example.test"] if n == 0 else ["tls.example.test"],
            challenge=lambda n: ("dns-01", "tls-alpn-01")[n],
            more="zones: [{name: example.test, file: example.test.zone}]\n",
        )
        authority.start(ADDRESS, dns=f"{ADDRESS}:53")
        start_daemons(machine, authority, text, ("l7", "dns"))
        authority.process.popen.send_signal(signal.SIGCONT)
        wait_issued(machine)
        roots = authority.write_roots()
        for name in ("any.example.test", "example.test", "tls.example.test"):
            wait_until(f"{name} is served", lambda name=name: page(machine, name, "--cacert", roots) == "served", 20)


@long
def test_two_hundred_orders_with_every_second_nonce_rejected(lab):
    with raised() as (machine, authority):
        authority.start(ADDRESS)
        start_daemons(machine, authority, document(200))
        authority.process.popen.send_signal(signal.SIGCONT)
        wait_issued(machine, 600)
        counts = machine.ask("control", "/metrics").body.decode()
        assert 'tidegate_control_acme_orders_total{result="issued"} 200' in counts, counts
        for failure in ("refused", "unreachable"):
            assert f'tidegate_control_acme_orders_total{{result="{failure}"}} 0' in counts, counts


@long
def test_another_leader_goes_on_within_ten_seconds(lab):
    with etcd_e2e.raised(lab) as edge, raised() as (machine, authority):
        leader = edge.leader()
        others = [n for n in (1, 2, 3) if n != leader]
        # A proxy whose control is killed gets no new proofs, so the names lead to another proxy.
        authority.start(etcd_e2e.address(others[0]), reject=0, pace="PEBBLE_VA_SLEEPTIME=2")
        nodes = "\n".join(f'  - {{name: {name}, site: home, management: "10.99.0.{20 + n}:9090", l7: {{workers: 1}}}}' for n, name in enumerate(etcd_e2e.NAMES, 1))
        pem = base64.b64encode((machine.home / "pebble.crt").read_bytes()).decode()
        bundle = {"file": "edge.yaml", "text": document(1, nodes=nodes), "files": {"pebble.crt": pem}}
        applied = edge.api(leader, "PUT", "/v1/config", json.dumps(bundle), {"Content-Type": "application/vnd.tidegate.bundle+json", "If-Match": "*"}, 30)
        assert applied.status == 200, applied.body
        wait_until("the authority looks", lambda: "/chalZ/" in authority.process.log.read_text(), 30)
        edge.controls[leader].kill()
        killed = time.monotonic()

        def issued():
            try:
                told = edge.api(others[0], "GET", "/v1/certificates").json()["certificates"]
            except (OSError, ValueError):
                return False
            return [each["state"] for each in told] == ["issued"]

        wait_until("another leader has it issued", issued, 60)
        assert time.monotonic() - killed < 10
        roots = authority.write_roots()
        edge.start_control(leader)
        for n in (*others, leader):
            wait_until("every proxy shows it", lambda n=n: page(machine, "www0.example.test", "--cacert", roots, address=etcd_e2e.address(n)) == "served", 20)
