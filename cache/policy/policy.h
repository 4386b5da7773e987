// SPDX-License-Identifier: Apache-2.0
// RFC 9111 for a shared cache, as pure functions: fields and times in, decisions out. No clock, no storage, no sockets.
//
// Times are realtime milliseconds. policy.cc cites each clause where the code decides it, in the RFC's order.
#pragma once

#include <cstdint>
#include <string_view>

#include "cache/message.h"
#include "cache/policy/cache_control.h"
#include "cache/status.h"
#include "cache/stored.h"
#include "conf/model/route.h"

namespace tidegate::cache {

// Why a response is not stored. The token is used in Cache-Status and as the metric's label.
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
  vary,              // §4.1: a 304 whose Vary differs from that of the stored response
  not_cacheable,     // §3: no explicit freshness, and no status with a heuristic one
  no_lifetime,       // stale from the start, and nothing to validate it with
  too_large,         // more than max_object_bytes
  no_memory,         // arriving bodies have used up the memory budget
  too_many_tags,     // more than kMaxTags
  count_,
};
const char* token(Refusal refusal);

// The requests for which a refusal to store an answer holds. One client's request must not decide how other clients are
// served. Only a refusal for the key is remembered for all requests and removes the stored response.
enum class Scope : uint8_t {
  request,        // only this request, or an error that it may have caused
  authorization,  // requests that carry Authorization
  cookie,         // requests that carry a Cookie
  key,            // all requests for the key
};
constexpr size_t kScopes = 4;
Scope scope_of(Refusal refusal, uint16_t status, Fields request_fields);

// The credentials in a request.
struct Credentials {
  bool authorization = false;
  bool cookie = false;
};
Credentials credentials_of(Fields request_fields);
bool is_credential(std::string_view field_name);  // Authorization or Cookie

struct StoreDecision {
  Refusal refusal = Refusal::none;
  Freshness freshness;             // of the response, even if it is not stored
  bool explicit_lifetime = false;  // the response states its lifetime, even if 0
};

// Decides whether a response may be stored, and how long it is fresh (§3, §4.2). Uses only the method and fields of
// `request`.
StoreDecision decide_store(const RequestView& request, const ResponseView& response, const RouteCache& policy);

// Decides whether the fields of a 304 may be stored (§4.3.4). `merged`: the stored response's fields, updated with the
// fields of the 304. `status`: the status of the stored response. The fields of the 304 are stored by the rules of a
// 200, or not at all.
StoreDecision decide_freshen(const RequestView& request, uint16_t status, Fields merged,
                             const ResponseView& not_modified, const RouteCache& policy);

// Negative answers without explicit freshness are fresh for at most this long, whatever default_ttl says.
constexpr uint64_t kNegativeTtlCapMs = 10'000;
// A heuristic lifetime is a tenth of the time since Last-Modified (§4.2.2), but at most a day.
constexpr uint64_t kHeuristicCapMs = 86'400'000;

// A clock that is set back by more than this, in one step or in several, makes stale what was stored before. Less is a
// usual correction.
constexpr uint64_t kClockCorrectionMs = 10'000;

// §4.2.3. If the clock was set back since, nobody knows the age. Then it is at least the lifetime: without this an
// answer that is fresh for a minute would stay so for as long as the clock went back.
uint64_t age_ms(const Freshness& freshness, uint64_t now_ms);
// The remaining lifetime; negative when stale.
int64_t ttl_ms(const Freshness& freshness, uint64_t now_ms);

enum class Use : uint8_t {
  fresh,
  stale_while_revalidate,  // serve, and one caller revalidates (RFC 5861 §3)
  stale_by_request,        // serve: the request's max-stale allows it (§5.2.1.2)
  validate,                // ask the origin first
};
struct UseDecision {
  Use use = Use::validate;
  Forward why = Forward::stale;  // reason for Use::validate: stale, or request
};
// Decides whether a stored response may be used as an answer (§4). A soft purge makes it stale, even if its lifetime is
// not over.
UseDecision decide_use(const Freshness& freshness, const CacheControl& request, bool soft_purged, uint64_t now_ms);

// Whether a stored response may be used after an error of the origin (RFC 5861 §4).
bool may_serve_on_error(const Freshness& freshness, const CacheControl& request, uint64_t now_ms);

// The request's Cache-Control. Where there is none, Pragma: no-cache counts (§5.4).
CacheControl request_control(Fields fields);
// The request's Cache-Control for this route. If the route has ignore_reload, leaves out the directives that ask for a
// newer answer.
CacheControl request_control(Fields fields, const RouteCache& policy);

// Why the cache cannot be used for the request, as a token: its method. nullptr: it can be used.
const char* bypass_reason(const RequestView& request);

// §4.4: a non-error answer to an unsafe method invalidates.
bool invalidates(std::string_view method, uint16_t status);

}  // namespace tidegate::cache
