#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The lab: an edge of two sites in network namespaces, real daemons, real origins, real clients.

  lab.py up          raise the hosts, start everything, apply conf/edge.yaml; the lab stays until `down`
  lab.py down        end every process and remove every namespace and file of the lab
  lab.py status      hosts, daemons, and what each plane has applied
  lab.py exec HOST COMMAND…
"""

import contextlib
import fcntl
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import netns  # noqa: E402
from netns import LabError, Process, in_namespace, sh, wait_until  # noqa: E402
from topology import CONTROLLED, HOSTS, LEADER, PREFIX  # noqa: E402

HERE = Path(__file__).resolve().parent
BUILD = Path(os.environ.get("TIDEGATE_BUILD", HERE.parent.parent / "build"))
NAME = "tidegate-lab" if PREFIX == "tg-" else "tidegate-lab-" + PREFIX.rstrip("-")
DIRECTORY = Path(os.environ.get("TIDEGATE_LAB", f"/var/tmp/{NAME}"))
LOCK = f"/run/lock/{NAME}"
# Builds with ASan: leaks are failures, except those that a library keeps on purpose. Daemons of other users read this
# file, also if the sources are in a folder of ours alone. So the lab has a copy.
LEAKS_OF_LIBRARIES = DIRECTORY / "lsan.supp"
os.environ["LSAN_OPTIONS"] = f"suppressions={LEAKS_OF_LIBRARIES}:print_suppressions=0"


def binary(plane):
    return BUILD / plane / f"tidegate-{plane}"


def open_socket(host, family, kind):
    return netns.open_socket(HOSTS[host].namespace, family, kind)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=10):
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


def unix_request(path, method, target, body=None, headers=None, timeout=10):
    connection = UnixConnection(path, timeout)
    try:
        connection.request(method, target, body=body, headers=headers or {})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


class Lab:
    def __init__(self):
        self.processes = {}  # "host/name" -> Process
        self._lock = None

    # --- places
    def directory(self, host):
        return DIRECTORY / host

    def socket_path(self, host, plane):
        return self.directory(host) / "run" / f"{plane}.sock"

    def log(self, host, name):
        return self.directory(host) / f"{name}.log"

    # --- up and down
    def take_lock(self):
        self._lock = open(LOCK, "w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError("another lab is being used on this machine (tests, a demo or a bench)") from None

    def up(self):
        self.take_lock()
        if netns.existing() or DIRECTORY.exists():
            raise LabError("the lab is up already: ./run lab down removes it")
        for plane in ("l4", "l7", "dns", "control"):
            if not binary(plane).exists():
                raise LabError(f"{binary(plane)} is not built: ./run build")
        try:
            self._prepare_files()
            netns.raise_network()
            for origin in ("origin1", "origin2"):
                self.start_origin(origin)
            for host in CONTROLLED:
                self.start_control(host.name)
            for host in CONTROLLED:
                for plane in host.planes:
                    self.start_plane(host.name, plane)
            self.apply(DIRECTORY / "edge" / "edge.yaml")
            self.wait_ready()
            self.settle()
            self._remember()
        except BaseException:
            self.down(keep_logs=bool(os.environ.get("TIDEGATE_LAB_KEEP")))
            raise

    def down(self, keep_logs=False):
        """Returns the exit statuses of daemons that ended badly, by name."""
        bad = {}
        for name, process in self.processes.items():
            status = process.stop() if process.popen is not None else 0
            if status != 0 and "nginx" not in name:
                bad[name] = (status, process.tail())
        self.processes.clear()
        netns.remove_network()
        if not keep_logs:
            shutil.rmtree(DIRECTORY, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()
            Path(LOCK).unlink(missing_ok=True)
            self._lock = None
        return bad

    def _remember(self):
        """Stores the daemons, so that a later `lab.py status` or `down` finds them."""
        pids = {name: process.pid for name, process in self.processes.items()}
        (DIRECTORY / "pids.json").write_text(json.dumps(pids))

    def _prepare_files(self):
        DIRECTORY.mkdir(mode=0o755)
        LEAKS_OF_LIBRARIES.write_text((HERE / "lsan.supp").read_text())
        LEAKS_OF_LIBRARIES.chmod(0o644)
        token, secret = secrets.token_hex(16), secrets.token_hex(32)
        for host in HOSTS.values():
            home = self.directory(host.name)
            home.mkdir()
            (home / "run").mkdir()
            (home / "state").mkdir()
            if host.management:
                (home / "secret").write_text(secret)
                (home / "secret").chmod(0o600)
                (home / "token").write_text(token)
                (home / "tokens").write_text(f"admin {token} lab\n")
                (home / "tokens").chmod(0o600)
        for source in ("edge.yaml", "example.test.zone"):
            shutil.copy(HERE / "conf" / source, self.directory("edge") / source)
        sh(
            *"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=example.test".split(),
            *"-addext subjectAltName=DNS:example.test,DNS:*.example.test".split(),
            "-keyout", self.directory("edge") / "example.key", "-out", self.directory("edge") / "example.crt",
        )  # fmt: skip
        sh(*f"openssl req -x509 {self.NEW_KEY} -days 30".split(), "-subj", "/CN=the lab's controls", "-keyout", self.authority("key"), "-out", self.authority())
        for host in CONTROLLED:
            self.certify(self.directory(host.name), host.control.rsplit(":", 1)[0])
        for origin in ("origin1", "origin2"):
            self._prepare_origin(origin)

    NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"

    def authority(self, kind="crt"):
        return self.directory("edge") / f"controls.{kind}"

    def certify(self, home, address):
        """Makes control.crt and control.key in `home`. Clients that trust authority() then accept a control at
        `address`."""
        sh("openssl", "req", *self.NEW_KEY.split(), "-subj", "/CN=control", "-addext", f"subjectAltName=IP:{address}", "-keyout", home / "control.key", "-out", home / "control.csr")
        sh("openssl", "x509", "-req", "-in", home / "control.csr", "-CA", self.authority(), "-CAkey", self.authority("key"), "-copy_extensions", "copy", "-days", "30",
           "-out", home / "control.crt")  # fmt: skip

    def tls_options(self, home):
        return ["--tls-certificate", home / "control.crt", "--tls-key", home / "control.key", "--peer-ca", self.authority()]

    def _prepare_origin(self, origin):
        home = self.directory(origin)
        www = home / "www"
        for folder in ("static/tagged", "static/renewed", "static/kept", "static/session", "static/private", "slow", "../tmp"):
            (www / folder).mkdir(parents=True)
        (www / "index.html").write_text("the origin's front page\n")
        (www / "static/hello.txt").write_text("hello from the origin\n")
        (www / "static/tagged/a.txt").write_text("tagged a\n")
        (www / "static/tagged/b.txt").write_text("tagged b\n")
        (www / "static/1k").write_bytes(b"k" * 1024)
        (www / "static/100k").write_bytes(os.urandom(50 * 1024).hex().encode())
        pattern = b"".join(b"%015d\n" % i for i in range(64 * 1024))  # 1 MB that shows where it was cut
        (www / "slow/1m").write_bytes(pattern)
        (www / "slow/8m").write_bytes(pattern * 8)  # half a minute
        (www / "static/8m").write_bytes(pattern * 8)
        (home / "nginx.conf").write_text((HERE / "conf/nginx.conf").read_text().replace("@HOST@", origin))

    # --- processes
    def _start(self, host, name, command):
        process = Process(HOSTS[host].namespace, f"{host}/{name}", command, self.log(host, name)).start()
        self.processes[f"{host}/{name}"] = process
        return process

    def start_origin(self, origin):
        home = self.directory(origin)
        process = self._start(origin, "nginx", ["nginx", "-p", home, "-c", home / "nginx.conf", "-e", "stderr", "-g", "daemon off;"])
        address = HOSTS[origin].v4
        wait_until(f"{origin} answers", lambda: self.tcp_opens(origin, address, 8080), process=process)
        return process

    def kill_origin(self, origin):
        """Sends SIGKILL to master and workers: to everything that runs in the origin's namespace, and to nothing
        else."""
        for pid in sh("ip", "netns", "pids", HOSTS[origin].namespace).split():
            os.kill(int(pid), signal.SIGKILL)
        self.process(origin, "nginx").popen.wait()

    def tcp_opens(self, host, address, port):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with open_socket(host, family, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            return probe.connect_ex((address, port)) == 0

    def common_options(self, host):
        home = self.directory(host)
        return ["--state", home / "state", "--run", home / "run", "--node", host, "--secret", home / "secret"]

    def start_control(self, host):
        home, info = self.directory(host), HOSTS[host]
        command = [binary("control"), *self.common_options(host), "--listen", info.control, "--tokens", home / "tokens"]
        command += self.tls_options(home)
        if info is LEADER:
            command += ["--peer-token-file", home / "token"]
        else:
            command += ["--follow", LEADER.control, "--follow-token-file", home / "token"]
        process = self._start(host, "control", command)
        path = self.socket_path(host, "control")
        wait_until("control answers", lambda: unix_request(path, "GET", "/healthz").status in (200, 503), process=process)
        return process

    def start_plane(self, host, plane):
        return self._start(host, plane, [binary(plane), *self.common_options(host)])

    def process(self, host, name):
        return self.processes[f"{host}/{name}"]

    def settle(self):
        """Waits until every probed backend is up and every plane has applied the live state that says so."""
        probed = {f"backend/{pool['name']}/{backend['name']}" for pool in self.model()["pools"] if "probe" in pool for backend in pool["backends"]}

        def all_up():
            words = self.api("GET", "/v1/health").json()["words"]
            return probed <= words.keys() and all(word["up"] for word in words.values())

        wait_until("every backend is up", all_up)
        self.wait_applied()

    def wait_applied(self):
        """Waits until every running plane has applied the live state that control has committed."""
        head = self.api("GET", "/v1/status").json()["head"]
        running = [name for name, process in self.processes.items() if process.running() and name.split("/")[1] not in ("nginx", "control")]

        def all_there():
            planes = [plane for node in self.api("GET", "/v1/status").json()["nodes"] for plane in node.get("planes", [])]
            return len(planes) >= len(running) and all(plane["words"] >= head["words"] for plane in planes)

        wait_until("all planes applied the words", all_there)

    def model(self):
        """The configuration in force."""
        return self.api("GET", "/v1/config", headers={"Accept": "application/json"}).json()

    def wait_ready(self, host=None):
        """Waits until every plane (of one host) serves a version."""
        for name, process in self.processes.items():
            at, plane = name.split("/")
            if plane in ("nginx", "control") or (host and at != host):
                continue
            path = self.socket_path(at, plane)
            wait_until(f"{name} is ready", lambda p=path: unix_request(p, "GET", "/healthz").status == 200, 60, process)

    # --- requests to the daemons
    def tidegate(self, *arguments, check=True, host=None):
        """Runs the command line as an operator on the leading host would."""
        api = self.socket_path(host or LEADER.name, "control")
        command = [BUILD / "control" / "tidegate", "--api", api, *arguments]
        done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if check and done.returncode != 0:
            raise LabError(f"tidegate {' '.join(map(str, arguments))} exited {done.returncode}: {done.stderr}{done.stdout}")
        return done

    def api(self, method, target, body=None, headers=None, host=None, timeout=30):
        if isinstance(body, (dict, list)):
            body, headers = json.dumps(body), {"Content-Type": "application/json", **(headers or {})}
        return unix_request(self.socket_path(host or LEADER.name, "control"), method, target, body, headers, timeout)

    def plane(self, host, plane, target):
        return unix_request(self.socket_path(host, plane), "GET", target)

    def apply(self, path, *options):
        return self.tidegate("apply", path, "--wait", *options)

    @contextlib.contextmanager
    def configured(self, *replacements, options=()):
        """The lab's document with each (old, new) replaced. It is in force until the block ends. `options`: of both
        calls of `tidegate apply`."""
        text = (self.directory("edge") / "edge.yaml").read_text()
        for old, new in replacements:
            if old not in text:
                raise LabError(f"the lab's document has no {old!r}")
            text = text.replace(old, new, 1)
        path = self.directory("edge") / "changed.yaml"
        path.write_text(text)
        self.apply(path, *options)
        try:
            yield
        finally:
            self.apply(self.directory("edge") / "edge.yaml", *options)

    def run(self, host, *command, check=True, timeout=60):
        """Runs a command on a host. Returns the CompletedProcess with text output."""
        done = subprocess.run(in_namespace(HOSTS[host].namespace, *command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout)
        done.stdout, done.stderr = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        if check and done.returncode != 0:
            raise LabError(f"{host}: {' '.join(map(str, command))} exited {done.returncode}: {done.stderr or done.stdout}")
        return done

    def curl(self, host, url, *options, vip="10.10.0.100", check=True):
        """Runs curl on a host. The certificate is checked against the lab's own, and the name resolves to the VIP."""
        name = url.split("/")[2].split(":")[0]
        address = f"[{vip}]" if ":" in vip else vip
        return self.run(
            host, "curl", "-sS", "--max-time", "20", "--cacert", self.directory("edge") / "example.crt",
            "--resolve", f"{name}:443:{address}", "--resolve", f"{name}:80:{address}", *options, url, check=check,
        )  # fmt: skip


