# SPDX-License-Identifier: Apache-2.0
"""tidegate-dns with AF_XDP on its interface. It runs on a separate machine on the eu segment. The clients' networks
ask it with dig, and with datagrams that no ordinary client sends. The server's counters tell which way each query
took."""

import contextlib
import re
import socket
import struct

import box
import netns
from lab import open_socket
from netns import ip, sh, wait_until

ZONE = """\
$ORIGIN example.test.
$TTL 60
@ IN SOA ns1 hostmaster 1 3600 600 604800 60
@ IN NS ns1
ns1 IN A 192.0.2.53
static IN A 192.0.2.80
static IN AAAA 2001:db8::80
"""


def config(listen, workers=1, xdp="eth0"):
    return f"""
sites:
  - {{name: eu, location: {{latitude: 50, longitude: 8}}}}
  - {{name: us, location: {{latitude: 40, longitude: -74}}}}
nodes: [{{name: xdp, site: eu, dns: {{listen: {listen}, xdp: [{xdp}], workers: {workers}}}}}]
vips:
  - {{name: vip-eu, site: eu, addresses: [192.0.2.100, "2001:db8:1::100"]}}
  - {{name: vip-us, site: us, addresses: [198.51.100.100, "2001:db8:2::100"]}}
zones: [{{name: example.test, file: example.test.zone}}]
steers: [{{name: www.example.test, policy: nearest, ttl: 5s, targets: [{{vip: vip-eu}}, {{vip: vip-us}}]}}]
geo:
  networks:
    - {{network: 10.1.0.0/16, site: eu}}
    - {{network: 10.2.0.0/16, site: us}}
    - {{network: "fd01::/16", site: eu}}
    - {{network: "fd02::/16", site: us}}
"""


class Server:
    def __init__(self, machine):
        self.machine = machine
        self.addresses = (machine.host.v4, machine.host.v6)
        machine.write("example.test.zone", ZONE)

    def start(self, listen=None, **facts):
        listed = listen or "[{}]".format(", ".join(f'"{f"[{a}]" if ":" in a else a}:53"' for a in self.addresses))
        self.process = self.machine.start_plane("dns", self.machine.write("xdp.yaml", config(listed, **facts)))
        self.machine.wait_ready("dns", self.process)
        return self.process

    def counter(self, name, **labels):
        wanted = "".join(f'(?=[^}}]*{key}="{value}")' for key, value in labels.items())
        found = re.search(rf"^{name}\{{{wanted}[^}}]*\}} (\d+)$", self.machine.ask("dns", "/metrics").body.decode(), re.MULTILINE)
        assert found, f"no {name} with {labels}"
        return int(found[1])

    def by_xdp(self):
        return self.counter("tidegate_dns_xdp_frames_total", interface="eth0", event="answered")

    def by_udp(self):
        """Counts queries over UDP, whichever way they came."""
        return self.counter("tidegate_dns_queries_total", transport="udp")

    def programs(self):
        return sh("ip", "-n", self.machine.host.namespace, "link", "show", "dev", "eth0").count("xdp")


@contextlib.contextmanager
def server():
    with box.raised("xdp", 62) as machine:
        yield Server(machine)


def short(lab, host, address, *words):
    return sorted(lab.run(host, "dig", "+tries=1", "+time=3", "+short", f"@{address}", *words).stdout.split())


def question(padding=0):
    """A query for static.example.test A. `padding` is the number of bytes of EDNS padding (RFC 7830) that make it
    longer."""
    name = b"\x06static\x07example\x04test\x00\x00\x01\x00\x01"
    option = b"\x00" + struct.pack("!HHIHHH", 41, 1232, 0, 4 + padding, 12, padding) + bytes(padding) if padding else b""
    return struct.pack("!HHHHHH", 7, 0, 1, 0, 0, 1 if padding else 0) + name + option


