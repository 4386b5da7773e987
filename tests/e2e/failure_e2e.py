# SPDX-License-Identifier: Apache-2.0
"""Failures of origins, proxies, sites and daemons, and what their users notice. The load never retries. Failures
are counted separately before and after the planes have converged."""

import json
import os
import socket
import threading
import time

from lab import open_socket
from load import SteadyLoad, connect, tls_context
from marks import long
from netns import wait_until
from topology import DNS_EU, VIP_EU, VIP_US

WWW = "https://www.example.test"


def health_word(lab, key):
    return lab.api("GET", "/v1/health").json()["words"].get(key)


def wait_for_word(lab, key, up):
    return wait_until(f"{key} is {'up' if up else 'down'}", lambda: (w := health_word(lab, key)) and w["up"] == up and w, 30)


def test_an_origin_killed_under_load_is_covered_by_retries_and_then_left(lab):
    lab.settle()
    with SteadyLoad(lab, "client-eu") as load:
        lab.kill_origin("origin1")
        try:
            wait_for_word(lab, "backend/origins/origin1", up=False)
            lab.wait_applied()
            converged = time.monotonic()
            load.wait_for(100)
        finally:
            lab.start_origin("origin1")
        wait_for_word(lab, "backend/origins/origin1", up=True)
        lab.wait_applied()
        load.wait_for(50)
    before = [f for f in load.tally.failures if f.at <= converged]
    assert load.tally.failures_after(converged) == [], load.tally.failures_after(converged)[:5]
    # Only a request that the dying origin already had and that may not be repeated can fail.
    assert all(f.method == "POST" for f in before) and len(before) <= 4, before


def test_a_killed_proxy_leaves_the_forwarder_and_dns_and_returns(lab):
    lab.settle()
    with SteadyLoad(lab, "client-eu", connections=6) as load:
        lab.process("proxy1", "l7").kill()
        wait_for_word(lab, "backend/proxies-eu/proxy1", up=False)
        lab.wait_applied()
        converged = time.monotonic()
        answer = lab.run("client-eu", "dig", "+short", f"@{DNS_EU[0]}", "proxies.example.test", "A").stdout.split()
        assert answer == ["10.10.0.12"], answer
        answer = lab.run("client-eu", "dig", "+short", f"@{DNS_EU[1]}", "proxies.example.test", "AAAA").stdout.split()
        assert answer == ["fd10::12"], answer
        for client, vip in zip(("10.1.0.2", "fd01::2"), VIP_EU):
            told = lab.plane("l4", "l4", f"/explain?client={client}&client_port=1234&vip={vip}&port=443&protocol=tcp").json()
            assert told["backend"] == "proxy2", told
        load.wait_for(60)
        lab.start_plane("proxy1", "l7")
        wait_for_word(lab, "backend/proxies-eu/proxy1", up=True)
        lab.wait_applied()
        back = time.monotonic()
        load.wait_for(60)
    # A connection to the dead proxy fails once. Then its client reaches the living one.
    assert load.tally.failures_after(back) == [], load.tally.failures_after(back)[:5]
    late = [f for f in load.tally.failures_after(converged + 1.0) if f.at < back]
    assert late == [], late[:5]


class SlowReader:
    """A download over TLS of which the client takes a little at a time, until it is told to take the rest. It takes even
    less after a while, so that half a megabyte is enough for minutes."""

    PIECE, PAUSE_S = 1024, 0.02
    SLOWER_AFTER, LONG_PAUSE_S = 512 * 1024, 0.2

    def __init__(self, host, vip, path):
        self.connection = connect(host, vip, 443, "www.example.test", tls_context(), timeout=30)
        self.connection.request("GET", path)
        self.answer = self.connection.getresponse()
        self.hurry, self.body = threading.Event(), bytearray()
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self):
        while piece := self.answer.read(self.PIECE):
            self.body += piece
            if not self.hurry.is_set():
                self.hurry.wait(self.PAUSE_S if len(self.body) < self.SLOWER_AFTER else self.LONG_PAUSE_S)

    def rest(self):
        """Takes what is left as fast as it comes, and returns the whole body."""
        assert self.thread.is_alive(), "the download was over before it was told to end"
        self.hurry.set()
        self.thread.join(60)
        self.connection.close()
        return bytes(self.body)


