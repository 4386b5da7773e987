# SPDX-License-Identifier: Apache-2.0
"""Policies of the proxy, as curl sees them over HTTP/1.1 and HTTP/2."""

import contextlib
import hashlib
import itertools
import json
import pathlib
import subprocess
import textwrap
import time

from issuer import Issuer, encoded
from lab import LabError
from mmdb import database
from netns import in_namespace, wait_until
from topology import HOSTS

WWW = "https://www.example.test"
PROXY = "10.10.0.11"
HEAD = "policies:\n"

RUNS = itertools.count(1)


def policies(lab, policy, route, more="", replaced=()):
    """The lab's document with these policies (YAML lines) and a route `/api/policy/*` that has `route`."""
    added = f'  - {{name: policed, listeners: [https], hosts: [www.example.test], path: "/api/policy/*", pool: origins, {route}}}\n'
    return lab.configured(("routes:\n", HEAD + policy + "routes:\n" + added + more), *replaced)


@contextlib.contextmanager
def process(lab, host, program, *arguments):
    """A Python program on a host, until the block ends. Its output is read line by line."""
    command = in_namespace(HOSTS[host].namespace, "/usr/bin/python3", "-c", program, *arguments)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def curl(lab, path, *options, host="client-eu"):
    """The answer's status, fields (names in lower case) and body."""
    out = lab.curl(host, WWW + path, "-D", "-", *options, vip=PROXY).stdout
    head, _, body = out.replace("\r\n", "\n").partition("\n\n")
    status, *lines = head.split("\n")
    return int(status.split()[1]), {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}, body


def log_lines(lab, path):
    return [json.loads(line) for line in lab.log("proxy1", "l7").read_text(errors="replace").splitlines() if f'"{path}"' in line]


def test_a_limit_tells_one_client_to_come_again_and_serves_another(lab):
    name = f"few{next(RUNS)}"  # a quota with the same name would continue
    path = f"/api/policy/{name}"
    with policies(lab, f"  - {{name: {name}, limit: {{requests: 3, per: 1h}}}}\n", f"policies: [{name}]"):
        told = [curl(lab, path, version) for version in ("--http1.1", "--http2", "--http1.1", "--http2", "--http1.1")]
        assert [status for status, _, _ in told] == [200, 200, 200, 429, 429], told
        assert told[0][1]["ratelimit-policy"] == f'"{name}";q=3;w=3600' and told[0][1]["ratelimit"].startswith(f'"{name}";r=2;t='), told[0]
        assert 1100 < int(told[4][1]["retry-after"]) <= 1200 and "Too many requests" in told[4][2], told[4]
        assert curl(lab, path, host="client-us")[0] == 200
        explain = lambda client: lab.plane("proxy1", "l7", f"/explain?client={client}&url={WWW}{path}").json()["policies"]
        eu = lab.run("client-eu", "ip", "-4", "-o", "addr", "show", "scope", "global").stdout.split("inet ")[1].split("/")[0]
        assert explain(eu)[0]["verdict"] == "refused" and explain("192.0.2.77")[0]["verdict"] == "passed", explain(eu)
        wait_until("the log has every verdict", lambda: len(log_lines(lab, path)) >= 6, 10)
        verdicts = sorted(line["policies"] for line in log_lines(lab, path))
        assert verdicts == [f"{name}.limit=passed"] * 4 + [f"{name}.limit=refused"] * 2, verdicts
        metrics = lab.plane("proxy1", "l7", "/metrics").body.decode()
        assert f'tidegate_l7_policy_verdicts_total{{policy="{name}",kind="limit",verdict="refused"}} 2' in metrics


def test_a_quota_is_changed_at_once_without_a_version(lab):
    name = f"shops{next(RUNS)}"
    version = lambda: lab.api("GET", "/v1/status").json()["head"]["version"]
    ask = lambda shop: curl(lab, f"/api/policy/{name}", "-H", f"X-Shop: {shop}")
    with policies(lab, f"  - {{name: {name}, limit: {{requests: 2, per: 1h, by: ['header:X-Shop']}}}}\n", f"policies: [{name}]"):
        before = version()
        assert [ask("one")[0] for _ in range(3)] == [200, 200, 429]
        told = lab.tidegate("quota", name, "--requests", "5", "--note", "a campaign", "--wait").stdout
        assert f"policy {name} allows 5 requests" in told, told
        status, fields, _ = ask("two")
        assert status == 200 and fields["ratelimit-policy"] == f'"{name}";q=5;w=3600', fields
        assert lab.api("GET", "/v1/admin").json()["words"][f"limit/{name}"]["requests"] == 5
        assert version() == before
        lab.tidegate("quota", name, "--as-configured", "--wait")
        assert ask("three")[1]["ratelimit-policy"] == f'"{name}";q=2;w=3600'
        for words, why in (((name + "x", "--requests", "5"), f"did you mean '{name}'?"), ((name, "--requests", "3000000000"), "from 1 to")):
            try:
                lab.tidegate("quota", *words)
            except LabError as error:
                assert why in str(error), error
            else:
                raise AssertionError(f"{words} was taken")


