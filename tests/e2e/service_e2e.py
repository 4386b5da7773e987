# SPDX-License-Identifier: Apache-2.0
"""What an operator sees of daemons that cannot start, that crash, or that are started twice: under `tidegate run`, under a
service manager, and in the units of systemd."""

import contextlib
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import box
from lab import BUILD, binary, open_socket
from netns import ip, sh, wait_until
from topology import PREFIX
from upgrading import ZONE, DnsLoad, Manager, dns_document, end_all, upgrade

TIDEGATE = BUILD / "control" / "tidegate"
SYSTEMD = Path(__file__).resolve().parents[2] / "packaging" / "systemd"
HOST = "10.10.0.66"
BOTH = f"""
nodes: [{{name: up, dns: {{listen: ["{HOST}:53"], workers: 1}}, l7: {{workers: 1, access_log: "-"}}}}]
zones: [{{name: example.test, file: example.test.zone}}]
listeners: [{{name: http, bind: ["{HOST}:80"]}}]
routes: [{{name: all, status: 200, body: "here"}}]
"""


@contextlib.contextmanager
def machine_with(document):
    with box.raised("up", 66) as machine:
        machine.write("example.test.zone", ZONE)
        machine.write("up.yaml", document)
        try:
            yield machine
        finally:
            end_all(machine)


@contextlib.contextmanager
def taken(kind, port):
    """A stranger has the port."""
    with open_socket("up", socket.AF_INET, kind) as sock:
        sock.bind((HOST, port))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        yield


def run_node(machine, *options):
    return machine.start("run", TIDEGATE, "run", machine.home / "up.yaml", "--node", "up", "--state", machine.state_dir, "--run", machine.run_dir, *options)


def pid(machine, plane="dns"):
    return machine.ask(plane, "/status").json()["pid"]


def test_run_ends_with_one_message_if_a_daemon_cannot_start(lab):
    for plane, kind, port, words in (
        ("dns", socket.SOCK_DGRAM, 53, f"cannot listen on {HOST}:53: Address already in use"),
        ("l7", socket.SOCK_STREAM, 80, f"listener http: cannot bind {HOST}:80: Address already in use"),
    ):
        with machine_with(BOTH) as machine, taken(kind, port):
            supervisor = run_node(machine)
            assert supervisor.popen.wait(60) == 1, supervisor.tail()
            said = supervisor.log.read_text()
            assert f"tidegate-{plane}: " in said and words in said, said
            assert said.count(f"{plane:<7} | exit status 1: it cannot run, and is not started again") == 1, said
            assert said.count(f"tidegate run: {plane} cannot run, so all end") == 1 and "starting it again" not in said, said
            assert machine.pids() == set(), "nothing of it is left"


def test_a_plane_whose_port_is_taken_ends_with_one_message_and_is_never_ready(lab):
    """As the units have it: alone, and beside a control that has a version already."""
    with machine_with(BOTH) as machine:
        control = machine.start("control", binary("control"), "--config", machine.home / "up.yaml", "--state", machine.state_dir, "--run", machine.run_dir, "--node", "up")
        wait_until("control has a version", lambda: "version 1, leading" in control.log.read_text(), 60, control)
        for plane, kind, port in (("dns", socket.SOCK_DGRAM, 53), ("l7", socket.SOCK_STREAM, 80)):
            manager = Manager(machine.home / f"notify-{plane}")
            try:
                with taken(kind, port):
                    daemon = machine.start(plane, "env", f"NOTIFY_SOCKET={manager.path}", binary(plane), "--state", machine.state_dir, "--run", machine.run_dir, "--node", "up")
                    assert daemon.popen.wait(60) == 1, daemon.tail()
                assert daemon.log.read_text().count(f"tidegate-{plane}: ") == 1 and "Address already in use" in daemon.tail(), daemon.tail()
                manager.socket.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while message := manager.socket.recv(4096):
                        assert b"READY=1" not in message, message
                again = machine.start(plane, binary(plane), "--state", machine.state_dir, "--run", machine.run_dir, "--node", "up")
                machine.wait_ready(plane, again)
            finally:
                manager.socket.close()


