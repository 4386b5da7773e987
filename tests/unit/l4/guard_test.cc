// SPDX-License-Identifier: Apache-2.0
// Client lists, limits by service and by source, and RST for unknown flows, through a whole Decider.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "conf/model.h"
#include "conf/model/service.h"
#include "l4/country_reader.h"
#include "l4/explain.h"
#include "l4/metrics.h"
#include "tests/unit/dns/mmdb_writer.h"
#include "tests/unit/l4/harness.h"

namespace tidegate::l4::guard_test {

using namespace testing;

constexpr const char* kVip4 = "10.0.0.100";
constexpr const char* kVip6 = "fd00::100";

Cidr cidr(const std::string& text) { return Cidr::parse(text).value(); }

Acl acl(const std::string& name, const std::vector<std::string>& networks) {
  Acl list;
  list.name = name;
  for (const std::string& each : networks) list.networks.push_back(cidr(each));
  return list;
}

class GuardTest : public ::testing::Test {
 protected:
  Service& http() { return worker_.edge.model.services[0]; }
  Service& dns() { return worker_.edge.model.services[1]; }
  void publish() { worker_.publish(); }

  Decided syn(const std::string& client, uint16_t port = 4'000) {
    return worker_.decide(tcp_frame(client, port, is_v4(client) ? kVip4 : kVip6, 80, kTcpSyn));
  }
  Decided ack(const std::string& client, uint16_t port = 4'000) {
    return worker_.decide(tcp_frame(client, port, is_v4(client) ? kVip4 : kVip6, 80, kTcpAck));
  }
  Decided query(const std::string& client, uint16_t port = 4'000) {
    return worker_.decide(udp_frame(client, port, is_v4(client) ? kVip4 : kVip6, 53));
  }
  static bool is_v4(const std::string& address) { return ip(address).is_v4(); }
  static DropReason why(const Decided& decided) {
    return decided.outcome.verdict == FrameVerdict::drop ? decided.outcome.reason : DropReason::none;
  }
  static bool passes(const Decided& decided) { return Harness::backend_of(decided) >= 0; }
  uint64_t dropped(DropReason reason) const {
    return worker_.counters->dropped_packets[static_cast<size_t>(reason)].value();
  }
  // The value of a metric's line, which is given with its labels.
  uint64_t metric(const std::string& line) const {
    std::string text;
    append_metrics(text, {worker_.counters.get()}, *worker_.tables,
                   {worker_.edge.builder.backend_ids(), worker_.edge.builder.acl_ids()});
    const size_t at = text.find("\n" + line + " ");
    if (at == std::string::npos) throw std::runtime_error("no metric " + line);
    return std::stoull(text.substr(at + line.size() + 2));
  }

