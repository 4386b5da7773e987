# SPDX-License-Identifier: Apache-2.0
"""What a forwarder does with clients that may not come, with a client that sends too much, and with packets of flows
that it does not know; what the others notice of it, and what an operator sees."""

import contextlib
import json
import socket
import struct
import subprocess

from lab import BUILD
from mmdb import database
from netns import wait_until
from segment import VIP4, VIP6, answer_to, checksum, mac_of, raised, raw_socket

FLOOD, BURST = 400, 50


def document(file):
    return f"""
nodes:
  - name: l4
    l4: {{ports: [{{device: eth0, addresses: [10.66.0.2/24, "fd66::2/64"]}}], flows: 4096, flow_events: 1}}
vips: [{{name: vip, addresses: [{VIP4}, "{VIP6}"]}}]
acls:
  - {{name: strangers, networks: [10.66.0.8/32], file: {file}}}
services:
  - {{name: dns, vip: vip, port: 7000, protocol: udp, pool: web, deny: [strangers], limits: {{source_packets: 1, source_packets_burst: {BURST}}}}}
  - {{name: http, vip: vip, port: 80, protocol: tcp, pool: web, reset_unknown: true}}
pools:
  - name: web
    backends:
      - {{name: web1, addresses: [10.66.0.11, "fd66::11"]}}
      - {{name: web2, addresses: [10.66.0.12, "fd66::12"]}}
"""


def unknown_ack(link, forwarder_mac):
    """An acknowledgement from the client's address, of a connection that never was."""
    packed = socket.inet_aton("10.66.0.7") + socket.inet_aton(VIP4)
    segment = struct.pack("!HHIIBBHHH", 999, 80, 1, 4242, 0x50, 0x10, 8192, 0, 0)
    segment = segment[:16] + struct.pack("!H", checksum(packed + struct.pack("!BBH", 0, 6, 20) + segment)) + segment[18:]
    header = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0) + packed
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return forwarder_mac + mac_of(link.namespace("client")) + b"\x08\x00" + header + segment


def is_reset(frame):
    return frame[12:14] == b"\x08\x00" and frame[23] == 6 and frame[26:30] == socket.inet_aton(VIP4) and frame[47] == 0x04 and frame[38:42] == struct.pack("!I", 4242)


def test_lists_bounds_and_resets_harm_only_whom_they_are_for(lab):
    with raised("guard") as link:
        for host, number in (("client", 7), ("stranger", 8), ("flooder", 9)):
            link.add_host(host, number)
        for host, number in (("web1", 11), ("web2", 12)):
            link.add_backend(host, number, VIP4, VIP6)
        forwarder_mac = mac_of(link.add_host("l4"))
        (link.home / "l4").mkdir()
        (link.home / "l4" / "strangers.txt").write_text("# by IPv6 too\nfd66::8/128\n")
        forwarder = link.start_forwarder(document("strangers.txt"))
        link.wait_ready(forwarder)
        with link.echoes("web1", "web2"), link.echoes("web1", "web2", vip=VIP6):
            wait_until("both backends answer", lambda: {"web1", "web2"} <= set(link.answers(8)), 30, forwarder)
            for vip in (VIP4, VIP6):
                with link.flow("stranger", vip=vip) as denied:
                    denied.send(b"who")
            wait_until("both datagrams were dropped", lambda: link.metric(forwarder, "tidegate_l4_acl_packets_total", acl="strangers", decision="denied") == 2, 10, forwarder)
            with link.flow("flooder") as flood:
                for _ in range(FLOOD):
                    flood.send(b"who")
                # The bucket gets one token per second, so on a slow machine a few more packets pass.
                wait_until("the flood met its bound", lambda: link.metric(forwarder, "tidegate_l4_dropped_packets_total", reason="source_packets") >= FLOOD - BURST - 30, 10, forwarder)
            with link.flow() as honest:
                assert all(answer_to(honest) for _ in range(20)), "the flood of one client costs another nothing"
        with raw_socket(link.namespace("client")) as raw:
            raw.send(unknown_ack(link, forwarder_mac))
            wait_until("the RST comes", lambda: is_reset(raw.recv(2048)), 10, forwarder)
        assert link.metric(forwarder, "tidegate_l4_resets_total") == 1
        said = link.ask(forwarder, "/explain?client=10.66.0.8&client_port=5&vip=vip&port=7000&protocol=udp").json()
        assert said["decision"] == "refused" and said["acl"] == "strangers" and "10.66.0.8/32" in said["reason"], said


def add_hosts(link):
    link.add_host("client", 7)
    link.add_host("stranger", 8)
    link.add_backend("web1", 11, VIP4, VIP6)
    link.add_backend("web2", 12, VIP4, VIP6)
    link.add_host("l4")
    (link.home / "l4").mkdir()


def tidegate(forwarder, *arguments):
    return [BUILD / "control" / "tidegate", "--output", "json", *arguments, "--run", forwarder.run_dir]


