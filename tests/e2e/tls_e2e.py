# SPDX-License-Identifier: Apache-2.0
"""TLS to backends: which certificates probes and the proxy accept. A real origin presents four of them."""

import json
import shutil

from lab import HOSTS
from netns import Process, sh, wait_until

NAME = "origin.example.test"
# The certificate at each port: a good one; one for another name; one of an unknown authority; one that expired last
# year.
PORTS = {"right": 8443, "wrong": 8444, "stranger": 8445, "expired": 8446}


def make_certificates(home):
    key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes".split()
    sh("openssl", "req", "-x509", *key, "-days", "30", "-subj", "/CN=the lab's authority", "-keyout", home / "ca.key", "-out", home / "ca.crt")
    for which, names, days in (
        ("right", f"DNS:{NAME},IP:10.10.0.21,IP:fd10::21", 30),
        ("wrong", "DNS:other.example.test", 30),
        ("expired", f"DNS:{NAME}", -1),
    ):
        sh("openssl", "req", *key, "-subj", "/CN=origin", "-addext", f"subjectAltName={names}", "-keyout", home / f"{which}.key", "-out", home / "request")
        sh("openssl", "x509", "-req", "-in", home / "request", "-CA", home / "ca.crt", "-CAkey", home / "ca.key", "-copy_extensions", "copy",
           "-days", days, "-out", home / f"{which}.crt")  # fmt: skip
    sh("openssl", "req", "-x509", *key, "-days", "30", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}", "-keyout", home / "stranger.key", "-out", home / "stranger.crt")


