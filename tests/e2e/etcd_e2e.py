# SPDX-License-Identifier: Apache-2.0
"""Three hosts whose state is in etcd: one control leads, another one takes over, and what was acknowledged is kept.

Each host is a machine of its own with a member of etcd, a control and a proxy. The management link carries etcd and the
controls; clients reach the proxies on the other link."""

import contextlib
import random
import signal
import threading
import time

import box
import netns
from lab import binary, unix_request
from marks import TIMED, long
from netns import ip, wait_until

NAMES = ("etcd1", "etcd2", "etcd3")
LEASE_S = 1


def address(number):
    return f"10.10.0.{70 + number}"


def document(weight=100):
    nodes = "\n".join(f'  - {{name: {name}, site: eu, management: "10.99.0.{20 + n}:9090", l7: {{workers: 1}}}}' for n, name in enumerate(NAMES, 1))
    bind = ", ".join(f'"{address(n)}:80"' for n in (1, 2, 3))
    backends = f"[{{name: one, addresses: [10.10.0.21], port: 8080, weight: {weight}}}, {{name: two, addresses: [10.10.0.22], port: 8080}}]"
    return (
        f"sites: [{{name: eu}}]\nnodes:\n{nodes}\npools: [{{name: origins, probe: alive, backends: {backends}}}]\n"
        "probes: [{name: alive, type: tcp, interval: 200ms, timeout: 1s, rise: 1, fall: 1}]\n"
        f'listeners: [{{name: http, bind: [{bind}]}}]\nroutes: [{{name: all, path: "/*", status: 204}}]\n'
    )


class Edge:
    """The three hosts."""

    def __init__(self, boxes):
        self.boxes = boxes
        self.etcd, self.controls, self.proxies = {}, {}, {}

    def start_etcd(self, number):
        machine, mine = self.boxes[number], f"10.99.0.{20 + number}"
        cluster = ",".join(f"{name}=http://10.99.0.{20 + n}:2380" for n, name in enumerate(NAMES, 1))
        self.etcd[number] = machine.start(
            "etcd", "/usr/bin/etcd", "--name", NAMES[number - 1], "--data-dir", machine.home / "etcd",
            "--listen-client-urls", f"http://{mine}:2379,http://127.0.0.1:2379", "--advertise-client-urls", f"http://{mine}:2379",
            "--listen-peer-urls", f"http://{mine}:2380", "--initial-advertise-peer-urls", f"http://{mine}:2380",
            "--initial-cluster", cluster, "--heartbeat-interval", "50", "--election-timeout", "300", "--pre-vote", "--log-level", "error",
        )  # fmt: skip

    def start_control(self, number):
        machine = self.boxes[number]
        others = [(number - 1 + k) % 3 + 1 for k in range(3)]  # its own member first
        endpoints = ",".join(f"http://10.99.0.{20 + n}:2379" for n in others)
        self.controls[number] = machine.start(
            "control", binary("control"), "--state", machine.state_dir, "--run", machine.run_dir, "--node", machine.host.name,
            "--listen", f"10.99.0.{20 + number}:9090", "--tokens", machine.home / "tokens", "--insecure", "--secret", machine.home / "secret",
            "--etcd", endpoints, "--etcd-lease", LEASE_S,
        )  # fmt: skip

    def start_proxy(self, number):
        machine = self.boxes[number]
        self.proxies[number] = machine.start("l7", binary("l7"), "--state", machine.state_dir, "--run", machine.run_dir, "--node", machine.host.name)

    def api(self, number, method, target, body=None, headers=None, timeout=10):
        return unix_request(self.boxes[number].run_dir / "control.sock", method, target, body, headers, timeout)

    def store(self, number):
        try:
            return self.api(number, "GET", "/v1/node/status", timeout=2).json().get("store", {})
        except (OSError, ValueError):
            return {}

    def leader(self, among=(1, 2, 3)):
        """The number of the control that leads, as soon as one does."""
        found = []

        def look():
            found[:] = [n for n in among if self.store(n).get("leads")]
            return len(found) == 1

        wait_until("one control leads", look)
        return found[0]

    def put(self, number, note):
        body = '{"state": "drained", "note": "' + note + '"}'
        return self.api(number, "PUT", "/v1/admin/pool/origins", body, {"Content-Type": "application/json"}, 2)

    def apply(self, number, text, query=""):
        return self.api(number, "PUT", f"/v1/config{query}", text, {"Content-Type": "application/yaml", "If-Match": "*"}, 30)

    def notes(self, number):
        records = self.api(number, "GET", "/v1/audit?limit=1000").json()["audit"]
        return [record["detail"] for record in records if record["action"] == "drain"]

    def same_everywhere(self):
        """Waits until every host has everything, and returns what they have: version, words and digest."""

        def states():
            return [(self.store(n).get("position"), self.api(n, "GET", "/v1/node/status").json()) for n in (1, 2, 3)]

        def same():
            try:
                seen = states()
            except (OSError, ValueError):
                return False
            keys = {(position, str(status["head"]), status["digest"]) for position, status in seen}
            return len(keys) == 1 and seen[0][0]

        wait_until("every host has the same", same, 60)
        return states()[0]

    def served(self, lab, number):
        told = lab.run("client-eu", "curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", f"http://{address(number)}/", check=False)
        return told.stdout == "204"


