# SPDX-License-Identifier: Apache-2.0
"""Private keys: tidegate-control and tidegate-l7 can read them. The other daemons of a host, as users of their own,
cannot, and do their work without them."""

import os
import shutil
import subprocess

import box
from lab import BUILD, binary
from netns import sh, wait_until

CONTROL, L7, DNS, L4 = 23451, 23452, 23453, 23454
READERS = 23456  # the group of the state
KEYS, KEYS_GROUP = 1, "daemon"  # a group that every Debian has

DOCUMENT = """\
sites:
  - {name: home}
nodes:
  - name: box
    site: home
    l4: {ports: [{device: eth1, driver: af_packet, addresses: [10.10.0.62/24], gateways: [10.10.0.1]}], flows: 4096}
    l7: {workers: 1}
    dns: {listen: ["10.10.0.61:53"]}
vips:
  - {name: web, site: home, addresses: [10.10.0.200]}
services:
  - {name: https, vip: web, port: 443, pool: proxies}
pools:
  - name: proxies
    backends: [{name: box, node: box, addresses: [10.10.0.61]}]
certificates:
  - {name: www, certificate_file: www.crt, key_file: www.key}
listeners:
  - {name: https, bind: ["0.0.0.0:443"], tls: {certificates: [www]}}
routes:
  - {name: fixed, path: "/*", status: 200, body: "served by a key that only two can read\\n"}
zones:
  - {name: example.test, file: example.test.zone}
steers:
  - {name: www.example.test, ttl: 5s, targets: [{vip: web}]}
"""


def as_user(user, groups, capabilities, *command):
    ambient = ",".join(f"+{name}" for name in capabilities)
    words = ["setpriv", f"--reuid={user}", f"--regid={READERS}", f"--groups={','.join(map(str, groups))}"]
    if ambient:
        words += [f"--inh-caps={ambient}", f"--ambient-caps={ambient}"]
    return [*words, *command]


