# SPDX-License-Identifier: Apache-2.0
"""A forwarder that was killed or stopped, and the one that is started after it: established connections stay with their
backends, whatever the hash table of the new one says."""

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from lab import BUILD
from marks import long
from netns import in_namespace, open_socket, wait_until
from segment import VIP4, VIP6, family_of, raised, tcp_servers
from topology import PREFIX
from upgrading import DIES, is_gone

CONNECTIONS = 12  # for each family


def document(weights, more=""):
    listed = "\n".join(f'      - {{name: web{i}, weight: {weight}, addresses: [10.66.0.1{i}, "fd66::1{i}"]}}' for i, weight in enumerate(weights, 1))
    return f"""
nodes:
  - name: l4
    l4: {{ports: [{{device: eth0, addresses: [10.66.0.2/24, "fd66::2/64"]}}], flows: 4096{more}}}
vips: [{{name: vip, addresses: [{VIP4}, "{VIP6}"]}}]
services: [{{name: http, vip: vip, port: 80, protocol: tcp, pool: web}}]
pools:
  - name: web
    backends:
{listed}
"""


@contextlib.contextmanager
def run_on_tmpfs(name):
    """A run directory as /run is. It outlives the forwarder, and not the test."""
    run = Path(f"/dev/shm/{PREFIX}{name}")
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    try:
        yield run
    finally:
        shutil.rmtree(run, ignore_errors=True)


def answer_each(connection, host):
    with contextlib.suppress(OSError), connection:
        while connection.recv(100):
            connection.sendall(host.encode())


def connect(link, vip):
    client = open_socket(link.namespace("client"), family_of(vip), socket.SOCK_STREAM)
    client.settimeout(20)
    client.connect((vip, 80))
    return client


def who(client):
    client.sendall(b"who")
    return client.recv(100).decode()


@contextlib.contextmanager
def edge(name):
    """A client and two backends with TCP servers. The forwarder is the caller's."""
    with raised(name) as link:
        link.add_host("client", 7)
        link.add_host("l4")
        for number, host in enumerate(("web1", "web2"), 11):
            link.add_backend(host, number, VIP4, VIP6)
        with tcp_servers(link, ("web1", "web2"), answer_each, (VIP4, VIP6)):
            yield link


def test_connections_keep_their_backends_when_their_forwarder_is_killed_or_stopped(_):
    with edge("warm") as link, run_on_tmpfs("warm") as run, contextlib.ExitStack() as stack:
        forwarder = link.start_forwarder(document((1, 1)), run=run)
        link.wait_ready(forwarder)
        wait_until("backends are known", lambda: link.metric(forwarder, "tidegate_l4_neighbours_resolved") == 4, 20, forwarder)
        clients = [stack.enter_context(connect(link, vip)) for vip in (VIP4, VIP6) for _ in range(CONNECTIONS)]
        hosts = [who(client) for client in clients]
        assert set(hosts) == {"web1", "web2"}, hosts
        # Each successor has other weights, so its hash table would choose other backends.
        for end, weights in ((forwarder.kill, (1, 1000)), (lambda: forwarder.stop(), (1000, 1))):
            end()
            forwarder = link.start_forwarder(document(weights), run=run)
            link.wait_ready(forwarder)
            assert [who(client) for client in clients] == hosts, forwarder.tail()
            assert link.metric(forwarder, "tidegate_l4_flows_inherited_total") == len(clients)
            assert link.metric(forwarder, "tidegate_l4_flows_not_inherited_total") == 0
            assert link.metric(forwarder, "tidegate_l4_flows_created_total") == 0, "no flow was picked anew"
            memory = link.ask(forwarder, "/status").json()["flow_memory"]
            assert memory["kept"] and memory["inherited"] == len(clients) and memory["why"] == "", memory
        with connect(link, VIP4) as fresh:
            assert who(fresh) == "web1", "new connections go by the new weights"


def upgrade(link, forwarder, *arguments):
    command = in_namespace(link.namespace("l4"), BUILD / "control/tidegate", "upgrade", "l4", "--run", forwarder.run_dir, *arguments)
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)