def test_an_operator_sees_the_packets_while_they_come(lab):
    with raised("seen") as link:
        add_hosts(link)
        (link.home / "l4" / "strangers.txt").write_text("")
        forwarder = link.start_forwarder(document("strangers.txt"))
        link.wait_ready(forwarder)
        saved = link.home / "denied.pcapng"
        with link.echoes("web1", "web2"), link.flow() as client, link.flow("stranger") as stranger:
            wait_until("a backend answers", lambda: answer_to(client), 30, forwarder)
            command = tidegate(forwarder, "l4", "capture", "--client", "10.66.0.8", "--reason", "acl_denied", "--packets", "3", "--seconds", "60", "--write", saved)
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as capture:

                def both_send():
                    client.send(b"who")
                    stranger.send(b"who")
                    return capture.poll() is not None

                wait_until("the capture has its frames", both_send, 30, forwarder)
                assert capture.returncode == 0, capture.stdout.read()
            assert saved.read_bytes()[:4] == b"\x0a\x0d\x0d\x0a" and saved.read_bytes().count(b"drop: acl_denied") == 3
            said = json.loads(subprocess.run(tidegate(forwarder, "explain", "--pcap", saved), check=True, stdout=subprocess.PIPE).stdout)
            assert [frame["reason"] for frame in said["frames"]] == ["acl_denied"] * 3, said
            assert said["frames"][0]["client"].startswith("10.66.0.8:") and said["frames"][0]["service"] == "dns"
            port = client.getsockname()[1]
            wait_until("the client's flow was told", lambda: f"10.66.0.7:{port}" in [event["client"] for event in link.ask(forwarder, "/events").json()["events"]], 10, forwarder)
        refused = link.ask(forwarder, "/capture?reason=because")
        assert refused.status == 400 and b"no reason to drop" in refused.body, refused


def told(forwarder, *arguments):
    return json.loads(subprocess.run(tidegate(forwarder, *arguments), check=True, stdout=subprocess.PIPE).stdout)


def test_an_operator_sees_who_sends_most_and_which_flows_begin(lab):
    with raised("most") as link:
        for host, number in (("client", 7), ("flooder", 9)):
            link.add_host(host, number)
        link.add_backend("web1", 11, VIP4, VIP6)
        link.add_backend("web2", 12, VIP4, VIP6)
        link.add_host("l4")
        (link.home / "l4").mkdir()
        (link.home / "l4" / "strangers.txt").write_text("")
        forwarder = link.start_forwarder(document("strangers.txt"))
        link.wait_ready(forwarder)
        with link.echoes("web1", "web2"), link.flow() as client, link.flow("flooder") as flooder:
            backend = wait_until("a backend answers", lambda: answer_to(client), 30, forwarder)
            with subprocess.Popen(tidegate(forwarder, "l4", "top", "--limit", "1"), stdout=subprocess.PIPE, text=True) as count:
                while count.poll() is None:
                    client.send(b"who")
                    for _ in range(9):
                        flooder.send(b"who")
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        count.wait(0.02)
                top = json.loads(count.stdout.read())["top"]
            # Dropped packets count too, because the operator wants to see them.
            assert [each["network"] for each in top] == ["10.66.0.9/32"], top
            assert top[0]["packets"] > BURST and top[0]["bytes"] >= 45 * top[0]["packets"] and top[0]["error"] == 0, top
            name = f"10.66.0.7:{client.getsockname()[1]}"

            def event_of_client():
                return [each for each in told(forwarder, "l4", "events")["events"] if each["client"] == name]

            wait_until("the client's flow was told", event_of_client, 10, forwarder)
            (event,) = event_of_client()
            assert (event["vip"], event["service"], event["backend"]) == (f"{VIP4}:7000", "dns", f"web/{backend}"), event
            page = told(forwarder, "l4", "events")
            assert page["lost"] == 0 and told(forwarder, "l4", "events", "--from", str(page["next"]))["events"] == [], page


def test_a_list_of_countries_refuses_its_clients_and_follows_its_database(lab):
    with raised("lands") as link:
        add_hosts(link)
        places = link.home / "places.mmdb"

        def put(numbers):
            where = {f"10.66.0.{number}/32": (48.86, 2.35, "FR") for number in numbers} | {f"fd66::{number}/128": (48.86, 2.35, "FR") for number in numbers}
            fresh = places.with_suffix(".new")
            fresh.write_bytes(database(where))
            fresh.rename(places)

        put([8])
        lists = document("none").replace("networks: [10.66.0.8/32], file: none", "countries: [FR]") + f"geo: {{mmdb: {places}}}\n"
        forwarder = link.start_forwarder(lists)
        link.wait_ready(forwarder)
        denied = lambda: link.metric(forwarder, "tidegate_l4_acl_packets_total", acl="strangers", decision="denied")
        for vip in (VIP4, VIP6):
            with link.echoes("web1", "web2", vip=vip), link.flow(vip=vip) as client, link.flow("stranger", vip=vip) as stranger:
                wait_until("a backend answers", lambda: answer_to(client), 30, forwarder)
                before = denied()
                stranger.send(b"who")
                wait_until("the stranger was refused", lambda: denied() == before + 1, 10, forwarder)
        said = link.ask(forwarder, "/explain?client=10.66.0.8&client_port=5&vip=vip&port=7000&protocol=udp").json()
        assert said["decision"] == "refused" and said["acl"] == "strangers", said
        put([7])
        with link.echoes("web1", "web2"), link.flow("stranger", timeout=0.2) as stranger:
            wait_until("the new database is in force", lambda: answer_to(stranger), 10, forwarder)