@contextlib.contextmanager
def raised(lab):
    with contextlib.ExitStack() as stack:
        boxes = {n: stack.enter_context(box.raised(name, 70 + n, management=20 + n)) for n, name in enumerate(NAMES, 1)}
        edge = Edge(boxes)
        for number, machine in boxes.items():
            machine.write("secret", "the secret of this site\n")
            machine.write("tokens", "replica a-replica-token-of-the-lab\n")
            edge.start_etcd(number)
        for number in boxes:
            edge.start_control(number)
        first = edge.leader()
        applied = edge.apply(first, document())
        assert applied.status == 200, applied.body
        for number in boxes:
            edge.start_proxy(number)
        for number, machine in boxes.items():
            machine.wait_ready("l7")
        edge.same_everywhere()
        wait_until("every proxy serves", lambda: all(edge.served(lab, n) for n in boxes))
        yield edge
        for processes in (edge.proxies, edge.controls, edge.etcd):
            for process in processes.values():
                process.kill()


class Writer(threading.Thread):
    """Writes through whoever takes it, until it is told to end. It keeps what was acknowledged."""

    def __init__(self, edge):
        super().__init__(daemon=True)
        self.edge, self.acknowledged, self.ended, self.longest_s = edge, [], threading.Event(), 0.0

    def run(self):
        number, last = 0, time.monotonic()
        while not self.ended.is_set():
            number += 1
            for control in random.sample((1, 2, 3), 3):
                note = f"n-{number}-{control}"  # a stopped control may accept a write that was given up
                try:
                    if self.edge.put(control, note).status == 200:
                        self.acknowledged.append(note)
                        self.longest_s = max(self.longest_s, time.monotonic() - last)
                        last = time.monotonic()
                        break
                except (OSError, ValueError):
                    pass

    def wait_for_another(self):
        count = len(self.acknowledged)
        wait_until("a write is acknowledged", lambda: len(self.acknowledged) > count, 60)

    def end(self):
        self.ended.set()
        self.join()


def check_nothing_lost(edge, writer):
    edge.same_everywhere()
    for number in (1, 2, 3):
        kept = edge.notes(number)
        lost = [note for note in writer.acknowledged[-500:] if note not in kept]
        assert not lost, f"host {number} lost {lost}"
        assert len(kept) == len(set(kept)), f"host {number} has a write twice"


def restart(edge, kind, number):
    {"etcd": edge.start_etcd, "control": edge.start_control}[kind](number)


def link(edge, number, state):
    ip(edge.boxes[number].host.namespace, f"link set eth1 {state}")


