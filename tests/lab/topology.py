# SPDX-License-Identifier: Apache-2.0
"""The lab's map: hosts, networks and addresses. Everything else in the lab derives from this page.

                              router
        10.1.0.0/24         /    |   \\         10.2.0.0/24
      client-eu -----------+     |    +----------- client-us
                                 |
      site eu: bridge 10.10.0.0/24, fd10::/64        site us: bridge 10.20.0.0/24, fd20::/64
      l4  proxy1  proxy2  origin1  origin2  edge     us1

A further bridge, 10.99.0.0/24, is the management link: only the controls speak over it. L2 direct server return means that
l4, the proxies and the origins are separate machines on one segment, each with its own state directory.
"""

import os
from dataclasses import dataclass

# The namespaces of this lab begin with this. Another prefix makes a second lab beside the first, with its own
# directory and lock.
PREFIX = os.environ.get("TIDEGATE_LAB_PREFIX", "tg") + "-"
ROUTER = PREFIX + "router"
VIP_EU = ("10.10.0.100", "fd10::100")
VIP_US = ("10.20.0.100", "fd20::100")
DNS_EU = ("10.10.0.53", "fd10::53")
DNS_US = ("10.20.0.11", "fd20::11")


@dataclass(frozen=True)
class Segment:
    name: str
    v4: str  # the first three parts of its /24
    v6: str  # its /64, before the "::"

    @property
    def gateways(self):
        return f"{self.v4}.1", f"{self.v6}::1"


SEGMENTS = {
    segment.name: segment
    for segment in (
        Segment("client-eu", "10.1.0", "fd01"),
        Segment("client-us", "10.2.0", "fd02"),
        Segment("eu", "10.10.0", "fd10"),
        Segment("us", "10.20.0", "fd20"),
    )
}


@dataclass(frozen=True)
class Host:
    name: str
    segment: str
    number: int  # the last part of its addresses
    management: int = 0  # the last part of 10.99.0.x; 0: not on the management link
    planes: tuple = ()  # the daemons that run there, besides control
    vip: tuple = ()  # VIPs that it accepts for its site
    kernel_address: bool = True  # False: the forwarder itself answers for this host's address

    @property
    def namespace(self):
        return PREFIX + self.name

    @property
    def v4(self):
        return f"{SEGMENTS[self.segment].v4}.{self.number}"

    @property
    def v6(self):
        return f"{SEGMENTS[self.segment].v6}::{self.number}"

    @property
    def control(self):
        return f"10.99.0.{self.management}:9090"


HOSTS = {
    host.name: host
    for host in (
        Host("client-eu", "client-eu", 2),
        Host("client-us", "client-us", 2),
        Host("origin1", "eu", 21),
        Host("origin2", "eu", 22),
        Host("edge", "eu", 53, management=1, planes=("dns",)),
        Host("l4", "eu", 2, management=2, planes=("l4",), kernel_address=False),
        Host("proxy1", "eu", 11, management=3, planes=("l7",), vip=VIP_EU),
        Host("proxy2", "eu", 12, management=4, planes=("l7",), vip=VIP_EU),
        Host("us1", "us", 11, management=5, planes=("l7", "dns"), vip=VIP_US),
    )
}
LEADER = HOSTS["edge"]
CONTROLLED = [host for host in HOSTS.values() if host.management]
