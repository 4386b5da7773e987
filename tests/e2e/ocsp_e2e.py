# SPDX-License-Identifier: Apache-2.0
"""Stapled OCSP answers: openssl's own responder, and curl and openssl s_client as clients that ask for them."""

import contextlib
import json
import subprocess

import box
from lab import binary
from marks import long
from netns import sh, wait_until

ADDRESS, PORT = "10.10.0.83", 8888
DAY = "271231235959Z"


class Authority:
    """An authority whose index says what is good, and its responder, which lets answers hold so many minutes."""

    def __init__(self, machine, minutes=60):
        self.machine, self.minutes, self.responder = machine, minutes, None
        key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes".split()
        home = machine.home
        sh("openssl", "req", "-x509", *key, "-days", "30", "-subj", "/CN=authority", "-keyout", home / "ca.key", "-out", home / "ca.crt")
        sh("openssl", "req", *key, "-subj", "/CN=www.example.test", "-keyout", home / "www.key", "-out", home / "request")
        (home / "leaf.cnf").write_text(
            "subjectAltName=DNS:www.example.test\nextendedKeyUsage=serverAuth\ntlsfeature=status_request\n"
            f"authorityInfoAccess=OCSP;URI:http://{ADDRESS}:{PORT}/\n"
        )
        sh("openssl", "x509", "-req", "-in", home / "request", "-CA", home / "ca.crt", "-CAkey", home / "ca.key", "-set_serial", "0x1001",
           "-days", "30", "-extfile", home / "leaf.cnf", "-out", home / "leaf.crt")  # fmt: skip
        (home / "www.crt").write_text((home / "leaf.crt").read_text() + (home / "ca.crt").read_text())
        self.says("V", "")

    def says(self, word, revoked):
        (self.machine.home / "index.txt").write_text(f"{word}\t{DAY}\t{revoked}\t1001\tunknown\t/CN=www.example.test\n")

    def start(self):
        home = self.machine.home
        self.responder = self.machine.start(
            "responder", "openssl", "ocsp", "-port", PORT, "-index", home / "index.txt", "-CA", home / "ca.crt", "-rsigner", home / "ca.crt",
            "-rkey", home / "ca.key", "-nmin", self.minutes, "-ignore_err",
        )  # fmt: skip
        # A connection without data would stop openssl's responder, so wait for its own message.
        wait_until("the responder listens", lambda: "ACCEPT" in self.responder.log.read_text(), 20, self.responder)

    def stop(self):
        if self.responder is not None:
            self.responder.kill()


def in_box(machine, *words):
    command = box.netns.in_namespace(machine.host.namespace, *(str(word) for word in words))
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30, check=False)


def document(responder=""):
    return (
        "sites: [{name: home}]\nnodes: [{name: ocsp, site: home, l7: {workers: 2}}]\n"
        f"certificates: [{{name: www, certificate_file: www.crt, key_file: www.key, ocsp: {{{responder}}}}}]\n"
        "listeners: [{name: https, bind: ['0.0.0.0:443'], tls: {certificates: [www]}}]\n"
        "routes: [{name: all, path: '/*', status: 200, body: served}]\n"
    )


@contextlib.contextmanager
def raised(minutes=60):
    with box.raised("ocsp", 83) as machine:
        authority = Authority(machine, minutes)
        try:
            authority.start()
            path = machine.write("edge.yaml", document())
            common = ["--state", machine.state_dir, "--run", machine.run_dir, "--node", "ocsp"]
            machine.wait_ready("control", machine.start("control", binary("control"), *common, "--config", path))
            machine.wait_ready("l7", machine.start("l7", binary("l7"), *common))
            yield machine, authority
        finally:
            authority.stop()


def curl(lab, machine, *options):
    """The page, or why there is none."""
    done = lab.run("client-eu", "curl", "-sS", "-m", "10", "--cacert", machine.home / "ca.crt", "--resolve", f"www.example.test:443:{ADDRESS}",
                   *options, "https://www.example.test/", check=False)  # fmt: skip
    return done.stdout if done.returncode == 0 else done.stderr


def told(machine):
    return machine.ask("control", "/v1/certificates").json()["certificates"][0]["ocsp"]


def apply(machine, text):
    machine.write("edge.yaml", text)
    done = machine.tidegate("--api", machine.run_dir / "control.sock", "apply", machine.home / "edge.yaml", "--wait")
    assert done.returncode == 0, done.stderr


def test_a_good_answer_is_stapled_and_a_revoked_certificate_has_none(lab):
    with raised() as (machine, authority):
        api = ("--api", machine.run_dir / "control.sock")
        wait_until("the answer is stapled", lambda: curl(lab, machine, "--cert-status") == "served", 30)
        for version in ("-tls1_2", "-tls1_3"):
            command = f"openssl s_client -connect {ADDRESS}:443 -servername www.example.test -status {version} </dev/null"
            shown = lab.run("client-eu", "bash", "-c", command, check=False).stdout
            assert "OCSP Response Status: successful" in shown and "Cert Status: good" in shown, shown
        assert told(machine)["state"] == "good", told(machine)
        assert "good, ends in" in machine.tidegate(*api, "certificates").stdout

        # Handshakes do not need the responder.
        authority.stop()
        assert curl(lab, machine, "--cert-status") == "served"

        # The responder learns of a revocation. Another URL is asked at once.
        authority.says("R", "261101000000Z,keyCompromise")
        authority.start()
        apply(machine, document(f"responder: 'http://{ADDRESS}:{PORT}/again'"))
        wait_until("it is known to be revoked", lambda: told(machine)["state"] == "revoked", 30)
        wait_until("no answer is stapled", lambda: "OCSP" in curl(lab, machine, "--cert-status"), 30)
        assert curl(lab, machine) == "served", "clients that do not ask are served"
        status = machine.tidegate(*api, "status").stdout
        assert "revoked the certificate" in status and "keyCompromise" in status, status
        troubles = json.loads(machine.tidegate(*api, "--output", "json", "status").stdout)["certificates"]
        assert troubles["in_trouble"] == 1, troubles
        metrics = machine.ask("control", "/metrics").body.decode()
        assert 'tidegate_control_certificate_revoked{certificate="www"} 1' in metrics
        assert 'tidegate_control_ocsp_answers_total{result="revoked"} 1' in metrics
        assert 'tidegate_tls_staples_total{result="shown"}' in machine.ask("l7", "/metrics").body.decode()


def test_a_certificate_that_needs_a_staple_is_warned_of(lab):
    with box.raised("ocsp", 83) as machine:
        Authority(machine)
        path = machine.write("edge.yaml", document().replace(", ocsp: {}", ""))
        checked = machine.tidegate("check", path)
        assert checked.returncode == 0 and "without a stapled OCSP answer" in checked.stdout + checked.stderr, checked
        machine.write("edge.yaml", document())
        checked = machine.tidegate("check", path)
        assert "OCSP" not in checked.stdout + checked.stderr, checked


@long
def test_an_answer_is_renewed_before_it_ends(lab):
    """Answers hold a minute: one is fetched after half of it. A client that needs them is served all the time."""
    with raised(minutes=1) as (machine, _):
        wait_until("the answer is stapled", lambda: curl(lab, machine, "--cert-status") == "served", 30)
        first = told(machine)["this_update_s"]

        def renewed_twice():
            assert curl(lab, machine, "--cert-status") == "served"
            return told(machine)["this_update_s"] >= first + 50

        wait_until("it was renewed twice", renewed_twice, 120)
