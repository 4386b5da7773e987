# SPDX-License-Identifier: Apache-2.0
"""The forwarder as seen from outside: connections spread, flows stay, echoes come back, and every drop has a name."""

import contextlib
import itertools
import re
import socket
import threading

import box
import netns
from lab import open_socket
from load import connect, tls_context
from marks import long
from netns import wait_until
from topology import VIP_EU


def metric(lab, host, plane, name, **labels):
    return metric_in(lab.plane(host, plane, "/metrics"), name, **labels)


def metric_in(answer, name, **labels):
    """The sum of a metric's series that have these labels."""
    total = 0.0
    for line in answer.body.decode().splitlines():
        match = re.match(r"(\w+)(?:\{(.*)\})? ([0-9.e+-]+)$", line)
        if match and match[1] == name and all(f'{k}="{v}"' in (match[2] or "") for k, v in labels.items()):
            total += float(match[3])
    return total


def handled_by(lab, vip, connections, host="client-eu"):
    """How many of the new connections each proxy took. The Via field of a fixed answer names the proxy."""
    shares = {}
    for _ in range(connections):
        connection = connect(host, vip, 80)
        connection.request("GET", "/healthz", headers={"Host": "www.example.test"})
        response = connection.getresponse()
        response.read()
        via = response.getheader("Via")
        shares[via] = shares.get(via, 0) + 1
        connection.close()
    return shares


def test_a_thousand_connections_spread_as_the_weights_say_over_ipv4_and_ipv6(lab):
    for vip in VIP_EU:
        shares = handled_by(lab, vip, 1000)
        assert set(shares) == {"1.1 proxy1", "1.1 proxy2"}, shares
        # Weights 200:100; a binomial share of 2/3 stays within 5 standard deviations of 15.
        assert 592 <= shares["1.1 proxy1"] <= 742, shares


def test_the_vip_and_the_forwarder_answer_echo_requests(lab):
    for address in (*VIP_EU, "10.10.0.2", "fd10::2"):
        lab.run("client-eu", "ping", "-c", "2", "-i", "0.2", "-W", "2", address)


def echo_server(host, address, port, name):
    """A UDP server that answers with its name, bound to the VIP on a host."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = open_socket(host, family, socket.SOCK_DGRAM)
    server.bind((address, port))

    def serve():
        with contextlib.suppress(OSError):  # closed
            while True:
                data, peer = server.recvfrom(2048)
                if data == b"quit":
                    return
                server.sendto(name.encode() + b" " + data, peer)

    threading.Thread(target=serve, daemon=True).start()
    return server


@contextlib.contextmanager
def echo_servers(vip):
    """One server on each proxy, at the VIP's UDP service."""
    family = socket.AF_INET6 if ":" in vip else socket.AF_INET
    servers = [echo_server(host, vip, 7000, host) for host in ("proxy1", "proxy2")]
    try:
        yield
    finally:
        for host, server in zip(("proxy1", "proxy2"), servers):
            with open_socket(host, family, socket.SOCK_DGRAM) as stopper:
                stopper.sendto(b"quit", (vip, 7000))
            server.close()


# Ports below the kernel's own range, each used once: the forwarder remembers a flow for half a minute after its socket
# was closed.
UNUSED_PORTS = itertools.count(20_000)


def udp_flow(vip):
    client = open_socket("client-eu", socket.AF_INET6 if ":" in vip else socket.AF_INET, socket.SOCK_DGRAM)
    client.bind(("", next(UNUSED_PORTS)))
    client.settimeout(3)
    client.connect((vip, 7000))
    return client


def backend_of(flow):
    flow.send(b"who")
    return flow.recv(100).split()[0].decode()


def test_udp_flows_reach_their_backend_and_stay_there(lab):
    for vip in VIP_EU:
        with echo_servers(vip), contextlib.ExitStack() as flows:
            seen = set()
            for _ in range(40):
                flow = flows.enter_context(udp_flow(vip))
                answers = {backend_of(flow) for _ in range(3)}
                assert len(answers) == 1, "one flow, one backend"
                seen |= answers
            assert seen == {"proxy1", "proxy2"}, seen


