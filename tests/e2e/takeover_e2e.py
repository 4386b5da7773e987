# SPDX-License-Identifier: Apache-2.0
"""Two forwarders on one link share a VIP: one holds it and answers ARP and neighbour discovery, the other one stands by.
The lab's router is their neighbour, and a client behind it downloads and opens new connections. A third host leads, and
in the short test the second one."""

import contextlib
import signal
import socket
import threading
import time

import box
from lab import binary, unix_request
from marks import long
from netns import ip, open_socket, sh, sysctl, wait_until
from topology import HOSTS, ROUTER

VIP4, VIP6, PORT = "10.10.0.150", "fd10::150", 7080
FORWARDERS = {"fwd1": 64, "fwd2": 65}
CHUNK, CHUNKS = 1000, 400


def document(leader, protocol):
    nodes = "" if leader in FORWARDERS else f"  - {{name: {leader}, site: eu, management: '10.99.0.30:9090'}}\n"
    for n, (name, number) in enumerate(FORWARDERS.items(), 31):
        port = f'{{device: eth0, addresses: [10.10.0.{number}/24, "fd10::{number}/64"]}}'
        nodes += f"  - {{name: {name}, site: eu, management: '10.99.0.{n}:9090', l4: {{ports: [{port}], flows: 4096, share_flows: '10.99.0.{n}:7400'}}}}\n"
    return (
        f'sites: [{{name: eu}}]\nnodes:\n{nodes}vips: [{{name: shared, site: eu, addresses: [{VIP4}, "{VIP6}"]}}]\n'
        f"services: [{{name: download, vip: shared, protocol: {protocol}, port: {PORT}, pool: origins}}]\npools:\n  - name: origins\n    backends:\n"
        '      - {name: one, addresses: [10.10.0.21, "fd10::21"]}\n      - {name: two, addresses: [10.10.0.22, "fd10::22"]}\n'
    )


class Member:
    """A host with a control, which follows that of the host `leader` unless it is that one, and maybe a forwarder."""

    def __init__(self, machine, leader, protocol="tcp"):
        self.machine, self.leader = machine, leader
        self.address = f"10.99.0.{machine.host.management}:9090"
        machine.write("secret", "the same on all three")
        machine.write("tokens", "replica a-replica-token-of-the-lab\n")
        machine.write("token", "a-replica-token-of-the-lab\n")
        machine.write("edge.yaml", document(leader.host.name, protocol))
        self.start_control()

    def start_control(self):
        machine = self.machine
        leads = machine is self.leader
        how = ("--config", machine.home / "edge.yaml", "--peer-token-file") if leads else ("--follow", f"10.99.0.{self.leader.host.management}:9090", "--follow-token-file")
        self.control = machine.start(
            "control", binary("control"), "--state", machine.state_dir, "--run", machine.run_dir, "--node", machine.host.name, "--listen", self.address,
            "--tokens", machine.home / "tokens", "--insecure", "--secret", machine.home / "secret", *how, machine.home / "token",
        )  # fmt: skip

    def start_forwarder(self):
        machine = self.machine
        self.l4 = machine.start("l4", binary("l4"), "--state", machine.state_dir, "--run", machine.run_dir, "--node", machine.host.name, "--secret", machine.home / "secret")

    def api(self, method, target, body=None):
        return unix_request(self.machine.run_dir / "control.sock", method, target, body, {"Content-Type": "application/json"})

    def roles(self):
        """How many addresses it holds, and for how many it stands by."""
        told = self.shared_vips()
        return told["held"], told["standby"]

    def shared_vips(self):
        return self.machine.ask("l4", "/status").json()["shared_vips"]

    def control_has(self, text):
        return text in self.api("GET", "/metrics").body.decode()


def content(n):
    return (f"{n:08d}" * CHUNK)[:CHUNK].encode()


