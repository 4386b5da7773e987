# SPDX-License-Identifier: Apache-2.0
"""The DNS server compared with gdnsd, Knot and NSD, and for DoH with dnsdist: one UDP worker each, on loopback."""

import base64
import ctypes
import ctypes.util
import hashlib
import hmac
import tempfile
import time
from pathlib import Path

from dns_servers import AES_KEY, HTTPDNS, PORT, Place, dnsdist_doh, floor, gdnsd, knot, nsd, tidegate, tidegate_doh
from generators import dns_clients, dnsperf_tcp, h2load, wrk
from http_servers import TLS
from measure import BUILD, BenchError, Contender, Row, Sample, generate, Package, table
from veth import CLIENT, FROM_CLIENT, MIDDLE, SERVER as VETH_SERVER, TO_CLIENT, Pair, counted, in_namespace, nft

HOSTS = 1000
SERVER = f"127.0.0.1:{PORT}"


def lines(folder, name, content):
    path = Path(folder) / name
    path.write_text("\n".join(content) + "\n")
    return path


def ours(name, start, load):
    return Contender(name, "this commit", start, load, ours=name == "tidegate-dns")


def everyone(load):
    return [
        ours("tidegate-dns", tidegate(), load),
        Contender("gdnsd", Package("gdnsd"), gdnsd(), load),
        Contender("knot", Package("knot"), knot(), load),
        Contender("nsd", Package("nsd"), nsd(), load),
        Contender("floor: mmsg echo", "", floor(), load, floor=True),
    ]


def rows():
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-queries-") as folder:
        yield from udp_rows(folder)
        yield from stream_rows(folder)
        yield from size_rows(folder)
        yield veth_row(folder)
        yield goodput_row(folder)


def udp_rows(folder):
    static = lines(folder, "static", [f"h{i}.example.test" for i in range(HOSTS)])
    absent = lines(folder, "absent", [f"no{i}.example.test" for i in range(HOSTS)])
    steered = lines(folder, "steered", ["www.example.test"] * 4096)
    yield Row("dns", "UDP, static A", everyone(dns_clients(SERVER, static)), unit="query")
    yield Row("dns", "UDP, NXDOMAIN", everyone(dns_clients(SERVER, absent)), unit="query")
    with_ecs = dns_clients(SERVER, steered, ecs=True)
    yield Row(
        "dns",
        "UDP, steered by geography, another client subnet in every query",
        [
            ours("tidegate-dns", tidegate(), with_ecs),
            ours("tidegate-dns, static", tidegate(), dns_clients(SERVER, static)),
            Contender("gdnsd", Package("gdnsd"), gdnsd(), with_ecs),
            Contender("floor: mmsg echo", "", floor(), with_ecs, floor=True),
        ],
        unit="query",
    )


def second_form(expiry):
    """A request of /v2/d whose parameters are sealed with AES-128-GCM, and signed."""
    iv = bytes(range(12))
    sealed = iv + aes_gcm(bytes.fromhex(AES_KEY), iv, b'{"dn":"www.example.test","q":"4"}')
    parameters = {"enc": sealed.hex(), "exp": expiry, "id": 1001, "m": 2}
    text = "&".join(f"{name}={value}" for name, value in sorted(parameters.items()))
    return f"http://127.0.0.1:{HTTPDNS}/v2/d?{text}&s={hmac.new(b'bench', text.encode(), hashlib.sha256).hexdigest()}"


def aes_gcm(key, iv, plain):
    """Ciphertext and tag, by libcrypto: neither Python nor the openssl command has it."""
    crypto = ctypes.CDLL(ctypes.util.find_library("crypto"))
    for name in ("EVP_CIPHER_CTX_new", "EVP_aes_128_gcm"):
        getattr(crypto, name).restype = ctypes.c_void_p
    context = ctypes.c_void_p(crypto.EVP_CIPHER_CTX_new())
    out, tag, length = ctypes.create_string_buffer(len(plain) + 16), ctypes.create_string_buffer(16), ctypes.c_int()
    crypto.EVP_EncryptInit_ex(context, ctypes.c_void_p(crypto.EVP_aes_128_gcm()), None, key, iv)
    crypto.EVP_EncryptUpdate(context, out, ctypes.byref(length), plain, len(plain))
    get_tag = 0x10
    crypto.EVP_EncryptFinal_ex(context, tag, ctypes.byref(length))
    crypto.EVP_CIPHER_CTX_ctrl(context, get_tag, 16, tag)
    crypto.EVP_CIPHER_CTX_free(context)
    return out.raw[: len(plain)] + tag.raw


