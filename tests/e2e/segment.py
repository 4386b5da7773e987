# SPDX-License-Identifier: Apache-2.0
"""A separate segment for tests of the forwarder on a link: a bridge in a namespace, hosts on it, and a forwarder
with one port or two. It is made for a block and removed after it."""

import contextlib
import re
import shutil
import socket
import struct
import threading

import netns
from lab import DIRECTORY, binary, unix_request
from netns import Process, ip, open_socket, sh, sysctl, wait_until
from topology import PREFIX

ETH_P_ALL = 3
SOL_PACKET, PACKET_AUXDATA = 263, 8
TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID = 0x10, 0x40
VIP4, VIP6 = "10.66.0.100", "fd66::100"


class Segment:
    def __init__(self, name, mtu=1500):
        self.mtu, self.name, self.switch = mtu, name, f"{PREFIX}{name}-sw"
        self.home = DIRECTORY / f"segment-{name}"
        self.namespaces, self.processes = [], []

    def namespace(self, host):
        return f"{PREFIX}{self.name}-{host}"

    def add_host(self, host, number=None, device="eth0", gateway=None):
        """Adds a host to the bridge. Without a number the kernel has no address there, and the port is a
        forwarder's."""
        namespace = self.namespace(host)
        if namespace not in self.namespaces:
            self.namespaces.append(namespace)
            netns.add_namespaces(namespace)
        self.attach(host, device)
        if number is not None:
            ip(namespace, f"addr add 10.66.0.{number}/24 dev {device}", f"addr add fd66::{number}/64 dev {device} nodad")
        return namespace

    def attach(self, host, device="eth0"):
        namespace, port = self.namespace(host), self.port(host, device)
        ip(None, f"link add {port} netns {self.switch} type veth peer name {device} netns {namespace}")
        ip(self.switch, f"link set {port} mtu {self.mtu} master br0", f"link set {port} up")
        # A veth passes on partial checksums and 64 KB segments. A forwarder that reads frames needs complete ones.
        sh(*netns.in_namespace(self.switch, "ethtool", "-K", port, "tx", "off"))
        if host.startswith("l4"):
            sysctl(namespace, f"net/ipv6/conf/{device}/disable_ipv6=1")
        ip(namespace, f"link set {device} mtu {self.mtu} up")

    def port(self, host, device="eth0"):
        return f"{host}-{device}"

    def add_backend(self, host, number, *vips):
        """A host that holds VIPs for direct return, and answers each datagram with its own name."""
        namespace = self.add_host(host, number)
        sysctl(namespace, "net/ipv4/conf/all/arp_ignore=1", "net/ipv4/conf/all/arp_announce=2")
        for vip in vips:
            ip(namespace, f"addr add {vip}/{128 if ':' in vip else 32} dev lo" + (" nodad" if ":" in vip else ""))
        return namespace

    @contextlib.contextmanager
    def echoes(self, *hosts, vip=VIP4, port=7000):
        """On each host, a server at the VIP that answers a datagram with the host's name."""
        servers = []
        for host in hosts:
            server = open_socket(self.namespace(host), family_of(vip), socket.SOCK_DGRAM)
            server.bind((vip, port))
            servers.append(server)
            threading.Thread(target=serve, args=(server, host), daemon=True).start()
        try:
            yield
        finally:
            for host, server in zip(hosts, servers):
                with open_socket(self.namespace(host), family_of(vip), socket.SOCK_DGRAM) as stopper:
                    stopper.sendto(b"quit", (vip, port))
                server.close()

    def flow(self, host="client", vip=VIP4, port=7000, timeout=1.0):
        """A UDP socket with its own port, connected to the VIP."""
        client = open_socket(self.namespace(host), family_of(vip), socket.SOCK_DGRAM)
        client.settimeout(timeout)
        client.connect((vip, port))
        return client

    def answers(self, flows, vip=VIP4, timeout=1.0):
        """Opens that many new flows. Returns the backend of each, None if nobody answered."""
        opened = [self.flow(vip=vip, timeout=timeout) for _ in range(flows)]
        try:
            return [answer_to(flow) for flow in opened]
        finally:
            for flow in opened:
                flow.close()

    def start_forwarder(self, document, host="l4", name="l4", run=None, node="l4"):
        """Starts the daemon alone, from one file. Its admin socket is in a separate directory, or in `run`."""
        run = run or self.home / name
        run.mkdir(exist_ok=True)
        (run / "edge.yaml").write_text(document)
        (run / "secret").write_text("a secret of the segment tests")
        command = [binary("l4"), "--config", run / "edge.yaml", "--run", run, "--node", node, "--secret", run / "secret"]
        process = Process(self.namespace(host), f"{host}/{name}", command, run / "log").start()
        process.run_dir = run
        self.processes.append(process)
        return process

    def ask(self, process, target):
        return unix_request(process.run_dir / "l4.sock", "GET", target)

    def wait_ready(self, process):
        wait_until("the forwarder is ready", lambda: self.ask(process, "/status").json()["ready"], 60, process)

    def metric(self, process, name, **labels):
        """The sum of a metric's series that have these labels."""
        total = 0.0
        for line in self.ask(process, "/metrics").body.decode().splitlines():
            match = re.match(r"(\w+)(?:\{(.*)\})? ([0-9.e+-]+)$", line)
            if match and match[1] == name and all(f'{k}="{v}"' in (match[2] or "") for k, v in labels.items()):
                total += float(match[3])
        return total

    def run(self, host, *command, check=True, timeout=60):
        return sh(*netns.in_namespace(self.namespace(host), *command), check=check, timeout=timeout)

    def pings(self, host, address):
        command = netns.in_namespace(self.namespace(host), "ping", "-c", "1", "-W", "1", address)
        return netns.subprocess.run(command, stdout=netns.subprocess.PIPE, stderr=netns.subprocess.PIPE).returncode == 0


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def serve(server, name):
    with contextlib.suppress(OSError):  # closed
        while True:
            data, peer = server.recvfrom(4096)
            if data == b"quit":
                return
            server.sendto(name.encode(), peer)


