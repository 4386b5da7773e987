# SPDX-License-Identifier: Apache-2.0
"""Several forwarders behind a router that spreads connections over them (ECMP by nft's jhash). Flow tables are lost, the
weights of the pool change, and the router spreads anew, all in the middle of transfers: every transfer ends."""

import contextlib
import hashlib
import multiprocessing
import os
import resource
import selectors
import signal
import socket
import threading

import netns
from marks import long
from netns import ip, open_socket, sh, sysctl, wait_until
from segment import VIP4, raised
from tunnel_e2e import PATH_MTU, add_backend, add_router, decap_metric, start_decap

HOSTS = ("web1", "web2", "web3")
BLOCK = 8192
ANSWER = 4 + 1 + 64  # a host's name and a digest


def document(forwarder, weights, flows, mode):
    listed = "\n".join(f"      - {{name: {host}, weight: {weight}, addresses: [10.67.{i}.2], mtu: {PATH_MTU.get(host, 1500)}}}" for i, (host, weight) in enumerate(zip(HOSTS, weights), 1))
    return f"""
nodes:
  - name: l4
    l4: {{ports: [{{device: eth0, addresses: [10.66.0.{forwarder + 1}/24], gateways: [10.66.0.1]}}], flows: {flows}}}
vips: [{{name: vip, addresses: [{VIP4}]}}]
services: [{{name: blocks, vip: vip, port: 80, protocol: tcp, pool: web, forwarding: {mode}}}]
pools:
  - name: web
    backends:
{listed}
"""


def add_client(site, router):
    """Behind the router, not on the forwarders' segment."""
    namespace = site.namespace("client")
    site.namespaces.append(namespace)
    netns.add_namespaces(namespace)
    ip(None, f"link add to-client netns {router} type veth peer name eth0 netns {namespace}")
    for where, device in ((router, "to-client"), (namespace, "eth0")):
        sh(*netns.in_namespace(where, "ethtool", "-K", device, "tx", "off", "gro", "off"))
    ip(router, "addr add 10.68.0.1/24 dev to-client", "link set to-client up")
    sysctl(router, "net/ipv4/conf/to-client/rp_filter=0")
    ip(namespace, "addr add 10.68.0.2/24 dev eth0", "link set eth0 up", "route add default via 10.68.0.1")


def spread(router, forwarders, seed):
    """The router sends each connection to one of the forwarders. Another seed spreads anew."""
    rule = f"iifname to-client ip daddr {VIP4} meta mark set jhash ip saddr . tcp sport mod {forwarders} seed {seed} offset 1"
    lines = ["table ip ecmp", "delete table ip ecmp", "table ip ecmp {", "chain c {", "type filter hook prerouting priority -150;", rule, "}", "}"]
    sh(*netns.in_namespace(router, "nft", "-f", "-"), input="\n".join(lines) + "\n")


