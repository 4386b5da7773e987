# SPDX-License-Identifier: Apache-2.0
"""Zones as operators write them, served beside NSD: the same files, the same questions, the same answers."""

import contextlib
import random
import re

import box
import netns

NSD_PORT = 5353

# Each form of a record that RFC 1035 §5, RFC 3597 and other common servers know.
ZONE = """\
$TTL 300
@ IN SOA ns1 hostmaster (
    2026010101 ; serial
    3600 600 604800 60 )
@ IN NS ns1
  IN NS ns2.elsewhere.test.
  IN 60 MX 10 mail
  IN TXT "a zone; of ( many )" second "\\"quoted\\""
ns1 A 192.0.2.53
    AAAA 2001:db8::53
mail IN 120 A 192.0.2.25
mail 120 IN AAAA 2001:db8::25
www 1h A 192.0.2.80
www 3600 A 192.0.2.81
twice IN CNAME www
twice IN CNAME WWW
alias CNAME twice
long0 CNAME long1
long1 CNAME long2
long2 CNAME mail
outside CNAME www.elsewhere.test.
nowhere CNAME absent
*.wild TXT "from a wildcard"
*.wild A 192.0.2.99
host.wild A 192.0.2.98
sub.ent.wild A 192.0.2.97
*.starcname CNAME mail
inner.*.star A 192.0.2.96
a.b.c TXT "below empty names"
child NS ns.child
child NS ns1
ns.child A 192.0.2.77
hidden.child A 192.0.2.78
old DNAME new
host.new A 192.0.2.44
deep.er.new A 192.0.2.45
gone DNAME elsewhere.test.
self CNAME self
one CNAME two
two CNAME one
*.round CNAME x.round
here DNAME there
there DNAME here
0/25 NS ns1
1 CNAME 1.0/25
empty TYPE65280 \\# 0
opaque TYPE65281 \\# 5 01 0203 04ff
known TYPE1 \\# 4 C0000207
locator L32 10 10.1.2.0
locator L64 10 2001:0db8:1140:1000
locator LP 20 mail
locator NID 10 0014:4fff:ff20:ee64
_443._tcp SRV 0 5 443 www
_443._tcp TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
secure CAA 0 issue "ca.example"
secure SSHFP 4 2 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
secure HTTPS 1 . alpn=h2,h3 port=8443 ipv4hint=192.0.2.80
secure SVCB 0 www
secure NAPTR 100 10 "u" "sip+E2U" "!^.*$!sip:info@example.test!" .
secure URI 10 1 "https://example.test/"
dotted\\.label A 192.0.2.61
escaped\\032label A 192.0.2.62
UPPER A 192.0.2.63
$INCLUDE part/more.zone more.example.test.
after A 192.0.2.64
"""
INCLUDED = """\
$TTL 77
@ A 192.0.2.70
x IN AAAA 2001:db8::70
$INCLUDE part/inner.zone
y A 192.0.2.71
"""
INNER = "$ORIGIN inner.example.test.\nz 5 A 192.0.2.72\n"

TYPES = ["A", "AAAA", "NS", "CNAME", "SOA", "MX", "TXT", "SRV", "DNAME", "DS", "TYPE65280", "TYPE65281", "L32", "L64", "LP", "NID", "TLSA", "CAA",
         "SSHFP", "HTTPS", "SVCB", "NAPTR", "URI"]  # fmt: skip


def names():
    written = [line.split()[0] for text in (ZONE, INCLUDED) for line in text.splitlines() if line[:1] not in ("", " ", "$", "@", ";", "\t")]
    owners = sorted({f"{name}.example.test" for name in written} | {f"{name}.more.example.test" for name in ("x", "y")})
    more = ["example.test", "more.example.test", "z.inner.example.test", "inner.example.test", "c.example.test", "b.c.example.test", "absent.example.test",
            "x.www.example.test", "new.wild.example.test", "a.b.wild.example.test", "x.host.wild.example.test", "ent.wild.example.test", "y.starcname.example.test",
            "any.star.example.test", "star.example.test", "*.star.example.test", "*.wild.example.test", "x.child.example.test", "host.old.example.test",
            "deep.er.old.example.test", "absent.old.example.test", "x.gone.example.test", "y.round.example.test", "x.here.example.test", "7.0/25.example.test", "wWw.eXample.test", "elsewhere.test"]  # fmt: skip
    return owners + more


