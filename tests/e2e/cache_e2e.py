# SPDX-License-Identifier: Apache-2.0
"""The edge cache as clients see it and as the origins count it: misses, hits, herds, purges, and a kill that loses
nothing."""

import contextlib
import itertools
import json
import re
import socket
import ssl
import tempfile
import threading
import uuid
from pathlib import Path

import box
from lab import binary, open_socket, unix_request
from netns import sh, wait_until

WWW = "https://www.example.test"
PRIVATE_RUNS = itertools.count(1)


def origin_hits(lab, path):
    """Requests that the origins saw for a path."""
    return sum(
        (lab.directory(origin) / "access.log").read_text().count(f" {path} ") for origin in ("origin1", "origin2")
    )


def fresh_path(lab, body="fresh\n", folder="static"):
    """A path that no cache has seen, stored on both origins."""
    name = uuid.uuid4().hex
    for origin in ("origin1", "origin2"):
        (lab.directory(origin) / "www" / folder / name).write_text(body)
    return f"/{folder}/{name}"


def ask(lab, path, *options, proxy="10.10.0.11"):
    """Asks one proxy directly, so that its own cache answers. Returns (status, Cache-Status, body, whole head)."""
    out = lab.curl("client-eu", WWW + path, "-D", "-", *options, vip=proxy).stdout.replace("\r", "")
    head, _, body = out.partition("\n\n")
    status = int(head.split()[1])
    cache = re.search(r"(?i)^cache-status: (.*)$", head, re.MULTILINE)
    return status, cache[1] if cache else "", body, head


def test_a_get_that_owes_a_body_holds_nobody_up_and_is_not_stored(lab):
    path = fresh_path(lab)
    context = ssl._create_unverified_context()
    with open_socket("client-eu", socket.AF_INET, socket.SOCK_STREAM) as plain:
        plain.connect(("10.10.0.11", 443))
        debtor = context.wrap_socket(plain, server_hostname="www.example.test")
        debtor.sendall(f"GET {path} HTTP/1.1\r\nHost: www.example.test\r\nContent-Length: 1\r\n\r\n".encode())
        status, cache, _, _ = ask(lab, path, "--max-time", "5")
        assert status == 200 and "fwd=uri-miss" in cache and "stored" in cache, cache
        debtor.close()  # a client that goes away and still owes its body does no harm
    other = fresh_path(lab)
    status, cache, _, _ = ask(lab, other, "-X", "GET", "-d", "content")
    assert status == 200 and "fwd=request" in cache and "stored" not in cache, cache
    status, cache, _, _ = ask(lab, other)
    assert "fwd=uri-miss" in cache, cache


def test_a_miss_is_stored_and_the_next_request_hits(lab):
    path = fresh_path(lab)
    status, cache, body, _ = ask(lab, path)
    assert status == 200 and "hit" not in cache and "fwd=uri-miss" in cache and "stored" in cache, cache
    status, cache, body, head = ask(lab, path)
    assert (status, body) == (200, "fresh\n") and cache.startswith("proxy1; hit"), cache
    assert re.search(r"(?i)^age: \d+", head, re.MULTILINE), head
    assert origin_hits(lab, path) == 1


def test_a_herd_on_a_cold_key_costs_one_origin_request(lab):
    path = fresh_path(lab, "herd" * 20000)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(ask(lab, path, "--http1.1"))) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 40 and all(status == 200 and len(body) == 80000 for status, _, body, _ in answers)
    assert origin_hits(lab, path) == 1


def test_an_uncacheable_route_is_never_stored(lab):
    for _ in range(2):
        status, cache, _, _ = ask(lab, "/api/v1/uncacheable")
        assert status == 200 and "hit" not in cache


def test_the_cache_answers_a_conditional_request_and_a_range_itself(lab):
    path = fresh_path(lab, "0123456789")
    _, _, _, head = ask(lab, path)
    etag = re.search(r"(?i)^etag: (.*)$", head, re.MULTILINE)[1]
    status, cache, body, _ = ask(lab, path, "-H", f"If-None-Match: {etag}")
    assert status == 304 and body == "" and "hit" in cache, cache
    status, _, body, _ = ask(lab, path, "-H", "Range: bytes=2-4")
    assert (status, body) == (206, "234")
    assert origin_hits(lab, path) == 1


