// SPDX-License-Identifier: Apache-2.0
#include "l4/neighbour.h"

#include <gtest/gtest.h>

#include "tests/unit/l4/frames.h"

namespace tidegate::l4::neighbour_test {

using namespace testing;

const Mac kBackendMac = {{0x02, 0, 0, 0, 0, 0x11}};
const Mac kOtherMac = {{0x02, 0, 0, 0, 0, 0x66}};
constexpr NeighbourId kFour{0}, kSix{1};

class Sent final : public FrameSink {
 public:
  void send(uint16_t, const uint8_t* frame, size_t bytes) override { frames.emplace_back(frame, frame + bytes); }
  std::vector<Bytes> take() { return std::exchange(frames, {}); }
  std::vector<Bytes> frames;
};

class NeighbourTest : public ::testing::Test {
 protected:
  NeighbourTest() : neighbours_({PortIdentity{kOurMac, {{ip("10.0.0.2"), 24}, {ip("fd00::2"), 64}}}}) {}

  void want(const std::vector<std::pair<NeighbourId, std::string>>& targets, uint32_t now_ms = 0) {
    std::vector<NeighbourTarget> list;
    for (const auto& [id, address] : targets) list.push_back({id, ip(address), 0});
    neighbours_.set_targets(std::make_shared<const NeighbourSet>(std::move(list)), now_ms);
  }
  std::vector<Bytes> tick(uint32_t now_ms) {
    neighbours_.tick(now_ms, Neighbours::kMaxFramesPerTick, sent_);
    return sent_.take();
  }
  bool usable(NeighbourId id) const { return neighbours_.next_hop(id).usable; }

  Neighbours neighbours_;
  Sent sent_;
};

TEST_F(NeighbourTest, AsksEverybodyAndUsesTheAnswer) {
  want({{kFour, "10.0.0.11"}});
  const std::vector<Bytes> asked = tick(0);
  ASSERT_EQ(asked.size(), 1u);
  EXPECT_EQ(asked[0], arp(1, kOurMac, "10.0.0.2", Mac{}, "10.0.0.11", kBroadcastMac));
  EXPECT_FALSE(usable(kFour));

  EXPECT_EQ(neighbours_.learn(ip("10.0.0.11"), kBackendMac, 5), Learned::expected);
  ASSERT_TRUE(usable(kFour));
  const NextHop& hop = neighbours_.next_hop(kFour);
  EXPECT_EQ(Mac::from(hop.ethernet_addresses), kBackendMac);
  EXPECT_EQ(Mac::from(hop.ethernet_addresses + 6), kOurMac);
  EXPECT_EQ(neighbours_.resolved(), 1u);
}

TEST_F(NeighbourTest, AreListedInPages) {
  want({{kFour, "10.0.0.11"}, {kSix, "fd00::11"}});
  neighbours_.learn(ip("10.0.0.11"), kBackendMac, 5);
  std::vector<NeighbourView> found;
  const std::optional<size_t> next = neighbours_.list(0, 1, found);
  ASSERT_EQ(next, std::optional<size_t>(1));
  EXPECT_EQ(neighbours_.list(*next, 5, found), std::nullopt);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].address, ip("10.0.0.11"));
  EXPECT_EQ(found[0].mac, kBackendMac);
  EXPECT_STREQ(name(found[0].state), "reachable");
  EXPECT_EQ(found[1].address, ip("fd00::11"));
  EXPECT_TRUE(found[1].mac.is_zero());
  EXPECT_STREQ(name(found[1].state), "incomplete");
  EXPECT_EQ(neighbours_.list(SIZE_MAX, 5, found), std::nullopt);
}

TEST_F(NeighbourTest, AsksForIpv6BySolicitedNodeGroup) {
  want({{kSix, "fd00::abcd:ef11"}});
  const std::vector<Bytes> asked = tick(0);
  ASSERT_EQ(asked.size(), 1u);
  EXPECT_EQ(Mac::from(asked[0].data()), (Mac{{0x33, 0x33, 0xff, 0xcd, 0xef, 0x11}}));
  PacketView view;
  ASSERT_EQ(parse_frame(asked[0].data(), asked[0].size(), view), DropReason::none);
  EXPECT_EQ(address_of(view.source, 6), ip("fd00::2"));
  EXPECT_EQ(address_of(view.destination, 6), ip("ff02::1:ffcd:ef11"));
  NeighbourMessage message;
  ASSERT_EQ(read_nd(asked[0].data(), view, message), DropReason::none);
  EXPECT_TRUE(message.is_request);
  EXPECT_EQ(message.target, ip("fd00::abcd:ef11"));
  EXPECT_EQ(message.sender_mac, kOurMac);
}

