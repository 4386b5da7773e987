// FlowBatch: the flows' hashes of a burst, four at a time. Equal to FlowHasher::tuple bit for bit: what is pinned,
// picked and explained by one hash is found by the other, on every machine.
//
// Tuples are kept in columns, word by word, so that a vector register takes one word of four tuples at once. Four are
// hashed when the next four have come: words written a moment ago, one by one, could not be read as one wide register
// without waiting for them to reach the cache.
#pragma once

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

  // Calls settle(owner, hash) for tuples whose hashes are ready: some of those added before, or none. At most kMost
  // between two calls of finish(). Inlined, so that the tuple comes from registers.
  template <class Settle>
  [[gnu::always_inline]] void add(uint16_t owner, const FlowTuple& t, Settle&& settle) {
    if (t.family == 4) {
      const size_t at = ip4_.add(owner);
      ip4_.words[0][at] = t.client.a | t.vip.a << 32;
      ip4_.words[1][at] = FlowHasher::rest_of(t);
      if (ip4_.count - ip4_.hashed == 2 * kLanes) hash_next(ip4_, hash_ip4_, settle);
    } else {
      const size_t at = ip6_.add(owner);
      ip6_.words[0][at] = t.client.a;
      ip6_.words[1][at] = t.client.b;
      ip6_.words[2][at] = t.vip.a;
      ip6_.words[3][at] = t.vip.b;
      ip6_.words[4][at] = FlowHasher::rest_of(t);
      if (ip6_.count - ip6_.hashed == 2 * kLanes) hash_next(ip6_, hash_ip6_, settle);
    }
  }

  // Calls settle(owner, hash) for the rest, and forgets them all.
  template <class Settle>
  void finish(Settle&& settle) {
    while (ip4_.hashed < ip4_.count) hash_next(ip4_, hash_ip4_, settle);
    while (ip6_.hashed < ip6_.count) hash_next(ip6_, hash_ip6_, settle);
    ip4_.count = ip4_.hashed = ip6_.count = ip6_.hashed = 0;
  }

 private:
  static constexpr size_t kLanes = 4;

  template <size_t N>
  struct Columns {
    size_t count = 0, hashed = 0;
    std::array<uint16_t, kMost> owners{};
    alignas(32) uint64_t words[N][kMost] = {};

    size_t add(uint16_t owner) {
      owners[count] = owner;
      return count++;
    }
  };
  // Of the four tuples from `at` on. The last four may be fewer: what stands in the lanes behind them is hashed too,
  // and nobody asks for it.
  template <size_t N>
  using HashFour = void (*)(const HashKey& key, const uint64_t (&words)[N][kMost], size_t at, uint64_t* hashes);

  template <size_t N, class Settle>
  void hash_next(Columns<N>& columns, HashFour<N> hash_four, Settle& settle) {
    alignas(32) uint64_t hashes[kLanes];
    hash_four(key_, columns.words, columns.hashed, hashes);
    for (size_t lane = 0; lane < kLanes && columns.hashed < columns.count; ++lane, ++columns.hashed) {
      settle(columns.owners[columns.hashed], FlowHasher::not_zero(hashes[lane]));
    }
  }

  HashKey key_;
  HashFour<2> hash_ip4_;
  HashFour<5> hash_ip6_;
  Columns<2> ip4_;
  Columns<5> ip6_;
};

}  // namespace tidegate::l4
