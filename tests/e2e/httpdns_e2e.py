"""HTTPDNS (Alibaba v1's form) and DoH (RFC 8484), asked over TLS through our own forwarder and proxy."""

import base64
import hashlib
import json
import time

from topology import DNS_EU, VIP_EU, VIP_US

HOST = "https://httpdns.example.test"


def fetch(lab, host, path, *options, vip=VIP_EU[0]):
    """Status and body of a GET."""
    out = lab.curl(host, HOST + path, "-w", "\n%{http_code}", *options, vip=vip).stdout
    body, status = out.rsplit("\n", 1)
    return int(status), body


def test_an_unsigned_query_is_steered_by_the_client_behind_two_hops(lab):
    status, body = fetch(lab, "client-eu", "/1001/d?host=www.example.test")
    answer = json.loads(body)
    assert status == 200 and answer["ips"] == [VIP_EU[0]] and answer["client_ip"] == "10.1.0.2", body
    # The far client, asking through the near proxy, is told of its own site all the same.
    status, body = fetch(lab, "client-us", "/1001/d?host=www.example.test&query=4,6")
    answer = json.loads(body)
    assert answer["ips"] == [VIP_US[0]] and answer["ipsv6"] == [VIP_US[1]] and answer["client_ip"] == "10.2.0.2", body


def test_clients_over_ipv6_are_known_by_their_own_addresses(lab):
    for host, address, wanted in (("client-eu", "fd01::2", VIP_EU), ("client-us", "fd02::2", VIP_US)):
        status, body = fetch(lab, host, "/1001/d?host=www.example.test&query=4,6", vip=VIP_EU[1])
        answer = json.loads(body)
        assert status == 200 and answer["client_ip"] == address, body
        assert answer["ips"] == [wanted[0]] and answer["ipsv6"] == [wanted[1]], body


def test_a_forged_forwarding_field_does_not_move_the_client(lab):
    _, body = fetch(lab, "client-eu", "/1001/d?host=www.example.test", "-H", "X-Forwarded-For: 10.2.0.2")
    assert json.loads(body)["ips"] == [VIP_EU[0]], body


def test_the_ip_parameter_names_another_client(lab):
    _, body = fetch(lab, "client-eu", "/1001/d?host=www.example.test&ip=10.2.0.9")
    assert json.loads(body)["ips"] == [VIP_US[0]], body


def test_a_signed_query_is_answered_and_a_wrong_or_stale_signature_is_named(lab):
    expiry = int(time.time()) + 300
    sign = lambda t: hashlib.md5(f"www.example.test-lab-secret-2-{t}".encode()).hexdigest()
    status, body = fetch(lab, "client-eu", f"/1002/sign_d?host=www.example.test&t={expiry}&s={sign(expiry)}")
    assert status == 200 and json.loads(body)["ips"] == [VIP_EU[0]], body
    status, body = fetch(lab, "client-eu", f"/1002/sign_d?host=www.example.test&t={expiry}&s={'0' * 32}")
    assert status in (400, 403) and json.loads(body)["code"] == "InvalidSignature", body
    past = int(time.time()) - 10
    status, body = fetch(lab, "client-eu", f"/1002/sign_d?host=www.example.test&t={past}&s={sign(past)}")
    assert status in (400, 403) and json.loads(body)["code"] == "SignatureExpired", body
    status, body = fetch(lab, "client-eu", "/1002/d?host=www.example.test")
    assert json.loads(body)["code"] == "UnsignedInterfaceDisabled", body


def test_doh_by_post_and_by_get_gives_what_udp_gives(lab):
    question = bytes.fromhex("00000100000100000000000003777777076578616d706c6504746573740000010001")
    path = lab.directory("client-us") / "question"
    path.write_bytes(question)
    for options in (
        ("-X", "POST", "-H", "Content-Type: application/dns-message", "--data-binary", f"@{path}", HOST + "/dns-query"),
        (HOST + "/dns-query?dns=" + base64.urlsafe_b64encode(question).decode().rstrip("="),),
    ):
        answer = path.with_name("answer")
        *flags, url = options
        head = lab.curl("client-us", url, *flags, "-o", str(answer), "-D", "-").stdout.lower()
        assert "content-type: application/dns-message" in head and "cache-control: max-age=5" in head, head
        assert bytes(map(int, VIP_US[0].split("."))) in answer.read_bytes()
    udp = lab.run("client-us", "dig", "+short", f"@{DNS_EU[0]}", "www.example.test", "A").stdout.strip()
    assert udp == VIP_US[0]


def test_a_broken_doh_message_is_refused_by_status(lab):
    status, _ = fetch(lab, "client-eu", "/dns-query?dns=%%%")
    assert status == 400
    status, _ = fetch(lab, "client-eu", "/dns-query", "-X", "POST", "-H", "Content-Type: text/plain", "-d", "x")
    assert status == 415
