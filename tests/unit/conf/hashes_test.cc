// SPDX-License-Identifier: Apache-2.0
// Each hash compared with its definition, and the properties for which one would choose it.
#include "conf/hashes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <random>
#include <string>

namespace tidegate::hashes_test {

constexpr HashKey kKey = {5, 6};
constexpr uint32_t kSlots = 5'003;

struct Crowd {
  std::vector<std::unique_ptr<std::string>> names;
  std::vector<MaglevMember> members;
  void add(uint32_t weight) {
    names.push_back(std::make_unique<std::string>("backend" + std::to_string(names.size())));
    members.push_back({*names.back(), weight, static_cast<uint16_t>(names.size() - 1)});
  }
};

Crowd crowd_of(size_t count, uint32_t weight = 100) {
  Crowd crowd;
  for (size_t i = 0; i < count; ++i) crowd.add(weight);
  return crowd;
}

std::map<uint16_t, uint32_t> count(const std::vector<uint16_t>& table) {
  std::map<uint16_t, uint32_t> counts;
  for (const uint16_t index : table) ++counts[index];
  return counts;
}

TEST(Hashes, FillEverySlotWithMembersOfWeightWhateverTheirOrder) {
  for (const HashScheme scheme : kHashSchemes) {
    SCOPED_TRACE(std::string(name(scheme)));
    Crowd crowd = crowd_of(20);
    crowd.members[3].weight = 0;
    crowd.members[4].weight = 300;
    const std::vector<uint16_t> table = build_slots(scheme, crowd.members, kSlots, kKey);
    ASSERT_EQ(table.size(), kSlots);
    const auto counts = count(table);
    EXPECT_EQ(counts.size(), 19u);
    EXPECT_FALSE(counts.contains(3));
    EXPECT_FALSE(counts.contains(kMaglevEmpty));
    EXPECT_GT(counts.at(4), counts.at(5) * 2);
    std::reverse(crowd.members.begin(), crowd.members.end());
    EXPECT_EQ(build_slots(scheme, crowd.members, kSlots, kKey), table);
    EXPECT_EQ(count(build_slots(scheme, {}, kSlots, kKey)), (std::map<uint16_t, uint32_t>{{kMaglevEmpty, kSlots}}));
    EXPECT_EQ(build_slots(scheme, crowd_of(1).members, kSlots, kKey), std::vector<uint16_t>(kSlots, 0));
  }
}

// Rendezvous and the ring move nothing between members that stay.
TEST(Hashes, OfRingAndRendezvousMoveOnlyWhatTheRemovedMemberHad) {
  for (const HashScheme scheme : {HashScheme::ring, HashScheme::rendezvous}) {
    const Crowd crowd = crowd_of(30);
    const std::vector<uint16_t> before = build_slots(scheme, crowd.members, kSlots, kKey);
    for (uint16_t gone = 0; gone < 30; ++gone) {
      std::vector<MaglevMember> members = crowd.members;
      members.erase(members.begin() + gone);
      const std::vector<uint16_t> after = build_slots(scheme, members, kSlots, kKey);
      for (uint32_t slot = 0; slot < kSlots; ++slot) {
        if (before[slot] != gone) ASSERT_EQ(after[slot], before[slot]) << name(scheme);
      }
    }
  }
}

TEST(Hashes, BoundedGivesNoMemberMoreThanItsBound) {
  std::mt19937 random(1);
  for (int round = 0; round < 50; ++round) {
    Crowd crowd;
    uint64_t weights = 0;
    for (size_t i = 0; i < 1 + random() % 40; ++i) {
      crowd.add(1 + static_cast<uint32_t>(random() % 200));
      weights += crowd.members.back().weight;
    }
    for (const auto& [index, slots] : count(build_slots(HashScheme::bounded, crowd.members, kSlots, kKey))) {
      const double share = static_cast<double>(kSlots) * crowd.members[index].weight / static_cast<double>(weights);
      EXPECT_LE(slots, std::ceil(kBound * share));
    }
  }
}

// The paper's code (Lamping and Veach 2014, figure 1), unchanged.
int32_t jump_of_the_paper(uint64_t key, int32_t num_buckets) {
  int64_t b = -1, j = 0;
  while (j < num_buckets) {
    b = j;
    key = key * 2862933555777941757ULL + 1;
    j = static_cast<int64_t>(static_cast<double>(b + 1) *
                             (static_cast<double>(1LL << 31) / static_cast<double>((key >> 33) + 1)));
  }
  return static_cast<int32_t>(b);
}

TEST(Hashes, JumpIsThePapersAndMovesOnlyToTheNewBucket) {
  std::mt19937_64 random(2);
  for (int round = 0; round < 100'000; ++round) {
    const uint64_t hash = random();
    const auto buckets = 1 + static_cast<uint32_t>(random() % 2'000);
    const uint32_t bucket = jump_bucket(hash, buckets);
    ASSERT_EQ(bucket, static_cast<uint32_t>(jump_of_the_paper(hash, static_cast<int32_t>(buckets))));
    ASSERT_LT(bucket, buckets);
    const uint32_t after = jump_bucket(hash, buckets + 1);
    ASSERT_TRUE(after == bucket || after == buckets);
  }
}

// Random changes one after the other: shares stay exact, and no slot moves that need not.
void change_minimal(int changes) {
  std::mt19937 random(3);
  Crowd crowd = crowd_of(10);
  std::vector<uint16_t> table = build_slots(HashScheme::minimal, crowd.members, kSlots, kKey);
  for (int change = 0; change < changes; ++change) {
    if (crowd.members.size() < 60 && random() % 8 == 0) {
      crowd.add(1 + static_cast<uint32_t>(random() % 200));
    } else {
      crowd.members[random() % crowd.members.size()].weight = static_cast<uint32_t>(random() % 200);
    }
    uint64_t weights = 0;
    for (const MaglevMember& member : crowd.members) weights += member.weight;
    if (weights == 0) continue;
    const std::vector<uint16_t> after = build_slots(HashScheme::minimal, crowd.members, kSlots, kKey, table);
    auto had = count(table), has = count(after);
    uint32_t moved = 0, needed = 0;
    for (uint32_t slot = 0; slot < kSlots; ++slot) moved += table[slot] != after[slot] ? 1 : 0;
    for (const MaglevMember& member : crowd.members) {
      needed += has[member.index] > had[member.index] ? has[member.index] - had[member.index] : 0;
      const double share = static_cast<double>(kSlots) * member.weight / static_cast<double>(weights);
      ASSERT_LT(std::abs(has[member.index] - share), 1.0);
    }
    ASSERT_EQ(moved, needed);
    table = after;
  }
}

TEST(Hashes, MinimalMovesAsFewSlotsAsExactSharesAllow) { change_minimal(100); }
TEST(LongHashes, MinimalMovesAsFewSlotsAsExactSharesAllow) { change_minimal(1'000); }

TEST(Hashes, CompareAsTheirPapersSay) {
  const Crowd crowd = crowd_of(50);
  std::map<HashScheme, HashReport> by_scheme;
  for (const HashReport& report : compare_hashes(crowd.members, kSlots, kKey)) by_scheme[report.scheme] = report;
  ASSERT_EQ(by_scheme.size(), kHashSchemes.size());
  EXPECT_GT(by_scheme[HashScheme::modulo].remove_moves, 0.9);
  EXPECT_LT(by_scheme[HashScheme::maglev].remove_moves, 0.1);
  EXPECT_EQ(by_scheme[HashScheme::ring].remove_moves, 0);
  EXPECT_EQ(by_scheme[HashScheme::rendezvous].remove_moves, 0);
  EXPECT_EQ(by_scheme[HashScheme::minimal].add_moves, 0);
  EXPECT_EQ(by_scheme[HashScheme::jump].add_moves < by_scheme[HashScheme::modulo].add_moves, true);
  EXPECT_LT(by_scheme[HashScheme::maglev].share_error, 0.02);
  EXPECT_GT(by_scheme[HashScheme::ring].share_error, by_scheme[HashScheme::bounded].share_error);
  EXPECT_EQ(by_scheme[HashScheme::maglev].bytes, kSlots * 2);
  EXPECT_TRUE(compare_hashes(crowd_of(1).members, kSlots, kKey).empty());
}

}  // namespace tidegate::hashes_test
