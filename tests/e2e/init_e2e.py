# SPDX-License-Identifier: Apache-2.0
"""A first configuration: `tidegate init` writes it, and what it writes serves. Documents that include others and take
values from the environment and from files."""

import json
import os
import pty
import select
import subprocess

import box
from netns import wait_until

TIDEGATE = box.BUILD / "control" / "tidegate"
ORIGIN = "10.10.0.21:8080"
FLAGS = ("--backend", ORIGIN, "--host", "www.example.test, api.example.test", "--listen", "10.10.0.61", "--zone", "Example.test.")


def started(node, path, *environment):
    command = ("/usr/bin/env", *environment, TIDEGATE, "run", path, "--state", node.state_dir, "--run", node.run_dir)
    supervisor = node.start("run", *command)
    for plane in ("control", "l7", "dns"):
        node.wait_ready(plane, supervisor)
    return supervisor


def ask(lab, name, kind="A"):
    return lab.run("client-eu", "dig", "+short", "+tries=1", "+time=3", "@10.10.0.61", name, kind).stdout.split()


def test_init_writes_an_edge_that_serves_https_a_cache_and_dns(lab):
    with box.raised() as node:
        path = node.home / "edge.yaml"
        options = ("--certificate", node.home / "example.crt", "--key", node.home / "example.key")
        for name in ("example.crt", "example.key"):
            (node.home / name).write_bytes((lab.directory("edge") / name).read_bytes())
        done = node.tidegate("init", path, *FLAGS, *options)
        assert done.returncode == 0 and f"next: tidegate run {path}" in done.stdout, done
        checked = node.tidegate("check", path)
        assert checked.returncode == 0 and "ok: " in checked.stdout and "warning" not in checked.stdout, checked
        assert "certificate_file: \"example.crt\"" in path.read_text(), "relative to the document's folder"
        started(node, path)
        curl = lambda *words: lab.curl("client-eu", *words, vip="10.10.0.61").stdout  # noqa: E731
        assert curl("https://www.example.test/static/hello.txt", "-o", "/dev/null", "-w", "%{http_code}") == "200"
        hit = curl("https://www.example.test/static/hello.txt", "-o", "/dev/null", "-D", "-")
        assert "cache-status: edge; hit" in hit.lower(), hit
        moved = curl("http://www.example.test/x", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}")
        assert moved == "302 https://www.example.test/x"
        assert ask(lab, "www.example.test") == ask(lab, "ns.example.test") == ["10.10.0.61"]
        assert ask(lab, "example.test", "NS") == ["ns.example.test."]


def test_init_writes_what_can_be_applied_to_the_edge_that_runs(lab):
    """As on a host where the package has been installed: its node has a log and a folder for the cache."""
    with box.raised() as node:
        installed = node.write("installed.yaml", f"""\
nodes: [{{name: "front", l7: {{access_log: "{node.home}/access.log", workers: 1}}, cache: {{path: "{node.home}/cache", disk: 64MB}}, dns: {{listen: ["10.10.0.61:53"]}}}}]
listeners: [{{name: http, bind: ["0.0.0.0:80"]}}]
routes: [{{name: welcome, path: /, status: 200, body: welcome}}]
""")  # fmt: skip
        (node.home / "cache").mkdir()
        started(node, installed)
        path, api = node.home / "edge.yaml", ("--api", node.run_dir / "control.sock")
        done = node.tidegate(*api, "init", path, "--backend", ORIGIN, "--host", "www.example.test")
        assert done.returncode == 0 and f"next: tidegate apply {path} --wait" in done.stdout, done
        applied = node.tidegate(*api, "apply", path, "--wait")
        assert applied.returncode == 0 and "applied on every plane" in applied.stdout, (applied, path.read_text())
        code = lab.curl("client-eu", "http://www.example.test/static/hello.txt", "-o", "/dev/null", "-w", "%{http_code}", vip="10.10.0.61").stdout
        assert code == "200"


def test_init_leaves_files_that_exist_as_they_are(lab):
    with box.raised() as node:
        path = node.home / "edge.yaml"
        for name in ("edge.yaml", "example.test.zone"):
            mine = node.write(name, "mine\n")
            refused = node.tidegate("init", path, *FLAGS)
            assert refused.returncode == 1 and f"{name} exists already" in refused.stderr, refused
            assert mine.read_text() == "mine\n" and len(list(node.home.glob("e*"))) == 1, "nothing was written beside it"
            mine.unlink()
        nowhere = node.tidegate("init", node.home / "no" / "edge.yaml", "--backend", ORIGIN)
        assert nowhere.returncode == 1 and "cannot write" in nowhere.stderr, nowhere
        done = node.tidegate("--output", "json", "init", path, "--backend", "[fd10::21]:8080", "--defaults")
        assert done.returncode == 0 and json.loads(done.stdout) == {"files": [str(path)]}, done
        assert node.tidegate("check", path).returncode == 0