@contextlib.contextmanager
def both_servers():
    """Our server on port 53 and NSD on another port, with the same zone."""
    with box.raised("names", 64) as machine:
        (machine.home / "part").mkdir()
        for name, text in {"example.test.zone": ZONE, "part/more.zone": INCLUDED, "part/inner.zone": INNER}.items():
            machine.write(name, text)
        address, home = machine.host.v4, machine.home
        machine.write(
            "nsd.conf",
            f'server:\n  ip-address: {address}@{NSD_PORT}\n  username: ""\n  zonesdir: "{home}"\n  database: ""\n  pidfile: "{home}/nsd.pid"\n'
            f'  xfrdfile: "{home}/xfrd"\n  zonelistfile: "{home}/zones"\n  xfrdir: "{home}"\n  minimal-responses: yes\n  rrl-ratelimit: 0\n'
            'remote-control:\n  control-enable: no\nzone:\n  name: example.test\n  zonefile: example.test.zone\n',
        )  # fmt: skip
        peer = machine.start("nsd", "nsd", "-d", "-c", machine.home / "nsd.conf")
        document = machine.write(
            "edge.yaml",
            f'sites: [{{name: eu}}]\nnodes: [{{name: names, site: eu, dns: {{listen: ["{address}:53"], workers: 1}}}}]\n'
            "zones: [{name: example.test, file: example.test.zone}]\n",
        )  # fmt: skip
        ours = machine.start_plane("dns", document)
        machine.wait_ready("dns", ours)
        netns.wait_until("NSD answers", lambda: netns.sh(*netns.in_namespace(machine.host.namespace, "dig", "+tries=1", "+time=1", "+short", "-p", NSD_PORT,
                                                         f"@{address}", "example.test", "SOA"), check=False).strip(), 20, peer)  # fmt: skip
        yield machine


def ask_all(lab, machine, port, questions, *options):
    """For each question in turn: the status, the flags, and the sections that must agree."""
    batch = machine.write("questions", "".join(f"{name} {kind}\n" for name, kind in questions))
    words = ["+nocmd", "+noquestion", "+nostats", "+noadditional", "+norecurse", "+tries=2", "+time=3", *options]
    said = lab.run("client-eu", "dig", "-p", port, f"@{machine.host.v4}", *words, "-f", batch).stdout
    answers = re.split(r"(?=^;; ->>HEADER<<-)", said, flags=re.MULTILINE)[1:]
    assert len(answers) == len(questions), f"{len(answers)} answers to {len(questions)} questions"
    return [understood(answer) for answer in answers]


def understood(answer):
    status = re.search(r"status: (\w+)", answer)[1]
    flags = set(re.search(r"flags: ([a-z ]*);", answer)[1].split()) & {"aa", "tc"}
    sections = {}
    for name, body in re.findall(r"^;; (\w+) SECTION:\n(.*?)(?:\n\n|\Z)", answer, flags=re.MULTILINE | re.DOTALL):
        sections[name] = sorted(" ".join(line.split()) for line in body.splitlines() if line and not line.startswith(";"))
    # An answer that contains what was asked for needs no authority section, but NSD adds one.
    positive = status == "NOERROR" and "aa" in flags and "ANSWER" in sections
    authority = [] if positive else sections.get("AUTHORITY", [])
    return status, sorted(flags), sections.get("ANSWER", []), authority


def test_a_zone_of_every_form_is_answered_as_nsd_answers_it(lab):
    with both_servers() as machine:
        questions = [(name.replace("\\", "\\\\"), kind) for name in names() for kind in TYPES]
        random.Random(1).shuffle(questions)
        asked = 0
        for options in ([], ["+dnssec"], ["+tcp", "+keepopen"]):
            some = questions if not options else questions[:300]
            ours, theirs = (ask_all(lab, machine, port, some, *options) for port in (53, NSD_PORT))
            unlike = [(question, mine, peer) for question, mine, peer in zip(some, ours, theirs) if mine != peer]
            assert not unlike, f"{len(unlike)} of {len(some)} with {options}: " + "\n".join(map(str, unlike[:8]))
            asked += len(some)
        assert asked > 2000, asked
        told = machine.ask("dns", "/status").json()["zones"][0]
        assert told["warnings"] == ["example.test.zone:16: the same record of twice.example.test. stands twice: one is served"], told


def test_a_fault_in_an_included_file_is_told_with_its_own_line_and_a_missing_one_by_name(lab):
    with box.raised("names", 64) as machine:
        (machine.home / "part").mkdir()
        machine.write("z.zone", "@ 60 IN SOA ns h 1 2 3 4 5\n@ 60 NS ns\n$INCLUDE part/b.zone\n")
        document = machine.write("edge.yaml", 'sites: [{name: eu}]\nnodes: [{name: names, site: eu, dns: {listen: ["127.0.0.1:53"]}}]\nzones: [{name: z.test, file: z.zone}]\n')
        missing = machine.tidegate("check", document)
        assert missing.returncode != 0 and "z.zone:3: $INCLUDE: 'part/b.zone': there is no such file" in missing.stdout, missing
        machine.write("part/b.zone", "; theirs\nb 60 A 192.0.2.999\n")
        daemon = machine.start_plane("dns", document)
        assert daemon.popen.wait(30) == 1 and "part/b.zone:2:8: not an IPv4 address" in daemon.tail(), daemon.tail()
