// SPDX-License-Identifier: Apache-2.0
// Why a request was answered from where it was: one value that the log, the metrics and Cache-Status (RFC 9211) share.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tidegate::cache {

// Why a request goes to a backend: RFC 9211 §2.2, in its words.
enum class Forward : uint8_t {
  none,       // it does not: answered from the cache
  bypass,     // the route, or the remembered nature of the key, keeps the cache out of it
  method,     // neither GET nor HEAD
  uri_miss,   // nothing stored under the key
  vary_miss,  // something, but for other request fields
  miss,       // another transaction leads, and what it brings is not known yet
  request,    // the request's own directives (no-cache, max-age=0) want the origin
  stale,      // stored, but no longer fresh
  count_,
};
const char* token(Forward forward);  // "uri-miss"

struct CacheStatus {
  Forward forward = Forward::none;
  bool hit = false;
  bool stored = false;           // the answer is being stored
  bool collapsed = false;        // waited for another transaction's fetch
  uint16_t forward_status = 0;   // the backend's, when it was asked
  std::optional<int64_t> ttl_s;  // remaining freshness of what is served; negative when stale
  const char* detail = nullptr;  // a token: why not stored or not looked up, "stale-while-revalidate", ...
};

// Appends one list member: `proxy1; hit; ttl=42`, `proxy1; fwd=uri-miss; fwd-status=200; stored`.
void append_cache_status(std::string& out, std::string_view cache_name, const CacheStatus& status);

}  // namespace tidegate::cache
