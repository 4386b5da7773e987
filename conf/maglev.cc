// SPDX-License-Identifier: Apache-2.0
// There are three steps:
//  1. apportion() decides how many slots each member gets.
//  2. order_turns() decides the order in which members take turns.
//  3. fill() does what the paper says: at its turn a member takes the first free slot of its own permutation.
//
// The paper turns weights into "relative frequencies of turns" and leaves the rest open. Here the k-th turn of a member
// comes at time k * W / w, in units of turns (W: sum of weights); ties go by rank. Equal weights give exactly the
// paper's rounds. A turn costs O(1) for any weights. Credits that are added up round by round would cost more.
#include "conf/maglev.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cmath>
#include <utility>

namespace tidegate {
namespace {

struct Contender {
  std::string_view name;
  uint64_t rank_hash;  // keyed, so that nobody outside can choose who is first
  uint32_t weight;
  uint32_t first_slot;  // of its permutation
  uint32_t skip;
  uint32_t quota = 0;  // how many slots it will get
  uint16_t index;
};

// A second key for the second of the paper's two independent hashes.
HashKey skip_key(const HashKey& key) { return {mix64(key.k0 + 1), mix64(key.k1 + 2)}; }

// All members with weight, in an order that depends only on their names and the key.
std::vector<Contender> ranked(const std::vector<MaglevMember>& members, uint32_t slots, const HashKey& key) {
  std::vector<Contender> contenders;
  contenders.reserve(members.size());
  for (const MaglevMember& member : members) {
    if (member.weight == 0) continue;
    const MaglevPermutation own = maglev_permutation(member.name, slots, key);
    contenders.push_back({member.name, own.rank_hash, member.weight, own.first_slot, own.skip, 0, member.index});
  }
  std::sort(contenders.begin(), contenders.end(), [](const Contender& a, const Contender& b) {
    if (a.rank_hash != b.rank_hash) return a.rank_hash < b.rank_hash;
    return a.name != b.name ? a.name < b.name : a.index < b.index;
  });
  return contenders;
}

// Sets the quota of every contender. The quotas add up to `slots`.
void apportion(std::vector<Contender>& contenders, uint32_t slots) {
  std::vector<uint32_t> lightest_first(contenders.size());
  uint64_t weight_left = 0;
  for (uint32_t i = 0; i < contenders.size(); ++i) {
    lightest_first[i] = i;
    weight_left += contenders[i].weight;
  }
  std::stable_sort(lightest_first.begin(), lightest_first.end(),
                   [&](uint32_t a, uint32_t b) { return contenders[a].weight < contenders[b].weight; });
  auto from = lightest_first.begin();
  for (size_t excess = contenders.size() > slots ? contenders.size() - slots : 0; excess > 0; --excess, ++from) {
    weight_left -= contenders[*from].weight;
  }
  // A contender with an ideal share below one slot gets one slot and leaves the division.
  uint64_t slots_left = slots;
  for (; from != lightest_first.end() && slots_left * contenders[*from].weight < weight_left; ++from) {
    contenders[*from].quota = 1;
    weight_left -= contenders[*from].weight;
    --slots_left;
  }
  struct Remainder {
    uint64_t value;
    uint32_t contender;
  };
  std::vector<Remainder> remainders;
  uint64_t given = 0;
  for (; from != lightest_first.end(); ++from) {
    const uint64_t share = slots_left * contenders[*from].weight;
    contenders[*from].quota = static_cast<uint32_t>(share / weight_left);
    given += contenders[*from].quota;
    remainders.push_back({share % weight_left, *from});
  }
  std::sort(remainders.begin(), remainders.end(), [](const Remainder& a, const Remainder& b) {
    return a.value != b.value ? a.value > b.value : a.contender < b.contender;
  });
  for (size_t i = 0; given < slots_left && i < remainders.size(); ++i, ++given)
    ++contenders[remainders[i].contender].quota;
}

// For each of `slots` turns, the contender whose turn it is. A counting sort of all turns by time, stable in rank.
std::vector<uint16_t> order_turns(const std::vector<Contender>& contenders, uint32_t slots) {
  uint64_t weights = 0;
  for (const Contender& contender : contenders) weights += contender.weight;
  const auto for_each_turn = [&](auto&& visit) {
    for (size_t i = 0; i < contenders.size(); ++i) {
      // W / w with 32 binary digits. It is rounded up, so that a whole number of turns is never one too few.
      const uint64_t w = contenders[i].weight;
      const uint64_t whole = std::min<uint64_t>(weights / w, slots);
      const uint64_t step = (whole << 32) + (((weights % w) << 32) + w - 1) / w;
      uint64_t time = 0;
      for (uint32_t k = 0; k < contenders[i].quota; ++k, time += step) {
        visit(std::min<uint64_t>(time >> 32, slots), static_cast<uint16_t>(i));
      }
    }
  };
  std::vector<uint32_t> begin_of(size_t{slots} + 2, 0);
  for_each_turn([&](uint64_t time, uint16_t) { ++begin_of[time + 1]; });
  for (size_t time = 1; time < begin_of.size(); ++time) begin_of[time] += begin_of[time - 1];
  std::vector<uint16_t> turns(slots);
  for_each_turn([&](uint64_t time, uint16_t contender) { turns[begin_of[time]++] = contender; });
  return turns;
}

// A modulo without a division and without an unpredictable branch: a negative difference wraps to the larger of the two
// values.
uint32_t step(uint32_t slot, uint32_t by, uint32_t slots) { return std::min(slot + by, slot + by - slots); }

// The position of a contender in its permutation: slot, slot + skip, slot + 2 * skip, ... modulo the slots.
struct Walk {
  uint32_t slot;
  std::array<uint32_t, 4> ahead;  // 0, 1, 2 and 3 skips
  uint16_t index;

