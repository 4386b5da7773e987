# SPDX-License-Identifier: Apache-2.0
"""The REST API and the command line: what operators and scripts rely on."""

import contextlib
import json
import shutil
import subprocess
import sys

from lab import BUILD, unix_request
from marks import TIMED, long
from netns import wait_until
from topology import CONTROLLED


def current(lab):
    answer = lab.api("GET", "/v1/config")
    assert answer.status == 200
    return answer.headers["ETag"], answer.body.decode()


def test_the_configuration_reads_back_as_it_stands_with_an_etag(lab):
    etag, text = current(lab)
    assert etag.startswith('"') and "proxies-eu" in text
    model = lab.api("GET", "/v1/config", headers={"Accept": "application/json"}).json()
    assert [p["name"] for p in model["pools"]] == ["proxies-eu", "proxies-us", "origins", "httpdns"]


def test_a_write_needs_if_match_and_a_stale_one_is_refused(lab):
    etag, text = current(lab)
    yaml = {"Content-Type": "application/yaml"}
    assert lab.api("PUT", "/v1/config", text, yaml).status == 428
    assert lab.api("PUT", "/v1/config", text, {**yaml, "If-Match": '"0"'}).status == 412
    answer = lab.api("PUT", "/v1/config?dry_run=true", text.replace("weight: 200", "weight: 201"), {**yaml, "If-Match": etag})
    assert answer.status == 200, answer.body
    assert current(lab)[0] == etag, "a dry run changes nothing"


def test_three_typos_are_three_faults_with_their_places(lab):
    etag, _ = current(lab)
    text = (lab.directory("edge") / "edge.yaml").read_text()
    broken = text.replace("weight: 200", "wieght: 200").replace("pool: proxies-us}", "pool: proxies-uss}", 1).replace("fall: 2", "fall: -2", 1)
    path = lab.directory("edge") / "typos.yaml"
    path.write_text(broken)
    checked = lab.tidegate("check", path, check=False)
    said = checked.stdout + checked.stderr
    assert checked.returncode == 1 and said.count("^") >= 3, said
    assert "did you mean 'weight'" in said and "did you mean 'proxies-us'" in said, said
    assert said.count("typos.yaml:") >= 3, said
    refused = lab.tidegate("apply", path, check=False)
    assert refused.returncode == 1 and current(lab)[0] == etag
    answer = lab.api("PUT", "/v1/config", broken, {"Content-Type": "application/yaml", "If-Match": etag})
    assert answer.status == 422 and answer.headers["Content-Type"].startswith("application/problem+json")
    faults = answer.json()
    places = [key for key in faults if isinstance(faults[key], list)]
    assert places and len(faults[places[0]]) == 3, faults


def test_broken_yaml_is_a_syntax_fault_with_a_place(lab):
    path = lab.directory("edge") / "syntax.yaml"
    path.write_text("sites:\n  - {name: eu\nnodes: [\n")
    checked = lab.tidegate("check", path, check=False)
    assert checked.returncode == 1 and "syntax.yaml:" in checked.stdout + checked.stderr


def test_a_merge_patch_changes_one_thing_and_rollback_restores_it(lab):
    etag, before = current(lab)
    versions = lab.api("GET", "/v1/versions?limit=1000").json()
    answer = lab.api("PATCH", "/v1/config", {"geo": {"default_site": "us"}}, {"If-Match": etag, "Content-Type": "application/merge-patch+json"})
    assert answer.status == 200, answer.body
    assert "default_site: us" in current(lab)[1]
    newest = lab.api("GET", "/v1/versions?limit=1000").json()
    assert len(newest["versions"]) == len(versions["versions"]) + 1
    lab.tidegate("rollback", str(versions["versions"][0]["version"]), "--wait")
    assert current(lab) == (etag, before)


def test_every_plane_of_every_host_reports_the_version_it_applied(lab):
    status = lab.api("GET", "/v1/status").json()
    head = status["head"]["version"]
    seen = {(node["name"], plane["plane"]): plane for node in status["nodes"] for plane in node.get("planes", [])}
    for host in CONTROLLED:
        for plane in host.planes:
            assert seen[(host.name, plane)]["version"] == head, seen
    digests = {seen[(host, "l7")]["digest"] for host in ("proxy1", "proxy2")}
    assert len(digests) == 1, "two proxies of one site hold the same tables"


