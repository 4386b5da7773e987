# SPDX-License-Identifier: Apache-2.0
"""What a new process of a daemon takes over from the old one, and what happens if one of them is no good."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess

import box
import xdp_e2e
from issuer import encoded
from lab import BUILD, binary, open_socket
from netns import wait_until
from policy_e2e import client_of_the_readme
from upgrading import DIES, DnsLoad, Manager, PROXY_DOCUMENT, ZONE, dns_document, end_all, is_gone, one_proxy, one_server, upgrade


def test_a_new_program_that_is_no_good_changes_nothing(lab):
    with one_server() as server, DnsLoad("client-eu", [server.machine.host.v4]) as load:
        real = binary("dns")
        assert "exit status 3" in server.refused("--program", server.program("crashes", "#!/bin/sh\nexit 3\n"))
        assert "signal 11" in server.refused("--program", server.program("faults", "#!/bin/sh\nkill -SEGV $$\n"))
        assert "not ready within 1000 ms" in server.refused("--within", 1, "--program", server.program("hangs", "#!/bin/sh\nexec sleep 1000\n"))
        assert "No such file" in server.refused("--program", server.machine.home / "absent")
        server.program("talks", "#!/usr/bin/python3\nimport os, socket\ns = socket.socket(fileno=3)\ns.send(b'nonsense')\ns.recv(100)\n")
        assert "no message of a hand-over" in server.refused("--program", server.machine.home / "talks")
        older = server.program("older", f'#!/bin/sh\nTIDEGATE_HAND_OVER=3:0 exec {real} "$@"\n')
        assert re.search(r"the hand-over's format is 0; this program \(\S+\) speaks 1 to 2", server.refused("--program", older))
        newer = server.program("newer", "#!/usr/bin/python3\nimport socket, struct\ns = socket.socket(fileno=3)\ns.send(b'TGHO' + struct.pack('>HHQHH', 3, 1, 0, 0, 0))\ns.recv(100)\n")
        assert "the hand-over's format is 3; this program speaks 1 to 2" in server.refused("--program", newer)
        assert "is tidegate-l7, not tidegate-dns" in server.refused("--program", binary("l7"))
        wrong = server.program("wrong_secret", f'#!/bin/sh\nexec {real} "$@" --secret /nonexistent\n')
        assert "cannot read the secret file /nonexistent" in server.refused("--program", wrong)
        server.machine.write("up.yaml", "nodes: [{name: up, dns: {listen: [nonsense]}}]\n")
        assert "nonsense" in server.refused(), "the new process cannot serve what the document says by now"
        server.machine.write("up.yaml", dns_document(1))
        metrics = server.machine.ask("dns", "/metrics").body.decode()
        assert re.search(r"^tidegate_dns_upgrade_failures_total ([89]|1\d)$", metrics, re.MULTILINE), metrics
        load.wait_for(20)
    assert load.lost == [], load.lost[:5]


# Speaks like an earlier release, in the earlier format. The running process must answer in that format, without later
# additions. In the end the present program takes over in the same format.
SPEAKS_THE_FORMAT_BEFORE = """#!/usr/bin/python3
import os, socket, struct, sys
old = socket.socket(fileno=3)
old.send(b"TGHO" + struct.pack(">HHQHH", {format}, 1, 0, len(b"{plane}\\n0.0.9\\n"), 0) + b"{plane}\\n0.0.9\\n")
kinds = []
while True:
    message, sockets, _, _ = socket.recv_fds(old, 65536, 253)
    magic, spoken, kind, _, text, items = struct.unpack(">4sHHQHH", message[:20])
    assert (magic, spoken) == (b"TGHO", {format}), message[:20]
    kinds += [message[20 + text + 20 * i] for i in range(items)]
    assert len(sockets) == items
    if kind == 3:  # every socket was sent
        sys.exit(40 + max(kinds))
