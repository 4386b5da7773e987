# SPDX-License-Identifier: Apache-2.0
"""Two forwarders of a site tell each other about their flows. One takes over from the other after the backends changed:
established connections stay with their backends, which its hash table alone would not pick."""

import contextlib
import signal
import socket
import struct

from marks import long
from netns import ip, open_socket, wait_until
from restart_e2e import answer_each, connect, who
from segment import VIP4, raised, raw_socket, tcp_servers

CONNECTIONS = 24  # so that both backends have some, except in one run in eight million
FORWARDERS = {"l4a": ("10.66.0.2", "10.66.0.31"), "l4b": ("10.66.0.3", "10.66.0.32")}
PORT = 7400


def document(weights):
    nodes = "\n".join(
        f"  - {{name: {name}, site: here, l4: {{ports: [{{device: eth0, addresses: [{own}/24]}}], flows: 4096, share_flows: '{host}:{PORT}'}}}}"
        for name, (own, host) in FORWARDERS.items()
    )
    listed = "\n".join(f"      - {{name: web{i}, weight: {weight}, addresses: [10.66.0.1{i}]}}" for i, weight in enumerate(weights, 1))
    return f"""
sites: [{{name: here}}]
nodes:
{nodes}
vips: [{{name: vip, addresses: [{VIP4}]}}]
services: [{{name: http, vip: vip, port: 80, protocol: tcp, pool: web}}]
pools:
  - name: web
    backends:
{listed}
"""


class Pair:
    """Two forwarders and two backends. The client reaches the VIP through the one that route() names."""

    def __init__(self, link):
        self.link, self.running = link, {}
        link.add_host("client", 7)
        for number, host in enumerate(("web1", "web2"), 11):
            link.add_backend(host, number, VIP4)
        for name, (_, host) in FORWARDERS.items():
            link.add_host(name)
            link.attach(name, "mgmt")
            ip(link.namespace(name), f"addr add {host}/24 dev mgmt")

    def start(self, weights):
        for name in FORWARDERS:
            self.running[name] = self.link.start_forwarder(document(weights), host=name, name=name, node=name)
        for forwarder in self.running.values():
            self.link.wait_ready(forwarder)
            wait_until("backends are known", lambda: self.link.metric(forwarder, "tidegate_l4_neighbours_resolved") == 2, 20, forwarder)

    def route(self, name):
        ip(self.link.namespace("client"), f"route replace {VIP4}/32 via {FORWARDERS[name][0]}")

    def change(self, weights):
        for forwarder in self.running.values():
            digest = lambda: self.link.ask(forwarder, "/status").json()["digest"]
            before = digest()
            (forwarder.run_dir / "edge.yaml").write_text(document(weights))
            forwarder.popen.send_signal(signal.SIGHUP)
            wait_until("the new weights are in force", lambda: digest() != before, 20, forwarder)

    def metric(self, name, what, **labels):
        return self.link.metric(self.running[name], f"tidegate_l4_{what}", **labels)

    def learned(self, name):
        return self.metric(name, "shared_flows_heard_total", outcome="learned")

    def refused(self, name, reason):
        return self.metric(name, "shared_datagrams_refused_total", reason=reason)


@contextlib.contextmanager
def pair(name):
    with raised(name) as link:
        forwarders = Pair(link)
        with tcp_servers(link, ("web1", "web2"), answer_each):
            yield forwarders