def test_explain_tells_one_story_from_every_plane(lab):
    answer = lab.api("GET", "/v1/explain?client=10.1.0.2&client_port=50000&url=https://www.example.test/static/hello.txt").json()
    planes = [step["plane"] for step in answer["steps"]]
    assert planes == ["dns", "l4", "l7"], answer
    dns, l4, l7 = answer["steps"]
    assert "vip-eu" in json.dumps(dns) and l4["backend"] in ("proxy1", "proxy2") and l7["route"] == "static" and l7["pool"] == "origins"
    human = lab.tidegate("explain", "10.1.0.2", "https://www.example.test/static/hello.txt").stdout
    assert "vip-eu" in human and "static" in human


def test_a_tcp_call_needs_a_token_and_the_unix_socket_does_not(lab):
    control = ("--cacert", lab.authority(), "https://10.99.0.1:9090/v1/config")
    code = lab.run("proxy1", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *control).stdout
    assert code == "401", code
    token = (lab.directory("edge") / "token").read_text()
    code = lab.run("proxy1", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Authorization: Bearer {token}", *control).stdout
    assert code == "200", code


def test_controls_and_their_clients_speak_tls_and_nothing_else(lab):
    home = lab.directory("edge")
    # The lab's other controls follow the leader, and the leader asks them in this way.
    nodes = lab.api("GET", "/v1/status").json()["nodes"]
    replicas = [node for node in nodes if node.get("role") == "replica"]
    assert replicas and all(node["reachable"] and node["connected"] for node in replicas), nodes
    curl = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{ssl_verify_result}", "-H", f"Authorization: Bearer {(home / 'token').read_text()}")
    ask = lambda *options: lab.run("proxy1", *curl, *options, check=False)
    assert ask("--cacert", lab.authority(), "https://10.99.0.1:9090/v1/status").stdout == "200 0"
    assert ask("--cacert", home / "example.crt", "https://10.99.0.1:9090/v1/status").returncode == 60, "another's authority"
    assert ask("http://10.99.0.1:9090/v1/status").stdout.startswith("000"), "in clear"
    tidegate = (BUILD / "control" / "tidegate", "--token-file", home / "token", "--api")
    told = lab.run("proxy1", *tidegate, "https://10.99.0.1:9090", "--ca", lab.authority(), "status").stdout
    assert "every plane has applied it" in told, told
    refused = lab.run("proxy1", *tidegate, "https://10.99.0.1:9090", "--ca", home / "example.crt", "status", check=False)
    assert refused.returncode == 3 and "certificate verify failed" in refused.stderr, refused
    nothing = lab.run("proxy1", *tidegate, "http://10.99.0.1:9090", "status", check=False)
    assert nothing.returncode == 3 and nothing.stdout == "", nothing


def test_a_control_does_not_listen_or_follow_in_clear_beyond_its_host_unless_told_to(lab):
    home = lab.directory("edge")
    command = (BUILD / "control" / "tidegate-control", "--state", home / "open-state", "--run", home / "open-run", "--tokens", home / "tokens")
    for options, word in ((("--listen", "10.99.0.1:9191"), "--tls-certificate"), (("--follow", "10.99.0.1:9090"), "--peer-ca")):
        refused = lab.run("edge", *command, *options, check=False)
        assert refused.returncode == 1 and word in refused.stderr and "--insecure" in refused.stderr, refused


def test_watch_tells_of_a_drain_as_it_happens_and_the_audit_remembers_who(lab):
    watcher = subprocess.Popen(
        ["curl", "-sN", "--unix-socket", str(lab.socket_path("edge", "control")), "http://control/v1/watch"], stdout=subprocess.PIPE, text=True
    )
    try:
        first = watcher.stdout.readline()  # the stream is open before the change is made
        assert first, "the stream says where it starts"
        lab.tidegate("drain", "backend", "origins/origin2", "--note", "e2e")
        while True:
            line = watcher.stdout.readline()
            assert line, "the stream ended"
            if "origins/origin2" in line:
                break
    finally:
        watcher.kill()
        watcher.wait()
        lab.tidegate("undrain", "backend", "origins/origin2", "--wait")
    audit = lab.api("GET", "/v1/audit").body.decode()
    assert "origins/origin2" in audit and "uid:0" in audit
    lab.tidegate("drain", "backend", "origins/origin2", "--note", "no disk\n2026-01-01 00:00:00  root  forged\x7f\t")
    try:
        for command in ("audit", "health"):
            told = lab.tidegate(command).stdout
            assert "no disk?2026-01-01 00:00:00  root  forged??" in told, f"a note forges no line: {told}"
    finally:
        lab.tidegate("undrain", "backend", "origins/origin2")


def test_the_openapi_document_lists_the_paths_that_answer(lab):
    document = lab.api("GET", "/v1/openapi.json").json()
    assert document["openapi"].startswith("3.")
    for path in ("/v1/config", "/v1/status", "/v1/explain", "/v1/rollback", "/v1/purge", "/v1/watch", "/v1/audit"):
        assert path in document["paths"], sorted(document["paths"])


def test_a_broken_api_body_is_a_problem_and_changes_nothing(lab):
    etag, _ = current(lab)
    for method, target, body in (
        ("PATCH", "/v1/config", "{"),
        ("PATCH", "/v1/config", "[1,2"),
        ("PUT", "/v1/config", "\x00\x01"),
        ("POST", "/v1/purge", "{}"),
        ("POST", "/v1/rollback", '{"to": "yesterday"}'),
        ("PUT", "/v1/admin/backend/origins/origin1", '{"state":"dancing"}'),
        ("PUT", "/v1/admin/backend/origins/nobody", '{"state":"drained"}'),
    ):
        answer = lab.api(method, target, body, {"If-Match": etag, "Content-Type": "application/json"})
        assert 400 <= answer.status < 500 and answer.headers["Content-Type"].startswith("application/problem+json"), (method, target, answer.status, answer.body)
    assert lab.api("GET", "/v1/nowhere").status == 404
    assert current(lab)[0] == etag


def test_a_follower_refuses_a_write_and_names_its_leader(lab):
    answer = lab.api("PUT", "/v1/admin/site/eu", {"state": "drained"}, host="proxy1")
    assert 400 <= answer.status < 500 and "10.99.0.1:9090" in answer.body.decode(), (answer.status, answer.body)


def test_metrics_of_every_daemon_are_prometheus_text(lab):
    for name in lab.processes:
        host, plane = name.split("/")
        if plane == "nginx":
            continue
        text = lab.plane(host, plane, "/metrics").body.decode()
        assert f"# TYPE tidegate_{plane}_" in text, name
        for line in text.splitlines():
            assert line.startswith("#") or float(line.rsplit(" ", 1)[1]) == float(line.rsplit(" ", 1)[1]), line


@contextlib.contextmanager
def lone_control(directory, *wrapper):
    """A separate control beside the lab's: its socket, its log and its process."""
    run, log = directory / "run", directory / "control.log"
    run.mkdir(parents=True, exist_ok=True)
    command = [*wrapper, BUILD / "control" / "tidegate-control", "--node", "lone", "--state", directory / "state", "--run", run]
    with log.open("wb") as out:
        process = subprocess.Popen([str(word) for word in command], stdout=out, stderr=out)
    try:
        wait_until("the lone control answers", lambda: (run / "control.sock").exists() and unix_request(run / "control.sock", "GET", "/healthz").status == 200)
        yield run / "control.sock", log, process
    finally:
        # unshare ignores SIGTERM. When it dies, its child gets a signal.
        process.kill() if wrapper else process.terminate()
        process.wait(30)
        wait_until("the lone control is gone", lambda: not (run / "control.sock").exists())


SMALL = "sites: [{name: eu}]\nnodes: [{name: lone, site: eu, dns: {listen: ['127.0.0.1:5399']}}]\n"


def test_a_full_disk_is_named_answered_507_and_harms_nothing(lab):
    directory = lab.directory("edge") / "small-disk"
    (directory / "state").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tidegate-test", directory / "state"], check=True)
    try:
        with lone_control(directory) as (socket, log, _):
            write = {"Content-Type": "application/yaml", "If-Match": "*"}
            assert unix_request(socket, "PUT", "/v1/config", SMALL, write).status == 200
            many = SMALL + "geo:\n  networks:\n" + "".join(f"    - {{network: 10.{n >> 8}.{n & 255}.0/24, site: eu}}\n" for n in range(30_000))
            refused = unix_request(socket, "PUT", "/v1/config", many, write)
            assert refused.status == 507 and json.loads(refused.body)["code"] == "disk_full", (refused.status, refused.body)
            assert "the disk that holds" in log.read_text() and "is full" in log.read_text()
            assert b"5399" in unix_request(socket, "GET", "/v1/config").body, "what was committed stands"
            assert unix_request(socket, "PUT", "/v1/config", SMALL.replace("5399", "5398"), write).status == 200, "a small change has room"
            assert "can be written again" in log.read_text()
    finally:
        subprocess.run(["umount", directory / "state"], check=True)
        shutil.rmtree(directory)


def test_a_reader_in_another_pid_namespace_is_told_so_and_not_to_move_the_state(lab):
    directory = lab.directory("edge") / "namespaces"
    alone = ("unshare", "--pid", "--fork", "--kill-child=SIGTERM")
    with lone_control(directory, *alone) as (socket, _, _):
        assert unix_request(socket, "PUT", "/v1/config", SMALL, {"Content-Type": "application/yaml", "If-Match": "*"}).status == 200
        command = [*alone, BUILD / "control" / "tidegate", "backup", directory / "kept", "--state", directory / "state"]
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1 and "process id 1" in done.stderr and "must share a PID namespace" in done.stderr, done
        assert "move" not in done.stderr, done
        assert unix_request(socket, "GET", "/v1/config").status == 200, "the control goes on"
    shutil.rmtree(directory)


# Asks for /healthz over one connection until its standard input ends. Prints the times of the slowest answers, in ms.
# It has a process of its own, because threads of one Python wait for each other.
ASKER = """
import json, os, select, socket, sys, time
os.nice(-10)
control = socket.socket(socket.AF_UNIX)
control.connect(sys.argv[1])
took_ms = []
while not select.select([sys.stdin], [], [], 0.0005)[0]:
    begun = time.perf_counter()
    control.sendall(b"GET /healthz HTTP/1.1\\r\\nHost: control\\r\\n\\r\\n")
    assert control.recv(65536).startswith(b"HTTP/1.1 200 ")
    took_ms.append((time.perf_counter() - begun) * 1000)
print(json.dumps({"answers": len(took_ms), "slowest": sorted(took_ms)[-5:]}))
"""
HEALTHZ_MS = 5


@contextlib.contextmanager
def healthz_asked(socket, told):
    asker = subprocess.Popen([sys.executable, "-c", ASKER, str(socket)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield
    finally:
        told.update(json.loads(asker.communicate()[0]))


@long
def test_the_control_answers_at_once_while_it_works_on_a_hundred_thousand_objects(lab):
    count = 100_000 if TIMED else 1_000
    directory = lab.directory("edge") / "many-objects"
    documents = [SMALL + "routes:\n" + "".join(f"  - {{name: r{i}, path: /some/longer/path/{i}, status: {status}}}\n" for i in range(count)) for status in (404, 410)]
    yaml, any_version = {"Content-Type": "application/yaml", "If-Match": "*"}, {"If-Match": "*"}
    calls = {
        "a dry run": ("PUT", "/v1/config?dry_run=true", documents[0], yaml),
        "the first document": ("PUT", "/v1/config", documents[0], yaml),
        "another document": ("PUT", "/v1/config", documents[1], yaml),
        "one object": ("PUT", "/v1/config/routes/r5", "{path: /x5, status: 418}", yaml),
        "the configuration": ("GET", "/v1/config", None, {}),
        "an old configuration": ("GET", "/v1/versions/1/config", None, {}),
        "a version": ("GET", "/v1/versions/1", None, {}),
        "a difference": ("GET", "/v1/diff?from=1&to=2", None, {}),
        "a rollback": ("POST", "/v1/rollback", '{"to": 1}', {"Content-Type": "application/json", **any_version}),
        "a provisional document": ("PUT", "/v1/config?confirm=1000", documents[1], yaml),
    }
    told = {}
    with lone_control(directory) as (socket, log, _):
        for name, (method, path, body, headers) in calls.items():
            with healthz_asked(socket, told.setdefault(name, {})):
                answer = unix_request(socket, method, path, body, headers, timeout=120)
                assert answer.status == 200, (name, answer.status, answer.body[:500])
        with healthz_asked(socket, told.setdefault("its way back", {})):
            wait_until("it is taken back", lambda: unix_request(socket, "GET", "/v1/versions?limit=1").json()["in_force"] == 6, 60)
    shutil.rmtree(directory)
    late = {name: measured for name, measured in told.items() if max(measured["slowest"]) > HEALTHZ_MS}
    assert all(measured["answers"] > 0 for measured in told.values()), told
    assert not TIMED or not late, late
