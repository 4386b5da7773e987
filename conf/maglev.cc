// Three steps: how many slots each member gets (apportion), in which order members take turns (order_turns), and the
// paper's filling: at its turn a member takes the first free slot of its own permutation of the table (fill).
//
// The paper turns weights into "relative frequencies of turns" and leaves the rest open. Here the k-th turn of a member
// comes at time k * W / w, in units of turns (W: sum of weights), ties by rank. Equal weights give exactly the paper's
// rounds. A turn costs O(1) whatever the weights are; credits added up round by round would not.
#include "conf/maglev.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <utility>

namespace tidegate {
namespace {

struct Contender {
  std::string_view name;
  uint64_t rank_hash;  // keyed, so that nobody outside chooses who goes first
  uint32_t weight;
  uint32_t first_slot;  // of its permutation
  uint32_t skip;
  uint32_t quota = 0;  // slots it will get
  uint16_t index;
};

// A second key for the second of the paper's two independent hashes.
HashKey skip_key(const HashKey& key) { return {mix64(key.k0 + 1), mix64(key.k1 + 2)}; }

// Everyone with weight, in an order that depends on names and key alone.
std::vector<Contender> ranked(const std::vector<MaglevMember>& members, uint32_t slots, const HashKey& key) {
  std::vector<Contender> contenders;
  contenders.reserve(members.size());
  const HashKey second = skip_key(key);
  for (const MaglevMember& member : members) {
    if (member.weight == 0) continue;
    const uint64_t hash = siphash13(key, member.name);
    const uint64_t skip = slots > 1 ? siphash13(second, member.name) % (slots - 1) + 1 : 0;
    contenders.push_back({member.name, hash, member.weight, static_cast<uint32_t>(hash % slots),
                          static_cast<uint32_t>(skip), 0, member.index});
  }
  std::sort(contenders.begin(), contenders.end(), [](const Contender& a, const Contender& b) {
    if (a.rank_hash != b.rank_hash) return a.rank_hash < b.rank_hash;
    return a.name != b.name ? a.name < b.name : a.index < b.index;
  });
  return contenders;
}

// Gives every quota; they add up to `slots`.
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
  // Whose ideal share is below one slot gets one, and leaves the division.
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

// The contender whose turn it is, for each of `slots` turns: a counting sort of all turns by time, stable in rank.
std::vector<uint16_t> order_turns(const std::vector<Contender>& contenders, uint32_t slots) {
  uint64_t weights = 0;
  for (const Contender& contender : contenders) weights += contender.weight;
  const auto for_each_turn = [&](auto&& visit) {
    for (size_t i = 0; i < contenders.size(); ++i) {
      // W / w with 32 binary digits, rounded up so that a whole number of turns is never one too few.
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

// Where a contender stands in its permutation: slot, slot + skip, slot + 2 * skip, ... modulo the slots.
struct Walk {
  uint32_t slot, skip;
};

// The table while it fills. Free slots are bits, which the inner loop finds in the first-level cache.
struct Filling {
  std::vector<uint16_t> table;
  std::vector<uint64_t> taken;

  explicit Filling(uint32_t slots) : table(slots), taken(slots / 64 + 1, 0) {}
  bool is_taken(uint32_t slot) const { return (taken[slot / 64] >> (slot % 64) & 1) != 0; }
  void take(uint32_t slot, uint16_t index) {
    taken[slot / 64] |= uint64_t{1} << (slot % 64);
    table[slot] = index;
  }
};

// Modulo without a division, nor a branch that nobody can predict: a negative difference wraps to the larger of the
// two.
uint32_t step(uint32_t slot, uint32_t skip, uint32_t slots) { return std::min(slot + skip, slot + skip - slots); }

// The first free slot of the walk. Four are looked at together, which halves the cost: one unforeseeable branch for
// four.
uint32_t next_free(const Filling& filling, const Walk& walk, uint32_t slots) {
  for (uint32_t slot = walk.slot;;) {
    const uint32_t first = slot, second = step(first, walk.skip, slots);
    const uint32_t third = step(second, walk.skip, slots), fourth = step(third, walk.skip, slots);
    const std::array<uint32_t, 4> four = {first, second, third, fourth};
    const unsigned taken = unsigned{filling.is_taken(first)} | unsigned{filling.is_taken(second)} << 1 |
                           unsigned{filling.is_taken(third)} << 2 | unsigned{filling.is_taken(fourth)} << 3;
    if (taken != 0xf) return four[static_cast<size_t>(std::countr_one(taken))];
    slot = step(fourth, walk.skip, slots);
  }
}

// x with skip * x = 1 modulo the prime `slots` (extended Euclid).
uint64_t inverse(uint32_t skip, uint32_t slots) {
  int64_t a = slots, b = skip, x = 0, y = 1;
  while (b != 0) {
    const int64_t quotient = a / b;
    a = std::exchange(b, a - quotient * b);
    x = std::exchange(y, x - quotient * y);
  }
  return static_cast<uint64_t>(x < 0 ? x + slots : x);
}

// Which of the free slots comes first in the walk: the steps to a slot are its distance times the inverse of the skip.
size_t nearest_free(const std::vector<uint32_t>& free, const Walk& walk, uint32_t slots) {
  const uint64_t per_distance = inverse(walk.skip, slots);
  size_t nearest = 0;
  uint64_t fewest_steps = UINT64_MAX;
  for (size_t i = 0; i < free.size(); ++i) {
    const uint64_t distance = free[i] >= walk.slot ? free[i] - walk.slot : free[i] + uint64_t{slots} - walk.slot;
    const uint64_t steps = distance * per_distance % slots;
    if (steps >= fewest_steps) continue;
    fewest_steps = steps;
    nearest = i;
  }
  return nearest;
}

std::vector<uint16_t> fill(const std::vector<Contender>& contenders, const std::vector<uint16_t>& turns,
                           uint32_t slots) {
  std::vector<Walk> walks;
  walks.reserve(contenders.size());
  for (const Contender& contender : contenders) walks.push_back({contender.first_slot, contender.skip});
  Filling filling(slots);
  // Walking to one of r free slots takes slots / r steps; looking at each of them, r: the last would cost the most.
  size_t turn = 0;
  for (uint64_t free = slots; free * free * 8 > slots; --free, ++turn) {
    Walk& walk = walks[turns[turn]];
    const uint32_t slot = next_free(filling, walk, slots);
    filling.take(slot, contenders[turns[turn]].index);
    walk.slot = step(slot, walk.skip, slots);
  }
  std::vector<uint32_t> free;
  for (uint32_t slot = 0; slot < slots; ++slot) {
    if (!filling.is_taken(slot)) free.push_back(slot);
  }
  for (; turn < turns.size(); ++turn) {
    const size_t nearest = nearest_free(free, walks[turns[turn]], slots);
    filling.take(free[nearest], contenders[turns[turn]].index);
    free[nearest] = free.back();
    free.pop_back();
  }
  return std::move(filling.table);
}

}  // namespace

std::vector<uint16_t> build_maglev(const std::vector<MaglevMember>& members, uint32_t slots, const HashKey& key) {
  assert(members.size() < kMaglevEmpty);
  if (slots == 0) return {};
  std::vector<Contender> contenders = ranked(members, slots, key);
  if (contenders.empty()) return std::vector<uint16_t>(slots, kMaglevEmpty);
  apportion(contenders, slots);
  return fill(contenders, order_turns(contenders, slots), slots);
}

}  // namespace tidegate
