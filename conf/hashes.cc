// SPDX-License-Identifier: Apache-2.0
#include "conf/hashes.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <string>

#include "core/assert.h"
#include "core/clock.h"

namespace tidegate {
namespace {

using Slots = std::vector<uint16_t>;
using Members = std::vector<MaglevMember>;

Members with_weight(const Members& members) {
  Members out;
  std::copy_if(members.begin(), members.end(), std::back_inserter(out), [](const auto& m) { return m.weight != 0; });
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return out;
}

uint64_t sum_of_weights(const Members& members) {
  return std::accumulate(members.begin(), members.end(), uint64_t{0},
                         [](uint64_t sum, const auto& m) { return sum + m.weight; });
}

uint64_t hash_of_slot(uint32_t slot, const HashKey& key) { return siphash13_words<1>(key, {uint64_t{slot}}); }

// Each member as often as its weight says, in lowest terms.
Slots repeated(const Members& members) {
  uint32_t divisor = 0;
  for (const MaglevMember& member : members) divisor = std::gcd(divisor, member.weight);
  Slots out;
  for (const MaglevMember& member : members) out.insert(out.end(), member.weight / divisor, member.index);
  return out;
}

Slots by_modulo(const Members& members, uint32_t slots) {
  const Slots list = repeated(members);
  Slots table(slots);
  for (uint32_t slot = 0; slot < slots; ++slot) table[slot] = list[slot % list.size()];
  return table;
}

Slots by_jump(const Members& members, uint32_t slots, const HashKey& key) {
  const Slots list = repeated(members);
  Slots table(slots);
  for (uint32_t slot = 0; slot < slots; ++slot) {
    table[slot] = list[jump_bucket(hash_of_slot(slot, key), static_cast<uint32_t>(list.size()))];
  }
  return table;
}

struct Point {
  uint64_t at;
  uint32_t member;  // position in the list of members
  bool operator<(const Point& other) const { return at != other.at ? at < other.at : member < other.member; }
};

uint32_t points_of(const MaglevMember& member, uint64_t weights, size_t members) {
  const uint64_t points = (uint64_t{kRingPoints} * member.weight * members + weights / 2) / weights;
  return static_cast<uint32_t>(std::max<uint64_t>(points, 1));
}

std::vector<Point> ring_of(const Members& members, const HashKey& key) {
  const uint64_t weights = sum_of_weights(members);
  std::vector<Point> ring;
  for (uint32_t i = 0; i < members.size(); ++i) {
    const uint64_t seed = siphash13(key, members[i].name);
    for (uint32_t k = 0; k < points_of(members[i], weights, members.size()); ++k) {
      ring.push_back({siphash13_words<2>(key, {seed, uint64_t{k}}), i});
    }
  }
  std::sort(ring.begin(), ring.end());
  return ring;
}

// `room` is how many slots each member may get. A slot goes to the next member on the ring that has room.
Slots by_ring(const Members& members, uint32_t slots, const HashKey& key, std::vector<uint32_t> room) {
  const std::vector<Point> ring = ring_of(members, key);
  Slots table(slots);
  for (uint32_t slot = 0; slot < slots; ++slot) {
    auto at = std::lower_bound(ring.begin(), ring.end(), Point{hash_of_slot(slot, key), 0});
    for (size_t looked = 0; looked < ring.size(); ++looked, ++at) {
      if (at == ring.end()) at = ring.begin();
      if (room[at->member] != 0) break;
    }
    if (at == ring.end()) at = ring.begin();
    TIDEGATE_ASSERT(room[at->member] != 0, "the members' room is more than the slots");
    --room[at->member];
    table[slot] = members[at->member].index;
  }
  return table;
}

std::vector<uint32_t> bounds_of(const Members& members, uint32_t slots) {
  const auto weights = static_cast<double>(sum_of_weights(members));
  std::vector<uint32_t> room;
  for (const MaglevMember& member : members) {
    room.push_back(static_cast<uint32_t>(std::ceil(kBound * slots * member.weight / weights)));
  }
  return room;
}

Slots by_rendezvous(const Members& members, uint32_t slots, const HashKey& key) {
  std::vector<uint64_t> seeds;
  for (const MaglevMember& member : members) seeds.push_back(siphash13(key, member.name));
  Slots table(slots);
  for (uint32_t slot = 0; slot < slots; ++slot) {
    const uint64_t hash = hash_of_slot(slot, key);
    double best = -1;
    for (size_t i = 0; i < members.size(); ++i) {
      // Uniform in (0, 1): the exponential clock with the highest rate is the likeliest to ring first.
      const double uniform = (static_cast<double>(mix64(hash ^ seeds[i]) >> 11) + 0.5) * 0x1p-53;
      const double score = static_cast<double>(members[i].weight) / -std::log(uniform);
      if (score > best) {
        best = score;
        table[slot] = members[i].index;
      }
    }
  }
  return table;
}

// Each member's exact number of slots, by largest remainder.
std::vector<uint32_t> quotas_of(const Members& members, uint32_t slots) {
  const uint64_t weights = sum_of_weights(members);
  std::vector<uint32_t> quotas;
  std::vector<std::pair<uint64_t, size_t>> remainders;
  uint64_t given = 0;
  for (size_t i = 0; i < members.size(); ++i) {
    const uint64_t share = uint64_t{slots} * members[i].weight;
    quotas.push_back(static_cast<uint32_t>(share / weights));
    given += quotas.back();
    remainders.emplace_back(weights - share % weights, i);
  }
  std::sort(remainders.begin(), remainders.end());
  for (size_t i = 0; given < slots; ++i, ++given) ++quotas[remainders[i].second];
  return quotas;
}

Slots by_fewest_moves(const Members& members, uint32_t slots, const Slots& before) {
  std::vector<uint32_t> left = quotas_of(members, slots);  // slots that each member may still get
  std::vector<size_t> position_of(kMaglevEmpty, members.size());
  for (size_t i = 0; i < members.size(); ++i) position_of[members[i].index] = i;
  Slots table(slots, kMaglevEmpty);
  for (uint32_t slot = 0; slot < before.size(); ++slot) {
    if (before[slot] == kMaglevEmpty) continue;
    const size_t owner = position_of[before[slot]];
    if (owner == members.size() || left[owner] == 0) continue;
    --left[owner];
    table[slot] = before[slot];
  }
  // The free slots go to the members that lack slots, in turns. So neighbouring slots go to different members.
  size_t next = 0;
  for (uint16_t& slot : table) {
    if (slot != kMaglevEmpty) continue;
    while (left[next] == 0) next = (next + 1) % members.size();
    --left[next];
    slot = members[next].index;
    next = (next + 1) % members.size();
  }
  return table;
}

std::map<uint16_t, uint32_t> count(const Slots& table) {
  std::map<uint16_t, uint32_t> counts;
  for (const uint16_t index : table) ++counts[index];
  return counts;
}

double share_error(const Members& members, const Slots& table) {
  const auto weights = static_cast<double>(sum_of_weights(members));
  std::map<uint16_t, uint32_t> counts = count(table);
  double worst = 0;
  for (const MaglevMember& member : members) {
    const double share = static_cast<double>(table.size()) * member.weight / weights;
    worst = std::max(worst, std::abs(counts[member.index] - share) / share);
  }
  return worst;
}

// The fraction of slots that changed their member, minus those that a member had to give or to get.
double extra_moves(const Slots& before, const Slots& after) {
  std::map<uint16_t, uint32_t> had = count(before), has = count(after);
  uint64_t needed = 0, moved = 0;
  for (const auto& [index, slots] : has) needed += slots > had[index] ? slots - had[index] : 0;
  for (size_t slot = 0; slot < before.size(); ++slot) moved += before[slot] != after[slot] ? 1 : 0;
  return static_cast<double>(moved - needed) / static_cast<double>(before.size());
}

}  // namespace

std::string_view name(HashScheme scheme) {
  constexpr std::array<std::string_view, kHashSchemes.size()> kNames = {"modulo",     "jump",   "ring",   "bounded",
                                                                        "rendezvous", "maglev", "minimal"};
  return kNames[static_cast<size_t>(scheme)];
}

uint32_t jump_bucket(uint64_t hash, uint32_t buckets) {
  int64_t bucket = -1, next = 0;
  while (next < buckets) {
    bucket = next;
    hash = hash * 2862933555777941757u + 1;
    next = static_cast<int64_t>(static_cast<double>(bucket + 1) * (0x1p31 / static_cast<double>((hash >> 33) + 1)));
  }
  return static_cast<uint32_t>(bucket);
}

std::vector<uint16_t> build_slots(HashScheme scheme, const std::vector<MaglevMember>& members, uint32_t slots,
                                  const HashKey& key, const std::vector<uint16_t>& before) {
  TIDEGATE_ASSERT(before.empty() || before.size() == slots, "a table is changed into one of as many slots");
  if (scheme == HashScheme::maglev) return build_maglev(members, slots, key);
  const Members weighted = with_weight(members);
  if (weighted.empty()) return Slots(slots, kMaglevEmpty);
  switch (scheme) {
    case HashScheme::modulo:
      return by_modulo(weighted, slots);
    case HashScheme::jump:
      return by_jump(weighted, slots, key);
    case HashScheme::ring:
      return by_ring(weighted, slots, key, std::vector<uint32_t>(weighted.size(), slots));
    case HashScheme::bounded:
      return by_ring(weighted, slots, key, bounds_of(weighted, slots));
    case HashScheme::rendezvous:
      return by_rendezvous(weighted, slots, key);
    case HashScheme::minimal:
      return by_fewest_moves(weighted, slots, before);
    case HashScheme::maglev:
      break;
  }
  TIDEGATE_UNREACHABLE("every scheme builds");
}

size_t lookup_bytes(HashScheme scheme, const std::vector<MaglevMember>& members, uint32_t slots) {
  const Members weighted = with_weight(members);
  if (weighted.empty()) return 0;
  switch (scheme) {
    case HashScheme::modulo:
    case HashScheme::jump:
      return repeated(weighted).size() * sizeof(uint16_t);
    case HashScheme::ring:
    case HashScheme::bounded: {
      size_t points = 0;
      for (const auto& m : weighted) points += points_of(m, sum_of_weights(weighted), weighted.size());
      return points * sizeof(Point) + (scheme == HashScheme::bounded ? weighted.size() * sizeof(uint32_t) : 0);
    }
    case HashScheme::rendezvous:
      return weighted.size() * (sizeof(uint64_t) + sizeof(double));
    case HashScheme::maglev:
    case HashScheme::minimal:
      return size_t{slots} * sizeof(uint16_t);
  }
  TIDEGATE_UNREACHABLE("every scheme has a structure");
}

std::vector<HashReport> compare_hashes(const std::vector<MaglevMember>& members, uint32_t slots, const HashKey& key) {
  const Members weighted = with_weight(members);
  if (weighted.size() < 2) return {};
  const auto mean = static_cast<uint32_t>(std::max<uint64_t>(sum_of_weights(weighted) / weighted.size(), 1));
  uint32_t unused = 0;
  for (const MaglevMember& member : weighted) unused = std::max(unused, member.index + 1u);
  // The member in the middle changes, because a scheme may favour the last member.
  const size_t middle = weighted.size() / 2;
  const std::string added_name = std::string(weighted[middle].name) + "-added";
  Members added = weighted, removed = weighted, halved = weighted;
  added.push_back({added_name, mean, static_cast<uint16_t>(unused)});
  removed.erase(removed.begin() + static_cast<ptrdiff_t>(middle));
  halved[middle].weight = std::max(halved[middle].weight / 2, 1u);

  std::vector<HashReport> reports;
  for (const HashScheme scheme : kHashSchemes) {
    HashReport report;
    report.scheme = scheme;
    const uint64_t began_ns = monotonic_ns();
    const Slots table = build_slots(scheme, weighted, slots, key);
    report.build_ns = monotonic_ns() - began_ns;
    report.share_error = share_error(weighted, table);
    report.add_moves = extra_moves(table, build_slots(scheme, added, slots, key, table));
    report.remove_moves = extra_moves(table, build_slots(scheme, removed, slots, key, table));
    report.weight_moves = extra_moves(table, build_slots(scheme, halved, slots, key, table));
    report.bytes = lookup_bytes(scheme, weighted, slots);
    reports.push_back(report);
  }
  return reports;
}

}  // namespace tidegate
