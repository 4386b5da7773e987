# SPDX-License-Identifier: Apache-2.0
"""DNS servers with equal settings: one UDP worker, the same zone, no log, on loopback port 7053 (HTTPDNS in plain
HTTP on 7054, DoH over TLS on 7443). Each function returns a start(folder) for a Contender."""

import socket
from dataclasses import dataclass
from pathlib import Path

from http_servers import TLS, certificate
from measure import BUILD, SERVER_CORE, Program, tcp_ready
from veth import in_namespace, netns

PORT, HTTPDNS = 7053, 7054
SITES = 4


@dataclass(frozen=True)
class Place:
    """Where a server listens: its address, and the network namespace of that address."""

    address: str = "127.0.0.1"
    namespace: str = ""

    def command(self, *command):
        return in_namespace(self.namespace, *command) if self.namespace else command

    def datagram_socket(self):
        return netns.open_socket(self.namespace, socket.AF_INET, socket.SOCK_DGRAM) if self.namespace else socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


LOOPBACK = Place()


def zone(hosts, www):
    yield "$ORIGIN example.test.\n$TTL 300\n@ IN SOA ns1 hostmaster 1 3600 600 604800 60\n@ IN NS ns1\nns1 IN A 192.0.2.1\n"
    yield www
    for i in range(hosts):
        yield f"h{i} IN A 192.0.{i // 250 % 250}.{i % 250 + 1}\n"


def write_zone(folder, hosts, www="www IN A 192.0.2.80\n"):
    with open(Path(folder) / "example.test.zone", "w") as file:
        file.writelines(zone(hosts, www))


def networks(count):
    """/24 networks in 10/8 that do not touch, so that none merges with its neighbour."""
    return [(f"10.{i // 128}.{i % 128 * 2}.0/24", i % SITES) for i in range(count)]


AES_KEY = "00112233445566778899aabbccddeeff"


def tidegate_files(folder, hosts, geo_names, nets, place=LOOPBACK, xdp=""):
    folder = Path(folder)
    write_zone(folder, hosts, "")
    names = ["www"] + [f"g{i}" for i in range(geo_names)]
    targets = "[" + ", ".join(f"{{vip: v{i}}}" for i in range(SITES)) + "]"
    steers = "\n".join(f"  - {{name: {name}.example.test, policy: nearest, ttl: 30s, targets: {targets}}}" for name in names)
    sites = "\n".join(f"  - {{name: s{i}, location: {{latitude: {10 * i}, longitude: {20 * i}}}}}" for i in range(SITES))
    vips = "\n".join(f"  - {{name: v{i}, site: s{i}, addresses: [192.0.2.{100 + i}]}}" for i in range(SITES))
    known = "\n".join(f"    - {{network: {network}, site: s{site}}}" for network, site in networks(nets))
    (folder / "edge.yaml").write_text(f"""
sites:
{sites}
nodes:
  - name: bench
    site: s0
    l7: {{workers: 1}}
    cache: {{enabled: true, ram: 64MB, disk: 16MB}}
    dns: {{listen: ["{place.address}:{PORT}"], httpdns_listen: ["127.0.0.1:{HTTPDNS}"], trusted_proxies: [127.0.0.1], workers: 1, xdp: [{xdp}]}}
vips:
{vips}
pools: [{{name: dns, backends: [{{name: here, addresses: [127.0.0.1], port: {HTTPDNS}}}]}}]
certificates: [{{name: c, certificate_file: c.crt, key_file: c.key}}]
listeners: [{{name: tls, bind: ["127.0.0.1:{TLS}"], tls: {{certificates: [c]}}}}]
routes: [{{name: all, path: "/*", pool: dns, cache: {{enabled: true}}}}]
zones: [{{name: example.test, file: example.test.zone}}]
steers:
{steers}
geo:
  default_site: s0
  networks:
{known}
httpdns: {{client_rate: 0, accounts: [{{id: "1001", secret: bench, aes_key: {AES_KEY}}}]}}
""")


def tidegate_command(plane, folder):
    return [BUILD / plane / f"tidegate-{plane}", "--config", "edge.yaml", "--node", "bench", "--state", folder, "--run", folder]


def tidegate(hosts=1000, geo_names=0, nets=200, place=LOOPBACK, xdp=""):
    """`xdp`: the interface of the place whose queries come through AF_XDP."""

    def start(folder):
        certificate(folder)
        tidegate_files(folder, hosts, geo_names, nets, place, xdp)
        return Program("tidegate-dns", place.command(*tidegate_command("dns", folder)), SERVER_CORE, folder, answers("h1", place), ready_timeout_s=120)

    return start


