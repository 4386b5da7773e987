# SPDX-License-Identifier: Apache-2.0
"""Configurations of other programs, as documents: what `tidegate import` takes, what it leaves, and that the documents
serve."""

import json
import subprocess
from pathlib import Path

import box

TIDEGATE = box.BUILD / "control" / "tidegate"
SAMPLES = Path(__file__).resolve().parents[1] / "fuzz" / "control" / "corpus"
LANGUAGES = {"nginx": "*.conf", "haproxy": "*.cfg", "httproute": "*.yaml"}
CERTIFICATE = Path(__file__).resolve().parents[2] / "conf" / "examples"


def tidegate(*arguments):
    return subprocess.run([str(word) for word in (TIDEGATE, *arguments)], capture_output=True, text=True, timeout=60)


def samples(node):
    """The samples, each beside the certificate that it names. (language, path)"""
    pem = {name: (CERTIFICATE / name).read_text() for name in ("example.test.crt", "example.test.key")}
    for name, text in (*pem.items(), ("example.test.pem", "".join(pem.values()))):
        node.write(name, text)
    for language, pattern in LANGUAGES.items():
        for path in sorted((SAMPLES / f"import_{language}").glob(pattern)):
            yield language, node.write(path.name, path.read_text())


def test_import_takes_most_directives_of_ten_configurations_and_check_accepts_the_documents(lab):
    with box.raised() as node:
        count, checked_languages = 0, set()
        for language, path in samples(node):
            done = tidegate("--output", "json", "import", path)
            assert done.returncode == 0, (path.name, done.stdout, done.stderr)
            told = json.loads(done.stdout)
            assert told["directives"] == told["taken"] + len(told["left"]), path.name
            assert told["taken"] >= 0.6 * told["directives"], (path.name, told["taken"], told["directives"], told["left"])
            lines = path.read_text().split("\n")
            for left in told["left"]:
                assert left["why"] and 1 <= left["line"] <= len(lines), (path.name, left)
            assert told["faults"] == [], (path.name, told["faults"])
            if path.name == "list.yaml":
                assert '"/v[0-9]+"' in told["document"].replace("'", '"') or "path_regex: /v[0-9]+" in told["document"], told["document"]
            # Import checks its document like check, so one of each language is enough.
            if language not in checked_languages:
                checked = tidegate("check", node.write("edge.yaml", told["document"]))
                assert checked.returncode == 0 and "ok: " in checked.stdout, (path.name, checked)
                checked_languages.add(language)
            count += 1
        assert count == 10 and checked_languages == set(LANGUAGES)


def test_an_imported_document_serves_as_the_other_program_did(lab):
    with box.raised() as node:
        text = (SAMPLES / "import_nginx" / "site.conf").read_text().replace("127.0.0.1:3000", "10.10.0.21:8080")
        done = tidegate("import", node.write("nginx.conf", text))
        assert done.returncode == 0, done
        assert "line 23: location /static/: no files are served" in done.stderr, done.stderr
        assert "directives are taken" in done.stderr
        process = node.start("l7", box.binary("l7"), "--config", node.write("edge.yaml", done.stdout), "--run", node.run_dir)
        node.wait_ready("l7", process)
        fetch = lambda url: lab.run("client-eu", "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "20", "-H", f"Host: {url}", "http://10.10.0.61:8080/").stdout  # noqa: E731
        assert fetch("chat.example.test") == fetch("a.chat.example.test") == "200"
        assert fetch("other.test") == "404"


PRIORITIES = """defaults
    mode http
frontend f
    bind 10.10.0.61:8080
    acl batch path_beg /reports
    http-request deny if { path /reports/secret }
    http-request set-priority-class int(5) if batch !METH_POST
    http-request set-priority-class int(-5) if { path_beg /pay }
    http-request set-priority-class int(0) if { path /pay/history }
    http-request set-priority-class int(-5) if { path /cart } || { path /alarm }
    http-request set-priority-class int(-100) if { path /alarm }
    http-request set-priority-class req.hdr(x-class)
    http-request set-priority-class int(1) if { nbsrv(app) lt 2 }
    http-request set-priority-offset int(-1000) if batch
    default_backend app
backend app
    http-request set-priority-class int(0) if { path /cart }
    server a 10.10.0.21:8080
"""


def test_classes_of_haproxy_become_priorities_and_the_last_rule_that_is_met_counts(lab):
    with box.raised() as node:
        done = tidegate("--output", "json", "import", node.write("haproxy.cfg", PRIORITIES))
        assert done.returncode == 0, done
        told = json.loads(done.stdout)
        assert "closed" not in told["document"].replace("/reports/secret", ""), told["document"]
        left = {each["line"]: each["why"] for each in told["left"]}
        assert left.keys() == {11, 12, 13, 14}, told["left"]
        assert left[11] == "its queue_priority is high, as in line 8: there are three priorities"
        assert left[12] == "a route has one priority, as int(-1) says one: see queue_priority"
        assert left[14] == "requests wait by their priority, not by a time: see queue_priority of routes"
        process = node.start("l7", box.binary("l7"), "--config", node.write("edge.yaml", told["document"]), "--run", node.run_dir)
        node.wait_ready("l7", process)
        explain = lambda path, method="GET": node.ask("l7", f"/explain?client=10.1.0.2&method={method}&url=http://10.10.0.61:8080{path}").json()
        for path, priority in (("/", "normal"), ("/reports/a", "low"), ("/pay", "high"), ("/pay/history", "normal"), ("/cart", "normal"), ("/alarm", "high")):
            assert explain(path)["queue"]["priority"] == priority, (path, explain(path))
        assert explain("/reports/a", "POST")["queue"]["priority"] == "normal"
        assert "queue" not in explain("/reports/secret")


def test_import_says_what_it_cannot_read(lab):
    with box.raised() as node:
        for name, text, why in (
            ("a.conf", "server { listen 80;", "line 1: a block is never closed"),
            ("b.conf", "}\n", "line 1: a } too many"),
            ("c.conf", 'x "y', "line 1: quotes that are never closed"),
            ("d.conf", "a {" * 100, "too many blocks within blocks"),
            ("e.cfg", "bind :80\n", "line 1: 'bind' is in no section"),
            ("f.yaml", "a: 1\n---\nkind: [\n", "line 3: "),
            ("g.conf", "", "it is empty or cannot be read"),
        ):
            done = tidegate("import", node.write(name, text))
            assert done.returncode == 1 and why in done.stderr and done.stdout == "", (name, done)
        assert tidegate("import", node.home / "none.conf").returncode == 1
        assert tidegate("import", node.home / "a.conf", "--from", "apache").returncode == 2