def attach():
    """A Lab for one that another process started: it has its files and daemons, but is not their parent."""
    if not (DIRECTORY / "pids.json").exists():
        raise LabError("the lab is not up: ./run lab up")
    return Lab()


def status():
    pids = json.loads((DIRECTORY / "pids.json").read_text()) if (DIRECTORY / "pids.json").exists() else {}
    if not pids:
        print("the lab is down")
        return 1
    print(f"{'host':<12}{'address':<14}{'daemon':<10}{'process':<10}")
    for name, pid in pids.items():
        host, daemon = name.split("/")
        alive = Path(f"/proc/{pid}").exists()
        print(f"{host:<12}{HOSTS[host].v4:<14}{daemon:<10}{pid if alive else 'dead':<10}")
    print(attach().tidegate("status", check=False).stdout, end="")
    return 0


def down():
    pids = json.loads((DIRECTORY / "pids.json").read_text()) if (DIRECTORY / "pids.json").exists() else {}
    lab_pids = set()
    for namespace in netns.existing():
        lab_pids.update(int(pid) for pid in sh("ip", "netns", "pids", namespace, check=False).split())
    # Only processes that are still inside the lab's own namespaces, so that a recycled pid is never touched.
    for pid in lab_pids & set(pids.values()):
        try:
            os.kill(pid, 15)
        except ProcessLookupError:
            pass
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in lab_pids & set(pids.values())):
        time.sleep(0.02)
    netns.remove_network()
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    Path(LOCK).unlink(missing_ok=True)


def main(arguments):
    command = arguments[0] if arguments else "help"
    if command == "up":
        print("raising the lab: 9 hosts, 2 sites", flush=True)
        Lab().up()
        print("the lab is up. Try: ./run lab exec client-eu dig +short @10.10.0.53 www.example.test")
    elif command == "down":
        down()
        print("the lab is down")
    elif command == "status":
        return status()
    elif command == "exec" and len(arguments) > 2:
        if arguments[1] not in HOSTS:
            raise LabError(f"no host '{arguments[1]}'; there are {', '.join(HOSTS)}")
        os.execvp("ip", in_namespace(HOSTS[arguments[1]].namespace, *arguments[2:]))
    elif command in ("help", "--help", "-h"):
        print(__doc__.strip())
    else:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        sys.exit(1)