def end(pid):
    os.kill(pid, signal.SIGTERM)
    wait_until("the last process is gone", lambda: is_gone(pid), 20)


class Questions:
    """Datagrams through the forwarder, one a millisecond, and when their answers came."""

    def __init__(self, flow):
        self.flow, self.came, self.stopped = flow, [], threading.Event()
        flow.settimeout(0.2)
        self.threads = [threading.Thread(target=each, daemon=True) for each in (self.ask, self.hear)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        self.wait_for_more()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for thread in self.threads:
            thread.join(10)

    def ask(self):
        while not self.stopped.wait(0.001):
            with contextlib.suppress(OSError):
                self.flow.send(b"who")

    def hear(self):
        while not self.stopped.is_set():
            with contextlib.suppress(OSError):
                self.flow.recv(100)
                self.came.append(time.monotonic())

    def wait_for_more(self):
        seen = len(self.came)
        wait_until("answers come", lambda: len(self.came) > seen + 20, 30)

    def longest_gap(self):
        return max(later - earlier for earlier, later in itertools.pairwise(self.came))


def test_an_upgrade_interrupts_for_less_time_than_a_start_takes(_):
    """The new process makes everything ready before the old one closes its ports."""
    echoing = lambda weights: document(weights).replace("services: [", "services: [{name: u, vip: vip, port: 7000, protocol: udp, pool: web}, ")
    with edge("upgrade") as link, run_on_tmpfs("upgrade") as run, contextlib.ExitStack() as stack:
        forwarder = link.start_forwarder(echoing((1, 1)), run=run)
        link.wait_ready(forwarder)
        stack.callback(lambda: end(link.ask(forwarder, "/status").json()["pid"]))
        wait_until("backends are known", lambda: link.metric(forwarder, "tidegate_l4_neighbours_resolved") == 4, 20, forwarder)
        clients = [stack.enter_context(connect(link, vip)) for vip in (VIP4, VIP6) for _ in range(CONNECTIONS)]
        hosts = [who(client) for client in clients]
        stack.enter_context(link.echoes("web1", "web2"))
        gaps = []
        for weights in ((1, 1000), (1000, 1)):
            with link.flow() as flow, Questions(flow) as questions:
                (run / "edge.yaml").write_text(echoing(weights))
                done = upgrade(link, forwarder)
                assert done.returncode == 0 and "the old process has let go" in done.stdout, (done, forwarder.tail())
                questions.wait_for_more()
                gaps.append(questions.longest_gap())
            assert [who(client) for client in clients] == hosts, forwarder.tail()
            assert link.metric(forwarder, "tidegate_l4_flows_not_inherited_total") == 0
        status = link.ask(forwarder, "/status").json()
        assert status["generation"] == 3 and status["flow_memory"]["inherited"] >= len(clients), status
        started = [int(ms) for ms in re.findall(r"ready: .* (\d+) ms after the start", (run / "log").read_text())]
        assert min(gaps) * 1000 < max(started) / 2, (gaps, started)


def test_a_new_process_that_dies_when_the_ports_are_closed_leaves_the_old_one_forwarding(_):
    with edge("dies") as link, run_on_tmpfs("dies") as run, contextlib.ExitStack() as stack:
        forwarder = link.start_forwarder(document((1, 1)), run=run)
        link.wait_ready(forwarder)
        wait_until("backends are known", lambda: link.metric(forwarder, "tidegate_l4_neighbours_resolved") == 4, 20, forwarder)
        clients = [stack.enter_context(connect(link, vip)) for vip in (VIP4, VIP6) for _ in range(CONNECTIONS)]
        hosts = [who(client) for client in clients]
        program = run / "dies"
        program.write_text(DIES.format(plane="l4"))
        program.chmod(0o755)
        for _ in range(2):
            done = upgrade(link, forwarder, "--program", program)
            assert done.returncode == 1 and "has let go" in done.stdout and "exit status 7" in done.stderr, (done, forwarder.tail())
            assert [who(client) for client in clients] == hosts, forwarder.tail()
            assert link.metric(forwarder, "tidegate_l4_flows_inherited_total") == len(clients)
        assert link.ask(forwarder, "/healthz").body == b"ok\n"
        with connect(link, VIP6) as fresh:
            assert who(fresh) in ("web1", "web2")


def shown(link, forwarder, *arguments):
    told = link.run("l4", BUILD / "control/tidegate", "--output", "json", "l4", *arguments, "--run", forwarder.run_dir)
    return json.loads(told)


def test_the_command_l4_shows_services_neighbours_and_flows_of_the_running_forwarder(_):
    with edge("shown") as link, contextlib.ExitStack() as stack:
        forwarder = link.start_forwarder(document((3, 1)))
        link.wait_ready(forwarder)
        resolved = lambda: [each for each in shown(link, forwarder, "neighbours")["neighbours"] if each["mac"]]
        wait_until("backends are known", lambda: len(resolved()) == 4, 20, forwarder)
        assert {each["address"] for each in resolved()} == {"10.66.0.11", "10.66.0.12", "fd66::11", "fd66::12"}
        services = shown(link, forwarder, "services")["services"]
        assert [(each["service"], each["family"], each["pool"]) for each in services] == [("http", 4, "web"), ("http", 6, "web")]
        for service in services:
            slots = {each["backend"]: each["slots"] for each in service["backends"]}
            assert sum(slots.values()) == service["slots"] and abs(slots["web/web1"] - 3 * slots["web/web2"]) < 5, slots
        clients = [stack.enter_context(connect(link, VIP4)) for _ in range(9)]
        hosts = [who(client) for client in clients]
        flows, arguments = [], []
        while True:
            page = shown(link, forwarder, "flows", "--limit", "4", *arguments)
            flows += page["flows"]
            if page["next"] is None:
                break
            arguments = ["--from", page["next"]]
        assert sorted(flow["backend"] for flow in flows) == sorted(f"web/{host}" for host in hosts)
        assert all(flow["state"] == "established" and flow["begun_here"] for flow in flows), flows
        of_web1 = shown(link, forwarder, "flows", "--backend", "web/web1")["flows"]
        assert len(of_web1) == hosts.count("web1")
        people = link.run("l4", BUILD / "control/tidegate", "l4", "services", "--run", forwarder.run_dir)
        assert "web1 75.0 %, web2 25.0 %" in people, people
        for query, word in (("limit=0", "limit"), ("what=1", "what"), ("backend=web", "POOL/NAME"), ("backend=web/web9", "web/web9")):
            answer = link.ask(forwarder, f"/flows?{query}")
            assert answer.status == 400 and word in answer.body.decode(), answer.body


def test_a_forwarder_of_interfaces_loads_no_driver_of_hardware(_):
    """Each driver costs time in which no packet is forwarded."""
    with raised("drivers") as link:
        link.add_host("l4")
        forwarder = link.start_forwarder(document((1, 1)))
        link.wait_ready(forwarder)
        loaded = set(re.findall(r"/pmds-[^/]*/librte_(\w+)\.so", Path(f"/proc/{forwarder.pid}/maps").read_text()))
        ours = {"bus_vdev", "net_af_xdp", "net_af_packet", "net_pcap", "mempool_ring", "net_bond"}
        assert {"bus_vdev", "net_af_xdp", "mempool_ring"} <= loaded <= ours | {"bus_pci"}, loaded  # one of ours is linked with the last


@long
def test_what_does_not_fit_is_named_and_forwarding_goes_on_with_empty_tables(_):
    with edge("unfit") as link, run_on_tmpfs("unfit") as run:
        for flows, why in ((4096, "there are none"), (8192, "flows was 4096, and is 8192"), (8192, "")):
            forwarder = link.start_forwarder(document((1, 1)).replace("flows: 4096", f"flows: {flows}"), run=run)
            link.wait_ready(forwarder)
            wait_until("backends are known", lambda: link.metric(forwarder, "tidegate_l4_neighbours_resolved") == 4, 20, forwarder)
            memory = link.ask(forwarder, "/status").json()["flow_memory"]
            assert memory["kept"] and memory["inherited"] == (1 if why == "" else 0) and memory["why"] == why, memory
            with connect(link, VIP6) as client:
                assert who(client) in ("web1", "web2")
                forwarder.kill()
