# SPDX-License-Identifier: Apache-2.0
"""HTTPDNS (Alibaba's two forms) and DoH (RFC 8484), over TLS through our own forwarder and proxy."""

import base64
import contextlib
import hashlib
import hmac
import json
import pathlib
import time
from urllib.parse import quote

import box
import netns
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
    # The far client asks through the near proxy, but is still sent to its own site.
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


def second_form(secret=b"", **parameters):
    """A target of /v2/d, signed with the secret as Alibaba's documentation says."""
    pairs = sorted((name, str(value)) for name, value in parameters.items() if value != "")
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs)
    if not secret:
        return f"/v2/d?{query}"
    signature = hmac.new(secret, "&".join(f"{name}={value}" for name, value in pairs).encode(), hashlib.sha256).hexdigest()
    return f"/v2/d?{query}&s={signature}"


def test_the_second_form_answers_several_hosts_over_one_connection_as_udp_does(lab):
    target = second_form(id=1001, m=0, dn="www.example.test,ns1.example.test,www.elsewhere.test", q="4,6", v="1.0")
    out = lab.curl("client-us", HOST + target, HOST + target, "-w", "\n%{num_connects}\n").stdout.split("\n")
    (first, connects), (second, more) = out[0:2], out[2:4]
    assert (connects, more) == ("1", "0"), out
    for body in (first, second):
        told = json.loads(body)
        assert told["code"] == "success" and told["data"]["cip"] == "10.2.0.2", body
        steered, static, foreign = told["data"]["answers"]
        assert steered["v4"]["ips"] == [VIP_US[0]] and steered["v6"]["ips"] == [VIP_US[1]], body
        assert static["v4"]["ips"] and foreign["v4"] == {"ips": [], "ttl": 0, "extra": "", "no_ip_code": "DomainNotExist"}, body


def test_a_signature_of_the_second_form_covers_the_client_and_its_end(lab):
    facts = {"id": 1002, "m": 0, "dn": "www.example.test", "cip": "10.2.0.9", "exp": int(time.time()) + 300, "sdns-net": "wifi"}
    good = second_form(b"lab-secret-2", **facts)
    status, body = fetch(lab, "client-eu", good)
    assert status == 200 and json.loads(body)["data"]["answers"][0]["v4"]["ips"] == [VIP_US[0]], body
    for target, code in (
        (good.replace("10.2.0.9", "10.1.0.9"), "InvalidSignature"),
        (second_form(b"another secret", **facts), "InvalidSignature"),
        (second_form(b"lab-secret-2", **{**facts, "exp": int(time.time()) - 10}), "SignatureExpired"),
        (second_form(**{**facts, "exp": ""}), "UnsignedInterfaceDisabled"),
        (second_form(b"lab-secret-2", **{**facts, "m": 2}), "InvalidMode"),
    ):
        status, body = fetch(lab, "client-eu", target)
        assert status in (400, 403) and json.loads(body)["code"] == code, (target, body)


@contextlib.contextmanager
def httpdns_alone():
    with box.raised("httpdns", 65) as machine:
        document = machine.write("edge.yaml", f"""
sites: [{{name: eu, location: {{latitude: 50, longitude: 8}}}}, {{name: us, location: {{latitude: 40, longitude: -74}}}}]
nodes: [{{name: httpdns, site: eu, dns: {{listen: ["{machine.host.v4}:53"], httpdns_listen: ["{machine.host.v4}:8053"]}}}}]
vips: [{{name: eu, site: eu, addresses: [192.0.2.1, "2001:db8:1::1"]}}, {{name: us, site: us, addresses: [192.0.2.2]}}]
zones: [{{name: example.test, file: example.test.zone}}]
steers: [{{name: www.example.test, policy: nearest, https_record: true, targets: [{{vip: eu}}, {{vip: us}}]}}]
certificates: [{{name: example, certificate_file: example.crt, key_file: example.key}}]
listeners: [{{name: https, bind: ["0.0.0.0:443"], tls: {{certificates: [example]}}}}]
routes: [{{name: www, hosts: [www.example.test], status: 204}}]
geo: {{networks: [{{network: 10.1.0.0/16, site: eu}}, {{network: 10.2.0.0/16, site: us}}]}}
httpdns: {{service: [eu, us], accounts: [{{id: "7", secret: "00ff", allow_unsigned: true, aes_key: {AES_KEY}, des_key: eightkey, tokens: ["4309123"]}}]}}
""")  # fmt: skip
        for kind in ("crt", "key"):
            machine.write(f"example.{kind}", (EXAMPLES / f"example.test.{kind}").read_text())
        machine.write("example.test.zone", "@ 60 IN SOA ns1 h 1 2 3 4 5\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.53\n")
        machine.wait_ready("dns", machine.start_plane("dns", document))
        yield machine


EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "conf/examples"
AES_KEY = "000102030405060708090a0b0c0d0e0f"


def openssl(way, iv, data):
    return netns.subprocess.run(["openssl", "enc", way, "-aes-128-cbc", "-K", AES_KEY, "-iv", iv.hex()], input=data, stdout=netns.subprocess.PIPE, check=True).stdout


def test_sealed_parameters_are_opened_and_a_client_learns_where_to_ask(lab):
    with httpdns_alone() as machine:
        ask = lambda host, target: json.loads(lab.run(host, "curl", "-sS", f"http://{machine.host.v4}:8053{target}").stdout)
        iv = bytes(range(16))
        sealed = (iv + openssl("-e", iv, b'{"dn":"www.example.test","q":"4","cip":"10.2.0.9"}')).hex()
        told = ask("client-eu", second_form(b"\x00\xff", id=7, m=1, enc=sealed, exp=int(time.time()) + 60))
        assert told["code"] == "success" and told["mode"] == "1", told
        answer = base64.b64decode(told["data"])
        data = json.loads(openssl("-d", answer[:16], answer[16:]))
        assert data["cip"] == "10.2.0.9" and data["answers"][0]["v4"]["ips"] == ["192.0.2.2"], data
        assert ask("client-eu", second_form(id=7, m=1, enc=sealed[:-2] + "00"))["code"] in ("DecryptionFailed", "MissingArgument")
        assert ask("client-eu", "/7/ss") == {"service_ip": ["192.0.2.1", "192.0.2.2"], "service_ipv6": ["2001:db8:1::1"]}
        assert ask("client-us", "/7/ss")["service_ip"] == ["192.0.2.2", "192.0.2.1"]
        signature = hashlib.md5(b"abc-00ff-9").hexdigest()
        assert ask("client-us", f"/7/ss?n=abc&t=9&s={signature}")["code"] == "SignatureExpired"


def test_an_https_record_tells_of_our_listener_and_the_clients_addresses(lab):
    with httpdns_alone() as machine:
        for host, address in (("client-eu", "192.0.2.1"), ("client-us", "192.0.2.2")):
            record = lab.run(host, "dig", "+short", f"@{machine.host.v4}", "www.example.test", "HTTPS").stdout.strip()
            assert record == f'1 . alpn="h2" ipv4hint={address} ipv6hint=2001:db8:1::1', record


def des(way, data):
    # Single DES is in OpenSSL's legacy provider; the server itself does without that.
    command = ["openssl", "enc", way, "-des-ecb", "-K", b"eightkey".hex(), "-provider", "legacy", "-provider", "default"]
    return netns.subprocess.run(command, input=data, stdout=netns.subprocess.PIPE, check=True).stdout


def test_the_text_form_is_asked_by_token_by_des_and_by_aes(lab):
    with httpdns_alone() as machine:

        def ask(host, query, *options):
            out = lab.run(host, "curl", "-sS", "-w", "\n%{http_code}", f"http://{machine.host.v4}:8053/d{query}", *options).stdout
            body, status = out.rsplit("\n", 1)
            return int(status), body

        assert ask("client-eu", "?token=4309123&dn=www.example.test&ttl=1&clientip=1") == (200, "192.0.2.1,30|10.1.0.2")
        assert ask("client-us", "?token=4309123&dn=www.example.test&type=addrs") == (200, "192.0.2.2-2001:db8:1::1")
        assert ask("client-eu", "", "--data", "token=4309123&dn=ns1.example.test,www.elsewhere.test") == (
            200,
            "ns1.example.test.:192.0.2.53\nwww.elsewhere.test.:0",
        )
        status, body = ask("client-eu", f"?id=7&ttl=1&dn={des('-e', b'www.example.test').hex()}&ip={des('-e', b'10.2.0.9').hex()}")
        assert status == 200 and des("-d", bytes.fromhex(body)) == b"192.0.2.2,30", body
        iv = bytes(range(16))
        status, body = ask("client-eu", f"?id=7&alg=aes&dn={(iv + openssl('-e', iv, b'www.example.test')).hex()}")
        answer = bytes.fromhex(body)
        assert status == 200 and openssl("-d", answer[:16], answer[16:]) == b"192.0.2.1", body
        assert ask("client-eu", "?token=4309124&dn=www.example.test") == (403, "InvalidToken")
        assert ask("client-eu", "?id=7&dn=00") == (400, "DecryptionFailed")


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
