# SPDX-License-Identifier: Apache-2.0
"""Probes of what clients use, against real servers: the name server by a query, nginx by its certificate and by what it
answers, a UDP responder, a health service of gRPC."""

import contextlib
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

import box
from lab import binary
from marks import long
from netns import Process, open_socket, wait_until
from segment import serve
from topology import DNS_EU, HOSTS, VIP_EU

HERE = Path(__file__).resolve().parent
GRPC_PACKAGE = "@grpc/grpc-js@1.14.7"
ORIGIN = "10.10.0.21"
TLS_PORT, UDP_PORT = 8444, 7001
NGINX = """worker_processes 1; error_log stderr warn; pid {home}/tls.pid; events {{ worker_connections 64; }}
http {{ access_log off; client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
server {{ listen {address}:{port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key}; return 204; }} }}
"""


def word(lab, name):
    return lab.api("GET", "/v1/health").json()["words"].get(f"backend/{name}/it")


def wait_for_words(lab, **wanted):
    def told():
        words = {name: word(lab, name) for name in wanted}
        return all(words[name] and words[name]["up"] == up for name, up in wanted.items())

    wait_until(f"the verdicts are {wanted}", told)


@contextlib.contextmanager
def probed(lab, **probes):
    """The lab's document with a pool for each probe: name=(address, keys of the probe)."""
    pools = "".join(f"  - {{name: {name}, probe: {name}, backends: [{{name: it, addresses: [{address}]}}]}}\n" for name, (address, _) in probes.items())
    keys = "".join(f"  - {{name: {name}, interval: 100ms, rise: 1, fall: 1, {more}}}\n" for name, (_, more) in probes.items())
    with lab.configured(("pools:\n", "pools:\n" + pools), ("probes:\n", "probes:\n" + keys)):
        yield


@contextlib.contextmanager
def nginx_by_tls(lab):
    """nginx on origin1 with the lab's certificate, which ends in 30 days."""
    edge = lab.directory("edge")
    with tempfile.TemporaryDirectory(prefix="tidegate-tls-") as home:
        config = Path(home) / "nginx.conf"
        config.write_text(NGINX.format(home=home, address=ORIGIN, port=TLS_PORT, certificate=edge / "example.crt", key=edge / "example.key"))
        command = ["nginx", "-p", home, "-c", config, "-e", "stderr", "-g", "daemon off;"]
        process = Process(HOSTS["origin1"].namespace, "origin1/nginx-tls", command, lab.log("origin1", "nginx-tls")).start()
        try:
            wait_until("nginx listens", lambda: lab.tcp_opens("origin1", ORIGIN, TLS_PORT), process=process)
            yield process
        finally:
            process.stop()


