# SPDX-License-Identifier: Apache-2.0
"""What nginx and HAProxy answer, and what the proxy answers from the same file as `tidegate import` reads it."""

import base64
import http.client
import json
import re
import socket
import subprocess
from urllib.parse import urljoin

import box
from lab import open_socket
from marks import long
from netns import wait_until

ORIGIN = """
daemon off; pid origin.pid; error_log stderr; events {}
http {
  access_log off; client_body_temp_path ob; proxy_temp_path op; fastcgi_temp_path of; uwsgi_temp_path ou; scgi_temp_path os;
  server { listen 127.0.0.1:9001; location / { return 200 "one $request_method $host $request_uri who=$http_x_who left=$http_x_left\\n"; } }
  server { listen 127.0.0.1:9002; location / { return 200 "two $request_method $host $request_uri\\n"; } }
  server { listen 127.0.0.1:9003; location / { if ($http_authorization = "") { return 401; } return 204; } }
}
"""
NGINX = """
daemon off; pid reference.pid; error_log stderr; events {}
http {
  access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  upstream app { server 127.0.0.1:9001; }
  upstream other { server 127.0.0.1:9002; }
  upstream judge { server 127.0.0.1:9003; }
  server {
    listen 127.0.0.1:8080;
    server_name a.test;
    proxy_set_header Host $host;
    location / { proxy_pass http://app; }
    location /admin { deny 127.0.0.1; allow 127.0.0.0/8; deny all; proxy_pass http://app; }
    location /inside/ { allow 127.0.0.0/8; deny all; proxy_pass http://app; }
    location ~ /\\.ht { deny all; }
    location = /status { return 200 "fine"; }
    location /v1/ { proxy_pass http://other/v2/; proxy_set_header Host $host; }
    location /read/ { limit_except GET { deny all; } proxy_pass http://app; }
    location /fields { proxy_pass http://app; proxy_set_header Host $host; proxy_set_header X-Who "$remote_addr $http_x_me"; proxy_set_header X-Left ""; add_header X-Seen yes; }
    location /in/ { internal; proxy_pass http://app; }
    location /secret/ { auth_basic "s"; auth_basic_user_file users; proxy_pass http://app; location /secret/open/ { auth_basic off; proxy_pass http://app; } }
    location /either/ { satisfy any; allow 10.0.0.0/8; deny all; auth_basic "s"; auth_basic_user_file users; proxy_pass http://app; }
    location /asked/ { auth_request /judge; proxy_pass http://app; }
    location = /judge { internal; proxy_pass http://judge; proxy_pass_request_body off; proxy_set_header Content-Length ""; }
    location ~* \\.(png|css)$ { proxy_pass http://other; }
    location ^~ /static/ { proxy_pass http://app; }
    location /key/ { if ($http_x_key != "k") { return 403; } proxy_pass http://app; }
    location /post/ { if ($request_method !~ ^(GET|HEAD)$) { return 405; } proxy_pass http://app; }
    location /old/ { return 301 http://new.test$request_uri; }
  }
  server { listen 127.0.0.1:8080; server_name .b.test; if ($host = go.b.test) { return 302 http://there.test/; } location / { return 200 "b"; } }
  server { listen 127.0.0.1:8080 default_server; server_name _; return 404; }
}
"""
HAPROXY = """
defaults
    mode http
    timeout connect 2s
    timeout client 5s
    timeout server 5s
userlist people
    user joe password @HASH@
frontend f
    bind 127.0.0.1:8080
    acl admin path_beg /admin
    acl inside src 10.0.0.0/8
    acl local src 127.0.0.0/8
    acl api hdr(host) -i api.test
    acl health path /admin/health
    http-request deny if admin !inside !health
    http-request deny deny_status 429 if { path_beg /limited } local
    http-request auth realm r if { path_beg /secret } !{ http_auth(people) }
    http-request return status 200 content-type text/plain string pong if { path /ping }
    http-request set-priority-class int(-5) if admin
    http-request set-header X-Who %[src]
    http-request del-header X-Left
    http-request redirect location /new code 301 if { path /old }
    http-request redirect prefix http://b.test code 302 if { hdr(host) -i a.test } { path_beg /moved }
    http-response set-header X-Seen yes
    use_backend other if api { path_beg /o }
    use_backend other if METH_POST !{ hdr(x-plain) -m found }
    use_backend other if { url_param(to) other } or { cook(to) other }
    default_backend app
backend app
    server a 127.0.0.1:9001
backend other
    server b 127.0.0.1:9002
"""
NGINX_CONDITIONS = """
daemon off; pid reference.pid; error_log stderr; events {}
http {
  access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  server {
    listen 127.0.0.1:8080; server_name a.test;
    location /arg/ { if ($arg_k = evil) { return 403; } proxy_pass http://127.0.0.1:9001; }
    location /argument/ { if ($arg_k != good) { return 403; } proxy_pass http://127.0.0.1:9001; }
    location /cookie/ { if ($cookie_k = evil) { return 403; } proxy_pass http://127.0.0.1:9001; }
    location /field/ { if ($HTTP_x_K = evil) { return 403; } proxy_pass http://127.0.0.1:9001; }
    location /whole/ { if ($http_x_k ~ ^evil$) { return 403; } proxy_pass http://127.0.0.1:9001; }
    location /none/ { if ($http_x_k ~ ^$) { return 403; } proxy_pass http://127.0.0.1:9001; }
    location /only/ { if ($http_x_k != good) { return 403; } proxy_pass http://127.0.0.1:9001; }
    location /upgrade/ { if ($http_upgrade = websocket) { return 403; } proxy_pass http://127.0.0.1:9001; }
    location /blank/ { if ($uri = "/blank/a b") { return 403; } proxy_pass http://127.0.0.1:9001; }
    location = /one { if ($uri ~ one) { return 403; } proxy_pass http://127.0.0.1:9001; }
  }
  server { listen 127.0.0.1:8080; server_name signs.test; location ~ [<>] { return 403; } location / { proxy_pass http://127.0.0.1:9001; } }
  server {
    listen 127.0.0.1:8080; server_name *.w.test;
    if ($http_x_k = evil) { return 403; }
    if ($host = in.w.test) { return 200 "in"; }
    if ($host = own.w.test) { return 200 "this is of another server"; }
    if ($host = In.w.test) { return 200 "no host has upper case"; }
    location / { proxy_pass http://127.0.0.1:9001; }
  }
  server { listen 127.0.0.1:8080; server_name own.w.test; return 403; }
  server {
    listen 127.0.0.1:8080; server_name paths.test;
    location ~ /\\.(?!well-known) { deny all; }
    location ~* (?:#.*#|\\.(?:bak|sw[op])|~)$ { deny all; }
    location ~ [^/]\\.php(/|$) { return 405; }
    location ~ ^/api/v[0-9]+/([^/?]+)/items$ { proxy_pass http://127.0.0.1:9001; proxy_set_header Host $host; }
    location ~ "^/(?<year>\\d{4})/[\\w\\.-]+$" { proxy_pass http://127.0.0.1:9002; proxy_set_header Host $host; }
    location ~ ^/@[^/]+$ { proxy_pass http://127.0.0.1:9002; proxy_set_header Host $host; }
    location / { return 404; }
  }
}
"""
NGINX_HELD = [
    *(("GET", path, "paths.test") for path in (
        "/", "/.git/x", "/a/.env", "/.well-known/x", "/.well", "/a/.wellknown", "/x.bak", "/X.BAK", "/x~", "/x%7e", "/x%23y%23", "/x%23y", "/a.php", "/a.php/b", "/.php",
        "/api/v1/x/items", "/api/v1/a%3Fb/items", "/api/v1/a%20b/items", "/api/v1/a/b/items", "/api/v1//items", "/2024/a.b-c", "/2024/a%20b", "/@me", "/%40me", "/@a/b")),
    *(("GET", "/", host) for host in ("in.w.test", "IN.w.test", "own.w.test", "other.w.test", "w.test")), ("GET", "/one"), ("GET", "/field/x"), ("GET", "/only/x"),
]  # fmt: skip
NGINX_HELD_FIELDS = [
    ("/field/x", {"X_K": "evil"}), ("/field/x", {"X_K": "good"}), ("/whole/x", {"X_K": "evil"}), ("/whole/x", {"X_K": "evils"}), ("/only/x", {"X_K": "good"}),
]  # fmt: skip
NGINX_CLOSED = [
    *(("GET", f"/arg/?{query}") for query in ("k=evil", "K=evil", "k&k=evil", "%6b=good&k=evil", "a=1&k=evil&k=good")),
    *(("GET", f"/argument/?{query}") for query in ("k=good", "K=evil&k=good", "k=%67ood", "")),
    ("GET", "/none/x"), ("GET", "/blank/a%20b"), ("GET", "/a%3Cb", "signs.test"), ("GET", "/a%3cb%3E", "signs.test"),
]  # fmt: skip
NGINX_CLOSED_FIELDS = [
    ("/cookie/x", {"Cookie": "K=evil"}), ("/cookie/x", {"Cookie": "k=evil; k=good"}), ("/upgrade/x", {"Upgrade": "websocket"}),
    *((path, {"X_K": values}) for path in ("/field/x", "/whole/x", "/only/x") for values in (["evil", "good"], ["good", "evil"], "evil, good", "good,evil")),
]  # fmt: skip
HAPROXY_CONDITIONS = """
defaults
    mode http
    timeout connect 2s
    timeout client 5s
    timeout server 5s
frontend f
    bind 127.0.0.1:8080
    acl evil url_param(k) evil
    http-request deny if { path_beg /arg } evil
    http-request deny if { path_beg /only } !{ hdr(x-k) good }
    http-request deny if { path_beg /cook } { cook(k) evil }
    http-request deny if { path_beg /any } { hdr(x-k) evil }
    http-request deny if { path_beg /list } { hdr_reg(x-k) ^evil$ }
    http-request deny if { path_beg /beg } { hdr_beg(x-k) evil }
    http-request deny if { path_beg /slash } { path_sub // }
    http-request deny if { path_beg /www } { hdr_beg(host) -i www. }
    http-request deny if { path_beg /dom } { hdr_dom(host) -i evil }
    http-request deny if { path_beg /up } { hdr(upgrade) -i websocket }
    use_backend other if { url_param(to) other }
    default_backend app
backend app
    server a 127.0.0.1:9001
backend other
    server b 127.0.0.1:9002
"""
HAPROXY_CLOSED = [
    *(("GET", f"/arg?{query}") for query in ("k=evil", "k&k=evil", "k=good&k=evil", "a=1;k=evil", "k=good")), ("GET", "/only"),
    ("GET", "/slash//x"), ("GET", "/www", "www.test"), ("GET", "/dom", "an.evil.test"), ("GET", "/to?to=other"),
]  # fmt: skip
HAPROXY_CLOSED_FIELDS = [
    ("/cook", {"Cookie": "k=good; k=evil"}), ("/up", {"Upgrade": "websocket"}),
    *((path, {"X_K": values}) for path in ("/any", "/list", "/beg", "/only") for values in ("evil", ["good", "evil"], "good, evil", ["evil", "good"], "evil,good")),
]  # fmt: skip
JOE = "Basic " + base64.b64encode(b"joe:secret").decode()
BAD = "Basic " + base64.b64encode(b"joe:guess").decode()