def test_a_faulty_policy_is_refused_with_its_place_and_a_hint(lab):
    try:
        with policies(lab, "  - {name: few, limit: {requests: 3, by: [clent]}}\n", "policies: [fwe]"):
            raise AssertionError("it was taken")
    except LabError as error:
        assert "did you mean 'client'?" in str(error) and "did you mean 'few'?" in str(error), error


def test_clients_show_who_they_are_by_key_password_or_token(lab):
    issuer = Issuer(lab.directory("edge"))
    password = subprocess.run(["openssl", "passwd", "-6", "open sesame"], check=True, capture_output=True).stdout.decode().strip()
    policy = f"""  - name: who
    authenticate:
      identity_header: X-Client
      api_keys: {{keys: [{{name: shop, sha256: {hashlib.sha256(b"xyzzy").hexdigest()}, roles: [reader]}}]}}
      basic: {{users: [{{name: amy, password: "{password}", roles: [writer]}}]}}
      jwt: {{keys_file: issuer.json, algorithms: [RS256], issuer: "https://id.test", audience: [api]}}
    authorise: {{rules: [{{methods: [GET], roles: [reader]}}, {{roles: [writer]}}]}}
"""
    path = "/api/policy/who"
    claims = {"sub": "bob", "iss": "https://id.test", "aud": "api", "roles": ["reader"], "exp": time.time() + 600}
    good, old, other, evil, without = (
        issuer.token(**{**claims, **changed})
        for changed in ({}, {"exp": time.time() - 600}, {"aud": "web"}, {"iss": "https://id.test.evil"}, {"roles": []})
    )
    with policies(lab, policy, "policies: [who]"):
        for version in ("--http1.1", "--http2"):
            status = lambda *options: curl(lab, path, version, *options)[0]
            bearer = lambda token: status("--oauth2-bearer", token)
            assert status() == 401 and status("-H", "X-API-Key: xyzzz") == 401
            assert status("-H", "X-API-Key: xyzzy") == 200
            assert status("-u", "amy:open sesame", "-X", "POST") == 200 and status("-u", "amy:open sesame") == 403
            assert status("-u", "amy:shut sesame") == 401
            assert bearer(good) == 200 and bearer(without) == 403
            assert bearer(old) == bearer(other) == bearer(evil) == 401
            assert bearer(encoded({"alg": "none"}) + "." + encoded(claims) + ".") == 401
        challenge = curl(lab, path)[1]["www-authenticate"]
        assert challenge.startswith(("Basic realm=", "Bearer realm=")), challenge
        wait_until("the log has every request", lambda: len(log_lines(lab, path)) >= 25, 10)
        lines = log_lines(lab, path)
        assert {line["identity"] for line in lines if line["status"] == 200} == {"shop", "amy", "bob"}, lines
        details = {line.get("failure_detail") for line in lines if line.get("failure") == "unauthenticated"}
        assert details == {"no_credentials", "key_unknown", "password_wrong", "token_expired", "token_audience", "token_issuer", "token_algorithm"}, details


KEY_SERVER = r"""
import http.server, pathlib, ssl, sys
class KeyServer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(pathlib.Path(sys.argv[1]).read_bytes())
    def log_message(self, *arguments):
        pass
server = http.server.ThreadingHTTPServer(("10.10.0.21", 4443), KeyServer)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
server.socket = context.wrap_socket(server.socket, server_side=True)
print("listens", flush=True)
server.serve_forever()
"""


