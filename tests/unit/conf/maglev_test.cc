// SPDX-License-Identifier: Apache-2.0
#include "conf/maglev.h"

#include <gtest/gtest.h>

#include "conf/maglev_change.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <random>

namespace tidegate::maglev_test {

constexpr HashKey kKey{0x0123456789abcdef, 0xfedcba9876543210};

// Owns the names that the members view.
struct Pool {
  std::vector<std::string> names;
  std::vector<MaglevMember> members;

  explicit Pool(const std::vector<uint32_t>& weights) {
    for (size_t i = 0; i < weights.size(); ++i) names.push_back("backend-" + std::to_string(i));
    for (size_t i = 0; i < weights.size(); ++i) members.push_back({names[i], weights[i], static_cast<uint16_t>(i)});
  }
};

std::vector<uint32_t> random_weights(size_t count, uint32_t most, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<uint32_t> weights(count);
  for (uint32_t& weight : weights) weight = static_cast<uint32_t>(random() % most) + 1;
  return weights;
}

std::vector<uint32_t> shares(const std::vector<uint16_t>& table, size_t members) {
  std::vector<uint32_t> out(members, 0);
  for (const uint16_t index : table) ++out.at(index);
  return out;
}

// The paper's pseudocode (§3.4) taken literally and slow: permutations are written out, and every turn compares
// fractions.
class NaiveMaglev {
 public:
  NaiveMaglev(const std::vector<MaglevMember>& members, uint32_t slots, const HashKey& key) : slots_(slots) {
    for (const MaglevMember& member : members) {
      if (member.weight == 0) continue;
      const uint64_t hash = siphash13(key, member.name);
      const uint64_t skip = siphash13({mix64(key.k0 + 1), mix64(key.k1 + 2)}, member.name) % (slots - 1) + 1;
      Entry entry{hash, member, {}, 0, 0};
      for (uint64_t j = 0; j < slots; ++j)
        entry.permutation.push_back(static_cast<uint32_t>((hash % slots + j * skip) % slots));
      entries_.push_back(std::move(entry));
      weights_ += member.weight;
    }
    std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) { return a.rank < b.rank; });
  }

  // `quota` limits how many slots each member gets, by member index.
  std::vector<uint16_t> table(const std::vector<uint32_t>& quota) {
    std::vector<uint16_t> out(slots_, kMaglevEmpty);
    for (uint32_t filled = 0; filled < slots_; ++filled) {
      Entry* first = nullptr;
      for (Entry& entry : entries_) {
        if (entry.turns == quota[entry.member.index]) continue;
        // The member with the smallest k / w is next. W is common to all, so it cancels.
        if (first == nullptr || whole_time(entry) < whole_time(*first)) first = &entry;
      }
      while (out[first->permutation[first->next]] != kMaglevEmpty) ++first->next;
      out[first->permutation[first->next]] = first->member.index;
      ++first->turns;
    }
    return out;
  }

 private:
  struct Entry {
    uint64_t rank;
    MaglevMember member;
    std::vector<uint32_t> permutation;
    uint32_t next, turns;
  };
  uint64_t whole_time(const Entry& entry) const { return entry.turns * weights_ / entry.member.weight; }

  uint32_t slots_;
  uint64_t weights_ = 0;
  std::vector<Entry> entries_;
};

struct Size {
  uint32_t members, slots, most;
};

void compare_with_naive_twin(std::initializer_list<Size> sizes) {
  for (const auto& [members, slots, most] : sizes) {
    const Pool pool(random_weights(members, most, members + most));
    const std::vector<uint16_t> table = build_maglev(pool.members, slots, kKey);
    EXPECT_EQ(table, NaiveMaglev(pool.members, slots, kKey).table(shares(table, members)))
        << members << " members, " << slots << " slots, weights up to " << most;
  }
}