def serve(connection, host):
    with contextlib.suppress(OSError), connection:
        if connection.recv(1) == b"w":
            return connection.sendall(host.encode())
        for n in range(CHUNKS):
            connection.sendall(content(n))
            time.sleep(0.005)  # the pace of the download, so that it lasts longer than the take-over
    return None


def accept_all(server, host):
    with contextlib.suppress(OSError):
        while True:
            threading.Thread(target=serve, args=(server.accept()[0], host), daemon=True).start()


@contextlib.contextmanager
def origins():
    """Both VIP addresses on both origins, with servers."""
    with contextlib.ExitStack() as stack:
        for origin in ("origin1", "origin2"):
            namespace = HOSTS[origin].namespace
            sysctl(namespace, "net/ipv4/conf/all/arp_ignore=1", "net/ipv4/conf/all/arp_announce=2")
            ip(namespace, f"addr add {VIP4}/32 dev lo", f"addr add {VIP6}/128 dev lo nodad")
            stack.callback(ip, namespace, f"addr del {VIP4}/32 dev lo", f"addr del {VIP6}/128 dev lo")
            for family, vip in ((socket.AF_INET, VIP4), (socket.AF_INET6, VIP6)):
                server = stack.enter_context(open_socket(namespace, family, socket.SOCK_STREAM))
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                server.bind((vip, PORT))
                server.listen(128)
                stack.callback(server.shutdown, socket.SHUT_RDWR)
                threading.Thread(target=accept_all, args=(server, origin), daemon=True).start()
        yield


def connect(vip, timeout):
    client = open_socket(HOSTS["client-eu"].namespace, socket.AF_INET6 if ":" in vip else socket.AF_INET, socket.SOCK_STREAM)
    client.settimeout(timeout)
    try:
        client.connect((vip, PORT))
    except OSError:
        client.close()
        raise
    return client


def answers(vip):
    with contextlib.suppress(OSError), connect(vip, 0.3) as client:
        client.sendall(b"w")
        return client.recv(20) in (b"origin1", b"origin2")
    return False


class Download(threading.Thread):
    """A download whose bytes are compared."""

    def __init__(self, vip):
        super().__init__(daemon=True)
        self.client, self.right, self.bytes = connect(vip, 30), False, 0
        self.client.sendall(b"d")
        self.start()

    def run(self):
        found = b""
        with contextlib.suppress(OSError), self.client:
            while len(found) < CHUNK * CHUNKS and (data := self.client.recv(65536)):
                found += data
                self.bytes = len(found)
        self.right = found == b"".join(content(n) for n in range(CHUNKS))

    def finish(self):
        self.join(40)
        assert self.right, f"{self.bytes} bytes came, or not the right ones"


def station(vip):
    """The MAC address that the router has for the VIP."""
    told = sh("ip", "-n", ROUTER, "neigh", "show", vip)
    return told.split("lladdr ")[1].split()[0] if "lladdr " in told else ""


@contextlib.contextmanager
def three_hosts(protocol="tcp"):
    with contextlib.ExitStack() as stack:
        keep = stack.enter_context(box.raised("keep", 66, management=30))
        machines = [stack.enter_context(box.raised(name, number, management=n, kernel_address=False)) for n, (name, number) in enumerate(FORWARDERS.items(), 31)]
        stack.enter_context(origins())
        sysctl(keep.host.namespace, "net/ipv4/ping_group_range=0 2147483647")
        leader = Member(keep, keep, protocol)
        first, second = (Member(machine, keep, protocol) for machine in machines)
        forward(first, second, protocol)
        yield leader, first, second


@contextlib.contextmanager
def two_hosts():
    """The second one leads."""
    with contextlib.ExitStack() as stack:
        machines = [stack.enter_context(box.raised(name, number, management=n, kernel_address=False)) for n, (name, number) in enumerate(FORWARDERS.items(), 31)]
        stack.enter_context(origins())
        second, first = (Member(machine, machines[1]) for machine in reversed(machines))
        forward(first, second)
        yield first, second


