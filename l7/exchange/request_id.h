// SPDX-License-Identifier: Apache-2.0
// Request ids: 128 bits that nobody can guess. An id costs two short keyed hashes.
#pragma once

#include <array>
#include <string_view>

#include "core/hash.h"

namespace tidegate::l7 {

// The ids of one worker. Each worker has its own keys, from the operating system's random numbers.
class RequestIds {
 public:
  RequestIds();
  static constexpr size_t kBytes = 32;  // hexadecimal
  // Writes the id and returns its bits.
  std::array<uint64_t, 2> next(char* out);
  uint64_t random() { return siphash13_words<1>(low_, {++counter_}); }

 private:
  HashKey high_, low_;
  uint64_t counter_ = 0;
};

}  // namespace tidegate::l7
