// SPDX-License-Identifier: Apache-2.0
// FlowBatch: computes the flow hashes of a burst, eight at a time. They equal FlowHasher::tuple bit for bit. So both
// find the same flow and pick the same backend, on every machine.
//
// Tuples are stored in columns, word by word. So one vector register has the same word of four tuples, and the work on
// two such registers overlaps. The tuples are hashed only after all have been added: a wide load of words that were
// just stored one by one must wait until the stores have reached the cache.
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

  // `any` uses instructions that every x86-64 has; `widest` uses AVX2 registers of twice the width if the machine has
  // them.
  enum class Width : uint8_t { any, widest };
  explicit FlowBatch(const FlowHasher& hasher, Width width = Width::widest);

  // Call at most kMost times between two calls of finish(). It is inlined so that the tuple stays in registers.
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

  // Calls settle(owner, hash) for each tuple, then forgets all tuples.
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
  // Hashes the eight tuples from `at` on. The last group may have fewer. The unused lanes are hashed too, and their
  // result is ignored.
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