def ask(host, address, message, *options):
    """Returns the last A address in the answer to a datagram that is sent with these socket options."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with open_socket(host, family, socket.SOCK_DGRAM) as client:
        for option in options:
            client.setsockopt(*option)
        client.settimeout(3)
        client.connect((address, 53))
        client.send(message)
        answer = client.recv(2048)
    assert answer[:2] == message[:2] and answer[3] & 15 == 0 and answer[7] == 1, answer.hex()
    return answer


def test_queries_by_af_xdp_are_answered_as_by_the_kernel_and_steered_by_their_sender_and_subnet(lab):
    with server() as dns:
        dns.start()
        assert dns.programs() > 0
        before = dns.by_xdp(), dns.by_udp()
        asked = 0
        for address in dns.addresses:
            for kind in ("A", "AAAA"):
                for host, words in (("client-eu", []), ("client-us", []), ("client-eu", ["+subnet=10.2.7.0/24"]), ("client-us", ["+subnet=fd01:7::/48"])):
                    told = short(lab, host, address, *words, "www.example.test", kind)
                    asked += 1
                    assert told and told == short(lab, host, address, "+tcp", *words, "www.example.test", kind), (address, kind, host, words)
            assert short(lab, "client-eu", address, "www.example.test", "A") == ["192.0.2.100"]
            assert short(lab, "client-us", address, "www.example.test", "A") == ["198.51.100.100"]
            assert short(lab, "client-eu", address, "+subnet=10.2.7.0/24", "www.example.test", "A") == ["198.51.100.100"]
            asked += 3
        assert (dns.by_xdp() - before[0], dns.by_udp() - before[1]) == (asked, asked), "every query over UDP came by AF_XDP"
        told = dns.machine.ask("dns", "/status").json()["xdp"]
        assert [(xdp["interface"], xdp["mode"]) for xdp in told] == [("eth0", "native")], told


def test_fragments_and_options_are_answered_by_the_kernels_way(lab):
    with server() as dns:
        dns.start()
        for address in dns.addresses:
            before = dns.by_xdp(), dns.by_udp()
            ask("client-eu", address, question(padding=1600))
            if ":" not in address:
                ask("client-eu", address, question(), (socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01\x01\x01\x00"))
            else:
                ask("client-eu", address, question(), (socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, b"\x00\x00\x01\x04\x00\x00\x00\x00"))
            assert (dns.by_xdp() - before[0], dns.by_udp() - before[1]) == (0, 2), address
            ask("client-eu", address, question(padding=300))
            assert (dns.by_xdp() - before[0], dns.by_udp() - before[1]) == (1, 3), address


def test_a_wildcard_takes_what_is_the_hosts_own_and_answers_from_what_was_asked(lab):
    with server() as dns:
        ip(dns.machine.host.namespace, "addr add 10.10.0.63/24 dev eth0")
        dns.start(listen='["0.0.0.0:53", "[::]:53"]', workers=2)
        before = dns.by_xdp()
        for address in (*dns.addresses, "10.10.0.63"):
            ask("client-us", address, question())
        assert dns.by_xdp() - before == 3
        # Queries to an address that is added later come through the kernel, until the interface is checked again.
        ip(dns.machine.host.namespace, "addr add 10.10.0.64/24 dev eth0")
        ask("client-us", "10.10.0.64", question())

        def by_xdp_now():
            had = dns.by_xdp()
            ask("client-us", "10.10.0.64", question())
            return dns.by_xdp() > had

        wait_until("the new address is served by AF_XDP", by_xdp_now)


def test_a_killed_server_leaves_no_program_behind_and_the_next_one_serves(lab):
    with server() as dns:
        dns.start().kill()
        wait_until("the program is gone", lambda: dns.programs() == 0)
        dns.start()
        wait_until("AF_XDP is open again", lambda: dns.counter("tidegate_dns_xdp_open", interface="eth0") == 1)
        before = dns.by_xdp()
        for address in dns.addresses:
            ask("client-eu", address, question())
        assert dns.by_xdp() - before == 2
        assert dns.process.stop() == 0
        assert dns.programs() == 0


def test_an_interface_that_is_not_there_or_not_to_be_had_costs_no_answer(lab):
    with server() as dns:
        dns.start(xdp="eth0, eth7")
        refused = {xdp["interface"]: xdp.get("refused") for xdp in dns.machine.ask("dns", "/status").json()["xdp"]}
        assert refused == {"eth0": None, "eth7": "the interface: No such device"}, refused
        assert dns.counter("tidegate_dns_xdp_open", interface="eth7") == 0
        # With another MAC the open sockets receive nothing more and the kernel takes the queries. Then the sockets
        # are opened again.
        ip(dns.machine.host.namespace, "link set eth0 address 02:00:00:00:62:62")
        sh("ip", "-n", netns.ROUTER, "neigh", "flush", "all")

        def by_xdp_now():
            had = dns.by_xdp()
            for address in dns.addresses:
                ask("client-eu", address, question())
            return dns.by_xdp() - had == 2

        wait_until("the interface is open anew", by_xdp_now)
