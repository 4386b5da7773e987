// SPDX-License-Identifier: Apache-2.0
// FlowBatch: the flows' hashes of a burst, eight at a time. Equal to FlowHasher::tuple bit for bit: what is pinned,
// picked and explained by one hash is found by the other, on every machine.
//
// Tuples are kept in columns, word by word, so that a vector register takes one word of four tuples at once, and two
// such registers hide each other's latency. They are hashed when all have come: words written a moment ago, one by one,
// could not be read as one wide register without waiting for them to reach the cache.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "l4/flow_key.h"

namespace tidegate::l4 {

class FlowBatch {
 public:
  static constexpr size_t kMost = 64;

  // By instructions that every x86-64 has, or by AVX2's registers of twice the width where the machine has them.
  enum class Width : uint8_t { any, widest };
  explicit FlowBatch(const FlowHasher& hasher, Width width = Width::widest);

  // At most kMost between two calls of finish(). Inlined, so that the tuple comes from registers.
  [[gnu::always_inline]] void add(uint16_t owner, const FlowTuple& t) {
    if (t.family == 4) {
      const size_t at = ip4_.add(owner);
      ip4_.words[0][at] = t.client.a | t.vip.a << 32;
      ip4_.words[1][at] = FlowHasher::rest_of(t);
    } else {
      const size_t at = ip6_.add(owner);
      ip6_.words[0][at] = t.client.a;
      ip6_.words[1][at] = t.client.b;
      ip6_.words[2][at] = t.vip.a;
      ip6_.words[3][at] = t.vip.b;
      ip6_.words[4][at] = FlowHasher::rest_of(t);
    }
  }

  // Calls settle(owner, hash) for each, and forgets them all.
  template <class Settle>
  void finish(Settle&& settle) {
    hash_all(ip4_, hash_ip4_, settle);
    hash_all(ip6_, hash_ip6_, settle);
  }

 private:
  static constexpr size_t kLanes = 8;
  static_assert(kMost % kLanes == 0);

  template <size_t N>
  struct Columns {
    size_t count = 0;
    std::array<uint16_t, kMost> owners{};
    alignas(32) uint64_t words[N][kMost] = {};

    size_t add(uint16_t owner) {
      owners[count] = owner;
      return count++;
    }
  };
  // Of the eight tuples from `at` on. The last eight may be fewer: what stands in the lanes behind them is hashed too,
  // and nobody asks for it.
  template <size_t N>
  using HashEight = void (*)(const HashKey& key, const uint64_t (&words)[N][kMost], size_t at, uint64_t* hashes);

  template <size_t N, class Settle>
  void hash_all(Columns<N>& columns, HashEight<N> hash_eight, Settle& settle) {
    for (size_t at = 0; at < columns.count; at += kLanes) {
      alignas(32) uint64_t hashes[kLanes];
      hash_eight(key_, columns.words, at, hashes);
      const size_t lanes = std::min(kLanes, columns.count - at);
      for (size_t lane = 0; lane < lanes; ++lane) {
        settle(columns.owners[at + lane], FlowHasher::not_zero(hashes[lane]));
      }
    }
    columns.count = 0;
  }

  HashKey key_;
  HashEight<2> hash_ip4_;
  HashEight<5> hash_ip6_;
  Columns<2> ip4_;
  Columns<5> ip6_;
};

}  // namespace tidegate::l4
