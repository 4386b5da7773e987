// SPDX-License-Identifier: Apache-2.0
// Keyed 64-bit hashing for every value that an outsider could choose: flow picks, hash tables, bounded-load rings. It
// is SipHash-1-3 (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012, with the reduced rounds that Rust and
// Ruby use).
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace tidegate {

struct HashKey {
  uint64_t k0 = 0;
  uint64_t k1 = 0;
};

uint64_t siphash13(const HashKey& key, const void* data, size_t bytes);
inline uint64_t siphash13(const HashKey& key, std::string_view text) {
  return siphash13(key, text.data(), text.size());
}

// For a fixed number of 64-bit words: no tail handling, inlined on the packet path. The result equals siphash13 over
// the same words in little-endian memory order.
template <size_t N>
inline uint64_t siphash13_words(const HashKey& key, const uint64_t (&words)[N]);

// splitmix64's finaliser: a fast mixer without a key. Use it only for values that an outsider cannot choose.
constexpr uint64_t mix64(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ULL;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

namespace detail {

struct SipState {
  uint64_t v0, v1, v2, v3;

  explicit SipState(const HashKey& key)
      : v0(key.k0 ^ 0x736f6d6570736575ULL),
        v1(key.k1 ^ 0x646f72616e646f6dULL),
        v2(key.k0 ^ 0x6c7967656e657261ULL),
        v3(key.k1 ^ 0x7465646279746573ULL) {}

  static uint64_t rotl(uint64_t x, int by) { return (x << by) | (x >> (64 - by)); }
  void round() {
    v0 += v1;
    v1 = rotl(v1, 13);
    v1 ^= v0;
    v0 = rotl(v0, 32);
    v2 += v3;
    v3 = rotl(v3, 16);
    v3 ^= v2;
    v0 += v3;
    v3 = rotl(v3, 21);
    v3 ^= v0;
    v2 += v1;
    v1 = rotl(v1, 17);
    v1 ^= v2;
    v2 = rotl(v2, 32);
  }
  void absorb(uint64_t word) {
    v3 ^= word;
    round();
    v0 ^= word;
  }
  uint64_t finish() {
    v2 ^= 0xff;
    round();
    round();
    round();
    return v0 ^ v1 ^ v2 ^ v3;
  }
};

}  // namespace detail

template <size_t N>
inline uint64_t siphash13_words(const HashKey& key, const uint64_t (&words)[N]) {
  detail::SipState state(key);
  for (size_t i = 0; i < N; ++i) state.absorb(words[i]);
  state.absorb(static_cast<uint64_t>(N * 8) << 56);
  return state.finish();
}

}  // namespace tidegate
