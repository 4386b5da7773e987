# SPDX-License-Identifier: Apache-2.0
"""Explain: what the planes of several hosts tell of a request before it is sent, and of a past one by its
X-Request-Id. Both are compared over many requests."""

import concurrent.futures
import http.client
import json
import random
import socket
import ssl
import time
import urllib.parse

from lab import HOSTS, open_socket
from marks import long
from netns import wait_until
from topology import VIP_EU, VIP_US

VIPS = {socket.AF_INET: "10.10.0.100", socket.AF_INET6: "fd10::100"}


class Connection:
    """A client's connection that stays open, so that its flow stays pinned."""

    def __init__(self, family, plain=None, address=None):
        plain = plain or open_socket("client-eu", family, socket.SOCK_STREAM)
        plain.settimeout(10)
        plain.connect((address or VIPS[family], 443))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without the system's authorities, which take long to read
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.port = plain.getsockname()[1]
        self.vip = address or VIPS[family]
        self.socket = context.wrap_socket(plain, server_hostname="www.example.test")

    def request_id(self, path="/static/app.js", fields=None):
        lines = "".join(f"{name}: {value}\r\n" for name, value in (fields or {}).items())
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: www.example.test\r\n{lines}\r\n".encode())
        answer = http.client.HTTPResponse(self.socket)
        answer.begin()
        answer.read()
        return answer.headers["X-Request-Id"]


def read_answer(stream):
    """The fields, with names in lower case, and the body of the next answer of a connection."""
    stream.readline()
    fields = {}
    for line in iter(stream.readline, b"\r\n"):
        name, _, value = line.decode().partition(":")
        fields[name.lower()] = value.strip()
    if "content-length" in fields:
        return fields, stream.read(int(fields["content-length"]))
    body = b""
    if fields.get("transfer-encoding") == "chunked":
        while size := int(stream.readline(), 16):
            body += stream.read(size)
            stream.readline()
        stream.readline()
    return fields, body


