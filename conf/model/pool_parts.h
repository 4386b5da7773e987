// SPDX-License-Identifier: Apache-2.0
// Sections of a pool: how its backends are protected, and what the proxy stores for its clients and bodies. Part of the
// Model (conf/model.h); defaults are in the member initialisers.
#pragma once

#include <cstdint>
#include <string>

namespace tidegate {

enum class BreakerScope : uint8_t { backend, pool };

// A circuit breaker: it opens when too many requests fail or are slow. After `open_ms` it lets exactly `trials`
// requests through; it closes if all of them go well.
struct PoolBreaker {
  bool enabled = false;
  BreakerScope scope = BreakerScope::backend;
  uint64_t window_ms = 10'000;        // rates are counted over this window
  uint32_t minimum_requests = 20;     // requests in the window before a rate counts
  double error_rate = 0.5;            // share of the window's requests; 0: the error rate does not count
  uint64_t slow_ms = 0;               // an answer whose head takes longer is slow; 0: no answer is slow
  double slow_rate = 0.5;             // of the window's requests
  uint32_t consecutive_failures = 0;  // 0: consecutive failures are not counted
  uint64_t open_ms = 10'000;
  uint32_t trials = 3;
};

enum class StickyBy : uint8_t { none, cookie, header };

// Keeps a client on its backend by a signed token, which names the backend.
struct PoolSticky {
  StickyBy by = StickyBy::none;
  std::string name = "tidegate-backend";  // of the cookie or of the field
  uint64_t ttl_ms = 0;                    // how long the token is good; 0: a cookie of the session, good for a day
};

enum class ProxyProtocol : uint8_t { none, v1, v2 };

}  // namespace tidegate
