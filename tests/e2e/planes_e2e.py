# SPDX-License-Identifier: Apache-2.0
"""Planes as health: a forwarder, proxy or name server that is gone is left by DNS like a dead backend. Their twins: a
control that is started again, and a management network that is cut, take nobody down."""

import contextlib
import os
import signal

from lab import LabError
from marks import long
from netns import ip, wait_until
from topology import DNS_EU, HOSTS, VIP_EU, VIP_US

WWW = "https://www.example.test"


def asked(lab, name="www.example.test", kind="A"):
    return lab.run("client-eu", "dig", "+tries=1", "+time=3", "+short", f"@{DNS_EU[0]}", name, kind).stdout.split()


def plane(lab, node, kind):
    planes = lab.api("GET", "/v1/health").json()["planes"]
    return next(each for each in planes if (each["node"], each["plane"]) == (node, kind))


def wait_for_plane(lab, node, kind, state):
    return wait_until(f"{kind} of {node} is {state}", lambda: (p := plane(lab, node, kind))["state"] == state and p, 30)


def words(lab):
    return lab.api("GET", "/v1/status").json()["head"]["words"]


def metric(lab, name):
    text = lab.api("GET", "/metrics").body.decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name) and line[len(name)] in " {")


@contextlib.contextmanager
def management_cut(lab, host):
    """The management link of a host is down. Its control hears nobody, and nobody hears it."""
    link = lab.run(host, "sh", "-c", "ip -o -4 address | grep ' 10.99.0.'").stdout.split()[1]
    ip(HOSTS[host].namespace, f"link set {link} down")
    try:
        wait_until(f"{host} is silent", lambda: metric(lab, "tidegate_control_silent_hosts") == 1, 30)
        yield
    finally:
        ip(HOSTS[host].namespace, f"link set {link} up")
        wait_until(f"{host} is heard", lambda: metric(lab, "tidegate_control_silent_hosts") == 0, 30)


def restart(lab, host, kind):
    lab.start_plane(host, kind)
    lab.wait_ready(host)
    wait_for_plane(lab, host, kind, "up")
    lab.wait_applied()


def test_a_dead_forwarder_is_left_by_dns_and_found_again(lab):
    lab.settle()
    assert asked(lab) == [VIP_EU[0]]
    lab.process("l4", "l4").kill()
    try:
        wait_until("dns names the other site", lambda: asked(lab) == [VIP_US[0]], 30)
        assert asked(lab, kind="AAAA") == [VIP_US[1]]
        told = plane(lab, "l4", "l4")
        assert told["state"] == "down" and told["why"] == "its process is gone", told
        why = lab.plane("edge", "dns", "/explain?client=10.1.0.2&name=www.example.test").body.decode()
        assert "no forwarder of the vip is up: l4 of node l4: its process is gone" in why, why
        rows = lab.tidegate("health").stdout
        assert "its process is gone" in rows, rows
        assert 'tidegate_control_plane_up{node="l4",plane="l4"} 0' in lab.api("GET", "/metrics").body.decode()
        assert lab.curl("client-eu", WWW + "/", vip=VIP_US[0]).stdout == "the origin's front page\n"
    finally:
        restart(lab, "l4", "l4")
    wait_until("dns names the site again", lambda: asked(lab) == [VIP_EU[0]], 30)


def test_a_cut_management_network_takes_nobody_down(lab):
    lab.settle()
    before, probes = words(lab), metric(lab, "tidegate_control_plane_probes_total")
    with management_cut(lab, "l4"):
        wait_until("its clients' way is probed", lambda: metric(lab, "tidegate_control_plane_probes_total") >= probes + 4, 30)
        assert words(lab) == before, "nothing was written"
        assert asked(lab) == [VIP_EU[0]]
    assert words(lab) == before


@long
def test_a_silent_host_whose_clients_get_no_answer_is_down(lab):
    lab.settle()
    with management_cut(lab, "l4"):
        lab.process("l4", "l4").kill()
        told = wait_for_plane(lab, "l4", "l4", "down")
        assert "its host is silent, and clients get no answer" in told["why"], told
        wait_until("dns names the other site", lambda: asked(lab) == [VIP_US[0]], 30)
        lab.start_plane("l4", "l4")
        wait_for_plane(lab, "l4", "l4", "up")
        wait_until("dns names the site again", lambda: asked(lab) == [VIP_EU[0]], 30)
    lab.wait_ready("l4")
    lab.wait_applied()


def test_a_control_that_is_started_again_takes_nobody_down(lab):
    lab.settle()
    before = words(lab)
    for host in ("l4", "proxy1", "us1"):
        lab.process(host, "control").kill()
        lab.start_control(host)
    lab.process("edge", "control").kill()
    lab.start_control("edge")
    wait_until("the leader hears all again", lambda: lab.api("GET", "/v1/status").json()["converged"] and metric(lab, "tidegate_control_silent_hosts") == 0, 30)
    assert words(lab) == before and asked(lab) == [VIP_EU[0]]


def test_a_forwarder_without_its_link_is_down_and_comes_back(lab):
    lab.settle()
    ip(HOSTS["l4"].namespace, "link set eth0 down")
    try:
        told = wait_for_plane(lab, "l4", "l4", "down")
        assert "eth0" in told["why"], told
        wait_until("dns names the other site", lambda: asked(lab) == [VIP_US[0]], 30)
    finally:
        ip(HOSTS["l4"].namespace, "link set eth0 up")
    wait_for_plane(lab, "l4", "l4", "up")
    wait_until("dns names the site again", lambda: asked(lab) == [VIP_EU[0]], 30)


def test_an_operator_keeps_a_plane_in_service_whatever_control_finds(lab):
    lab.settle()
    lab.tidegate("drain", "plane", "l4/l4", "--up", "--note", "the probe is wrong", "--wait")
    lab.process("l4", "l4").kill()
    try:
        wait_until("control has found it", lambda: "health" in plane(lab, "l4", "l4") and not plane(lab, "l4", "l4")["health"]["up"], 30)
        told = plane(lab, "l4", "l4")
        assert told["state"] == "up" and "kept in service" in told["why"] and "the probe is wrong" in told["why"], told
        assert asked(lab) == [VIP_EU[0]]
        lab.tidegate("undrain", "plane", "l4/l4", "--wait")
        assert asked(lab) == [VIP_US[0]]
    finally:
        restart(lab, "l4", "l4")
    lab.tidegate("drain", "plane", "l4/l4", "--wait")
    assert asked(lab) == [VIP_US[0]], "a drained forwarder leads no new client to its VIP"
    lab.tidegate("undrain", "plane", "l4/l4", "--wait")
    assert asked(lab) == [VIP_EU[0]]
    for arguments, hint in ((("site", "eu"), "--up is for planes"), (("plane", "l4"), "NODE/PLANE"), (("plane", "l4/dns"), "its planes are l4")):
        try:
            lab.tidegate("drain", *arguments, "--up")
        except LabError as refused:
            assert hint in str(refused), refused
        else:
            raise AssertionError(f"{arguments} was taken")


@long
def test_a_name_server_that_hangs_is_down_and_its_site_is_told(lab):
    lab.settle()
    process = lab.process("us1", "dns")
    os.kill(process.pid, signal.SIGSTOP)
    try:
        told = wait_for_plane(lab, "us1", "dns", "down")
        assert "does not answer for 5000 ms" in told["why"], told
    finally:
        os.kill(process.pid, signal.SIGCONT)
    wait_for_plane(lab, "us1", "dns", "up")
    lab.wait_applied()
