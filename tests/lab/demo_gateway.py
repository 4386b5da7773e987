# SPDX-License-Identifier: Apache-2.0
"""One screen of the demo: the edge as an API gateway. A limit, a token refused and accepted, a canary, and a breaker that
opens and heals."""

import contextlib
import itertools
import socket
import threading
import time

from issuer import Issuer
from lab import HOSTS, open_socket
from netns import wait_until

PORT = 8090
RUNS = itertools.count(1)  # counts and breakers outlive a version, under the names of their policy and pool

DOCUMENT = """policies:
  - name: demo-{run}
    limit: {{requests: 5, per: 1h, by: ["header:X-Shop"]}}
    authenticate: {{jwt: {{keys_file: demo.json, algorithms: [RS256], audience: [shop]}}}}
    split: {{variants: [{{name: next, pool: demo-next-{run}, when: "header:X-Canary"}}, {{name: current, pool: origins, weight: 1}}]}}
"""
POOL = """  - name: demo-next-{run}
    backends: [{{name: next, addresses: [10.10.0.21], port: {port}}}]
    retry_attempts: 0
    eject_after: 0
    count_5xx: true
    breaker: {{consecutive_failures: 3, open: 1s, trials: 1}}
"""
ROUTE = '  - {{name: demo, listeners: [https], hosts: [www.example.test], path: "/api/shop/*", pool: origins, policies: [demo-{run}]}}\n'


class NextRelease:
    """A backend of its own on origin1. It answers 500 while it is broken."""

    def __init__(self):
        self.broken, self.asked = False, 0
        self.listener = open_socket("origin1", socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((HOSTS["origin1"].v4, PORT))
        self.listener.listen(64)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):  # closed
            while True:
                threading.Thread(target=self.serve, args=(self.listener.accept()[0],), daemon=True).start()

    def serve(self, connection):
        with contextlib.suppress(OSError), connection:
            reader = connection.makefile("rb")
            while reader.readline():
                while reader.readline() not in (b"\r\n", b""):
                    pass
                self.asked += 1
                status = "500 Oh No" if self.broken else "200 OK"
                connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 17\r\n\r\nthe next release\n".encode())

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def gateway(lab, say):
    run, proxy = f"{next(RUNS)}-{int(time.time())}", "10.10.0.11"
    issuer = Issuer(lab.directory("edge"), "demo")
    good = issuer.token(sub="amy", aud="shop", exp=int(time.time()) + 600)
    old = issuer.token(sub="amy", aud="shop", exp=int(time.time()) - 600)

    def ask(shop, *options, token=good):
        """The status and the body; one proxy counts them all."""
        out = lab.curl("client-eu", "https://www.example.test/api/shop/list", "-w", "\n%{http_code}", "-H", f"X-Shop: {shop}", "--oauth2-bearer", token, *options, vip=proxy).stdout
        body, _, status = out.rpartition("\n")
        return int(status), body

    changed = (("routes:\n", DOCUMENT.format(run=run) + "routes:\n" + ROUTE.format(run=run)), ("pools:\n", "pools:\n" + POOL.format(run=run, port=PORT)))
    with contextlib.closing(NextRelease()) as backend, lab.configured(*changed):
        statuses = [ask("one")[0] for _ in range(7)]
        say(f"a limit of 5 for each shop: the first one gets {' '.join(map(str, statuses))}, another one {ask('two')[0]}")
        assert statuses == [200] * 5 + [429] * 2 and ask("two")[0] == 200, statuses
        forged = good[:-6] + ("AAAAAA" if good[-6:] != "AAAAAA" else "BBBBBB")
        told = {"good": ask("three")[0], "expired": ask("three", token=old)[0], "forged": ask("four", token=forged)[0]}
        say("tokens: " + ", ".join(f"{name} {status}" for name, status in told.items()))
        assert told == {"good": 200, "expired": 401, "forged": 401}, told
        canary = lambda shop: ask(shop, "-H", "X-Canary: 1")
        status, body = canary("five")
        say(f"a canary by header: without it {ask('five')[1].split()[0]}, with it '{body.strip()}'")
        assert (status, body) == (200, "the next release\n")
        backend.broken = True
        failed = [canary(f"six-{i}")[0] for i in range(3)]
        asked = backend.asked
        refused = [canary(f"seven-{i}")[0] for i in range(3)]
        say(f"the next release breaks: {' '.join(map(str, failed))}; the breaker opens: {' '.join(map(str, refused))}, and it was asked {backend.asked - asked} times meanwhile")
        assert failed == [500] * 3 and refused == [503] * 3 and backend.asked == asked, (failed, refused)
        assert ask("eight")[0] == 200, "the current release is not touched"
        backend.broken = False
        began, turns = time.monotonic(), itertools.count()
        wait_until("the breaker closes", lambda: canary(f"nine-{next(turns)}")[0] == 200, 20)
        say(f"it is mended: after {time.monotonic() - began:.1f} s more a trial goes well, and the breaker is closed")
        assert all(canary(f"ten-{i}")[0] == 200 for i in range(3))