def tidegate_doh(folder):
    """The proxy that terminates TLS, and the server behind it. Both are counted."""
    certificate(folder)
    tidegate_files(folder, 1000, 0, 200)
    both = " & exec ".join(" ".join(map(str, tidegate_command(plane, folder))) for plane in ("dns", "l7"))
    return Program("tidegate-l7-dns", ["sh", "-c", both], SERVER_CORE, folder, lambda: tcp_ready(TLS)() and tcp_ready(HTTPDNS)())


def gdnsd(hosts=1000, geo_names=0, nets=200, place=LOOPBACK):
    def start(folder):
        folder = Path(folder)
        (folder / "etc" / "zones").mkdir(parents=True)
        for part in ("run", "state"):
            (folder / part).mkdir()
        steered = "".join(f"{name} 30 DYNA geoip!www\n" for name in ["www"] + [f"g{i}" for i in range(geo_names)])
        write_zone(folder, hosts, steered)
        (folder / "example.test.zone").rename(folder / "etc" / "zones" / "example.test")
        known = "\n".join(f"{network} => [dc{site}]" for network, site in networks(nets))
        (folder / "etc" / "config").write_text(f"""
options => {{ listen => [{place.address}:{PORT}], udp_threads => 1, tcp_threads => 1, run_dir => {folder}/run, state_dir => {folder}/state }}
plugins => {{ geoip => {{
  maps => {{ m => {{ datacenters => [dc0, dc1, dc2, dc3], nets => {{ {known} }} }} }}
  resources => {{ www => {{ map => m, dcmap => {{ dc0 => 192.0.2.100, dc1 => 192.0.2.101, dc2 => 192.0.2.102, dc3 => 192.0.2.103 }} }} }}
}} }}
""")
        return Program("gdnsd", place.command("gdnsd", "-c", folder / "etc", "start"), SERVER_CORE, folder, answers("h1", place), ready_timeout_s=180)

    return start


def knot(hosts=1000, place=LOOPBACK):
    def start(folder):
        write_zone(folder, hosts)
        (Path(folder) / "knot.conf").write_text(f"""
server:
  rundir: {folder}
  listen: {place.address}@{PORT}
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
database:
  storage: {folder}
template:
  - id: default
    storage: {folder}
zone:
  - domain: example.test
    file: example.test.zone
""")
        return Program("knot", place.command("knotd", "-c", f"{folder}/knot.conf"), SERVER_CORE, folder, answers("h1", place), ready_timeout_s=120)

    return start


def nsd(hosts=1000, place=LOOPBACK):
    def start(folder):
        write_zone(folder, hosts)
        (Path(folder) / "nsd.conf").write_text(f"""
server:
  ip-address: {place.address}@{PORT}
  server-count: 1
  rrl-ratelimit: 0
  rrl-whitelist-ratelimit: 0
  username: ""
  zonesdir: "{folder}"
  pidfile: "{folder}/nsd.pid"
  xfrdfile: "{folder}/xfrd.state"
  zonelistfile: "{folder}/zone.list"
  xfrdir: "{folder}"
remote-control:
  control-enable: no
zone:
  name: example.test
  zonefile: example.test.zone
""")
        return Program("nsd", place.command("nsd", "-d", "-c", f"{folder}/nsd.conf"), SERVER_CORE, folder, answers("h1", place), ready_timeout_s=120)

    return start


def dnsdist_doh(folder):
    """dnsdist terminates TLS and answers from its packet cache. Knot is behind it. Both are counted."""
    certificate(folder)
    knot()(folder).stop()
    (Path(folder) / "dnsdist.conf").write_text(f"""
setLocal("127.0.0.1:7055")
newServer({{address="127.0.0.1:{PORT}", healthCheckMode="up"}})
getPool(""):setCache(newPacketCache(10000))
addDOHLocal("127.0.0.1:{TLS}", "{folder}/c.crt", "{folder}/c.key", "/dns-query")
""")
    both = f"knotd -c {folder}/knot.conf & exec dnsdist --supervised --disable-syslog -C {folder}/dnsdist.conf"
    return Program("dnsdist-knot", ["sh", "-c", both], SERVER_CORE, folder, lambda: tcp_ready(TLS)() and answers("h1")())


def floor(place=LOOPBACK):
    return lambda folder: Program(
        "floor", place.command(BUILD / "bench" / "floor_dns", f"{place.address}:{PORT}"), SERVER_CORE, folder, answers("h1", place, any_answer=True)
    )


def answers(label, place=LOOPBACK, any_answer=False):
    """True once the server gives an A record of that name in example.test (for the floor: any answer)."""
    query = bytes.fromhex("123400000001000000000000") + bytes([len(label)]) + label.encode() + b"\x07example\x04test\x00\x00\x01\x00\x01"

    def ready():
        with place.datagram_socket() as probe:
            probe.settimeout(0.05)
            try:
                probe.connect((place.address, PORT))
                probe.send(query)
                answer = probe.recv(4096)
            except OSError:
                return False
            return any_answer or (answer[3] & 15 == 0 and answer[7] > 0)

    return ready