def test_a_proxy_drained_during_a_slow_download_delivers_it_whole(lab):
    lab.settle()
    download = SlowReader("client-eu", VIP_EU[0], "/slow/1m")
    assert download.answer.status == 200
    for proxy in ("proxy1", "proxy2"):
        lab.tidegate("drain", "backend", f"proxies-eu/{proxy}", "--wait")
        for turn in range(10):
            via = lab.curl("client-eu", WWW + "/api/v1/x", "-D", "-", vip=VIP_EU[turn % 2]).stdout.lower()
            assert f"via: 1.1 {proxy}" not in via, "no new connection comes to a drained proxy"
        lab.tidegate("undrain", "backend", f"proxies-eu/{proxy}", "--wait")
    assert download.rest() == b"".join(b"%015d\n" % i for i in range(64 * 1024))


def test_an_origin_taken_down_ends_its_downloads_and_a_drained_one_finishes_them(lab):
    lab.settle()
    results = {}
    taken_down = lambda: sum(lab.log(proxy, "l7").read_text().count('"failure":"backend_taken_down"') for proxy in ("proxy1", "proxy2"))
    before = taken_down()

    def download(proxy):
        results[proxy] = lab.curl("client-eu", WWW + "/slow/8m", "--http1.1", "-o", os.devnull, "-w", "%{size_download}", vip=proxy, check=False)

    def in_flight():
        """Requests in progress at each origin, by what the proxies' metrics tell."""
        counts = dict.fromkeys(("origin1", "origin2"), 0)
        for proxy in ("proxy1", "proxy2"):
            for line in lab.plane(proxy, "l7", "/metrics").body.decode().splitlines():
                for origin in counts:
                    if line.startswith("tidegate_l7_backend_in_flight{") and f'"{origin}"' in line and '"origins"' in line:
                        counts[origin] += int(float(line.rsplit(" ", 1)[1]))
        return counts

    # least_requests gives each of the proxy's two downloads its own origin.
    threads = [threading.Thread(target=download, args=("10.10.0.11",))]
    threads[0].start()
    wait_until("one download runs", lambda: sum(in_flight().values()) == 1, 30)
    threads.append(threading.Thread(target=download, args=("10.10.0.12",)))
    threads[1].start()
    wait_until("both downloads run", lambda: sum(in_flight().values()) == 2, 30)
    for origin in ("origin1", "origin2"):
        lab.tidegate("drain", "backend", f"origins/{origin}", "--wait")
    assert sum(in_flight().values()) == 2, "a drain ends nothing, and the metrics still tell of it"
    for origin in ("origin1", "origin2"):
        told = lab.tidegate("drain", "backend", f"origins/{origin}", "--down", "--note", "disk", "--wait").stdout
        assert "what runs there ends" in told
    wait_until("no download runs", lambda: sum(in_flight().values()) == 0, 10)
    for thread in threads:
        thread.join(30)
    for proxy, result in results.items():
        assert result.returncode == 18 and int(result.stdout) < 8 * 1024 * 1024, (proxy, result)  # curl: partial file
    wait_until("both are logged", lambda: taken_down() - before == 2, 10)
    told = lab.plane("proxy1", "l7", "/explain?client=10.1.0.2&url=https://www.example.test/slow/8m").json()
    assert {(b["state"], b["running_work"], b["in_flight"]) for b in told["eligible"]} == {("down", "ends", 0)}, told
    for origin in ("origin1", "origin2"):
        lab.tidegate("undrain", "backend", f"origins/{origin}", "--wait")
    assert lab.curl("client-eu", WWW + "/").stdout == "the origin's front page\n"


