# SPDX-License-Identifier: Apache-2.0
"""Who a client is by its TLS certificate, and which route its request takes: curl and openssl s_client as clients."""

import json
import re
import signal
import textwrap

import box
from netns import sh, wait_until

URL = "https://www.example.test:8443"
# Answers with the fields of the request.
ECHO = """
import http.server, json, os, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = json.dumps(dict(self.headers.items())).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_DELETE = do_GET
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", 9000), Echo).serve_forever()
"""
EDGE = """
nodes:
  - {{name: box, l7: {{access_log: {home}/access.log}}}}
certificates:
  - {{name: own, certificate_file: server.crt, key_file: server.key}}
pools:
  - {{name: echo, backends: [{{name: b, addresses: [127.0.0.1], port: 9000}}]}}
policies:
  - name: who
    authenticate:
      identity_header: X-Client
      certificates:
        client_cert: true
        clients:
          - {{name: "spiffe://example.test/billing", roles: [writer]}}
          - {{name: "spiffe://example.test/*", roles: [reader]}}
    authorise:
      rules:
        - {{methods: [GET], roles: [reader, writer]}}
        - {{roles: [writer]}}
listeners:
  - name: mutual
    bind: ["0.0.0.0:8443"]
    default_deny: true
    tls:
      certificates: [own]
      client_certificates: {{ca_file: ca.crt, crl_file: ca.crl}}
routes:
  - {{name: api, path: "/api/*", pool: echo, policies: [who]}}
  - {{name: beta, path: "/api/*", pool: echo, policies: [who], match: {{headers: {{X-Beta: "1"}}}}, response_headers: {{X-Route: beta}}}}
  - {{name: forgotten, path: /forgotten, status: 204}}
"""


def make_certificates(home):
    key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes".split()
    (home / "ca.cnf").write_text(
        f"[ca]\ndefault_ca = a\n[a]\ndatabase = {home}/ca.index\nserial = {home}/ca.serial\ncrlnumber = {home}/ca.number\nnew_certs_dir = {home}\n"
        f"certificate = {home}/ca.crt\nprivate_key = {home}/ca.key\ndefault_md = sha256\ndefault_days = 30\ndefault_crl_days = 30\npolicy = any\ncopy_extensions = copy\n[any]\ncommonName = supplied\n"
    )
    (home / "ca.index").write_text("")
    (home / "ca.serial").write_text("1000\n")
    (home / "ca.number").write_text("01\n")
    for name in ("ca", "stranger"):
        sh("openssl", "req", "-x509", *key, "-days", "30", "-subj", f"/CN={name}", "-keyout", home / f"{name}.key", "-out", home / f"{name}.crt")
    sh("openssl", "req", "-x509", *key, "-days", "30", "-subj", "/CN=www.example.test", "-addext", "subjectAltName=DNS:www.example.test", "-keyout", home / "server.key", "-out", home / "server.crt")
    for name, uri, purpose, more in (
        ("billing", "billing", "clientAuth", ()),
        ("shop", "shop", "clientAuth", ()),
        ("revoked", "revoked", "clientAuth", ()),
        ("expired", "expired", "clientAuth", ("-startdate", "20200101000000Z", "-enddate", "20200201000000Z")),
        ("server-only", "server", "serverAuth", ()),
    ):
        sh("openssl", "req", *key, "-subj", f"/CN={name}", "-addext", f"subjectAltName=URI:spiffe://example.test/{uri}", "-addext", f"extendedKeyUsage={purpose}", "-keyout", home / f"{name}.key", "-out", home / "request")
        sh("openssl", "ca", "-config", home / "ca.cnf", "-batch", "-notext", *more, "-in", home / "request", "-out", home / f"{name}.crt")
    revoke(home, "revoked")


def revoke(home, name):
    sh("openssl", "ca", "-config", home / "ca.cnf", "-revoke", home / f"{name}.crt")
    sh("openssl", "ca", "-config", home / "ca.cnf", "-gencrl", "-out", home / "ca.crl")


