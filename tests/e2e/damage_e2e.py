# SPDX-License-Identifier: Apache-2.0
"""Garbage and damage: invalid packets and queries, and damaged state and cache environments. None of it may do
harm."""

import os
import random
import re
import shutil
import socket

from cache_e2e import ask, fresh_path
from lab import open_socket
from netns import wait_until
from topology import DNS_EU, VIP_EU

WWW = "https://www.example.test"


def test_random_queries_neither_kill_nor_silence_the_dns_server(lab):
    seeded = random.Random(20260101)
    with open_socket("client-eu", socket.AF_INET, socket.SOCK_DGRAM) as client:
        for _ in range(3000):
            client.sendto(seeded.randbytes(seeded.randrange(1, 600)), (DNS_EU[0], 53))
    question = bytes.fromhex("1234010000010000000000000377777707") + b"example\x04test\x00\x00\x01\x00\x01"
    with open_socket("client-eu", socket.AF_INET, socket.SOCK_DGRAM) as client:
        for length in range(len(question)):
            client.sendto(question[:length], (DNS_EU[0], 53))
    assert lab.process("edge", "dns").running()
    assert lab.run("client-eu", "dig", "+short", f"@{DNS_EU[0]}", "www.example.test").stdout.split() == [VIP_EU[0]]


