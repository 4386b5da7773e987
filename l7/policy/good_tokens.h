// SPDX-License-Identifier: Apache-2.0
// GoodTokens: tokens whose signatures were recently found good. Checking one costs up to a hundred microseconds, and
// clients send the same token with each request. Only the result for the signature is remembered. Times, issuer,
// audience and roles are checked each time.
//
// An entry is a keyed hash of 128 bits, of the token and of what its signature was checked with (`basis`: the keys and
// the algorithms). So a change of these forgets it. Memory is fixed: a new token takes the place of another one.
//
// Threads: any; no lock. If two threads write a place at the same time, it is valid for neither of their tokens.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/hash.h"
#include "core/metrics.h"
#include "l7/policy/policy.h"

namespace tidegate::l7::policy {

class GoodTokens final : public Runtime {
 public:
  GoodTokens();
  bool has(uint64_t basis, std::string_view token) const;
  void add(uint64_t basis, std::string_view token);

  Counter checked, remembered;  // numbers of signatures

 private:
  static constexpr size_t kWays = 4;
  struct Place {
    std::atomic<uint64_t> high{0}, low{0};
  };
  struct alignas(64) Line {
    std::array<Place, kWays> places;
  };
  struct Mark {
    uint64_t high, low;
  };
  Mark mark_of(uint64_t basis, std::string_view token) const;

  const HashKey key_;
  std::vector<Line> lines_;  // their number is a power of two
};

}  // namespace tidegate::l7::policy
