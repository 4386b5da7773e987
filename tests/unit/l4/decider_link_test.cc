// SPDX-License-Identifier: Apache-2.0
// The Decider as a station on its links: ARP, neighbour discovery, MLD, echo, tags, the kernel.
#include "conf/model.h"
#include "conf/model/node.h"
#include "l4/decider.h"

#include "tests/unit/l4/decider_fixture.h"

namespace tidegate::l4::decider_link_test {

using namespace testing;

TEST_F(DeciderTest, AnswersWhoAsksItAloneToThatStationAlone) {
  const Mac asking = {{0x02, 0, 0, 0, 0, 0x77}};
  Bytes body = {0, 0, 0, 0};
  append_address(body, ip("fd00::100"));
  const Decided decided =
      decide(ethernet(kEtherTypeIp6, icmp6_packet(ip("fd00::77"), ip("fd00::100"), 135, body, 255), kOurMac, asking));
  ASSERT_EQ(decided.outcome.verdict, FrameVerdict::answer);
  EXPECT_EQ(decided.to(), asking);
  EXPECT_EQ(IpAddress::v6(decided.frame.data() + 14 + 24), ip("fd00::77"));
  EXPECT_EQ(decided.frame[14 + 40 + 4], 0x60) << "solicited, override";
}

TEST_F(DeciderTest, TakesMembershipQueriesAndNamesBrokenOnes) {
  Bytes icmp = {130, 0, 0, 0, 0, 0, 0, 0};
  append_address(icmp, ip("::"));
  icmp.insert(icmp.end(), {2, 125, 0, 0});
  Bytes options = {58, 0, 5, 2, 0, 0, 1, 0};
  Bytes packet = ip6(ip("fe80::1"), ip("ff02::1"), 0, options, 1);
  append(packet, icmp);
  store_be16(packet.data() + 4, static_cast<uint16_t>(8 + icmp.size()));
  store_be16(packet.data() + 50, icmp6_checksum(packet.data(), packet.data() + 48, icmp.size()));
  const Mac group = {{0x33, 0x33, 0, 0, 0, 1}};
  for (uint32_t end = now_ms_ + 3'000; now_ms_ < end; now_ms_ += 10) decider_->tick(now_ms_, *this);
  const uint64_t joined = counters_->mld_reports.value();
  EXPECT_EQ(joined, 2u) << "all groups in one frame, twice";
  EXPECT_EQ(decide(ethernet(kEtherTypeIp6, packet, group)).outcome.verdict, FrameVerdict::consume);
  decider_->tick(now_ms_, *this);
  EXPECT_EQ(counters_->mld_reports.value(), joined + 1);
  packet[7] = 64;
  EXPECT_EQ(reason_for(ethernet(kEtherTypeIp6, packet, group)), DropReason::mld_malformed);

  DeciderConfig config;  // a worker that does not announce for the node passes the query on
  config.announces = false;
  config.workers = 2;
  restart(config);
  packet[7] = 1;
  EXPECT_TRUE(decide(ethernet(kEtherTypeIp6, packet, group)).outcome.share);
}

TEST_F(DeciderTest, DoesNotAnswerAnEchoWhoseChecksumIsWrong) {
  Bytes four = packet("192.0.2.7", "10.0.0.100", kProtocolIcmp, icmp4(8, 0, {'a', 'b', 'c'}));
  EXPECT_EQ(decide(four).outcome.verdict, FrameVerdict::answer);
  four.back() ^= 1;
  EXPECT_EQ(reason_for(four), DropReason::icmp_checksum);
  Bytes six =
      ethernet(kEtherTypeIp6, icmp6_packet(ip("2001:db8::7"), ip("fd00::100"), 128, {0x12, 0x34, 0, 1, 'x', 'y', 'z'}));
  EXPECT_EQ(decide(six).outcome.verdict, FrameVerdict::answer);
  six.back() ^= 1;
  EXPECT_EQ(reason_for(six), DropReason::icmp_checksum);
}

TEST_F(DeciderTest, TakesFramesWithAPriorityTagAsUntaggedOnes) {
  const auto tagged = [](Bytes frame, uint16_t tag) {
    const Bytes field = {0x81, 0, static_cast<uint8_t>(tag >> 8), static_cast<uint8_t>(tag)};
    frame.insert(frame.begin() + 12, field.begin(), field.end());
    return frame;
  };
  const auto forwarded = [&](const Bytes& frame) {
    Bytes buffer = frame;
    Frame view;
    view.data = buffer.data();
    view.bytes = view.capacity = static_cast<uint32_t>(frame.size());
    FrameOutcome outcome;
    decider_->decide(*tables_, &view, &outcome, 1, now_ms_);
    EXPECT_EQ(decider_->moved(), view.data != buffer.data()) << "whoever owns the buffer must be told";
    return outcome.verdict == FrameVerdict::forward ? Bytes(view.data, view.data + view.bytes) : Bytes{};
  };
  for (const Bytes& plain :
       {tcp_frame("192.0.2.7", 1, "10.0.0.100", 80, kTcpSyn, "x"), udp_frame("2001:db8::7", 999, "fd00::100", 53)}) {
    const Bytes as_plain = forwarded(plain);
    ASSERT_FALSE(as_plain.empty());
    EXPECT_EQ(forwarded(tagged(plain, 0xe000)), as_plain);
    EXPECT_EQ(forwarded(tagged(plain, 0x1000)), as_plain) << "drop eligible";
    EXPECT_EQ(reason_for(tagged(plain, 0xe001)), DropReason::vlan_tagged);
    EXPECT_EQ(reason_for(tagged(tagged(plain, 0x0001), 0)), DropReason::vlan_tagged);
  }
  const Bytes question = arp(1, kRouterMac, "10.0.0.1", Mac{}, "10.0.0.100", kBroadcastMac);
  EXPECT_EQ(decide(tagged(question, 0x2000)).outcome.verdict, FrameVerdict::answer);
  Bytes short_one = tagged(question, 0);
  short_one.resize(17);
  EXPECT_EQ(reason_for(short_one), DropReason::vlan_tagged);
}

TEST_F(DeciderTest, DefendsItsAddressOnceInTenSecondsAndSaysWhoClaimsIt) {
  DeciderConfig config;
  ConflictBoard conflicts;
  config.conflicts = &conflicts;
  restart(config);
  for (uint32_t end = now_ms_ + 4'000; now_ms_ < end; now_ms_ += 50) decider_->tick(now_ms_, *this);
  const Mac other = {{0x02, 0, 0, 0, 0, 0x66}};
  const Bytes claim = arp(2, other, "10.0.0.100", other, "10.0.0.100", kBroadcastMac);
  const Bytes defence = arp(1, kOurMac, "10.0.0.100", Mac{}, "10.0.0.100", kBroadcastMac);
  sent_.clear();
  for (uint32_t end = now_ms_ + 20'000; now_ms_ < end; now_ms_ += 100) {
    EXPECT_EQ(reason_for(claim), DropReason::vip_conflict);
    decider_->tick(now_ms_, *this);
  }
  EXPECT_EQ(std::count(sent_.begin(), sent_.end(), defence), 2);
  const std::vector<AddressConflict> said = conflicts.take();
  ASSERT_EQ(said.size(), 1u) << "once, however often";
  EXPECT_EQ(said[0].address, ip("10.0.0.100"));
  EXPECT_EQ(said[0].claimed_by, other);
  EXPECT_TRUE(conflicts.take().empty());
}

TEST_F(DeciderTest, StandsByForAVipThatAnotherForwarderHoldsAndTakesItOver) {
  DeciderConfig config;
  ConflictBoard conflicts;
  config.conflicts = &conflicts;
  restart(config);
  for (uint32_t end = now_ms_ + 4'000; now_ms_ < end; now_ms_ += 50) decider_->tick(now_ms_, *this);
  const Mac other = {{0x02, 0, 0, 0, 0, 0x66}};
  const Bytes claim = arp(1, other, "10.0.0.100", Mac{}, "10.0.0.100", kBroadcastMac);
  const Bytes question = arp(1, kRouterMac, "10.0.0.1", Mac{}, "10.0.0.100", kBroadcastMac);
  const Bytes ours = arp(1, kOurMac, "10.0.0.100", Mac{}, "10.0.0.100", kBroadcastMac);
  const auto announcements = [&] {
    sent_.clear();
    for (uint32_t end = now_ms_ + 4'000; now_ms_ < end; now_ms_ += 50) decider_->tick(now_ms_, *this);
    return std::count(sent_.begin(), sent_.end(), ours);
  };
  Node first = edge_.model.nodes[0];
  first.name = "first";
  edge_.model.nodes.push_back(first);
  edge_.live_state.health[plane_key("l4", "l4")] = {false, "link down", 1, false};
  publish();
  EXPECT_NE(decide(question).outcome.verdict, FrameVerdict::answer);
  EXPECT_NE(reason_for(claim), DropReason::vip_conflict) << "the holder may say so";
  EXPECT_EQ(announcements(), 0);
  EXPECT_EQ(decide(tcp_frame("192.0.2.7", 1, "10.0.0.100", 80, kTcpSyn)).outcome.verdict, FrameVerdict::forward)
      << "a neighbour that does not know it yet is served";
  edge_.live_state.health.clear();
  publish();
  EXPECT_EQ(decide(question).outcome.verdict, FrameVerdict::answer);
  EXPECT_EQ(announcements(), VipAnnouncer::kTimes);
  EXPECT_TRUE(conflicts.take().empty());
}

TEST_F(DeciderTest, ChangesItsMacAddressWithThePort) {
  PortIdentity identity{Mac{{0x02, 0, 0, 0, 0, 0x99}}, {{ip("10.0.0.2"), 24}, {ip("fd00::2"), 64}}};
  EXPECT_GE(tcp_backend(1'000, kTcpSyn), 0);
  decider_->set_ports({identity});
  EXPECT_EQ(reason_for(tcp_frame("192.0.2.7", 1'000, "10.0.0.100", 80, kTcpAck)), DropReason::other_station);
  Bytes frame = tcp_frame("192.0.2.7", 1'000, "10.0.0.100", 80, kTcpAck);
  std::copy(identity.mac.bytes.begin(), identity.mac.bytes.end(), frame.begin());
  const Decided decided = decide(frame);
  ASSERT_EQ(decided.outcome.verdict, FrameVerdict::forward);
  EXPECT_EQ(Mac::from(decided.frame.data() + 6), identity.mac);
  sent_.clear();
  decider_->introduce(now_ms_);
  decider_->tick(now_ms_, *this);
  const Bytes announced = arp(1, identity.mac, "10.0.0.100", Mac{}, "10.0.0.100", kBroadcastMac);
  EXPECT_EQ(std::count(sent_.begin(), sent_.end(), announced), 1) << "all are told where its addresses are now";
}

TEST_F(DeciderTest, AnswersEchoOnVipAndOwnAddresses) {
  for (const std::string address : {"10.0.0.100", "10.0.0.2"}) {
    Ip4Options ttl;
    ttl.ttl = 3;
    const Bytes echo = icmp4(8, 0, {'a', 'b', 'c'}, 0x12340001);
    const Decided decided =
        decide(ethernet(kEtherTypeIp4, ip4(ip("192.0.2.7"), ip(address), kProtocolIcmp, echo, ttl)));
    ASSERT_EQ(decided.outcome.verdict, FrameVerdict::answer);
    ttl.ttl = 64;
    EXPECT_EQ(decided.frame,
              ethernet(kEtherTypeIp4,
                       ip4(ip(address), ip("192.0.2.7"), kProtocolIcmp, icmp4(0, 0, {'a', 'b', 'c'}, 0x12340001), ttl),
                       kRouterMac, kOurMac));
  }
  const Bytes body = {0x12, 0x34, 0, 1, 'x', 'y', 'z'};
  const Decided decided = decide(ethernet(kEtherTypeIp6, icmp6_packet(ip("2001:db8::7"), ip("fd00::100"), 128, body)));
  ASSERT_EQ(decided.outcome.verdict, FrameVerdict::answer);
  EXPECT_EQ(decided.frame, ethernet(kEtherTypeIp6, icmp6_packet(ip("fd00::100"), ip("2001:db8::7"), 129, body, 64),
                                    kRouterMac, kOurMac));
}

TEST_F(DeciderTest, AnswersArpAndSolicitationsForItsAddressesOnly) {
  for (const std::string address : {"10.0.0.100", "10.0.0.2"}) {
    const Decided decided = decide(arp(1, kRouterMac, "10.0.0.1", Mac{}, address, kBroadcastMac));
    ASSERT_EQ(decided.outcome.verdict, FrameVerdict::answer);
    EXPECT_EQ(decided.frame, arp(2, kOurMac, address, kRouterMac, "10.0.0.1", kRouterMac));
  }
  EXPECT_EQ(reason_for(arp(1, kRouterMac, "10.0.0.1", Mac{}, "10.0.0.77", kBroadcastMac)),
            DropReason::neighbour_unknown);

  Bytes body = {0, 0, 0, 0};
  append_address(body, ip("fd00::100"));
  append(body, {1, 1});
  body.insert(body.end(), kRouterMac.bytes.begin(), kRouterMac.bytes.end());
  const Mac group = {{0x33, 0x33, 0xff, 0, 1, 0}};
  const Decided decided = decide(
      ethernet(kEtherTypeIp6, icmp6_packet(ip("fd00::1"), ip("ff02::1:ff00:100"), 135, body, 255), group, kRouterMac));
  ASSERT_EQ(decided.outcome.verdict, FrameVerdict::answer);
  Bytes answer = {0x60, 0, 0, 0};
  append_address(answer, ip("fd00::100"));
  append(answer, {2, 1});
  answer.insert(answer.end(), kOurMac.bytes.begin(), kOurMac.bytes.end());
  EXPECT_EQ(decided.frame, ethernet(kEtherTypeIp6, icmp6_packet(ip("fd00::100"), ip("fd00::1"), 136, answer, 255),
                                    kRouterMac, kOurMac));
}

TEST_F(DeciderTest, NoticesAnotherStationClaimingAVip) {
  EXPECT_EQ(reason_for(arp(1, mac_of_backend(0), "10.0.0.100", Mac{}, "10.0.0.1", kBroadcastMac)),
            DropReason::vip_conflict);
}

TEST_F(DeciderTest, PuntsWhatIsNotItsOwnWhenTheHostIsBehindIt) {
  DeciderConfig config;
  config.punt_tap = true;
  restart(config);
  const auto verdict = [&](const Bytes& frame) { return decide(frame).outcome.verdict; };
  EXPECT_EQ(verdict(tcp_frame("192.0.2.7", 1, "10.0.0.2", 22, kTcpSyn)), FrameVerdict::punt);
  EXPECT_EQ(verdict(arp(1, kRouterMac, "10.0.0.1", Mac{}, "10.0.0.2", kBroadcastMac)), FrameVerdict::punt);
  EXPECT_EQ(verdict(arp(1, kRouterMac, "10.0.0.1", Mac{}, "10.0.0.100", kBroadcastMac)), FrameVerdict::answer);
  EXPECT_EQ(verdict(arp(2, mac_of_backend(0), "10.0.0.11", kOurMac, "10.0.0.2", kOurMac)), FrameVerdict::punt);
  EXPECT_EQ(verdict(tcp_frame("192.0.2.7", 1, "10.0.0.100", 80, kTcpSyn)), FrameVerdict::forward);
  EXPECT_EQ(verdict(tcp_frame("192.0.2.7", 1, "10.0.0.100", 81, kTcpSyn)), FrameVerdict::drop) << "a VIP is ours alone";
}

TEST_F(DeciderTest, AsksForItsBackendsByItself) {
  restart({});
  edge_.backend(0).addresses = {ip("10.0.0.33")};
  publish();
  decider_->tick(now_ms_, *this);
  size_t asked = 0;
  for (const Bytes& frame : sent_) {
    if (frame == arp(1, kOurMac, "10.0.0.2", Mac{}, "10.0.0.33", kBroadcastMac)) ++asked;
  }
  EXPECT_EQ(asked, 1u);
}

}  // namespace tidegate::l4::decider_link_test