"""


def in_the_format_before(machine, plane):
    """The running process hands over to a release before, which looks and gives up, and then to the present program, which
    speaks as that one does."""
    text = SPEAKS_THE_FORMAT_BEFORE.format(plane=plane, format=1)
    looks, speaks = machine.write(f"looks-{plane}", text), machine.write(f"speaks-{plane}", f'#!/bin/sh\nTIDEGATE_HAND_OVER=3:1 exec {binary(plane)} "$@"\n')
    for program in (looks, speaks):
        program.chmod(0o755)
    looked = upgrade(machine.run_dir, plane, "--program", looks)
    told = re.search(r"exit status (\d+)", looked.stderr)
    assert looked.returncode == 1 and told and 41 <= int(told[1]) <= 45, looked  # all but the memory of format 2, which is 46
    before = machine.ask(plane, "/status").json()
    done = upgrade(machine.run_dir, plane, "--program", speaks)
    assert done.returncode == 0 and "sockets are handed over" in done.stdout, done
    after = machine.ask(plane, "/status").json()
    assert after["pid"] != before["pid"] and after["generation"] == before["generation"] + 1, after


def test_a_downgrade_speaks_the_format_of_the_release_before(lab):
    """Down by one version, and up again, while questions come."""
    with one_server() as server, DnsLoad("client-eu", [server.machine.host.v4]) as load:
        in_the_format_before(server.machine, "dns")
        load.wait_for(50)
        assert upgrade(server.machine.run_dir, "dns").returncode == 0
        load.wait_for(50)
    assert load.lost == [], load.lost[:5]


def test_a_downgrade_of_the_proxy_leaves_its_counts_behind(lab):
    """Counts of a limit are handed over from format 2 on. The release before would not know what they are."""
    with one_proxy(LIMITED) as machine, contextlib.closing(http.client.HTTPConnection("www.example.test")) as client:

        def status():
            client.close()
            client.sock = open_socket("client-eu", socket.AF_INET, socket.SOCK_STREAM)
            client.sock.settimeout(20)
            client.sock.connect((machine.host.v4, 80))
            client.request("GET", "/api/v1/x")
            answer = client.getresponse()
            answer.read()
            return answer.status

        assert [status(), status()] == [200, 429]
        assert upgrade(machine.run_dir, "l7").returncode == 0
        assert status() == 429, "the count goes on"
        in_the_format_before(machine, "l7")
        assert [status(), status()] == [200, 429], "the count begins anew"


def test_a_signed_request_that_was_taken_before_an_upgrade_is_refused_after_it(lab):
    """By a site without a secret: the memory of signatures has keys of its own."""
    secret = b"s" * 40
    policy = "policies: [{name: signed, authenticate: {signatures: {keys_file: partners.json}}}]\nroutes:"
    document = PROXY_DOCUMENT.replace("routes:", policy).replace('path: "/*"', 'path: "/*", policies: [signed]').replace("path: cache", "path: {home}/cache")
    with box.raised("up", 66) as machine:
        machine.write("partners.json", json.dumps({"keys": [{"kty": "oct", "kid": "partner", "k": encoded(secret)}]}))
        process = machine.start_plane("l7", machine.write("up.yaml", document.replace("{home}", str(machine.home))))
        machine.wait_ready("l7", process)

        def status(fields):
            with contextlib.closing(http.client.HTTPConnection("www.example.test")) as client:
                client.sock = open_socket("client-eu", socket.AF_INET, socket.SOCK_STREAM)
                client.sock.settimeout(20)
                client.sock.connect((machine.host.v4, 80))
                client.request("GET", "/api/v1/x", headers=fields)
                return client.getresponse().status

        try:
            sign = client_of_the_readme()
            first, second = (sign("GET", "www.example.test", "/api/v1/x", "", "partner", secret) for _ in range(2))
            assert [status(first), status(first)] == [200, 401]
            for _ in range(2):
                assert upgrade(machine.run_dir, "l7").returncode == 0
                assert status(first) == 401, "a replay"
            assert [status(second), status(second)] == [200, 401]
        finally:
            end_all(machine)


def test_more_and_fewer_workers_take_over_every_socket(lab):
    with one_server() as server, DnsLoad("client-eu", [server.machine.host.v4], udp=4, tcp=4) as load:
        for generation, workers in enumerate((4, 1, "auto", 3), 2):
            server.machine.write("up.yaml", dns_document(workers))
            done = upgrade(server.machine.run_dir, "dns")
            assert done.returncode == 0, done.stdout + done.stderr
            status = server.status()
            assert status["generation"] == generation and status["workers"] == (len(os.sched_getaffinity(0)) if workers == "auto" else workers), status
            load.wait_for(100)
        assert upgrade(server.machine.run_dir, "dns", "--wait").returncode == 0
        load.wait_for(50)
    assert load.lost == [], load.lost[:5]


def test_workers_auto_are_one_a_core_and_counted_anew_by_each_upgrade(lab):
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # what is started from here may use one core
    try:
        with one_proxy(PROXY_DOCUMENT.replace("workers: 1", "workers: auto")) as machine:
            os.sched_setaffinity(0, cores)
            before = machine.ask("l7", "/status").json()
            assert before["workers"] == 1, before
            os.sched_setaffinity(before["pid"], cores)
            assert machine.ask("l7", "/status").json()["workers"] == 1, "a process keeps its number"
            for wanted in (cores, {max(cores)}):  # more, then fewer that take over all sockets
                os.sched_setaffinity(machine.ask("l7", "/status").json()["pid"], wanted)
                done = upgrade(machine.run_dir, "l7")
                assert done.returncode == 0, done
                after = machine.ask("l7", "/status").json()
                assert after["workers"] == len(wanted) and after["needs_restart"] == [], after
                codes = [lab.curl("client-eu", "http://www.example.test/static/hello.txt", "-o", "/dev/null", "-w", "%{http_code}", vip=machine.host.v4).stdout for _ in range(8)]
                assert codes == ["200"] * 8, codes
    finally:
        os.sched_setaffinity(0, cores)


def test_queries_by_af_xdp_are_taken_over_too(lab):
    with xdp_e2e.server() as server:
        try:
            server.start()
            taken = server.by_xdp()
            with DnsLoad("client-eu", server.addresses) as load:
                dies_when_the_old_one_has_let_go(server.machine, "dns")
                before = server.by_xdp()
                wait_until("queries come by AF_XDP again", lambda: server.by_xdp() > before or load.lost, 30)
                for _ in range(2):
                    done = upgrade(server.machine.run_dir, "dns")
                    assert done.returncode == 0, done.stdout + done.stderr
                    taken = server.by_xdp()
                    wait_until("queries come by AF_XDP again", lambda before=taken: server.by_xdp() > before or load.lost, 30)
                    load.wait_for(50)
            assert load.lost == [], load.lost[:5]
            assert server.programs() > 0
        finally:
            end_all(server.machine)


def dies_when_the_old_one_has_let_go(machine, plane):
    path = machine.write(f"dies-{plane}", DIES.format(plane=plane))
    path.chmod(0o755)
    before = machine.ask(plane, "/status").json()
    done = upgrade(machine.run_dir, plane, "--program", path)
    assert done.returncode == 1 and "has let go" in done.stdout and "exit status 7" in done.stderr, done
    after = machine.ask(plane, "/status").json()
    assert (after["pid"], after["generation"], after["upgrade"]) == (before["pid"], before["generation"], None), after


LIMITED = PROXY_DOCUMENT.replace("routes:", "policies: [{name: few, limit: {requests: 1, per: 1h, burst: 1}}]\nroutes:").replace('path: "/*"', 'path: "/*", policies: [few]')


def test_a_new_process_that_dies_when_the_old_one_has_let_go_leaves_it_whole(lab):
    """The cache's disk tier takes responses again, and the next upgrade finds them."""
    with one_proxy() as machine, contextlib.closing(http.client.HTTPConnection("www.example.test")) as client:
        client.sock = open_socket("client-eu", socket.AF_INET, socket.SOCK_STREAM)
        client.sock.settimeout(20)
        client.sock.connect((machine.host.v4, 80))

        def get(path):
            client.request("GET", path)
            answer = client.getresponse()
            assert answer.status == 200 and answer.read()
            return answer.getheader("cache-status", "")

        def stored():
            found = re.search(r'^tidegate_cache_stored_total\{tier="disk"\} (\d+)$', machine.ask("l7", "/metrics").body.decode(), re.MULTILINE)
            return int(found[1])

        get("/static/varied/a")
        wait_until("the first response is on the disk", lambda: stored() == 1, 20)
        for _ in range(2):
            dies_when_the_old_one_has_let_go(machine, "l7")
        wait_until("the disk tier is not frozen", lambda: machine.ask("l7", "/healthz").body == b"ok\n", 20)
        get("/static/varied/b")
        wait_until("the disk takes responses again", lambda: stored() == 2, 20)
        done = upgrade(machine.run_dir, "l7")
        assert done.returncode == 0, done
        client.close()
        client.sock = open_socket("client-eu", socket.AF_INET, socket.SOCK_STREAM)
        client.sock.connect((machine.host.v4, 80))
        wait_until("the new process has the index", lambda: not machine.ask("l7", "/status").json()["cache"]["loading"])
        assert "hit" in get("/static/varied/a") and "hit" in get("/static/varied/b")