def stream_rows(folder):
    static = lines(folder, "tcp", [f"h{i}.example.test A" for i in range(HOSTS)])
    yield Row("dns", "TCP, static A (latency: mean, worst)", everyone(dnsperf_tcp(PORT, static))[:-1], unit="query")
    expiry = int(time.time()) + 3600
    signature = hashlib.md5(f"www.example.test-bench-{expiry}".encode()).hexdigest()
    signed = f"http://127.0.0.1:{HTTPDNS}/1001/sign_d?host=www.example.test&t={expiry}&s={signature}"
    forwarded = ["X-Forwarded-For: 10.1.2.3"]
    yield Row(
        "dns",
        "HTTPDNS, plain HTTP/1.1 behind a proxy's address: v2 with AES-GCM, v1 signed",
        [
            ours("tidegate-dns", tidegate(), wrk(second_form(expiry), headers=forwarded)),
            ours("tidegate-dns, v1", tidegate(), wrk(signed, headers=forwarded)),
        ],
    )
    question = bytes.fromhex("000001000001000000000000") + b"\x02h1\x07example\x04test\x00\x00\x01\x00\x01"
    doh = f"https://127.0.0.1:{TLS}/dns-query?dns=" + base64.urlsafe_b64encode(question).decode().rstrip("=")
    yield Row(
        "dns",
        "DoH, HTTP/2 over TLS",
        [ours("tidegate-dns", tidegate_doh, h2load(doh)), Contender("dnsdist", Package("dnsdist"), dnsdist_doh, h2load(doh))],
    )


def size_rows(folder):
    million = table(1_000_000)
    start_only = None
    yield Row(
        "dns",
        f"{million:,} records: from start to the first answer",
        [
            ours("tidegate-dns", tidegate(million), start_only),
            Contender("gdnsd", Package("gdnsd"), gdnsd(million), start_only),
            Contender("knot", Package("knot"), knot(million), start_only),
            Contender("nsd", Package("nsd"), nsd(million), start_only),
        ],
        unit="start",
    )
    yield Row(
        "dns",
        "10,000 steered names and 10,000 networks: from start to the first answer",
        [
            ours("tidegate-dns", tidegate(HOSTS, 10_000, 10_000), start_only),
            Contender("gdnsd", Package("gdnsd"), gdnsd(HOSTS, 10_000, 10_000), start_only),
        ],
        unit="start",
    )
    many = lines(folder, "million", [f"h{i * 7919 % million}.example.test" for i in range(100_000)])
    load = dns_clients(SERVER, many)
    yield Row(
        "dns",
        f"UDP, static A out of {million:,}",
        [
            ours("tidegate-dns", tidegate(million), load),
            ours("tidegate-dns, 1,000", tidegate(), dns_clients(SERVER, lines(folder, "thousand", [f"h{i}.example.test" for i in range(HOSTS)]))),
            Contender("gdnsd", Package("gdnsd"), gdnsd(million), load),
            Contender("knot", Package("knot"), knot(million), load),
        ],
        unit="query",
    )


OFFERED = 600_000  # queries per second
FLOWS = 256


PLACE = Place(VETH_SERVER, MIDDLE)
BY_XDP = "tidegate-dns, AF_XDP"


def over_a_veth(load_of, prepare):
    """Contenders behind a Pair's veth. Calls `prepare(pair, is_floor)` once the server runs. The ratios compare
    with AF_XDP."""
    starts = {
        BY_XDP: ("this commit", tidegate(place=PLACE, xdp=TO_CLIENT)),
        "tidegate-dns": ("this commit", tidegate(place=PLACE)),
        "gdnsd": (Package("gdnsd"), gdnsd(place=PLACE)),
        "knot": (Package("knot"), knot(place=PLACE)),
        "nsd": (Package("nsd"), nsd(place=PLACE)),
        "floor: mmsg echo": ("", floor(PLACE)),
    }

    def contender(name, version, start_server):
        def start(in_folder):
            pair = Pair()
            try:
                pair.run(start_server(in_folder))
                prepare(pair, "floor" in name)
            except BaseException:
                pair.stop()
                raise
            return pair

        return Contender(name, version, start, load_of, ours=name == BY_XDP, floor="floor" in name)

    return [contender(name, version, start) for name, (version, start) in starts.items()]


def veth_row(folder):
    static = lines(folder, "veth", [f"h{i}.example.test" for i in range(HOSTS)])
    load = dns_clients(f"{VETH_SERVER}:{PORT}", static, prefix=in_namespace(CLIENT))
    contenders = over_a_veth(load, lambda pair, is_floor: pair.receive_on_both_cores())
    return Row("dns", "UDP, static A over a veth; CPU: all that the server's core did, its interrupts too", contenders, unit="query")


def goodput_row(folder):
    """More than any server can answer: what counts is how many right answers come back. The client's kernel counts
    only answers with an answer section and without an error, and drops them there."""
    names = lines(folder, "goodput", [f"h{i}.example.test" for i in range(100, HOSTS)])  # all names have one length
    right_answer = f"udp sport {PORT} @th,92,4 0 @th,112,16 > 0 counter"
    any_answer = f"udp sport {PORT} counter"

    def count_answers(pair, is_floor):
        nft(CLIENT, "netdev", f"type filter hook ingress device {FROM_CLIENT} priority 0", any_answer if is_floor else right_answer, f"udp sport {PORT} drop")

    def load(seconds):
        before = counted(CLIENT, "netdev")
        out, _ = generate(in_namespace(CLIENT, BUILD / "bench" / "udp_flood", f"{VETH_SERVER}:{PORT}", seconds or 0.1, OFFERED, FLOWS, names))
        sent, took = out.split()
        answered = counted(CLIENT, "netdev") - before
        if answered == 0:
            raise BenchError("no answer was right")
        return Sample(answered, float(took), offered_rate=int(sent) / float(took))

    return Row("dns", f"goodput, {OFFERED:,} queries/s offered over a veth", over_a_veth(load, count_answers), unit="offered")
