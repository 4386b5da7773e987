// SPDX-License-Identifier: Apache-2.0
// A port on a VLAN: its frames are handled like frames without tags, and no other frame is accepted.
#include "l4/vlan.h"

#include <gtest/gtest.h>

#include "tests/unit/l4/harness.h"

namespace tidegate::l4::vlan_test {

using namespace testing;

constexpr PortTags kVlan = {100, 0}, kQinQ = {100, 4'000};

Bytes client_frame(uint8_t family, uint16_t port) {
  return family == 4 ? tcp_frame("192.0.2.7", port, "10.0.0.100", 80, kTcpSyn, "x")
                     : tcp_frame("2001:db8::7", port, "fd00::100", 80, kTcpSyn, "x");
}

TEST(Vlan, FramesOfAPortAreDecidedAsWithoutTheirTags) {
  Harness plain;
  for (const PortTags& tags : {kVlan, kQinQ}) {
    Harness tagged({}, 1'500, tags);
    for (uint16_t port = 1'000; port < 1'100; ++port) {
      for (const uint8_t family : {uint8_t{4}, uint8_t{6}}) {
        const Decided expected = plain.decide(client_frame(family, port));
        const Decided decided = tagged.decide(tagged.with_tags(client_frame(family, port)));
        ASSERT_EQ(decided.outcome.verdict, FrameVerdict::forward) << name(decided.outcome.reason);
        EXPECT_EQ(decided.frame, expected.frame) << "the tags are put on when it is sent";
        EXPECT_TRUE(tagged.decider->moved());
      }
    }
    const Bytes who_has = arp(1, kRouterMac, "10.0.0.1", Mac{}, "10.0.0.100", kBroadcastMac);
    EXPECT_EQ(tagged.decide(tagged.with_tags(who_has)).outcome.verdict, FrameVerdict::answer);
    EXPECT_EQ(tagged.decide(tagged.with_tags(who_has)).frame, plain.decide(who_has).frame);
  }
}

TEST(Vlan, OtherFramesAreDroppedByName) {
  Harness untagged, vlan({}, 1'500, kVlan), qinq({}, 1'500, kQinQ);
  const Bytes frame = client_frame(4, 1);
  const auto reason = [](Harness& at, const Bytes& bytes) { return at.decide(bytes).outcome.reason; };
  EXPECT_EQ(reason(untagged, vlan.with_tags(frame)), DropReason::vlan_tagged);
  EXPECT_EQ(reason(vlan, frame), DropReason::other_vlan);
  EXPECT_EQ(reason(vlan, qinq.with_tags(frame)), DropReason::other_vlan);
  EXPECT_EQ(reason(qinq, vlan.with_tags(frame)), DropReason::other_vlan);
  EXPECT_EQ(reason(qinq, frame), DropReason::other_vlan);
  Bytes other = vlan.with_tags(frame);
  other[15] ^= 1;
  EXPECT_EQ(reason(vlan, other), DropReason::other_vlan);
  Bytes priority_only = vlan.with_tags(frame);
  priority_only[14] = 0xe0;
  priority_only[15] = 0;
  EXPECT_EQ(reason(vlan, priority_only), DropReason::other_vlan) << "VLAN 0 is not the port's";
  for (size_t bytes = 0; bytes < 22; ++bytes) {
    const Bytes whole = qinq.with_tags(frame);
    const DropReason cut = reason(qinq, Bytes(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(bytes)));
    EXPECT_EQ(cut, bytes < 14 ? DropReason::frame_truncated : DropReason::other_vlan) << bytes;
  }
}

TEST(Vlan, SeveralOnADeviceAreToldApartByTheirTags) {
  // The first port has the device. A frame with two tags also carries the only tag of the second one.
  DeciderConfig config;
  const auto port = [](const char* address, PortTags tags, std::optional<uint16_t> by) {
    return PortIdentity{kOurMac, {{ip(address), 24}}, tags, 0, by};
  };
  config.ports = {port("10.0.0.2", {}, {}), port("10.1.0.2", {7, 0}, 0), port("10.2.0.2", {100, 7}, 0)};
  Harness harness;
  WorkerCounters counters;
  DeciderConfig whole = config;
  whole.hasher = FlowHasher(HashKey{});
  whole.flows = 1'024;
  Decider decider(whole, counters);
  decider.adopt(*harness.tables, 1'000);
  const auto port_of = [&](const PortTags& tags) {
    harness.port_tags = tags;
    const Bytes frame = harness.with_tags(arp(1, kRouterMac, "10.0.0.1", Mac{}, "10.0.0.100", kBroadcastMac));
    std::vector<uint8_t> buffer(128 + frame.size() + 64);
    std::copy(frame.begin(), frame.end(), buffer.begin() + 128);
    Frame view;
    view.data = buffer.data() + 128;
    view.bytes = static_cast<uint32_t>(frame.size());
    view.capacity = static_cast<uint32_t>(frame.size() + 64);
    view.headroom = 128;
    FrameOutcome outcome;
    decider.decide(*harness.tables, &view, &outcome, 1, 1'000);
    return outcome.verdict == FrameVerdict::answer ? int{outcome.port} : -1;
  };
  EXPECT_EQ(port_of({}), 0);
  EXPECT_EQ(port_of({7, 0}), 1);
  EXPECT_EQ(port_of({100, 7}), 2);
  EXPECT_EQ(port_of({8, 0}), -1) << "nobody's";
  EXPECT_EQ(port_of({101, 7}), -1);
}

TEST(Vlan, AnotherWorkerHasTakenTheTagsOff) {
  DeciderConfig config;
  config.workers = 2;
  Harness worker(config, 1'500, kVlan);
  EXPECT_EQ(worker.decide(client_frame(4, 1), 1).outcome.verdict, FrameVerdict::forward);
}

TEST(Vlan, TagsThatArePutOnAreThoseThatAreTakenOff) {
  for (const PortTags& tags : {kVlan, kQinQ}) {
    const Bytes frame = client_frame(6, 1);
    Bytes buffer(tags.bytes());
    append(buffer, frame);
    EXPECT_FALSE(carries_tags(tags, frame.data(), frame.size()));
    put_tags_on(tags, buffer.data() + tags.bytes());
    EXPECT_TRUE(carries_tags(tags, buffer.data(), buffer.size()));
    EXPECT_TRUE(std::equal(frame.begin(), frame.begin() + 12, buffer.begin()));
    EXPECT_TRUE(
        std::equal(frame.begin() + 12, frame.end(), buffer.begin() + 12 + static_cast<ptrdiff_t>(tags.bytes())));
  }
}

}  // namespace tidegate::l4::vlan_test