def start_origin(lab, home):
    servers = "".join(
        f"server {{ listen {port} ssl; listen [::]:{port} ssl; ssl_certificate {home}/{which}.crt; ssl_certificate_key {home}/{which}.key; location / {{ return 200 '{which}\\n'; }} }}\n"
        for which, port in PORTS.items()
    )
    temporary = " ".join(f"{kind}_temp_path {home}/tmp;" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (home / "nginx.conf").write_text(f"error_log stderr warn; pid {home}/nginx.pid; events {{}}\nhttp {{ access_log off; {temporary}\n{servers} }}\n")
    process = Process(HOSTS["origin1"].namespace, "origin1/tls", ["nginx", "-p", home, "-c", home / "nginx.conf", "-e", "stderr", "-g", "daemon off;"], home / "log").start()
    wait_until("the TLS origin answers", lambda: lab.tcp_opens("origin1", "10.10.0.21", 8446), process=process)
    return process


def document(lab):
    """The lab's document with a probed and an unprobed pool for each certificate, and a route to the latter."""
    text = (lab.directory("edge") / "edge.yaml").read_text()
    common = "type: https, path: /, interval: 100ms, timeout: 2s, rise: 1, fall: 1"
    probes = f"  - {{name: checked, {common}, host: {NAME}, tls_ca_file: tls/ca.crt}}\n"
    probes += f"  - {{name: by-address, {common}, tls_ca_file: tls/ca.crt}}\n"
    probes += f"  - {{name: by-system, {common}, host: {NAME}}}\n"
    probes += f"  - {{name: unchecked, {common}, host: {NAME}, tls_verify: false}}\n"
    pool = "  - {{name: {0}, {1}, backends: [{{name: b, addresses: [{2}], port: {3}}}]}}\n".format
    pools = "".join(pool(f"checked-{which}", "probe: checked", "10.10.0.21", port) for which, port in PORTS.items())
    pools += pool("by-address-4", "probe: by-address", "10.10.0.21", PORTS["right"]) + pool("by-address-6", "probe: by-address", '"fd10::21"', PORTS["right"])
    pools += pool("by-address-wrong", "probe: by-address", "10.10.0.21", PORTS["wrong"]) + pool("by-system", "probe: by-system", "10.10.0.21", PORTS["right"])
    pools += pool("unchecked", "probe: unchecked", "10.10.0.21", PORTS["stranger"])
    verified = f"tls: true, tls_ca_file: tls/ca.crt, tls_server_name: {NAME}"
    pools += "".join(pool(f"proxied-{which}", verified, '"fd10::21"', port) for which, port in PORTS.items())
    pools += pool("proxied-by-address", "tls: true, tls_ca_file: tls/ca.crt", "10.10.0.21", PORTS["right"])
    pools += pool("proxied-other-address", "tls: true, tls_ca_file: tls/ca.crt", "10.10.0.21", PORTS["wrong"])
    pools += pool("proxied-unchecked", "tls: true, tls_verify: false", "10.10.0.21", PORTS["stranger"])
    pools += pool("proxied-by-system", f"tls: true, tls_server_name: {NAME}", "10.10.0.21", PORTS["right"])
    route = '  - {{name: {0}, listeners: [https], hosts: [www.example.test], path: "/{0}", pool: {0}}}\n'.format
    routes = "".join(route(f"proxied-{which}") for which in (*PORTS, "by-address", "other-address", "unchecked", "by-system"))
    return text.replace("probes:\n", "probes:\n" + probes).replace("pools:\n", "pools:\n" + pools).replace("routes:\n", "routes:\n" + routes)


def test_probes_and_the_proxy_believe_whom_the_configuration_says(lab):
    home = lab.directory("edge") / "tls"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    (home / "tmp").mkdir()
    make_certificates(home)
    origin = start_origin(lab, home)
    try:
        path = lab.directory("edge") / "tls.yaml"
        path.write_text(document(lab))
        lab.apply(path)
        words = lambda: lab.api("GET", "/v1/health").json()["words"]
        pools = [f"checked-{which}" for which in PORTS] + ["by-address-4", "by-address-6", "by-address-wrong", "by-system", "unchecked"]
        wait_until("every probe has its verdict", lambda: all(f"backend/{pool}/b" in words() for pool in pools), 20)
        told = {pool: words()[f"backend/{pool}/b"] for pool in pools}
        up = {pool for pool, word in told.items() if word["up"]}
        assert up == {"checked-right", "by-address-4", "by-address-6", "unchecked"}, told
        for pool, why in (("checked-wrong", "ostname mismatch"), ("by-address-wrong", "IP address mismatch"), ("checked-stranger", "self-signed"),
                          ("checked-expired", "expired"), ("by-system", "unable to get local issuer")):  # fmt: skip
            assert why in told[pool]["reason"], (pool, told[pool])
        for which in (*PORTS, "by-address", "other-address", "unchecked", "by-system"):
            out = lab.curl("client-eu", f"https://www.example.test/proxied-{which}", "-w", "%{http_code}").stdout
            good = {"right": "right\n200", "by-address": "right\n200", "unchecked": "stranger\n200"}
            assert out == good[which] if which in good else out.endswith("502"), (which, out)
        # A persistent connection from the time without checks is not used once certificates are checked.
        ask = lambda: lab.curl("client-eu", "https://www.example.test/proxied-unchecked", "-w", "%{http_code}", vip="10.10.0.11").stdout
        assert ask().endswith("200")
        path.write_text(document(lab).replace("proxied-unchecked, tls: true, tls_verify: false", f"proxied-unchecked, tls: true, tls_ca_file: tls/ca.crt, tls_server_name: {NAME}"))
        lab.apply(path)
        assert ask().endswith("502")
        # The log says why, in OpenSSL's words.
        for which, why in (("wrong", "ostname mismatch"), ("stranger", "self-signed"), ("expired", "expired"), ("other-address", "IP address mismatch"), ("by-system", "local issuer")):
            lines = lambda: [json.loads(line) for proxy in ("proxy1", "proxy2") for line in lab.log(proxy, "l7").read_text(errors="replace").splitlines() if f'"/proxied-{which}"' in line]
            wait_until(f"the log tells of {which}", lines)
            assert all(line["failure"] == "certificate_refused" and why in line["failure_detail"] for line in lines()), (which, lines())
    finally:
        lab.apply(lab.directory("edge") / "edge.yaml")
        origin.stop()


def test_an_authority_that_checks_nothing_or_cannot_be_read_is_a_fault(lab):
    (lab.directory("edge") / "nonsense.pem").write_text("not a certificate\n")
    path = lab.directory("edge") / "authorities.yaml"
    pool = "  - {{name: p, {0}, backends: [{{name: b, addresses: [10.10.0.21], port: 1}}]}}\n".format
    for keys, why in (
        ("tls: true, tls_verify: false, tls_ca_file: example.crt", "checks nothing"),
        ("tls_verify: true", "does not speak TLS"),
        ("tls: true, tls_verify: true, tls_ca_file: nonsense.pem", "cannot be used"),
        ("tls: true, tls_verify: true, tls_ca_file: none.pem", "none.pem"),
    ):
        path.write_text((lab.directory("edge") / "edge.yaml").read_text().replace("pools:\n", "pools:\n" + pool(keys)))
        checked = lab.tidegate("check", path, check=False)
        assert checked.returncode == 1 and why in checked.stdout and checked.stdout.count("^") == 1, (keys, checked.stdout)


def test_the_name_a_client_asks_for_chooses_the_certificate(lab):
    home = lab.directory("edge")
    key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes".split()
    sh("openssl", "req", "-x509", *key, "-days", "30", "-subj", "/CN=other", "-addext", "subjectAltName=DNS:other.test,DNS:*.wild.test", "-keyout", home / "other.key", "-out", home / "other.crt")
    path = home / "names.yaml"
    text = (home / "edge.yaml").read_text()
    text = text.replace("certificates:\n", "certificates:\n  - {name: other, certificate_file: other.crt, key_file: other.key}\n", 1)
    path.write_text(text.replace("tls: {certificates: [example]}", "tls: {certificates: [example, other]}"))
    lab.apply(path)
    try:
        for name, subject in (("other.test", "other"), ("a.wild.test", "other"), ("www.example.test", "example.test"), ("unknown.test", "example.test"), (None, "example.test")):
            for address in ("10.10.0.100", "[fd10::100]"):
                server_name = f"-servername {name}" if name else "-noservername"
                shown = lab.run("client-eu", "sh", "-c", f"openssl s_client {server_name} -connect {address}:443 </dev/null 2>/dev/null | openssl x509 -noout -subject").stdout
                assert shown.strip() == f"subject=CN = {subject}", (name, shown)
    finally:
        lab.apply(home / "edge.yaml")
