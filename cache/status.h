// SPDX-License-Identifier: Apache-2.0
// CacheStatus: how a request was answered, and why. The log, the metrics and Cache-Status (RFC 9211) use this value.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tidegate::cache {

// Why a request goes to a backend, in the words of RFC 9211 §2.2.
enum class Forward : uint8_t {
  none,       // it does not go to a backend: answered from the cache
  bypass,     // the route does not cache, or the key proved uncacheable
  method,     // neither GET nor HEAD
  uri_miss,   // nothing stored under the key
  vary_miss,  // the stored response is for other request fields
  miss,       // another transaction fetches, and its answer is not known yet
  request,    // the request's own directives (no-cache, max-age=0) ask for the origin
  stale,      // stored, but not fresh any more
  count_,
};
const char* token(Forward forward);  // "uri-miss"

// A word without padding, so that the record of a request (l7) copies all of it at once.
struct alignas(4) CacheFlags {
  Forward forward = Forward::none;
  bool hit = false;
  bool stored = false;     // the answer is being stored
  bool collapsed = false;  // waited for another transaction's fetch
};

struct CacheStatus : CacheFlags {
  uint16_t forward_status = 0;   // the backend's status, if one was asked
  std::optional<int64_t> ttl_s;  // remaining freshness of the answer; negative when stale
  const char* detail = nullptr;  // a token: why it was not stored or not looked up, or "stale-while-revalidate"
};

// Appends one list member: `proxy1; hit; ttl=42`, `proxy1; fwd=uri-miss; fwd-status=200; stored`.
void append_cache_status(std::string& out, std::string_view cache_name, const CacheStatus& status);

}  // namespace tidegate::cache