def test_a_forwarder_that_takes_over_keeps_the_backends_of_established_connections(_):
    with pair("share") as both, contextlib.ExitStack() as stack:
        both.start((1, 1))
        both.route("l4a")
        clients = [stack.enter_context(connect(both.link, VIP4)) for _ in range(CONNECTIONS)]
        hosts = [who(client) for client in clients]
        assert set(hosts) == {"web1", "web2"}, hosts
        wait_until("the other forwarder has heard", lambda: [who(client) for client in clients] and both.learned("l4b") == CONNECTIONS, 20, both.running["l4b"])
        both.change((0, 1))
        both.running["l4a"].kill()
        both.route("l4b")
        assert [who(client) for client in clients] == hosts
        assert both.metric("l4b", "flows_taken_over_total") == CONNECTIONS
        assert both.metric("l4b", "flows_created_total") == 0, "no flow was picked anew"
        with connect(both.link, VIP4) as fresh:
            assert who(fresh) == "web2", "new connections go by the new weights"
        peers = both.link.ask(both.running["l4b"], "/status").json()["flow_sharing"]["peers"]
        assert [(peer["address"], peer["flows_told"] >= CONNECTIONS, peer["refused"]) for peer in peers] == [(f"10.66.0.31:{PORT}", True, "")], peers


def datagrams_between(raw, number):
    """The payloads of that many datagrams of shared flows that the interface receives."""
    found = []
    while len(found) < number:
        frame = raw.recv(2048)
        if frame[12:14] == b"\x08\x00" and frame[23] == 17 and struct.unpack("!H", frame[36:38])[0] == PORT and frame[30:34] == socket.inet_aton("10.66.0.32"):
            found.append(frame[42 : 34 + struct.unpack("!H", frame[38:40])[0]])
    return found


@long
def test_bad_and_repeated_datagrams_are_counted_and_a_flood_of_them_harms_nobody(_):
    with pair("sharf") as both, contextlib.ExitStack() as stack:
        both.start((1, 1))
        both.route("l4b")
        clients = [stack.enter_context(connect(both.link, VIP4)) for _ in range(CONNECTIONS)]
        hosts = [who(client) for client in clients]
        listener = stack.enter_context(raw_socket(both.link.namespace("l4b"), "mgmt"))
        listener.settimeout(20)
        recorded = datagrams_between(listener, 2)
        both.running["l4a"].kill()
        wait_until("l4a has let go of its address", lambda: not both.running["l4a"].running(), 5)
        peer = stack.enter_context(open_socket(both.link.namespace("l4a"), socket.AF_INET, socket.SOCK_DGRAM))
        peer.bind(("10.66.0.31", PORT))
        stranger = stack.enter_context(open_socket(both.link.namespace("client"), socket.AF_INET, socket.SOCK_DGRAM))
        forged = recorded[0][:20] + bytes(3) + b"\x7f" + recorded[0][24:]
        cases = {"replayed": (peer, recorded[0]), "forged": (peer, forged), "malformed": (peer, b"TGFS"), "layout": (peer, recorded[0][:4] + b"\x09" + recorded[0][5:])}
        cases |= {"stale": (peer, recorded[0][:24] + bytes(8) + recorded[0][32:]), "stranger": (stranger, recorded[0])}
        for reason, (sender, datagram) in cases.items():
            sender.sendto(datagram, ("10.66.0.32", PORT))
            wait_until(f"it is {reason}", lambda: both.refused("l4b", reason) == 1, 10, both.running["l4b"])
        for _ in range(20):
            for sender in (peer, stranger):
                for _ in range(1000):
                    sender.sendto(forged, ("10.66.0.32", PORT))
            assert [who(client) for client in clients] == hosts
        assert both.refused("l4b", "forged") > 1 and both.refused("l4b", "stranger") > 1
        assert both.metric("l4b", "flows_repicked_total") == 0
        assert both.learned("l4b") == 0
        peer.close()
        # The other forwarder is accepted again, whatever was sent in its name.
        both.running["l4a"] = both.link.start_forwarder(document((1, 1)), host="l4a", name="l4a-2", node="l4a")
        both.link.wait_ready(both.running["l4a"])
        wait_until("both have heard", lambda: [who(client) for client in clients] and both.learned("l4a") == CONNECTIONS, 30, both.running["l4a"])
        heard = lambda: both.link.ask(both.running["l4b"], "/status").json()["flow_sharing"]["peers"][0]
        wait_until("l4b hears l4a", lambda: heard()["refused"] == "" and heard()["heard_ms_ago"] < 3000, 20, both.running["l4b"])
