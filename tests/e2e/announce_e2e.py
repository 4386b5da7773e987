# SPDX-License-Identifier: Apache-2.0
"""Two forwarders of a site share a VIP by equal-cost routes: the control of each has BIRD announce it over BGP, and the
lab's router runs BIRD too. What is measured is printed with TIDEGATE_TIMED."""

import contextlib
import re
import signal
import socket
import threading
import time

import box
from lab import binary, unix_request
from marks import TIMED, long
from netns import Process, ip, open_socket, sh, sysctl, wait_until
from segment import serve
from topology import HOSTS, ROUTER

VIP, PORT = "10.77.0.1", 7000
ROUTER_ADDRESS = "10.99.0.254"
NUMBERS = (64, 65)
SESSION = "multihop; hold time 3; connect delay time 1; error wait time 1, 2;"
ROUTER_CONF = f"""router id {ROUTER_ADDRESS};
protocol device {{ scan time 1; }}
protocol direct {{ ipv4; }}
protocol kernel {{ ipv4 {{ export where source = RTS_BGP; }}; merge paths on; }}
template bgp forwarder {{ local {ROUTER_ADDRESS} as 65000; {SESSION} ipv4 {{ import all; export none; }}; }}
protocol bgp fwd1 from forwarder {{ neighbor 10.99.0.31 as 65001; }}
protocol bgp fwd2 from forwarder {{ neighbor 10.99.0.32 as 65001; }}
"""
FORWARDER_CONF = """router id {address};
include "{file}*";
protocol device {{}}
protocol bgp tor {{ local {address} as 65001; neighbor {router} as 65000; {session}
  ipv4 {{ import none; export where proto ~ "tidegate_*"; next hop keep; }}; }}
"""


def document():
    nodes = "".join(
        f'  - {{name: fwd{n}, site: eu, l4: {{ports: [{{device: eth0, addresses: [10.10.0.{number}/24], gateways: [10.10.0.1]}}], flows: 65536}}}}\n'
        for n, number in enumerate(NUMBERS, 1)
    )
    return (
        f"sites: [{{name: eu}}]\nnodes:\n{nodes}vips: [{{name: any, site: eu, addresses: [{VIP}]}}]\n"
        f"services: [{{name: echo, vip: any, protocol: udp, port: {PORT}, pool: echo}}]\n"
        "pools: [{name: echo, backends: [{name: one, addresses: [10.10.0.21]}, {name: two, addresses: [10.10.0.22]}]}]\n"
    )


class Forwarder:
    def __init__(self, machine, number):
        self.machine, self.address = machine, f"10.99.0.{machine.host.management}"
        self.hop = f"10.10.0.{number}"
        self.config = machine.write("edge.yaml", document())
        self.secret = machine.write("secret", "the same on both, so that both choose the same backend")
        self.file, self.socket = machine.home / "vips.conf", machine.home / "bird.ctl"
        self.start_control()
        self.start_forwarder()
        machine.write("bird.conf", FORWARDER_CONF.format(address=self.address, file=self.file, router=ROUTER_ADDRESS, session=SESSION))
        self.bird = machine.start("bird", "bird", "-f", "-c", machine.home / "bird.conf", "-s", self.socket, "-P", machine.home / "bird.pid")

    def start_forwarder(self):
        machine = self.machine
        self.l4 = machine.start("l4", binary("l4"), "--state", machine.state_dir, "--run", machine.run_dir, "--node", machine.host.name, "--secret", self.secret)

    def start_control(self):
        machine = self.machine
        self.control = machine.start(
            "control", binary("control"), "--state", machine.state_dir, "--run", machine.run_dir, "--node", machine.host.name, "--config", self.config,
            "--announce", "bird", "--bird-socket", self.socket, "--announce-file", self.file,
        )  # fmt: skip

    def api(self, method, target, body=None):
        return unix_request(self.machine.run_dir / "control.sock", method, target, body, {"Content-Type": "application/json"})

    def announced(self):
        return self.api("GET", "/v1/node/status").json()["announce"]["addresses"]

    def slowest_ms(self):
        """The longest time from a decision to BIRD's answer, as control's log says, without the first configuration."""
        log = (self.machine.home / "control.log").read_text()
        return max((int(ms) for ms in re.findall(r"bird: (?:en|dis)able \S+, (\d+) ms after the decision", log)), default=None)


def hops():
    """The next hops of the VIP's route on the router."""
    return sorted(re.findall(r"via (10\.10\.0\.\d+)", sh("ip", "-n", ROUTER, "route", "show", VIP)))


def time_until(what, condition, act):
    """Seconds from the act to the condition."""
    began = time.monotonic()
    act()
    wait_until(what, condition, 60)
    return time.monotonic() - began


