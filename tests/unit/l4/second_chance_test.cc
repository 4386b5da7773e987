// SPDX-License-Identifier: Apache-2.0
// Connections whose flow table entry was lost after their pool changed: the packet also names the backend in the
// previous table, and a decapsulator that does not know the connection hands the packet on.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <map>
#include <memory>

#include "conf/model.h"
#include "conf/model/service.h"
#include "l4/decap/hand_on.h"
#include "l4/second_hop.h"
#include "l4/tunnel.h"
#include "tests/unit/l4/harness.h"

namespace tidegate::l4::second_chance_test {

using namespace testing;

constexpr uint16_t kFirstPort = 2'000, kPorts = 300;

void use(Harness& worker, Forwarding mode) {
  for (Service& service : worker.edge.model.services) service.forwarding = mode;
  worker.publish();
}

// Another worker with the same tables, but without flows.
void forget_flows_of(Harness& worker) {
  Edge edge = std::move(worker.edge);
  auto tables = std::move(worker.tables);
  DeciderConfig config;
  config.hasher = FlowHasher(kFlowKey);
  PortIdentity port{kOurMac, {{ip("10.0.0.2"), 24}, {ip("fd00::2"), 64}}};
  port.mtu = 1'500;
  config.ports = {port};
  config.flows = 4'096;
  worker.decider = std::make_unique<Decider>(std::move(config), *worker.counters);
  worker.edge = std::move(edge);
  worker.tables = std::move(tables);
  worker.decider->adopt(*worker.tables, worker.now_ms);
  for (size_t i = 0; i < 3; ++i) {
    for (const std::string prefix : {"10.0.0.1", "fd00::1"}) {
      worker.tell(ip(prefix + std::to_string(i + 1)), mac_of_backend(i));
    }
  }
}

Bytes packet_of(uint8_t family, uint16_t port, uint8_t flags, const std::string& payload = "x") {
  return family == 4 ? tcp_frame("192.0.2.7", port, "10.0.0.100", 80, flags, payload)
                     : tcp_frame("2001:db8::7", port, "fd00::100", 80, flags, payload);
}

// The outer destination of a frame over the packet's own family, and the rest of its GUE header.
struct Tunnelled {
  IpAddress first;
  SecondHop second;
  Bytes packet;
};

Tunnelled read_gue_frame(const Bytes& frame, uint8_t family) {
  const size_t ip_bytes = family == 4 ? 20 : 40, gue_at = kEthernetBytes + ip_bytes + 8;
  const uint8_t* outer = frame.data() + kEthernetBytes;
  EXPECT_EQ(outer[0] >> 4, family);
  Tunnelled out;
  out.first.family = family == 4 ? IpAddress::Family::v4 : IpAddress::Family::v6;
  std::copy_n(outer + (family == 4 ? 16 : 24), out.first.size(), out.first.bytes.begin());
  EXPECT_EQ(load_be16(outer + ip_bytes + 4), frame.size() - kEthernetBytes - ip_bytes) << "the length of UDP";
  if (family == 4) {
    EXPECT_EQ(load_be16(outer + 2), frame.size() - kEthernetBytes);
    EXPECT_EQ(checksum_finish(checksum_add(outer, 20, 0)), 0);
  } else {
    EXPECT_EQ(load_be16(outer + 4), frame.size() - kEthernetBytes - 40);
  }
  const Unwrapped inside = unwrap_gue(frame.data() + gue_at, frame.size() - gue_at);
  EXPECT_EQ(inside.reason, DecapReason::none);
  if (inside.reason != DecapReason::none) return out;
  out.second = read_second_hop(inside.private_data, inside.private_bytes);
  out.packet.assign(inside.packet, inside.packet + inside.bytes);
  return out;
}

class SecondChance : public ::testing::TestWithParam<uint8_t> {
 protected:
  SecondChance() { use(worker_, Forwarding::gue); }
  Tunnelled send(uint16_t port, uint8_t flags = kTcpAck) {
    const Bytes frame = packet_of(GetParam(), port, flags);
    const Decided decided = worker_.decide(frame);
    EXPECT_EQ(decided.outcome.verdict, FrameVerdict::forward);
    Tunnelled out = read_gue_frame(decided.frame, GetParam());
    EXPECT_EQ(out.packet, Bytes(frame.begin() + kEthernetBytes, frame.end())) << "the packet is as the client sent it";
    return out;
  }
  // The backends that the present table gives new flows, by the client's port.
  std::map<uint16_t, IpAddress> picks(uint16_t first) {
    std::map<uint16_t, IpAddress> out;
    for (uint16_t port = first; port < first + kPorts; ++port) {
      out[port] = send(port, kTcpSyn).first;
    }
    return out;
  }
  void forget_flows() { forget_flows_of(worker_); }
  uint64_t named() const { return worker_.counters->second_chance_packets.value(); }