  Harness worker_;
};

TEST_F(GuardTest, AServiceWithoutListsAndBoundsHasNoGuard) {
  EXPECT_TRUE(worker_.tables->guards.empty());
  EXPECT_EQ(worker_.tables->lists, nullptr);
  for (const ServiceEntry& service : worker_.tables->services) EXPECT_EQ(service.guard, nullptr);
}

TEST_F(GuardTest, ADeniedClientIsDroppedAndCountedByTheNameOfTheList) {
  worker_.edge.model.acls = {acl("unused", {"203.0.113.0/24"}), acl("bad", {"192.0.2.0/25", "2001:db8:bad::/48"})};
  http().deny = {1};
  publish();
  EXPECT_EQ(why(syn("192.0.2.127")), DropReason::acl_denied);
  EXPECT_EQ(why(syn("2001:db8:bad::1")), DropReason::acl_denied);
  EXPECT_TRUE(passes(syn("192.0.2.128")));
  EXPECT_TRUE(passes(syn("2001:db8:bae::1")));
  EXPECT_TRUE(passes(syn("203.0.113.1"))) << "the service does not ask that list";
  EXPECT_TRUE(passes(query("192.0.2.127"))) << "another service asks no list";
  EXPECT_EQ(dropped(DropReason::acl_denied), 2u);
  EXPECT_EQ(metric("tidegate_l4_acl_packets_total{acl=\"bad\",decision=\"denied\"}"), 2u);
  EXPECT_EQ(metric("tidegate_l4_acl_packets_total{acl=\"unused\",decision=\"denied\"}"), 0u);
  EXPECT_EQ(metric("tidegate_l4_service_refused_packets_total{service=\"http\",vip=\"vip\"}"), 2u);
  EXPECT_EQ(metric("tidegate_l4_service_refused_packets_total{service=\"dns\",vip=\"vip\"}"), 0u);
}

TEST_F(GuardTest, OnlyAllowedClientsComeAndDenyGoesFirst) {
  worker_.edge.model.acls = {acl("office", {"192.0.2.0/24", "2001:db8::/32"}), acl("lab", {"192.0.2.64/26"})};
  http().allow = {0};
  http().deny = {1};
  publish();
  EXPECT_TRUE(passes(syn("192.0.2.1")));
  EXPECT_TRUE(passes(syn("2001:db8::1")));
  EXPECT_EQ(why(syn("192.0.2.65")), DropReason::acl_denied) << "it is in both";
  EXPECT_EQ(why(syn("198.51.100.1")), DropReason::acl_not_allowed);
  EXPECT_EQ(why(syn("2001:db9::1")), DropReason::acl_not_allowed);
  EXPECT_EQ(metric("tidegate_l4_acl_packets_total{acl=\"office\",decision=\"allowed\"}"), 2u);
  EXPECT_EQ(metric("tidegate_l4_acl_packets_total{acl=\"lab\",decision=\"denied\"}"), 1u);
}

TEST_F(GuardTest, AChangeOfAListEndsTheFlowsOfItsClientsAndNoOthers) {
  ASSERT_TRUE(passes(syn("192.0.2.1")));
  ASSERT_TRUE(passes(syn("198.51.100.1")));
  worker_.edge.model.acls = {acl("bad", {"192.0.2.0/24"})};
  http().deny = {0};
  publish();
  EXPECT_EQ(why(ack("192.0.2.1")), DropReason::acl_denied);
  EXPECT_TRUE(passes(ack("198.51.100.1")));
  worker_.edge.model.acls[0] = acl("bad", {"198.51.100.0/24"});
  publish();
  EXPECT_TRUE(passes(ack("192.0.2.1")));
  EXPECT_EQ(why(ack("198.51.100.1")), DropReason::acl_denied);
}

TEST_F(GuardTest, AListOfAFileCountsLikeOneOfTheDocument) {
  Acl list = acl("bad", {"192.0.2.0/24"});
  list.file = {"bad.txt", "hash",
               std::make_shared<const std::string>("# comment\n 198.51.100.0/24 # here\n\n2001:db8::/32\r\n")};
  worker_.edge.model.acls = {list};
  http().deny = {0};
  publish();
  for (const char* client : {"192.0.2.1", "198.51.100.1", "2001:db8::1"}) {
    EXPECT_EQ(why(syn(client)), DropReason::acl_denied) << client;
  }
  EXPECT_TRUE(passes(syn("203.0.113.1")));
}

TEST_F(GuardTest, AHealthChangeKeepsTheCompiledListsAndAnotherListDoesNot) {
  worker_.edge.model.acls = {acl("bad", {"192.0.2.0/24"})};
  http().deny = {0};
  publish();
  const auto before = worker_.tables->lists;
  worker_.edge.say(0, OverrideState::drained);
  publish();
  EXPECT_EQ(worker_.tables->lists, before);
  const std::string digest = worker_.tables->digest;
  worker_.edge.model.acls[0].networks.push_back(cidr("198.51.100.0/24"));
  publish();
  EXPECT_NE(worker_.tables->lists, before);
  EXPECT_NE(worker_.tables->digest, digest) << "two nodes with other lists are told apart";
}

TEST_F(GuardTest, FragmentsAndIcmpErrorsOfADeniedClientDoNotPass) {
  const auto fragment = [](const char* client, uint16_t field, const Bytes& payload) {
    return ethernet(kEtherTypeIp4, ip4(ip(client), ip(kVip4), kProtocolUdp, payload, {{}, field, 9, 61}));
  };
  const auto error_about = [](const char* client) {
    const Bytes quoted = ip4(ip(kVip4), ip(client), kProtocolTcp, tcp(80, 4'000, kTcpAck));
    return ethernet(kEtherTypeIp4, ip4(ip("203.0.113.9"), ip(kVip4), kProtocolIcmp, icmp4(3, 4, quoted, 1'400)));
  };
  worker_.edge.model.acls = {acl("bad", {"192.0.2.0/24"})};
  http().deny = dns().deny = {0};
  publish();
  Bytes datagram = udp(4'000, 53, std::string(24, 'x'));
  EXPECT_EQ(why(worker_.decide(fragment("192.0.2.1", 0x2000, datagram))), DropReason::acl_denied);
  EXPECT_EQ(why(worker_.decide(fragment("192.0.2.1", 4, Bytes(8)))), DropReason::fragment_without_first);
  EXPECT_TRUE(passes(worker_.decide(fragment("198.51.100.1", 0x2000, datagram))));
  EXPECT_TRUE(passes(worker_.decide(fragment("198.51.100.1", 4, Bytes(8)))));
  EXPECT_EQ(why(worker_.decide(error_about("192.0.2.1"))), DropReason::acl_denied);
  EXPECT_TRUE(passes(worker_.decide(error_about("198.51.100.1"))));
}

TEST_F(GuardTest, CountriesComeFromTheDatabaseThatDnsUses) {
  dns::test::MmdbWriter cities;
  cities.add("192.0.2.0/24", std::nullopt, {.country = "DE"});
  cities.add("198.51.100.0/24", std::nullopt, {.country = "US"});
  cities.add("2001:db8::/32", std::nullopt, {.country = "DE"});
  dns::test::MmdbWriter others;
  others.add("192.0.2.0/25", std::nullopt, {.country = "US"});
  others.add("203.0.113.0/24", std::nullopt, {.country = "US"});
  const dns::test::TemporaryFile first(cities.bytes()), second(others.bytes());
  Geo geo;
  geo.mmdb = first.path();
  geo.other_mmdbs = {second.path()};
  const auto read = read_countries(geo, {"US", "FR"});
  ASSERT_TRUE(read) << read.error().message;
  Acl list;
  list.name = "abroad";
  list.countries = {"FR", "US"};
  worker_.edge.model.acls = {list};
  http().deny = {0};
  worker_.edge.countries = *read;
  publish();
  EXPECT_EQ(why(syn("198.51.100.7")), DropReason::acl_denied);
  EXPECT_EQ(why(syn("203.0.113.7")), DropReason::acl_denied) << "only the second database knows it";
  EXPECT_TRUE(passes(syn("192.0.2.1"))) << "the first database that says a country decides";
  EXPECT_TRUE(passes(syn("2001:db8::1")));
}

TEST(CountryReader, ReadsAgainWhenAFileChangesAndKeepsWhatItHasIfThatFails) {
  const auto bytes = [](const char* country) {
    dns::test::MmdbWriter writer;
    writer.add("192.0.2.0/24", std::nullopt, {.country = country});
    return writer.bytes();
  };
  const dns::test::TemporaryFile file(bytes("US"));
  Model model;
  CountryReader reader;
  EXPECT_FALSE(reader.has_changed(model));
  EXPECT_EQ(*reader.read(model), nullptr) << "no list names a country";
  model.geo.mmdb = file.path();
  model.acls.resize(1);
  model.acls[0].countries = {"US"};
  const auto before = reader.read(model);
  ASSERT_TRUE(before);
  EXPECT_EQ((*before)->at("US").size(), 1u);
  EXPECT_FALSE(reader.has_changed(model));
  EXPECT_EQ(*reader.read(model), *before) << "not read twice";

  std::ofstream(file.path()) << "this is no database";
  EXPECT_TRUE(reader.has_changed(model));
  EXPECT_FALSE(reader.read(model));
  EXPECT_FALSE(reader.has_changed(model)) << "it is not tried again and again";
  EXPECT_EQ(*reader.read(model), *before);
  std::ofstream(file.path()) << bytes("DE");
  EXPECT_TRUE(reader.has_changed(model));
  EXPECT_TRUE((*reader.read(model))->at("US").empty());
}

TEST_F(GuardTest, AFloodOfPacketsTakesNoMoreThanTheServicesBound) {
  dns().limits.packets = 1'000;
  dns().limits.packets_burst = 50;
  publish();
  const auto flood = [&](int packets) {
    int passed = 0;
    for (int i = 0; i < packets; ++i) passed += passes(query("192.0.2.1", static_cast<uint16_t>(1'024 + i))) ? 1 : 0;
    return passed;
  };
  EXPECT_EQ(flood(200), 50);
  worker_.now_ms += 20;
  EXPECT_EQ(flood(200), 20);
  worker_.now_ms += 10'000;
  EXPECT_EQ(flood(200), 50) << "no more than a burst is saved up";
  EXPECT_EQ(dropped(DropReason::service_packets), 600u - 120u);
  EXPECT_TRUE(passes(syn("192.0.2.1"))) << "another service is not bounded";
}

TEST_F(GuardTest, ASourceThatFloodsLeavesTheServiceToTheOthers) {
  for (const bool v6 : {false, true}) {
    dns().limits = {};
    dns().limits.packets = 100;
    dns().limits.source_packets = 10;
    dns().limits.source_prefix_v4 = 24;
    publish();
    worker_.now_ms += 70'000;
    const std::string flooder = v6 ? "2001:db8:0:1::" : "192.0.2.";
    int of_flooder = 0;
    for (int i = 1; i <= 200; ++i) of_flooder += passes(query(flooder + std::to_string(i))) ? 1 : 0;
    EXPECT_EQ(of_flooder, 10) << "all addresses of the network together";
    for (int i = 1; i <= 9; ++i) {
      const std::string honest = (v6 ? "2001:db8:0:" : "192.0.") + std::to_string(2 + i) + (v6 ? "::1" : ".1");
      for (int packet = 0; packet < 10; ++packet) EXPECT_TRUE(passes(query(honest))) << honest;
    }
    EXPECT_EQ(why(query(v6 ? "2001:db8:0:f::1" : "203.0.113.1")), DropReason::service_packets);
  }
  EXPECT_EQ(dropped(DropReason::source_packets), 2u * 190u);
}

TEST_F(GuardTest, NewFlowsAreBoundedAndKnownFlowsGoOn) {
  http().limits.source_flows = 5;
  http().limits.flows = 8;
  publish();
  for (uint16_t port = 1'024; port < 1'029; ++port) ASSERT_TRUE(passes(syn("192.0.2.1", port)));
  EXPECT_EQ(why(syn("192.0.2.1", 2'000)), DropReason::source_flows);
  EXPECT_TRUE(passes(syn("192.0.2.1", 1'024))) << "the same SYN again begins no flow";
  for (int packet = 0; packet < 100; ++packet) EXPECT_TRUE(passes(ack("192.0.2.1", 1'025)));
  for (uint16_t port = 1'024; port < 1'027; ++port) ASSERT_TRUE(passes(syn("198.51.100.1", port)));
  EXPECT_EQ(why(syn("198.51.100.1", 2'000)), DropReason::service_flows) << "eight in all";
  worker_.now_ms += 1'000;
  EXPECT_TRUE(passes(syn("192.0.2.1", 2'000)));
  EXPECT_EQ(dropped(DropReason::source_flows), 1u);
  EXPECT_EQ(dropped(DropReason::service_flows), 1u);
  EXPECT_EQ(metric("tidegate_l4_service_refused_packets_total{service=\"http\",vip=\"vip\"}"), 2u);
}

TEST_F(GuardTest, AFlowThatMovesToAnotherBackendIsNoNewFlow) {
  http().limits.flows = 1;
  publish();
  const int before = Harness::backend_of(syn("192.0.2.1"));
  ASSERT_GE(before, 0);
  worker_.edge.say(static_cast<size_t>(before), OverrideState::down);
  publish();
  EXPECT_TRUE(passes(ack("192.0.2.1")));
}

TEST_F(GuardTest, LaterFragmentsTakeTokensToo) {
  dns().limits.source_packets = 3;
  publish();
  const auto fragment = [](uint16_t field, const Bytes& payload) {
    return ethernet(kEtherTypeIp4, ip4(ip("192.0.2.1"), ip(kVip4), kProtocolUdp, payload, {{}, field, 9, 61}));
  };
  ASSERT_TRUE(passes(worker_.decide(fragment(0x2000, udp(4'000, 53, std::string(24, 'x'))))));
  EXPECT_TRUE(passes(worker_.decide(fragment(0x2004, Bytes(8)))));
  EXPECT_TRUE(passes(worker_.decide(fragment(0x2005, Bytes(8)))));
  EXPECT_EQ(why(worker_.decide(fragment(6, Bytes(8)))), DropReason::source_packets);
}

TEST_F(GuardTest, AFrameThatAnotherWorkerHandedOverIsJudgedOnce) {
  dns().limits.packets = 1;
  publish();
  const Bytes first = ethernet(kEtherTypeIp4, ip4(ip("192.0.2.1"), ip(kVip4), kProtocolUdp,
                                                  udp(4'000, 53, std::string(24, 'x')), {{}, 0x2000, 9, 61}));
  EXPECT_TRUE(passes(worker_.decide(first, 1)));
  EXPECT_TRUE(passes(worker_.decide(first, 1)));
  EXPECT_TRUE(passes(worker_.decide(first)));
  EXPECT_EQ(why(worker_.decide(first)), DropReason::service_packets);
}

TEST_F(GuardTest, ABurstLosesExactlyThePacketsThatAreRefused) {
  worker_.edge.model.acls = {acl("bad", {"192.0.2.0/24"})};
  http().deny = {0};
  publish();
  std::vector<Bytes> buffers;
  std::vector<Frame> frames;
  for (uint8_t i = 0; i < 60; ++i) {
    const std::string client = (i % 3 == 0 ? "192.0.2." : "198.51.100.") + std::to_string(i + 1);
    Bytes frame = i % 5 == 0 ? udp_frame(client, 4'000, kVip4, 53) : tcp_frame(client, 4'000, kVip4, 80, kTcpSyn);
    frame.resize(frame.size() + 64);
    buffers.push_back(std::move(frame));
  }
  for (Bytes& buffer : buffers) {
    Frame frame;
    frame.data = buffer.data();
    frame.bytes = static_cast<uint32_t>(buffer.size() - 64);
    frame.capacity = static_cast<uint32_t>(buffer.size());
    frames.push_back(frame);
  }
  std::vector<FrameOutcome> outcomes(frames.size());
  worker_.decider->decide(*worker_.tables, frames.data(), outcomes.data(), frames.size(), worker_.now_ms);
  for (size_t i = 0; i < frames.size(); ++i) {
    const bool refused = i % 3 == 0 && i % 5 != 0;
    EXPECT_EQ(outcomes[i].verdict, refused ? FrameVerdict::drop : FrameVerdict::forward) << i;
    if (refused) EXPECT_EQ(outcomes[i].reason, DropReason::acl_denied) << i;
  }
  EXPECT_EQ(metric("tidegate_l4_service_packets_total{service=\"http\",vip=\"vip\"}"), 32u);
  EXPECT_EQ(metric("tidegate_l4_service_packets_total{service=\"dns\",vip=\"vip\"}"), 12u);
  EXPECT_EQ(metric("tidegate_l4_service_bytes_total{service=\"http\",vip=\"vip\"}"), 32u * 54u);
}

Bytes tcp_with(const std::string& client, uint8_t flags, uint32_t sequence, uint32_t acknowledgement,
               const std::string& payload = "") {
  Bytes segment = tcp(4'000, 80, flags, payload);
  store_be32(segment.data() + 4, sequence);
  store_be32(segment.data() + 8, acknowledgement);
  return packet(client, ip(client).is_v4() ? kVip4 : kVip6, kProtocolTcp, segment);
}

// Checks the whole frame of an RST, read by independent code.
void expect_reset(const Decided& decided, const std::string& client, uint8_t flags, uint32_t sequence,
                  uint32_t acknowledgement) {
  const bool v4 = ip(client).is_v4();
  ASSERT_EQ(decided.outcome.verdict, FrameVerdict::answer);
  ASSERT_EQ(decided.frame.size(), v4 ? 54u : 74u);
  EXPECT_EQ(Mac::from(decided.frame.data()), kRouterMac);
  EXPECT_EQ(Mac::from(decided.frame.data() + 6), kOurMac);
  PacketView view;
  ASSERT_EQ(parse_frame(decided.frame.data(), decided.frame.size(), view), DropReason::none);
  EXPECT_EQ(address_of(view.source, view.family), ip(v4 ? kVip4 : kVip6));
  EXPECT_EQ(address_of(view.destination, view.family), ip(client));
  const uint8_t* segment = decided.frame.data() + view.l4_offset;
  EXPECT_EQ(load_be16(segment), 80);
  EXPECT_EQ(load_be16(segment + 2), 4'000);
  EXPECT_EQ(load_be32(segment + 4), sequence);
  EXPECT_EQ(load_be32(segment + 8), acknowledgement);
  EXPECT_EQ(segment[13], flags);
  const uint8_t* addresses = decided.frame.data() + kEthernetBytes + (v4 ? 12 : 8);
  const uint32_t pseudo = checksum_add(addresses, v4 ? 8 : 32, kProtocolTcp + 20);
  EXPECT_EQ(checksum_finish(checksum_add(segment, 20, pseudo)), 0);
  if (v4) EXPECT_EQ(checksum_finish(checksum_add(decided.frame.data() + kEthernetBytes, 20, 0)), 0);
}

TEST_F(GuardTest, APacketOfAnUnknownFlowGetsTheRstOfRfc9293) {
  http().reset_unknown = true;
  publish();
  for (const char* client : {"192.0.2.1", "2001:db8::1"}) {
    expect_reset(worker_.decide(tcp_with(client, kTcpAck, 100, 7'000, "data")), client, kTcpRst, 7'000, 0);
    expect_reset(worker_.decide(tcp_with(client, kTcpSyn | kTcpAck, 100, 9)), client, kTcpRst, 9, 0);
    expect_reset(worker_.decide(tcp_with(client, kTcpFin, 100, 0, "data")), client, kTcpRst | kTcpAck, 0, 105);
    expect_reset(worker_.decide(tcp_with(client, 0, UINT32_MAX, 0)), client, kTcpRst | kTcpAck, 0, UINT32_MAX);
    EXPECT_EQ(why(worker_.decide(tcp_with(client, kTcpRst, 1, 0))), DropReason::flow_unknown) << "no RST for an RST";
  }
  EXPECT_EQ(worker_.counters->resets.value(), 8u);
  EXPECT_EQ(worker_.counters->flows_created.value(), 0u);
}

TEST_F(GuardTest, AKnownFlowASynAndAnotherServiceGetNoRst) {
  http().reset_unknown = true;
  publish();
  EXPECT_TRUE(passes(syn("192.0.2.1")));
  EXPECT_TRUE(passes(ack("192.0.2.1")));
  EXPECT_EQ(ack("192.0.2.1", 4'001).outcome.verdict, FrameVerdict::answer);
  EXPECT_TRUE(passes(query("192.0.2.1")));
  const Bytes options = {1, 1, 1, 1};
  const Bytes with_options = ethernet(
      kEtherTypeIp4, ip4(ip("192.0.2.1"), ip(kVip4), kProtocolTcp, tcp(4'002, 80, kTcpAck), {options, 0, 1, 61}));
  EXPECT_EQ(worker_.decide(with_options).frame.size(), 54u) << "IP options are not repeated";
  const Bytes first = ethernet(
      kEtherTypeIp4, ip4(ip("192.0.2.1"), ip(kVip4), kProtocolTcp, tcp(4'003, 80, kTcpAck), {{}, 0x2000, 1, 61}));
  EXPECT_EQ(why(worker_.decide(first)), DropReason::flow_unknown) << "a fragment is not answered";
}

TEST_F(GuardTest, AFloodOfUnknownPacketsGetsAThousandRstASecond) {
  http().reset_unknown = true;
  publish();
  const auto flood = [&] {
    uint64_t answered = 0;
    for (uint16_t i = 0; i < 1'500; ++i) {
      answered += ack("192.0.2.1", static_cast<uint16_t>(2'000 + i)).outcome.verdict == FrameVerdict::answer ? 1 : 0;
    }
    return answered;
  };
  worker_.now_ms = 10'000;
  EXPECT_EQ(flood(), kMaxResetsPerSecond);
  EXPECT_EQ(dropped(DropReason::flow_unknown), 500u);
  worker_.now_ms = 11'000;
  EXPECT_EQ(flood(), kMaxResetsPerSecond);
}

TEST_F(GuardTest, ExplainNamesTheListItsNetworkAndTheBounds) {
  worker_.edge.model.acls = {acl("office", {"192.0.2.0/24"}), acl("lab", {"192.0.2.64/26", "192.0.2.64/30"})};
  http().allow = {0};
  http().deny = {1};
  http().limits.packets = 7;
  http().reset_unknown = true;
  publish();
  const auto ask = [&](const char* client) {
    ExplainQuestion question;
    question.client = ip(client);
    question.client_port = 4'000;
    question.vip = "vip";
    question.port = 80;
    return explain(
        *worker_.tables, FlowHasher(kFlowKey), worker_.edge.builder.backend_ids(),
        [](uint64_t) { return std::optional<FlowEntry>(); }, question);
  };
  const nlohmann::json denied = ask("192.0.2.65");
  EXPECT_EQ(denied["decision"], "refused");
  EXPECT_EQ(denied["acl"], "lab");
  EXPECT_EQ(denied["reason"], "acl_denied: list lab denies the client by its network 192.0.2.64/30");
  EXPECT_TRUE(denied["backend"].is_null());
  EXPECT_EQ(ask("198.51.100.1")["decision"], "refused");
  const nlohmann::json allowed = ask("192.0.2.1");
  EXPECT_EQ(allowed["decision"], "maglev");
  EXPECT_EQ(allowed["acl"], "office");
  EXPECT_EQ(allowed["limits"]["packets"], 7);
  EXPECT_EQ(allowed["reset_unknown"], true);
}

TEST_F(GuardTest, CountersOfAServiceAndAListOutliveAChangeOfTheOthers) {
  worker_.edge.model.acls = {acl("a", {"203.0.113.0/24"}), acl("b", {"192.0.2.0/24"})};
  http().deny = {1};
  publish();
  EXPECT_EQ(why(syn("192.0.2.1")), DropReason::acl_denied);
  worker_.edge.model.acls.erase(worker_.edge.model.acls.begin());
  worker_.edge.model.services.erase(worker_.edge.model.services.begin() + 1);
  worker_.edge.model.services[0].deny = {0};
  publish();
  EXPECT_EQ(why(syn("192.0.2.1")), DropReason::acl_denied);
  EXPECT_EQ(metric("tidegate_l4_acl_packets_total{acl=\"b\",decision=\"denied\"}"), 2u);
  EXPECT_EQ(metric("tidegate_l4_service_refused_packets_total{service=\"http\",vip=\"vip\"}"), 2u);
}

}  // namespace tidegate::l4::guard_test