def kill_at_random(lab, kills):
    with raised(lab) as edge:
        writer = Writer(edge)
        writer.start()
        chance = random.Random(kills)
        for _ in range(kills):
            kind, number = chance.choice(("etcd", "control", "control", "stopped", "cut")), chance.choice((1, 2, 3))
            if kind != "etcd" and chance.random() < 0.7:
                number = edge.leader()
            time.sleep(chance.random() * 0.05)  # the moment is random
            if kind == "stopped":  # it wakes up and believes that it leads
                edge.controls[number].popen.send_signal(signal.SIGSTOP)
                writer.wait_for_another()
                edge.controls[number].popen.send_signal(signal.SIGCONT)
            elif kind == "cut":  # its control and its member of etcd reach nobody
                link(edge, number, "down")
                writer.wait_for_another()
                link(edge, number, "up")
            else:
                (edge.etcd if kind == "etcd" else edge.controls)[number].kill()
                writer.wait_for_another()
                restart(edge, kind, number)
            served = [n for n in (1, 2, 3) if not edge.served(lab, n)]
            assert not served, f"hosts {served} did not serve after {kind} {number}"
        writer.end()
        assert len(writer.acknowledged) >= kills
        check_nothing_lost(edge, writer)
        print(f"    {len(writer.acknowledged)} writes acknowledged, the longest pause {writer.longest_s:.1f} s")


def test_nothing_acknowledged_is_lost_when_processes_are_killed(lab):
    kill_at_random(lab, 20)


@long
def test_nothing_acknowledged_is_lost_when_processes_are_killed_200_times(lab):
    kill_at_random(lab, 200)


def test_a_leader_that_is_cut_off_is_replaced_and_comes_back_as_a_follower(lab):
    with raised(lab) as edge:
        old = edge.leader()
        rest = [n for n in (1, 2, 3) if n != old]
        link(edge, old, "down")
        cut = time.monotonic()
        new = edge.leader(rest)
        wait_until("a write is taken", lambda: edge.put(new, "while cut off").status == 200)
        took_s = time.monotonic() - cut
        print(f"    a write was taken {took_s:.1f} s after the leader was cut off")
        assert not TIMED or took_s <= 3
        refused = edge.put(old, "by the old leader")
        assert refused.status == 503 and refused.json()["code"] == "no_leader", refused.body
        wait_until("it says why", lambda: "etcd gives no answer" in edge.put(old, "by the old leader").json()["detail"])
        assert all(edge.served(lab, n) for n in (1, 2, 3)), "its proxy serves from its own state"
        applied = edge.apply(new, document(7))
        assert applied.status == 200, applied.body
        link(edge, old, "up")
        edge.same_everywhere()
        now = edge.leader()
        # Only if its lease ended because of missing CPU time may another control lead.
        assert now == new or "this control does not lead any more" in edge.controls[new].tail(1000), f"{now} took the lead from {new}"
        follower, told = (old if now != old else new), []

        def sent_on():
            told[:] = [edge.put(follower, "again")]
            return told[0].status != 503  # it may not have asked etcd since etcd is back

        wait_until("the follower answers", sent_on)
        assert told[0].status == 421 and NAMES[now - 1] in told[0].json()["detail"], told[0].body
        assert "by the old leader" not in edge.notes(new)


def test_without_a_quorum_writes_are_refused_by_name_and_proxies_serve_on(lab):
    with raised(lab) as edge:
        for number in (1, 2):
            edge.etcd[number].kill()
        wait_until("nobody leads", lambda: not any(edge.store(n).get("leads") for n in (1, 2, 3)))
        wait_until("every control says so", lambda: all(not edge.store(n).get("answers", True) for n in (1, 2, 3)))
        for number in (1, 2, 3):
            refused = edge.put(number, "without a quorum")
            assert refused.status == 503 and refused.json()["code"] == "no_leader", refused.body
            assert edge.served(lab, number)
            health = edge.api(number, "GET", "/healthz")
            assert health.status == 200 and b"etcd: silent" in health.body, health.body
        # A proxy that starts now serves the state of its host.
        edge.proxies[1].kill()
        edge.start_proxy(1)
        wait_until("the proxy serves", lambda: edge.served(lab, 1))
        edge.start_etcd(1)
        leader = edge.leader()
        wait_until("a write is taken", lambda: edge.put(leader, "with a quorum").status == 200)
        assert "without a quorum" not in edge.notes(leader)


