// SPDX-License-Identifier: Apache-2.0
#include "l7/exchange/request_id.h"

#include <cstring>

#include "core/crypto.h"

namespace tidegate::l7 {
namespace {

constexpr auto kHexOfByte = [] {
  std::array<char, 512> text{};
  for (size_t byte = 0; byte < 256; ++byte) {
    text[2 * byte] = "0123456789abcdef"[byte >> 4];
    text[2 * byte + 1] = "0123456789abcdef"[byte & 15];
  }
  return text;
}();

}  // namespace

RequestIds::RequestIds() {
  const std::string seed = random_bytes(sizeof high_ + sizeof low_);
  std::memcpy(&high_, seed.data(), sizeof high_);
  std::memcpy(&low_, seed.data() + sizeof high_, sizeof low_);
}

std::array<uint64_t, 2> RequestIds::next(char* out) {
  const std::array<uint64_t, 2> words = {siphash13_words<1>(high_, {++counter_}), siphash13_words<1>(low_, {counter_})};
  for (const uint64_t word : words) {
    for (int shift = 56; shift >= 0; shift -= 8, out += 2) std::memcpy(out, &kHexOfByte[(word >> shift & 255) * 2], 2);
  }
  return words;
}

}  // namespace tidegate::l7
