# SPDX-License-Identifier: Apache-2.0
"""Namespaces, links and processes of the lab. This file creates them and removes them completely."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from topology import HOSTS, PREFIX, ROUTER, SEGMENTS

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    pass


def sh(*command, check=True, **kwargs):
    """Runs a command and returns its output. If it fails, its error output becomes the LabError."""
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)
    if check and done.returncode != 0:
        raise LabError(f"{' '.join(map(str, command))}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def ip(namespace, *lines):
    """Runs several `ip` commands as one process, in a namespace or (None) in ours."""
    prefix = ["ip"] if namespace is None else ["ip", "-n", namespace]
    sh(*prefix, "-batch", "-", input="\n".join(lines) + "\n")


def in_namespace(namespace, *command):
    return ["ip", "netns", "exec", namespace, *map(str, command)]


def open_socket(namespace, family, kind, protocol=0):
    """A socket that belongs to a namespace, whoever uses it: this thread enters the namespace to make it."""
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{namespace}") as there:
        if _libc.setns(there.fileno(), CLONE_NEWNET) != 0:
            raise LabError(f"cannot enter {namespace}: {os.strerror(ctypes.get_errno())}")
        try:
            return socket.socket(family, kind, protocol)
        finally:
            _libc.setns(home.fileno(), CLONE_NEWNET)


def sysctl(namespace, *settings):
    """Each setting has the form "net/ipv4/ip_forward=1". It belongs to the namespace and ends with it."""
    script = "; ".join("echo {1} > /proc/sys/{0}".format(*setting.split("=")) for setting in settings)
    sh(*in_namespace(namespace, "sh", "-c", script))


def existing():
    return [line.split()[0] for line in sh("ip", "netns", "list").splitlines() if line.startswith(PREFIX)]


def add_namespaces(*namespaces):
    ip(None, *[f"netns add {namespace}" for namespace in namespaces])
    for namespace in namespaces:
        # No duplicate-address detection: an address is usable at once.
        sysctl(namespace, "net/ipv6/conf/all/accept_dad=0", "net/ipv6/conf/default/accept_dad=0")
        ip(namespace, "link set lo up")


def raise_network():
    add_namespaces(ROUTER, *[host.namespace for host in HOSTS.values()])
    sysctl(ROUTER, "net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1")
    for number, segment in enumerate(SEGMENTS.values(), 1):
        bridge, (gateway4, gateway6) = f"br-{segment.name}", segment.gateways
        # A fixed MAC: a bridge without one takes the lowest MAC of its ports, and changes it when a host comes or
        # goes.
        ip(ROUTER, f"link add {bridge} address 02:00:00:00:00:{number:02x} type bridge", f"link set {bridge} up")
        ip(ROUTER, f"addr add {gateway4}/24 dev {bridge}", f"addr add {gateway6}/64 dev {bridge} nodad")
    ip(ROUTER, "link add br-mgmt type bridge", "link set br-mgmt up")
    for host in HOSTS.values():
        attach(host)


def attach(host):
    """Links a host, whose namespace exists, to its segment and gives it its addresses."""
    namespace, port = host.namespace, f"p-{host.name}"
    ip(None, f"link add {port} netns {ROUTER} type veth peer name eth0 netns {namespace}")
    ip(ROUTER, f"link set {port} master br-{host.segment}", f"link set {port} up")
    if host.kernel_address:
        _address(host)
    else:
        # A veth passes on partial checksums and 64 KB segments. A forwarder that reads frames needs complete ones.
        sh(*in_namespace(ROUTER, "ethtool", "-K", port, "tx", "off"))
        sysctl(namespace, "net/ipv6/conf/eth0/disable_ipv6=1")
        ip(namespace, "link set eth0 up")
    if host.management:
        ip(None, f"link add m-{host.name} netns {ROUTER} type veth peer name eth1 netns {namespace}")
        ip(ROUTER, f"link set m-{host.name} master br-mgmt", f"link set m-{host.name} up")
        ip(namespace, f"addr add 10.99.0.{host.management}/24 dev eth1", "link set eth1 up")


def _address(host):
    namespace = host.namespace
    gateway4, gateway6 = SEGMENTS[host.segment].gateways
    behind_forwarder = host.vip and any(not h.kernel_address and h.segment == host.segment for h in HOSTS.values())
    if behind_forwarder:
        # l2dsr: the VIP is on lo and is never announced by ARP. Only the forwarder answers for it.
        sysctl(namespace, "net/ipv4/conf/all/arp_ignore=1", "net/ipv4/conf/all/arp_announce=2")
    ip(namespace, f"addr add {host.v4}/24 dev eth0", f"addr add {host.v6}/64 dev eth0 nodad", "link set eth0 up")
    ip(namespace, f"route add default via {gateway4}")
    sh("ip", "-n", namespace, "-6", "route", "add", "default", "via", gateway6)
    for address in host.vip:
        length, nodad = ("128", " nodad") if ":" in address else ("32", "")
        ip(namespace, f"addr add {address}/{length} dev {'lo' if behind_forwarder else 'eth0'}{nodad}")


def remove_network():
    """Ends every process inside the lab's own namespaces, then removes them. Veths and bridges go with them."""
    remove_namespaces(*existing())


