"""The DNS server beside gdnsd, Knot and NSD: one UDP worker each, on loopback."""

from pathlib import Path

from generators import dnsperf
from measure import BUILD, SERVER_CORE, Contender, Program, Row, package_version, tcp_ready

PORT = 7053
HOSTS = 1000


def zone():
    records = "\n".join(f"h{i} IN A 192.0.2.{i % 250 + 1}" for i in range(HOSTS))
    return f"$ORIGIN example.test.\n$TTL 300\n@ IN SOA ns1 hostmaster 1 3600 600 604800 60\n@ IN NS ns1\nns1 IN A 192.0.2.1\nwww IN A 192.0.2.80\n{records}\n"


def tidegate(folder):
    folder = Path(folder)
    (folder / "example.test.zone").write_text(zone())
    networks = "\n".join(f"    - {{network: 10.{i}.0.0/16, site: s{i % 4}}}" for i in range(200))
    (folder / "edge.yaml").write_text(f"""
sites:
{chr(10).join(f"  - {{name: s{i}, location: {{latitude: {10 * i}, longitude: {20 * i}}}}}" for i in range(4))}
nodes: [{{name: bench, site: s0, dns: {{listen: ["127.0.0.1:{PORT}"], workers: 1}}}}]
vips:
{chr(10).join(f"  - {{name: v{i}, site: s{i}, addresses: [192.0.2.{100 + i}]}}" for i in range(4))}
zones: [{{name: example.test, file: example.test.zone}}]
steers: [{{name: www.example.test, policy: nearest, ttl: 30s, targets: [{{vip: v0}}, {{vip: v1}}, {{vip: v2}}, {{vip: v3}}]}}]
geo:
  default_site: s0
  networks:
{networks}
""")
    command = [BUILD / "dns" / "tidegate-dns", "--config", "edge.yaml", "--node", "bench", "--state", folder, "--run", folder]
    return Program("tidegate-dns", command, SERVER_CORE, folder, tcp_ready(PORT))


def gdnsd(folder):
    folder = Path(folder)
    (folder / "etc" / "zones").mkdir(parents=True)
    for part in ("run", "state"):
        (folder / part).mkdir()
    text = zone().replace("$ORIGIN example.test.\n", "").replace("www IN A 192.0.2.80", "www 30 DYNA geoip!www")
    (folder / "etc" / "zones" / "example.test").write_text(text)
    nets = "\n".join(f"10.{i}.0.0/16 => [dc{i % 4}]" for i in range(200))
    (folder / "etc" / "config").write_text(f"""
options => {{ listen => [127.0.0.1:{PORT}], udp_threads => 1, tcp_threads => 1, run_dir => {folder}/run, state_dir => {folder}/state }}
plugins => {{ geoip => {{
  maps => {{ m => {{ datacenters => [dc0, dc1, dc2, dc3], nets => {{ {nets} }}, default => [dc0, dc1, dc2, dc3] }} }}
  resources => {{ www => {{ map => m, dcmap => {{ dc0 => 192.0.2.100, dc1 => 192.0.2.101, dc2 => 192.0.2.102, dc3 => 192.0.2.103 }} }} }}
}} }}
""")
    return Program("gdnsd", ["gdnsd", "-c", folder / "etc", "start"], SERVER_CORE, folder, tcp_ready(PORT))


def knot(folder):
    folder = Path(folder)
    (folder / "example.test.zone").write_text(zone())
    (folder / "knot.conf").write_text(f"""
server:
  rundir: {folder}
  listen: 127.0.0.1@{PORT}
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
database: {{ storage: {folder} }}
template:
  - {{ id: default, storage: {folder} }}
zone:
  - {{ domain: example.test, file: example.test.zone }}
""")
    return Program("knot", ["knotd", "-c", folder / "knot.conf"], SERVER_CORE, folder, tcp_ready(PORT))


def nsd(folder):
    folder = Path(folder)
    (folder / "example.test.zone").write_text(zone())
    (folder / "nsd.conf").write_text(f"""
server:
  ip-address: 127.0.0.1@{PORT}
  server-count: 1
  username: ""
  zonesdir: "{folder}"
  database: ""
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
    return Program("nsd", ["nsd", "-d", "-c", folder / "nsd.conf"], SERVER_CORE, folder, tcp_ready(PORT))


def floor(folder):
    return Program("floor", [BUILD / "bench" / "floor_dns", PORT], SERVER_CORE, folder)


def queries(name, lines):
    path = Path(f"/tmp/tidegate-bench-{name}.queries")
    path.write_text("\n".join(lines) + "\n")
    return path


def contenders(load, *names):
    known = {
        "tidegate-dns": Contender("tidegate-dns", "this commit", tidegate, load, ours=True),
        "gdnsd": Contender("gdnsd", package_version("gdnsd"), gdnsd, load),
        "knot": Contender("knot", package_version("knot"), knot, load),
        "nsd": Contender("nsd", package_version("nsd"), nsd, load),
        "floor": Contender("floor: mmsg echo", "", floor, load, floor=True),
    }
    return [known[name] for name in names]


def rows():
    static = queries("static", [f"h{i}.example.test A" for i in range(HOSTS)])
    absent = queries("absent", [f"no{i}.example.test A" for i in range(HOSTS)])
    steered = queries("steered", ["www.example.test A"])
    everyone = ("tidegate-dns", "gdnsd", "knot", "nsd", "floor")
    # dnsperf gives the average and the worst, not percentiles: the two latency columns hold those.
    yield Row("dns", "UDP, static A (latency: mean, worst)", contenders(dnsperf(PORT, static), *everyone), unit="query")
    yield Row("dns", "UDP, NXDOMAIN (latency: mean, worst)", contenders(dnsperf(PORT, absent), *everyone), unit="query")
    ecs = ("-E", "8:00012018" + "0a0700")
    yield Row("dns", "UDP, geo with ECS (latency: mean, worst)", contenders(dnsperf(PORT, steered, ecs), "tidegate-dns", "gdnsd", "floor"), unit="query")
    yield Row("dns", "TCP, static A (latency: mean, worst)", contenders(dnsperf(PORT, static, ("-m", "tcp")), *everyone[:-1]), unit="query")