def accept_all(server, answer, host):
    with contextlib.suppress(OSError):  # closed
        while True:
            threading.Thread(target=answer, args=(server.accept()[0], host), daemon=True).start()


@contextlib.contextmanager
def tcp_servers(link, hosts, answer, vips=(VIP4,), port=80):
    """A server of each host at each VIP. `answer(connection, host)` has a thread of its own for each connection."""
    servers = []
    for host in hosts:
        for vip in vips:
            server = open_socket(link.namespace(host), family_of(vip), socket.SOCK_STREAM)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((vip, port))
            server.listen(1024)
            servers.append(server)
            threading.Thread(target=accept_all, args=(server, answer, host), daemon=True).start()
    try:
        yield
    finally:
        for server in servers:
            server.shutdown(socket.SHUT_RDWR)
            server.close()


def answer_to(flow, data=b"who"):
    """The backend that answered, or None."""
    try:
        flow.send(data)
        return flow.recv(100).decode()
    except OSError:
        return None


def raw_socket(namespace, device="eth0"):
    """Sends and receives whole frames."""
    raw = open_socket(namespace, socket.AF_PACKET, socket.SOCK_RAW)
    raw.bind((device, ETH_P_ALL))
    raw.settimeout(0.3)
    return raw


def mac_of(namespace, device="eth0"):
    return bytes.fromhex(re.search(r"link/ether (\S+)", sh("ip", "-n", namespace, "link", "show", device))[1].replace(":", ""))


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@contextlib.contextmanager
def raised(name, bridge="", mtu=1500):
    segment = Segment(name, mtu)
    try:
        segment.namespaces.append(segment.switch)
        netns.add_namespaces(segment.switch)
        ip(segment.switch, f"link add br0 address 02:00:00:00:66:01 type bridge {bridge}", "link set br0 up")
        shutil.rmtree(segment.home, ignore_errors=True)
        segment.home.mkdir(parents=True)
        yield segment
        for process in segment.processes:
            if process.running():
                status = process.stop()
                assert status == 0, f"{process.name} ended with {status} when told to stop:\n{process.tail()}"
    finally:
        for process in segment.processes:
            process.kill()
        netns.remove_namespaces(*segment.namespaces)
        shutil.rmtree(segment.home, ignore_errors=True)


class Tap:
    """A packet socket that hears the frames of an interface as they are on the link. The kernel takes the first tag off
    a frame that arrives, and tells it beside the frame."""

    def __init__(self, namespace, device, timeout):
        self.socket = open_socket(namespace, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self.socket.bind((device, ETH_P_ALL))
        self.socket.settimeout(timeout)

    def close(self):
        self.socket.close()

    def hear(self):
        """The next frame that somebody else sent; None for a frame of this side. TimeoutError after the timeout."""
        frame, beside, _, sender = self.socket.recvmsg(2048, 128)
        if sender[2] == socket.PACKET_OUTGOING:
            return None
        for level, kind, data in beside:
            if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                status, _, _, _, _, tci, protocol = struct.unpack("IIIHHHH", data)
                if status & TP_STATUS_VLAN_VALID:
                    frame = frame[:12] + struct.pack("!HH", protocol if status & TP_STATUS_VLAN_TPID_VALID else 0x8100, tci) + frame[12:]
        return frame