TEST(Maglev, EqualsThePaperWrittenOutNaively) {
  compare_with_naive_twin({{1, 2, 1},
                           {2, 3, 1},
                           {3, 5, 9},
                           {1, 13, 1},
                           {2, 251, 1},
                           {7, 251, 1},
                           {50, 1'021, 1},
                           {7, 251, 100},
                           {50, 1'021, 100},
                           {50, 1'021, 65'535},
                           {200, 1'021, 3},
                           {300, 251, 2},
                           {3, 1'021, 1'000'000},
                           {2, 65'537, 60'000}});
}

TEST(LongMaglev, EqualsThePaperWrittenOutNaively) {
  compare_with_naive_twin(
      {{1'000, 4'093, 100}, {4'500, 4'093, 2}, {10, 65'537, 1}, {30, 65'537, 60'000}, {2, 655'373, 3}});
}

TEST(Maglev, GivesEachMemberItsIdealShareRoundedDownOrUp) {
  constexpr uint32_t kSlots = 65'537;
  for (const uint32_t most : {1U, 2U, 100U, 60'000U}) {
    const Pool pool(random_weights(500, most, most));
    double weights = 0;
    for (const MaglevMember& member : pool.members) weights += member.weight;
    const std::vector<uint32_t> got = shares(build_maglev(pool.members, kSlots, kKey), pool.members.size());
    for (size_t i = 0; i < got.size(); ++i) {
      const double ideal = kSlots * (pool.members[i].weight / weights);
      if (ideal < 1) {
        EXPECT_EQ(got[i], 1U) << "member " << i;
      } else {
        EXPECT_NEAR(got[i], ideal, 1.5) << "member " << i << " of weight " << pool.members[i].weight;
      }
    }
  }
}

TEST(Maglev, StarvesNobodyWhenTheSumOfWeightsExceedsTheSlots) {
  const Pool pool({65'535, 65'535, 65'535, 1, 1});
  const std::vector<uint32_t> got = shares(build_maglev(pool.members, 13, kKey), 5);
  EXPECT_EQ(got[3], 1U);
  EXPECT_EQ(got[4], 1U);
  for (size_t i = 0; i < 3; ++i) EXPECT_GE(got[i], 3U);
}

TEST(Maglev, GivesTheSlotsToTheHeaviestWhenThereAreTooFew) {
  std::vector<uint32_t> weights(20);
  for (uint32_t i = 0; i < 20; ++i) weights[i] = i + 1;
  const std::vector<uint32_t> got = shares(build_maglev(Pool(weights).members, 13, kKey), 20);
  for (size_t i = 0; i < 20; ++i) EXPECT_EQ(got[i], i < 7 ? 0U : 1U) << i;
}

TEST(Maglev, DependsOnNamesNotOnTheOrderOfMembers) {
  const Pool pool(random_weights(100, 50, 1));
  std::vector<MaglevMember> shuffled = pool.members;
  std::shuffle(shuffled.begin(), shuffled.end(), std::mt19937(2));
  EXPECT_EQ(build_maglev(pool.members, 65'537, kKey), build_maglev(shuffled, 65'537, kKey));
}

TEST(Maglev, DependsOnTheKey) {
  const Pool pool(random_weights(10, 1, 1));
  const std::vector<uint16_t> table = build_maglev(pool.members, 251, kKey);
  EXPECT_NE(table, build_maglev(pool.members, 251, {kKey.k0 ^ 1, kKey.k1}));
}

TEST(Maglev, IsEmptyWithoutWeight) {
  for (const uint16_t slot : build_maglev(Pool({0, 0}).members, 251, kKey)) EXPECT_EQ(slot, kMaglevEmpty);
  for (const uint16_t slot : build_maglev({}, 251, kKey)) EXPECT_EQ(slot, kMaglevEmpty);
}

// Every slot of the removed member must move. The slots of the others should stay. The paper (§5.3) sees about 1 in 50
// move.
TEST(Maglev, MovesFewSlotsOfTheOthersWhenOneOfAHundredLeaves) {
  constexpr uint32_t kSlots = 65'537;
  Pool pool(std::vector<uint32_t>(100, 10));
  const std::vector<uint16_t> before = build_maglev(pool.members, kSlots, kKey);
  for (const size_t leaving : {0U, 17U, 99U}) {
    std::vector<MaglevMember> rest = pool.members;
    rest.erase(rest.begin() + static_cast<ptrdiff_t>(leaving));
    const std::vector<uint16_t> after = build_maglev(rest, kSlots, kKey);
    uint32_t moved = 0;
    for (uint32_t slot = 0; slot < kSlots; ++slot) moved += before[slot] != leaving && before[slot] != after[slot];
    EXPECT_LT(moved, kSlots * 3 / 100) << "backend " << leaving;
  }
}

TEST(Maglev, MovesFewSlotsWhenAWeightChanges) {
  constexpr uint32_t kSlots = 65'537;
  Pool pool(std::vector<uint32_t>(100, 100));
  const std::vector<uint16_t> before = build_maglev(pool.members, kSlots, kKey);
  pool.members[5].weight = 50;
  const std::vector<uint16_t> after = build_maglev(pool.members, kSlots, kKey);
  uint32_t moved = 0;
  for (uint32_t slot = 0; slot < kSlots; ++slot) moved += before[slot] != 5 && before[slot] != after[slot];
  EXPECT_LT(moved, kSlots * 3 / 100);
}

TEST(Maglev, SpreadsHashesAsTheWeightsSay) {
  const Pool pool({100, 200, 300, 400});
  const std::vector<uint16_t> table = build_maglev(pool.members, 65'537, kKey);
  constexpr int kFlows = 100'000;
  std::vector<double> got(4, 0);
  for (uint64_t flow = 0; flow < kFlows; ++flow) ++got[table[maglev_slot(siphash13_words(kKey, {flow}), 65'537)]];
  double chi_square = 0;
  for (size_t i = 0; i < 4; ++i) {
    const double ideal = kFlows * pool.members[i].weight / 1000.0;
    chi_square += (got[i] - ideal) * (got[i] - ideal) / ideal;
  }
  // Three degrees of freedom, 1 in 1,000; the key is fixed, so the result is always the same.
  EXPECT_LT(chi_square, 16.3);
}

// Members of one pool that come and go. Indexes belong to names.
class Changes {
 public:
  Changes(size_t all, uint32_t slots) : slots_(slots), there_(all) {
    for (size_t i = 0; i < all; ++i) names_.push_back("backend-" + std::to_string(i));
  }
  void flip(size_t i) { there_[i] = !there_[i]; }
  std::vector<MaglevMember> members(uint32_t weight = 7) const {
    std::vector<MaglevMember> out;
    for (size_t i = 0; i < names_.size(); ++i) {
      if (there_[i]) out.push_back({names_[i], weight, static_cast<uint16_t>(i)});
    }
    return out;
  }
  // True if the table was derived from the previous one. In both cases the table must equal a whole build.
  bool build(const std::vector<MaglevMember>& members) {
    const uint64_t before = maglev_.derived();
    EXPECT_EQ(maglev_.build(members, slots_, kKey), build_maglev(members, slots_, kKey))
        << members.size() << " members";
    return maglev_.derived() != before;
  }

 private:
  uint32_t slots_;
  std::vector<std::string> names_;
  std::vector<bool> there_;
  ChangingMaglev maglev_;
};

TEST(ChangingMaglev, GivesTheTableOfAWholeBuildAfterEachOfManyChanges) {
  std::mt19937 random(9);
  for (const auto& [all, slots] : {std::array<uint32_t, 2>{600, 4'093}, {600, 1'021}, {1'000, 15'013}}) {
    Changes changes(all, slots);
    for (size_t i = 0; i < all / 4 * 3; ++i) changes.flip(i);
    EXPECT_FALSE(changes.build(changes.members()));
    for (int round = 0; round < 60; ++round) {
      for (unsigned flips = random() % ChangingMaglev::kMostChanges + 1; flips > 0; --flips) {
        changes.flip(random() % all);
      }
      EXPECT_TRUE(changes.build(changes.members())) << "round " << round;
    }
  }
}

TEST(ChangingMaglev, FollowsAPoolThatEmptiesOneByOneAndFillsAgain) {
  Changes changes(300, 1'021);
  for (size_t i = 0; i < 300; ++i) changes.flip(i);
  changes.build(changes.members());
  size_t derived = 0;
  for (size_t i = 0; i < 299; ++i) {
    changes.flip(i);
    derived += size_t{changes.build(changes.members())};
  }
  for (size_t i = 0; i < 299; ++i) {
    changes.flip(i);
    derived += size_t{changes.build(changes.members())};
  }
  EXPECT_GT(derived, 40u);
}

TEST(ChangingMaglev, BuildsAsAWholeWhatItCannotDerive) {
  Changes changes(600, 4'093);
  for (size_t i = 0; i < 500; ++i) changes.flip(i);
  changes.build(changes.members());
  for (size_t i = 0; i < ChangingMaglev::kMostChanges + 1; ++i) changes.flip(i);
  EXPECT_FALSE(changes.build(changes.members())) << "too many changes at a time";
  EXPECT_FALSE(changes.build(changes.members(8))) << "another weight";
  std::vector<MaglevMember> mixed = changes.members();
  mixed[3].weight = 9;
  EXPECT_FALSE(changes.build(mixed)) << "weights differ";
  mixed[3].weight = 0;
  EXPECT_FALSE(changes.build(mixed)) << "there was no table of equal weights before";
  mixed[4].weight = 0;
  EXPECT_TRUE(changes.build(mixed)) << "weight 0 is as if it were not listed";
  mixed[4].index = 599;
  mixed[5].index = 598;
  EXPECT_FALSE(changes.build(mixed)) << "another index of a known member";
  std::reverse(mixed.begin(), mixed.end());
  EXPECT_FALSE(changes.build(mixed)) << "another order of the list";
  mixed.resize(mixed.size() - 1);
  EXPECT_TRUE(changes.build(mixed));
  mixed.push_back(mixed.back());
  EXPECT_FALSE(changes.build(mixed)) << "a name twice";
  EXPECT_FALSE(changes.build({})) << "nobody";
}

}  // namespace tidegate::maglev_test
