"""What a resolver sees of tidegate-dns, asked with dig over UDP and TCP, IPv4 and IPv6."""

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