def test_a_proxy_told_to_stop_finishes_the_download_it_serves(lab):
    lab.settle()
    target = lab.directory("client-eu") / "slow-while-stopping"
    target.unlink(missing_ok=True)
    done = {}
    thread = threading.Thread(target=lambda: done.update(out=lab.curl("client-eu", WWW + "/slow/1m", "--http1.1", "-o", str(target), vip="10.10.0.12")))
    thread.start()
    wait_until("the download runs", lambda: target.exists() and target.stat().st_size > 0, 30)
    status = lab.process("proxy2", "l7").stop(30)
    thread.join(30)
    assert status == 0 and "out" in done
    assert len(target.read_bytes()) == 1024 * 1024
    lab.start_plane("proxy2", "l7")
    lab.wait_ready("proxy2")
    wait_for_word(lab, "backend/proxies-eu/proxy2", up=True)


def test_a_failed_site_loses_its_clients_by_dns(lab):
    lab.settle()
    ask = lambda kind="A": lab.run("client-eu", "dig", "+short", f"@{DNS_EU[0]}", "www.example.test", kind).stdout.split()
    assert ask() == [VIP_EU[0]]
    for proxy in ("proxy1", "proxy2"):
        lab.process(proxy, "l7").kill()
    wait_until("dns names the other site", lambda: ask() == [VIP_US[0]], 30)
    assert ask("AAAA") == [VIP_US[1]]
    second = lab.run("client-eu", "dig", "+short", f"@{DNS_EU[0]}", "proxies.example.test").stdout.split()
    assert second == ["10.20.0.11"], "a name with an order goes to the next in it"
    for vip in VIP_US:
        assert lab.curl("client-eu", WWW + "/", vip=vip).stdout == "the origin's front page\n"
    for proxy in ("proxy1", "proxy2"):
        lab.start_plane(proxy, "l7")
        lab.wait_ready(proxy)
    wait_until("dns names the site again", lambda: ask() == [VIP_EU[0]], 30)


def test_a_killed_forwarder_comes_back_with_the_same_picks(lab):
    lab.settle()

    def picks():
        return [
            lab.plane("l4", "l4", f"/explain?client={client}&client_port={port}&vip={vip}&port=443&protocol=tcp").json()["backend"]
            for client, vip in zip(("10.1.0.2", "fd01::2"), VIP_EU)
            for port in range(20000, 20030)
        ]

    before = picks()
    assert set(before) == {"proxy1", "proxy2"}
    digest = lab.plane("l4", "l4", "/status").json()["digest"]
    with SteadyLoad(lab, "client-eu") as load:
        lab.process("l4", "l4").kill()
        lab.start_plane("l4", "l4")
        lab.wait_ready("l4")
        load.wait_for(60)
    assert picks() == before and lab.plane("l4", "l4", "/status").json()["digest"] == digest
    # TCP carries the connection over the gap: the same table finds the same proxy again, so nothing is reset.
    assert load.tally.failures == [] and load.tally.closed == 0, load.tally


def test_every_control_killed_leaves_traffic_untouched_and_comes_back_with_its_state(lab):
    lab.settle()
    head = lab.api("GET", "/v1/status").json()["head"]
    with SteadyLoad(lab, "client-eu") as load:
        for host in ("edge", "l4", "proxy1", "proxy2", "us1"):
            lab.process(host, "control").kill()
        load.wait_for(100)
        assert lab.run("client-us", "dig", "+short", f"@{DNS_EU[0]}", "www.example.test").stdout.split() == [VIP_US[0]]
        for host in ("edge", "l4", "proxy1", "proxy2", "us1"):
            lab.start_control(host)
        load.wait_for(20)
    assert load.tally.failures == [] and load.tally.closed == 0, load.tally.failures[:5]
    assert lab.api("GET", "/v1/status").json()["head"]["version"] == head["version"]
    # The followers have contact to the leader again: a new override reaches a plane on another host.
    lab.tidegate("drain", "backend", "origins/origin2", "--wait")
    told = lab.plane("proxy1", "l7", "/explain?client=10.1.0.2&url=https://www.example.test/api/v1/x").json()
    states = {b["backend"]: b["state"] for b in told["eligible"]}
    assert states.get("origin2") != "up", told
    lab.tidegate("undrain", "backend", "origins/origin2", "--wait")


