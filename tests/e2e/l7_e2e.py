# SPDX-License-Identifier: Apache-2.0
"""The proxy as real clients see it: curl, openssl, h2load, and raw sockets for input that no well-behaved client
sends."""

import hashlib
import itertools
import json
import re
import shutil
import socket
import ssl

import box
from load import connect, tls_context
from netns import wait_until
from topology import VIP_EU, VIP_US

WWW = "https://www.example.test"


def test_https_works_over_both_families_and_both_sites(lab):
    for host, vip in (("client-eu", VIP_EU[0]), ("client-eu", VIP_EU[1]), ("client-us", VIP_US[0]), ("client-us", VIP_US[1])):
        assert lab.curl(host, WWW + "/", vip=vip).stdout == "the origin's front page\n"


def test_tls_1_2_and_1_3_are_spoken_and_alpn_chooses_h2(lab):
    for version, word in (("1.2", "TLSv1.2"), ("1.3", "TLSv1.3")):
        out = lab.curl("client-eu", WWW + "/", "-v", "--tlsv" + version, "--tls-max", version, "-o", "/dev/null").stderr
        assert word in out and "ALPN: server accepted h2" in out, out
    assert lab.curl("client-eu", WWW + "/", "-o", "/dev/null", "-w", "%{http_version}", "--http1.1").stdout == "1.1"
    assert lab.curl("client-eu", WWW + "/", "-o", "/dev/null", "-w", "%{http_version}").stdout == "2"
    out = lab.curl("client-eu", WWW + "/", "--tlsv1.0", "--tls-max", "1.1", check=False)
    assert out.returncode != 0, "TLS below 1.2 is refused"


def test_a_session_ticket_of_one_proxy_is_accepted_by_the_other(lab):
    session_file = lab.directory("client-eu") / "session"
    for version in ("-tls1_2", "-tls1_3"):
        proxies = ("10.10.0.11", "[fd10::12]")
        ask = f"(printf 'GET / HTTP/1.1\\r\\nHost: www.example.test\\r\\nConnection: close\\r\\n\\r\\n'; timeout 3 cat) | timeout 5 openssl s_client {version} -servername www.example.test"
        first = lab.run("client-eu", "sh", "-c", f"{ask} -connect {proxies[0]}:443 -sess_out {session_file} -ign_eof", check=False).stdout
        assert "front page" in first and "New, " in first, first[-600:]
        second = lab.run("client-eu", "sh", "-c", f"{ask} -connect {proxies[1]}:443 -sess_in {session_file} -ign_eof", check=False).stdout
        assert "Reused, " in second and "front page" in second, second[-600:]


def test_forwarding_fields_name_the_client_and_forged_ones_are_replaced(lab):
    out = lab.curl("client-eu", WWW + "/api/v1/x", "-H", "X-Forwarded-For: 6.6.6.6").stdout
    assert "xff=10.1.0.2 " in out and "proto=https" in out, out
    out6 = lab.curl("client-eu", WWW + "/api/v1/x", "-H", "X-Forwarded-For: 6.6.6.6", vip=VIP_EU[1]).stdout
    assert "xff=fd01::2 " in out6 and "proto=https" in out6, out6
    sent = re.search(r"id=(\S+)", out)[1]
    assert len(sent) >= 16
    again = lab.curl("client-eu", WWW + "/api/v1/x", "-H", "X-Request-Id: mine", "-D", "-").stdout
    assert "id=mine" not in again and re.search(r"(?i)^x-request-id: \S+", again, re.MULTILINE), again