  Harness worker_;
};

TEST_P(SecondChance, APacketOfALostFlowNamesTheBackendThatTheTableBeforePicks) {
  const std::map<uint16_t, IpAddress> before = picks(kFirstPort);
  worker_.edge.backend(0).weight = 30;
  worker_.publish();
  forget_flows();
  size_t moved = 0;
  for (const auto& [port, backend] : before) {
    const Tunnelled packet = send(port);
    if (packet.first == backend) {
      EXPECT_EQ(packet.second.kind, SecondHopKind::none) << "both tables agree";
      continue;
    }
    ++moved;
    ASSERT_EQ(packet.second.kind, SecondHopKind::named);
    EXPECT_EQ(packet.second.address, backend);
    EXPECT_EQ(send(port).second.address, backend) << "also when the flow is pinned";
  }
  EXPECT_GT(moved, kPorts / 10);
  EXPECT_EQ(named(), moved * 2);
  // If health changes and changes back, the previous table stays.
  worker_.publish();
  const auto [port, backend] = *before.begin();
  EXPECT_TRUE(send(port).first == backend || send(port).second.address == backend);
}

TEST_P(SecondChance, AConnectionThatBeganHereNamesNobodyAndItsPacketsAreNoLonger) {
  const std::map<uint16_t, IpAddress> before = picks(kFirstPort);
  worker_.edge.backend(0).weight = 30;
  worker_.publish();
  for (const auto& [port, backend] : before) {
    const Tunnelled packet = send(port);
    EXPECT_EQ(packet.first, backend) << "pinned";
    EXPECT_EQ(packet.second.kind, SecondHopKind::none);
  }
  for (const auto& [port, backend] : picks(kFirstPort + kPorts)) {
    const Tunnelled packet = send(port);
    EXPECT_EQ(packet.first, backend);
    EXPECT_EQ(packet.second.kind, SecondHopKind::none) << "begun under the new table";
  }
  EXPECT_EQ(named(), 0u);
}

TEST_P(SecondChance, ABackendThatIsDownOrGoneGetsNone) {
  const std::map<uint16_t, IpAddress> before = picks(kFirstPort);
  worker_.edge.say(0, OverrideState::down);
  worker_.publish();
  forget_flows();
  const IpAddress down = ip(GetParam() == 4 ? "10.0.0.11" : "fd00::11");
  for (const auto& [port, backend] : before) {
    const Tunnelled packet = send(port);
    EXPECT_NE(packet.first, down);
    EXPECT_NE(packet.second.address, down);
    if (backend == down) {
      EXPECT_EQ(packet.second.kind, SecondHopKind::none);
    }
  }
  worker_.edge.say(0, OverrideState::drained);
  worker_.publish();
  worker_.edge.say(1, OverrideState::drained);
  worker_.publish();
  forget_flows();
  size_t handed = 0;
  for (const auto& [port, backend] : before) handed += size_t{send(port).second.kind == SecondHopKind::named};
  EXPECT_GT(handed, 0u) << "one that is drained keeps its flows";
}

TEST_P(SecondChance, ASegmentThatNoLongerFitsIsAnsweredWithTheSmallerMtu) {
  const std::map<uint16_t, IpAddress> before = picks(kFirstPort);
  worker_.edge.backend(0).weight = 30;
  worker_.publish();
  forget_flows();
  uint16_t moved = 0;
  for (const auto& [port, backend] : before) {
    if (send(port).second.kind == SecondHopKind::named) moved = port;
  }
  ASSERT_NE(moved, 0);
  const size_t outer = (GetParam() == 4 ? 20 : 40) + 8 + 4, headers = GetParam() == 4 ? 40 : 60;
  const size_t room = 1'500 - outer - second_hop_bytes(GetParam());
  Bytes fits = packet_of(GetParam(), moved, kTcpAck, std::string(room - headers, 'x'));
  if (GetParam() == 4) {  // with DF, so that the sender may be told
    fits[kEthernetBytes + 6] = 0x40;
    store_be16(fits.data() + kEthernetBytes + 10, 0);
    store_be16(fits.data() + kEthernetBytes + 10, checksum_finish(checksum_add(fits.data() + kEthernetBytes, 20, 0)));
  }
  EXPECT_EQ(read_gue_frame(worker_.decide(fits).frame, GetParam()).second.kind, SecondHopKind::named);
  Bytes longer = packet_of(GetParam(), moved, kTcpAck, std::string(room - headers + 1, 'x'));
  if (GetParam() == 4) longer[kEthernetBytes + 6] = 0x40;
  const Decided answer = worker_.decide(longer);
  ASSERT_EQ(answer.outcome.verdict, FrameVerdict::answer);
  const uint8_t* icmp = answer.frame.data() + kEthernetBytes + (GetParam() == 4 ? 20 : 40);
  EXPECT_EQ(GetParam() == 4 ? load_be16(icmp + 6) : load_be32(icmp + 4), room);
}

TEST(SecondChanceMtu, ThePacketFitsOnTheWayToBothBackends) {
  const TunnelConfig gue{Forwarding::gue, 0, 0};
  const OuterSource source{ip("10.0.0.2"), 32};
  const Action wide = make_action(gue, 4, source, ip("10.0.0.11"), 1'500);
  const Action narrow = make_action(gue, 4, source, ip("10.0.0.12"), 1'420);
  EXPECT_EQ(inner_mtu(wide, nullptr, 9'000), 1'500u - 32);
  EXPECT_EQ(inner_mtu(wide, &wide, 9'000), 1'500u - 32 - 8);
  EXPECT_EQ(inner_mtu(wide, &narrow, 9'000), 1'420u - 32) << "it goes to the second without the name of a second";
  EXPECT_EQ(inner_mtu(narrow, &wide, 9'000), 1'420u - 32 - 8);
}

INSTANTIATE_TEST_SUITE_P(Families, SecondChance, ::testing::Values(uint8_t{4}, uint8_t{6}));

// An ipip packet has no room for an address. Over IPv4 the identification names the second backend.
class SecondChanceOfIpip : public ::testing::Test {
 protected:
  SecondChanceOfIpip() { use(worker_, Forwarding::ipip); }
  struct Sent {
    IpAddress first;
    uint16_t id = 0;
  };
  Sent send(const std::string& client, const std::string& vip, uint16_t port, uint8_t flags) {
    const Bytes frame = tcp_frame(client, port, vip, 80, flags, "x");
    const Decided decided = worker_.decide(frame);
    EXPECT_EQ(decided.outcome.verdict, FrameVerdict::forward);
    const uint8_t* outer = decided.frame.data() + kEthernetBytes;
    const bool v4 = outer[0] >> 4 == 4;
    EXPECT_EQ(decided.frame.size(), frame.size() + (v4 ? 20 : 40)) << "no longer than without a second backend";
    Sent sent;
    if (v4) {
      EXPECT_EQ(checksum_finish(checksum_add(outer, 20, 0)), 0);
      EXPECT_EQ(load_be16(outer + 6), 0x4000) << "DF, so that the identification is free";
      sent.id = load_be16(outer + 4);
    }
    sent.first.family = v4 ? IpAddress::Family::v4 : IpAddress::Family::v6;
    std::copy_n(outer + (v4 ? 16 : 24), sent.first.size(), sent.first.bytes.begin());
    return sent;
  }
  Harness worker_;
};

TEST_F(SecondChanceOfIpip, TheIdentificationNamesTheBackendThatTheTableBeforePicks) {
  std::map<uint16_t, Sent> before;
  for (uint16_t port = kFirstPort; port < kFirstPort + kPorts; ++port) {
    before[port] = send("192.0.2.7", "10.0.0.100", port, kTcpSyn);
    EXPECT_EQ(before[port].id, 0);
  }
  worker_.edge.backend(0).weight = 30;
  worker_.publish();
  for (const auto& [port, sent] : before) EXPECT_EQ(send("192.0.2.7", "10.0.0.100", port, kTcpAck).id, 0) << "pinned";
  forget_flows_of(worker_);
  size_t moved = 0;
  for (const auto& [port, sent] : before) {
    const Sent now = send("192.0.2.7", "10.0.0.100", port, kTcpAck);
    if (now.first == sent.first) {
      EXPECT_EQ(now.id, 0) << "both tables agree";
      continue;
    }
    ++moved;
    EXPECT_EQ(now.id, second_hop_id(sent.first.bytes.data()));
  }
  EXPECT_GT(moved, kPorts / 10);
  EXPECT_EQ(worker_.counters->second_chance_packets.value(), moved);
}

TEST_F(SecondChanceOfIpip, OverIp6NobodyCanBeNamed) {
  for (uint16_t port = kFirstPort; port < kFirstPort + kPorts; ++port) {
    send("2001:db8::7", "fd00::100", port, kTcpSyn);
  }
  worker_.edge.backend(0).weight = 30;
  worker_.publish();
  forget_flows_of(worker_);
  for (uint16_t port = kFirstPort; port < kFirstPort + kPorts; ++port) {
    send("2001:db8::7", "fd00::100", port, kTcpAck);
  }
  EXPECT_EQ(worker_.counters->second_chance_packets.value(), 0u);
}

TEST(SecondChanceMtu, OfIpipLeavesRoomForTheHeaderByWhichThePacketIsHandedOn) {
  const TunnelConfig ipip{Forwarding::ipip, 0, 0};
  const OuterSource source{ip("10.0.0.2"), 32};
  const Action wide = make_action(ipip, 4, source, ip("10.0.0.11"), 1'500);
  const Action narrow = make_action(ipip, 4, source, ip("10.0.0.12"), 1'420);
  const Action zeros = make_action(ipip, 4, source, ip("10.1.0.0"), 1'500);
  EXPECT_EQ(inner_mtu(wide, nullptr, 9'000), 1'480u);
  EXPECT_EQ(inner_mtu(wide, &wide, 9'000), 1'500u - 20 - 12);
  EXPECT_EQ(inner_mtu(wide, &narrow, 9'000), 1'420u - 20 - 12);
  EXPECT_TRUE(can_name(wide, narrow));
  EXPECT_FALSE(can_name(wide, zeros)) << "an identification of 0 names nobody";
  EXPECT_FALSE(can_name(wide, make_action({Forwarding::vxlan, 7, 0}, 4, source, ip("10.0.0.12"), 0)));
}

TEST(SecondChanceTables, OnlyTcpThroughGueOrIpipHasATableBefore) {
  Edge edge;
  edge.model.services[0].forwarding = Forwarding::gue;
  edge.model.services[1].forwarding = Forwarding::gue;
  ASSERT_NE(edge.tables(), nullptr);
  edge.backend(0).weight = 30;
  const auto candidate = edge.candidate();  // a refused or forgotten candidate has no effect
  ASSERT_NE(candidate, nullptr);
  const auto tables = edge.tables();
  for (const ServiceEntry& service : tables->services) {
    const bool tcp = tables->snapshot->model->services[service.service].protocol == Protocol::tcp;
    ASSERT_EQ(service.before != nullptr, tcp);
    if (tcp) {
      EXPECT_NE(service.before, service.table);
    }
  }
  Edge direct;
  ASSERT_NE(direct.tables(), nullptr);
  direct.backend(0).weight = 30;
  const auto without = direct.tables();
  for (const ServiceEntry& service : without->services) EXPECT_EQ(service.before, nullptr);
}

// --- the decapsulator

TEST(SecondHopWire, IsReadAsItWasWrittenAndWhatIsOthersIsLeft) {
  for (const std::string text : {"10.0.0.11", "fd00::11"}) {
    const IpAddress address = ip(text);
    const auto family = static_cast<uint8_t>(address.family);
    Bytes data(second_hop_bytes(family));
    write_second_hop(data.data(), family, address.bytes.data());
    EXPECT_EQ(read_second_hop(data.data(), data.size()).kind, SecondHopKind::named);
    EXPECT_EQ(read_second_hop(data.data(), data.size()).address, address);
    EXPECT_EQ(read_second_hop(data.data(), data.size() - 4).kind, SecondHopKind::malformed);
    Bytes other = data;
    other[2] = 5;
    EXPECT_EQ(read_second_hop(other.data(), other.size()).kind, SecondHopKind::malformed);
    other[0] = 'x';
    EXPECT_EQ(read_second_hop(other.data(), other.size()).kind, SecondHopKind::none);
  }
  EXPECT_EQ(read_second_hop(nullptr, 0).kind, SecondHopKind::none);
}

TEST(SecondHopWire, OnlyPacketsThatContinueATcpConnectionMayBelongElsewhere) {
  const auto ends = [](const Bytes& frame) {
    return ends_of_continued_tcp(frame.data() + kEthernetBytes, frame.size() - kEthernetBytes);
  };
  for (const uint8_t family : {uint8_t{4}, uint8_t{6}}) {
    for (const int flags : {int{kTcpAck}, int{kTcpAck | kTcpFin}, int{kTcpRst}, int{kTcpSyn | kTcpAck}}) {
      const auto found = ends(packet_of(family, 4'711, static_cast<uint8_t>(flags)));
      ASSERT_TRUE(found);
      EXPECT_EQ(found->client, ip(family == 4 ? "192.0.2.7" : "2001:db8::7"));
      EXPECT_EQ(found->vip, ip(family == 4 ? "10.0.0.100" : "fd00::100"));
      EXPECT_EQ(ntohs(found->client_port_be), 4'711);
      EXPECT_EQ(ntohs(found->vip_port_be), 80);
    }
    EXPECT_FALSE(ends(packet_of(family, 4'711, kTcpSyn)));
    Bytes cut = packet_of(family, 4'711, kTcpAck, "");
    cut.pop_back();
    EXPECT_FALSE(ends(cut));
  }
  EXPECT_FALSE(ends(udp_frame("192.0.2.7", 1, "10.0.0.100", 53)));
  Bytes fragment = packet_of(4, 1, kTcpAck);
  fragment[kEthernetBytes + 6] = 0x20;
  EXPECT_FALSE(ends(fragment));
}

// A connection over loopback, which the test's kernel knows.
class HandOnTest : public ::testing::Test {
 protected:
  static UniqueFd bound(int type) {
    UniqueFd fd(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
    sockaddr_storage storage{};
    const socklen_t length = Endpoint{ip("127.0.0.1"), 0}.to_sockaddr(storage);
    EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&storage), length), 0);
    return fd;
  }
  static Endpoint name_of(int fd) {
    sockaddr_storage storage{};
    socklen_t length = sizeof storage;
    EXPECT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &length), 0);
    return Endpoint::from(storage);
  }
  HandOnTest() : listener_(bound(SOCK_STREAM)), client_(bound(SOCK_STREAM)), peer_(bound(SOCK_DGRAM)) {
    EXPECT_EQ(::listen(listener_.get(), 1), 0);
    sockaddr_storage storage{};
    const socklen_t length = name_of(listener_.get()).to_sockaddr(storage);
    EXPECT_EQ(::connect(client_.get(), reinterpret_cast<const sockaddr*>(&storage), length), 0);
    server_.reset(::accept(listener_.get(), nullptr, nullptr));
    Result<HandOn> opened = HandOn::open({Cidr::of(ip("127.0.0.1"), 32)}, name_of(peer_.get()).port);
    EXPECT_TRUE(opened) << (opened ? "" : opened.error().message);
    if (opened) hand_on_ = std::make_unique<HandOn>(*std::move(opened));
  }
  Bytes inner(uint16_t client_port) const {
    Bytes packet = ip4(ip("127.0.0.1"), ip("127.0.0.1"), kProtocolTcp,
                       tcp(client_port, name_of(listener_.get()).port, kTcpAck, "data"));
    packet[1] = 0x2a;
    return packet;
  }
  HandOn::Decision decide(const Bytes& packet, const std::string& second) {
    const IpAddress address = ip(second);
    const auto family = static_cast<uint8_t>(address.family);
    Bytes datagram = {static_cast<uint8_t>(second_hop_bytes(family) / 4), 4, 0, 0};
    datagram.resize(4 + second_hop_bytes(family));
    write_second_hop(datagram.data() + 4, family, address.bytes.data());
    append(datagram, packet);
    const Unwrapped inside = unwrap_gue(datagram.data(), datagram.size());
    return hand_on_->decide(inside, datagram.data() + (inside.packet - datagram.data()), now_ns_);
  }

  UniqueFd listener_, client_, server_, peer_;
  std::unique_ptr<HandOn> hand_on_;
  uint64_t now_ns_ = 1;
};

TEST_F(HandOnTest, ConnectionsOfThisHostStayAndOthersGoToTheSecondBackend) {
  ASSERT_NE(hand_on_, nullptr);
  const uint16_t own = name_of(client_.get()).port;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(decide(inner(own), "127.0.0.1").fate, HandOn::Fate::ours);
  // There is no connection from this port, although there is a listener for its destination.
  const UniqueFd nobody = bound(SOCK_STREAM);
  const Bytes lost = inner(name_of(nobody.get()).port);
  ASSERT_EQ(decide(lost, "127.0.0.1").fate, HandOn::Fate::handed_on);
  Bytes arrived(2'000);
  const ssize_t bytes = ::recv(peer_.get(), arrived.data(), arrived.size(), 0);
  ASSERT_GT(bytes, 0);
  arrived.resize(static_cast<size_t>(bytes));
  const Unwrapped inside = unwrap_gue(arrived.data(), arrived.size());
  EXPECT_EQ(inside.private_bytes, 0u) << "so it is not handed on again";
  EXPECT_EQ(Bytes(inside.packet, inside.packet + inside.bytes), lost);

  EXPECT_EQ(decide(lost, "192.0.2.1").reason, DecapReason::second_hop_not_allowed);
  EXPECT_EQ(decide(inner(own), "192.0.2.1").fate, HandOn::Fate::ours) << "whoever is named";
  // By ipip: the last two bytes of the address. --peer gives the others.
  const auto by_ipip = [&](const Bytes& packet, uint16_t id) {
    Bytes datagram(20);
    append(datagram, packet);
    Unwrapped wrapped = unwrap_ipip(datagram.data() + 20, packet.size(), 4);
    wrapped.id = id;
    return hand_on_->decide(wrapped, datagram.data() + 20, now_ns_);
  };
  EXPECT_EQ(by_ipip(lost, 0).fate, HandOn::Fate::ours);
  EXPECT_EQ(by_ipip(inner(own), 0x0001).fate, HandOn::Fate::ours);
  ASSERT_EQ(by_ipip(lost, 0x0001).fate, HandOn::Fate::handed_on);
  arrived.resize(2'000);
  arrived.resize(static_cast<size_t>(::recv(peer_.get(), arrived.data(), arrived.size(), 0)));
  const Unwrapped again = unwrap_gue(arrived.data(), arrived.size());
  EXPECT_EQ(Bytes(again.packet, again.packet + again.bytes), lost);
  EXPECT_EQ(by_ipip(lost, 0x0002).reason, DecapReason::second_hop_not_allowed);
  for (const std::vector<Cidr>& peers :
       {std::vector<Cidr>{*Cidr::parse("127.0.0.0/8")},
        std::vector<Cidr>{*Cidr::parse("127.0.0.0/16"), *Cidr::parse("10.7.0.0/24")}}) {
    Result<HandOn> several = HandOn::open(peers, name_of(peer_.get()).port);
    ASSERT_TRUE(several);
    Bytes copy = lost;
    Unwrapped wrapped = unwrap_ipip(copy.data(), copy.size(), 4);
    wrapped.id = 0x0001;
    EXPECT_EQ(several->decide(wrapped, copy.data(), now_ns_).reason, DecapReason::second_hop_ambiguous);
  }

  Bytes begins = lost;
  begins[20 + 13] = kTcpSyn;
  EXPECT_EQ(decide(begins, "127.0.0.1").fate, HandOn::Fate::ours);
}

TEST_F(HandOnTest, AnAnswerOfTheKernelIsKeptForASecond) {
  Result<OwnConnections> own = OwnConnections::open();
  ASSERT_TRUE(own);
  const uint64_t before = own->asked();
  TcpEnds ends{ip("127.0.0.1"), ip("127.0.0.1"), htons(name_of(client_.get()).port),
               htons(name_of(listener_.get()).port)};
  for (int i = 0; i < 1'000; ++i) EXPECT_TRUE(own->has(ends, 1));
  EXPECT_EQ(own->asked(), before + 1);
  EXPECT_TRUE(own->has(ends, 1 + OwnConnections::kKeptNs));
  EXPECT_EQ(own->asked(), before + 2);
  ends.client_port_be = 0;
  EXPECT_FALSE(own->has(ends, 1));
}

}  // namespace tidegate::l4::second_chance_test