def test_random_frames_neither_kill_nor_stop_the_forwarder(lab):
    seeded = random.Random(20260102)
    mac = bytes.fromhex(lab.run("l4", "cat", "/sys/class/net/eth0/address").stdout.strip().replace(":", ""))
    with open_socket("proxy1", socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0))
        source = raw.getsockname()[4]
        for turn in range(3000):
            kind = (b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x81\x00", b"\x88\xa8")[turn % 5]
            start = {b"\x08\x00": b"\x45", b"\x86\xdd": b"\x60"}.get(kind, b"")
            raw.send(mac + source + kind + start + seeded.randbytes(seeded.randrange(0, 1400)))
    assert lab.process("l4", "l4").running()
    for vip in VIP_EU:
        assert lab.curl("client-eu", WWW + "/", vip=vip).stdout == "the origin's front page\n"


def test_a_damaged_cache_is_set_aside_and_the_proxy_serves_on(lab):
    lab.process("proxy1", "l7").kill()
    data = lab.directory("proxy1") / "state" / "cache" / "data.mdb"
    size = data.stat().st_size
    with open(data, "r+b") as file:
        file.write(os.urandom(min(size, 64 * 1024)))
    lab.start_plane("proxy1", "l7")
    lab.wait_ready("proxy1")
    for _ in range(2):
        assert lab.curl("client-eu", WWW + "/static/hello.txt", vip="10.10.0.11").stdout == "hello from the origin\n"


def test_a_damaged_state_is_named_in_one_line_and_the_planes_serve_on(lab):
    lab.process("proxy2", "control").kill()
    lab.process("proxy2", "l7").kill()
    data = lab.directory("proxy2") / "state" / "state" / "data.mdb"
    kept = data.read_bytes()
    data.write_bytes(os.urandom(8192) + kept[8192:])
    try:
        # The plane has no earlier decisions. So it waits for a readable state, and says why.
        process = lab.start_plane("proxy2", "l7")
        wait_until("the plane says what is wrong", lambda: "nothing is in force yet" in process.tail(), 30, process)
        health = lab.plane("proxy2", "l7", "/healthz")
        assert health.status == 503 and "no version applied yet" in health.body.decode() and "cannot be used" in health.body.decode(), health.body
        # The forwarder no longer uses this proxy; the other proxy serves.
        wait_until("the sibling serves", lambda: lab.curl("client-eu", WWW + "/", check=False).returncode == 0, 30)
        assert process.tail().count("nothing is in force yet") == 1 and "AddressSanitizer" not in process.tail(), process.tail()
        # The control of proxy2 comes back, sets the damaged state aside and fetches everything again. The plane was not
        # restarted.
        lab.start_control("proxy2")
        lab.wait_ready("proxy2")
        assert process.running() and lab.process("proxy2", "l7") is process
    except BaseException:
        data.write_bytes(kept)
        raise
    assert lab.curl("client-eu", WWW + "/", vip="10.10.0.12").stdout == "the origin's front page\n"


def test_a_state_cut_off_under_a_running_host_stops_nothing_and_comes_back_whole(lab):
    data = lab.directory("proxy2") / "state" / "state" / "data.mdb"
    lab.tidegate("drain", "backend", "origins/origin1", "--note", "kept by the leader", "--wait")
    plane = lambda: lab.plane("proxy2", "l7", "/status").json()
    pid = plane()["pid"]
    os.truncate(data, 8192)
    wait_until("the plane says what happened", lambda: "was cut off" in (plane()["refused"] or ""), 20, lab.process("proxy2", "l7"))
    assert lab.curl("client-eu", WWW + "/", vip="10.10.0.12").stdout == "the origin's front page\n"
    lab.tidegate("undrain", "backend", "origins/origin1")
    control = lab.process("proxy2", "control")
    wait_until("the control says what happened", lambda: "was cut off" in control.log.read_text(), 20, control)
    # After its restart the control sets the damaged state aside and gets everything again. The plane was not
    # restarted.
    control.stop()
    lab.start_control("proxy2")
    head = lab.api("GET", "/v1/status").json()["head"]
    followed = lambda s: s["refused"] is None and s["version"] == head["version"] and s["words"] >= head["words"]
    wait_until("the plane follows the new state", lambda: followed(plane()), 20)
    assert plane()["pid"] == pid
    assert "is damaged" in lab.process("proxy2", "control").tail(40)
    assert (lab.directory("proxy2") / "state" / "state.damaged" / "data.mdb").exists(), "what was damaged is kept"


def test_a_lock_file_cut_off_under_a_running_host_ends_no_process(lab):
    lock = lab.directory("proxy2") / "state" / "state" / "lock.mdb"
    plane = lambda: lab.plane("proxy2", "l7", "/status").json()
    pid = plane()["pid"]
    control = lab.process("proxy2", "control")
    os.truncate(lock, 0)
    lab.tidegate("drain", "backend", "origins/origin1", "--note", "kept by the leader")
    wait_until("the control says what happened", lambda: "lock.mdb was cut off" in control.log.read_text(), 20, control)
    wait_until("the plane says it too", lambda: "lock.mdb was cut off" in (plane()["refused"] or ""), 20, lab.process("proxy2", "l7"))
    assert lab.curl("client-eu", WWW + "/", vip="10.10.0.12").stdout == "the origin's front page\n"
    assert plane()["pid"] == pid and control.running()
    lab.tidegate("undrain", "backend", "origins/origin1")
    # When all have closed it, the next process makes it again. Nothing that was committed is lost.
    lab.process("proxy2", "l7").stop()
    control.stop()
    lab.start_control("proxy2")
    lab.start_plane("proxy2", "l7")
    lab.wait_ready("proxy2")
    head = lab.api("GET", "/v1/status").json()["head"]
    wait_until("the plane follows", lambda: plane()["refused"] is None and plane()["version"] == head["version"], 20)


def test_a_leader_whose_state_is_cut_off_says_so_and_goes_on_from_another_host_s_copy(lab):
    lab.tidegate("drain", "backend", "proxies-eu/proxy2", "--note", "kept elsewhere", "--wait")
    head = lab.api("GET", "/v1/status").json()["head"]
    state = lab.directory("edge") / "state" / "state"
    os.truncate(state / "data.mdb", 8192)
    drained = lab.tidegate("drain", "backend", "origins/origin1", check=False)
    assert drained.returncode == 1 and "was cut off" in drained.stderr, drained
    for vip in VIP_EU:
        assert lab.curl("client-eu", WWW + "/", vip=vip).stdout == "the origin's front page\n"
    assert lab.run("client-eu", "dig", "+short", f"@{DNS_EU[0]}", "www.example.test").stdout.split() == [VIP_EU[0]]
    lab.process("edge", "control").stop()
    try:
        again = lab._start("edge", "control", lab.process("edge", "control").command)
        assert again.popen.wait(20) == 1
        assert "cannot be used" in again.tail() and "put a copy of the directory back" in again.tail(), again.tail()
        # Every other host has everything that was committed.
        lab.process("proxy1", "control").stop()
        shutil.rmtree(state)
        shutil.copytree(lab.directory("proxy1") / "state" / "state", state)
        lab.start_control("proxy1")
    finally:
        lab.start_control("edge")
    now = lab.api("GET", "/v1/status").json()["head"]
    assert now["version"] == head["version"] and now["words"] >= head["words"], (now, head)
    assert "kept elsewhere" in lab.api("GET", "/v1/admin").body.decode()
    lab.tidegate("undrain", "backend", "proxies-eu/proxy2", "--wait")
    wait_until("every host follows again", lambda: lab.api("GET", "/v1/status").json()["converged"], 30)


def test_a_cache_cut_off_under_a_running_proxy_is_a_miss_and_the_next_start_is_sound(lab):
    # On disk only: the proxy is restarted, so that nothing is in memory.
    paths = [fresh_path(lab, f"object {i}\n" * 2000) for i in range(5)]
    for path in paths:
        ask(lab, path)
    metrics = lambda: lab.plane("proxy1", "l7", "/metrics").body.decode()
    wait_until("everything stored is committed", lambda: re.search(r"^tidegate_cache_writer_queue_bytes 0$", metrics(), re.MULTILINE), 30)
    lab.process("proxy1", "l7").stop()
    lab.start_plane("proxy1", "l7")
    lab.wait_ready("proxy1")
    assert "hit" in ask(lab, paths[0])[1]
    os.truncate(lab.directory("proxy1") / "state" / "cache" / "data.mdb", 8192)
    for i, path in enumerate(paths):
        status, _, body, _ = ask(lab, path)
        assert status == 200 and body == f"object {i}\n" * 2000, i
    assert lab.process("proxy1", "l7").running()
    lab.process("proxy1", "l7").stop()
    lab.start_plane("proxy1", "l7")
    lab.wait_ready("proxy1")
    for _ in range(2):
        status, cache, body, _ = ask(lab, paths[0])
        assert status == 200 and body == "object 0\n" * 2000
    assert "hit" in cache, cache


def scribble(path):
    """Writes random bytes over all but the first two pages, in place, as a failing disk or a stray program would."""
    seeded = random.Random(20260104)
    with open(path, "r+b") as file:
        size = file.seek(0, 2)
        file.seek(8192)
        file.write(seeded.randbytes(size - 8192))


def restart_if_dead(lab, host, daemon):
    """Does what a supervisor does. A daemon that died of damage must have named the file, or must have died within
    LMDB itself."""
    process = lab.process(host, daemon)
    if not process.running():
        tail = process.tail(80)
        assert any(sign in tail for sign in ("/data.mdb is garbled", "/data.mdb was cut off or cannot be read", "liblmdb")), tail
        {"control": lab.start_control}.get(daemon, lambda h: lab.start_plane(h, daemon))(host)


def test_a_state_scribbled_on_under_a_running_host_is_named_and_fetched_anew(lab):
    control = lab.process("proxy2", "control")
    said_before = control.log.stat().st_size
    scribble(lab.directory("proxy2") / "state" / "state" / "data.mdb")
    lab.tidegate("drain", "backend", "origins/origin1", "--note", "after the damage")
    head = lab.api("GET", "/v1/status").json()["head"]
    said = lambda: control.log.read_bytes()[said_before:].decode()
    wait_until("the control meets the damage and names it", lambda: not control.running() or "lmdb: " in said() or "damaged" in said(), 30)
    if control.running():
        control.stop()
        lab.start_control("proxy2")
    else:
        restart_if_dead(lab, "proxy2", "control")

    def whole():
        restart_if_dead(lab, "proxy2", "l7")
        status = lab.plane("proxy2", "l7", "/status").json()
        return status["refused"] is None and status["version"] == head["version"] and status["words"] >= head["words"]

    wait_until("the plane has all that was committed", whole, 30)
    assert lab.curl("client-eu", WWW + "/", vip="10.10.0.12").stdout == "the origin's front page\n"
    lab.tidegate("undrain", "backend", "origins/origin1", "--wait")


def test_a_cache_scribbled_on_under_a_running_proxy_never_gives_a_wrong_byte(lab):
    paths = [fresh_path(lab, f"object {i}\n" * 20000) for i in range(8)]
    for path in paths:
        ask(lab, path)
    metrics = lambda: lab.plane("proxy1", "l7", "/metrics").body.decode()
    wait_until("everything stored is committed", lambda: re.search(r"^tidegate_cache_writer_queue_bytes 0$", metrics(), re.MULTILINE), 30)
    lab.process("proxy1", "l7").stop()
    lab.start_plane("proxy1", "l7")
    lab.wait_ready("proxy1")
    assert "hit" in ask(lab, paths[0])[1]
    scribble(lab.directory("proxy1") / "state" / "cache" / "data.mdb")

    def answered(path, body):
        assert lab.process("proxy1", "l7").running(), lab.process("proxy1", "l7").tail(40)
        out = lab.curl("client-eu", WWW + path, vip="10.10.0.11", check=False)
        assert out.returncode != 0 or out.stdout == body, "whole and right, or not at all"
        return out.returncode == 0

    for _ in range(2):
        for i, path in enumerate(paths):
            wait_until("the proxy answers", lambda: answered(path, f"object {i}\n" * 20000), 30)
    # Whatever the next start finds, it ends up with a valid cache.
    lab.process("proxy1", "l7").kill()
    lab.start_plane("proxy1", "l7")
    lab.wait_ready("proxy1")
    wait_until("the proxy stores again", lambda: "hit" in ask(lab, "/static/1k")[1], 30)
    lab.settle()


def test_random_bytes_to_the_proxy_ports_are_refused_and_forgotten(lab):
    seeded = random.Random(20260103)
    for port in (80, 443):
        for _ in range(30):
            with open_socket("client-eu", socket.AF_INET, socket.SOCK_STREAM) as sock:
                sock.settimeout(5)
                sock.connect((VIP_EU[0], port))
                try:
                    sock.sendall(seeded.randbytes(400) + b"\r\n\r\n")
                    while sock.recv(4096):
                        pass
                except OSError:
                    pass  # a reset is an acceptable answer
    for proxy in ("proxy1", "proxy2"):
        assert lab.process(proxy, "l7").running()
    assert lab.curl("client-eu", WWW + "/").stdout == "the origin's front page\n"