@contextlib.contextmanager
def echoes():
    """The VIP on both origins, with a server that answers with the origin's name."""
    servers, threads = [], []
    try:
        for origin in ("origin1", "origin2"):
            namespace = HOSTS[origin].namespace
            sysctl(namespace, "net/ipv4/conf/all/arp_ignore=1", "net/ipv4/conf/all/arp_announce=2")
            ip(namespace, f"addr add {VIP}/32 dev lo")
            server = open_socket(namespace, socket.AF_INET, socket.SOCK_DGRAM)
            server.bind((VIP, PORT))
            servers.append((namespace, server))
            threads.append(threading.Thread(target=serve, args=(server, origin), daemon=True))
            threads[-1].start()
        yield
    finally:
        for namespace, server in servers:
            with open_socket(namespace, socket.AF_INET, socket.SOCK_DGRAM) as stopper:
                stopper.sendto(b"quit", (VIP, PORT))
        for thread in threads:
            thread.join(10)
        for namespace, server in servers:
            server.close()
            ip(namespace, f"addr del {VIP}/32 dev lo")


def answers(flows=32):
    """How many of so many new flows are answered within a second each."""
    opened = [open_socket(HOSTS["client-eu"].namespace, socket.AF_INET, socket.SOCK_DGRAM) for _ in range(flows)]
    answered = 0
    for flow in opened:
        flow.settimeout(1)
        flow.connect((VIP, PORT))
        flow.send(b"who")
    for flow in opened:
        with contextlib.suppress(OSError):
            answered += flow.recv(100) in (b"origin1", b"origin2")
        flow.close()
    return answered


@contextlib.contextmanager
def two_forwarders(lab):
    with contextlib.ExitStack() as stack:
        machines = [
            stack.enter_context(box.raised(f"fwd{n}", number, management=30 + n, kernel_address=False)) for n, number in enumerate(NUMBERS, 1)
        ]
        ip(ROUTER, f"addr add {ROUTER_ADDRESS}/24 dev br-mgmt")
        stack.callback(ip, ROUTER, f"addr del {ROUTER_ADDRESS}/24 dev br-mgmt")
        sysctl(ROUTER, "net/ipv4/fib_multipath_hash_policy=1")
        stack.callback(sysctl, ROUTER, "net/ipv4/fib_multipath_hash_policy=0")
        home = machines[0].home
        (home / "router.conf").write_text(ROUTER_CONF)
        command = ["bird", "-f", "-c", home / "router.conf", "-s", home / "router.ctl", "-P", home / "router.pid"]
        router = Process(ROUTER, "router/bird", command, home / "router.log").start()
        stack.callback(router.stop)
        stack.enter_context(echoes())
        yield [Forwarder(machine, number) for machine, number in zip(machines, NUMBERS)]


@long
def test_two_forwarders_share_a_vip_and_one_that_fails_is_left_at_once(lab):
    with two_forwarders(lab) as (one, two):
        both = sorted((one.hop, two.hop))
        wait_until("the router has both next hops", lambda: hops() == both, 60)
        wait_until("all flows are answered", lambda: answers() == 32, 60)

        put = lambda state: (lambda: one.api("PUT", "/v1/admin/vip/any", f'{{"state": "{state}"}}'))
        drained_s = time_until("the drained one is left", lambda: hops() == [two.hop], put("drained"))
        assert one.announced()[0]["why"].startswith("the vip is drained"), one.announced()
        assert answers() == 32, "the other one takes all"
        undrained_s = time_until("it is back", lambda: hops() == both, lambda: one.api("DELETE", "/v1/admin/vip/any"))
        assert answers() == 32

        killed_s = time_until("the killed one is left", lambda: hops() == [two.hop], one.l4.kill)
        assert answers() == 32, "no flow is lost once the route is gone"
        one.start_forwarder()
        wait_until("it is back", lambda: hops() == both, 60)

        stopped_s = time_until("the one that is told to end is left", lambda: hops() == [two.hop], lambda: one.l4.popen.send_signal(signal.SIGTERM))
        one.l4.popen.wait()
        assert answers() == 32
        one.start_forwarder()
        wait_until("it is back", lambda: hops() == both, 60)

        # Only control ends: routes and flows stay. Its next start changes nothing.
        two.control.kill()
        assert hops() == both and answers() == 32
        two.start_control()
        wait_until("it has judged", lambda: (told := two.announced()) and told[0]["announced"], 30)
        assert hops() == both

        # The whole host is cut off: the session ends after its hold time.
        cut = lambda: ip(two.machine.host.namespace, "link set eth0 down", "link set eth1 down")
        host_s = time_until("the host that is cut off is left", lambda: hops() == [one.hop], cut)
        assert answers() == 32
        figures = {"drained": drained_s, "undrained": undrained_s, "killed": killed_s, "stopped": stopped_s, "host": host_s}
        slowest = [each.slowest_ms() for each in (one, two)]
        print("      seconds to the router's table:", {name: round(value, 3) for name, value in figures.items()}, "ms to bird:", slowest)
        if TIMED:
            assert slowest[0] <= 50 and killed_s < 0.3 and drained_s < 0.2, (slowest, figures)