def test_the_next_leader_probes(lab):
    with raised(lab) as edge:
        words = lambda n: edge.api(n, "GET", "/v1/health").json()["words"]
        wait_until("the leader probed", lambda: len(words(edge.leader())) == 2)
        old = edge.leader()
        edge.controls[old].kill()
        lab.kill_origin("origin1")
        try:
            new = edge.leader([n for n in (1, 2, 3) if n != old])
            wait_until("the dead backend is down", lambda: words(new).get("backend/origins/one", {}).get("up") is False)
        finally:
            lab.start_origin("origin1")
        wait_until("it is up again", lambda: words(new).get("backend/origins/one", {}).get("up") is True)
        status = edge.api(new, "GET", "/v1/status").json()
        assert {node["name"] for node in status["nodes"]} == set(NAMES)
        told = edge.boxes[new].tidegate("--api", edge.boxes[new].run_dir / "control.sock", "status").stdout
        assert f"{NAMES[new - 1]} leads, lease" in told, told


def weight_on(edge, number):
    config = edge.api(number, "GET", "/v1/config", headers={"Accept": "application/json"}).json()
    return config["pools"][0]["backends"][0]["weight"]


@long
def test_a_provisional_version_outlives_its_leader_and_the_next_one_confirms_or_reverts(lab):
    with raised(lab) as edge:
        for confirms in (True, False):
            old = edge.leader()
            before = weight_on(edge, old)
            tried = edge.apply(old, document(before + 1), f"?confirm={60_000 if confirms else 3_000}")
            assert tried.status == 200, tried.body
            version = tried.json()["version"]
            edge.same_everywhere()
            edge.controls[old].kill()
            rest = [n for n in (1, 2, 3) if n != old]
            new = edge.leader(rest)
            if confirms:
                told = edge.api(new, "POST", "/v1/confirm", f'{{"version": {version}}}', {"Content-Type": "application/json"})
                assert told.status == 200, told.body
            else:
                wait_until("the next leader reverts", lambda n=new: edge.api(n, "GET", "/v1/confirm").json()["provisional"] is None, 30)
            edge.start_control(old)
            edge.same_everywhere()
            for number in (1, 2, 3):
                assert weight_on(edge, number) == (before + 1 if confirms else before), (number, confirms)
            wait_until("every proxy serves", lambda: all(edge.served(lab, n) for n in (1, 2, 3)))


@long
def test_a_proxy_that_hangs_is_down_on_every_host_and_holds_up_no_change(lab):
    """Its kernel still accepts connections, so only its host's control can see it."""
    with raised(lab) as edge:
        leader = edge.leader()
        for number in (leader % 3 + 1, leader):
            leads, name, proxy = edge.leader(), NAMES[number - 1], edge.proxies[number].popen

            def told(n, name=name):
                return next(each for each in edge.api(n, "GET", "/v1/health").json()["planes"] if (each["node"], each["plane"]) == (name, "l7"))

            proxy.send_signal(signal.SIGSTOP)
            try:
                began = time.monotonic()
                applied = edge.apply(leads, document(10 + number))
                assert applied.status == 200, applied.body
                took_s = time.monotonic() - began
                assert not TIMED or took_s < 3, f"the version took {took_s:.1f} s"
                votes = edge.api(leads, "GET", f"/v1/status/versions/{applied.json()['version']}").body.decode()
                assert "no answer within 500 ms" in votes, votes
                for n in (1, 2, 3):
                    wait_until(f"host {n} has it as down", lambda n=n: told(n)["state"] == "down", 30)
                print(f"    down on every host {time.monotonic() - began:.1f} s after it hung; the version took {took_s:.1f} s")
                assert "does not answer for 5000 ms" in told(leads)["why"], told(leads)
                assert all(edge.served(lab, n) for n in (1, 2, 3) if n != number)
                if number != leads:
                    edge.controls[leads].kill()
                    next_one = edge.leader([n for n in (1, 2, 3) if n != leads])
                    assert told(next_one)["state"] == "down", "the next leader has it from the state"
                    edge.start_control(leads)
            finally:
                proxy.send_signal(signal.SIGCONT)
            for n in (1, 2, 3):
                wait_until(f"host {n} has it as up", lambda n=n: told(n)["state"] == "up", 30)
            edge.same_everywhere()
            wait_until("it has the version", lambda n=number, head=edge.api(number, "GET", "/v1/node/status").json()["head"]: edge.boxes[n].ask("l7", "/status").json()["version"] == head["version"], 30)
            wait_until("it serves", lambda n=number: edge.served(lab, n), 30)