def test_a_process_that_drains_ignores_a_reload_and_ends_at_once_when_told_to(lab):
    with one_proxy() as machine:
        old = machine.ask("l7", "/status").json()["pid"]
        answers = []
        for _ in range(2):
            sock = open_socket("client-eu", socket.AF_INET, socket.SOCK_STREAM)
            sock.settimeout(20)
            sock.connect((machine.host.v4, 80))
            sock.sendall(b"GET /api/v1/x HTTP/1.1\r\nHost: www.example.test\r\n")  # the last line follows
            answers.append(sock)
        wait_until("the proxy has both connections", lambda: "tidegate_l7_client_connections 2\n" in machine.ask("l7", "/metrics").body.decode(), 20)
        assert upgrade(machine.run_dir, "l7").returncode == 0
        draining = lambda: machine.ask("l7", "/status").json()["draining_processes"]
        assert [process["pid"] for process in draining()] == [old], draining()
        os.kill(old, signal.SIGHUP)
        answers[0].sendall(b"\r\n")
        assert b"200 OK" in answers[0].recv(65536), "it serves what it has"
        os.kill(old, signal.SIGTERM)
        wait_until("it has ended", lambda: draining() == [] and is_gone(old), 20)
        assert answers[1].recv(100) == b""
        assert machine.ask("l7", "/healthz").body == b"ok\n"
        for sock in answers:
            sock.close()


