# SPDX-License-Identifier: Apache-2.0
"""Policies that shape the flow of requests and answers: compression, with the commands gzip, brotli and zstd as judges."""

import json
import random
import subprocess
import threading

WWW = "https://www.example.test"
PROXY = "10.10.0.11"
POLICY = "policies:\n  - {name: small, compress: {}}\nroutes:\n"
ROUTE = '  - {{name: {0}, listeners: [https], hosts: [www.example.test], path: "{1}", pool: origins, policies: [small]{2}}}\n'.format
SERIES = ('tidegate_l7_compress_answers_total{policy="small",coding="br"}', 'tidegate_l7_compress_left_total{policy="small",reason="authenticated"}')
TOOLS = {"gzip": ["gzip", "-dc"], "br": ["brotli", "-dc"], "zstd": ["zstd", "-dcq"]}


def metric(lab, series):
    lines = lab.plane("proxy1", "l7", "/metrics").body.decode().splitlines()
    return sum(int(line.split()[-1]) for line in lines if line.startswith(series))


def page(lab, name):
    """A page of both origins, 40 kB of JSON lines."""
    rng = random.Random(5)
    text = "".join(json.dumps({"id": rng.randrange(10**6), "name": rng.choice(["tide", "gate"]), "of": i}) + "\n" for i in range(900))
    for origin in ("origin1", "origin2"):
        (lab.directory(origin) / "www" / "static" / name).write_text(text)
    return text.encode()


def fetch(lab, path, *options):
    """The fields (names in lower case) and the bytes of the body, as curl leaves them."""
    head = lab.directory("edge") / f"{threading.get_ident()}.head"
    body = lab.directory("edge") / f"{threading.get_ident()}.body"
    body.unlink(missing_ok=True)
    lab.curl("client-eu", WWW + path, "-D", head, "-o", body, *options, vip=PROXY)
    lines = head.read_text().replace("\r\n", "\n").split("\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}, body.read_bytes() if body.exists() else b""


def test_each_coding_reaches_curl_and_is_read_by_its_own_tool(lab):
    text = page(lab, "page.txt")
    path = "/static/page.txt"
    routes = ROUTE("squeezed", path, ", cache: {enabled: true}")
    with lab.configured(("routes:\n", POLICY + routes)):
        counted_before = [metric(lab, series) for series in SERIES]
        for versions in (("--http1.0", "--no-alpn"), ("--http1.1",), ("--http2",)):
            for coding, tool in TOOLS.items():
                accept = ("-H", f"Accept-Encoding: {coding}")
                fields, body = fetch(lab, path, *versions, *accept)
                assert fields["content-encoding"] == coding and fields["vary"] == "Accept-Encoding", fields
                assert "content-length" not in fields and fields["etag"].startswith('W/"'), fields
                assert len(body) < len(text) / 2, (coding, len(body))
                assert subprocess.run(tool, input=body, capture_output=True, check=True).stdout == text, (versions, coding)
                of_head, _ = fetch(lab, path, *versions, *accept, "--head")
                made = {"date", "x-request-id", "age", "cache-status", "connection", "transfer-encoding"}
                assert {n: v for n, v in fields.items() if n not in made} == {n: v for n, v in of_head.items() if n not in made}, of_head
            fields, body = fetch(lab, path, *versions, "--compressed")
            assert fields["content-encoding"] == "zstd" and body == text, fields
            fields, body = fetch(lab, path, *versions)
            assert "content-encoding" not in fields and fields["content-length"] == str(len(text)) and body == text, fields
        fields, body = fetch(lab, path, "--compressed", "-r", "10-19")
        assert body == text[10:20] and "content-encoding" not in fields, fields
        fields, body = fetch(lab, path, "--compressed", "-H", "Authorization: Basic YTpi")
        assert "content-encoding" not in fields and body == text, "a secret's length tells nothing"
        counted = [metric(lab, series) - before for series, before in zip(SERIES, counted_before)]
        assert counted == [6, 1], counted
        explained = lab.plane("proxy1", "l7", f"/explain?client=192.0.2.1&url={WWW}{path}").json()["policies"]
        assert explained[0]["kind"] == "compress" and explained[0]["codings"] == ["zstd", "br", "gzip"], explained
    for origin in ("origin1", "origin2"):
        (lab.directory(origin) / "www" / "static" / "page.txt").unlink()