def send_at_once(connection, stream, targets, host, fields=None):
    """Sends all requests and then reads all answers. `fields`: those of each request."""
    lines = ["".join(f"{name}: {value}\r\n" for name, value in each.items()) for each in fields or [{}] * len(targets)]
    connection.sendall("".join(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n" for target, more in zip(targets, lines)).encode())
    return [read_answer(stream) for _ in targets]


class Plane:
    """A connection to a plane's admin socket, for many questions."""

    def __init__(self, lab, node, plane):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(lab.socket_path(node, plane)))
        self.stream = self.socket.makefile("rb")

    def ask(self, targets):
        return [json.loads(body) for _, body in send_at_once(self.socket, self.stream, targets, "plane")]


def explained(lab, request_id):
    """What is told of a request whose answer has come. Its record may be written a moment later."""
    told = {}

    def found():
        told.update(lab.api("GET", f"/v1/explain?request={request_id}").json())
        return told["found"]

    wait_until(f"request {request_id} is remembered", found)
    return told


def test_a_past_request_is_told_with_its_flow_its_backend_and_its_version(lab):
    version = lab.api("GET", "/v1/status").json()["head"]["version"]
    for family, vip in VIPS.items():
        connection = Connection(family)
        with connection.socket:
            request_id = connection.request_id()
            told = explained(lab, request_id)
            assert told["found"] and not told["unreachable"], told
            flow, past = told["steps"]
            assert (flow["plane"], flow["node"], flow["pinned"], flow["vip"]) == ("l4", "l4", True, "vip-eu"), flow
            assert flow["backend"] == past["node"], "the forwarder and the proxy tell of the same way"
            assert (past["route"], past["pool"], past["version"]) == ("static", "origins", version), past
            assert (past["destination"], past["peer_port"]) == (vip, connection.port), past
            assert past["cache"]["outcome"] and past["listener"] == "https", past
            assert {each["node"] for each in told["not_found"]} | {past["node"]} == {"proxy1", "proxy2", "us1"}, told
            assert json.loads(lab.tidegate("--output", "json", "explain", "--request", request_id).stdout)["steps"][1] == past
            people = lab.tidegate("explain", "--request", request_id).stdout
            assert f"has the flow to vip-eu pinned to {past['node']}" in people, people
            assert f"under version {version}: route static" in people, people


def test_a_request_that_nobody_remembers_is_said_so_by_every_proxy(lab):
    done = lab.tidegate("explain", "--request", "no-such-request", check=False)
    assert done.returncode == 1 and done.stdout.count("does not know it") == 3, done
    assert "what ended before that is forgotten" in done.stdout, done
    for words in (("--request", "a", "10.1.0.2", "http://x/"), ("10.1.0.2",), ()):
        assert lab.tidegate("explain", *words, check=False).returncode == 2, words


# One pool for each way to choose, and policies that pass, refuse and answer. Routes are chosen by the path.
PICKS = ("weighted_round_robin", "least_requests", "random_of_two", "peak_ewma", "consistent_hash", "ring_hash")
HASHED = ("consistent_hash", "ring_hash")
POOL = '  - {{name: by-{0}, policy: {0}{1}, backends: [{{name: origin1, addresses: [10.10.0.21], port: 8080}}, {{name: origin2, addresses: ["fd10::22"], port: 8080}}]}}\n'
POLICIES = """\
policies:
  - {name: by-key, limit: {requests: 2, per: 1h, by: ["header:x-key"]}}
  - {name: by-net, authorise: {deny: [10.2.0.0/16, "fd02::/16"]}}
  - {name: shut, respond: {maintenance: {}}}
  - {name: canned, respond: {mock: {status: 203, body: "canned"}}}
  - {name: flow, concurrency: {requests: 1000}, deadline: {header: X-Timeout, most: 1m}, compress: {}}
routes:
"""
BOUND = {"key": "by-key", "net": "by-net", "shut": "shut", "canned": "canned", "flow": "flow"}
OWN_PATHS = ["/static/gone-{n}", "/api/v{n}/x", "/{n}"]  # of the lab's own document
# Some URLs are asked again soon. So a stored answer does not become stale between the question and the request.
AGAIN = 3 * ["/static/again-{group}-{block}"]
URLS = [f"/by/{pick}/{{n}}" for pick in PICKS] + [f"/bound/{word}/{{n}}" for word in BOUND] + [*OWN_PATHS, "/moved/{n}", *AGAIN]


def mixed(lab):
    pools = "".join(POOL.format(pick, ", hash_on: header:x-user" if pick in HASHED else "") for pick in PICKS)
    routes = "".join(f'  - {{name: by-{pick}, listeners: [https], hosts: [www.example.test], path: "/by/{pick}/*", pool: by-{pick}}}\n' for pick in PICKS)
    routes += "".join(
        f'  - {{name: bound-{word}, listeners: [https], hosts: [www.example.test], path: "/bound/{word}/*", pool: origins, policies: [{name}]}}\n'
        for word, name in BOUND.items()
    )
    routes += '  - {name: moved, listeners: [https], hosts: [www.example.test], path: "/moved/*", redirect: "https://{host}/", status: 308}\n'
    return lab.configured(("pools:\n", "pools:\n" + pools), ("routes:\n", POLICIES + routes))


def ask(lab, host, family, port, path, fields):
    """What is told of a request from that port before it is sent."""
    client = HOSTS[host].v4 if family == socket.AF_INET else HOSTS[host].v6
    question = {"client": client, "client_port": port, "url": f"https://www.example.test{path}",
                "headers": "\n".join(f"{name}: {value}" for name, value in fields.items())}  # fmt: skip
    return question, lab.api("GET", "/v1/explain?" + urllib.parse.urlencode(question, quote_via=urllib.parse.quote)).json()


def check(seen, happened):
    """Compares what was told with what happened. Returns where the request ended and how its backend was chosen."""
    _, flow, proxy = seen[1]["steps"]
    assert not proxy["not_asked"], seen
    assert happened["node"] == proxy["node"], (happened, seen)
    assert flow.get("backend", happened["node"]) == happened["node"], (happened, seen)
    assert (happened["listener"], happened["route"]) == (proxy["listener"], proxy["route"]), (happened, seen)
    stopped = [each["policy"] for each in happened["policies"] if each["verdict"] in ("refused", "answered")]
    ends = proxy["ends"]
    assert stopped == ([ends["policy"]] if ends["at"] == "policy" else []), (happened, seen)
    if "status" in ends:
        assert happened["status"] == ends["status"], (happened, seen)
    outcome = (proxy["cache"] or {}).get("outcome")
    if ends["at"] != "policy":
        assert (happened["cache"] or {}).get("outcome") == outcome, (happened, seen)
    assert (happened["backend"] is not None) == (ends["at"] == "backend"), (happened, seen)
    if happened["backend"] and proxy["backend"]:
        assert happened["backend"] == proxy["backend"], (happened, seen)
    elif happened["backend"]:
        assert happened["backend"] in [each["backend"] for each in proxy["eligible"] if each["takes_new_work"]], (happened, seen)
    return ends["at"], proxy["policy"]


def draw(rng, number, group="", block=0):
    """A path and header fields by chance."""
    path = rng.choice(URLS).format(n=number, group=group, block=block)
    return path, {"x-key": f"{group}{rng.choice('abcdefgh')}", "x-user": f"u{rng.randrange(50)}"}


def compare(lab, rng, number):
    """Explains a request, sends it from the very port that was asked about, and compares the two."""
    host, family = rng.choice(("client-eu", "client-us")), rng.choice(list(VIPS))
    path, fields = draw(rng, number, block=number // 40)
    plain = open_socket(host, family, socket.SOCK_STREAM)
    with plain:
        plain.settimeout(10)
        plain.bind((HOSTS[host].v4 if family == socket.AF_INET else HOSTS[host].v6, 0))
        seen = ask(lab, host, family, plain.getsockname()[1], path, fields)
        connection = Connection(family, plain, seen[1]["steps"][0]["answers"][0])
        request_id = connection.request_id(path, fields)
        connection.socket.close()
    passed = [step for step in explained(lab, request_id)["steps"] if step["plane"] == "l7"]
    assert len(passed) == 1, (passed, seen)
    return (*check(seen, passed[0]), family, host)


def record_of(lab, node, request_id):
    """A past request as the proxy of that node remembers it."""
    found = []

    def look():
        found[:] = lab.plane(node, "l7", f"/explain?request={request_id}").json()["records"]
        return found

    wait_until(f"request {request_id} is remembered by {node}", look)
    assert len(found) == 1, found
    return {"node": node, **found[0]}


# Requests that are explained at the same time must not change each other's answers. So each group has its own URLs.
GROUPS = 8


def compare_group(lab, group, count):
    """The pairs of one group, over one connection for each client and family."""
    rng, connections, met = random.Random(group), {}, set()
    try:
        for number in range(group, count, GROUPS):
            host, family = rng.choice(("client-eu", "client-us")), rng.choice(list(VIPS))
            path, fields = draw(rng, number, group, number // 160)
            if (host, family) not in connections:
                vip = (VIP_EU if host == "client-eu" else VIP_US)[family == socket.AF_INET6]
                connections[host, family] = Connection(family, open_socket(host, family, socket.SOCK_STREAM), vip)
            connection = connections[host, family]
            seen = ask(lab, host, family, connection.port, path, fields)
            assert seen[1]["steps"][0]["answers"] == [connection.vip], seen
            request_id = connection.request_id(path, fields)
            met.add((*check(seen, record_of(lab, seen[1]["steps"][2]["node"], request_id)), family, host))
    finally:
        for connection in connections.values():
            connection.socket.close()
    return met


BATCH = 8  # as many as there are values of x-key, so no two of a batch count as one client of the limit


class Client:
    """A client's kept connection, and the planes that tell of its requests: the forwarder its way to the proxy, and that
    proxy the rest."""

    def __init__(self, lab, host, family):
        self.lab, self.host, self.family = lab, host, family
        vip = (VIP_EU if host == "client-eu" else VIP_US)[family == socket.AF_INET6]
        self.connection = Connection(family, open_socket(host, family, socket.SOCK_STREAM), vip)
        self.stream = self.connection.socket.makefile("rb")
        self.address = HOSTS[host].v4 if family == socket.AF_INET else HOSTS[host].v6
        self.flow, self.node = {}, "us1"  # this site has no forwarder
        if host == "client-eu":
            question = {"client": self.address, "client_port": self.connection.port, "vip": vip, "port": 443, "protocol": "tcp"}
            self.flow = lab.plane("l4", "l4", "/explain?" + urllib.parse.urlencode(question)).json()
            self.node = self.flow["backend"]
        self.proxy = Plane(lab, self.node, "l7")

    def compare(self, pairs):
        """`pairs`: paths and fields, none of which changes what another one meets. Returns what they met."""
        questions = [{"client": self.address, "url": f"https://www.example.test{path}", "method": "GET",
                      "headers": "\n".join(f"{name}: {value}" for name, value in fields.items())} for path, fields in pairs]  # fmt: skip
        told = self.proxy.ask(["/explain?" + urllib.parse.urlencode(each, quote_via=urllib.parse.quote) for each in questions])
        answers = send_at_once(self.connection.socket, self.stream, [path for path, _ in pairs], "www.example.test", [fields for _, fields in pairs])
        ids = [fields["x-request-id"] for fields, _ in answers]
        records = [each["records"] for each in self.proxy.ask([f"/explain?request={each}" for each in ids])]
        met = set()
        for question, explanation, request_id, found in zip(questions, told, ids, records):
            happened = {"node": self.node, **found[0]} if found else record_of(self.lab, self.node, request_id)
            seen = question, {"steps": [None, self.flow, {"node": self.node, **explanation}]}
            met.add((*check(seen, happened), self.family, self.host))
        return met

    def close(self):
        self.connection.socket.close()
        self.proxy.socket.close()


def batch_of(rng, number, group, block):
    """Paths and fields by chance. Each has an x-key of its own, and none repeats another one's path."""
    keys, paths, pairs = rng.sample("abcdefgh", BATCH), set(), []
    while len(pairs) < BATCH:
        path, fields = draw(rng, number + len(pairs), group, block)
        if path not in paths:
            paths.add(path)
            pairs.append((path, {**fields, "x-key": f"{group}{keys[len(pairs)]}"}))
    return pairs


def compare_batches(lab, group, count):
    """`count` pairs of one group, in batches that are explained at once and then sent at once."""
    rng, clients, met = random.Random(1_000 + group), {}, set()
    name = f"{time.monotonic_ns()}-{group}"  # nothing is in a cache, or counted, from an earlier time
    try:
        for batch in range(count // BATCH):
            key = rng.choice(("client-eu", "client-us")), rng.choice(list(VIPS))
            if key not in clients:
                clients[key] = Client(lab, *key)
            met |= clients[key].compare(batch_of(rng, (group * count + batch) * BATCH, name, batch // 4))
    finally:
        for client in clients.values():
            client.close()
    return met


def compare_in_groups(lab, count, compare=compare_group):
    with mixed(lab):
        lab.settle()
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(GROUPS) as pool:
            met = set().union(*pool.map(lambda group: compare(lab, group, count), range(GROUPS)))
        print(f"      {count} pairs in {time.monotonic() - began:.1f} s")
    assert len({each[2:] for each in met}) == 4, "each client over both families"
    return met


def test_what_is_explained_happens(lab):
    met = compare_in_groups(lab, 64)  # each costs the lab 34 ms of CPU time under ASan
    assert {each[0] for each in met} >= {"policy", "backend"}, met


def test_what_planes_explain_happens_500_times_over_all_policies(lab):
    """The planes are asked over kept connections, which costs a tenth of the control's walk."""
    met = compare_in_groups(lab, 504, lambda lab, group, count: compare_batches(lab, group, count // GROUPS))
    assert {each[0] for each in met} >= {"policy", "route", "cache", "backend"}, met
    assert {each[1] for each in met} >= set(PICKS), met


@long
def test_what_is_explained_happens_500_times_over_all_policies(lab):
    met = compare_in_groups(lab, 500)
    assert {each[0] for each in met} >= {"policy", "route", "cache", "backend"}, met
    assert {each[1] for each in met} >= set(PICKS), met


@long
def test_what_is_explained_happens_10000_times_over_all_policies(lab):
    compare_in_groups(lab, 10_000)


@long
def test_what_is_explained_happens_to_500_new_connections(lab):
    """The flow of none of them is pinned when it is explained."""
    rng = random.Random(3)
    with mixed(lab):
        lab.settle()
        for number in range(500):
            compare(lab, rng, number)