def test_udp_flows_outlive_the_drain_of_their_backend_and_new_ones_go_elsewhere(lab):
    for vip in VIP_EU:
        with echo_servers(vip), contextlib.ExitStack() as flows:
            opened = [flows.enter_context(udp_flow(vip)) for _ in range(30)]
            before = [backend_of(flow) for flow in opened]
            assert set(before) == {"proxy1", "proxy2"}
            lab.tidegate("drain", "backend", "proxies-eu/proxy1", "--wait")
            try:
                assert [backend_of(flow) for flow in opened] == before, "a flow stays where it is"
                newer = [flows.enter_context(udp_flow(vip)) for _ in range(30)]
                assert {backend_of(flow) for flow in newer} == {"proxy2"}, "new work goes elsewhere"
            finally:
                lab.tidegate("undrain", "backend", "proxies-eu/proxy1", "--wait")
            assert [backend_of(flow) for flow in opened] == before
            assert {backend_of(flow) for flow in newer} == {"proxy2"}, "pinned there, they stay there"
            newest = {backend_of(flows.enter_context(udp_flow(vip))) for _ in range(30)}
            assert newest == {"proxy1", "proxy2"}, newest
            # A backend that is taken down loses its flows too: they continue at another one.
            lab.tidegate("drain", "backend", "proxies-eu/proxy1", "--down", "--wait")
            try:
                assert {backend_of(flow) for flow in opened} == {"proxy2"}
            finally:
                lab.tidegate("undrain", "backend", "proxies-eu/proxy1", "--wait")


def test_a_flow_survives_a_change_of_weights_that_would_move_it(lab):
    context = tls_context(lab.directory("edge") / "example.crt")
    connections = [connect("client-eu", VIP_EU[i % 2], 443, "www.example.test", context) for i in range(60)]

    def who(connection):
        connection.request("GET", "/api/v1/who")
        response = connection.getresponse()
        response.read()
        return response.getheader("Via").split()[-1]

    before = [who(c) for c in connections]
    assert set(before) == {"proxy1", "proxy2"}
    original = (lab.directory("edge") / "edge.yaml").read_text()
    changed = lab.directory("edge") / "weights.yaml"
    changed.write_text(original.replace("weight: 200", "weight: 1").replace("weight: 100}", "weight: 1000}"))
    lab.apply(changed)
    try:
        assert [who(c) for c in connections] == before, "a tracked flow keeps its backend through a change of the table"
        for vip in VIP_EU:
            shares = handled_by(lab, vip, 100)
            assert shares.get("1.1 proxy2", 0) > 80, f"new connections follow the new weights: {shares}"
    finally:
        lab.apply(lab.directory("edge") / "edge.yaml")
        for connection in connections:
            connection.close()


def flows_leave(lab, vips):
    path = lab.directory("edge") / "brief.yaml"
    text = (lab.directory("edge") / "edge.yaml").read_text()
    text = text.replace("protocol: udp, pool", "protocol: udp, udp_idle_timeout: 1s, pool").replace("port: 80, protocol: tcp, pool", "port: 80, protocol: tcp, tcp_closing_timeout: 1s, pool")
    path.write_text(text)
    lab.apply(path)
    try:
        flows = lambda: metric(lab, "l4", "l4", "tidegate_l4_flows")
        created = lambda: metric(lab, "l4", "l4", "tidegate_l4_flows_created_total")
        for vip in vips:
            with echo_servers(vip), contextlib.ExitStack() as opened:
                before = created()
                for _ in range(50):
                    backend_of(opened.enter_context(udp_flow(vip)))
                handled_by(lab, vip, 50)
                # A tuple that an earlier test used may still be in the table. Then its flow is reused, not created.
                made, most = created() - before, flows()
                assert made >= 50
                wait_until("as many flows are gone", lambda: flows() <= most - made, 15)
    finally:
        lab.apply(lab.directory("edge") / "edge.yaml")


def test_flows_leave_the_table_when_they_are_idle(lab):
    flows_leave(lab, VIP_EU[1:])


@long
def test_flows_of_both_families_leave_the_table_when_they_are_idle(lab):
    flows_leave(lab, VIP_EU)


def test_explain_names_the_backend_that_a_connection_then_gets(lab):
    for port in range(20001, 20021):
        family, client, vip = ((socket.AF_INET, "10.1.0.2", VIP_EU[0]), (socket.AF_INET6, "fd01::2", VIP_EU[1]))[port % 2]
        told = lab.plane("l4", "l4", f"/explain?client={client}&client_port={port}&vip={vip}&port=80&protocol=tcp").json()
        sock = open_socket("client-eu", family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((client, port))
        sock.settimeout(5)
        sock.connect((vip, 80))
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: www.example.test\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(4096), b"")).decode()
        sock.close()
        assert f"via: 1.1 {told['backend']}" in answer.lower(), (told, answer)