def test_a_daemon_that_cannot_start_again_stays_down_and_the_others_go_on(lab):
    """It has served. After a crash something is missing."""
    with machine_with(BOTH) as machine:
        secret = machine.write("secret", "a secret of the site\n")
        supervisor = run_node(machine, "--secret", secret)
        said = lambda words: words in supervisor.log.read_text()
        for plane in ("dns", "l7"):
            machine.wait_ready(plane, supervisor)
        secret.unlink()
        os.kill(pid(machine), signal.SIGKILL)
        wait_until("it is told", lambda: said("tidegate run: dns is down until tidegate run is started again; the others go on"), 60, supervisor)
        assert said("dns     | killed by signal 9; starting it again in 100 ms")
        assert said("cannot read the secret file") and said("dns     | exit status 1: it cannot run, and is not started again")
        assert machine.ask("l7", "/healthz").status == 200 and supervisor.running()
        assert supervisor.stop() == 0 and machine.pids() == set(), supervisor.tail()


def test_a_daemon_that_crashes_again_and_again_is_started_after_longer_and_longer_pauses(lab):
    """SIGKILL is how the kernel ends a process for want of memory."""
    with machine_with(dns_document(1)) as machine:
        supervisor = run_node(machine)
        machine.wait_ready("dns", supervisor)
        for pause_ms in (100, 200, 400):
            before = pid(machine)
            os.kill(before, signal.SIGKILL)
            wait_until("it runs again", lambda before=before: pid(machine) != before and machine.ask("dns", "/healthz").status == 200, 60, supervisor)
            assert f"dns     | killed by signal 9; starting it again in {pause_ms} ms" in supervisor.log.read_text(), supervisor.tail()
        assert supervisor.stop() == 0, supervisor.tail()


def test_a_daemon_that_lacks_what_may_come_is_started_again_until_it_comes(lab):
    """An address of its host, and room on its disk."""
    with machine_with(BOTH) as machine:
        tokens = machine.write("tokens", f"admin {'t' * 32} test\n")
        tokens.chmod(0o600)
        supervisor = run_node(machine, "--listen", "10.10.0.67:9090", "--tokens", tokens, "--insecure")
        wait_until("it is tried again and again", lambda: "control | exit status 75; starting it again in 400 ms" in supervisor.log.read_text(), 60, supervisor)
        assert supervisor.log.read_text().count("10.10.0.67:9090: Cannot assign requested address") >= 3, supervisor.tail()
        ip(machine.host.namespace, "addr add 10.10.0.67/24 dev eth0")
        for plane in ("dns", "l7"):
            machine.wait_ready(plane, supervisor)
        assert supervisor.stop() == 0 and "cannot run" not in supervisor.log.read_text(), supervisor.tail()
        state = machine.home / "full"
        state.mkdir()
        sh("mount", "-t", "tmpfs", "-o", "size=2m", "tidegate-test", state)
        try:
            (state / "filler").write_bytes(bytes(2 << 20))
            daemon = machine.start("control", binary("control"), "--config", machine.home / "up.yaml", "--state", state, "--run", machine.run_dir, "--node", "up")
            assert daemon.popen.wait(60) == 75 and "No space left on device" in daemon.tail(), daemon.tail()
            (state / "filler").unlink()
            daemon = machine.start("control", binary("control"), "--config", machine.home / "up.yaml", "--state", state, "--run", machine.run_dir, "--node", "up")
            wait_until("it begins when there is room", lambda: "version 1, leading" in daemon.log.read_text(), 60, daemon)
            daemon.stop()
        finally:
            sh("umount", state)


class MemoryGroup:
    """A control group with little memory: the kernel ends a process in it that takes more, as in a unit with MemoryMax=."""

    LIMIT_BYTES = 4 << 20

    def __init__(self, name):
        root = Path("/sys/fs/cgroup")
        self.has_version_1 = (root / "memory").is_dir()
        self.path = (root / "memory" if self.has_version_1 else root) / name

    def __enter__(self):
        self.path.mkdir()
        limit = "memory.limit_in_bytes" if self.has_version_1 else "memory.max"
        (self.path / limit).write_text(str(self.LIMIT_BYTES))
        return self

    def __exit__(self, *_):
        wait_until("the group is empty", lambda: not (self.path / "cgroup.procs").read_text(), 30)
        self.path.rmdir()

    def take(self, process):
        (self.path / "cgroup.procs").write_text(str(process))

    def ended(self):
        """How many processes the kernel has ended."""
        told = self.path / ("memory.oom_control" if self.has_version_1 else "memory.events")
        return int(re.search(r"^oom_kill (\d+)$", told.read_text(), re.MULTILINE)[1])