TEST_F(NeighbourTest, RetriesEverySecondAndThenBacksOff) {
  want({{kFour, "10.0.0.11"}});
  std::vector<uint32_t> asked_at;
  for (uint32_t now_ms = 0; now_ms < 60'000; now_ms += 100) {
    if (!tick(now_ms).empty()) asked_at.push_back(now_ms);
  }
  const std::vector<uint32_t> first(asked_at.begin(), asked_at.begin() + 7);
  EXPECT_EQ(first, (std::vector<uint32_t>{0, 1'000, 2'000, 3'000, 5'000, 9'000, 17'000}));
  EXPECT_EQ(asked_at.back() - asked_at[asked_at.size() - 2], Neighbours::kSlowestRetryMs);
}

TEST_F(NeighbourTest, ConfirmsAReachableNeighbourByUnicastBeforeItIsForgotten) {
  want({{kFour, "10.0.0.11"}});
  tick(0);
  neighbours_.learn(ip("10.0.0.11"), kBackendMac, 0);
  EXPECT_TRUE(tick(20'000).empty());
  uint32_t now_ms = Neighbours::kReachableMs;
  for (unsigned i = 0; i < Neighbours::kUnicastProbes; ++i, now_ms += 1'000) {
    const std::vector<Bytes> asked = tick(now_ms);
    ASSERT_EQ(asked.size(), 1u);
    EXPECT_EQ(Mac::from(asked[0].data()), kBackendMac);
    EXPECT_TRUE(usable(kFour)) << "still used while it is asked";
  }
  for (unsigned i = 0; i < Neighbours::kBroadcastProbes; ++i, now_ms += 1'000) {
    const std::vector<Bytes> asked = tick(now_ms);
    ASSERT_EQ(asked.size(), 1u);
    EXPECT_EQ(Mac::from(asked[0].data()), kBroadcastMac);
    EXPECT_TRUE(usable(kFour));
  }
  tick(now_ms);
  EXPECT_FALSE(usable(kFour));
  neighbours_.learn(ip("10.0.0.11"), kBackendMac, now_ms);
  EXPECT_TRUE(usable(kFour));
}

TEST_F(NeighbourTest, IgnoresAddressesNobodyAskedFor) {
  want({{kFour, "10.0.0.11"}});
  for (int i = 0; i < 10'000; ++i) {
    EXPECT_EQ(neighbours_.learn(IpAddress::v4(htonl(0x0a000100u + static_cast<uint32_t>(i))), kOtherMac, 0),
              Learned::unknown);
  }
  EXPECT_EQ(neighbours_.targets(), 1u);
}

TEST_F(NeighbourTest, BelievesAChangeOfMacOnlyAfterAskingEverybody) {
  want({{kFour, "10.0.0.11"}});
  tick(0);
  neighbours_.learn(ip("10.0.0.11"), kBackendMac, 0);
  neighbours_.learn(ip("10.0.0.11"), kOtherMac, 100);
  EXPECT_EQ(Mac::from(neighbours_.next_hop(kFour).ethernet_addresses), kBackendMac);
  const std::vector<Bytes> asked = tick(100);
  ASSERT_EQ(asked.size(), 1u);
  EXPECT_EQ(Mac::from(asked[0].data()), kBroadcastMac);
  neighbours_.learn(ip("10.0.0.11"), kOtherMac, 101);
  EXPECT_EQ(Mac::from(neighbours_.next_hop(kFour).ethernet_addresses), kOtherMac);
}

TEST_F(NeighbourTest, KeepsWhatItKnowsThroughAChangeOfTables) {
  want({{kFour, "10.0.0.11"}, {kSix, "fd00::11"}});
  tick(0);
  neighbours_.learn(ip("10.0.0.11"), kBackendMac, 0);
  neighbours_.learn(ip("fd00::11"), kBackendMac, 0);
  want({{kFour, "10.0.0.11"}}, 1'000);
  EXPECT_TRUE(usable(kFour));
  EXPECT_FALSE(usable(kSix));
  EXPECT_TRUE(tick(1'000).empty());
  want({{kFour, "10.0.0.12"}}, 2'000);  // the id now means another address
  EXPECT_FALSE(usable(kFour));
}

TEST_F(NeighbourTest, SaysWhoDoesNotAnswerAndWhoAnswersAgain) {
  NeighbourBoard board;
  neighbours_ = Neighbours({PortIdentity{kOurMac, {{ip("10.0.0.2"), 24}}}}, &board);
  want({{kFour, "10.0.0.11"}});
  uint32_t now_ms = 0;
  const auto run = [&](uint32_t ms) {
    for (uint32_t end = now_ms + ms; now_ms < end; now_ms += 100) tick(now_ms);
  };
  run(2'900);
  EXPECT_FALSE(board.is_silent(kFour)) << "three questions may get lost";
  run(200);
  EXPECT_TRUE(board.is_silent(kFour));
  EXPECT_EQ(board.silent(), 1u);
  const uint64_t changes = board.changes();
  run(60'000);
  EXPECT_EQ(board.changes(), changes);
  neighbours_.learn(ip("10.0.0.11"), kBackendMac, now_ms);
  EXPECT_FALSE(board.is_silent(kFour));
  EXPECT_GT(board.changes(), changes);
  run(31'000 + 10'000);
  EXPECT_TRUE(board.is_silent(kFour)) << "it went away";
  want({}, now_ms);
  EXPECT_EQ(board.silent(), 0u) << "nobody asks for it any more";
}

// With thousands of neighbours each tick looks at some. One that is due has its turn a few ticks later.
TEST_F(NeighbourTest, GetsRoundToEachOfThousands) {
  constexpr size_t kTargets = 3'000;
  const auto address = [](size_t i) { return "10.0." + std::to_string(i / 250) + "." + std::to_string(i % 250 + 1); };
  std::vector<std::pair<NeighbourId, std::string>> targets;
  for (size_t i = 0; i < kTargets; ++i) targets.emplace_back(NeighbourId(i), address(i));
  want(targets);
  uint32_t now_ms = 0;
  const auto asked_in = [&](size_t ticks) {
    size_t asked = 0;
    for (size_t i = 0; i < ticks; ++i) {
      const size_t frames = tick(++now_ms).size();
      EXPECT_LE(frames, Neighbours::kMaxFramesPerTick);
      asked += frames;
    }
    return asked;
  };
  EXPECT_EQ(asked_in(kTargets / Neighbours::kMaxFramesPerTick + 1), kTargets) << "each once";
  for (size_t i = 0; i < kTargets; ++i) neighbours_.learn(ip(address(i)), kBackendMac, now_ms);
  EXPECT_EQ(neighbours_.resolved(), kTargets);

  now_ms += Neighbours::kReachableMs - 5'000;
  EXPECT_EQ(asked_in(20), 0U) << "nobody is due";
  now_ms += 5'000;
  EXPECT_GT(asked_in(kTargets / Neighbours::kMaxFramesPerTick + 1), kTargets * 9 / 10);
  EXPECT_EQ(neighbours_.resolved(), kTargets) << "used while they are asked";

  targets.resize(kTargets / 2);
  want(targets, now_ms);
  EXPECT_EQ(neighbours_.resolved(), kTargets / 2);
  want({}, now_ms);
  EXPECT_EQ(neighbours_.resolved(), 0U);
}

TEST(NeighbourWire, RefusesDiscoveryThatARouterForwardedOrThatIsBroken) {
  const auto read = [](Bytes packet) {
    const Bytes frame = ethernet(kEtherTypeIp6, packet);
    PacketView view;
    EXPECT_EQ(parse_frame(frame.data(), frame.size(), view), DropReason::none);
    NeighbourMessage message;
    return read_nd(frame.data(), view, message);
  };
  Bytes body = {0, 0, 0, 0};
  append_address(body, ip("fd00::100"));
  Bytes with_option = body;
  append(with_option, {1, 1, 2, 0, 0, 0, 0, 0x11});
  Bytes empty_option = body;
  append(empty_option, {1, 0, 2, 0, 0, 0, 0, 0x11});
  const IpAddress from = ip("fd00::11"), to = ip("ff02::1:ff00:100");
  EXPECT_EQ(read(icmp6_packet(from, to, 135, with_option, 255)), DropReason::none);
  EXPECT_EQ(read(icmp6_packet(from, to, 135, body, 255)), DropReason::none);
  EXPECT_EQ(read(icmp6_packet(from, to, 135, with_option, 254)), DropReason::nd_malformed);
  EXPECT_EQ(read(icmp6_packet(from, to, 135, empty_option, 255)), DropReason::nd_malformed);
  EXPECT_EQ(read(icmp6_packet(from, to, 135, {0, 0, 0, 0, 1, 2, 3, 4}, 255)), DropReason::nd_malformed);
  Bytes bad_sum = icmp6_packet(from, to, 135, with_option, 255);
  bad_sum.back() ^= 1;
  EXPECT_EQ(read(bad_sum), DropReason::nd_malformed);
}

}  // namespace tidegate::l4::neighbour_test
