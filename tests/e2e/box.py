# SPDX-License-Identifier: Apache-2.0
"""A separate machine on the eu segment, for tests that start daemons themselves. It is made for a block and removed
after it."""

import contextlib
import shutil

import netns
from lab import BUILD, DIRECTORY, binary, unix_request
from netns import LabError, Process, ip, sh, sysctl, wait_until
from topology import HOSTS, ROUTER, Host

VIP = ("10.10.0.200", "fd10::200")


class Box:
    """eth0 belongs to the kernel, unless the host has `kernel_address=False`. eth1 belongs to the forwarder, if it
    is asked for."""

    def __init__(self, host):
        self.host, self.processes = host, []
        self.home = DIRECTORY / host.name
        self.run_dir, self.state_dir = self.home / "run", self.home / "state"

    def write(self, name, text):
        path = self.home / name
        path.write_text(text)
        return path

    def start(self, name, *command):
        process = Process(self.host.namespace, f"{self.host.name}/{name}", command, self.home / f"{name}.log").start()
        self.processes.append(process)
        return process

    def start_plane(self, plane, config, *options):
        """Starts one daemon alone, from one file."""
        return self.start(plane, binary(plane), "--config", config, "--run", self.run_dir, "--node", self.host.name, *options)

    def tidegate(self, *arguments):
        """Runs the command line to its end on this machine. Never raises because of the exit status."""
        return netns.subprocess.run(
            netns.in_namespace(self.host.namespace, BUILD / "control" / "tidegate", *arguments),
            stdout=netns.subprocess.PIPE, stderr=netns.subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip

    def ask(self, plane, target):
        return unix_request(self.run_dir / f"{plane}.sock", "GET", target)

    def wait_ready(self, plane, process=None):
        wait_until(f"{plane} is ready", lambda: self.ask(plane, "/healthz").status == 200, 60, process)

    def pids(self):
        """The pids of every process in this machine's namespace."""
        return {int(pid) for pid in sh("ip", "netns", "pids", self.host.namespace).split()}


@contextlib.contextmanager
def raised(name="box", number=61, second_port=False, **facts):
    host = Host(name, "eu", number, **facts)
    HOSTS[name] = host
    box = Box(host)
    try:
        netns.add_namespaces(host.namespace)
        netns.attach(host)
        if second_port:
            _add_port(host)
        box.home.mkdir()
        box.run_dir.mkdir()
        box.state_dir.mkdir()
        yield box
        bad = {p.name: (status, p.tail()) for p in box.processes if p.running() and (status := p.stop()) != 0}
        if bad:
            raise LabError(f"ended badly when told to stop: {bad}")
    finally:
        for process in box.processes:
            process.kill()
        netns.remove_namespaces(host.namespace)
        sh("ip", "-n", ROUTER, "neigh", "flush", "all")  # the next machine has these addresses but other MACs
        del HOSTS[name]
        shutil.rmtree(box.home, ignore_errors=True)


def _add_port(host):
    port = f"q-{host.name}"
    ip(None, f"link add {port} netns {ROUTER} type veth peer name eth1 netns {host.namespace}")
    ip(ROUTER, f"link set {port} master br-{host.segment}", f"link set {port} up")
    sh(*netns.in_namespace(ROUTER, "ethtool", "-K", port, "tx", "off"))
    sysctl(host.namespace, "net/ipv6/conf/eth1/disable_ipv6=1")
    ip(host.namespace, "link set eth1 up")