def forward(first, second, protocol="tcp"):
    """Starts both forwarders, and waits until clients are served by the first one."""
    for member in (first, second):
        wait_until("it has the version", lambda m=member: m.api("GET", "/v1/node/status").json()["head"]["version"] == 1, 30, member.control)
        member.start_forwarder()
    wait_until("the first one holds both addresses", lambda: first.roles() == (2, 0), 30, first.l4)
    wait_until("the second one stands by", lambda: second.roles() == (0, 2), 30, second.l4)
    for vip in (VIP4, VIP6) if protocol == "tcp" else ():
        wait_until("clients are served", lambda v=vip: answers(v), 30, first.l4)


def time_until_served(act, holder):
    """Seconds from the act until that host holds the addresses and new connections of both families are answered."""
    began = time.monotonic()
    act()
    wait_until("the other one holds both addresses", lambda: holder.roles() == (2, 0), 20, holder.l4)
    decided = time.monotonic() - began
    for vip in (VIP4, VIP6):
        wait_until(f"new connections to {vip} are answered", lambda v=vip: answers(v), 20, holder.l4)
    return round(decided, 3), round(time.monotonic() - began, 3)


def test_new_connections_are_answered_by_the_second_forwarder_when_the_first_is_killed(_):
    with two_hosts() as (first, second):
        before = station(VIP4)
        print("      killed: decided, served after (s):", time_until_served(first.l4.kill, second))
        assert station(VIP4) not in ("", before), "the router has heard the announcement"


@long
def test_the_second_forwarder_takes_the_vip_over_from_one_that_is_killed(_):
    with three_hosts() as (_, first, second):
        before = station(VIP4)
        downloads = [Download(VIP4), Download(VIP6)]
        print("      killed: decided, served after (s):", time_until_served(first.l4.kill, second))
        assert station(VIP4) not in ("", before), "the router has heard the announcement"
        for download in downloads:
            download.finish()


@long
def test_the_vip_moves_when_a_link_is_cut_or_an_operator_drains_and_comes_back(_):
    with three_hosts() as (leader, first, second):
        times = {}
        downloads = [Download(VIP4), Download(VIP6)]
        times["killed"] = time_until_served(first.l4.kill, second)
        times["returned"] = time_until_served(first.start_forwarder, first)
        assert second.roles() == (0, 2)
        for download in downloads:
            download.finish()

        downloads = [Download(VIP4), Download(VIP6)]
        namespace = first.machine.host.namespace
        times["link cut"] = time_until_served(lambda: ip(namespace, "link set eth0 down"), second)
        times["link back"] = time_until_served(lambda: ip(namespace, "link set eth0 up"), first)
        for download in downloads:
            download.finish()

        times["hung"] = time_until_served(lambda: first.l4.popen.send_signal(signal.SIGSTOP), second)
        times["goes on"] = time_until_served(lambda: first.l4.popen.send_signal(signal.SIGCONT), first)

        downloads = [Download(VIP4), Download(VIP6)]
        put = lambda: leader.api("PUT", "/v1/admin/plane/fwd1/l4", '{"state": "drained"}')
        times["drained"] = time_until_served(put, second)
        question = "/explain?client=10.1.0.2&vip=shared&port=%d&protocol=tcp&client_port=4000" % PORT
        assert first.machine.ask("l4", question).json()["holder"] == "fwd2"
        assert second.machine.ask("l4", question).json()["decision"] != "none"
        times["undrained"] = time_until_served(lambda: leader.api("DELETE", "/v1/admin/plane/fwd1/l4"), first)
        times["stopped"] = time_until_served(lambda: first.l4.popen.send_signal(signal.SIGTERM), second)
        for download in downloads:
            download.finish()
        print("      decided, served after (s):", times)


