# SPDX-License-Identifier: Apache-2.0
"""The command line itself: help, exit statuses, the key reference, and changes watched as they happen."""

import contextlib
import importlib.util
import json
import os
import pty
import re
import select
import shutil
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from lab import BUILD
from marks import long
from netns import wait_until

TIDEGATE = BUILD / "control" / "tidegate"
# Every subcommand, with arguments that make sense.
COMMANDS = {
    "init": ("FILE", "--backend", "192.0.2.1:80"),
    "import": ("FILE",),
    "check": ("FILE",),
    "keys": (),
    "hash-lab": ("FILE",),
    "apply": ("FILE",),
    "get": (),
    "diff": (),
    "rollback": ("1",),
    "confirm": ("1",),
    "versions": (),
    "audit": (),
    "drain": ("backend", "origins/origin1"),
    "undrain": ("backend", "origins/origin1"),
    "quota": ("small", "--requests", "5"),
    "purge": ("--all",),
    "records": ("list", "example.test"),
    "status": (),
    "health": (),
    "certificates": (),
    "explain": ("10.1.0.2", "https://www.example.test/"),
    "watch": (),
    "backup": ("DIR",),
    "restore": ("DIR",),
    "run": ("FILE",),
    "l4": ("services",),
    "upgrade": (),
    "completion": ("bash",),
    "help": (),
    "version": (),
}
WITHOUT_API = ("init", "import", "check", "keys", "hash-lab", "backup", "restore", "run", "l4", "upgrade", "completion", "help", "version")


