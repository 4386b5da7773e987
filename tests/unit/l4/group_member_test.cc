// SPDX-License-Identifier: Apache-2.0
#include "l4/group_member.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "l4/neighbour_wire.h"
#include "l4/vip_announcer.h"
#include "tests/unit/l4/frames.h"

namespace tidegate::l4::group_member_test {

using namespace testing;

constexpr uint64_t kThousandsOfVips = 20'000;

class Sent final : public FrameSink {
 public:
  void send(uint16_t port, const uint8_t* frame, size_t bytes) override {
    frames.emplace_back(frame, frame + bytes);
    ports.push_back(port);
  }
  std::vector<Bytes> take() {
    ports.clear();
    return std::exchange(frames, {});
  }
  std::vector<Bytes> frames;
  std::vector<uint16_t> ports;
};

// Reads a report by hand: the record type of each group. Checks what every report must have.
using Records = std::multimap<std::string, int>;
void read_report(const Bytes& frame, Records& records) {
  ASSERT_GE(frame.size(), 14u + 40 + 8 + 8);
  ASSERT_LE(frame.size(), 14u + 1'280);
  const uint8_t* ip6_header = frame.data() + 14;
  EXPECT_EQ(ip6_header[7], 1) << "hop limit";
  EXPECT_EQ(IpAddress::v6(ip6_header + 8), link_local_of(kOurMac));
  EXPECT_EQ(Bytes(ip6_header + 40, ip6_header + 48), (Bytes{58, 0, 5, 2, 0, 0, 1, 0})) << "router alert";
  const uint8_t* icmp = ip6_header + 48;
  EXPECT_EQ(icmp6_checksum(ip6_header, icmp, frame.size() - 62), 0);
  if (icmp[0] == 131 || icmp[0] == 132) {
    const IpAddress to = IpAddress::v6(ip6_header + 24), group = IpAddress::v6(icmp + 8);
    EXPECT_EQ(to, icmp[0] == 131 ? group : ip("ff02::2"));
    records.emplace(group.to_string(), icmp[0]);
    return;
  }
  ASSERT_EQ(icmp[0], 143);
  EXPECT_EQ(Mac::from(frame.data()), (Mac{{0x33, 0x33, 0, 0, 0, 0x16}}));
  EXPECT_EQ(IpAddress::v6(ip6_header + 24), ip("ff02::16"));
  const size_t count = load_be16(icmp + 6);
  ASSERT_EQ(frame.size(), 62 + 8 + count * 20);
  for (size_t i = 0; i < count; ++i) {
    const uint8_t* record = icmp + 8 + i * 20;
    EXPECT_EQ(load_be16(record + 2), 0) << "sources";
    records.emplace(IpAddress::v6(record + 4).to_string(), record[0]);
  }
}

class GroupMemberTest : public ::testing::Test {
 protected:
  static constexpr int kIsMember = 2, kLeaves = 3, kJoins = 4, kReport1 = 131;
  const std::string link_local_group_ = solicited_node(link_local_of(kOurMac)).to_string();

  void want(const std::vector<std::string>& addresses) {
    std::vector<LocalAddress> list;
    for (const std::string& address : addresses) list.push_back({ip(address), LocalKind::vip, 0, 0});
    member_.adopt(sets_.set_of(std::move(list), ++generation_), now_ms_);
  }
  Records run(uint32_t ms) {
    Records records;
    for (uint32_t end = now_ms_ + ms; now_ms_ != end; ++now_ms_) {
      member_.tick(now_ms_, sent_);
      EXPECT_LE(sent_.frames.size(), 3 * GroupMember::kMaxFramesPerTick);
      for (const Bytes& frame : sent_.take()) read_report(frame, records);
    }
    return records;
  }

  LocalSets sets_;
  uint64_t generation_ = 0;
  uint32_t now_ms_ = 5'000;
  Sent sent_;
  GroupMember member_{{PortIdentity{kOurMac, {}}}};
};

TEST_F(GroupMemberTest, JoinsTheGroupOfEachAddressTwiceAndOfItsOwnLinkLocalOne) {
  want({"fd00::100", "fd00::1:0:100", "10.0.0.1", "fd00::abcd:ef11"});
  EXPECT_EQ(run(10'000), (Records{{"ff02::1:ff00:100", kJoins},
                                  {"ff02::1:ff00:100", kJoins},
                                  {"ff02::1:ffcd:ef11", kJoins},
                                  {"ff02::1:ffcd:ef11", kJoins},
                                  {link_local_group_, kJoins},
                                  {link_local_group_, kJoins}}));
}

TEST_F(GroupMemberTest, JoinsOnlyWhatIsNewAndLeavesWhatIsGone) {
  want({"fd00::1", "fd00::2"});
  run(5'000);
  want({"fd00::2", "fd00::3"});
  EXPECT_EQ(run(5'000), (Records{{"ff02::1:ff00:3", kJoins},
                                 {"ff02::1:ff00:3", kJoins},
                                 {"ff02::1:ff00:1", kLeaves},
                                 {"ff02::1:ff00:1", kLeaves}}));
  want({"fd00::2", "fd00::3"});
  EXPECT_EQ(run(5'000), Records{}) << "nothing changed";
}

TEST_F(GroupMemberTest, AnswersAGeneralQueryOnceWithinItsTime) {
  want({"fd00::1", "fd00::2"});
  run(5'000);
  member_.on_query(0, {false, ip("::"), 1'000}, now_ms_);
  member_.on_query(0, {false, ip("::"), 1'000}, now_ms_);
  const Records all{{"ff02::1:ff00:1", kIsMember}, {"ff02::1:ff00:2", kIsMember}, {link_local_group_, kIsMember}};
  EXPECT_EQ(run(1'001), all);
  EXPECT_EQ(run(5'000), Records{});
  member_.on_query(0, {false, ip("::"), UINT32_MAX}, now_ms_);
  EXPECT_EQ(run(GroupMember::kLongestDelayMs + 1), all) << "however long the querier would wait";
}

TEST_F(GroupMemberTest, AnswersForTheGroupThatIsAskedForIfItIsAMember) {
  want({"fd00::1", "fd00::2"});
  run(5'000);
  member_.on_query(0, {false, ip("ff02::1:ff00:2"), 100}, now_ms_);
  member_.on_query(0, {false, ip("ff02::1:ff00:2"), 100}, now_ms_);
  member_.on_query(0, {false, ip("ff02::1:ff00:9"), 100}, now_ms_);
  EXPECT_EQ(run(1'000), (Records{{"ff02::1:ff00:2", kIsMember}}));
}

TEST_F(GroupMemberTest, SpeaksVersion1WhereTheQuerierDoesAndForAsLongAsItIsHeard) {
  want({"fd00::1"});
  run(5'000);
  member_.on_query(0, {true, ip("::"), 100}, now_ms_);
  EXPECT_EQ(run(1'000), (Records{{"ff02::1:ff00:1", kReport1}, {link_local_group_, kReport1}}));
  want({});
  EXPECT_EQ(run(3'000), (Records{{"ff02::1:ff00:1", 132}, {"ff02::1:ff00:1", 132}}));
  now_ms_ += GroupMember::kVersion1Ms;
  want({"fd00::7"});
  EXPECT_EQ(run(3'000), (Records{{"ff02::1:ff00:7", kJoins}, {"ff02::1:ff00:7", kJoins}}));
}

TEST_F(GroupMemberTest, ReportsEachOfThousandsAFewFramesAtATime) {
  std::vector<std::string> vips;
  for (uint64_t i = 0; i < kThousandsOfVips; ++i) vips.push_back(fmt::format("fd00::{:x}:{:x}", i >> 12, i + 2));
  want(vips);
  std::map<std::string, int> times;
  for (const auto& [group, kind] : run(3'000)) {
    EXPECT_EQ(kind, kJoins);
    ++times[group];
  }
  EXPECT_EQ(times.size(), kThousandsOfVips + 1);
  for (const auto& [group, count] : times) EXPECT_EQ(count, 2) << group;
  member_.on_query(0, {false, ip("::"), 0}, now_ms_);
  EXPECT_EQ(run(100).size(), kThousandsOfVips + 1);
  member_.restart(now_ms_);
  EXPECT_EQ(run(3'000).size(), 2 * (kThousandsOfVips + 1)) << "the link was away";
}

TEST(LocalSetsTest, GivesTheSetOfBeforeWhileNothingChanges) {
  LocalSets sets;
  const std::vector<LocalAddress> two = {{ip("fd00::1"), LocalKind::vip, 0, 0}, {ip("10.0.0.1"), LocalKind::own, 0, 0}};
  const auto first = sets.set_of(two, 1);
  EXPECT_EQ(sets.set_of(two, 2), first);
  auto three = two;
  three.insert(three.begin(), {ip("10.0.0.2"), LocalKind::vip, 0, 0});
  const auto second = sets.set_of(three, 3);
  ASSERT_EQ(second->addresses.size(), 3u);
  EXPECT_EQ(second->addresses.back().address, ip("10.0.0.2")) << "the new one stands last";
  EXPECT_EQ(second->addresses.back().since, 3u);
  EXPECT_EQ(second->addresses.front().since, 1u);
}

// A naive twin counts how often each item was announced.
TEST(RoundsTest, SaysEachNewItemSoManyTimesWhateverComesBetween) {
  struct Item {
    int name;
    uint64_t since;
  };
  for (const size_t most : {1u, 3u, 1'000u}) {
    Rounds rounds(3);
    std::vector<Item> items;
    std::map<int, int> said;
    uint32_t now_ms = UINT32_MAX - 2'000;  // so that the clock wraps during the test
    const auto run = [&](uint32_t ms) {
      for (uint32_t end = now_ms + ms; now_ms != end; ++now_ms) {
        EXPECT_LE(rounds.say(items, now_ms, most, [&](const Item& item) { ++said[item.name]; }), most);
      }
    };
    for (int name = 0; name < 60; ++name) {
      const auto generation = static_cast<uint64_t>(name / 10 + 1);
      items.push_back({name, generation});
      if (name % 10 == 9) {
        rounds.add(generation, now_ms);
        run(100);
      }
    }
    run(10'000);
    EXPECT_EQ(said.size(), 60u);
    for (const auto& [name, times] : said) EXPECT_EQ(times, 3) << name;
    EXPECT_TRUE(rounds.idle());
    rounds.restart(now_ms);
    run(10'000);
    for (const auto& [name, times] : said) EXPECT_EQ(times, 6) << name;
  }
}

TEST(RoundsTest, ForgetsNothingWhenChangesComeFasterThanTheyAreSaid) {
  struct Item {
    uint64_t since;
  };
  Rounds rounds(2);
  std::vector<Item> items;
  std::map<uint64_t, int> said;
  uint32_t now_ms = 0;
  for (uint64_t generation = 1; generation <= 100; ++generation) {
    items.push_back({generation});
    rounds.add(generation, now_ms);
  }
  for (; now_ms < 10'000; ++now_ms) rounds.say(items, now_ms, 7, [&](const Item& item) { ++said[item.since]; });
  EXPECT_EQ(said.size(), 100u);
  for (const auto& [generation, times] : said) EXPECT_GE(times, 2) << generation;
}

TEST(AnnouncerTest, AnnouncesANewVipAFewTimesAndAnOldOneNotAgain) {
  VipAnnouncer announcer({PortIdentity{kOurMac, {}}});
  LocalSets sets;
  Sent sent;
  const std::vector<LocalAddress> vip = {{ip("10.0.0.100"), LocalKind::vip, 0, 0}};
  announcer.adopt(sets.set_of(vip, 1), 0);
  size_t announced = 0;
  for (uint32_t now_ms = 0; now_ms < 10'000; now_ms += 100) {
    announcer.tick(now_ms, 64, sent);
    for (const Bytes& frame : sent.take()) {
      EXPECT_EQ(frame, arp(1, kOurMac, "10.0.0.100", Mac{}, "10.0.0.100", kBroadcastMac));
      ++announced;
    }
  }
  EXPECT_EQ(announced, VipAnnouncer::kTimes);
  announcer.adopt(sets.set_of({vip[0], {ip("fd00::100"), LocalKind::vip, 0, 0}}, 2), 10'000);
  announcer.tick(10'000, 64, sent);
  const std::vector<Bytes> frames = sent.take();
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(Mac::from(frames[0].data()), (Mac{{0x33, 0x33, 0, 0, 0, 1}}));
}

// A query as a querier sends it, and messages that must not be taken for one.
class MldQueryTest : public ::testing::Test {
 protected:
  static Bytes query(const std::string& group, uint16_t code, bool version1 = false) {
    Bytes icmp = {130, 0, 0, 0};
    append_be16(icmp, code);
    append_be16(icmp, 0);
    append_address(icmp, ip(group));
    if (!version1) icmp.insert(icmp.end(), {2, 125, 0, 0});
    Bytes packet = ip6(ip("fe80::1"), ip("ff02::1"), 0, Bytes{58, 0, 5, 2, 0, 0, 1, 0}, 1);
    append(packet, icmp);
    store_be16(packet.data() + 4, static_cast<uint16_t>(8 + icmp.size()));
    return summed(packet);
  }
  static Bytes summed(Bytes packet) {
    store_be16(packet.data() + 50, 0);
    store_be16(packet.data() + 50, icmp6_checksum(packet.data(), packet.data() + 48, packet.size() - 48));
    return packet;
  }
  static DropReason read(const Bytes& packet, MldQuery& query) {
    const Bytes frame = ethernet(kEtherTypeIp6, packet, Mac{{0x33, 0x33, 0, 0, 0, 1}});
    PacketView view;
    EXPECT_EQ(parse_frame(frame.data(), frame.size(), view), DropReason::none);
    EXPECT_TRUE(is_mld_query(frame.data(), view));
    return read_mld_query(frame.data(), view, query);
  }
};

TEST_F(MldQueryTest, IsReadInBothVersions) {
  MldQuery said;
  ASSERT_EQ(read(query("::", 10'000), said), DropReason::none);
  EXPECT_FALSE(said.version1);
  EXPECT_EQ(said.group, ip("::"));
  EXPECT_EQ(said.longest_delay_ms, 10'000u);
  ASSERT_EQ(read(query("ff02::1:ff00:1", 0x8000), said), DropReason::none);
  EXPECT_EQ(said.group, ip("ff02::1:ff00:1"));
  EXPECT_EQ(said.longest_delay_ms, 0x1000u << 3);
  ASSERT_EQ(read(query("::", 0xffff, true), said), DropReason::none);
  EXPECT_TRUE(said.version1);
  EXPECT_EQ(said.longest_delay_ms, 0xffffu);
}

TEST_F(MldQueryTest, IsPassedOverWhenItDoesNotComeFromTheLinkOrIsBroken) {
  MldQuery said;
  Bytes routed = query("::", 100);
  routed[7] = 2;
  EXPECT_EQ(read(routed, said), DropReason::mld_malformed);
  Bytes global = query("::", 100);
  global[8] = 0x20;
  EXPECT_EQ(read(summed(global), said), DropReason::mld_malformed);
  Bytes no_alert = query("::", 100);
  no_alert[42] = 1;
  EXPECT_EQ(read(no_alert, said), DropReason::mld_malformed);
  Bytes bad_sum = query("::", 100);
  bad_sum.back() ^= 1;
  EXPECT_EQ(read(bad_sum, said), DropReason::mld_malformed);
  Bytes between = query("::", 100);
  between.pop_back();
  between[5] -= 1;
  EXPECT_EQ(read(summed(between), said), DropReason::mld_malformed);
  EXPECT_EQ(read(query("fd00::1", 100), said), DropReason::mld_malformed) << "no group";
}

}  // namespace tidegate::l4::group_member_test
