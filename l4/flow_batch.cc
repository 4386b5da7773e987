// SPDX-License-Identifier: Apache-2.0
#include "l4/flow_batch.h"

namespace tidegate::l4 {
namespace {

// One 64-bit word from each of four tuples. Compilers use two SSE2 registers for it, or one AVX2 register.
using Lanes [[gnu::vector_size(32)]] = uint64_t;
constexpr size_t kLanes = sizeof(Lanes) / sizeof(uint64_t);

// SipHash-1-3 as in core/hash.h, in each lane.
struct LanesState {
  Lanes v0, v1, v2, v3;

  [[gnu::always_inline]] static void rotate(Lanes& x, int by) { x = (x << by) | (x >> (64 - by)); }
  [[gnu::always_inline]] void round() {
    v0 += v1;
    rotate(v1, 13);
    v1 ^= v0;
    rotate(v0, 32);
    v2 += v3;
    rotate(v3, 16);
    v3 ^= v2;
    v0 += v3;
    rotate(v3, 21);
    v3 ^= v0;
    v2 += v1;
    rotate(v1, 17);
    v1 ^= v2;
    rotate(v2, 32);
  }
  [[gnu::always_inline]] void absorb(const Lanes& word) {
    v3 ^= word;
    round();
    v0 ^= word;
  }
};

// Hashes `States` groups of four tuples side by side.
template <size_t States, size_t N>
[[gnu::always_inline]] inline void hash_lanes(const HashKey& key, const uint64_t (&words)[N][FlowBatch::kMost],
                                              size_t at, uint64_t* hashes) {
  const detail::SipState begun(key);
  LanesState states[States];
  for (LanesState& s : states) s = {Lanes{} + begun.v0, Lanes{} + begun.v1, Lanes{} + begun.v2, Lanes{} + begun.v3};
  for (size_t word = 0; word < N; ++word) {
    for (size_t i = 0; i < States; ++i) {
      states[i].absorb(*reinterpret_cast<const Lanes*>(&words[word][at + i * kLanes]));
    }
  }
  for (LanesState& s : states) s.absorb(Lanes{} + (uint64_t{N * 8} << 56));
  for (LanesState& s : states) s.v2 ^= 0xff;
  for (int round = 0; round < 3; ++round) {
    for (LanesState& s : states) s.round();
  }
  for (size_t i = 0; i < States; ++i) {
    const LanesState& s = states[i];
    *reinterpret_cast<Lanes*>(hashes + i * kLanes) = s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
  }
}

// Registers of half the width mean twice as many registers, so there is no room for two states.
template <size_t N>
void hash_by_any(const HashKey& key, const uint64_t (&words)[N][FlowBatch::kMost], size_t at, uint64_t* hashes) {
  hash_lanes<1, N>(key, words, at, hashes);
  hash_lanes<1, N>(key, words, at + kLanes, hashes + kLanes);
}

#ifdef __x86_64__
template <size_t N>
[[gnu::target("avx2")]] void hash_by_avx2(const HashKey& key, const uint64_t (&words)[N][FlowBatch::kMost], size_t at,
                                          uint64_t* hashes) {
  hash_lanes<2, N>(key, words, at, hashes);
}
#endif

}  // namespace

FlowBatch::FlowBatch(const FlowHasher& hasher, Width width)
    : key_(hasher.key()), hash_ip4_(hash_by_any<2>), hash_ip6_(hash_by_any<5>) {
#ifdef __x86_64__
  if (width == Width::widest && __builtin_cpu_supports("avx2") != 0) {
    hash_ip4_ = hash_by_avx2<2>;
    hash_ip6_ = hash_by_avx2<5>;
  }
#endif
}

}  // namespace tidegate::l4
