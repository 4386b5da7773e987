"""The forwarder seen from outside: connections spread, flows stay, echoes come back, and what is dropped has a name."""

import re
import socket
import threading

from lab import open_socket
from load import connect, tls_context
from topology import VIP_EU


def metric(lab, host, plane, name, **labels):
    """Sum of a metric's series that carry these labels."""
    total = 0.0
    for line in lab.plane(host, plane, "/metrics").body.decode().splitlines():
        match = re.match(r"(\w+)(?:\{(.*)\})? ([0-9.e+-]+)$", line)
        if match and match[1] == name and all(f'{k}="{v}"' in (match[2] or "") for k, v in labels.items()):
            total += float(match[3])
    return total


def handled_by(lab, vip, connections, host="client-eu"):
    """How many of new connections each proxy took, told by the Via field of a fixed answer."""
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
        while True:
            data, peer = server.recvfrom(2048)
            if data == b"quit":
                return
            server.sendto(name.encode() + b" " + data, peer)

    threading.Thread(target=serve, daemon=True).start()
    return server


def test_udp_flows_reach_their_backend_and_stay_there(lab):
    for vip in VIP_EU:
        family = socket.AF_INET6 if ":" in vip else socket.AF_INET
        servers = [echo_server(host, vip, 7000, host) for host in ("proxy1", "proxy2")]
        try:
            seen = set()
            for _ in range(40):
                with open_socket("client-eu", family, socket.SOCK_DGRAM) as client:
                    client.settimeout(3)
                    client.connect((vip, 7000))
                    answers = set()
                    for turn in range(3):
                        client.send(b"turn %d" % turn)
                        answers.add(client.recv(100).split()[0])
                    assert len(answers) == 1, "one flow, one backend"
                    seen |= answers
            assert seen == {b"proxy1", b"proxy2"}, seen
        finally:
            for host, server in zip(("proxy1", "proxy2"), servers):
                with open_socket(host, family, socket.SOCK_DGRAM) as stopper:
                    stopper.sendto(b"quit", (vip, 7000))
                server.close()


def test_a_flow_survives_a_change_of_weights_that_would_move_it(lab):
    context = tls_context(lab.directory("edge") / "example.crt")
    connections = [connect("client-eu", VIP_EU[0], 443, "www.example.test", context) for _ in range(60)]

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
        shares = handled_by(lab, VIP_EU[0], 100)
        assert shares.get("1.1 proxy2", 0) > 80, f"new connections follow the new weights: {shares}"
    finally:
        lab.apply(lab.directory("edge") / "edge.yaml")
        for connection in connections:
            connection.close()


def test_explain_names_the_backend_that_a_connection_then_gets(lab):
    for port in range(20001, 20011):
        told = lab.plane("l4", "l4", f"/explain?client=10.1.0.2&client_port={port}&vip={VIP_EU[0]}&port=80&protocol=tcp").json()
        sock = open_socket("client-eu", socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("10.1.0.2", port))
        sock.settimeout(5)
        sock.connect((VIP_EU[0], 80))
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: www.example.test\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(4096), b"")).decode()
        sock.close()
        assert f"via: 1.1 {told['backend']}" in answer.lower(), (told, answer)


def test_a_packet_for_no_service_is_dropped_under_its_name(lab):
    before = metric(lab, "l4", "l4", "tidegate_l4_dropped_packets_total")
    with open_socket("client-eu", socket.AF_INET, socket.SOCK_DGRAM) as client:
        for _ in range(10):
            client.sendto(b"nobody home", (VIP_EU[0], 9))
    from netns import wait_until

    wait_until("the drops are counted", lambda: metric(lab, "l4", "l4", "tidegate_l4_dropped_packets_total") >= before + 10, 3)


def test_an_idle_forwarder_leaves_its_core_alone(lab):
    import os
    import time

    def cpu_s():
        fields = open(f"/proc/{lab.process('l4', 'l4').pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before, began = cpu_s(), time.monotonic()
    time.sleep(2)  # the thing measured is the passing of time without traffic
    used = (cpu_s() - before) / (time.monotonic() - began)
    assert used < 0.5, f"{used:.0%} of a core while idle: a polling lcore would show 100 %"