def test_a_cold_range_or_condition_on_what_cannot_be_stored_gets_what_it_asked_for(lab):
    # A proxy remembers places where nothing can be stored: a second run meets that at once.
    why = "private" if next(PRIVATE_RUNS) == 1 else "uncacheable-place"
    path = fresh_path(lab, "0123456789", folder="static/private")
    status, cache, body, _ = ask(lab, path, "-H", "Range: bytes=2-4")
    assert (status, body) == (206, "234") and f"detail={why}" in cache, (status, cache)
    etag = re.search(r"(?i)^etag: (.*)$", ask(lab, path)[3], re.MULTILINE)[1]
    status, cache, body, _ = ask(lab, path, "-H", f"If-None-Match: {etag}")
    assert (status, body) == (304, ""), (status, cache)
    cold = fresh_path(lab, "0123456789", folder="static/session")
    assert ask(lab, cold, "-H", "Range: bytes=2-4")[0] == 206
    assert "hit" in ask(lab, cold)[1], "what can be stored was asked for whole"


def test_head_is_answered_from_a_stored_get(lab):
    path = fresh_path(lab)
    ask(lab, path)
    status, cache, body, head = ask(lab, path, "-I")
    assert status == 200 and "hit" in cache and re.search(r"(?i)content-length: 6", head), head


def test_a_purge_by_url_takes_it_from_every_proxy(lab):
    path = fresh_path(lab)
    for proxy in ("10.10.0.11", "fd10::12"):
        ask(lab, path, proxy=proxy)
        assert "hit" in ask(lab, path, proxy=proxy)[1]
    lab.tidegate("purge", WWW + path, "--wait")
    for proxy in ("10.10.0.11", "fd10::12"):
        assert "hit" not in ask(lab, path, proxy=proxy)[1]


def test_a_purge_by_tag_takes_what_carries_it_and_leaves_the_rest(lab):
    tagged, other = fresh_path(lab, folder="static/tagged"), fresh_path(lab)
    for path in (tagged, other):
        ask(lab, path)
        assert "hit" in ask(lab, path)[1]
    lab.tidegate("purge", "--tag", "tagged", "--wait")
    assert "hit" not in ask(lab, tagged)[1]
    assert "hit" in ask(lab, other)[1]


def test_a_soft_purge_serves_after_asking_the_origin_whether_it_changed(lab):
    path = fresh_path(lab)
    ask(lab, path)
    lab.tidegate("purge", WWW + path, "--soft", "--wait")
    status, cache, body, _ = ask(lab, path)
    assert (status, body) == (200, "fresh\n") and "fwd=stale" in cache, cache


def test_a_proxy_killed_with_sigkill_comes_back_warm(lab):
    paths = [fresh_path(lab, f"object {i}\n" * (i + 1)) for i in range(20)]
    for path in paths:
        ask(lab, path)
    for path in paths:
        assert "hit" in ask(lab, path)[1]
    metrics = lambda: lab.plane("proxy1", "l7", "/metrics").body.decode()
    wait_until("everything stored is committed", lambda: re.search(r"^tidegate_cache_writer_queue_bytes 0$", metrics(), re.MULTILINE), 30)
    lab.process("proxy1", "l7").kill()
    lab.start_plane("proxy1", "l7")
    lab.wait_ready("proxy1")
    for i, path in enumerate(paths):
        status, cache, body, _ = ask(lab, path)
        assert status == 200 and body == f"object {i}\n" * (i + 1) and "hit" in cache, (i, cache)
        assert origin_hits(lab, path) == 1


def test_a_response_that_varies_is_stored_once_for_each_kind(lab):
    path = "/static/varied/" + uuid.uuid4().hex
    for kind in ("red", "blue"):
        status, cache, body, _ = ask(lab, path, "-H", f"X-Kind: {kind}")
        assert (status, body) == (200, f"kind={kind}\n") and "hit" not in cache, cache
    for kind in ("red", "blue"):
        _, cache, body, _ = ask(lab, path, "-H", f"X-Kind: {kind}")
        assert body == f"kind={kind}\n" and "hit" in cache, cache
    assert origin_hits(lab, path) == 2


def test_a_stale_response_is_served_at_once_and_renewed_behind_the_client_s_back(lab):
    path = fresh_path(lab, folder="static/renewed")
    ask(lab, path)

    def stale():
        status, cache, body, head = ask(lab, path)
        assert (status, body) == (200, "fresh\n")
        return "hit" in cache and int(re.search(r"(?i)^age: (\d+)", head, re.MULTILINE)[1]) >= 1 and origin_hits(lab, path) > 1

    wait_until("it grew stale, was served all the same, and was asked for again", stale, 10)
    wait_until("what was asked for is fresh", lambda: re.search(r"(?i)^age: 0", ask(lab, path)[3], re.MULTILINE), 10)


