// SPDX-License-Identifier: Apache-2.0
// Rules between keys of addresses, ports and services: one document for each rule.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "conf/limits.h"
#include "tests/unit/conf/documents.h"

namespace tidegate::validate_forwarding_test {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::load_text;

constexpr const char* kPools = "pools:\n  - {name: app, backends: [{name: a, addresses: [192.0.2.1], port: 80}]}\n";

TEST(Validate, RefusesAnAddressInTwoVips) {
  const auto loaded =
      load_text("vips:\n  - {name: a, addresses: [192.0.2.1]}\n  - {name: b, addresses: [192.0.2.2, 192.0.2.1]}\n");
  ASSERT_THAT(loaded.codes(), ElementsAre("overlapping_vips"));
  EXPECT_EQ(loaded.faults[0].pointer, "/vips/1/addresses/1");
  EXPECT_EQ(loaded.faults[0].hint, "vip 'a' holds it, line 2");
}

TEST(Validate, RefusesAnInterfaceTwiceAndOneWithoutAName) {
  const auto loaded = load_text("nodes: [{name: n, dns: {listen: ['192.0.2.1:53'], xdp: [eth0, eth1, eth0]}}]\n");
  ASSERT_THAT(loaded.codes(), ElementsAre("duplicate_name"));
  EXPECT_EQ(loaded.faults[0].pointer, "/nodes/0/dns/xdp/2");
  EXPECT_THAT(load_text("nodes: [{name: n, dns: {xdp: ['', sixteen-letters-]}}]\n").codes(),
              ElementsAre("empty_value", "out_of_range"));
  EXPECT_THAT(load_text("nodes: [{name: n, dns: {xdp: [eth0, fifteen-letters]}}]\n").codes(), IsEmpty());
}

TEST(Validate, RefusesAPortThatTwoDaemonsOfANodeBind) {
  const auto document = [](const std::string& node, const std::string& bind) {
    return load_text("sites: [{name: eu}, {name: us}]\nnodes:\n  - {name: n, site: eu, l7: {workers: 1}, " + node +
                     "}\nlisteners: [{name: web, site: eu, bind: ['" + bind + "']}]\n");
  };
  const auto dns = document("dns: {listen: ['192.0.2.1:53']}", "0.0.0.0:53");
  ASSERT_THAT(dns.codes(), ElementsAre("colliding_ports"));
  EXPECT_EQ(dns.faults[0].pointer, "/listeners/0/bind/0");
  EXPECT_EQ(dns.faults[0].detail, "node 'n' binds 0.0.0.0:53 twice");
  EXPECT_EQ(dns.faults[0].hint, "dns.listen has 192.0.2.1:53, line 3");
  EXPECT_THAT(document("dns: {listen: ['192.0.2.1:53'], httpdns_listen: ['192.0.2.1:443']}", "192.0.2.1:443").codes(),
              ElementsAre("colliding_ports"));
  EXPECT_THAT(document("dns: {listen: ['192.0.2.1:53'], httpdns_listen: ['192.0.2.1:53']}", "192.0.2.1:80").codes(),
              ElementsAre("colliding_ports"));
  EXPECT_THAT(document("management: '[2001:db8::1]:9090'", "[::]:9090").codes(), ElementsAre("colliding_ports"));
  // Another address, family, port or site does not collide.
  EXPECT_THAT(document("dns: {listen: ['192.0.2.1:53']}", "192.0.2.2:53").codes(), IsEmpty());
  EXPECT_THAT(document("dns: {listen: ['192.0.2.1:53']}", "[::]:53").codes(), IsEmpty());
  EXPECT_THAT(document("management: '192.0.2.1:9090'", "192.0.2.1:9091").codes(), IsEmpty());
  EXPECT_THAT(load_text("sites: [{name: eu}, {name: us}]\n"
                        "nodes: [{name: n, site: us, l7: {workers: 1}, dns: {listen: ['0.0.0.0:53']}}]\n"
                        "listeners: [{name: web, site: eu, bind: ['0.0.0.0:53']}]\n")
                  .codes(),
              IsEmpty());
}

TEST(Validate, RefusesTwoServicesOnOnePortOfAVip) {
  const std::string head =
      std::string(kPools) +
      "vips: [{name: v, addresses: [192.0.2.9]}]\nservices:\n  - {name: a, vip: v, port: 53, pool: app}\n";
  EXPECT_THAT(load_text(head + "  - {name: b, vip: v, port: 53, pool: app}\n").codes(),
              ElementsAre("colliding_services"));
  EXPECT_THAT(load_text(head + "  - {name: b, vip: v, port: 53, pool: app, protocol: udp}\n").codes(), IsEmpty());
}

TEST(Validate, RefusesRangesOfPortsThatOverlapOrAreEmpty) {
  const std::string head = std::string(kPools) +
                           "vips: [{name: v, addresses: [192.0.2.9]}]\nservices:\n  - {name: a, vip: v, port: 100, "
                           "last_port: 200, pool: app}\n";
  const auto codes = [&](const std::string& more) {
    return load_text(head + "  - {name: b, vip: v, pool: app, " + more + "}\n").codes();
  };
  EXPECT_THAT(codes("port: 150"), IsEmpty()) << "a single port goes first";
  EXPECT_THAT(codes("port: 201, last_port: 300"), IsEmpty());
  EXPECT_THAT(codes("port: 1, last_port: 99"), IsEmpty());
  EXPECT_THAT(codes("port: 150, last_port: 250, protocol: udp"), IsEmpty());
  EXPECT_THAT(codes("port: 200, last_port: 300"), ElementsAre("colliding_services"));
  EXPECT_THAT(codes("port: 1, last_port: 100"), ElementsAre("colliding_services"));
  EXPECT_THAT(codes("port: 1, last_port: 65535"), ElementsAre("colliding_services"));
  EXPECT_THAT(codes("port: 120, last_port: 130"), ElementsAre("colliding_services"));
  EXPECT_THAT(codes("port: 300, last_port: 300"), ElementsAre("empty_range"));
  EXPECT_THAT(codes("port: 300, last_port: 7"), ElementsAre("empty_range"));
}

TEST(Validate, RefusesTunnelsThatCannotWork) {
  const auto codes = [](const std::string& service, const std::string& backend = "", const std::string& second = "") {
    return load_text("pools: [{name: app, backends: [{name: b, addresses: ['2001:db8::1'], port: 80" + backend +
                     "}]}]\nvips: [{name: v, addresses: [192.0.2.9]}]\nservices:\n  - {name: a, vip: v, port: 1, pool: "
                     "app, " +
                     service + "}\n" + second)
        .codes();
  };
  const std::string other = "  - {name: c, vip: v, port: 2, pool: app, forwarding: ";
  EXPECT_THAT(codes("forwarding: ipip"), IsEmpty()) << "the other family is the tunnel's";
  EXPECT_THAT(codes("forwarding: l2dsr"), ElementsAre("other_family"));
  EXPECT_THAT(codes("forwarding: vxlan"), ElementsAre("missing_vni"));
  EXPECT_THAT(codes("forwarding: vxlan, vni: 7"), IsEmpty());
  EXPECT_THAT(codes("forwarding: gue", ", mtu: 1350"), IsEmpty());
  EXPECT_THAT(codes("forwarding: gue", ", mtu: 1349"), ElementsAre("out_of_range"));
  EXPECT_THAT(codes("forwarding: gue", "", other + "gue}\n"), IsEmpty());
  EXPECT_THAT(codes("forwarding: gue", "", other + "ipip}\n"), ElementsAre("mixed_forwarding"));
  EXPECT_THAT(codes("forwarding: gue", "", other + "gue, tunnel_port: 9}\n"), ElementsAre("mixed_forwarding"));
}

TEST(Validate, RefusesAnOuterTagWithoutAnInnerOne) {
  const auto codes = [](const std::string& tags) {
    return load_text("nodes: [{name: n, l4: {ports: [{device: eth0" + tags + "}]}}]\n").codes();
  };
  EXPECT_THAT(codes(", vlan: 7"), IsEmpty());
  EXPECT_THAT(codes(", vlan: 7, outer_vlan: 8"), IsEmpty());
  EXPECT_THAT(codes(", outer_vlan: 8"), ElementsAre("missing_vlan"));
  EXPECT_THAT(codes(", vlan: 4095"), ElementsAre("out_of_range"));
}

TEST(Validate, TellsTheVlansOfADeviceApart) {
  const auto codes = [](const std::string& first, const std::string& second, const std::string& third = "") {
    return load_text("nodes: [{name: n, l4: {ports: [{device: eth0" + first + "}, {device: b" + second + "}" +
                     (third.empty() ? "" : ", {device: c" + third + "}") + "]}}]\n")
        .codes();
  };
  EXPECT_THAT(codes("", ", shares: eth0, vlan: 7"), IsEmpty());
  EXPECT_THAT(codes(", vlan: 7", ", shares: eth0"), IsEmpty()) << "frames without a tag";
  EXPECT_THAT(codes(", vlan: 7", ", shares: eth0, vlan: 7, outer_vlan: 8", ", shares: eth0, vlan: 8"), IsEmpty());
  EXPECT_THAT(codes("", ", shares: eth0"), ElementsAre("repeated_vlan"));
  EXPECT_THAT(codes("", ", shares: eth0, vlan: 7", ", shares: eth0, vlan: 7"), ElementsAre("repeated_vlan"));
  EXPECT_THAT(codes("", ", shares: eth1, vlan: 7"), ElementsAre("unknown_port"));
  EXPECT_THAT(codes("", ", shares: b, vlan: 7"), ElementsAre("unknown_port"));
  EXPECT_THAT(codes("", ", shares: eth0, vlan: 7", ", shares: b, vlan: 8"), ElementsAre("unknown_port"));
  EXPECT_THAT(codes("", ", shares: eth0, vlan: 7, driver: af_packet"), ElementsAre("without_effect"));
  EXPECT_THAT(codes("", ", shares: eth0, vlan: 7, mtu: 9000"), ElementsAre("without_effect"));
}

TEST(Validate, TellsWhatABondCannotBeMadeOf) {
  const auto codes = [](const std::string& first, const std::string& second = "") {
    return load_text("nodes: [{name: n, l4: {ports: [{device: bond0" + first + "}" +
                     (second.empty() ? "" : ", {" + second + "}") + "]}}]\n")
        .codes();
  };
  EXPECT_THAT(codes(", members: [eth0, eth1]"), IsEmpty());
  EXPECT_THAT(codes(", members: [eth0, eth1], bond: lacp, vlan: 7"), IsEmpty());
  EXPECT_THAT(codes(", members: ['0000:01:00.0', '0000:01:00.1'], bond: balance, mtu: 9000"), IsEmpty());
  EXPECT_THAT(codes(", members: [eth0, eth1]", "device: near, shares: bond0, vlan: 7"), IsEmpty());
  EXPECT_THAT(codes(", bond: lacp"), ElementsAre("without_effect"));
  EXPECT_THAT(codes(", members: [eth0, eth0]"), ElementsAre("duplicate_name"));
  EXPECT_THAT(codes(", members: [eth0, eth1]", "device: eth1"), ElementsAre("repeated_device"));
  EXPECT_THAT(codes(", members: [eth0]", "device: bond1, members: [eth0]"), ElementsAre("repeated_device"));
  EXPECT_THAT(codes(", members: [eth0, '0000:01:00.1']"), ElementsAre("mixed_devices"));
  EXPECT_THAT(codes(", members: [eth0, eth1], mtu: 9000"), ElementsAre("without_effect"));
  EXPECT_THAT(codes(", members: [eth0, eth1], bond: balance, driver: af_xdp"), ElementsAre("unsuitable_driver"));
  EXPECT_THAT(codes(", members: [eth0, eth1], driver: af_xdp"), ElementsAre("unsuitable_driver"));
  EXPECT_THAT(codes(", members: [eth0, eth1], bond: lacp, driver: af_xdp"), IsEmpty());
  EXPECT_THAT(codes(", members: [eth0, eth1]", "device: near, shares: bond0, vlan: 7, members: [eth2]"),
              ElementsAre("without_effect"));
}

TEST(Validate, RefusesAnMtuThatTheKernelOrTheLinkHas) {
  const auto codes = [](const std::string& port) {
    return load_text("nodes: [{name: n, l4: {ports: [{" + port + "}]}}]\n").codes();
  };
  EXPECT_THAT(codes("device: '0000:01:00.0', mtu: 9000"), IsEmpty());
  EXPECT_THAT(codes("device: 'a,b', driver: pcap, mtu: 9000"), IsEmpty());
  EXPECT_THAT(codes("device: '0000:01:00.0', mtu: 1279"), ElementsAre("out_of_range"));
  EXPECT_THAT(codes("device: '0000:01:00.0', mtu: 9601"), ElementsAre("out_of_range"));
  EXPECT_THAT(codes("device: eth0, mtu: 9000"), ElementsAre("without_effect"));
  EXPECT_THAT(codes("device: '0000:01:00.0', driver: af_xdp, mtu: 9000"), ElementsAre("without_effect"));
}

TEST(Validate, RefusesSharedFlowsThatNoForwarderOfTheSiteCouldHearOf) {
  const auto codes = [](const std::string& site, const std::string& one, const std::string& other) {
    return load_text(
               "sites: [{name: eu}, {name: us}]\nnodes:\n  - {name: a, site: eu, l4: {ports: [{device: eth0}], "
               "share_flows: '" +
               one + "'}}\n  - {name: b" + site + ", l4: {ports: [{device: eth0}], share_flows: '" + other + "'}}\n")
        .codes();
  };
  EXPECT_THAT(codes(", site: eu", "192.0.2.1:7400", "192.0.2.2:7400"), IsEmpty());
  EXPECT_THAT(codes("", "192.0.2.1:7400", "192.0.2.2:7400"), ElementsAre("missing_site"));
  EXPECT_THAT(codes(", site: eu", "192.0.2.1:7400", "0.0.0.0:7400"), ElementsAre("no_such_address"));
  EXPECT_THAT(codes(", site: eu", "192.0.2.1:7400", "[2001:db8::2]:7400"), ElementsAre("mixed_families"));
  EXPECT_THAT(codes(", site: eu", "192.0.2.1:7400", "192.0.2.1:7400"), ElementsAre("duplicate_address"));
  EXPECT_THAT(codes(", site: us", "192.0.2.1:7400", "192.0.2.1:7400"), IsEmpty()) << "sites may use the same addresses";
  // Another daemon of the node may have the port over TCP, but not over UDP.
  const auto beside = [](const std::string& other) {
    return load_text(
               "sites: [{name: eu}]\nnodes: [{name: a, site: eu, l4: {ports: [{device: eth0}], share_flows: "
               "'192.0.2.1:53'}, " +
               other + "}]\n")
        .codes();
  };
  EXPECT_THAT(beside("management: '192.0.2.1:53'"), IsEmpty());
  EXPECT_THAT(beside("dns: {listen: ['192.0.2.1:53']}"), ElementsAre("colliding_ports"));
  EXPECT_THAT(beside("dns: {httpdns_listen: ['192.0.2.1:53']}"), IsEmpty());
}

TEST(Validate, RefusesASecondTunnelSourceOfAFamily) {
  const auto codes = [](const std::string& sources) {
    return load_text("nodes: [{name: n, l4: {ports: [{device: eth0}], tunnel_sources: [" + sources + "]}}]\n").codes();
  };
  EXPECT_THAT(codes("198.18.0.0/16, 'fd00::/64'"), IsEmpty());
  EXPECT_THAT(codes("198.18.0.0/16, 198.19.0.0/16"), ElementsAre("too_many_addresses"));
}

TEST(Validate, WantsOneAddressAFamily) {
  EXPECT_THAT(load_text("pools: [{name: app, backends: [{name: a, addresses: [192.0.2.1, '2001:db8::1']}]}]\n").codes(),
              IsEmpty());
  EXPECT_THAT(load_text("pools: [{name: app, backends: [{name: a, addresses: [192.0.2.1, 192.0.2.2]}]}]\n").codes(),
              ElementsAre("too_many_addresses"));
  EXPECT_THAT(load_text("pools: [{name: app, backends: [{name: a, addresses: []}]}]\n").codes(),
              ElementsAre("exactly_one"));
  EXPECT_THAT(load_text("pools: [{name: app, backends: [{name: a}]}]\n").codes(), ElementsAre("exactly_one"));
}

TEST(Validate, RefusesAddressesThatNoHostCanHave) {
  const auto codes_of_vip = [](const std::string& address) {
    return load_text("vips: [{name: v, addresses: ['" + address + "']}]\n").codes();
  };
  for (const char* address : {"0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
                              "255.255.255.255", "::", "::1", "ff02::1", "::ffff:192.0.2.1"}) {
    EXPECT_THAT(codes_of_vip(address), ElementsAre("impossible_address")) << address;
  }
  for (const char* address :
       {"1.0.0.1", "126.0.0.1", "128.0.0.1", "223.255.255.255", "::2", "fe80::1", "2001:db8::1"}) {
    EXPECT_THAT(codes_of_vip(address), IsEmpty()) << address;
  }
  const auto codes_of_port = [](const std::string& port) {
    return load_text("nodes: [{name: n, l4: {ports: [{device: eth0, " + port + "}]}}]\n").codes();
  };
  EXPECT_THAT(codes_of_port("addresses: [127.0.0.2/24]"), ElementsAre("impossible_address"));
  EXPECT_THAT(codes_of_port("addresses: [192.0.2.2/24], gateways: [224.0.0.1]"), ElementsAre("impossible_address"));
  EXPECT_THAT(codes_of_port("addresses: [192.0.2.2/24], gateways: [192.0.2.2]"), ElementsAre("impossible_address"));
  EXPECT_THAT(codes_of_port("addresses: [192.0.2.2/24], gateways: ['2001:db8::1']"), ElementsAre("other_family"));
  EXPECT_THAT(codes_of_port("addresses: [192.0.2.2/24], gateways: [192.0.2.1]"), IsEmpty());
  for (const char* own : {"192.0.2.0/24", "192.0.2.255/24", "192.0.2.3/30"}) {
    EXPECT_THAT(codes_of_port(std::string("addresses: [") + own + "]"), ElementsAre("impossible_address")) << own;
  }
  for (const char* own : {"192.0.2.0/31", "192.0.2.255/32", "192.0.2.2/30", "'2001:db8::/64'"}) {
    EXPECT_THAT(codes_of_port(std::string("addresses: [") + own + "]"), IsEmpty()) << own;
  }
  for (const char* gateway : {"198.51.100.1", "192.0.2.255"}) {
    EXPECT_THAT(codes_of_port(std::string("addresses: [192.0.2.2/24], gateways: [") + gateway + "]"),
                ElementsAre("impossible_address"))
        << gateway;
  }
  EXPECT_THAT(codes_of_port("addresses: [192.0.2.2/32], gateways: [198.51.100.1]"), IsEmpty());
  EXPECT_THAT(codes_of_port("addresses: ['2001:db8::2/64'], gateways: ['fe80::1']"), IsEmpty());
}

// Addresses of the forwarder itself cannot be used elsewhere. Another site may use the same private addresses.
TEST(Validate, RefusesTheForwardersOwnAddressesElsewhere) {
  const auto codes = [](const std::string& port, const std::string& vip, const std::string& backend,
                        const std::string& site) {
    return load_text(
               "sites: [{name: eu, location: {latitude: 50, longitude: 8}}, "
               "{name: us, location: {latitude: 40, longitude: -74}}]\n"
               "nodes: [{name: n, site: eu, l4: {ports: [{device: eth0, " +
               port + "}]}}]\nvips: [{name: v, site: " + site + ", addresses: [" + vip +
               "]}]\nservices: [{name: s, vip: v, port: 80, pool: app}]\n"
               "pools: [{name: app, backends: [{name: a, addresses: [" +
               backend + "]}]}]\n")
        .codes();
  };
  const std::string port = "addresses: [10.0.0.2/24], gateways: [10.0.0.1]";
  EXPECT_THAT(codes(port, "10.0.0.100", "10.0.0.11", "eu"), IsEmpty());
  EXPECT_THAT(codes(port, "10.0.0.100", "10.0.0.2", "eu"), ElementsAre("impossible_address"));
  EXPECT_THAT(codes(port, "10.0.0.100", "10.0.0.2", "us"), IsEmpty());
  EXPECT_THAT(codes(port, "10.0.0.255", "10.0.0.11", "eu"), ElementsAre("impossible_address"));
  EXPECT_THAT(codes(port, "10.0.0.255", "10.0.0.11", "us"), IsEmpty());
  EXPECT_THAT(codes(port, "10.0.0.2", "10.0.0.11", "eu"), ElementsAre("impossible_address"));
  EXPECT_THAT(codes(port, "10.0.0.1", "10.0.0.11", "eu"), ElementsAre("impossible_address"));
  EXPECT_THAT(codes(port, "10.0.0.1", "10.0.0.11", "us"), IsEmpty());
}

// A pool that only routes use may have backends at the loopback address, which is the proxy's own host.
TEST(Validate, RefusesBackendsThatPacketsCannotBeForwardedTo) {
  const auto codes = [](const std::string& address, const std::string& vip, bool service) {
    return load_text("vips: [{name: v, addresses: ['" + vip + "']}]\n" +
                     (service ? "services: [{name: s, vip: v, port: 80, pool: app}]\n" : "") +
                     "pools: [{name: app, backends: [{name: a, addresses: ['" + address + "']}]}]\n")
        .codes();
  };
  EXPECT_THAT(codes("192.0.2.1", "192.0.2.100", true), IsEmpty());
  EXPECT_THAT(codes("127.0.0.1", "192.0.2.100", true), ElementsAre("impossible_address"));
  EXPECT_THAT(codes("127.0.0.1", "192.0.2.100", false), IsEmpty());
  EXPECT_THAT(codes("192.0.2.100", "192.0.2.100", true), ElementsAre("impossible_address"));
  EXPECT_THAT(codes("2001:db8::1", "192.0.2.100", true), ElementsAre("other_family"));
}

TEST(Validate, NamesTheNextPrimeForMaglevSlots) {
  const auto loaded = load_text("nodes: [{name: n, l4: {maglev_slots: 65536}}]\n");
  ASSERT_THAT(loaded.codes(), ElementsAre("not_prime"));
  EXPECT_EQ(loaded.faults[0].hint, "the next one is 65537");
}

}  // namespace tidegate::validate_forwarding_test
