# SPDX-License-Identifier: Apache-2.0
"""Explain of past requests: what the planes of several hosts tell of a request by its X-Request-Id."""

import http.client
import json
import socket
import ssl

from lab import open_socket
from netns import wait_until

VIPS = {socket.AF_INET: "10.10.0.100", socket.AF_INET6: "fd10::100"}


class Connection:
    """A client's connection that stays open, so that its flow stays pinned."""

    def __init__(self, family):
        plain = open_socket("client-eu", family, socket.SOCK_STREAM)
        plain.settimeout(10)
        plain.connect((VIPS[family], 443))
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.port = plain.getsockname()[1]
        self.socket = context.wrap_socket(plain, server_hostname="www.example.test")

    def request_id(self):
        self.socket.sendall(b"GET /static/app.js HTTP/1.1\r\nHost: www.example.test\r\n\r\n")
        answer = http.client.HTTPResponse(self.socket)
        answer.begin()
        answer.read()
        return answer.headers["X-Request-Id"]


def explained(lab, request_id):
    """What is told of a request whose answer has come. Its record may be written a moment later."""
    told = {}

    def found():
        told.update(lab.api("GET", f"/v1/explain?request={request_id}").json())
        return told["found"]

    wait_until(f"request {request_id} is remembered", found)
    return told


def test_a_past_request_is_told_with_its_flow_its_backend_and_its_version(lab):
    version = lab.api("GET", "/v1/status").json()["head"]["version"]
    for family, vip in VIPS.items():
        connection = Connection(family)
        with connection.socket:
            request_id = connection.request_id()
            told = explained(lab, request_id)
            assert told["found"] and not told["unreachable"], told
            flow, past = told["steps"]
            assert (flow["plane"], flow["node"], flow["pinned"], flow["vip"]) == ("l4", "l4", True, "vip-eu"), flow
            assert flow["backend"] == past["node"], "the forwarder and the proxy tell of the same way"
            assert (past["route"], past["pool"], past["version"]) == ("static", "origins", version), past
            assert (past["destination"], past["peer_port"]) == (vip, connection.port), past
            assert past["cache"]["outcome"] and past["listener"] == "https", past
            assert {each["node"] for each in told["not_found"]} | {past["node"]} == {"proxy1", "proxy2", "us1"}, told
            assert json.loads(lab.tidegate("--output", "json", "explain", "--request", request_id).stdout)["steps"][1] == past
            people = lab.tidegate("explain", "--request", request_id).stdout
            assert f"has the flow to vip-eu pinned to {past['node']}" in people, people
            assert f"under version {version}: route static" in people, people


def test_a_request_that_nobody_remembers_is_said_so_by_every_proxy(lab):
    done = lab.tidegate("explain", "--request", "no-such-request", check=False)
    assert done.returncode == 1 and done.stdout.count("does not know it") == 3, done
    assert "what ended before that is forgotten" in done.stdout, done
    for words in (("--request", "a", "10.1.0.2", "http://x/"), ("10.1.0.2",), ()):
        assert lab.tidegate("explain", *words, check=False).returncode == 2, words
