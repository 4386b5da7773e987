#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The demo: one edge, two sites, real clients. Every number on the screen is measured while you watch.

  demo.py           tells the story, then leaves the lab running for you until Enter
  demo.py --once    tells it and ends; the last line is `demo: N steps, N held`
"""

import re
import socket
import struct
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from demo_gateway import gateway  # noqa: E402
from lab import Lab, LabError, open_socket  # noqa: E402
from load import SteadyLoad, connect  # noqa: E402
from netns import Process, wait_until  # noqa: E402
from topology import DNS_EU, HOSTS, VIP_EU, VIP_US  # noqa: E402

TTY = sys.stdout.isatty()
WWW = "https://www.example.test"
SITE_OF = {VIP_EU[0]: "eu", VIP_US[0]: "us"}

TOPOLOGY = """
   client-eu                          router                         client-us
   10.1.0.2  ───────────────────────────┬──────────────────────────── 10.2.0.2
                                        │
        site eu  10.10.0.0/24 ──────────┴────────── site us  10.20.0.0/24
   ┌──────────┬──────────┬──────────┬──────────┐   ┌──────────────────┐
   │ edge .53 │ l4   .2  │ proxy1/2 │ origin1/2│   │ us1 .11          │
   │ dns      │ DPDK     │ .11 .12  │ .21 .22  │   │ l7 + cache + dns │
   │ control  │ vip .100 │ l7+cache │ nginx    │   │ vip .100         │
   └──────────┴──────────┴──────────┴──────────┘   └──────────────────┘
   every host has its own state; only the controls meet, on 10.99.0.0/24"""


def bold(text):
    return f"\033[1m{text}\033[0m" if TTY else text


def dim(text):
    return f"\033[2m{text}\033[0m" if TTY else text


class Story:
    """Steps are told as they happen. A step holds if its function returns; otherwise it says why not."""

    def __init__(self):
        self.told = self.held = 0

    def step(self, title, function, *arguments):
        self.told += 1
        print(f"\n{bold(f'{self.told}. {title}')}", flush=True)
        began = time.monotonic()
        try:
            function(*arguments)
            self.held += 1
            print(dim(f"   held, {time.monotonic() - began:.1f} s"), flush=True)
            return True
        except (AssertionError, LabError, OSError, KeyError, ValueError, IndexError) as error:
            print(f"   DID NOT HOLD: {type(error).__name__}: {error}", flush=True)
            return False


def say(text=""):
    print("\n".join("   " + line for line in text.splitlines()) or "", flush=True)


def dig(lab, host, name="www.example.test", kind="A"):
    return lab.run(host, "dig", "+short", "+tries=1", f"@{DNS_EU[0]}", name, kind).stdout.split()


def served_by(answer):
    """The proxy that the head of a response names."""
    return re.search(r"(?i)^via: \S+ (\S+)", answer, re.MULTILINE)[1]


def head(lab):
    return lab.api("GET", "/v1/status").json()["head"]


def wait_word(lab, key, up):
    def said():
        word = lab.api("GET", "/v1/health").json()["words"].get(key)
        return word if word and word["up"] == up else None

    return wait_until(f"the probe finds {key} {'up' if up else 'down'}", said, 20)


def planes(lab):
    for node in lab.api("GET", "/v1/status").json()["nodes"]:
        for plane in node.get("planes", []):
            yield node["name"], plane


def wait_applied(lab):
    words = head(lab)["words"]
    wait_until("every plane has applied it", lambda: all(p["words"] >= words for _, p in planes(lab)), 20)
    return list(planes(lab))


# --- the steps


def raise_lab(lab):
    began = time.monotonic()
    lab.up()
    say(TOPOLOGY)
    version = lab.api("GET", "/v1/status").json()["head"]["version"]
    count = sum(1 for _, plane in planes(lab) if plane["version"] == version)
    say(f"up in {time.monotonic() - began:.1f} s; version {version} is in force on {count} planes of 5 hosts")
    said = [line for line in lab.log("l4", "l4").read_text(errors="replace").splitlines() if "af_xdp" in line.lower() or "af_packet" in line.lower()]
    if said:
        say(f"forwarder: {said[0].split(': ', 1)[-1]}")


def two_clients(lab):
    for client, wanted in (("client-eu", VIP_EU), ("client-us", VIP_US)):
        began = time.monotonic()
        v4, v6 = dig(lab, client), dig(lab, client, kind="AAAA")
        say(f"{client} asks for www.example.test: {v4[0]:<12} {v6[0]:<10} site {SITE_OF[v4[0]]}   ({(time.monotonic() - began) * 500:.0f} ms a question, dig included)")
        assert (v4[0], v6[0]) == wanted


def one_request(lab):
    for turn, wanted in enumerate(("MISS", "HIT")):
        # The forwarder may give each new connection to either proxy. The same source port reaches the same one twice.
        out = lab.curl(
            "client-eu", WWW + "/static/hello.txt", "-D", "-", "-o", "/dev/null", "--local-port", "33333",
            "-w", "%{time_appconnect} %{time_starttransfer} %{http_version}",
        ).stdout  # fmt: skip
        via = served_by(out)
        cache = re.search(r"(?i)^cache-status: (.*?)\r?$", out, re.MULTILINE)[1]
        origin = re.search(r"(?i)^x-origin: (\S+)", out, re.MULTILINE)[1]
        tls, first, version = out.splitlines()[-1].split()
        where = f"l4 → {via} → cache " + (f"{wanted} → {origin}" if wanted == "MISS" else f"{wanted}")
        say(f"{where:<40} TLS up after {float(tls) * 1000:.1f} ms, first byte {float(first) * 1000:.1f} ms, HTTP/{version}")
        say(dim(f"  cache-status: {cache}"))
        assert ("; hit" in cache) == (wanted == "HIT"), cache
        if turn == 0:
            lab.run("client-eu", "ss", "-K", "sport", "=", "33333", check=False)


def thousand_connections(lab):
    shares, began = {}, time.monotonic()
    for _ in range(1000):
        connection = connect("client-eu", VIP_EU[0], 80)
        connection.request("GET", "/healthz", headers={"Host": "www.example.test"})
        response = connection.getresponse()
        response.read()
        via = response.getheader("Via").split()[-1]
        shares[via] = shares.get(via, 0) + 1
        connection.close()
    took = time.monotonic() - began
    for proxy, weight in (("proxy1", 200), ("proxy2", 100)):
        count = shares.get(proxy, 0)
        say(f"{proxy}  weight {weight}  {count:>4} connections  {'█' * (count // 20)}")
    say(f"1000 connections in {took:.1f} s, none failed")
    assert sum(shares.values()) == 1000 and 592 <= shares["proxy1"] <= 742


def thousand_clients(lab):
    """Each of another network, as a resolver tells it (RFC 7871)."""
    shares, began = {}, time.monotonic()
    with open_socket("client-eu", socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(5)
        asker.connect((DNS_EU[0], 53))
        for client in range(1000):
            question = b"".join(bytes([len(label)]) + label for label in b"proxies.example.test".split(b".")) + b"\0\0\1\0\1"
            subnet = struct.pack(">HHHBBBBB", 8, 7, 1, 24, 0, 10, 64 + client // 256, client % 256)
            asker.send(struct.pack(">HHHHHH", client, 0, 1, 0, 0, 1) + question + struct.pack(">BHHIH", 0, 41, 1232, 0, len(subnet)) + subnet)
            answer = asker.recv(1500)
            assert answer[:2] == client.to_bytes(2, "big") and answer[7] == 2, "both proxies are answered"
            first = socket.inet_ntoa(answer[12 + len(question) + 12 :][:4])
            shares[first] = shares.get(first, 0) + 1
    for address, weight in (("10.10.0.11", 200), ("10.10.0.12", 100)):
        say(f"{address}  weight {weight}  first for {shares.get(address, 0):>4} clients  {'█' * (shares.get(address, 0) // 20)}")
    say(f"1000 clients in {time.monotonic() - began:.1f} s")
    assert sum(shares.values()) == 1000 and 592 <= shares["10.10.0.11"] <= 742


def explain(lab):
    say(lab.tidegate("explain", "10.1.0.2", WWW + "/static/hello.txt", "--port", "33333").stdout)


def origin_killed(lab):
    with SteadyLoad(lab, "client-eu") as load:
        killed = time.time()
        lab.kill_origin("origin1")
        word = wait_word(lab, "backend/origins/origin1", up=False)
        applied = wait_applied(lab)
        converged = time.monotonic()
        load.wait_for(100)
        lab.start_origin("origin1")
        wait_word(lab, "backend/origins/origin1", up=True)
        wait_applied(lab)
        load.wait_for(30)
    say(f"origin1 killed; the probe knew after {(word['since_ns'] / 1e9 - killed) * 1000:.0f} ms: {word['reason']}")
    l7 = [f"{node} {(p['applied_at_ns'] / 1e9 - killed) * 1000:.0f} ms" for node, p in applied if p["plane"] == "l7"]
    say("proxies had left it after " + ", ".join(l7))
    late = load.tally.failures_after(converged)
    say(f"{load.tally.requests} requests, GET and POST, never retried by the client: {len(load.tally.failures) - len(late)} failed before that, {len(late)} after")
    assert not late


def proxy_killed(lab):
    with SteadyLoad(lab, "client-eu", connections=6) as load:
        killed = time.time()
        lab.process("proxy1", "l7").kill()
        word = wait_word(lab, "backend/proxies-eu/proxy1", up=False)
        applied = [(node, p) for node, p in wait_applied(lab) if (node, p["plane"]) != ("proxy1", "l7")]
        converged = time.monotonic()
        load.wait_for(60)
        answer = dig(lab, "client-eu", "proxies.example.test")
        lab.start_plane("proxy1", "l7")
        wait_word(lab, "backend/proxies-eu/proxy1", up=True)
        wait_applied(lab)
        load.wait_for(30)
    say(f"proxy1 killed; the probe knew after {(word['since_ns'] / 1e9 - killed) * 1000:.0f} ms: {word['reason']}")
    for node, p in applied:
        say(f"  {p['plane']:<4} on {node:<7} had left it {(p['applied_at_ns'] / 1e9 - killed) * 1000:>5.0f} ms after the kill, {(p['applied_at_ns'] - word['since_ns']) / 1e6:.1f} ms after the verdict")
    late = [f for f in load.tally.failures_after(converged + 1.0)]
    say(f"dns answers for proxies.example.test: {' '.join(answer)}; requests failed {len(load.tally.failures) - len(late)} before, {len(late)} after; proxy1 is back")
    assert answer == ["10.10.0.12"] and not late


def drained_download(lab):
    target, result = lab.directory("client-eu") / "slow", {}
    thread = threading.Thread(target=lambda: result.update(out=lab.curl("client-eu", WWW + "/slow/1m", "--http1.1", "-o", str(target), "-D", "-").stdout))
    thread.start()
    wait_until("the download runs", lambda: target.exists() and target.stat().st_size > 0, 10)
    for proxy in ("proxy1", "proxy2"):
        lab.tidegate("drain", "backend", f"proxies-eu/{proxy}", "--wait")
        at = target.stat().st_size
        others = {served_by(lab.curl("client-eu", WWW + "/api/v1/x", "-D", "-").stdout) for _ in range(10)}
        say(f"{proxy} drained while the download stood at {at >> 10} KB; ten new connections went to {', '.join(sorted(others))}")
        assert proxy not in others
        lab.tidegate("undrain", "backend", f"proxies-eu/{proxy}", "--wait")
    thread.join(60)
    via = served_by(result["out"])
    whole = target.read_bytes() == b"".join(b"%015d\n" % i for i in range(64 * 1024))
    say(f"the download, served by {via}, is {target.stat().st_size >> 10} KB and {'whole' if whole else 'BROKEN'}")
    assert whole


def site_failed(lab):
    began = time.time()
    for proxy in ("proxy1", "proxy2"):
        lab.process(proxy, "l7").kill()
    wait_until("dns moves the clients", lambda: dig(lab, "client-eu") == [VIP_US[0]], 20)
    say(f"both proxies of eu killed; {(time.time() - began) * 1000:.0f} ms later client-eu is told {VIP_US[0]}, site us")
    out = lab.curl("client-eu", WWW + "/static/hello.txt", "-D", "-", vip=VIP_US[0]).stdout
    say(f"and is served there by {served_by(out)}")
    began = time.time()
    for proxy in ("proxy1", "proxy2"):
        lab.start_plane(proxy, "l7")
    wait_until("dns moves the clients back", lambda: dig(lab, "client-eu") == [VIP_EU[0]], 20)
    say(f"{(time.time() - began) * 1000:.0f} ms after the proxies' start it is told {VIP_EU[0]} again")
    for proxy in ("proxy1", "proxy2"):
        wait_word(lab, f"backend/proxies-eu/{proxy}", up=True)


def forwarder_killed(lab):
    key = "plane/l4/l4"
    began = time.time()
    lab.process("l4", "l4").kill()
    word = wait_word(lab, key, up=False)
    wait_until("dns moves the clients", lambda: dig(lab, "client-eu") == [VIP_US[0]], 20)
    moved = time.time()
    applied = [(node, p) for node, p in wait_applied(lab) if p["plane"] == "dns"]
    say(f"the forwarder of eu killed; its host's control said so after {(word['since_ns'] / 1e9 - began) * 1000:.0f} ms: {word['reason']}")
    say("name servers had left its VIP after " + ", ".join(f"{(p['applied_at_ns'] / 1e9 - began) * 1000:.0f} ms ({node})" for node, p in applied))
    say(f"{(moved - began) * 1000:.0f} ms after the kill client-eu is told {VIP_US[0]}, site us")
    out = lab.curl("client-eu", WWW + "/static/hello.txt", "-D", "-", vip=VIP_US[0]).stdout
    say(f"and is served there by {served_by(out)}")
    lab.start_plane("l4", "l4")
    lab.wait_ready("l4")
    wait_word(lab, key, up=True)
    wait_until("dns moves the clients back", lambda: dig(lab, "client-eu") == [VIP_EU[0]], 20)
    say(f"the forwarder is back, and client-eu is told {VIP_EU[0]} again")
    assert word["reason"] == "its process is gone"


def leader_and_proxy_killed(lab):
    def picks():
        asked = [f"/explain?client=10.1.0.2&client_port={port}&vip={VIP_EU[0]}&port=443&protocol=tcp" for port in range(20000, 20030)]
        return {lab.plane("l4", "l4", question).json()["backend"] for question in asked}

    assert picks() == {"proxy1", "proxy2"}
    with SteadyLoad(lab, "client-eu", connections=6) as load:
        lab.process("edge", "control").kill()
        lab.process("proxy1", "l7").kill()
        killed = time.monotonic()
        wait_until("the forwarder leaves proxy1", lambda: picks() == {"proxy2"}, 20)
        left = time.monotonic()
        say(f"the leading control and proxy1 killed; the forwarder had left proxy1 after {left - killed:.1f} s, because its own host said:")
        say("\n".join("  " + line.split("control: ", 1)[-1] for line in lab.process("l4", "control").tail(40).splitlines() if "no leader is heard" in line or "proxies-eu/proxy1" in line))
        load.wait_for(60)
        lab.start_plane("proxy1", "l7")
        lab.start_control("edge")
        wait_until("every host hears the leader again", lambda: lab.api("GET", "/v1/status").json()["converged"], 30)
        wait_word(lab, "backend/proxies-eu/proxy1", up=True)
        wait_until("the forwarder uses both proxies", lambda: picks() == {"proxy1", "proxy2"}, 20)
        back = time.monotonic()
        load.wait_for(30)
    late = [f for f in load.tally.failures_after(left + 1.0) if f.at < back]
    say(f"requests failed: {len(load.tally.failures) - len(late)} before that, {len(late)} after; leader and proxy are back")
    assert not late, late[:3]


def three_typos(lab):
    text = (lab.directory("edge") / "edge.yaml").read_text()
    path = lab.directory("edge") / "typos.yaml"
    path.write_text(text.replace("weight: 200", "wieght: 200").replace("pool: proxies-us}", "pool: proxies-uss}", 1).replace("interval: 200ms", "interval: 200 parsecs", 1))
    before = head(lab)["version"]
    refused = lab.tidegate("apply", path, check=False)
    said = refused.stdout + refused.stderr
    say(said.replace(str(path.parent) + "/", ""))
    say(f"exit status {refused.returncode}; version {before} stays in force")
    carets = len(re.findall(r"^\s*\|\s*\^", said, re.MULTILINE))
    assert refused.returncode == 1 and carets == 3 and head(lab)["version"] == before, f"{carets} carets"


def faulty_zone(lab):
    edge = lab.directory("edge")
    zone = (edge / "example.test.zone").read_text()
    (edge / "faulty.zone").write_text(zone + "shop IN A 192.0.2.999\nmail IN CNAME elsewhere.example.\n")
    path = edge / "faulty.yaml"
    path.write_text((edge / "edge.yaml").read_text().replace("file: example.test.zone", "file: faulty.zone"))
    before, answer = head(lab)["version"], dig(lab, "client-eu")
    refused = lab.tidegate("apply", path, check=False)
    say(refused.stderr)
    versions = {plane["version"] for _, plane in planes(lab)}
    line = zone.count("\n") + 1
    say(f"exit status {refused.returncode}; version {before} is in force on every plane: {versions == {before}}")
    assert refused.returncode == 1 and f"faulty.zone:{line}:11: not an IPv4 address" in refused.stderr, refused
    assert f"faulty.zone:{line + 1}:1: mail.example.test. has a CNAME and other records" in refused.stderr, refused
    assert head(lab)["version"] == before and versions == {before} and dig(lab, "client-eu") == answer


HOLDER = """
import signal, socket
tcp = socket.socket()
tcp.bind(("0.0.0.0", 8181)), tcp.listen()
print("held", flush=True)
signal.pause()
"""


def port_taken(lab):
    edge = lab.directory("edge")
    path = edge / "port.yaml"
    path.write_text((edge / "edge.yaml").read_text().replace("listeners:\n", 'listeners:\n  - {name: more, bind: ["0.0.0.0:8181"]}\n'))
    before = head(lab)["version"]
    holder = Process(HOSTS["proxy2"].namespace, "proxy2/holder", ["/usr/bin/python3", "-c", HOLDER], lab.directory("proxy2") / "holder.log").start()
    try:
        wait_until("another program has port 8181 of proxy2", lambda: "held" in holder.tail(), 20, holder)
        refused = lab.tidegate("apply", path, check=False)
    finally:
        holder.kill()
    say(refused.stderr)
    versions = {plane["version"] for _, plane in planes(lab)}
    say(f"exit status {refused.returncode}; version {before} is in force on every plane: {versions == {before}}")
    assert refused.returncode == 1 and "proxy2: l7: listener more: cannot bind 0.0.0.0:8181: Address already in use" in refused.stderr, refused
    assert "proxy1" not in refused.stderr and "us1" not in refused.stderr, refused
    assert head(lab)["version"] == before and versions == {before}


def good_change(lab):
    text = (lab.directory("edge") / "edge.yaml").read_text()
    path = lab.directory("edge") / "change.yaml"
    with SteadyLoad(lab, "client-eu", connections=6) as load:
        took = []
        for turn in range(5):
            path.write_text(text.replace("weight: 200", f"weight: {201 + turn}").replace("routes:\n", f'routes:\n  - {{name: new-{turn}, hosts: [www.example.test], path: "/new/{turn}", pool: origins}}\n'))
            lab.tidegate("apply", path, "--wait")
            version = lab.api("GET", "/v1/versions").json()["versions"][0]
            took.append(max(p["applied_at_ns"] for _, p in planes(lab)) - version["created_ns"])
            load.wait_for(30)
    say("five changes of weights and routes, applied on every plane of both sites after " + ", ".join(f"{ns / 1e6:.1f}" for ns in took) + " ms")
    say(f"{load.tally.requests} requests meanwhile on {load.tally.connections} connections: {len(load.tally.failures)} failed, connections closed {load.tally.closed}")
    assert not load.tally.failures and load.tally.closed == 0


def bad_change_rolled_back(lab):
    good = head(lab)["version"]
    path = lab.directory("edge") / "bad.yaml"
    # Well-formed but wrong: the origins' port. No validation can refuse it, but the version can be rolled back.
    path.write_text((lab.directory("edge") / "edge.yaml").read_text().replace("port: 8080", "port: 8081"))
    lab.tidegate("apply", path, "--wait", "--comment", "move the origins (wrong port)")
    code = lambda: lab.curl("client-eu", WWW + "/api/v1/x", "-o", "/dev/null", "-w", "%{http_code}").stdout
    broken = code()
    say(f"version {head(lab)['version']} sends requests to a port where nobody listens: status {broken}")
    began = time.time()
    lab.tidegate("rollback", str(good), "--wait")
    rolled = time.time() - began
    wait_until("the origins are back", lambda: code() == "200", 10)
    say(f"rolled back to the content of version {good} on all planes in {rolled * 1000:.0f} ms: status {code()}")
    assert broken in ("502", "503", "504")


def main(arguments):
    once = arguments == ["--once"]
    if arguments and not once:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    lab, story = Lab(), Story()
    print(bold("Tidegate: an edge in network namespaces. Nothing outside them is touched; everything goes when this ends."))
    try:
        if story.step("The edge is raised: two sites, nine hosts", raise_lab, lab):
            story.step("Two clients ask our DNS and are sent to two sites", two_clients, lab)
            story.step("An HTTPS request crosses every plane: a miss, then a hit", one_request, lab)
            story.step("A thousand connections spread as the weights say", thousand_connections, lab)
            story.step("A thousand clients are given the proxies of a pool in turn, by weight", thousand_clients, lab)
            story.step("Why does this client go where it goes? Every plane answers for itself", explain, lab)
            story.step("An origin is killed under load", origin_killed, lab)
            story.step("A proxy is killed under load: when did each plane leave it?", proxy_killed, lab)
            story.step("A proxy is drained while a slow download runs", drained_download, lab)
            story.step("A whole site fails and its clients are moved by DNS", site_failed, lab)
            story.step("The forwarder is killed and its clients are moved", forwarder_killed, lab)
            story.step("The leading control is killed, and then a proxy: who sees it?", leader_and_proxy_killed, lab)
            story.step("The edge as an API gateway: a limit, a token, a canary, a breaker", gateway, lab, say)
            story.step("A configuration with three typos is refused", three_typos, lab)
            story.step("A zone with a fault is refused by name, before anything changes", faulty_zone, lab)
            story.step("A port that another process holds is refused by the host that has it, and no other host changed", port_taken, lab)
            story.step("Good changes under load", good_change, lab)
            story.step("A bad change is rolled back", bad_change_rolled_back, lab)
        if not once and story.held:
            print("\nThe lab is up. In another terminal: ./run lab exec client-eu curl -sk --resolve www.example.test:443:10.10.0.100 https://www.example.test/")
            input("Enter ends it. ")
    except (KeyboardInterrupt, EOFError):
        print()
    finally:
        lab.down()
    print(f"\ndemo: {story.told} steps, {story.held} held")
    return 0 if story.told and story.held == story.told else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
