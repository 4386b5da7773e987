#include "l7/request_id.h"

#include "core/crypto.h"

namespace tidegate::l7 {

RequestIds::RequestIds() {
  const std::string seed = random_bytes(sizeof high_ + sizeof low_);
  std::memcpy(&high_, seed.data(), sizeof high_);
  std::memcpy(&low_, seed.data() + sizeof high_, sizeof low_);
}

void RequestIds::next(char* out) {
  static constexpr char kHex[] = "0123456789abcdef";
  const uint64_t words[2] = {siphash13_words<1>(high_, {++counter_}), siphash13_words<1>(low_, {counter_})};
  for (const uint64_t word : words) {
    for (int shift = 60; shift >= 0; shift -= 4) *out++ = kHex[word >> shift & 15];
  }
}

}  // namespace tidegate::l7