def test_a_cookie_that_comes_with_a_304_reaches_the_client_who_asked_and_nobody_else(lab):
    path = fresh_path(lab, folder="static/session")
    ask(lab, path)
    for client in ("a", "b"):
        _, cache, body, head = ask(lab, path, "-H", "Cache-Control: no-cache", "-H", f"X-Client: {client}")
        assert f"set-cookie: sid={client}" in head.lower() and body == "fresh\n", head
        assert "fwd-status=304" in cache, cache
        _, later, body, head = ask(lab, path)
        assert "hit" in later and body == "fresh\n" and "set-cookie" not in head.lower(), head
        assert "detail=set-cookie" in cache, cache
    assert origin_hits(lab, path) == 3


def test_what_is_renewed_behind_a_client_s_back_is_asked_for_without_its_credentials(lab):
    path = "/static/told/" + uuid.uuid4().hex
    client = ("-H", "Cookie: sid=A", "-H", "Authorization: Basic eDp5", "-A", "teller")
    assert ask(lab, path)[0] == 200

    def renewed():
        _, cache, body, _ = ask(lab, path, *client)
        assert "hit" in cache, cache
        return body == "cookie= authorization= agent=teller\n"

    wait_until("it was renewed by this client's request, without what is its own", renewed, 10)


def test_a_reload_that_fails_keeps_what_is_fresh_for_the_others(lab):
    path = fresh_path(lab, folder="static/session")
    ask(lab, path)
    for status in ("429", "500", "503"):
        assert ask(lab, path, "-H", "Cache-Control: no-cache", "-H", f"X-Fail: {status}")[0] == int(status)
        status, cache, body, _ = ask(lab, path)
        assert (status, body) == (200, "fresh\n") and "hit" in cache, cache


def test_a_stale_response_stands_in_for_origins_that_fail(lab):
    path = fresh_path(lab, folder="static/kept")
    assert ask(lab, path)[0] == 200
    for origin in ("origin1", "origin2"):
        lab.kill_origin(origin)
    try:
        def stands_in():
            status, cache, body, head = ask(lab, path)
            assert (status, body) == (200, "fresh\n"), (status, cache)
            return int(re.search(r"(?i)^age: (\d+)", head, re.MULTILINE)[1]) >= 2

        wait_until("it is stale and still served", stands_in, 10)
        assert ask(lab, "/static/kept/" + uuid.uuid4().hex)[0] in (502, 503, 504), "what was never stored fails"
    finally:
        for origin in ("origin1", "origin2"):
            lab.start_origin(origin)
        lab.settle()


def test_two_proxies_on_one_cache_directory_keep_out_of_each_other_s_way(lab):
    """The second one serves from memory and says so. Both answer correctly."""
    with box.raised() as node:
        def start(name, run, config):
            return node.start(name, binary("l7"), "--config", node.write(f"{name}.yaml", config), "--run", run, "--node", "box", "--state", node.state_dir)

        def second_ask(target):
            return unix_request(node.home / "run2" / "l7.sock", "GET", target)

        first = start("first", node.run_dir, BOUNDED)
        node.wait_ready("l7", first)
        second = start("second", node.home / "run2", BOUNDED.replace(":80", ":8081"))
        wait_until("the second one serves", lambda: second_ask("/healthz").status == 200, 30, second)
        assert b"used by another process" in second_ask("/healthz").body, second_ask("/healthz").body
        assert "used by another process" in json.loads(second_ask("/status").body)["cache"]["disk_trouble"]
        assert b"\ntidegate_cache_disk_working 0" in second_ask("/metrics").body
        assert node.ask("l7", "/healthz").body == b"ok\n"

        def bodies(port):
            return [lab.run("client-eu", "curl", "-sf", f"http://10.10.0.61:{port}/static/{size}").stdout for size in ("1k", "100k")]

        right = bodies(80)
        assert right[0] == "k" * 1024 and len(right[1]) == 100 * 1024
        for _ in range(3):
            assert bodies(80) == right and bodies(8081) == right
        first.kill()  # the lock is released when its holder ends
        again = start("again", node.run_dir, BOUNDED)
        node.wait_ready("l7", again)
        assert node.ask("l7", "/healthz").body == b"ok\n"
        assert bodies(80) == right


BOUNDED = """\
nodes:
  - {name: box, l7: {workers: 1, access_log: "-"}, cache: {enabled: true, ram: 1MB, disk: 16MB}}
pools:
  - {name: app, backends: [{name: origin1, addresses: [10.10.0.21], port: 8080}]}
listeners:
  - {name: http, bind: ["0.0.0.0:80"]}
routes:
  - {name: all, path: "/*", pool: app, cache: {enabled: true}}
"""