def test_init_says_what_is_wrong_with_an_option(lab):
    with box.raised() as node:
        path = node.home / "edge.yaml"
        (node.home / "not.pem").write_text("nothing\n")
        pem = node.home / "not.pem"
        for options, reason in (
            ((), "--backend is needed"),
            (("--backend", "app:80"), "'app:80' is not ADDRESS:PORT"),
            (("--backend", "192.0.2.1"), "is not ADDRESS:PORT"),
            (("--backend", " , "), "there is no backend"),
            (("--backend", "0.0.0.0:80"), "is no address of a server"),
            (("--backend", "192.0.2.1:80,192.0.2.1:80"), "is there twice"),
            (("--backend", "224.0.0.1:80"), "--backend: '224.0.0.1:80' is no address of a server"),
            (("--backend", ORIGIN, "--listen", "224.0.0.1"), "--listen: '224.0.0.1' is no address of a host"),
            (("--backend", ORIGIN, "--listen", "[ff02::1]:80"), "--listen: '[ff02::1]:80' is no address of a host"),
            (("--backend", ORIGIN, "--listen", "192.0.2.1:443"), "--listen: port 443 is for HTTPS, which needs --certificate"),
            (("--backend", ORIGIN, "--listen", "192.0.2.1:53", "--zone", "example.test"), "--zone: DNS needs port 53, and --listen has it"),
            (("--backend", ORIGIN, "--listen", "0.0.0.0:53", "--zone", "example.test", "--address", "192.0.2.1"), "--zone: DNS needs port 53"),
            (("--backend", ORIGIN, "--zone", "example.test", "--address", "255.255.255.255"), "--address: '255.255.255.255' is no address of a host"),
            (("--backend", ORIGIN, "--host", "a..b"), "--host: "),
            (("--backend", ORIGIN, "--listen", "eth0"), "--listen: 'eth0' is not ADDRESS"),
            (("--backend", ORIGIN, "--zone", "../x"), "--zone: '../x' is not the name of a zone"),
            (("--backend", ORIGIN, "--zone", "example.test"), "--address is needed"),
            (("--backend", ORIGIN, "--zone", "example.test", "--address", "there"), "--address: 'there' is not an IP address"),
            (("--backend", ORIGIN, "--address", "192.0.2.1"), "--zone"),
            (("--backend", ORIGIN, "--key", pem), "--certificate"),
            (("--backend", ORIGIN, "--certificate", node.home / "none", "--key", pem), "--certificate: cannot read"),
            (("--backend", ORIGIN, "--certificate", pem, "--key", pem), "--key: "),
        ):
            done = node.tidegate("init", path, *options)
            assert done.returncode == 2 and reason in done.stderr, (options, done)
            assert not path.exists(), options


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, *command):
        self.end, theirs = pty.openpty()
        self.process = subprocess.Popen([str(word) for word in command], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        self.told = ""

    def until(self, words):
        """Reads until these words were printed. Returns what was printed before them."""
        while words not in self.told:
            assert select.select([self.end], [], [], 20)[0], (words, self.told)
            self.told += os.read(self.end, 4096).decode()
        before, _, self.told = self.told.partition(words)
        return before

    def answer(self, question, text):
        """Waits for the question. Returns what was printed before it."""
        before = self.until(question)
        os.write(self.end, text.encode())
        return before

    def close(self):
        status = self.process.wait(20)
        os.close(self.end)
        return status


def test_init_asks_on_a_terminal_and_asks_again_after_a_bad_answer(lab):
    with box.raised() as node:
        path = node.home / "edge.yaml"
        terminal = Terminal(TIDEGATE, "init", path)
        terminal.answer("Your servers", "\n")
        assert "has no default" in terminal.answer("Your servers", "localhost\n")
        assert "'localhost' is not ADDRESS:PORT" in terminal.answer("Your servers", f"{ORIGIN}\n")
        terminal.answer("Names by which clients ask", "www.example.test, *.*.test\n")
        assert "*.*.test" in terminal.answer("Names by which clients ask", "www.example.test\n")
        terminal.answer("the file of your certificate", "/nonexistent\n")
        assert "cannot read '/nonexistent'" in terminal.answer("the file of your certificate", "\n")
        terminal.answer("Where clients connect, ADDRESS or ADDRESS:PORT [0.0.0.0:80]", "x" * 3000 + "\n")
        assert "is not ADDRESS" in terminal.answer("Where clients connect", "\n")
        terminal.answer("A DNS zone to serve [no DNS]", "example.test\n")
        terminal.answer("The address to which the zone's names lead", "10.10.0.61\n")
        terminal.until(f"next: tidegate run {path}")
        assert terminal.close() == 0
        assert node.tidegate("check", path).returncode == 0
        assert "www A 10.10.0.61" in (node.home / "example.test.zone").read_text()
        path.unlink()
        terminal = Terminal(TIDEGATE, "init", path, "--backend", ORIGIN)
        terminal.answer("Names by which clients ask", "\x04")
        terminal.until("nothing was written")
        assert terminal.close() == 1 and not path.exists()


PARTS = {
    "edge.yaml": 'include: ["parts/${KIND}.yaml"]\nnodes: [{name: box, l7: {}, dns: {listen: ["10.10.0.61:53"]}}]\n'
    'listeners: [{name: http, bind: ["0.0.0.0:80"]}]\n',
    "parts/app.yaml": 'pools:\n  - {name: app, backends: [{name: a, addresses: ["${ORIGIN}"], port: "${PORT:-8080}"}]}\n'
    "routes:\n  - {name: all, pool: app}\n"
    "  - {name: token, path: /token, status: 200, body: \"${file:secret} and $${ORIGIN}\"}\n",
    "secret": "a secret of a file\n",
}


def test_documents_are_expanded_before_there_is_a_version(lab):
    with box.raised() as node:
        (node.home / "parts").mkdir()
        for name, text in PARTS.items():
            node.write(name, text)
        path, environment = node.home / "edge.yaml", ("KIND=app", "ORIGIN=10.10.0.21")
        with_them = lambda *words: subprocess.run(["/usr/bin/env", *environment, TIDEGATE, *map(str, words)], capture_output=True, text=True, timeout=60)  # noqa: E731
        assert "ok: " in with_them("check", path).stdout
        missing = node.tidegate("run", path, "--state", node.state_dir, "--run", node.run_dir)
        assert missing.returncode == 1 and f"{path}:1:11: the environment has no variable KIND" in missing.stderr, missing
        started(node, path, *environment)
        fetch = lambda target: lab.curl("client-eu", f"http://www.example.test{target}", vip="10.10.0.61").stdout  # noqa: E731
        assert fetch("/") == "the origin's front page\n"
        assert fetch("/token") == "a secret of a file and ${ORIGIN}"
        api = ("--api", node.run_dir / "control.sock")
        # The version in force contains everything, and can be applied again as printed.
        got = node.tidegate(*api, "get")
        assert "include" not in got.stdout and "10.10.0.21" in got.stdout and "a secret of a file and $${ORIGIN}" in got.stdout, got
        again = node.write("again.yaml", got.stdout)
        assert "unchanged" in node.tidegate(*api, "apply", again).stdout
        assert "unchanged" in with_them(*api, "apply", path).stdout
        bundle = node.write("edge.bundle", node.tidegate(*api, "get", "--with-files").stdout)
        assert "unchanged" in node.tidegate(*api, "apply", bundle).stdout, "a bundle is not expanded"
        # A fault is reported at its place in the included file, and nothing is sent.
        node.write("parts/app.yaml", PARTS["parts/app.yaml"].replace("pool: app", "pool: ap"))
        refused = with_them(*api, "apply", path)
        assert refused.returncode == 1 and f"{node.home}/parts/app.yaml:4:23" in refused.stderr and "did you mean 'app'" in refused.stderr, refused
        # Another value of a variable makes another version. A rollback restores the earlier value.
        node.write("parts/app.yaml", PARTS["parts/app.yaml"])
        node.write("secret", "another secret\n")
        assert "version 2" in with_them(*api, "apply", path, "--wait").stdout
        assert fetch("/token") == "another secret and ${ORIGIN}"
        assert node.tidegate(*api, "rollback", "1", "--wait").returncode == 0
        assert fetch("/token") == "a secret of a file and ${ORIGIN}"


def test_a_plane_alone_expands_its_file_at_each_reload(lab):
    with box.raised() as node:
        (node.home / "parts").mkdir()
        for name, text in PARTS.items():
            node.write(name, text)
        process = node.start("l7", "/usr/bin/env", "KIND=app", "ORIGIN=10.10.0.21", box.binary("l7"), "--config", node.home / "edge.yaml", "--run", node.run_dir)
        node.wait_ready("l7", process)
        token = lambda: lab.curl("client-eu", "http://www.example.test/token", vip="10.10.0.61").stdout  # noqa: E731
        assert token() == "a secret of a file and ${ORIGIN}"
        node.write("secret", "the next secret\n")
        process.popen.send_signal(1)
        wait_until("the file was read again", lambda: token() == "the next secret and ${ORIGIN}", 20, process)
