# SPDX-License-Identifier: Apache-2.0
"""What a resolver sees of tidegate-dns, asked with dig over UDP and TCP, IPv4 and IPv6."""

import collections
import re
import socket

from lab import open_socket
from topology import DNS_EU, DNS_US, VIP_EU, VIP_US


def dig(lab, host, *words, server=DNS_EU[0]):
    return lab.run(host, "dig", "+tries=1", "+time=3", f"@{server}", *words).stdout


def short(lab, host, *words, server=DNS_EU[0]):
    return sorted(dig(lab, host, "+short", *words, server=server).split())


def test_each_client_is_sent_to_its_nearest_site_over_ipv4_and_ipv6(lab):
    for server4, server6 in (DNS_EU, DNS_US):
        for server in (server4, server6):
            assert short(lab, "client-eu", "www.example.test", "A", server=server) == [VIP_EU[0]]
            assert short(lab, "client-eu", "www.example.test", "AAAA", server=server) == [VIP_EU[1]]
            assert short(lab, "client-us", "www.example.test", "A", server=server) == [VIP_US[0]]
            assert short(lab, "client-us", "www.example.test", "AAAA", server=server) == [VIP_US[1]]


def test_tcp_gives_the_answer_that_udp_gives(lab):
    for server in DNS_EU:
        for kind in ("A", "AAAA"):
            told = short(lab, "client-us", "+tcp", "www.example.test", kind, server=server)
            assert told and told == short(lab, "client-us", "www.example.test", kind, server=server)


def test_a_client_subnet_steers_instead_of_the_source_and_comes_back_with_its_scope(lab):
    answer = dig(lab, "client-eu", "+subnet=10.2.7.0/24", "www.example.test", "A")
    assert VIP_US[0] in answer, answer
    assert "CLIENT-SUBNET: 10.2.7.0/24/" in answer, answer
    scope = int(answer.split("CLIENT-SUBNET: 10.2.7.0/24/")[1].split()[0])
    assert 0 < scope <= 16, "the answer is the same for the whole /16, and not for all addresses"
    answer = dig(lab, "client-eu", "+subnet=fd02:7::/48", "www.example.test", "AAAA", server=DNS_EU[1])
    assert VIP_US[1] in answer and "CLIENT-SUBNET: fd02:7::/48/" in answer, answer
    scope = int(answer.split("CLIENT-SUBNET: fd02:7::/48/")[1].split()[0])
    assert 0 < scope <= 16, answer
    static = dig(lab, "client-eu", "+subnet=10.2.7.0/24", "ns1.example.test", "A")
    assert "CLIENT-SUBNET: 10.2.7.0/24/0" in static, static


def test_a_cookie_without_a_question_gets_a_server_cookie(lab):
    """RFC 7873 §5.4. dig itself says whether the cookie answers its own."""
    answer = dig(lab, "client-eu", "+header-only", "+cookie")
    assert "status: NOERROR" in answer and "QUERY: 0, ANSWER: 0" in answer and "(good)" in answer, answer


def test_a_name_that_does_not_exist_is_nxdomain_with_the_soa(lab):
    answer = dig(lab, "client-eu", "nowhere.example.test", "A")
    assert "status: NXDOMAIN" in answer and "SOA" in answer and "flags: qr aa" in answer, answer


def test_a_type_that_does_not_exist_is_nodata_with_the_soa(lab):
    answer = dig(lab, "client-eu", "ns1.example.test", "TXT")
    assert "status: NOERROR" in answer and "ANSWER: 0" in answer and "SOA" in answer, answer


def test_a_cname_is_followed_to_the_steered_name(lab):
    answer = dig(lab, "client-us", "alias.example.test", "A")
    assert "CNAME\twww.example.test." in answer and VIP_US[0] in answer, answer


def test_a_wildcard_answers_for_names_that_do_not_exist(lab):
    assert dig(lab, "client-eu", "+short", "a.b.wild.example.test", "TXT").strip() == '"from the wildcard"'


def test_a_delegation_is_a_referral_with_glue_and_without_authority(lab):
    answer = dig(lab, "client-eu", "+norecurse", "x.child.example.test", "A")
    assert "ANSWER: 0" in answer and "ns.child.example.test." in answer and "10.10.0.77" in answer, answer
    assert "flags: qr aa" not in answer, answer


