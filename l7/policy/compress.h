// SPDX-License-Identifier: Apache-2.0
// The counters of a compress policy. The transaction counts bytes, the rule counts everything else.
#pragma once

#include <array>

#include "conf/policy/compress.h"
#include "core/metrics.h"
#include "l7/policy/policy.h"

namespace tidegate::l7::policy {

// Why an answer of the policy's types was not compressed.
enum class Left : uint8_t {
  not_asked,      // the client prefers no coding
  small,          // it is shorter than the minimum
  coded,          // it has a coding already, or a digest of its bytes
  no_transform,   // Cache-Control forbids it (RFC 9111 §5.2.2.6)
  authenticated,  // a secret of one client, whose length must not reveal its content (BREACH)
  no_room,        // the worker has as many encoders as allowed
  count_,
};
constexpr const char* name(Left why) {
  constexpr const char* kNames[] = {"not_asked", "small", "coded", "no_transform", "authenticated", "no_room"};
  static_assert(std::size(kNames) == static_cast<size_t>(Left::count_));
  return kNames[static_cast<size_t>(why)];
}

struct CodingCounts final : Runtime {
  std::array<Counter, kCodings> answers, bytes_in, bytes_out;
  std::array<Counter, static_cast<size_t>(Left::count_)> left;
};

}  // namespace tidegate::l7::policy