def read_as(user, groups, path):
    return subprocess.run([str(word) for word in as_user(user, groups, [], "cat", path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def prepare(lab, node):
    (node.home / "example.test.zone").write_text((lab.directory("edge") / "example.test.zone").read_text())
    sh(*"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=www -addext subjectAltName=DNS:www.example.test".split(),
       "-keyout", node.home / "www.key", "-out", node.home / "www.crt")  # fmt: skip
    os.chown(node.home / "www.key", CONTROL, READERS)
    (node.home / "www.key").chmod(0o600)
    os.chown(node.state_dir, CONTROL, READERS)
    node.state_dir.chmod(0o2770)
    node.run_dir.chmod(0o777)
    return node.write("edge.yaml", DOCUMENT)


def start_daemons(node, path):
    """Each daemon as a user of its own. All of them are in the group of the state."""
    common = ["--state", node.state_dir, "--run", node.run_dir, "--node", "box"]
    control = node.start("control", *as_user(CONTROL, (READERS, KEYS), [], binary("control"), *common, "--config", path, "--secrets-group", KEYS_GROUP))
    node.wait_ready("control", control)
    processes = {}
    for plane, user, groups, capabilities in (
        ("l7", L7, (READERS, KEYS), ("net_bind_service",)),
        ("dns", DNS, (READERS,), ("net_bind_service",)),
        ("l4", L4, (READERS,), ("net_admin", "net_raw", "bpf", "ipc_lock", "sys_admin")),
    ):
        processes[plane] = node.start(plane, *as_user(user, groups, capabilities, binary(plane), *common))
    for plane, process in processes.items():
        node.wait_ready(plane, process)
    return control, processes


def opened_secrets(process):
    with open(f"/proc/{process.pid}/maps") as maps:
        return "/secrets/data.mdb" in maps.read()


def test_a_key_is_read_by_the_proxy_and_the_control_and_by_no_other_daemon_of_the_host(lab):
    with box.raised(second_port=True, vip=box.VIP) as node:
        path = prepare(lab, node)
        control, planes = start_daemons(node, path)
        answer = lab.curl("client-eu", "https://www.example.test/", "--insecure", vip="10.10.0.61").stdout
        assert answer == "served by a key that only two can read\n"
        assert lab.run("client-eu", "dig", "+short", "@10.10.0.61", "www.example.test", "A").stdout.split() == ["10.10.0.200"]

        key = (node.home / "www.key").read_bytes().split(b"\n")[1]
        secrets = node.state_dir / "secrets"
        assert key in (secrets / "data.mdb").read_bytes() and key not in (node.state_dir / "state" / "data.mdb").read_bytes()
        assert key in read_as(L7, (READERS, KEYS), secrets / "data.mdb").stdout
        for user in (DNS, L4):
            for name in ("data.mdb", "lock.mdb"):
                refused = read_as(user, (READERS,), secrets / name)
                assert refused.returncode != 0 and b"Permission denied" in refused.stderr, refused
            readable = read_as(user, (READERS,), node.state_dir / "state" / "data.mdb").stdout
            assert b"example.test" in readable and key not in readable
        assert {name: opened_secrets(process) for name, process in planes.items()} == {"l7": True, "dns": False, "l4": False}

        # A proxy that may not read keys says so, names the remedy, and affects nobody.
        assert planes["l7"].stop() == 0
        stranger = node.start("l7", *as_user(DNS, (READERS,), ("net_bind_service",), binary("l7"), "--state", node.state_dir, "--run", node.run_dir, "--node", "box"))
        told = lambda: node.ask("l7", "/healthz").body.decode()
        wait_until("the stranger says why", lambda: "--secrets-group" in told(), 30, stranger)
        assert node.ask("l7", "/healthz").status == 503 and "Permission denied" in told(), told()


def test_a_backup_is_restored_with_the_owner_group_and_mode_of_keys(lab):
    home = lab.directory("edge") / "secrets-of-a-backup"
    home.mkdir()
    try:
        state, kept = home / "state-dir", home / "kept"
        state.mkdir()
        os.chown(state, CONTROL, READERS)
        state.chmod(0o2770)
        command = ("tidegate-control", "--state", state, "--run", home / "run", "--node", "box", "--secrets-group", KEYS_GROUP)
        (home / "run").mkdir()
        (home / "run").chmod(0o777)
        node_files = lab.directory("edge")
        document = home / "edge.yaml"
        document.write_text("certificates:\n  - {name: a, certificate_file: a.crt, key_file: a.key}\n")
        shutil.copy(node_files / "example.crt", home / "a.crt")
        shutil.copy(node_files / "example.key", home / "a.key")
        os.chown(home / "a.key", CONTROL, READERS)
        words = as_user(CONTROL, (READERS, KEYS), [], BUILD / "control" / command[0], *command[1:], "--config", document)
        with open(home / "control.log", "wb") as log:
            control = subprocess.Popen([str(word) for word in words], stdout=log, stderr=log)
        try:
            wait_until("the control has its first version", lambda: (home / "run" / "control.sock").exists(), 30)
            tidegate = lambda *words: subprocess.run([BUILD / "control" / "tidegate", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            done = tidegate("backup", kept, "--state", state)
            assert done.returncode == 0, done
        finally:
            control.terminate()
            control.wait(30)
        before = {name: (state / name).stat() for name in ("state", "secrets", "secrets/data.mdb", "secrets/lock.mdb", "state/data.mdb")}
        assert before["secrets"].st_mode & 0o7777 == 0o2750 and before["secrets"].st_gid == KEYS
        key = (home / "a.key").read_bytes().split(b"\n")[1]
        assert key in (kept / "secrets" / "data.mdb").read_bytes() and kept.stat().st_mode & 0o077 == 0
        shutil.rmtree(state / "state")  # the disk of the state is lost; the keys are not
        done = tidegate("restore", kept, "--state", state)
        assert done.returncode == 0 and "holds version 1" in done.stdout, done
        for name, was in before.items():
            now = (state / name).stat()
            assert (now.st_uid, now.st_gid, oct(now.st_mode)) == (was.st_uid, was.st_gid, oct(was.st_mode)), name
        assert not (state / "restoring").exists()
        aside = [path for path in state.iterdir() if path.name.startswith("secrets.before-restore-")]
        assert len(aside) == 1 and aside[0].stat().st_mode & 0o077 == 0

        # A backup without its keys is refused before anything is replaced.
        shutil.rmtree(kept / "secrets")
        done = tidegate("restore", kept, "--state", state)
        assert done.returncode == 1 and "1 private key" in done.stderr, done
        assert key in (state / "secrets" / "data.mdb").read_bytes()
    finally:
        shutil.rmtree(home)