def tidegate(*arguments):
    return subprocess.run([str(a) for a in (TIDEGATE, *arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)


def pages():
    spec = importlib.util.spec_from_file_location("site_of_pages", Path(__file__).resolve().parents[2] / "docs" / "site.py")
    site = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(site)
    return site


def test_every_command_has_help_with_an_example_and_the_page_of_commands_says_the_same(lab):
    documented = pages().commands()
    assert set(documented) == set(COMMANDS), set(documented) ^ set(COMMANDS)
    general = tidegate("--help")
    assert general.returncode == 0 and "0 done, 1 refused or faulty, 2 misuse, 3 nobody there" in general.stdout
    for command in COMMANDS:
        assert f"\n  {command} " in general.stdout, f"{command} stands in the general help"
        told = tidegate(command, "--help")
        assert told.returncode == 0 and f"Example: tidegate {command}" in told.stdout, (command, told)
        about, example, options = documented[command]
        words = " ".join(told.stdout.split())
        assert about in words and f"Example: {example}" in words, (command, words)
        known = set(re.findall(r" (?:-\w,)?(--[a-z-]+)", words.split("Options:")[1].split("Example:")[0])) - {"--help"}
        assert {name for option, _ in options for name in option.split(",")} == known, (command, options, known)
    listed = [line.split()[0] for line in general.stdout.split("Subcommands:")[1].splitlines() if line.startswith("  ") and line[2] != " "]
    assert set(listed) == set(COMMANDS), "this test knows every command"


def test_misuse_is_status_2_and_nobody_there_is_3(lab):
    path = lab.directory("edge") / "edge.yaml"
    for arguments in ([], ["dance"], ["--output", "xml", "status"], ["check"], ["purge"], ["purge", "x", "--all"], ["drain", "planet", "x"],
                      ["drain", "backend", "no-slash"], ["rollback", "yesterday"], ["--api", "http://nowhere", "status"],
                      ["--api", lab.socket_path("edge", "control"), "--token-file", "/nonexistent", "status"]):  # fmt: skip
        done = tidegate(*arguments)
        assert done.returncode == 2 and done.stderr + done.stdout, (arguments, done)
    for command, arguments in COMMANDS.items():
        if command not in WITHOUT_API:
            arguments = [path if a == "FILE" else a for a in arguments]
            done = tidegate("--api", lab.directory("edge") / "no.sock", command, *arguments)
            assert done.returncode == 3 and "cannot reach the control plane" in done.stderr, (command, done)


class NoControl(BaseHTTPRequestHandler):
    """Another program that listens at the address. It answers everything with the server's `answer`."""

    def do(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, body = self.server.answer
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = do

    def log_message(self, *_):
        pass


ODD_ANSWER = {"nodes": [5], "changes": [5], "pools": [5], "versions": 5, "steps": 5, "missing": [5], "converged": True}


def ask_what_is_no_control(lab, answers):
    """Every command asks a server that gives these answers, each a status and a body."""
    path = lab.directory("edge") / "edge.yaml"
    with ThreadingHTTPServer(("127.0.0.1", 0), NoControl) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        api = ("--api", f"http://127.0.0.1:{server.server_address[1]}")
        for server.answer in answers:
            for command, arguments in COMMANDS.items():
                if command not in WITHOUT_API:
                    done = tidegate(*api, command, *(path if a == "FILE" else a for a in arguments), *(["--wait"] if command == "purge" else []))
                    assert done.returncode in (0, 1, 3), (server.answer, command, done)
                    if server.answer[0] != 200:
                        assert done.returncode == 1 and "refused" in done.stderr, (server.answer, command, done)
        server.answer = (200, b"[]")
        done = tidegate(*api, "status")
        assert done.returncode == 3 and "no control" in done.stderr, done
        server.shutdown()


def test_an_answer_that_is_no_control_s_is_told_and_kills_nobody(lab):
    ask_what_is_no_control(lab, [(200, json.dumps(ODD_ANSWER).encode()), (404, b"[]")])


@long
def test_no_answer_that_is_no_control_s_kills_anybody(lab):
    ask_what_is_no_control(lab, [(200, b"[]"), (200, b"5"), (200, json.dumps(ODD_ANSWER).encode()), (404, b"[]"), (404, b'"x"'), (422, b'{"faults": [5]}')])


def test_what_control_refuses_is_status_1_and_says_why(lab):
    api = ("--api", lab.socket_path("edge", "control"))
    for arguments, why in (
        (("drain", "backend", "origins/nobody"), "nobody"),
        (("drain", "site", "atlantis"), "atlantis"),
        (("rollback", "999999"), "999999"),
        (("get", "pools", "nothing"), "nothing"),
        (("get", "planets"), "planets"),
        (("diff", "999998", "999999"), "99999"),
        (("explain", "not-an-address", "https://www.example.test/"), "not-an-address"),
    ):
        done = tidegate(*api, *arguments)
        assert done.returncode == 1 and why in done.stderr, (arguments, done)
        as_json = tidegate(*api, "--output", "json", *arguments)
        assert as_json.returncode == 1 and json.loads(as_json.stdout)["status"] >= 400, (arguments, as_json)


def test_reading_commands_answer_people_and_scripts(lab):
    api = ("--api", lab.socket_path("edge", "control"))
    for command, word in (("status", "proxy1"), ("health", "origins"), ("versions", "VERSION"), ("audit", "uid:0"), ("get", "pools:"), ("diff", "version ")):
        people = tidegate(*api, command)
        assert people.returncode == 0 and word in people.stdout, (command, people)
        scripts = tidegate(*api, "--output", "json", command)
        assert scripts.returncode == 0 and isinstance(json.loads(scripts.stdout), dict), (command, scripts)
    assert "origin1" in tidegate(*api, "get", "pools", "origins").stdout


def test_keys_explains_what_the_lab_s_document_uses(lab):
    told = tidegate("keys")
    assert told.returncode == 0
    for line in (lab.directory("edge") / "edge.yaml").read_text().splitlines():
        if line and line[0].isalpha():
            assert f"## {line.split(':')[0]}" in told.stdout, line
    for word in ("`weight`", "`interval`", "default_ttl", "httpdns_listen"):
        assert word in told.stdout, word


def test_hash_lab_compares_hashes_for_the_pools_of_a_document(lab):
    document = lab.directory("edge") / "edge.yaml"
    people = tidegate("hash-lab", document, "--slots", "5003")
    assert people.returncode == 0, people
    for word in ("pool proxies-eu", "modulo", "jump", "ring", "bounded", "rendezvous", "maglev", "minimal", "share error"):
        assert word in people.stdout, word
    scripts = json.loads(tidegate("--output", "json", "hash-lab", document, "--slots", "5003", "--pool", "proxies-eu").stdout)
    by_name = {row["hash"]: row for row in scripts["pools"]["proxies-eu"]}
    # The pool has two backends: without one of them all goes to the other. With one more the schemes differ.
    assert by_name["minimal"]["add_moves"] == 0 and by_name["modulo"]["add_moves"] > 0.1 > by_name["maglev"]["add_moves"], by_name
    assert tidegate("hash-lab", document, "--slots", "5000").returncode == 2, "not a prime"
    assert tidegate("hash-lab", document, "--pool", "nobody").returncode == 1


def watched(lab, *options):
    """A `tidegate watch` that has certainly started to watch, and the lines it has printed so far."""
    watcher = subprocess.Popen([str(TIDEGATE), "--api", str(lab.socket_path("edge", "control")), *options, "watch"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "hello" in watcher.stdout.readline(), "it says at once from where it watches"
    return watcher


def lines_until(watcher, *wanted):
    """Reads printed lines until each of the words was found."""
    lines, missing = [], set(wanted)
    while missing:
        line = watcher.stdout.readline()
        assert line, f"the watch ended before {missing}: {lines}"
        lines.append(line)
        missing -= {word for word in missing if word in line}
    return lines


def end(watcher):
    watcher.terminate()
    watcher.communicate(timeout=10)


def test_watch_prints_versions_words_purges_and_who_applied_them_as_they_happen(lab):
    original = lab.directory("edge") / "edge.yaml"
    changed = lab.directory("edge") / "watched.yaml"
    changed.write_text(original.read_text().replace("weight: 200", "weight: 199"))
    people, scripts = watched(lab), watched(lab, "--output", "json")
    try:
        lab.tidegate("apply", changed, "--comment", "for the watchers", "--wait")
        version = lab.api("GET", "/v1/status").json()["head"]["version"]
        lab.tidegate("drain", "backend", "origins/origin2", "--wait")
        lab.tidegate("purge", "--tag", "watched", "--wait")
        lines_until(people, f"version {version} by uid:0 for the watchers", "backend/origins/origin2 drained", "tag watched", f"applied proxy1/l7 version {version}")
        events = [json.loads(line) for line in lines_until(scripts, '"for the watchers"', '"drained"', '"watched"', '"applied"')]
        kinds = [event["event"] for event in events]
        assert kinds.index("version") < kinds.index("words") < kinds.index("purge"), kinds
        assert next(e for e in events if e["event"] == "version")["data"]["version"] == version
        applied = next(e for e in events if e["event"] == "applied")["data"]
        assert applied["head"]["version"] == version and applied["node"] and applied["plane"], applied
    finally:
        end(people)
        end(scripts)
        lab.tidegate("undrain", "backend", "origins/origin2", "--wait")
        lab.apply(original)


def test_watch_ends_with_status_3_when_control_does(lab):
    watcher = watched(lab)
    lab.process("edge", "control").kill()
    try:
        assert watcher.wait(20) == 3, watcher.stderr.read()
    finally:
        lab.start_control("edge")
    wait_until("the planes are told of again", lambda: lab.api("GET", "/v1/status").json()["converged"], 30)


def ask(lab, *arguments):
    return tidegate("--api", lab.socket_path("edge", "control"), *arguments)


def test_a_mistyped_command_is_answered_with_the_one_that_was_meant(lab):
    done = tidegate("drian", "backend", "origins/origin1")
    assert done.returncode == 2 and "there is no command 'drian'; did you mean 'drain'?" in done.stderr, done
    assert tidegate("--output", "json", "statsu").stderr.endswith("did you mean 'status'?\n")
    assert "Example: tidegate drain backend" in tidegate("help", "drain").stdout
    assert "Subcommands:" in tidegate("help").stdout and tidegate("help", "drian").returncode == 2
    said = {program: subprocess.run([BUILD / program, "--version"], stdout=subprocess.PIPE, text=True).stdout
            for program in ("control/tidegate", "control/tidegate-control", "l7/tidegate-l7", "dns/tidegate-dns", "l4/tidegate-l4", "l4/tidegate-decap")}  # fmt: skip
    assert len(set(said.values())) == 1 and tidegate("version").stdout in said.values(), said


def test_if_match_takes_what_the_tool_prints(lab):
    path = lab.directory("edge") / "edge.yaml"
    versions = json.loads(ask(lab, "--output", "json", "versions").stdout)
    newest, digest = versions["in_force"], versions["versions"][0]["digest"]
    etag = lab.api("GET", "/v1/config").headers["ETag"]
    for match in (str(newest), digest[:12], digest, etag, etag.strip('"'), f'"{digest}"'):
        done = ask(lab, "apply", path, "--dry-run", "--if-match", match)
        assert done.returncode == 0, (match, done)
    other = [v["digest"] for v in versions["versions"] if v["digest"] != digest]
    for match in ("0000000000000", "99999", *other[:1]):
        done = ask(lab, "apply", path, "--dry-run", "--if-match", match)
        assert done.returncode == 1 and "refused" in done.stderr, (match, done)


def test_a_section_is_got_by_its_name_in_singular_and_plural(lab):
    assert ask(lab, "get", "pool").stdout == ask(lab, "get", "pools").stdout != ""
    assert ask(lab, "get", "pool", "origins").stdout == ask(lab, "get", "pools", "origins").stdout != ""
    done = ask(lab, "get", "polls")
    assert done.returncode == 1 and "did you mean 'pools'?" in done.stderr, done


def test_a_configuration_with_its_files_is_taken_elsewhere_as_it_is(lab):
    bundle = ask(lab, "get", "--with-files")
    assert bundle.returncode == 0 and '"files"' in bundle.stdout
    path = lab.directory("edge") / "edge.bundle"
    path.write_text(bundle.stdout)
    checked = tidegate("check", path)
    assert checked.returncode == 0 and "ok: " in checked.stdout, checked
    assert ask(lab, "apply", path).stdout.startswith("unchanged"), "the certificates and zones are in it"
    piped = subprocess.run([TIDEGATE, "check", "-"], input=bundle.stdout, stdout=subprocess.PIPE, text=True)
    assert piped.returncode == 0 and "ok: " in piped.stdout
    broken = subprocess.run([TIDEGATE, "check", "-"], input="pools: [{nmae: x}]", stdout=subprocess.PIPE, text=True)
    assert broken.returncode == 1 and "standard input:1:" in broken.stdout, broken


def test_a_backup_is_taken_beside_a_control_that_runs_and_restored_elsewhere(lab):
    state, kept, fresh = lab.directory("edge") / "state", lab.directory("edge") / "kept", lab.directory("edge") / "fresh"
    for of_an_earlier_run in (kept, fresh):
        shutil.rmtree(of_an_earlier_run, ignore_errors=True)
    done = tidegate("backup", kept, "--state", state)
    assert done.returncode == 0 and "holds version" in done.stdout, done
    assert (kept / "state" / "data.mdb").stat().st_mode & 0o077 == 0, "private keys are in it"
    assert tidegate("backup", kept, "--state", state).returncode == 1, "nothing is over-written"
    done = tidegate("restore", kept, "--state", state)
    assert done.returncode == 1 and "stop it first" in done.stderr, done
    restored = tidegate("restore", kept, "--state", fresh)
    assert restored.returncode == 0, restored
    again = tidegate("restore", kept, "--state", fresh)
    assert again.returncode == 0 and "what was there is in" in again.stdout, again
    head = lab.api("GET", "/v1/status").json()["head"]
    assert f"holds version {head['version']}, words {head['words']}, purge {head['purge']}" in again.stdout, again
    damaged = kept / "state" / "data.mdb"
    damaged.write_bytes(damaged.read_bytes()[:5000])
    done = tidegate("restore", kept, "--state", fresh)
    assert done.returncode == 1 and "is damaged" in done.stderr, done


def candidates(lab, *words):
    """What the shells offer for these words; the last one is at the cursor."""
    environment = {**os.environ, "TIDEGATE_API": str(lab.socket_path("edge", "control"))}
    return subprocess.run([str(TIDEGATE), "__complete", *words], env=environment, capture_output=True, text=True, timeout=60).stdout.split()


def test_shells_complete_commands_options_and_names_from_the_live_control(lab):
    assert set(candidates(lab, "")) == set(COMMANDS)
    assert candidates(lab, "und") == ["undrain"]
    assert candidates(lab, "--output", "") == ["human", "json"]
    assert "--wait" in candidates(lab, "drain", "backend", "x", "--") and "--api" in candidates(lab, "drain", "--a")
    assert candidates(lab, "drain", "") == ["backend", "plane", "pool", "site", "target", "vip"]
    assert {"edge/dns", "proxy1/l7", "l4/l4"} <= set(candidates(lab, "drain", "plane", ""))
    assert candidates(lab, "upgrade", "") == ["control", "dns", "l4", "l7"] and candidates(lab, "upgrade", "l7", "d") == ["dns"]
    assert candidates(lab, "upgrade", "l7", "l") == ["l4"]
    assert candidates(lab, "l4", "") == ["capture", "events", "flows", "neighbours", "services", "top"]
    assert {"http://", "https://"} <= set(candidates(lab, "--api", "")) and candidates(lab, "--api", "https:") == ["https://"]
    assert candidates(lab, "records", "") == ["delete", "export", "import", "list", "set"]
    assert candidates(lab, "records", "list", "") == ["example.test"]
    pools = candidates(lab, "drain", "pool", "")
    assert "origins" in pools and pools == candidates(lab, "--output", "json", "get", "pools", "")
    assert "origins/origin1" in candidates(lab, "drain", "backend", "origins/")
    assert "routes" in candidates(lab, "get", "r")
    assert candidates(lab, "check", "") == [], "the shell offers files"
    assert candidates(lab, "dance", "") == candidates(lab, ""), "what is no command hides none"
    # Without a control the completion answers at once, but without names.
    done = subprocess.run([str(TIDEGATE), "__complete", "drain", "pool", ""], env={**os.environ, "TIDEGATE_API": "/nonexistent"}, capture_output=True, text=True, timeout=5)
    assert done.returncode == 0 and done.stdout == "", done


def test_bash_completes_with_the_printed_script(lab):
    script = tidegate("completion", "bash").stdout
    ask = script + "\nCOMP_WORDS=(tidegate dr); COMP_CWORD=1; _tidegate; echo \"${COMPREPLY[@]}\"; complete -p tidegate"
    path = f"{TIDEGATE.parent}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", ask], env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[0] == "drain" and "-F _tidegate tidegate" in done.stdout, done
    assert tidegate("completion", "tcsh").returncode == 2


class Zsh:
    """An interactive zsh with the printed script in a folder of its functions, as the package installs it."""

    def __init__(self, home, environment):
        (home / "_tidegate").write_text(tidegate("completion", "zsh").stdout)
        os.mkfifo(home / "line")
        self.line = os.open(home / "line", os.O_RDWR | os.O_NONBLOCK)
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.environ.update({**environment, "TERM": "dumb", "HOME": str(home), "ZDOTDIR": str(home)})
            os.execvp("zsh", ["zsh", "-f", "-i"])
        threading.Thread(target=self._read, daemon=True).start()  # a full terminal would stop the shell
        self._type(f"fpath=({home} $fpath); autoload -U compinit; compinit -u -d {home}/dump\n")
        # Ctrl-X tells what stands on the line, and empties it.
        self._type(f"tell() {{ print -r -- \"$BUFFER\" > {home}/line; BUFFER= }}; zle -N tell; bindkey '^X' tell; print > {home}/line\n")
        assert self._told() == ""

    def _read(self):
        with contextlib.suppress(OSError):
            while os.read(self.terminal, 4096):
                pass

    def _type(self, text):
        os.write(self.terminal, text.encode())

    def completed(self, text):
        self._type(f"{text}\t\x18")
        return self._told()

    def _told(self):
        assert select.select([self.line], [], [], 20)[0], "zsh says nothing"
        return os.read(self.line, 4096).decode().rstrip("\n")

    def stop(self):
        self._type("\x15exit\n")
        os.waitpid(self.pid, 0)
        os.close(self.terminal)
        os.close(self.line)


@long
def test_zsh_completes_with_the_printed_script(lab):
    environment = {"PATH": f"{TIDEGATE.parent}:{os.environ['PATH']}", "TIDEGATE_API": str(lab.socket_path("edge", "control"))}
    with tempfile.TemporaryDirectory(prefix="tidegate-zsh-") as home:
        zsh = Zsh(Path(home), environment)
        (Path(home) / "a-document.yaml").write_text("")
        try:
            assert zsh.completed("tidegate dra") == "tidegate drain "
            assert zsh.completed("tidegate drain backend x --wai") == "tidegate drain backend x --wait "
            assert zsh.completed("tidegate drain pool orig") == "tidegate drain pool origins "
            assert zsh.completed("tidegate --output hum") == "tidegate --output human "
            assert zsh.completed("tidegate drain plane proxy1/l") == "tidegate drain plane proxy1/l7 "
            assert zsh.completed(f"tidegate check {home}/a-doc") == f"tidegate check {home}/a-document.yaml "
        finally:
            zsh.stop()


def test_every_program_prints_its_manual_page(lab):
    for path, section in ((TIDEGATE, 1), (BUILD / "control/tidegate-control", 8), (BUILD / "l4/tidegate-l4", 8), (BUILD / "l4/tidegate-decap", 8), (BUILD / "l7/tidegate-l7", 8), (BUILD / "dns/tidegate-dns", 8)):
        page = subprocess.run([path, "--print-manual"], capture_output=True, text=True, timeout=60, check=True).stdout
        assert page.startswith(f'.TH "{path.name}" {section} '.replace("-", "\\-")), page[:60]
        options = re.findall(r"--[a-z-]+", subprocess.run([path, "--help"], capture_output=True, text=True, timeout=60, check=True).stdout)
        for option in options:
            assert option.replace("-", "\\-") in page, (path.name, option)
    assert tidegate("keys", "--print-manual").stdout.startswith('.TH "edge.yaml" 5 ')