def test_the_keys_of_tokens_follow_their_url(lab):
    home = lab.directory("edge")
    first, second = Issuer(home, "issuer-1"), Issuer(home, "issuer-2")
    of_first, of_second = (issuer.token(sub="amy") for issuer in (first, second))
    served, certificate, key = home / "served.json", home / "keys.crt", home / "keys.key"
    subject = ("-subj", "/CN=keys", "-addext", "subjectAltName=IP:10.10.0.21")
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    subprocess.run(["openssl", "req", "-x509", *new_key, *subject, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    policy = """  - name: fetched
    authenticate:
      jwt: {keys_url: "https://10.10.0.21:4443/jwks.json", keys_ca_file: keys.crt, algorithms: [RS256]}
"""
    path = "/api/policy/keys"
    served.write_text(first.keys.read_text())
    with process(lab, "origin1", KEY_SERVER, served, certificate, key) as server:
        assert server.stdout.readline() == "listens\n"
        with policies(lab, policy, "policies: [fetched]"):
            status = lambda token, version="--http1.1": curl(lab, path, version, "--oauth2-bearer", token)[0]
            wait_until("the keys were fetched", lambda: status(of_first) == 200, 10)
            served.write_text(second.keys.read_text())
            wait_until("the new key was fetched", lambda: status(of_second) == 200, 10)
            assert status(of_first, "--http2") == 401 and status(of_second, "--http2") == 200
            server.kill()
            server.wait()
            assert status(of_second) == 200, "the last good set stays in force"
            told = lab.plane("proxy1", "l7", f"/explain?client=192.0.2.77&url={WWW}{path}").json()["policies"][0]["keys"]
            assert (told["url"], told["count"]) == ("https://10.10.0.21:4443/jwks.json", 1), told
            metrics = lab.plane("proxy1", "l7", "/metrics").body.decode()
            assert 'tidegate_l7_jwks_keys{policy="fetched"} 1' in metrics


def client_of_the_readme():
    """`signed` of the Python client that l7/README.md shows."""
    text = (pathlib.Path(__file__).parents[2] / "l7" / "README.md").read_text()
    block = text.split("```python\n")[1].split("```")[0]
    names = {}
    exec(textwrap.dedent(block), names)
    return names["signed"]


def test_a_program_signs_its_requests(lab):
    secret = b"s" * 40
    keys = {"keys": [{"kty": "oct", "kid": "partner", "k": encoded(secret)}]}
    (lab.directory("edge") / "partners.json").write_text(json.dumps(keys))
    policy = """  - name: signed
    authenticate: {signatures: {keys_file: partners.json, clients: [{name: partner, roles: [writer]}]}}
    authorise: {rules: [{roles: [writer]}]}
"""
    signed, path = client_of_the_readme(), f"/api/policy/signed-{time.monotonic_ns()}"
    options = lambda fields: [option for name, value in fields.items() for option in ("-H", f"{name}: {value}")]
    of = lambda *what, by=secret: options(signed("GET", "www.example.test", *what, "partner", by))
    with policies(lab, policy, "policies: [signed]"):
        for version in ("--http1.1", "--http2"):
            once = of(path, "a=1")
            assert curl(lab, f"{path}?a=1", version, *once)[0] == 200
            assert curl(lab, f"{path}?a=1", version, *once)[0] == 401, "a replay"
            assert curl(lab, f"{path}?a=2", version, *of(path, "a=1"))[0] == 401
            assert curl(lab, path, version, *of(path, "", by=b"t" * 40))[0] == 401
        wait_until("the log has every request", lambda: len(log_lines(lab, path)) >= 8, 10)
        lines = log_lines(lab, path)
        assert {line["identity"] for line in lines if line["status"] == 200} == {"partner"}, lines
        assert {line.get("failure_detail") for line in lines if line["status"] == 401} == {"signature_replayed", "signature_wrong"}, lines


def test_a_country_decides_who_may_come(lab):
    file = lab.directory("edge") / "countries.mmdb"
    file.write_bytes(database({"10.1.0.0/16": (48.85, 2.35, "FR"), "10.2.0.0/16": (41.88, -87.63, "US")}))
    policy = "  - {name: french, authorise: {places: {allow_countries: [FR]}}}\n"
    with policies(lab, policy, "policies: [french]", replaced=[("geo:\n", f"geo:\n  mmdb: {file}\n")]):
        for version in ("--http1.1", "--http2"):
            assert curl(lab, "/api/policy/place", version)[0] == 200
            assert curl(lab, "/api/policy/place", version, host="client-us")[0] == 403
        told = lab.plane("proxy1", "l7", f"/explain?client=10.2.0.2&url={WWW}/api/policy/place").json()["policies"][0]
        assert (told["verdict"], told["because_of"], told["country"]) == ("refused", "country", "US"), told


SERVICE = r"""
import http.server
class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        print(self.headers["X-Forwarded-Uri"], flush=True)
        known = self.headers["Authorization"].startswith("Bearer good-")
        body = b"" if known else b"please sign in"
        self.send_response(200 if known else 401)
        for name, value in (("X-User", "amy"), ("X-Plan", "gold")) if known else (("WWW-Authenticate", "Form"),):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
server = http.server.ThreadingHTTPServer(("10.10.0.21", 4180), Service)
print("listens", flush=True)
server.serve_forever()
"""


def test_a_service_is_asked_who_comes(lab):
    policy = """  - name: sso
    authenticate:
      forward: {pool: auth, path: /verify, name_header: X-User, to_backend: [X-Plan], to_client: [WWW-Authenticate], cache_ttl: 1h, cache_by: ["header:Authorization"]}
"""
    pool = "  - {name: auth, retry_attempts: 0, eject_after: 0, backends: [{name: b, addresses: [10.10.0.21], port: 4180}]}\n"
    run = time.monotonic_ns()  # earlier remembered answers, log lines and counts belong to other clients
    path = f"/api/policy/forward-{run}"
    good = ("-H", f"Authorization: Bearer good-{run}")
    with policies(lab, policy, "policies: [sso]", replaced=[("pools:\n", "pools:\n" + pool)]):
        assert curl(lab, path, *good)[0] == 503, "nobody listens"
        with process(lab, "origin1", SERVICE) as service:
            assert service.stdout.readline() == "listens\n"
            for version in ("--http1.1", "--http2"):
                status, fields, body = curl(lab, path, version, "-H", "Authorization: Bearer bad")
                assert (status, fields.get("www-authenticate"), body) == (401, "Form", "please sign in"), (status, fields, body)
                assert curl(lab, path, version, *good)[0] == 200
            asked = [service.stdout.readline() for _ in range(3)]
            assert asked == [path + "\n"] * 3, "a yes is remembered, a no never"
        assert curl(lab, path, *good)[0] == 200, "it is remembered though the service is gone"
        wait_until("the log has every request", lambda: len(log_lines(lab, path)) >= 6, 10)
        lines = log_lines(lab, path)
        assert [line.get("identity") for line in lines if line["status"] == 200] == ["amy"] * 3, lines
        assert [line["failure"] for line in lines if line["status"] == 503] == ["auth_unavailable"], lines
        metrics = lab.plane("proxy1", "l7", "/metrics").body.decode()
        remembered = next(line for line in metrics.splitlines() if line.startswith('tidegate_l7_forward_remembered_total{policy="sso"}'))
        assert int(remembered.split()[1]) >= 2, remembered


def test_a_browser_is_answered_a_preflight_and_told_to_be_careful(lab):
    policy = """  - name: web
    respond:
      cors: {origins: ["https://app.test"], headers: [X-One], credentials: true}
      security: {hsts: 1d, frame_options: DENY}
      error_pages: [{statuses: [502, 504], body: "<p>sorry, {status}</p>"}]
"""
    nowhere = '  - {name: gone, listeners: [https], hosts: [www.example.test], path: "/api/gone", pool: gone, policies: [web]}\n'
    pool = "  - {name: gone, retry_attempts: 0, eject_after: 0, backends: [{name: b, addresses: [10.10.0.21], port: 9}]}\n"
    ask = ("-X", "OPTIONS", "-H", "Access-Control-Request-Method: GET", "-H", "Access-Control-Request-Headers: x-one")
    added = '  - {name: policed, listeners: [https], hosts: [www.example.test], path: "/api/policy/*", methods: [GET], pool: origins, policies: [web]}\n'
    with lab.configured(("routes:\n", HEAD + policy + "routes:\n" + added + nowhere), ("pools:\n", "pools:\n" + pool)):
        for version in ("--http1.1", "--http2"):
            status, fields, _ = curl(lab, "/api/policy/x", version, *ask, "-H", "Origin: https://app.test")
            assert (status, fields["access-control-allow-origin"]) == (204, "https://app.test"), fields
            assert curl(lab, "/api/policy/x", version, *ask, "-H", "Origin: https://evil.test")[0] == 403
            status, fields, _ = curl(lab, "/api/policy/x", version, "-H", "Origin: https://app.test")
            assert status == 200 and fields["access-control-allow-credentials"] == "true", fields
            assert fields["strict-transport-security"] == "max-age=86400" and fields["x-frame-options"] == "DENY", fields
            status, fields, body = curl(lab, "/api/gone", version)
            assert (status, body, fields["content-type"]) == (502, "<p>sorry, 502</p>", "text/html; charset=utf-8"), fields
