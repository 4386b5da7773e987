// SPDX-License-Identifier: Apache-2.0
// Keyed 128-bit hashing in one pass: the long form of SipHash, with the reduced rounds of hash.h. For what is known by
// its hash alone, where a second text with the same hash would be a hole.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

#include "core/hash.h"

namespace tidegate {

struct Hash128 {
  uint64_t low, high;
};

inline Hash128 siphash13_128(const HashKey& key, std::string_view text) {
  detail::SipState state(key);
  state.v1 ^= 0xee;
  uint64_t last = static_cast<uint64_t>(text.size()) << 56;
  for (; text.size() >= 8; text.remove_prefix(8)) {
    uint64_t word;
    std::memcpy(&word, text.data(), 8);
    state.absorb(word);
  }
  for (size_t i = 0; i < text.size(); ++i) last |= static_cast<uint64_t>(static_cast<uint8_t>(text[i])) << (8 * i);
  state.absorb(last);
  const auto finish = [&] {
    for (int i = 0; i < 3; ++i) state.round();
    return state.v0 ^ state.v1 ^ state.v2 ^ state.v3;
  };
  state.v2 ^= 0xee;
  const uint64_t low = finish();
  state.v1 ^= 0xdd;
  return {low, finish()};
}

}  // namespace tidegate
