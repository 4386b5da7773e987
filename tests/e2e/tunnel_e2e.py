# SPDX-License-Identifier: Apache-2.0
"""Backends on other networks, reached through tunnels: every mode, both families inside and outside, real TCP and UDP,
a path with a smaller MTU, and what the decapsulator refuses."""

import contextlib
import hashlib
import json
import socket
import struct

import netns
from lab import BUILD, unix_request
from netns import Process, ip, open_socket, sh, sysctl, wait_until
from segment import VIP4, VIP6, family_of, raised, tcp_servers

# web1 has an IPv4 address only and web2 an IPv6 address only. So each VIP family travels in each outer family.
BACKENDS = {"web1": "10.67.1.2", "web2": "fd67:2::2"}
PATH_MTU = {"web1": 1500, "web2": 1420}
VXLAN_MAC = "02:74:67:76:78:62"
UPLOAD = bytes(range(256)) * 2048


def document(mode):
    more = ", vni: 100" if mode == "vxlan" else ""
    return f"""
nodes:
  - name: l4
    l4:
      ports: [{{device: eth0, addresses: [10.66.0.2/24, "fd66::2/64"], gateways: [10.66.0.1, "fd66::1"]}}]
      flows: 4096
vips: [{{name: vip, addresses: [{VIP4}, "{VIP6}"]}}]
services:
  - {{name: names, vip: vip, port: 7000, protocol: udp, pool: web, forwarding: {mode}{more}}}
  - {{name: uploads, vip: vip, port: 7000, last_port: 7009, protocol: tcp, pool: web, forwarding: {mode}{more}}}
pools:
  - name: web
    backends:
      - {{name: web1, addresses: [{BACKENDS["web1"]}]}}
      - {{name: web2, addresses: ["{BACKENDS["web2"]}"], mtu: {PATH_MTU["web2"]}}}
"""


def add_router(site):
    """Between the segment and the backends' networks."""
    router = site.add_host("router", 1)
    sysctl(router, "net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1", "net/ipv4/conf/all/rp_filter=0", "net/ipv4/conf/eth0/rp_filter=0")
    return router


def add_backend(site, router, number):
    """A host behind the router. It holds the VIPs on its loopback interface and answers through the router."""
    host = f"web{number}"
    namespace = site.namespace(host)
    site.namespaces.append(namespace)
    netns.add_namespaces(namespace)
    mtu = PATH_MTU.get(host, 1500)
    ip(None, f"link add to-{host} netns {router} type veth peer name eth0 netns {namespace}")
    # A decapsulator in user space reads whole packets, with complete checksums.
    for where, device in ((router, f"to-{host}"), (namespace, "eth0")):
        sh(*netns.in_namespace(where, "ethtool", "-K", device, "tx", "off", "gro", "off"))
    ip(router, f"addr add 10.67.{number}.1/24 dev to-{host}", f"addr add fd67:{number}::1/64 dev to-{host} nodad", f"link set to-{host} mtu {mtu} up")
    sysctl(router, f"net/ipv4/conf/to-{host}/rp_filter=0")
    ip(namespace, f"addr add 10.67.{number}.2/24 dev eth0", f"addr add fd67:{number}::2/64 dev eth0 nodad", f"link set eth0 mtu {mtu} up")
    ip(namespace, f"route add default via 10.67.{number}.1", f"route add ::/0 via fd67:{number}::1")
    ip(namespace, f"addr add {VIP4}/32 dev lo", f"addr add {VIP6}/128 dev lo nodad")
    sysctl(namespace, "net/ipv4/conf/all/rp_filter=0", "net/ipv4/conf/eth0/rp_filter=0")


def add_vxlan(site, host):
    """The kernel's own VXLAN interface, with the address that the forwarder sends to."""
    namespace, address = site.namespace(host), BACKENDS[host]
    more = " udp6zerocsumrx" if ":" in address else ""
    ip(namespace, f"link add vx0 address {VXLAN_MAC} type vxlan id 100 dstport 4789 local {address} nolearning{more}", "link set vx0 up")
    sysctl(namespace, "net/ipv4/conf/vx0/rp_filter=0")


