// SPDX-License-Identifier: Apache-2.0
// RFC 9111 for a shared cache, as pure functions: fields and times in, decisions out. No clock, no storage, no sockets.
//
// Times are realtime milliseconds. Every clause stands where the code decides it, in policy.cc, in the RFC's order.
#pragma once

#include <cstdint>
#include <string_view>

#include "cache/cache_control.h"
#include "cache/message.h"
#include "cache/status.h"
#include "cache/stored.h"
#include "conf/model.h"

namespace tidegate::cache {

// Why a response is not stored. The token is the Cache-Status detail and the metric's label.
enum class Refusal : uint8_t {
  none,
  request_method,    // only GET is stored
  request_no_store,  // §5.2.1.5
  status,            // interim, 206 or 304; or must-understand with a status that is not understood
  no_store,          // §5.2.2.5
  is_private,        // §5.2.2.7
  authorization,     // §3.5
  vary_star,         // §4.1
  set_cookie,        // a cookie for one client, and no `public`
  vary,              // §4.1: a 304 that selects by other fields than what it confirms
  not_cacheable,     // neither explicit freshness nor a status with a heuristic one: §3
  no_lifetime,       // stale from the start, nothing to validate it by
  too_large,         // more than max_object_bytes
  no_memory,         // the bodies that arrive take all memory meant for them
  too_many_tags,     // more than kMaxTags
  count_,
};
const char* token(Refusal refusal);

// Whom an answer that is not stored speaks of. One client's request must not decide how the others are served: only
// what is true of the key is remembered for everybody and takes away what was stored.
enum class Scope : uint8_t {
  request,        // the request itself, or an error that it may have provoked
  authorization,  // requests that carry Authorization
  cookie,         // requests that carry a Cookie
  key,            // the key, whoever asks
};
constexpr size_t kScopes = 4;
Scope scope_of(Refusal refusal, uint16_t status, Fields request_fields);

// What a request carries of its client alone.
struct Credentials {
  bool authorization = false;
  bool cookie = false;
};
Credentials credentials_of(Fields request_fields);
bool is_credential(std::string_view field_name);  // Authorization or Cookie

struct StoreDecision {
  Refusal refusal = Refusal::none;
  Freshness freshness;             // of the response, whether or not it is stored
  bool explicit_lifetime = false;  // the response says how long it is fresh, or that it is not
};

// Whether and for how long (§3, §4.2). `request` is what was forwarded, as far as it matters: method and fields.
StoreDecision decide_store(const RequestView& request, const ResponseView& response, const RouteCache& policy);

// §4.3.4: the same of a stored response of `status` whose fields, with those of this 304 laid over them, are `merged`.
// The 304 is a response like any other: what it adds is stored under the rules of a 200, or not at all.
StoreDecision decide_freshen(const RequestView& request, uint16_t status, Fields merged,
                             const ResponseView& not_modified, const RouteCache& policy);

// Negative answers without explicit freshness live at most this long, whatever default_ttl says.
constexpr uint64_t kNegativeTtlCapMs = 10'000;
// A heuristic lifetime is a tenth of the time since Last-Modified (§4.2.2), at most a day.
constexpr uint64_t kHeuristicCapMs = 86'400'000;

// §4.2.3
uint64_t age_ms(const Freshness& freshness, uint64_t now_ms);
// Remaining lifetime; negative when stale.
int64_t ttl_ms(const Freshness& freshness, uint64_t now_ms);

enum class Use : uint8_t {
  fresh,
  stale_while_revalidate,  // serve, and one caller revalidates (RFC 5861 §3)
  stale_by_request,        // serve: the request's max-stale takes it (§5.2.1.2)
  validate,                // ask the origin first
};
struct UseDecision {
  Use use = Use::validate;
  Forward why = Forward::stale;  // when validating: stale, or request
};
// Whether a stored response may answer (§4). A soft purge makes it stale whatever its lifetime.
UseDecision decide_use(const Freshness& freshness, const CacheControl& request, bool soft_purged, uint64_t now_ms);

// RFC 5861 §4: after an error of the origin.
bool may_serve_on_error(const Freshness& freshness, const CacheControl& request, uint64_t now_ms);

// The request's Cache-Control; Pragma: no-cache counts where there is none (§5.4).
CacheControl request_control(Fields fields);
// The same as the route takes it: without what asks for a newer answer, where that is ignored.
CacheControl request_control(Fields fields, const RouteCache& policy);

// What the request itself keeps out of the cache: methods, If-Match and If-Unmodified-Since (§4.3.2: not for a cache to
// evaluate), and no-store on a miss is decided by decide_store. nullptr: nothing.
const char* bypass_reason(const RequestView& request);

// §4.4: a non-error answer to an unsafe method invalidates.
bool invalidates(std::string_view method, uint16_t status);

}  // namespace tidegate::cache