def test_a_daemon_that_takes_too_much_memory_is_started_again_and_the_others_go_on(lab):
    with machine_with(BOTH) as machine, MemoryGroup(f"{PREFIX}-up") as group, contextlib.ExitStack() as stack:
        supervisor = run_node(machine)
        for plane in ("dns", "l7"):
            machine.wait_ready(plane, supervisor)
        before, names = pid(machine, "l7"), pid(machine, "dns")
        usual, may_lower = oom_rank("self"), subprocess.run(["choom", "-n", "-500", "--", "true"], stderr=subprocess.DEVNULL).returncode == 0
        ranks = [oom_rank(process) for process in (supervisor.pid, names, before)]
        assert ranks == [min(usual, -500), min(usual, -500), usual] if may_lower else ranks == [usual] * 3, (ranks, may_lower)
        group.take(before)
        field = b"GET / HTTP/1.1\r\nhost: a.test\r\nx: " + b"x" * 12_000
        while group.ended() == 0:
            client = stack.enter_context(open_socket("up", socket.AF_INET, socket.SOCK_STREAM))
            client.settimeout(20)
            with contextlib.suppress(ConnectionError):
                client.connect((HOST, 80))
                client.sendall(field)
            assert supervisor.running(), supervisor.tail()
        wait_until("it runs again", lambda: pid(machine, "l7") != before and machine.ask("l7", "/healthz").status == 200, 60, supervisor)
        said = supervisor.log.read_text()
        assert "l7      | killed by signal 9; starting it again in 100 ms" in said and said.count("starting it again") == 1, said
        assert pid(machine, "dns") == names and group.ended() == 1
        assert supervisor.stop() == 0, supervisor.tail()


def oom_rank(process):
    return int(Path(f"/proc/{process}/oom_score_adj").read_text())


def test_run_in_a_relative_folder_upgrades_like_any_other(lab):
    with machine_with(dns_document(1)) as machine:
        supervisor = machine.start("run", "sh", "-c", 'cd "$0" && exec "$1" run up.yaml --node up --state state --run run', machine.home, TIDEGATE)
        machine.wait_ready("dns", supervisor)
        before = pid(machine)
        with DnsLoad("client-eu", [machine.host.v4]) as load:
            done = upgrade(machine.run_dir, "dns")
            assert done.returncode == 0, done
            load.wait_for(20)
        assert load.lost == [], load.lost[:5]
        said = supervisor.log.read_text()
        assert f"upgraded: process {pid(machine)} serves, process {before} finishes its connections" in said, said
        assert "starting it again" not in said and "cannot tell" not in said, said
        assert supervisor.stop() == 0, supervisor.tail()


def test_a_second_run_in_one_folder_is_refused_and_the_first_one_goes_on(lab):
    with machine_with(dns_document(1)) as machine:
        supervisor = run_node(machine)
        machine.wait_ready("dns", supervisor)
        second = machine.tidegate("run", machine.home / "up.yaml", "--node", "up", "--state", machine.home / "other", "--run", machine.run_dir)
        assert second.returncode == 1 and f"another tidegate run, process {supervisor.pid}, has the folder {machine.run_dir}" in second.stderr, second
        done = upgrade(machine.run_dir, "dns")
        assert done.returncode == 0 and "upgraded: " in supervisor.log.read_text(), (done, supervisor.tail())
        supervisor.popen.kill()
        supervisor.popen.wait(20)
        wait_until("nothing outlives it", lambda: machine.pids() == set(), 60)
        again = run_node(machine)
        machine.wait_ready("dns", again)