def test_a_service_manager_hears_which_process_is_the_daemon_and_the_new_one_feeds_its_watchdog(lab):
    with box.raised("up", 66) as machine:
        machine.write("example.test.zone", ZONE)
        manager = Manager(machine.home / "notify")
        try:
            daemon = machine.start("dns", "env", f"NOTIFY_SOCKET={manager.path}", "WATCHDOG_USEC=1000000", binary("dns"), "--config", machine.write("up.yaml", dns_document(1)), "--run", machine.run_dir, "--node", "up")
            machine.wait_ready("dns", daemon)
            old = machine.ask("dns", "/status").json()["pid"]
            manager.wait_for(old, "READY=1")
            assert upgrade(machine.run_dir, "dns").returncode == 0  # what the unit's ExecReload does
            new = machine.ask("dns", "/status").json()["pid"]
            manager.wait_for(old, f"MAINPID={new}")
            after = manager.wait_for(new, "WATCHDOG=1") + manager.wait_for(new, "WATCHDOG=1")
            assert {pid for pid, _ in after} == {new}, "the old one says nothing more"
        finally:
            manager.socket.close()
            end_all(machine)


def test_under_tidegate_run_upgrades_are_no_crashes_and_no_process_outlives_it(lab):
    with box.raised("up", 66) as machine:
        machine.write("example.test.zone", ZONE)
        path = machine.write("up.yaml", dns_document(2))
        run = lambda: machine.start("run", BUILD / "control" / "tidegate", "run", path, "--node", "up", "--state", machine.state_dir, "--run", machine.run_dir)
        supervisor = run()
        machine.wait_ready("dns", supervisor)
        pid = lambda: machine.ask("dns", "/status").json()["pid"]
        said = lambda words: words in supervisor.log.read_text()
        with DnsLoad("client-eu", [machine.host.v4]) as load:
            for _ in range(2):
                before = pid()
                done = upgrade(machine.run_dir, "dns")
                assert done.returncode == 0, done
                assert said(f"upgraded: process {pid()} serves, process {before} finishes its connections")
                load.wait_for(20)
                wait_until("the old one has ended", lambda before=before: said(f"process {before}, which was replaced: "), 60, supervisor)
        assert load.lost == [], load.lost[:5]
        assert not said("starting it again"), supervisor.tail()
        upgraded_to = pid()
        os.kill(upgraded_to, signal.SIGKILL)
        wait_until("a crashed one is started again", lambda: machine.ask("dns", "/status").json()["generation"] == 1 and said("starting it again"), 60, supervisor)
        assert upgrade(machine.run_dir, "dns").returncode == 0
        assert supervisor.stop() == 0 and machine.pids() == set(), supervisor.tail()
        supervisor = run()
        machine.wait_ready("dns", supervisor)
        assert upgrade(machine.run_dir, "dns").returncode == 0
        supervisor.popen.kill()
        supervisor.popen.wait(20)
        wait_until("nothing outlives it", lambda: machine.pids() == set(), 60)