@long
def test_a_silent_host_keeps_the_vip_while_clients_are_served_and_loses_it_for_good_when_not(_):
    with three_hosts() as (leader, first, second):
        ip(first.machine.host.namespace, "link set eth1 down")
        wait_until("the holder's host is silent", lambda: leader.control_has("tidegate_control_silent_hosts 1"), 20)
        probes = lambda: sum(float(line.split()[-1]) for line in leader.api("GET", "/metrics").body.decode().splitlines() if line.startswith("tidegate_control_plane_probes_total"))
        asked = probes()
        wait_until("its clients' way is probed", lambda: probes() >= asked + 4, 20)
        assert first.roles() == (2, 0) and second.roles() == (0, 2) and answers(VIP4)
        print("      dead and silent: decided, served after (s):", time_until_served(first.l4.kill, second))
        # The VIP answers again, but from the other host. This says nothing about the dead host.
        heard = lambda: leader.api("GET", "/v1/health").json()["planes"]
        moved = leader.api("GET", "/v1/status").json()["head"]["words"]
        ends = time.monotonic() + 3
        while time.monotonic() < ends:
            assert second.roles() == (2, 0), heard()
            assert answers(VIP4)
        assert leader.api("GET", "/v1/status").json()["head"]["words"] == moved, "nothing was written"


@long
def test_a_holder_that_is_cut_off_leaves_the_vip_to_the_decided_one_and_takes_it_back_when_that_one_dies(_):
    with three_hosts() as (leader, first, second):
        namespace, times = first.machine.host.namespace, {}
        ip(namespace, "link set eth1 down")
        wait_until("its host is silent", lambda: leader.control_has("tidegate_control_silent_hosts 1"), 20)
        downloads = [Download(VIP4), Download(VIP6)]
        put = lambda: leader.api("PUT", "/v1/admin/plane/fwd1/l4", '{"state": "drained"}')
        times["decided"] = time_until_served(put, second)
        began = time.monotonic()
        wait_until("the one that is cut off stands by", lambda: first.shared_vips() == {"held": 0, "standby": 2, "left": 2}, 20, first.l4)
        times["left"] = round(time.monotonic() - began, 3)
        assert station(VIP4) == second.machine.ask("l4", "/status").json()["ports"][0]["mac"]
        question = "/explain?client=10.1.0.2&vip=shared&port=%d&protocol=tcp&client_port=4000" % PORT
        assert first.machine.ask("l4", question).json()["holder"] == "fwd2"
        assert "control hears no leader" in first.machine.ask("l4", "/healthz").body.decode()
        for download in downloads:
            download.finish()

        times["decided one killed"] = time_until_served(second.l4.kill, first)
        assert first.shared_vips()["left"] == 0
        second.start_forwarder()
        wait_until("it is left to the decided one again", lambda: first.roles() == (0, 2) and second.roles() == (2, 0), 20, first.l4)
        assert answers(VIP4) and answers(VIP6)

        ip(namespace, "link set eth1 up")
        wait_until("the state decides again", lambda: first.shared_vips() == {"held": 0, "standby": 2, "left": 0}, 20, first.l4)
        assert second.roles() == (2, 0)
        times["undrained"] = time_until_served(lambda: leader.api("DELETE", "/v1/admin/plane/fwd1/l4"), first)
        print("      decided, served after (s):", times)


@long
def test_a_silent_holder_of_udp_services_alone_is_asked_by_icmp_echo(_):
    with three_hosts("udp") as (leader, first, second):
        ip(first.machine.host.namespace, "link set eth1 down")
        answered = 'tidegate_control_plane_probes_total{result="success"}'
        answers_of = lambda: sum(float(line.split()[-1]) for line in leader.api("GET", "/metrics").body.decode().splitlines() if line.startswith(answered))
        wait_until("it answers", lambda: answers_of() >= 4, 20)
        assert first.roles() == (2, 0) and second.roles() == (0, 2)
        first.l4.kill()
        wait_until("the other one holds both addresses", lambda: second.roles() == (2, 0), 20, second.l4)
        planes = leader.api("GET", "/v1/health").json()["planes"]
        why = next(each for each in planes if (each["node"], each["plane"]) == ("fwd1", "l4"))["why"]
        assert f"ICMP echo to {VIP4}" in why, why