@long
def test_a_leader_whose_disk_is_full_leaves_the_lead_to_another_host(lab):
    with raised(lab) as edge:
        old = edge.leader()
        machine = edge.boxes[old]
        edge.controls[old].stop()
        # Its state goes onto a small file system, which another file then fills.
        small = machine.home / "small"
        small.mkdir()
        netns.sh("mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", small)
        try:
            for entry in machine.state_dir.iterdir():
                netns.sh("cp", "-a", "--sparse=always", entry, small)
            machine.state_dir = small
            edge.start_control(old)
            for number in (1, 2, 3):
                if number != old:
                    edge.controls[number].stop()
            assert edge.leader([old]) == old
            for number in (1, 2, 3):
                if number != old:
                    edge.start_control(number)
            edge.same_everywhere()
            filled = netns.subprocess.run(["dd", "if=/dev/zero", f"of={small}/rest", "bs=4k"], capture_output=True, check=False)
            assert b"No space left" in filled.stderr, filled
            # A version as large as this needs pages that the file system does not have.
            more = "".join(f"{{name: r{n}, path: /r{n}, status: 200, body: {'x' * 500}}}, " for n in range(1_000))
            large = document(7).replace("routes: [", "routes: [" + more)
            told = edge.apply(old, large)
            assert told.status in (503, 507), told.body
            new = edge.leader([n for n in (1, 2, 3) if n != old])
            assert edge.put(new, "by another host").status == 200
            assert edge.served(lab, old), "its proxy serves from what it has"
            (small / "rest").unlink()
            edge.same_everywhere()
            assert "by another host" in edge.notes(old)
        finally:
            edge.controls[old].kill()
            edge.proxies[old].kill()
            netns.sh("umount", "-l", small)


def test_bad_options_are_refused_at_the_start(lab):
    with box.raised("etcd1", 71) as machine:
        machine.write("secret", "a secret\n")
        for options, said in (
            (["--etcd", "10.99.0.1:2379", "--secret", machine.home / "secret"], "is not http://HOST:PORT"),
            (["--etcd", "http://10.99.0.1:2379"], "--etcd requires --secret"),
            (["--etcd", "http://10.99.0.1:2379", "--secret", machine.home / "secret"], "would be spoken to in clear"),
            (["--etcd", "http://127.0.0.1:2379", "--secret", machine.home / "secret", "--follow", "127.0.0.1:1"], "excludes"),
            (["--etcd", "http://127.0.0.1:2379", "--secret", machine.home / "secret", "--etcd-prefix", "x"], "a prefix ends with /"),
            (["--etcd", "http://127.0.0.1:2379", "--secret", machine.home / "secret", "--etcd-lease", "0"], "--etcd-lease"),
            (["--etcd-user", "u"], "--etcd"),
        ):
            daemon = machine.start("control", binary("control"), "--state", machine.state_dir, "--run", machine.run_dir, *options)
            assert daemon.popen.wait(60) in (1, 2), options
            assert said in daemon.log.read_text(), (options, daemon.tail())