@contextlib.contextmanager
def small_filesystem(megabytes):
    """A file system of that size, for the block."""
    with tempfile.TemporaryDirectory() as directory:
        sh("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tidegate-test", directory)
        try:
            yield Path(directory)
        finally:
            sh("umount", "--lazy", directory)


def test_a_small_or_full_disk_costs_nobody_an_answer(lab):
    """First the file system is smaller than the bound of the disk tier. Then something else fills it. Then the
    proxy starts on it."""
    with small_filesystem(64) as disk, box.raised() as node:
        config = BOUNDED.replace("disk: 16MB", f"disk: 1GB, path: {disk}/cache")
        l7 = node.start_plane("l7", node.write("edge.yaml", config), "--state", node.state_dir)
        node.wait_ready("l7", l7)
        name, size = uuid.uuid4().hex, 20 << 20
        (lab.directory("origin1") / "www" / "static" / name).write_bytes(bytes(size))

        def metric(name):
            return float(re.search(rf"^{name} (\S+)$", node.ask("l7", "/metrics").body.decode(), re.MULTILINE)[1])

        def fetch(first, last):
            """Returns the lengths of that many distinct objects of 20 MB."""
            out = lab.run(
                "client-eu", "curl", "-s", "--max-time", "20", "-w", "%{http_code} %{size_download} %{exitcode}\n", "-o", "/dev/null",
                f"http://10.10.0.61/static/{name}?[{first}-{last}]",
            ).stdout  # fmt: skip
            return out.splitlines()

        whole = f"200 {size} 0"
        assert fetch(1, 6) == [whole] * 6, "120 MB through a file system of 64"
        wait_until("all is written or given up", lambda: metric("tidegate_cache_writer_queue_bytes") == 0, 20, l7)
        assert metric("tidegate_cache_disk_bound_bytes") <= 64 << 20
        assert (disk / "cache" / "data.mdb").stat().st_size < 64 << 20
        fill = disk / "something-else"
        sh("sh", "-c", f"cat /dev/zero > {fill} 2>/dev/null || true")
        assert fetch(11, 13) == [whole] * 3, "on a full one"
        l7.kill()
        (disk / "cache" / "lock.mdb").unlink()
        sh("sh", "-c", f"cat /dev/zero >> {fill} 2>/dev/null || true")
        again = node.start_plane("l7", node.write("edge.yaml", config), "--state", node.state_dir)
        node.wait_ready("l7", again)
        assert b"no disk tier" in node.ask("l7", "/healthz").body and b"No space left" in node.ask("l7", "/healthz").body
        assert fetch(21, 22) == [whole] * 2, "from memory alone"
        assert (disk / "cache" / "data.mdb").exists(), "what is there is kept for a better day"


def test_a_cache_that_is_full_makes_room_for_what_is_new_and_never_grows_past_its_bound(lab):
    with box.raised() as node:
        l7 = node.start_plane("l7", node.write("edge.yaml", BOUNDED), "--state", node.state_dir)
        node.wait_ready("l7", l7)

        def metric(name):
            return float(re.search(rf"^{re.escape(name)} (\S+)$", node.ask("l7", "/metrics").body.decode(), re.MULTILINE)[1])

        def fetch(first, last):
            """Each number is an object of 100 KB. Returns what Cache-Status said for each."""
            out = lab.run("client-eu", "curl", "-sf", "-D", "-", "-o", "/dev/null", f"http://10.10.0.61/static/100k?[{first}-{last}]").stdout
            return re.findall(r"(?i)^cache-status: (.*?)\r?$", out, re.MULTILINE)

        data = node.state_dir / "cache" / "data.mdb"
        for first in range(0, 400, 40):  # 40 MB, two and a half times the bound
            assert all("fwd=uri-miss" in status for status in fetch(first, first + 39))
            wait_until("what was fetched is committed", lambda: metric("tidegate_cache_writer_queue_bytes") == 0, 30, l7)
            assert metric("tidegate_cache_disk_bytes") <= 16 << 20 and data.stat().st_size <= 16 << 20
        newest = fetch(380, 399)
        assert len(newest) == 20 and all("hit" in status for status in newest), newest
        assert metric('tidegate_cache_hits_total{tier="disk"}') > 0, "20 of them do not fit in memory"
        assert metric('tidegate_cache_evicted_total{tier="disk"}') >= 200, "what is not there any more was evicted"
        assert metric('tidegate_cache_stored_total{tier="disk"}') == 400 and metric("tidegate_cache_queue_full_total") == 0
        assert metric("tidegate_cache_commit_failures_total") == 0 and metric("tidegate_cache_objects") < 170
        assert any("fwd=uri-miss" in status for status in fetch(0, 9)), "the oldest went first"