  Walk(const Contender& contender, uint32_t slots) : slot(contender.first_slot), index(contender.index) {
    ahead[0] = 0;
    for (size_t i = 1; i < ahead.size(); ++i) ahead[i] = step(ahead[i - 1], contender.skip, slots);
  }
  uint32_t skip() const { return ahead[1]; }
};

// The table while it is being filled.
struct Filling {
  uint32_t slots;
  std::vector<uint16_t> table;
  std::vector<uint8_t> taken;  // 0 or 1 per slot: half the size of the table, and faster to read than bits

  explicit Filling(uint32_t count) : slots(count), table(count), taken(count) {}
  void take(uint32_t slot, Walk& walk) {
    taken[slot] = 1;
    table[slot] = walk.index;
    walk.slot = step(slot, walk.skip(), slots);
  }
};

// The first free slot of the walk. Fast while most slots are free.
uint32_t next_of_many(const Filling& filling, const Walk& walk) {
  uint32_t slot = walk.slot;
  while (filling.taken[slot] != 0) slot = step(slot, walk.skip(), filling.slots);
  return slot;
}

// Like next_of_many(), but faster when few slots are free. It checks four slots together, so there is one unpredictable
// branch for four slots.
uint32_t next_of_few(const Filling& filling, const Walk& walk) {
  const uint8_t* taken = filling.taken.data();
  for (uint32_t first = walk.slot;;) {
    const uint32_t second = step(first, walk.ahead[1], filling.slots);
    const uint32_t third = step(first, walk.ahead[2], filling.slots);
    const uint32_t fourth = step(first, walk.ahead[3], filling.slots);
    const unsigned four = unsigned{taken[first]} + 2 * taken[second] + 4 * (unsigned{taken[third]} + 2 * taken[fourth]);
    if (four != 0xf) return step(first, walk.ahead[static_cast<size_t>(std::countr_one(four))], filling.slots);
    first = step(fourth, walk.skip(), filling.slots);
  }
}

// Finds which of the last free slots comes first in a walk. The number of steps to a slot is its distance times the
// inverse of the skip, modulo the slots. Only the order of these numbers matters, so they are counted in units of slots
// / 2^64: then the modulo is the wrapping of a 64-bit word. The rounding error is less than half of one step for up to
// 2^24 slots.
class NearestFree {
 public:
  explicit NearestFree(const Filling& filling)
      : slots_(filling.slots), whole_(UINT64_MAX / slots_), rest_(uint64_t{0} - whole_ * slots_) {
    for (uint32_t slot = 0; slot < slots_; ++slot) {
      if (filling.taken[slot] == 0) free_.push_back(slot);
    }
  }