class Connection(http.client.HTTPConnection):
    """From within the box."""

    def connect(self):
        self.sock = open_socket("box", socket.AF_INET, socket.SOCK_STREAM)
        self.sock.settimeout(10)
        self.sock.connect((self.host, self.port))


def ask(port, method, url, host="a.test", **fields):
    """Everything of the answer that the file decides."""
    connection = Connection("127.0.0.1", port)
    try:
        connection.putrequest(method, url, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", host)
        for name, values in fields.items():
            for value in values if isinstance(values, list) else [values]:
                connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read().decode()
    finally:
        connection.close()
    location = answer.getheader("Location")
    where = urljoin(f"http://{host}{url}", location) if location else None
    # nginx adds its own port to a redirect to a path.
    where = where.replace(f"{host}:{port}/", f"{host}/") if where else None
    # Refusals of HAProxy's own have no fields of http-response; the proxy's have.
    seen = (answer.getheader("X-Seen") if answer.status < 400 else None, (answer.getheader("WWW-Authenticate") or "").split(" ")[0])
    return answer.status, where, body if answer.status < 300 else "", seen


NGINX_REQUESTS = [
    ("GET", "/"), ("GET", "/x?y=1"), ("GET", "/", "other.test"), ("GET", "/", "b.test"), ("GET", "/", "c.b.test"), ("GET", "/x", "go.b.test"),
    ("GET", "/admin"), ("GET", "/admin/x"), ("GET", "/administrator"), ("GET", "/adm"), ("GET", "/inside/x"),
    ("GET", "/.htaccess"), ("GET", "/a/.htpasswd"), ("GET", "/static/.ht"), ("GET", "/status"), ("GET", "/status/x"),
    ("GET", "/v1/x?q=2"), ("GET", "/v1/"), ("GET", "/v1"), ("GET", "/read/x"), ("HEAD", "/read/x"), ("POST", "/read/x"), ("DELETE", "/read/x"),
    ("GET", "/in/x"), ("GET", "/secret/x"), ("GET", "/secret/open/x"), ("GET", "/either/x"), ("GET", "/asked/x"), ("GET", "/judge"),
    ("GET", "/a.png"), ("GET", "/a.CSS"), ("GET", "/a.pngx"), ("GET", "/static/a.png"), ("GET", "/read/a.png"), ("POST", "/read/a.png"),
    ("GET", "/key/x"), ("GET", "/post/x"), ("POST", "/post/x"), ("GET", "/old/x?y=1"), ("GET", "/fieldsx"),
]  # fmt: skip
NGINX_FIELDS = [
    ("/secret/x", {"Authorization": JOE}), ("/secret/x", {"Authorization": BAD}), ("/either/x", {"Authorization": JOE}),
    ("/asked/x", {"Authorization": "x"}), ("/key/x", {"X_Key": "k"}), ("/key/x", {"X_Key": "kk"}),
    ("/fields", {"X_Who": "forged", "X_Left": "forged", "X_Me": "me"}),
]  # fmt: skip
HAPROXY_REQUESTS = [
    ("GET", "/"), ("GET", "/admin"), ("GET", "/administrator"), ("GET", "/admin/health"), ("GET", "/admin/healthy"), ("GET", "/limited"),
    ("GET", "/secret"), ("GET", "/secretive"), ("GET", "/ping"), ("GET", "/ping/x"), ("GET", "/old"), ("GET", "/moved/x?y=1"), ("GET", "/moved", "b.test"),
    ("GET", "/o", "api.test"), ("GET", "/x", "api.test"), ("GET", "/o", "API.test"), ("POST", "/x"), ("GET", "/x?to=other"), ("GET", "/x?to=others"),
    ("GET", "/x.bak"), ("POST", "/x.bak"), ("GET", "/x.bak?to=other"),
]  # fmt: skip
HAPROXY_FIELDS = [
    ("/secret", {"Authorization": JOE}), ("/secret", {"Authorization": BAD}), ("/x", {"X_Who": "forged", "X_Left": "forged"}),
    ("/x", {"Cookie": "to=other"}), ("/x", {"Cookie": "to=one"}),
]  # fmt: skip


def protects(theirs, ours):
    """What is closed there is not open here."""
    return theirs[0] < 300 or ours[0] >= 300


def compare(node, reference, imported, requests, fields, closed=((), ())):
    """Starts the reference, then the proxy with the imported file, and asks both the same. `closed`: requests and fields
    for which it is enough that nothing is open that is closed there."""
    node.start("origin", "nginx", "-p", node.home, "-c", node.write("origin.conf", ORIGIN), "-e", "stderr")
    other = node.start("reference", *reference)
    process = node.start("l7", box.binary("l7"), "--config", imported, "--run", node.run_dir)
    node.wait_ready("l7", process)
    for port in (9001, 8080):
        wait_until(f"port {port} opens", lambda p=port: opens(p), 20)
    wrong = []
    for method, url, *host in [*requests]:
        if (theirs := ask(8080, method, url, *host)) != (ours := ask(8081, method, url, *host)):
            wrong.append((method, url, host, theirs, ours))
    for url, given in fields:
        if (theirs := ask(8080, "GET", url, **given)) != (ours := ask(8081, "GET", url, **given)):
            wrong.append(("GET", url, given, theirs, ours))
    for method, url, *host in closed[0]:
        if not protects(theirs := ask(8080, method, url, *host), ours := ask(8081, method, url, *host)):
            wrong.append((method, url, host, theirs, ours))
    for url, given in closed[1]:
        if not protects(theirs := ask(8080, "GET", url, **given), ours := ask(8081, "GET", url, **given)):
            wrong.append(("GET", url, given, theirs, ours))
    other.kill()  # HAProxy's status is that of its signal
    assert not wrong, "\n".join(str(each) for each in wrong)


def opens(port):
    with open_socket("box", socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def imported(node, name, text):
    """The document that import makes of the file, for the port beside its own."""
    done = node.tidegate("--output", "json", "import", node.write(name, text.replace(":8080", ":8081")))
    assert done.returncode == 0, done
    told = json.loads(done.stdout)
    return node.write("edge.yaml", told["document"]), told


def hashed():
    return subprocess.run(["openssl", "passwd", "-6", "secret"], capture_output=True, text=True, check=True).stdout.strip()


@long
def test_an_imported_file_of_nginx_answers_as_nginx_does(lab):
    with box.raised() as node:
        node.write("users", f"joe:{hashed()}\n")
        document, told = imported(node, "nginx.conf", NGINX)
        assert "closed" not in document.read_text(), document.read_text()
        assert all(re.search("access_log|temp_path|daemon|pid|error_log", left["text"]) or left["why"].startswith("no request goes") for left in told["left"]), told["left"]
        reference = ["nginx", "-p", node.home, "-c", node.write("reference.conf", NGINX), "-e", "stderr"]
        compare(node, reference, document, NGINX_REQUESTS, NGINX_FIELDS)


@long
def test_an_imported_file_of_haproxy_answers_as_haproxy_does(lab):
    with box.raised() as node:
        text = HAPROXY.replace("@HASH@", hashed())
        document, told = imported(node, "haproxy.cfg", text)
        assert told["left"] == [] and "closed" not in document.read_text(), told["left"]
        reference = ["haproxy", "-db", "-f", node.write("reference.cfg", text)]
        compare(node, reference, document, HAPROXY_REQUESTS, HAPROXY_FIELDS)


def test_an_imported_file_protects_as_nginx_does(lab):
    with box.raised() as node:
        keep = ("/", "/admin", "/inside/x", "/administrator", "/.htaccess", "/read/x", "/in/x", "/key/x")
        node.write("users", f"joe:{hashed()}\n")
        document, _ = imported(node, "nginx.conf", NGINX)
        reference = ["nginx", "-p", node.home, "-c", node.write("reference.conf", NGINX), "-e", "stderr"]
        compare(node, reference, document, [each for each in NGINX_REQUESTS if each[1] in keep and len(each) == 2], [])


def test_what_a_condition_of_nginx_refuses_is_refused(lab):
    with box.raised() as node:
        document, told = imported(node, "nginx.conf", NGINX_CONDITIONS)
        left = {each["line"]: each["why"] for each in told["left"] if each["line"] > 4}
        assert left.keys() == {7, 8, 9, 12, 14, 15}, told["left"]
        assert left[7] == "nginx takes its name in upper and lower case, and a route as it is written; its routes answer 403 instead"
        reference = ["nginx", "-p", node.home, "-c", node.write("reference.conf", NGINX_CONDITIONS), "-e", "stderr"]
        compare(node, reference, document, NGINX_HELD, NGINX_HELD_FIELDS, (NGINX_CLOSED, NGINX_CLOSED_FIELDS))


@long
def test_what_a_condition_of_haproxy_refuses_is_refused(lab):
    with box.raised() as node:
        document, told = imported(node, "haproxy.cfg", HAPROXY_CONDITIONS)
        assert {each["line"] for each in told["left"]} == {10, 12, 16, 17, 18, 19}, told["left"]
        compare(node, ["haproxy", "-db", "-f", node.write("reference.cfg", HAPROXY_CONDITIONS)], document, [], [], (HAPROXY_CLOSED, HAPROXY_CLOSED_FIELDS))