def test_another_zone_is_refused(lab):
    assert "status: REFUSED" in dig(lab, "client-eu", "www.elsewhere.test", "A")


def test_an_unknown_edns_version_is_badvers_and_the_server_names_itself(lab):
    assert "status: BADVERS" in dig(lab, "client-eu", "+edns=7", "+noednsneg", "www.example.test", "A")
    assert '("edge")' in dig(lab, "client-eu", "+nsid", "www.example.test", "A")


def test_a_pool_steered_name_gives_the_usable_backends(lab):
    assert short(lab, "client-eu", "proxies.example.test", "A") == ["10.10.0.11", "10.10.0.12"]


def test_a_drained_backend_leaves_the_answer_and_comes_back(lab):
    lab.tidegate("drain", "backend", "proxies-eu/proxy2", "--wait")
    assert short(lab, "client-eu", "proxies.example.test", "A") == ["10.10.0.11"]
    assert short(lab, "client-eu", "proxies.example.test", "AAAA") == ["fd10::11"]
    lab.tidegate("undrain", "backend", "proxies-eu/proxy2", "--wait")
    assert short(lab, "client-eu", "proxies.example.test", "A") == ["10.10.0.11", "10.10.0.12"]


def test_a_drained_site_hands_its_clients_to_the_next(lab):
    lab.tidegate("drain", "site", "eu", "--wait")
    assert short(lab, "client-eu", "www.example.test", "A") == [VIP_US[0]]
    assert short(lab, "client-eu", "www.example.test", "AAAA") == [VIP_US[1]]
    lab.tidegate("undrain", "site", "eu", "--wait")
    assert short(lab, "client-eu", "www.example.test", "A") == [VIP_EU[0]]


def test_an_answer_too_large_for_udp_is_cut_and_whole_over_tcp(lab):
    for server in DNS_EU:
        cut = dig(lab, "client-eu", "+ignore", "+bufsize=512", "big.example.test", "TXT", server=server)
        assert re.search(r"flags: qr aa tc", cut), cut
        whole = dig(lab, "client-eu", "+short", "+bufsize=512", "big.example.test", "TXT", server=server)
        assert len(whole.splitlines()) == 7, whole
    assert len(dig(lab, "client-eu", "+short", "+tcp", "big.example.test", "TXT").splitlines()) == 7


def test_a_weighted_name_is_drawn_as_its_weights_say_and_leaves_out_what_is_drained(lab):
    path = lab.directory("edge") / "weighted.yaml"
    steer = "  - {name: beta.example.test, policy: weighted, max_answers: 1, ttl: 5s, targets: [{vip: vip-eu, weight: 80}, {vip: vip-us, weight: 20}]}\n"
    path.write_text((lab.directory("edge") / "edge.yaml").read_text().replace("steers:\n", "steers:\n" + steer))
    lab.apply(path)
    question = bytes.fromhex("00070100000100000000000104") + b"beta" + b"\x07example\x04test\x00\x00\x01\x00\x01"

    def subnet(number):
        # An OPT record with the client subnet 100.64.0.0/24, 100.64.1.0/24 ...: each network gets a new draw every ten
        # seconds.
        return bytes.fromhex("00 0029 04d0 00000000 000b 0008 0007 0001 18 00") + bytes([100, 64 + number // 256, number % 256])

    def draws(count):
        drawn = collections.Counter()
        with open_socket("client-eu", socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(3)
            client.connect((DNS_EU[0], 53))
            for number in range(count):
                client.send(question + subnet(number))
                drawn[socket.inet_ntoa(client.recv(512)[len(question) + 12 :][:4])] += 1
        return drawn

    try:
        # A binomial share of 0.2 in 1,000 stays within 5 standard deviations of 12.6.
        drawn = draws(1000)
        assert set(drawn) == {VIP_EU[0], VIP_US[0]} and 137 <= drawn[VIP_US[0]] <= 263, drawn
        lab.tidegate("drain", "pool", "proxies-us", "--wait")
        try:
            assert set(draws(100)) == {VIP_EU[0]}, "a drained pool takes its VIP out of every answer"
        finally:
            lab.tidegate("undrain", "pool", "proxies-us", "--wait")
    finally:
        lab.apply(lab.directory("edge") / "edge.yaml")