def test_plain_http_is_redirected_and_unknown_hosts_are_not_found(lab):
    for vip in VIP_EU:
        out = lab.curl("client-eu", "http://www.example.test/a/b", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", vip=vip).stdout
        assert out == "308 https://www.example.test/a/b", out
    out = lab.curl("client-eu", WWW + "/", "-H", "Host: other.example.test", "-o", "/dev/null", "-w", "%{http_code}").stdout
    assert out == "404", out


def test_a_post_body_reaches_the_origin_and_large_bodies_arrive_whole(lab):
    # The origin answers before it has the body. A client that has its answer need not send the rest.
    for turn in range(10):
        out = lab.curl("client-eu", WWW + "/api/v1/post", "--data-binary", "x" * 100000, "--http2" if turn % 2 else "--http1.1").stdout
        assert "method=POST" in out, out
    pattern = b"".join(b"%015d\n" % i for i in range(64 * 1024)) * 8
    for version in ("--http1.1", "--http2"):
        body = lab.directory("client-eu") / "8m"
        lab.curl("client-eu", WWW + "/static/8m", version, "-o", str(body), vip=VIP_EU[version == "--http2"])
        assert hashlib.sha256(body.read_bytes()).digest() == hashlib.sha256(pattern).digest()


def test_h2load_finds_every_request_answered(lab):
    for address in (VIP_EU[0], f"[{VIP_EU[1]}]"):
        out = lab.run(
            "client-eu", "h2load", "-n", "1000", "-c", "8", "-m", "16", "--connect-to", f"{address}:443", WWW + "/api/v1/load"
        ).stdout
        assert "1000 succeeded, 0 failed, 0 errored" in out, out


SMUGGLING = {
    "both Content-Length and Transfer-Encoding": b"POST / HTTP/1.1\r\nHost: www.example.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two Content-Lengths": b"POST / HTTP/1.1\r\nHost: www.example.test\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
    "a list of Content-Lengths": b"POST / HTTP/1.1\r\nHost: www.example.test\r\nContent-Length: 4, 4\r\n\r\nabcd",
    "a signed Content-Length": b"POST / HTTP/1.1\r\nHost: www.example.test\r\nContent-Length: +4\r\n\r\nabcd",
    "chunked that is not last": b"POST / HTTP/1.1\r\nHost: www.example.test\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "an obfuscated Transfer-Encoding": b"POST / HTTP/1.1\r\nHost: www.example.test\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding on HTTP/1.0": b"POST / HTTP/1.0\r\nHost: www.example.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost : www.example.test\r\n\r\n",
    "a folded line": b"GET / HTTP/1.1\r\nHost: www.example.test\r\nX: a\r\n b\r\n\r\n",
    "a bare line feed": b"GET / HTTP/1.1\nHost: www.example.test\n\n",
    "a NUL in a field": b"GET / HTTP/1.1\r\nHost: www.example.test\r\nX: a\0b\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\nX: y\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\nHost: www.example.test\r\nHost: www.example.test\r\n\r\n",
    "a malformed Host beside an absolute target": b"GET http://www.example.test/ HTTP/1.1\r\nHost: www example.test\r\n\r\n",
    "HTTP/9.9": b"GET / HTTP/9.9\r\nHost: www.example.test\r\n\r\n",
}


def test_every_smuggling_attempt_is_refused_and_the_connection_closed(lab):
    context = tls_context(lab.directory("edge") / "example.crt")
    for i, (what, request) in enumerate(SMUGGLING.items()):
        connection = connect("client-eu", VIP_EU[i % 2], 443, "www.example.test", context)
        connection.sock.sendall(request)
        answer = b"".join(iter(lambda s=connection.sock: s.recv(4096), b""))
        assert re.match(rb"HTTP/1\.1 (400|501|505) ", answer), (what, answer[:200])
        connection.close()
    assert lab.curl("client-eu", WWW + "/").stdout == "the origin's front page\n"


def test_the_host_of_an_absolute_target_wins_over_the_field(lab):
    ask = lambda target, field: lab.curl("client-eu", WWW + "/", "--http1.1", "--request-target", target, "-H", f"Host: {field}", "-w", " %{http_code}").stdout
    assert ask(WWW + "/", "other.example.test") == "the origin's front page\n 200"
    assert ask("https://other.example.test/", "www.example.test").endswith(" 404")


def test_a_broken_chunk_ends_the_connection_whatever_the_backend_says(lab):
    context = tls_context(lab.directory("edge") / "example.crt")
    connection = connect("client-eu", VIP_EU[0], 443, "www.example.test", context)
    head = b"POST /api/v1/x HTTP/1.1\r\nHost: www.example.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.sock.sendall(head + b"zz\r\nGET /smuggled HTTP/1.1\r\nHost: www.example.test\r\n\r\n")
    answer = b"".join(iter(lambda: connection.sock.recv(4096), b""))
    # The origin may have answered before the chunk was read. Bytes after the chunk are never read as a request.
    assert answer.count(b"HTTP/1.1 ") <= 1 and b"smuggled" not in answer, answer
    connection.close()


def test_an_oversized_head_is_refused_by_its_own_status(lab):
    context = tls_context(lab.directory("edge") / "example.crt")
    for request, status in (
        (b"GET / HTTP/1.1\r\nHost: www.example.test\r\nX: " + b"a" * 70000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: www.example.test\r\n\r\n", b"414"),
    ):
        connection = connect("client-eu", VIP_EU[0], 443, "www.example.test", context)
        try:
            connection.sock.sendall(request)
        except (ssl.SSLError, OSError):
            pass  # refused before the last byte was taken
        assert connection.sock.recv(4096).startswith(b"HTTP/1.1 " + status), status
        connection.close()


def test_the_access_log_tells_of_each_request_in_json(lab):
    lab.curl("client-eu", WWW + "/api/v1/logged-here")
    lines = []

    def found():
        lines[:] = [
            line for proxy in ("proxy1", "proxy2") for line in lab.log(proxy, "l7").read_text(errors="replace").splitlines() if "logged-here" in line
        ]
        return lines

    wait_until("the access log has the request", found, 30)
    record = json.loads(lines[0])
    assert record["status"] == 200 and record["route"] == "api" and record["pool"] == "origins" and record["client"].startswith("10.1.0.2"), record


LOGGED = """\
nodes:
  - name: box
    l7:
      workers: 1
      access_log: "syslog:{collector}"
      access_log_facility: local3
      access_log_tag: edge
      access_log_format: '{{client}} "{{request}}" {{status}} {{response_bytes}} "{{header.user-agent}}" {{response_header.content-type}} tls={{handshake_ms}} connect={{connect_ms}} first={{first_byte_ms}} total={{total_ms}}'
pools:
  - {{name: app, backends: [{{name: origin1, addresses: [10.10.0.21], port: 8080}}]}}
certificates:
  - {{name: example, certificate_file: example.crt, key_file: example.key}}
listeners:
  - {{name: https, bind: ["0.0.0.0:443"], tls: {{certificates: [example]}}}}
routes:
  - {{name: all, path: "/*", pool: app}}
"""


def collector_at(path):
    """A datagram socket, as a syslog daemon has it."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.settimeout(20)
    sock.bind(str(path))
    return sock


def test_syslog_gets_a_line_by_template_for_each_request_and_lines_wait_for_it(lab):
    with box.raised() as node:
        for kind in ("crt", "key"):
            shutil.copy(lab.directory("edge") / f"example.{kind}", node.home)
        path = node.home / "log"
        config = node.write("edge.yaml", LOGGED.format(collector=path))
        with collector_at(path) as collector:
            l7 = node.start_plane("l7", config, "--state", node.state_dir)
            node.wait_ready("l7", l7)
            urls = [f"https://10.10.0.61/static/1k?{number}" for number in (1, 2)]
            lab.run("client-eu", "curl", "-skf", "--http1.1", "-A", 'a "b"', "-o", "/dev/null", urls[0], "-o", "/dev/null", urls[1])
            first, second = (collector.recv(65536).decode() for _ in urls)
        begin = r"<158>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z box edge \d+ access - 10\.1\.0\.2 "
        ms = r"\d+\.\d{3}"
        assert re.fullmatch(begin + rf'"GET /static/1k\?1 HTTP/1\.1" 200 1024 "a \\u0022b\\u0022" text/plain tls={ms} connect={ms} first={ms} total={ms}', first), first
        assert re.fullmatch(begin + rf'"GET /static/1k\?2 HTTP/1\.1" 200 1024 ".*" text/plain tls=- connect=- first={ms} total={ms}', second), second
        lab.run("client-eu", "curl", "-skf", "-o", "/dev/null", "https://10.10.0.61/static/1k?3")  # the collector has gone
        with collector_at(path) as collector:
            assert "/static/1k?3 HTTP/2" in collector.recv(65536).decode()
        assert b"\ntidegate_l7_log_lines_dropped_total 0\n" in node.ask("l7", "/metrics").body
        bad = node.write("bad.yaml", LOGGED.format(collector=path).replace("{status}", "{stauts}"))
        told = node.tidegate("check", bad)
        assert told.returncode == 1 and "bad.yaml:8:49: there is no variable 'stauts'" in told.stdout and "did you mean 'status'?" in told.stdout, told


def test_a_websocket_or_connect_never_becomes_an_open_tunnel_to_nowhere(lab):
    context = tls_context(lab.directory("edge") / "example.crt")
    connection = connect("client-eu", VIP_EU[0], 443, "www.example.test", context)
    connection.sock.sendall(b"CONNECT 10.10.0.21:8080 HTTP/1.1\r\nHost: 10.10.0.21:8080\r\n\r\n")
    answer = connection.sock.recv(4096)
    assert re.match(rb"HTTP/1\.1 (400|404|405|501) ", answer), answer
    connection.close()


RE_ROUTES = """routes:
  - {name: re-kind, listeners: [https], hosts: [www.example.test], path: "/re/*", match: {path_regex: "/re/v[0-9]+/(cats|dogs)"}, status: 200, body: kind}
  - {name: re-page, listeners: [https], hosts: [www.example.test], path: "/re/*", priority: 5, match: {query_regex: {page: "[1-9][0-9]*"}, headers_regex: {X-Lang: "de(-[A-Z]{2})?"}}, status: 200, body: page}
  - {name: re-rest, listeners: [https], hosts: [www.example.test], path: "/re/*", status: 200, body: rest}
"""


def test_routes_are_matched_by_regular_expressions_of_whole_values(lab):
    """Python's re is the second judge."""
    targets = ("v1/cats", "v12/dogs", "V1/cats", "v/cats", "xv1/cats", "v1/cats/", "v1/catsdogs", "v1/c%61ts", "v1/")
    asked = [(f"/re/{target}", "") for target in targets]
    asked += [(f"/re/v1/x?page={page}", lang) for page, lang in (("7", "de"), ("10", "de-AT"), ("07", "de"), ("", "de"), ("1x", "de"), ("7", "de-at"), ("7", "xde"), ("7", ""))]
    asked += [("/re/v1/cats?page=7", "de"), ("/re/v1/cats?page=0", "de")]
    with lab.configured(("routes:\n", RE_ROUTES)):
        for (target, lang), version in zip(asked, itertools.cycle(("--http1.1", "--http2"))):
            path, _, query = target.partition("?")
            is_page = query and re.fullmatch("page=[1-9][0-9]*", query) and re.fullmatch("de(-[A-Z]{2})?", lang)
            # A route sees a path with its needless escapes decoded.
            expected = "page" if is_page else "kind" if re.fullmatch("/re/v[0-9]+/(cats|dogs)", path.replace("%61", "a")) else "rest"
            answer = lab.curl("client-eu", WWW + target, version, *(("-H", f"X-Lang: {lang}") if lang else ())).stdout
            assert answer == expected, (target, lang, version, answer, expected)
        told = lab.plane("proxy1", "l7", f"/explain?client=192.0.2.1&url={WWW}/re/v7/dogs").json()
        assert (told["route"], told["match"]) == ("re-kind", {"path_regex": "/re/v[0-9]+/(cats|dogs)"}), told


def test_a_faulty_regular_expression_is_refused_with_its_place(lab):
    text = (lab.directory("edge") / "edge.yaml").read_text()
    path = lab.directory("edge") / "faulty.yaml"
    faults = (
        ('path_regex: "/re/v[0-9]+/(cats|dogs)"', 'path_regex: "/re/("', "is no regular expression of RE2"),
        ('path_regex: "/re/v[0-9]+/(cats|dogs)"', 'path_regex: "/re/(?=a)"', "is no regular expression of RE2"),
        ('path_regex: "/re/v[0-9]+/(cats|dogs)"', 'path_regex: "(((((/re/.{500}){9}){9}){9}){9})"', "is no regular expression of RE2"),
        ('page: "[1-9][0-9]*"', 'page: "[9-1]"', "is no regular expression of RE2"),
        ("headers_regex: {X-Lang:", "headers_regex: {X-Lang: a, x-lang:", "are one field"),
        ("headers_regex: {X-Lang:", "headers_regex: {Host:", "is not looked at here"),
        (', priority: 5, match: {query_regex: {page: "[1-9][0-9]*"}, headers_regex: {X-Lang: "de(-[A-Z]{2})?"}}', ', match: {path_regex: ".*/cats"}', "'re-kind'"),
    )
    for old, new, sentence in faults:
        assert old in RE_ROUTES, old
        faulty = text.replace("routes:\n", RE_ROUTES.replace(old, new), 1)
        path.write_text(faulty)
        told = lab.tidegate("check", path, check=False)
        said = told.stdout + told.stderr
        line = 1 + next(i for i, each in enumerate(faulty.splitlines()) if new in each)
        assert told.returncode != 0 and sentence in said, (new, said)
        assert re.search(rf"faulty\.yaml:{line}:\d+", said), (new, line, said)