@contextlib.contextmanager
def udp_responder():
    """Answers each datagram with `origin1`."""
    server = open_socket(HOSTS["origin1"].namespace, socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((ORIGIN, UDP_PORT))
    thread = threading.Thread(target=serve, args=(server, "origin1"), daemon=True)
    thread.start()
    try:
        yield
    finally:
        with open_socket(HOSTS["origin1"].namespace, socket.AF_INET, socket.SOCK_DGRAM) as stopper:
            stopper.sendto(b"quit", (ORIGIN, UDP_PORT))
        thread.join(10)
        server.close()


def failures(lab):
    text = lab.api("GET", "/metrics").body.decode()
    return {line.split('"')[1]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("tidegate_control_probe_failures_total{")}


def test_each_type_says_up_and_down_of_real_servers(lab):
    lab.settle()
    request = r"HEAD {} HTTP/1.0\r\nHost: x\r\n\r\n"
    by_tls = f"type: tls, port: {TLS_PORT}, host: www.example.test, tls_verify: false"
    before = failures(lab)
    with nginx_by_tls(lab), udp_responder(), probed(
        lab,
        zone=(DNS_EU[0], "type: dns, port: 53, dns_name: example.test, dns_type: SOA"),
        no_zone=(DNS_EU[0], "type: dns, port: 53, dns_name: elsewhere.test, dns_type: SOA"),
        refused_zone=(DNS_EU[0], "type: dns, port: 53, dns_name: elsewhere.test, dns_type: SOA, dns_rcode: REFUSED"),
        good_days=(ORIGIN, f"{by_tls}, tls_days: 7"),
        few_days=(ORIGIN, f"{by_tls}, tls_days: 60"),
        unknown_authority=(ORIGIN, f"type: tls, port: {TLS_PORT}, host: www.example.test"),
        no_tls=(ORIGIN, "type: tls, port: 8080, host: www.example.test"),
        spoken=(ORIGIN, f"type: tcp, port: 8080, send: '{request.format('/')}', expect: '200 OK\\r\\n'"),
        unspoken=(ORIGIN, f"type: tcp, port: 8080, send: '{request.format('/none')}', expect: '200 OK\\r\\n'"),
        answered=(ORIGIN, f"type: udp, port: {UDP_PORT}, send: '\\x00who', expect: origin1"),
        unanswered=(ORIGIN, f"type: udp, port: {UDP_PORT}, send: '\\x00who', expect: origin2"),
        nobody=(ORIGIN, "type: udp, port: 9, send: x"),
        no_grpc=(ORIGIN, "type: grpc, port: 8080"),
    ):  # fmt: skip
        wait_for_words(
            lab, zone=True, no_zone=False, refused_zone=True, good_days=True, few_days=False, unknown_authority=False, no_tls=False, spoken=True, unspoken=False,
            answered=True, unanswered=False, nobody=False, no_grpc=False,
        )  # fmt: skip
        reasons = {name: word(lab, name)["reason"] for name in ("no_zone", "few_days", "unspoken", "unanswered", "nobody", "no_grpc", "unknown_authority")}
        assert reasons["no_zone"] == "answers REFUSED, expected NOERROR", reasons
        assert "60 are expected" in reasons["few_days"], reasons
        assert r"the answer lacks '200 OK\r\n'" in reasons["unspoken"], reasons
        assert reasons["unanswered"] == "the answer lacks 'origin2'", reasons
        assert reasons["nobody"] == "connect refused", reasons
        assert "self-signed certificate" in reasons["unknown_authority"], reasons
        after = failures(lab)
        for reason in ("answer", "certificate", "refused"):
            assert after[reason] > before.get(reason, 0), (before, after)
    lab.settle()


def test_a_backend_that_answers_at_its_own_address_and_not_for_the_vip_is_down(lab):
    """The trap of direct server return. The leader's host orders the probe from the host of the forwarder."""
    lab.settle()
    vip = VIP_EU[0]
    probe = "probes:\n  - {name: for-the-vip, type: tcp, via: vip, interval: 100ms, timeout: 300ms, rise: 1, fall: 2}\n"
    pool = "name: proxies-eu\n    probe: "

    def told(backend):
        return lab.api("GET", "/v1/health").json()["words"].get(f"backend/proxies-eu/{backend}", {})

    def asked_dns():
        return sorted(lab.run("client-eu", "dig", "+short", f"@{DNS_EU[0]}", "proxies.example.test", "A").stdout.split())

    def picked():
        services = lab.plane("l4", "l4", "/services").json()["services"]
        return {name["backend"] for service in services if service["pool"] == "proxies-eu" for name in service["backends"]}

    def used(*numbers):
        """The verdicts, the forwarder's tables and the answers of DNS agree."""
        up = [number for number in (1, 2) if told(f"proxy{number}").get("up")]
        return up == [*numbers] and picked() == {f"proxies-eu/proxy{n}" for n in numbers} and asked_dns() == [f"10.10.0.1{n}" for n in numbers]

    with lab.configured(("probes:\n", probe), (pool + "proxy-alive", pool + "for-the-vip")):
        wait_until("both answer for the VIP", lambda: used(1, 2))
        lab.run("proxy2", "ip", "addr", "del", f"{vip}/32", "dev", "lo")
        try:
            wait_until("proxy2 is left by every plane", lambda: used(1))
            assert told("proxy2")["reason"] == f"{vip}:443: nothing for 300 ms", told("proxy2")
            assert lab.tcp_opens("edge", "10.10.0.12", 443), "it answers at its own address"
        finally:
            lab.run("proxy2", "ip", "addr", "add", f"{vip}/32", "dev", "lo")
        wait_until("proxy2 is back", lambda: used(1, 2))
    lab.settle()


@long
def test_a_health_service_by_grpc_js_says_what_serves(lab):
    edge = lab.directory("edge")
    with tempfile.TemporaryDirectory(prefix="tidegate-grpc-") as home:
        install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--cache", f"{home}/cache", "--prefix", home, GRPC_PACKAGE]
        got = subprocess.run(install, capture_output=True, text=True, timeout=120, cwd=home)
        assert got.returncode == 0, f"npm could not install {GRPC_PACKAGE}, which this test is made of: {got.stderr[-1000:]}"
        command = ["env", f"NODE_PATH={home}/node_modules", "node", HERE / "grpc_health.js", ORIGIN, 8097, 8098, edge / "example.crt", edge / "example.key"]
        process = Process(HOSTS["origin1"].namespace, "origin1/grpc-health", command, lab.log("origin1", "grpc-health")).start()
        try:
            for port in (8097, 8098):
                wait_until("the service listens", lambda p=port: lab.tcp_opens("origin1", ORIGIN, p), process=process)
            by_tls = "type: grpc, port: 8098, tls: true, tls_verify: false, host: www.example.test"
            with probed(
                lab,
                whole=(ORIGIN, "type: grpc, port: 8097"),
                orders=(ORIGIN, "type: grpc, port: 8097, grpc_service: app.Orders"),
                paused=(ORIGIN, "type: grpc, port: 8097, grpc_service: app.Paused"),
                unknown=(ORIGIN, "type: grpc, port: 8097, grpc_service: app.Other"),
                orders_by_tls=(ORIGIN, f"{by_tls}, grpc_service: app.Orders"),
                paused_by_tls=(ORIGIN, f"{by_tls}, grpc_service: app.Paused"),
                clear_to_tls=(ORIGIN, "type: grpc, port: 8098"),
            ):
                wait_for_words(lab, whole=True, orders=True, paused=False, unknown=False, orders_by_tls=True, paused_by_tls=False, clear_to_tls=False)
                assert word(lab, "paused")["reason"] == "status NOT_SERVING, expected SERVING"
                assert word(lab, "unknown")["reason"] == "grpc-status 5"
                process.stop()
                wait_for_words(lab, whole=False, orders=False, orders_by_tls=False)
        finally:
            process.stop()
    lab.settle()


def test_a_command_decides_and_ends_with_control(lab):
    with box.raised("cmd", 63) as machine:
        programs, mark = machine.home / "programs", machine.home / "mark"
        programs.mkdir(mode=0o755)
        mark.write_text("well")
        mark.chmod(0o644)
        for name, script in (("mark_is", f'test "$(cat {mark})" = "$1" || {{ cat {mark}; exit 2; }}'), ("hang", "sleep 1000 & sleep 1000")):
            (programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (programs / name).chmod(0o755)
        probes = "".join(f"  - {{name: {name}, type: command, port: 8080, command: [{command}], interval: 50ms, timeout: 5m, rise: 1, fall: 1}}\n" for name, command in (("p", "mark_is, well"), ("h", "hang")))
        pools = "".join(f"  - {{name: {pool}, probe: {probe}, backends: [{{name: it, addresses: [10.10.0.21]}}]}}\n" for pool, probe in (("told", "p"), ("silent", "h")))
        config = machine.write("edge.yaml", f"sites: [{{name: eu}}]\nnodes: [{{name: cmd, site: eu}}]\nprobes:\n{probes}pools:\n{pools}")
        control = machine.start(
            "control", binary("control"), "--state", machine.state_dir, "--run", machine.run_dir, "--node", "cmd", "--config", config, "--probe-commands", programs,
        )  # fmt: skip
        told = lambda: machine.ask("control", "/v1/health").json()["words"].get("backend/told/it")
        wait_until("the command says up", lambda: (word := told()) and word["up"], process=control)
        mark.write_text("no room\n")
        wait_until("the command says down", lambda: not told()["up"], process=control)
        assert told()["reason"] == "exit status 2: no room", told()
        wait_until("the other one hangs", lambda: len(machine.pids()) >= 3, process=control)
        control.kill()
        # The kernel ends the program itself. Processes that it started may outlive it, in their own process group.
        left = lambda: [pid for pid in machine.pids() if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/bin/sh")]
        wait_until("no program is left", lambda: not left())
