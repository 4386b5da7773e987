// Three steps: how many slots each member gets (apportion), in which order members take turns (order_turns), and the
// paper's filling: at its turn a member takes the first free slot of its own permutation of the table (fill).
//
// The paper turns weights into "relative frequencies of turns" and leaves the rest open. Here the k-th turn of a member
// comes at time k * W / w, in units of turns (W: sum of weights), ties by rank. Equal weights give exactly the paper's
// rounds. A turn costs O(1) whatever the weights are; credits added up round by round would not.
#include "conf/maglev.h"

#include <algorithm>
#include <cassert>

namespace tidegate {
namespace {

struct Contender {
  std::string_view name;
  uint64_t rank_hash;  // keyed, so that nobody outside chooses who goes first
  uint32_t weight;
  uint32_t next;  // the slot its permutation names next
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

std::vector<uint16_t> fill(std::vector<Contender>& contenders, const std::vector<uint16_t>& turns, uint32_t slots) {
  // What the inner loop touches is kept together: it decides the cost.
  struct Walk {
    uint32_t next, skip;
  };
  std::vector<Walk> walks;
  walks.reserve(contenders.size());
  for (const Contender& contender : contenders) walks.push_back({contender.next, contender.skip});
  std::vector<uint64_t> taken(slots / 64 + 1, 0);
  std::vector<uint16_t> table(slots);
  for (const uint16_t turn : turns) {
    Walk& walk = walks[turn];
    uint32_t slot = walk.next;
    const auto advance = [&] {
      const uint64_t sum = uint64_t{slot} + walk.skip;
      return static_cast<uint32_t>(sum >= slots ? sum - slots : sum);
    };
    while ((taken[slot / 64] >> (slot % 64) & 1) != 0) slot = advance();
    taken[slot / 64] |= uint64_t{1} << (slot % 64);
    table[slot] = contenders[turn].index;
    walk.next = advance();
  }
  return table;
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
