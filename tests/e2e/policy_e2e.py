# SPDX-License-Identifier: Apache-2.0
"""Policies of the proxy, as curl sees them over HTTP/1.1 and HTTP/2."""

import json

from lab import LabError
from netns import wait_until

WWW = "https://www.example.test"
PROXY = "10.10.0.11"
HEAD = "policies:\n"


def policies(lab, policy, route, more=""):
    """The lab's document with these policies (YAML lines) and a route `/api/policy/*` that has `route`."""
    added = f'  - {{name: policed, listeners: [https], hosts: [www.example.test], path: "/api/policy/*", pool: origins, {route}}}\n'
    return lab.configured(("routes:\n", HEAD + policy + "routes:\n" + added + more))


def curl(lab, path, *options, host="client-eu"):
    """The answer's status, fields (names in lower case) and body."""
    out = lab.curl(host, WWW + path, "-D", "-", *options, vip=PROXY).stdout
    head, _, body = out.replace("\r\n", "\n").partition("\n\n")
    status, *lines = head.split("\n")
    return int(status.split()[1]), {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}, body


def log_lines(lab, path):
    return [json.loads(line) for line in lab.log("proxy1", "l7").read_text(errors="replace").splitlines() if f'"{path}"' in line]


def test_a_limit_tells_one_client_to_come_again_and_serves_another(lab):
    path = "/api/policy/limit"
    with policies(lab, "  - {name: few, limit: {requests: 3, per: 1h}}\n", "policies: [few]"):
        told = [curl(lab, path, version) for version in ("--http1.1", "--http2", "--http1.1", "--http2", "--http1.1")]
        assert [status for status, _, _ in told] == [200, 200, 200, 429, 429], told
        assert told[0][1]["ratelimit-policy"] == '"few";q=3;w=3600' and told[0][1]["ratelimit"].startswith('"few";r=2;t='), told[0]
        assert 1100 < int(told[4][1]["retry-after"]) <= 1200 and "Too many requests" in told[4][2], told[4]
        assert curl(lab, path, host="client-us")[0] == 200
        explain = lambda client: lab.plane("proxy1", "l7", f"/explain?client={client}&url={WWW}{path}").json()["policies"]
        eu = lab.run("client-eu", "ip", "-4", "-o", "addr", "show", "scope", "global").stdout.split("inet ")[1].split("/")[0]
        assert explain(eu)[0]["verdict"] == "refused" and explain("192.0.2.77")[0]["verdict"] == "passed", explain(eu)
        wait_until("the log has every verdict", lambda: len(log_lines(lab, path)) >= 6, 10)
        verdicts = sorted(line["policies"] for line in log_lines(lab, path))
        assert verdicts == ["few.limit=passed"] * 4 + ["few.limit=refused"] * 2, verdicts
        metrics = lab.plane("proxy1", "l7", "/metrics").body.decode()
        assert 'tidegate_l7_policy_verdicts_total{policy="few",kind="limit",verdict="refused"} 2' in metrics


def test_a_faulty_policy_is_refused_with_its_place_and_a_hint(lab):
    try:
        with policies(lab, "  - {name: few, limit: {requests: 3, by: [clent]}}\n", "policies: [fwe]"):
            raise AssertionError("it was taken")
    except LabError as error:
        assert "did you mean 'client'?" in str(error) and "did you mean 'few'?" in str(error), error
