# SPDX-License-Identifier: Apache-2.0
"""A small service manager for tests: starts what a unit of systemd describes, in a root directory and a network
namespace, and hears what it notifies. It knows only the keys that our units use."""

import os
import select
import shlex
import signal
import socket
import subprocess
import time
from pathlib import Path


def read_unit(path):
    """The keys of the section [Service], each with the list of its values."""
    keys, section = {}, ""
    for line in Path(path).read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif section == "Service" and "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            keys.setdefault(key, []).append(value)
    return keys


class Service:
    def __init__(self, name, root, namespace):
        self.name, self.root = name, Path(root)
        unit = read_unit(self.root / f"lib/systemd/system/{name}.service")
        one = lambda key: unit[key][-1]
        self.notify_path = f"/run/{name}.notify"
        at = self.root / self.notify_path.lstrip("/")
        at.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(at))
        at.chmod(0o777)
        groups = ",".join([one("Group"), *unit.get("SupplementaryGroups", [])])
        capabilities = [c.removeprefix("CAP_").lower() for c in one("CapabilityBoundingSet").split()]
        ambient = ",".join(["-all", *(f"+{c}" for c in capabilities)])
        watchdog_us = int(one("WatchdogSec")) * 1_000_000
        environment = ["env", "-i", "PATH=/usr/bin:/bin", f"NOTIFY_SOCKET={self.notify_path}", f"WATCHDOG_USEC={watchdog_us}"]
        command = [part for part in shlex.split(one("ExecStart")) if part != "$OPTIONS"]
        self.log = open(self.root / f"var/log/{name}.test", "w+")
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, "chroot", self.root, *environment, "setpriv", "--reuid", one("User"), "--regid", one("Group"), "--groups", groups,
             "--bounding-set", ambient, "--inh-caps", ambient, "--ambient-caps", ambient, "--no-new-privs", "sh", "-c", 'umask "$1"; shift; exec "$@"', "sh", one("UMask"), *command],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.heard = []

    def wait_for(self, word, seconds=30):
        """Until a message has this line."""
        deadline = time.monotonic() + seconds
        while True:
            if any(line.startswith(word) for line in self.heard):
                return
            left = deadline - time.monotonic()
            assert left > 0, f"{self.name} did not say {word}; it said {self.heard}\n{self.output()}"
            assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}\n{self.output()}"
            if select.select([self.socket], [], [], min(left, 0.2))[0]:
                self.heard += self.socket.recv(4096).decode().splitlines()

    def output(self):
        self.log.flush()
        return Path(self.log.name).read_text()[-4000:]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.wait_for_end()
        self.socket.close()
        self.log.close()
        os.unlink(self.log.name)
        (self.root / self.notify_path.lstrip("/")).unlink(missing_ok=True)

    def wait_for_end(self):
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