def remove_links(namespace):
    """Deletes a namespace's links with their other ends. If they were left to the namespace, they would be removed
    some time after its name. Until then the router still has a port with the name that the host's next start needs."""
    links = json.loads(sh("ip", "-n", namespace, "-json", "link", "show", "type", "veth", check=False) or "[]")
    if links:
        ip(namespace, *[f"link delete {link['ifname']}" for link in links if link])


def remove_namespaces(*namespaces):
    """Returns when the names of the namespaces and of their links, at both ends, are free."""
    pids = lambda namespace: sh("ip", "netns", "pids", namespace, check=False).split()
    for namespace in namespaces:
        for pid in pids(namespace):
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass
    for namespace in namespaces:
        wait_until(f"{namespace} is empty", lambda n=namespace: not pids(n))
        remove_links(namespace)
        sh("ip", "netns", "delete", namespace)


class Process:
    """A program on a lab host: started by us, ended by its id."""

    def __init__(self, namespace, name, command, log: Path):
        self.namespace, self.name, self.command, self.log = namespace, name, [str(c) for c in command], log
        self.popen = None
        self.log_begins = 0  # for this process; earlier processes may have written to the same file

    def start(self):
        with open(self.log, "ab") as log:
            self.log_begins = log.tell()
            self.popen = subprocess.Popen(
                in_namespace(self.namespace, *self.command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        return self

    @property
    def pid(self):
        return self.popen.pid

    def running(self):
        return self.popen is not None and self.popen.poll() is None

    def kill(self):
        """SIGKILL; returns when it is gone."""
        if self.running():
            self.popen.send_signal(signal.SIGKILL)
        self.popen.wait()

    def stop(self, timeout_s=20):
        """SIGTERM; returns the exit status, or None when it had to be killed."""
        if self.popen is None:
            return 0
        if self.running():
            self.popen.send_signal(signal.SIGTERM)
        try:
            return self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def tail(self, lines=15):
        """The last lines that it wrote."""
        if not self.log.exists():
            return ""
        text = self.log.read_bytes()
        own = text[self.log_begins :] if len(text) >= self.log_begins else text  # it may have been cut off
        return "\n".join(own.decode(errors="replace").splitlines()[-lines:])


def wait_until(what, condition, timeout_s=30.0, process=None):
    """Waits for a condition of the outside world and returns its value. The error says what did not happen, and
    why."""
    deadline = time.monotonic() + timeout_s
    while True:
        reason = ""
        try:
            value = condition()
            if value:
                return value
        except (OSError, LabError, ValueError, KeyError) as error:
            reason = f" ({error})"
        if process is not None and not process.running():
            raise LabError(f"{process.name} ended with {process.popen.returncode} before {what}:\n{process.tail()}")
        if time.monotonic() > deadline:
            raise LabError(f"waited {timeout_s:g} s until {what}{reason}" + (f"\n{process.tail()}" if process else ""))
        time.sleep(0.01)
