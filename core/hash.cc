// SPDX-License-Identifier: Apache-2.0
#include "core/hash.h"

namespace tidegate {

uint64_t siphash13(const HashKey& key, const void* data, size_t bytes) {
  detail::SipState state(key);
  const auto* in = static_cast<const unsigned char*>(data);
  const size_t whole = bytes & ~size_t{7};
  for (size_t i = 0; i < whole; i += 8) {
    uint64_t word;
    std::memcpy(&word, in + i, 8);
    state.absorb(word);
  }
  uint64_t last = static_cast<uint64_t>(bytes) << 56;
  for (size_t i = whole; i < bytes; ++i) last |= static_cast<uint64_t>(in[i]) << (8 * (i - whole));
  state.absorb(last);
  return state.finish();
}

}  // namespace tidegate
