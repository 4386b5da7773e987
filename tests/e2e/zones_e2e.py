# SPDX-License-Identifier: Apache-2.0
"""Zones made at random, of every form that zone files have, served beside NSD (and Knot in the long run): the same
files, the same questions, the same answers."""

import contextlib
import random

import box
import netns
from marks import long
from names_e2e import NSD_PORT, ask_all

KNOT_PORT = 5454
LABELS = ["a", "b", "c", "d", "UPPER", "x-1", "0/25", "e\\046f", "_tcp"]
TYPES = ["A", "AAAA", "MX", "TXT", "NS", "CNAME", "DNAME", "SRV", "SOA", "DS", "HTTPS", "CAA", "TYPE65280"]


class RandomZone:
    """A zone as a tree of names, and its text. Every choice comes from `dice`."""

    def __init__(self, dice, apex, count=70, child=False):
        self.dice, self.apex = dice, apex
        self.records = {}  # name relative to the apex, as labels → (kind, TTL, list of (type, data))
        if child:
            self.records[("sub",)] = ("cut", 60, [("NS", f"ns1.sub.{apex}.")])
            self.records[("ns1", "sub")] = ("data", 60, [("A", "192.0.2.53")])
        for _ in range(count):
            self.add()

    def relative(self):
        """A name of up to four labels, often below one that exists."""
        known = [name for name in self.records if name[0] != "*"]
        below = self.dice.choice(known) if known and self.dice.random() < 0.5 else ()
        labels = [self.dice.choice(LABELS) for _ in range(self.dice.randint(1, 2))]
        if self.dice.random() < 0.15:
            labels[0] = "*"
        return (*labels, *below)[-4:]

    def kinds_above(self, name):
        return {self.records[name[i:]][0] for i in range(1, len(name)) if name[i:] in self.records}

    def text_of(self, name):
        return ".".join((*name, self.apex)) + "."

    def some_target(self):
        """A name that is ours, one that does not exist, or one of others. Never below a DNAME, which would lead on."""
        known = [name for name in self.records if self.records[name][0] in ("data", "cut")]
        if known and self.dice.random() < 0.75:
            return self.text_of(self.dice.choice(known)).replace("*", "a")
        return self.dice.choice([f"absent.{self.apex}.", "www.elsewhere.test."])

    def add(self):
        name = self.relative()
        above = self.kinds_above(name)
        if name in self.records or "dname" in above or len(name) == 4 and name[0] == "*":
            return
        wild = "*" in name
        kind = "data" if "cut" in above or wild else self.dice.choices(["data", "alias", "cut", "dname"], [10, 4, 2, 1])[0]
        if wild and "cut" not in above and self.dice.random() < 0.3:
            kind = "alias"
        if kind == "dname" and any(other[-len(name):] == name for other in self.records):
            return
        number = self.dice.randint(1, 250)
        if kind == "alias":
            data = [("CNAME", self.some_target())]
        elif kind == "dname":
            data = [("DNAME", self.some_target())]
        elif kind == "cut":
            data = [("NS", f"ns.{self.text_of(name)}"), ("NS", f"ns{number}.elsewhere.test.")]
        else:
            data = self.some_data(number)
        self.records[name] = (kind, self.dice.choice([0, 5, 60, 3600]), data)
        if kind == "cut":
            self.records[("ns", *name)] = ("data", 77, [("A", f"192.0.2.{number}")])

    def some_data(self, number):
        forms = [
            [("A", f"192.0.2.{number}"), ("A", f"198.51.100.{number}")],
            [("AAAA", f"2001:db8::{number:x}")],
            [("MX", f"( {number}\n   {self.some_target()} ) ; a comment ( that is not closed")],
            [("TXT", f'"text; of ( {number} )" second "\\"quoted\\""')],
            [("SRV", f"0 {number} 443 {self.some_target()}")],
            [("HTTPS", f"1 . alpn=h2 port={number}")],
            [("CAA", f'0 issue "ca{number}.example"')],
            [("TYPE65280", f"\\# 3 01 02{number:02x}")],
            [("TYPE65280", "\\# 0")],
            [("TYPE1", f"\\# 4 C00002{number:02X}")],
        ]
        return [record for form in self.dice.sample(forms, self.dice.randint(1, 3)) for record in form]

    def line(self, name, ttl, kind, data, repeated):
        owner = "" if repeated and self.dice.random() < 0.5 else self.dice.choice([self.text_of(name), ".".join(name)])
        middle = self.dice.choice([f"{ttl} IN", f"IN {ttl}", f"{ttl}", f"in\t{ttl}"])
        return f"{owner} {middle} {kind} {data}\n"

    def texts(self):
        """The zone's text, and that of a file that it includes."""
        whole = f"$ORIGIN {self.apex}.\n$TTL 300\n@ IN SOA ns1 hostmaster (\n 1 ; serial\n 3600 600 604800 60 )\n@ NS ns1\nns1 A 192.0.2.53\n"
        parts = [[], []]
        for name, (_, ttl, data) in self.records.items():
            if name == ("ns1",):
                continue
            lines = parts[self.dice.random() < 0.2]
            last, forms = None, []
            # "A" and its TYPE1 form are one RRset with one TTL, and a record may stand twice.
            for kind, value in data:
                forms.append(self.line(name, ttl, kind, value, last == name))
                last = name
            if self.dice.random() < 0.1 and "\n" not in forms[-1][:-1]:
                forms.append(self.line(name, ttl, *data[-1], True))
            lines.append("".join(forms))
        middle = len(parts[0]) // 2
        return whole + "".join(parts[0][:middle]) + "$INCLUDE part.zone\n" + "".join(parts[0][middle:]), "".join(parts[1])

    def names(self):
        written = [self.text_of(name) for name in self.records]
        above = {self.text_of(name[i:]) for name in self.records for i in range(1, len(name))}
        below = [f"{self.dice.choice(['new', 'a', '*', 'b.c'])}.{name}" for name in written]
        return written + sorted(above) + below + [self.apex + ".", f"absent.{self.apex}.", f"ns1.{self.apex}."]


