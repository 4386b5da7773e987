// SPDX-License-Identifier: Apache-2.0
// The keys of a limit: the number of requests that a client may make in a time. `by` may name something else than the
// client.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/model/policy.h"
#include "core/ip.h"

namespace tidegate {

struct LiveState;  // conf/live_state.h

enum class LimitAlgorithm : uint8_t { token_bucket, sliding_window };

enum class OnFailure : uint8_t { local, open, closed };

// The quota of several proxies, kept by a Redis server.
struct SharedLimit {
  bool enabled = false;
  Endpoint address;
  std::string user, password;
  uint64_t timeout_ms = 20;
  OnFailure on_failure = OnFailure::local;
};

struct LimitPolicy final : PolicyPart {
  uint64_t requests = 0;
  uint64_t per_ms = 1'000;
  LimitAlgorithm algorithm = LimitAlgorithm::token_bucket;
  uint64_t burst = 0;           // token_bucket: most requests at once; 0: as many as `requests`
  std::vector<std::string> by;  // what identifies the client that is counted; empty: its address
  uint8_t prefix_v4 = 32;       // of the client's address
  uint8_t prefix_v6 = 64;
  uint64_t wait_ms = 0;      // token_bucket: how long a request over the limit may wait for its turn; 0: none waits
  uint64_t keys = 65'536;    // how many clients (or other keys) are remembered
  bool fields = true;        // answers state the limit (RateLimit, RateLimit-Policy)
  std::vector<Cidr> exempt;  // clients that are not counted
  SharedLimit shared;
};

// Why the limit cannot have such `requests` and `burst`. No fault: it can.
struct QuotaFault {
  const char* key = nullptr;  // of the limit; null: no fault
  std::string what, expected, hint;
};
QuotaFault quota_fault(const LimitPolicy& limit);
// Gives the limit of this policy the quota that the live state has for it, if the limit can have such a quota. Returns
// true if the quota has changed.
bool take_quota(const LiveState& live_state, std::string_view policy, LimitPolicy& limit);

// One word of `by`.
struct LimitBy {
  enum class What : uint8_t { client, country, route, host, pool, identity, header, cookie, claim };
  What what = What::client;
  std::string name;  // of the header (lower case), of the cookie, or of the claim
};
// Nothing if the text is no such word.
std::optional<LimitBy> parse_limit_by(std::string_view word);
// Whether `authenticate` must run first: the word stands for the client's identity or for a claim of its token.
bool needs_identity(std::string_view word);

}  // namespace tidegate