def start_decap(site, host, *more):
    run = site.home / f"decap-{host}"
    run.mkdir()
    command = [BUILD / "l4/tidegate-decap", "--run", run, "--from", "10.66.0.2", "--from", "fd66::2", *more]
    process = Process(site.namespace(host), host, command, run / "log").start()
    process.run_dir = run
    site.processes.append(process)
    wait_until("the decapsulator is ready", lambda: ask_decap(process, "/healthz").status == 200, 60, process)
    return process


def ask_decap(process, target):
    return unix_request(process.run_dir / "decap.sock", "GET", target)


def decap_metric(process, name):
    for line in ask_decap(process, "/metrics").body.decode().splitlines():
        if line.startswith(name + " "):
            return float(line.split()[-1])
    raise AssertionError(f"{name} is not in the metrics")


def answer_upload(connection, host):
    """Answers with the host's name and the digest of what came."""
    digest = hashlib.sha256()
    with contextlib.suppress(OSError), connection:
        while data := connection.recv(65536):
            digest.update(data)
        connection.sendall(f"{host} {digest.hexdigest()}".encode())


def upload(site, vip, port, data):
    """Sends all of it, and returns who took it and the digest of what arrived there."""
    with open_socket(site.namespace("client"), family_of(vip), socket.SOCK_STREAM) as client:
        client.settimeout(30)
        client.connect((vip, port))
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := client.recv(1000):
            answer += piece
    return answer.decode().split()


def probed(site, host, vip, port):
    """How a probe for the VIP ends that the forwarder sends through the backend's tunnel."""
    order = {"pool": "web", "backend": host, "protocol": "tcp", "timeout_ms": 5000, "targets": [{"vip": vip, "port": port}]}
    answer = unix_request(site.forwarder.run_dir / "l4.sock", "POST", "/probe", json.dumps(order), {"Content-Type": "application/json"})
    assert answer.status == 200, answer.body
    return answer.json()["results"][0]["end"]


@contextlib.contextmanager
def site_with(mode, name):
    with raised(name) as site:
        router = add_router(site)
        site.add_host("client", 50)
        site.add_host("l4")
        for number in (1, 2):
            add_backend(site, router, number)
            if mode == "vxlan":
                add_vxlan(site, f"web{number}")
        site.decaps = {} if mode == "vxlan" else {host: start_decap(site, host) for host in BACKENDS}
        site.forwarder = site.start_forwarder(document(mode))
        site.wait_ready(site.forwarder)
        wait_until("the router is resolved", lambda: site.metric(site.forwarder, "tidegate_l4_neighbours_resolved") == 2, 30, site.forwarder)
        yield site


def check_traffic(mode, name):
    expected = hashlib.sha256(UPLOAD).hexdigest()
    with site_with(mode, name) as site:
        for vip in (VIP4, VIP6):
            with site.echoes(*BACKENDS, vip=vip):
                answers = site.answers(40, vip=vip, timeout=5)
                assert set(answers) == set(BACKENDS), f"{mode} to {vip}: {answers}"
            with tcp_servers(site, BACKENDS, answer_upload, (vip,), 7003):
                took = set()
                for _ in range(40):
                    host, digest = upload(site, vip, 7003, UPLOAD)
                    assert digest == expected, f"{mode} to {vip}: {host} got something else"
                    took.add(host)
                    if took == set(BACKENDS):
                        break
                assert took == set(BACKENDS), f"{mode} to {vip}: {took}"
                for host in BACKENDS:
                    assert probed(site, host, vip, 7003) == "answered" and probed(site, host, vip, 7004) == "refused", f"{mode} to {vip} of {host}"
        told = site.metric(site.forwarder, "tidegate_l4_too_big_packets_total")
        assert told > 0, "the clients' full segments do not fit into the tunnel"
        tunnelled = lambda: site.metric(site.forwarder, "tidegate_l4_tunnelled_packets_total", mode=mode)
        assert tunnelled() > 0
        if mode != "vxlan":
            delivered = lambda: sum(decap_metric(process, "tidegate_decap_delivered_packets_total") for process in site.decaps.values())
            # An answered probe is a SYN and a reset, a refused one a SYN, of two VIP addresses to each backend.
            probes = (2 + 1) * 2 * len(BACKENDS)
            wait_until("all packets came out of their tunnel", lambda: delivered() == tunnelled() + probes, 30, site.forwarder)


