# SPDX-License-Identifier: Apache-2.0
"""Daemons that crash under a service manager which keeps their sockets: nobody is refused meanwhile."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import time

import box
from lab import binary, open_socket
from netns import in_namespace, wait_until
from upgrading import ZONE, DnsLoad, end_all, is_gone, upgrade

NUMBER = 84
ADDRESS = f"10.10.0.{NUMBER}"
REQUEST = b"GET / HTTP/1.1\r\nHost: www.example.test\r\nConnection: close\r\n\r\n"
# Descriptors from 200 on become those from 3 on, for the process that the shell becomes.
SHELL = 'n=$1; shift; for ((i = 0; i < n; ++i)); do eval "exec $((3 + i))<&$((200 + i)) $((200 + i))<&-"; done; LISTEN_PID=$$ exec "$@"'


class KeepingManager:
    """What systemd does for a unit with NotifyAccess=main and FileDescriptorStoreMax=: it hears the main process alone,
    keeps what that sends, and gives it to the next one (sd_notify(3), sd_listen_fds(3))."""

    def __init__(self, machine, *command):
        self.machine, self.command, self.path = machine, command, machine.home / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(str(self.path))
        self.kept, self.main, self.ready, self.popen = {}, None, False, None

    def start(self):
        self.ready = False
        given = [os.dup2(fd, 200 + i) for i, fd in enumerate(self.kept.values())]
        environment = {**os.environ, "NOTIFY_SOCKET": str(self.path), "LISTEN_FDS": str(len(given)), "LISTEN_FDNAMES": ":".join(self.kept)}
        command = in_namespace(self.machine.host.namespace, "bash", "-c", SHELL, "start", len(given), *self.command)
        with open(self.machine.home / "kept.log", "ab") as log:
            self.popen = subprocess.Popen(command, env=environment, pass_fds=given, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        for fd in given:
            os.close(fd)
        self.main = self.popen.pid
        self.hear_until("it is ready", lambda: self.ready)

    def hear_until(self, what, condition):
        deadline = time.monotonic() + 60
        while not condition():
            self.socket.settimeout(deadline - time.monotonic())
            try:
                self.hear(*self.socket.recvmsg(4096, 256))
            except TimeoutError:
                raise AssertionError(f"{what}: it was never said; kept: {self.kept}") from None

    def hear(self, message, control, *_):
        pid, descriptors = None, []
        for _, kind, data in control:
            if kind == socket.SCM_CREDENTIALS:
                pid = struct.unpack("iII", data)[0]
            elif kind == socket.SCM_RIGHTS:
                descriptors = list(struct.unpack(f"{len(data) // 4}i", data))
        words = dict(line.split("=", 1) for line in message.decode().splitlines())
        keeps = pid == self.main and "FDSTORE" in words
        for fd in descriptors:
            if keeps and not any(os.path.sameopenfile(fd, known) for known in self.kept.values()):
                assert words["FDPOLL"] == "0" and ":" not in words["FDNAME"] and words["FDNAME"] not in self.kept, words
                self.kept[words["FDNAME"]] = fd
            else:
                os.close(fd)
        if pid != self.main:
            return
        if "FDSTOREREMOVE" in words:
            os.close(self.kept.pop(words["FDNAME"]))
        self.ready |= words.get("READY") == "1"
        self.main = int(words.get("MAINPID", self.main))

    def crash(self):
        os.kill(self.main, signal.SIGKILL)
        wait_until("the process has ended", lambda: is_gone(self.main), 20)

    def close(self):
        end_all(self.machine)
        self.popen.wait(20)
        for fd in self.kept.values():
            os.close(fd)
        self.socket.close()


@contextlib.contextmanager
def managed(plane, files):
    with box.raised("kept", NUMBER) as machine:
        for name, text in files.items():
            machine.write(name, text)
        manager = KeepingManager(machine, binary(plane), "--config", machine.home / "edge.yaml", "--run", machine.run_dir, "--node", "kept", "--secret", machine.write("secret", "0123456789abcdef0123456789abcdef"))
        try:
            manager.start()
            yield machine, manager
        finally:
            manager.close()


def proxy(ports, workers=2):
    binds = ", ".join(f"'{ADDRESS}:{port}'" for port in ports)
    return (
        f"nodes: [{{name: kept, l7: {{workers: {workers}}}}}]\nlisteners: [{{name: web, bind: [{binds}]}}]\n"
        "policies: [{name: four, limit: {requests: 4, per: 1h}}]\n"
        "routes: [{name: all, path: '/*', status: 200, body: served}, {name: limited, path: /limited, status: 200, policies: [four]}]\n"
    )


def dial(port=80):
    sock = open_socket("client-eu", socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(30)
    sock.connect((ADDRESS, port))
    return sock


def answer_to(sock):
    with sock:
        answer = b""
        while chunk := sock.recv(4096):
            answer += chunk
    return answer


def limited(port):
    """The status of a request of a quota of four."""
    sock = dial(port)
    sock.sendall(REQUEST.replace(b"GET / ", b"GET /limited "))
    return int(answer_to(sock).split()[1])


def is_refused(port=80):
    try:
        dial(port).close()
    except ConnectionRefusedError:
        return True
    return False


def test_connections_and_quotas_wait_for_the_next_process_after_a_crash(lab):
    with managed("l7", {"edge.yaml": proxy([80])}) as (machine, manager):
        status = lambda: machine.ask("l7", "/status").json()
        manager.hear_until("its sockets, and the counts of its limit, are kept", lambda: len(manager.kept) == 3)
        names = set(manager.kept)
        assert limited(80) == limited(80) == 200

        manager.crash()
        waiting = [dial() for _ in range(12)]  # waiting in the queues of both sockets
        for sock in waiting[:6]:
            sock.sendall(REQUEST)
        manager.start()
        for sock in waiting[6:]:
            sock.sendall(REQUEST)
        assert all(answer_to(sock).startswith(b"HTTP/1.1 200") for sock in waiting), "each is answered"
        assert status()["kept_sockets"] == {"taken": 3, "kept": 3} and set(manager.kept) == names, (status(), names)
        assert limited(80) == 200, "the third"

        # The sockets on which the plane listens are kept, also after a change and by the process of an upgrade.
        machine.write("edge.yaml", proxy([80, 81]))
        os.kill(manager.main, signal.SIGHUP)
        manager.hear_until("the new port is kept", lambda: len(manager.kept) == 5)
        machine.write("edge.yaml", proxy([81, 82], workers=3))
        assert upgrade(machine.run_dir, "l7").returncode == 0
        wanted = lambda: {"80": 0, "81": 3, "82": 3} == {port: sum(f"-{port}-" in name for name in manager.kept) for port in ("80", "81", "82")}
        manager.hear_until("the next process's sockets are kept", wanted)
        wait_until("the port that it left is refused", is_refused, 20)
        assert limited(81) == 200 and limited(82) == 429, "the quota goes on in the next process"
        manager.crash()
        waiting = [dial(82) for _ in range(6)]
        manager.start()
        for sock in waiting:
            sock.sendall(REQUEST)
        assert all(answer_to(sock).startswith(b"HTTP/1.1 200") for sock in waiting)
        assert status()["kept_sockets"] == {"taken": 7, "kept": 7}, status()
        assert limited(81) == 429, "a crash gives nobody a new quota"

        # If the plane is stopped, clients should go elsewhere.
        os.kill(manager.main, signal.SIGTERM)
        manager.hear_until("nothing is kept", lambda: not manager.kept)
        wait_until("clients are refused", lambda: is_refused(81), 20)
        assert manager.popen.wait(30) == 0


def test_queries_wait_for_the_next_process_after_a_crash(lab):
    document = f"nodes: [{{name: kept, dns: {{listen: ['{ADDRESS}:53'], workers: 2}}}}]\nzones: [{{name: example.test, file: example.test.zone}}]\n"
    with managed("dns", {"edge.yaml": document, "example.test.zone": ZONE}) as (machine, manager):
        manager.hear_until("its sockets are kept", lambda: len(manager.kept) == 4)
        manager.crash()
        sockets = [open_socket("client-eu", socket.AF_INET, socket.SOCK_DGRAM) for _ in range(12)]
        for sock in sockets:
            sock.settimeout(30)
            sock.connect((ADDRESS, 53))
            sock.send(DnsLoad.QUESTION)
        stream = dial(53)
        stream.sendall(struct.pack(">H", len(DnsLoad.QUESTION)) + DnsLoad.QUESTION)
        manager.start()
        for sock in sockets:
            answer = sock.recv(4096)
            assert answer[3] & 0x0F == 0 and answer[7] > 0, answer
            sock.close()
        assert stream.recv(4096)[2:4] == DnsLoad.QUESTION[:2]
        stream.close()
        assert machine.ask("dns", "/status").json()["kept_sockets"] == {"taken": 4, "kept": 4}
        assert "tidegate_dns_taken_sockets 4\n" in machine.ask("dns", "/metrics").body.decode()