  uint32_t remove_nearest(const Walk& walk) {
    const uint64_t inverse = inverse_of(walk.skip());
    const uint64_t per_distance = inverse * whole_ + inverse * rest_ / slots_;  // inverse * 2^64 / slots
    size_t nearest = 0;
    uint64_t fewest = UINT64_MAX;
    for (size_t i = 0; i < free_.size(); ++i) {
      const uint64_t steps = (uint64_t{free_[i]} - walk.slot) * per_distance;
      nearest = steps < fewest ? i : nearest;
      fewest = std::min(steps, fewest);
    }
    const uint32_t slot = free_[nearest];
    free_[nearest] = free_.back();
    free_.pop_back();
    return slot;
  }

 private:
  // Returns x with skip * x = 1 modulo the number of slots, which is prime (extended Euclid).
  uint64_t inverse_of(uint32_t skip) const {
    int32_t a = static_cast<int32_t>(slots_), b = static_cast<int32_t>(skip), x = 0, y = 1;
    while (b != 0) {
      const int32_t quotient = a / b;
      a = std::exchange(b, a - quotient * b);
      x = std::exchange(y, x - quotient * y);
    }
    return static_cast<uint64_t>(x < 0 ? x + static_cast<int32_t>(slots_) : x);
  }

  uint32_t slots_;
  uint64_t whole_, rest_;  // quotient and remainder of 2^64 divided by the slots
  std::vector<uint32_t> free_;
};

// `slot_of_turn` may be null.
std::vector<uint16_t> fill(const std::vector<Contender>& contenders, const std::vector<uint16_t>& turns, uint32_t slots,
                           std::vector<uint32_t>* slot_of_turn) {
  std::vector<Walk> walks;
  walks.reserve(contenders.size());
  for (const Contender& contender : contenders) walks.emplace_back(contender, slots);
  Filling filling(slots);
  // Walking to one of r free slots takes slots / r steps, so the last ones would cost the most. Looking at each free
  // slot takes r steps.
  const auto last = static_cast<size_t>(std::sqrt(slots));
  const auto begin = turns.begin(), crowded = begin + slots / 3, scarce = begin + (slots - last);
  if (slot_of_turn != nullptr) slot_of_turn->resize(slots);
  const auto give = [&](auto turn, uint32_t slot) {
    filling.take(slot, walks[*turn]);
    if (slot_of_turn != nullptr) (*slot_of_turn)[static_cast<size_t>(turn - begin)] = slot;
  };
  for (auto turn = begin; turn != crowded; ++turn) give(turn, next_of_many(filling, walks[*turn]));
  for (auto turn = crowded; turn != scarce; ++turn) give(turn, next_of_few(filling, walks[*turn]));
  NearestFree nearest_free(filling);
  for (auto turn = scarce; turn != turns.end(); ++turn) {
    give(turn, nearest_free.remove_nearest(walks[*turn]));
  }
  return std::move(filling.table);
}

}  // namespace

MaglevPermutation maglev_permutation(std::string_view name, uint32_t slots, const HashKey& key) {
  const uint64_t hash = siphash13(key, name);
  const uint64_t skip = slots > 1 ? siphash13(skip_key(key), name) % (slots - 1) + 1 : 0;
  return {hash, static_cast<uint32_t>(hash % slots), static_cast<uint32_t>(skip)};
}

std::vector<uint16_t> build_maglev(const std::vector<MaglevMember>& members, uint32_t slots, const HashKey& key,
                                   std::vector<uint32_t>* slot_of_turn) {
  assert(members.size() < kMaglevEmpty);
  if (slots == 0) return {};
  std::vector<Contender> contenders = ranked(members, slots, key);
  if (contenders.empty()) return std::vector<uint16_t>(slots, kMaglevEmpty);
  apportion(contenders, slots);
  return fill(contenders, order_turns(contenders, slots), slots, slot_of_turn);
}

}  // namespace tidegate