def test_tcp_and_udp_reach_backends_elsewhere_by_ipip_in_every_mix_of_families(_):
    check_traffic("ipip", "ti")


def test_tcp_and_udp_reach_backends_elsewhere_by_gue_in_every_mix_of_families(_):
    check_traffic("gue", "tg")


def test_tcp_and_udp_reach_backends_elsewhere_by_vxlan_in_every_mix_of_families(_):
    check_traffic("vxlan", "tv")


def test_the_decapsulator_counts_by_name_what_it_refuses(_):
    with raised("td") as site:
        router = add_router(site)
        add_backend(site, router, 1)
        decap = start_decap(site, "web1", "--from", "10.67.1.1", "--from", "fd67:1::1", "--to", VIP4, "--to", VIP6)
        refused = lambda reason: decap_metric(decap, f'tidegate_decap_dropped_packets_total{{reason="{reason}"}}')
        inner = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 24, 0, 0, 64, 17, 0, socket.inet_aton("192.0.2.7"), socket.inet_aton(VIP4)) + b"data"
        elsewhere = inner[:16] + socket.inet_aton("10.67.1.2") + inner[20:]
        gue = lambda first, protocol, flags, packet: struct.pack("!BBH", first, protocol, flags) + packet
        datagrams = {
            "outer_truncated": b"\0\4",
            "gue_variant": gue(0x40, 4, 0, inner),
            "gue_control": gue(0x20, 4, 0, inner),
            "gue_flags": gue(0, 4, 1, inner),
            "gue_protocol": gue(0, 6, 0, inner),
            "inner_truncated": gue(0, 4, 0, inner[:-1]),
            "inner_version": gue(0, 41, 0, inner),
            "inner_destination": gue(0, 4, 0, elsewhere),
        }
        with open_socket(router, socket.AF_INET, socket.SOCK_DGRAM) as forwarder:
            for datagram in datagrams.values():
                forwarder.sendto(datagram, ("10.67.1.2", 6080))
            forwarder.sendto(gue(0, 4, 0, inner), ("10.67.1.2", 6080))
        with open_socket(router, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IPIP) as raw:
            raw.sendto(inner, ("10.67.1.2", 0))
            raw.sendto(inner[:10], ("10.67.1.2", 0))
        with open_socket(router, socket.AF_INET, socket.SOCK_DGRAM) as congested:
            congested.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 3)
            congested.sendto(gue(0, 4, 0, inner), ("10.67.1.2", 6080))
        with open_socket(router, socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("10.66.0.1", 0))
            stranger.sendto(gue(0, 4, 0, inner), ("10.67.1.2", 6080))
        wait_until("the last one is counted", lambda: refused("source_not_allowed") == 1, 30, decap)
        wait_until("both good ones are delivered", lambda: decap_metric(decap, "tidegate_decap_delivered_packets_total") == 2, 30, decap)
        wait_until("the short raw one is counted", lambda: refused("inner_truncated") == 2, 30, decap)
        wait_until("the congested one is counted", lambda: refused("inner_not_ect") == 1, 30, decap)
        for reason in datagrams:
            assert refused(reason) == (2 if reason == "inner_truncated" else 1), f"{reason}: {refused(reason)}"


def test_the_decapsulator_says_what_it_cannot_do(_):
    program = BUILD / "l4/tidegate-decap"
    for arguments, word in ((["--from", "10.0.0.1/8"], "10.0.0.1/8"), ([], "--from"), (["--from", "10.0.0.0/8", "--device", "x" * 16, "--run", "/tmp"], "15 letters")):
        done = netns.subprocess.run([program, *arguments], stdout=netns.subprocess.PIPE, stderr=netns.subprocess.STDOUT, text=True, timeout=30)
        assert done.returncode != 0 and word in done.stdout, done.stdout