def test_one_upgrade_at_a_time_only_by_its_user_and_ended_by_a_signal(lab):
    with one_server() as server:
        hangs = server.program("hangs", "#!/bin/sh\nexec sleep 1000\n")
        path = server.machine.run_dir / "dns.sock"
        path.chmod(0o666)
        server.machine.home.chmod(0o755)
        stranger = subprocess.run(
            ["setpriv", "--reuid", "65534", "--clear-groups", "curl", "-s", "-X", "POST", "--unix-socket", str(path), "http://x/upgrade"], stdout=subprocess.PIPE, text=True
        )
        assert '"status":403' in stranger.stdout.replace(" ", ""), stranger
        hanging = subprocess.Popen([str(BUILD / "control" / "tidegate"), "upgrade", "dns", "--run", str(server.machine.run_dir), "--program", str(hangs)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        pid = wait_until("the new process runs", lambda: (server.status()["upgrade"] or {}).get("pid"), 20)
        second = upgrade(server.machine.run_dir, "dns")
        assert second.returncode == 1 and f"an upgrade is under way: process {pid}" in second.stderr, second.stderr
        server.process.popen.send_signal(signal.SIGTERM)
        out, err = hanging.communicate(timeout=30)
        assert hanging.returncode in (1, 3) and err, (hanging.returncode, out, err)
        assert server.process.popen.wait(30) == 0
        wait_until("the new process is gone", lambda: is_gone(pid), 20)


def test_what_hands_nothing_over_says_what_to_do_instead(lab):
    done = upgrade(lab.directory("l4") / "run", "control")
    assert done.returncode == 1 and "systemctl restart tidegate-control" in done.stderr, done.stderr
    nobody = upgrade(lab.directory("edge") / "nowhere", "l7")
    assert nobody.returncode == 3 and "l7" in nobody.stderr, nobody