class BlockServer:
    """Answers each block with the host's name and the digest of all blocks of the connection so far. One loop serves
    all connections. If there are thousands, it has a process of its own, because one process has too few descriptors."""

    def __init__(self, site, host, in_process):
        self.host, self.selector = host, selectors.DefaultSelector()
        self.listener = open_socket(site.namespace(host), socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((VIP4, 80))
        self.listener.listen(1024)
        self.stopper, self.stopped = socket.socketpair()
        for each in (self.listener, self.stopped):
            self.selector.register(each, selectors.EVENT_READ)
        kind = multiprocessing.get_context("fork").Process if in_process else threading.Thread
        self.runner = kind(target=self.run, daemon=True)
        self.runner.start()

    def run(self):
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is self.stopped:
                    return
                if key.fileobj is self.listener:
                    self.selector.register(self.listener.accept()[0], selectors.EVENT_READ, [hashlib.sha256(), 0])
                else:
                    self.read(key.fileobj, key.data)

    def read(self, connection, state):
        data = b""
        with contextlib.suppress(OSError):
            data = connection.recv(BLOCK - state[1])
        if not data:
            self.selector.unregister(connection)
            connection.close()
            return
        state[0].update(data)
        state[1] = (state[1] + len(data)) % BLOCK
        if state[1] == 0:
            with contextlib.suppress(OSError):
                connection.sendall(f"{self.host} {state[0].hexdigest()}".encode())

    def stop(self):
        self.stopper.send(b"x")
        self.runner.join()
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.stopper.close()


class Transfer:
    """One connection that sends blocks. All that it sent must have arrived at one host."""

    def __init__(self, site):
        self.socket = open_socket(site.namespace("client"), socket.AF_INET, socket.SOCK_STREAM)
        self.socket.settimeout(60)
        self.socket.connect((VIP4, 80))
        self.digest, self.host = hashlib.sha256(), None

    def send_block(self):
        block = os.urandom(BLOCK)
        self.digest.update(block)
        self.socket.sendall(block)

    def check(self):
        answer = b""
        while len(answer) < ANSWER and (piece := self.socket.recv(ANSWER - len(answer))):
            answer += piece
        host, digest = answer.decode().split()
        assert digest == self.digest.hexdigest() and self.host in (None, host), f"{host} after {self.host}"
        self.host = host


def send_blocks(transfers, at_a_time=500):
    for begin in range(0, len(transfers), at_a_time):
        some = transfers[begin : begin + at_a_time]
        for transfer in some:
            transfer.send_block()
        for transfer in some:
            transfer.check()


def start(site, number, weights, flows, mode):
    forwarder = site.start_forwarder(document(number, weights, flows, mode), host=f"l4{number}", name=f"l4-{number}")
    forwarder.number, forwarder.flows, forwarder.mode = number, flows, mode
    return forwarder


def wait_started(site, forwarder):
    site.wait_ready(forwarder)
    wait_until("the router is resolved", lambda: site.metric(forwarder, "tidegate_l4_neighbours_resolved") == 1, 30, forwarder)


def change_weights(site, forwarder, weights):
    digest = lambda: site.ask(forwarder, "/status").json()["digest"]
    before = digest()
    (forwarder.run_dir / "edge.yaml").write_text(document(forwarder.number, weights, forwarder.flows, forwarder.mode))
    forwarder.popen.send_signal(signal.SIGHUP)
    wait_until("the new weights are in force", lambda: digest() != before, 20, forwarder)


def check_second_chance(name, forwarders, backends, transfers, mode="gue", peers=("--peer", "10.67.0.0/16")):
    with raised(name) as site, contextlib.ExitStack() as stack:
        hosts = HOSTS[:backends]
        even, uneven = (1,) * backends, (1,) * (backends - 1) + (8,)
        flows = max(4096, 4 * transfers)
        router = add_router(site)
        add_client(site, router)
        running = {}
        for number in range(1, forwarders + 1):
            site.add_host(f"l4{number}")
            running[number] = start(site, number, even, flows, mode)
            ip(router, f"route add {VIP4}/32 via 10.66.0.{number + 1} table {number}", f"rule add fwmark {number} lookup {number}")
        for number in range(1, backends + 1):
            add_backend(site, router, number)
        decaps = [start_decap(site, host, "--from", "10.66.0.0/24", *peers) for host in hosts]
        spread(router, forwarders, 1)
        for forwarder in running.values():
            wait_started(site, forwarder)
        for host in hosts:
            stack.callback(BlockServer(site, host, in_process=transfers > 1000).stop)
        under_way = [Transfer(site) for _ in range(transfers)]
        for transfer in under_way:
            stack.callback(transfer.socket.close)
        send_blocks(under_way)
        assert {transfer.host for transfer in under_way} == set(hosts)
        # All but one lose their flows.
        for number in list(running)[1:]:
            running[number].kill()
            running[number] = start(site, number, even, flows, mode)
        for number in list(running)[1:]:
            wait_started(site, running[number])
        for forwarder in running.values():
            change_weights(site, forwarder, uneven)
        send_blocks(under_way)
        spread(router, forwarders, 2)
        send_blocks(under_way)
        handed_on = sum(decap_metric(decap, "tidegate_decap_handed_on_packets_total") for decap in decaps)
        named = sum(site.metric(forwarder, "tidegate_l4_second_chance_packets_total") for forwarder in running.values())
        assert 0 < handed_on <= named, f"{handed_on} handed on, {named} named a second backend"


def test_every_transfer_ends_though_flow_tables_weights_and_ecmp_change(_):
    check_second_chance("sc", forwarders=2, backends=2, transfers=30)


@long
def test_five_hundred_transfers_end_though_two_of_three_flow_tables_are_lost(_):
    check_second_chance("sd", forwarders=3, backends=3, transfers=500)


@long
def test_every_transfer_through_ipip_ends_though_flow_tables_weights_and_ecmp_change(_):
    check_second_chance("si", forwarders=2, backends=3, transfers=60, mode="ipip")


@long
def test_ten_thousand_transfers_end_though_two_of_three_flow_tables_are_lost(_):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        check_second_chance("sg", forwarders=3, backends=3, transfers=10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