@long
def test_a_proxy_that_dies_while_nobody_leads_is_left_by_the_forwarder_of_its_site(lab):
    """The forwarder's own host has no address in its site: the network card is the forwarder's. Other controls of the
    site see for it."""
    lab.settle()

    def picks():
        asked = [f"/explain?client=10.1.0.2&client_port={port}&vip={VIP_EU[0]}&port=443&protocol=tcp" for port in range(20000, 20030)]
        return {lab.plane("l4", "l4", question).json()["backend"] for question in asked}

    assert picks() == {"proxy1", "proxy2"}
    lab.process("edge", "control").kill()
    lab.process("proxy1", "l7").kill()
    wait_until("the forwarder leaves proxy1", lambda: picks() == {"proxy2"}, 30)
    words = lab.api("GET", "/v1/health", host="l4").json()["words"]
    assert "no leader is heard" in words["backend/proxies-eu/proxy1"]["reason"], words
    assert words["backend/proxies-eu/proxy2"]["up"], words
    with SteadyLoad(lab, "client-eu") as load:
        load.wait_for(60)
    assert load.tally.failures == [], load.tally.failures[:5]
    lab.start_plane("proxy1", "l7")
    lab.start_control("edge")
    wait_until("every host hears the leader again", lambda: lab.api("GET", "/v1/status").json()["converged"], 30)
    lab.settle()
    wait_until("the forwarder uses both", lambda: picks() == {"proxy1", "proxy2"}, 30)


def test_a_post_repeated_with_its_key_is_done_once_though_control_was_killed_in_between(lab):
    key = {"Idempotency-Key": f"e2e-{time.time_ns()}"}
    before = lab.api("GET", "/v1/status").json()["head"]["purge"]
    first = lab.api("POST", "/v1/purge", {"tag": "nobody-has-it"}, key)
    assert first.status == 200, first.body
    lab.process("edge", "control").kill()
    lab.start_control("edge")
    again = lab.api("POST", "/v1/purge", {"tag": "nobody-has-it"}, key)
    assert again.status == 200 and again.body == first.body, again.body
    assert lab.api("GET", "/v1/status").json()["head"]["purge"] == before + 1
    assert lab.api("POST", "/v1/purge", {"tag": "another"}, key).status == 422


def test_a_drain_survives_the_death_of_the_control_that_wrote_it(lab):
    lab.settle()
    lab.tidegate("drain", "backend", "proxies-eu/proxy2", "--note", "kept", "--wait")
    lab.process("edge", "control").kill()
    lab.start_control("edge")
    words = json.dumps(lab.api("GET", "/v1/admin").json())
    assert "proxies-eu/proxy2" in words and "kept" in words
    lab.tidegate("undrain", "backend", "proxies-eu/proxy2", "--wait")


def test_a_killed_dns_server_comes_back_and_the_other_answers_meanwhile(lab):
    lab.settle()
    lab.process("edge", "dns").kill()
    assert lab.run("client-eu", "dig", "+short", "@10.20.0.11", "www.example.test").stdout.split() == [VIP_EU[0]]
    lab.start_plane("edge", "dns")
    lab.wait_ready("edge")
    assert lab.run("client-eu", "dig", "+short", f"@{DNS_EU[0]}", "www.example.test").stdout.split() == [VIP_EU[0]]


def test_a_client_that_goes_away_mid_download_takes_nothing_with_it(lab):
    lab.settle()
    for _ in range(5):
        with open_socket("client-eu", socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(5)
            sock.connect(("10.10.0.11", 80))
            sock.sendall(b"GET /slow/1m HTTP/1.1\r\nHost: www.example.test\r\n\r\n")
    assert lab.curl("client-eu", WWW + "/").stdout == "the origin's front page\n"