def normal(answer):
    """What may differ: the case of names (RFC 4343), and a CNAME that leads to itself, which the peers repeat."""
    status, flags, found, authority = answer
    return status, flags, *(sorted({record.lower() for record in section}) for section in (found, authority))


@contextlib.contextmanager
def served(zones, servers):
    """Each zone in a folder of its own, for an included file is looked for beside it."""
    with box.raised("zones", 66) as machine:
        address, home = machine.host.v4, machine.home
        document = f'sites: [{{name: eu}}]\nnodes: [{{name: zones, site: eu, dns: {{listen: ["{address}:53"]}}}}]\nzones:\n'
        nsd = (f'server:\n  ip-address: {address}@{NSD_PORT}\n  username: ""\n  zonesdir: "{home}"\n  database: ""\n  pidfile: "{home}/nsd.pid"\n'
               f'  xfrdfile: "{home}/xfrd"\n  zonelistfile: "{home}/zones"\n  xfrdir: "{home}"\n  minimal-responses: yes\n  rrl-ratelimit: 0\n'
               "remote-control:\n  control-enable: no\n")  # fmt: skip
        knot = f"server:\n  listen: {address}@{KNOT_PORT}\n  rundir: {home}\ndatabase:\n  storage: {home}/knotdb\nzone:\n"
        for zone in zones:
            whole, part = zone.texts()
            machine.write(f"{zone.apex}.part", part)
            machine.write(f"{zone.apex}.zone", whole.replace("part.zone", f"{zone.apex}.part"))
            document += f"  - {{name: {zone.apex}, file: {zone.apex}.zone}}\n"
            nsd += f"zone:\n  name: {zone.apex}\n  zonefile: {zone.apex}.zone\n"
            knot += f"  - domain: {zone.apex}\n    file: {home}/{zone.apex}.zone\n    semantic-checks: off\n    zonefile-load: whole\n    journal-content: none\n"
        peers = {}
        if "nsd" in servers:
            peers[NSD_PORT] = machine.start("nsd", "nsd", "-d", "-c", machine.write("nsd.conf", nsd))
        if "knot" in servers:
            (home / "knotdb").mkdir()
            peers[KNOT_PORT] = machine.start("knot", "knotd", "-c", machine.write("knot.conf", knot))
        ours = machine.start_plane("dns", machine.write("edge.yaml", document))
        machine.wait_ready("dns", ours)
        for port, peer in peers.items():
            netns.wait_until("the peer answers", lambda port=port: "NOERROR" in netns.sh(*netns.in_namespace(machine.host.namespace, "dig", "+tries=1", "+time=1",
                             "-p", port, f"@{address}", f"{zones[-1].apex}", "SOA"), check=False), 20, peer)  # fmt: skip
        yield machine, list(peers)


def compare(lab, seed, question_count, servers, child=False):
    """`child`: one of the zones delegates to another one. NSD keeps all names of all zones in one tree and takes names
    of the one for names of the other, so only Knot is asked then."""
    dice = random.Random(seed)
    zones = [RandomZone(dice, apex, child=child and apex == "r0.test") for apex in ["r0.test", *(["sub.r0.test"] if child else []), "r1.test", "r2.test"]]
    with served(zones, servers) as (machine, peers):
        names = sorted({name for zone in zones for name in zone.names()})
        questions = [(dice.choice(names).replace("\\", "\\\\"), dice.choice(TYPES)) for _ in range(question_count)]
        asked = 0
        for options, share in (([], 0.8), (["+dnssec"], 0.1), (["+tcp", "+keepopen"], 0.1)):
            some = questions[asked:asked + round(question_count * share)]
            asked += len(some)
            ours = [normal(answer) for answer in ask_all(lab, machine, 53, some, *options)]
            for port in peers:
                theirs = [normal(answer) for answer in ask_all(lab, machine, port, some, *options)]
                unlike = [(question, mine, peer) for question, mine, peer in zip(some, ours, theirs) if mine != peer]
                assert not unlike, f"seed {seed}, port {port}: {len(unlike)} of {len(some)} with {options}: " + "\n".join(map(str, unlike[:8]))
        assert asked == question_count, asked


def test_random_zones_are_answered_as_nsd_answers_them(lab):
    compare(lab, 1, 2000, ["nsd"])


@long
def test_many_random_zones_are_answered_as_nsd_and_knot_answer_them(lab):
    for seed in range(2, 12):
        compare(lab, seed, 2000, ["nsd", "knot"])
    for seed in range(12, 17):
        compare(lab, seed, 2000, ["knot"], child=True)