def test_clients_are_known_by_their_certificates_and_routes_by_what_requests_have(lab):
    with box.raised() as node:
        home = node.home
        make_certificates(home)
        echo = node.start("echo", "/usr/bin/python3", "-c", textwrap.dedent(ECHO))
        process = node.start_plane("l7", node.write("edge.yaml", EDGE.format(home=home)))
        node.wait_ready("l7", process)
        wait_until("the echo listens", lambda: lab.run("box", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9000", check=False).returncode == 0, process=echo)

        def curl(name, path, *options):
            shown = ("--cert", home / f"{name}.crt", "--key", home / f"{name}.key") if name else ()
            return lab.run(
                "client-eu", "curl", "-sS", "--max-time", "20", "--cacert", home / "server.crt", "--resolve", "www.example.test:8443:10.10.0.61",
                "-D", "-", *shown, *options, URL + path, check=False,
            )  # fmt: skip

        def status(name, path, *options):
            done = curl(name, path, *options)
            assert done.returncode == 0, done
            return int(done.stdout.split()[1])

        for version in ("--http1.1", "--http2"):
            answer = curl("billing", "/api/x", version, "-H", "X-Client: root", "-H", "Client-Cert: :AAAA:").stdout
            fields = json.loads(answer.split("\r\n\r\n", 1)[1])
            assert fields["X-Client"] == "spiffe://example.test/billing", fields
            assert re.fullmatch(r":MII[A-Za-z0-9+/=]+:", fields["Client-Cert"]), fields
            assert status("shop", "/api/x", version, "-X", "DELETE") == 403
        assert status("billing", "/api/x", "-X", "DELETE") == 200
        assert status("billing", "/forgotten") == status("billing", "/none") == 403
        assert "x-route: beta" not in curl("shop", "/api/x").stdout.lower()
        assert "x-route: beta" in curl("shop", "/api/x", "-H", "X-Beta: 1").stdout.lower()

        refusals = {"": "certificate required", "expired": "certificate expired", "revoked": "certificate revoked", "server-only": "unsupported certificate"}
        for name, why in refusals.items():
            done = curl(name, "/api/x", "--http1.1")
            assert done.returncode != 0 and why in done.stderr, (name, done)
        done = curl("stranger", "/api/x", "--http1.1")
        assert done.returncode != 0 and "unknown ca" in done.stderr, done
        # The client has its alert before the proxy counts it.
        counted = lambda reason: f'tidegate_l7_client_certificates_refused_total{{reason="{reason}"}} 1\n' in node.ask("l7", "/metrics").body.decode()
        for reason in ("missing", "expired", "revoked", "wrong_purpose", "unknown_authority"):
            wait_until(f"{reason} is counted", lambda: counted(reason), 5)
        explained = node.ask("l7", f"/explain?client=10.1.0.2&url={URL}/api/x&headers=X-Beta:1").json()
        assert explained.get("route") == "beta" and explained["client_certificates"]["required"] is True, explained

        def session(*options):
            request = "GET /api/x HTTP/1.1\r\nHost: www.example.test\r\nConnection: close\r\n\r\n"
            command = ["openssl", "s_client", "-connect", "10.10.0.61:8443", "-servername", "www.example.test", "-ign_eof", "-cert", home / "shop.crt", "-key", home / "shop.key", *options]
            line = " ".join(str(word) for word in command)
            return lab.run("client-eu", "bash", "-c", f"printf '{request}' | {line} 2>&1", check=False).stdout

        for version in ("-tls1_2", "-tls1_3"):
            ticket = home / f"session{version}"
            assert "HTTP/1.1 200 OK" in session(version, "-sess_out", ticket)
            again = session(version, "-sess_in", ticket, "-sess_out", ticket)
            assert "HTTP/1.1 200 OK" in again and "\nReused, " in again, again
        # A newer list: the tickets of both versions are no longer good, and the client is refused.
        revoke(home, "shop")
        process.popen.send_signal(signal.SIGHUP)
        wait_until("the newer list is in force", lambda: "certificate revoked" in curl("shop", "/api/x", "--http1.1").stderr, process=process)
        for version in ("-tls1_2", "-tls1_3"):
            refused = session(version, "-sess_in", home / f"session{version}")
            assert "HTTP/1.1" not in refused and "\nReused, " not in refused, refused
        assert status("billing", "/api/x") == 200
        log = [json.loads(line) for line in (home / "access.log").read_text().splitlines()]
        first = next(line for line in log if line["path"] == "/api/x")
        assert first["identity"] == first["certificate"] == "spiffe://example.test/billing" and first["certificate_serial"] == "1000", first
