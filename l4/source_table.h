// SPDX-License-Identifier: Apache-2.0
// SourceTable: what the clients of one network have sent to one service, for limits by source. Its memory is fixed: a
// bucket of 16 bytes for each of kMaxSources networks, four to a cache line. Each worker has one table, and no other
// thread touches it.
//
// A network that is not in the table has a full bucket. A new network takes the place of a network that sent nothing
// for a minute, and so has a full bucket again. If there is none, the network seen longest ago is forgotten. So a flood
// from more networks than places is not limited by source. But no client is harmed, because a forgotten network has a
// full bucket. The limit of the whole service still applies.
//
// A network is known by 32 bits of its keyed hash and by its place. Two networks share a bucket with a probability of
// one in a billion (1e9), and nobody can choose which.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <vector>

#include "l4/limits.h"
#include "l4/tokens.h"

namespace tidegate::l4 {

struct SourceEntry {
  uint32_t tag = 0;  // 0: empty
  uint32_t counted_ms = 0;
  uint32_t packets_spent = 0, flows_spent = 0;

  // Brings both buckets to `now_ms`.
  void advance(const Rate& packets, const Rate& flows, uint32_t now_ms) {
    if (now_ms == counted_ms) return;
    packets_spent = static_cast<uint32_t>(still_spent(packets_spent, counted_ms, now_ms, packets));
    flows_spent = static_cast<uint32_t>(still_spent(flows_spent, counted_ms, now_ms, flows));
    counted_ms = now_ms;
  }
};
static_assert(sizeof(SourceEntry) == 16);

// Takes a token. Returns false if there is none. Without a limit there is always one.
inline bool take_token(uint32_t& spent, const Rate& rate) {
  if (rate.per_second == 0) return true;
  if (!leaves_room(spent, 1, rate)) return false;
  spent += kSpentByToken;
  return true;
}

class SourceTable {
 public:
  // Allocates the places, once. Call before the first find().
  void open() {
    if (buckets_.empty()) buckets_.resize(kMaxSources / kWays);
  }
  bool is_open() const { return !buckets_.empty(); }

  void prefetch(uint64_t hash) const { __builtin_prefetch(&buckets_[bucket_of(hash)], 1); }
  // The network's entry, which may be a new one. It is valid until the next find().
  SourceEntry& find(uint64_t hash, uint32_t now_ms) {
    std::array<SourceEntry, kWays>& entries = buckets_[bucket_of(hash)].entries;
    const uint32_t tag = tag_of(hash);
    unsigned matching = 0;  // all are compared, because no branch predictor can guess which one matches
    for (size_t way = 0; way < kWays; ++way) matching |= unsigned{entries[way].tag == tag} << way;
    if (matching != 0) return entries[static_cast<size_t>(std::countr_zero(matching))];
    return replace(entries, tag, now_ms);
  }
  // Networks that were forgotten although their bucket may not have been full.
  uint64_t forgotten() const { return forgotten_; }

 private:
  static constexpr size_t kWays = 4;
  struct alignas(64) Bucket {
    std::array<SourceEntry, kWays> entries;
  };
  static_assert((kMaxSources / kWays & (kMaxSources / kWays - 1)) == 0);

  static size_t bucket_of(uint64_t hash) { return hash & (kMaxSources / kWays - 1); }
  static uint32_t tag_of(uint64_t hash) {
    const auto tag = static_cast<uint32_t>(hash >> 32);
    return tag == 0 ? 1 : tag;
  }
  SourceEntry& replace(std::array<SourceEntry, kWays>& entries, uint32_t tag, uint32_t now_ms) {
    uint64_t oldest = 0;  // idle time, then place
    for (size_t way = 0; way < kWays; ++way) {
      const uint32_t idle_ms = entries[way].tag == 0 ? UINT32_MAX : now_ms - entries[way].counted_ms;
      oldest = std::max(oldest, uint64_t{idle_ms} << 8 | way);
    }
    forgotten_ += (oldest >> 8) < kFullAfterMs ? 1 : 0;
    SourceEntry& entry = entries[oldest & 0xff];
    entry = {tag, now_ms, 0, 0};
    return entry;
  }

  std::vector<Bucket> buckets_;
  uint64_t forgotten_ = 0;
};

}  // namespace tidegate::l4