def test_a_packet_for_no_service_is_dropped_under_its_name(lab):
    dropped = lambda: metric(lab, "l4", "l4", "tidegate_l4_dropped_packets_total", reason="no_service")
    for family, vip in zip((socket.AF_INET, socket.AF_INET6), VIP_EU):
        before = dropped()
        with open_socket("client-eu", family, socket.SOCK_DGRAM) as client:
            for _ in range(10):
                client.sendto(b"nobody home", (vip, 9))
        wait_until("the drops are counted", lambda: dropped() >= before + 10, 3)


def greeter(host, address, port):
    """A TCP server of the host's kernel that greets every client, until it is closed."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = open_socket(host, family, socket.SOCK_STREAM)
    server.bind((address, port))
    server.listen()

    def serve():
        with contextlib.suppress(OSError):
            while True:
                visitor, _ = server.accept()
                with visitor:
                    visitor.sendall(b"hello from the kernel")

    threading.Thread(target=serve, daemon=True).start()
    return server


TAP_DOCUMENT = """\
nodes:
  - name: tap
    l4:
      ports: [{device: eth0, driver: af_xdp, addresses: [10.10.0.63/24, "fd10::63/64"], gateways: [10.10.0.1, "fd10::1"]}]
      flows: 4096
      punt: tap
vips:
  - {name: web, addresses: [10.10.0.200, "fd10::200"]}
services:
  - {name: http, vip: web, port: 80, pool: proxies}
pools:
  - {name: proxies, backends: [{name: proxy1, addresses: [10.10.0.11, "fd10::11"]}]}
"""


def test_with_a_tap_what_is_not_for_a_vip_reaches_the_kernel_and_is_answered(lab):
    for driver in ("af_xdp", "af_packet"):
        try_tap(lab, TAP_DOCUMENT.replace("af_xdp", driver), driver)


def try_tap(lab, document, driver):
    with box.raised("tap", 63, kernel_address=False) as node:
        daemon = node.start_plane("l4", node.write("tap.yaml", document))
        node.wait_ready("l4", daemon)
        assert driver in daemon.log.read_text(), "it says what drives the port"
        netns.ip(node.host.namespace, "addr add 10.10.0.63/24 dev tg-eth0", "addr add fd10::63/64 dev tg-eth0 nodad")
        netns.ip(node.host.namespace, "route add default via 10.10.0.1")
        netns.sh("ip", "-n", node.host.namespace, "-6", "route", "add", "default", "via", "fd10::1")
        for address in ("10.10.0.63", "fd10::63"):
            server = greeter("tap", address, 22)
            visitor = socket.AF_INET6 if ":" in address else socket.AF_INET
            with open_socket("client-eu", visitor, socket.SOCK_STREAM) as client:
                client.settimeout(5)
                client.connect((address, 22))
                assert client.recv(100) == b"hello from the kernel"
            server.shutdown(socket.SHUT_RDWR)
            server.close()
            lab.run("client-eu", "ping", "-c", "2", "-i", "0.2", "-W", "2", address)
        # The kernel may also announce an address. The VIP stays the forwarder's.
        for address in ("10.1.0.2", "fd01::2"):
            lab.run("tap", "ping", "-c", "2", "-i", "0.2", "-W", "2", address)
        for address in box.VIP:
            lab.run("client-eu", "ping", "-c", "2", "-i", "0.2", "-W", "2", address)
        assert metric_in(node.ask("l4", "/metrics"), "tidegate_l4_punted_packets_total") >= 12


def test_without_a_tap_what_is_not_for_a_vip_is_dropped_and_counted(lab):
    dropped = lambda: metric(lab, "l4", "l4", "tidegate_l4_dropped_packets_total", reason="not_local")
    for family, address in ((socket.AF_INET, "10.10.0.2"), (socket.AF_INET6, "fd10::2")):
        before = dropped()
        with open_socket("client-eu", family, socket.SOCK_DGRAM) as client:
            for _ in range(10):
                client.sendto(b"nobody home", (address, 22))
        wait_until("the drops are counted", lambda: dropped() >= before + 10, 3)


def test_an_idle_forwarder_leaves_its_core_alone(lab):
    import os
    import time

    def cpu_s():
        fields = open(f"/proc/{lab.process('l4', 'l4').pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before, began = cpu_s(), time.monotonic()
    time.sleep(2)  # this test measures the passing of time without traffic
    used = (cpu_s() - before) / (time.monotonic() - began)
    assert used < 0.5, f"{used:.0%} of a core while idle: a polling lcore would show 100 %"