def test_the_decapsulator_runs_with_what_its_unit_gives_it_and_feeds_its_watchdog(lab):
    """No user of its own that stays, two capabilities."""
    unit = (SYSTEMD / "tidegate-decap.service").read_text()
    capabilities = ",".join(["-all", *(f"+{name[4:].lower()}" for name in re.search(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)[1].split())])
    with box.raised("up", 66) as machine:
        manager = Manager(machine.home / "notify")
        try:
            machine.run_dir.chmod(0o777)
            machine.home.chmod(0o755)
            manager.path.chmod(0o777)
            limits = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set", capabilities, "--inh-caps", capabilities, "--ambient-caps", capabilities, "--no-new-privs")
            daemon = machine.start("decap", "env", f"NOTIFY_SOCKET={manager.path}", "WATCHDOG_USEC=1000000", *limits, BUILD / "l4" / "tidegate-decap", "--run", machine.run_dir, "--from", "10.10.0.0/24")
            wait_until("it runs", lambda: machine.ask("decap", "/healthz").status == 200, 30, daemon)
            manager.wait_for(daemon.pid, "READY=1")
            manager.wait_for(daemon.pid, "WATCHDOG=1")
            assert daemon.stop() == 0, daemon.tail()
        finally:
            manager.socket.close()


class Unit:
    """back-off as systemd calls it. The pauses are told, and nobody waits."""

    def __init__(self, home):
        self.home = home
        (home / "bin").mkdir()
        for name, text in (("sleep", 'echo "$1" >> "$0.said"'), ("date", 'cat "$0.now"')):
            (home / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
            (home / "bin" / name).chmod(0o755)
        self.now = 1_000

    def call(self, when, **environment):
        (self.home / "bin" / "date.now").write_text(f"{self.now}\n")
        environment |= {"PATH": f"{self.home}/bin:/usr/bin:/bin", "RUNTIME_DIRECTORY": str(self.home)}
        done = subprocess.run([SYSTEMD / "back-off", when, "l7"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0 and bool(done.stdout) == ("in a row" in done.stdout), done

    def started(self):
        """Returns for how many seconds the start was put off."""
        said = self.home / "bin" / "sleep.said"
        said.unlink(missing_ok=True)
        self.call("before-start")
        return int(said.read_text()) if said.exists() else 0

    def ended(self, result, status, after_s=1):
        self.now += after_s
        self.call("after-end", SERVICE_RESULT=result, EXIT_STATUS=str(status))


def test_units_start_a_daemon_that_crashes_after_longer_and_longer_pauses(lab):
    with box.raised("up", 66) as machine:
        unit = Unit(machine.home)
        assert unit.started() == 0
        pauses = []
        for result, status in [("signal", "SEGV"), ("oom-kill", "KILL"), ("watchdog", "ABRT"), ("exit-code", 75)] * 2:
            unit.ended(result, status)
            pauses.append(unit.started())
        assert pauses == [0, 1, 2, 4, 8, 16, 30, 30], pauses
        unit.ended("signal", "SEGV", after_s=60)
        assert unit.started() == 0, "it ran for a minute"
        for result, status in (("success", 0), ("exit-code", 1), ("exit-code", 2), ("exit-code", 203), ("exit-code", 216), ("exit-code", 217)):
            for _ in range(3):
                unit.ended("signal", "SEGV")
            unit.ended(result, status)
            assert unit.started() == 0, (result, status)


def test_every_unit_backs_off_and_ends_for_good_when_another_start_would_not_help(lab):
    units = list(SYSTEMD.glob("*.service"))
    assert len(units) == 5
    for path in units:
        text, name = path.read_text(), path.stem.removeprefix("tidegate-")
        for line in (f"ExecStartPre=-/usr/lib/tidegate/back-off before-start {name}", f"ExecStopPost=-/usr/lib/tidegate/back-off after-end {name}", "Restart=on-failure", "StartLimitIntervalSec=0", "RestartPreventExitStatus=1 2 EXEC GROUP USER", "OOMPolicy=continue", "Type=notify", "NotifyAccess=main", "WatchdogSec=30"):
            assert re.search(f"^{re.escape(line)}$", text, re.MULTILINE), (path, line)
