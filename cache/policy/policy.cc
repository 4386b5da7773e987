// SPDX-License-Identifier: Apache-2.0
#include "cache/policy/policy.h"

#include <algorithm>
#include <vector>

#include "cache/limits.h"
#include "cache/policy/fields.h"
#include "cache/policy/http_date.h"
#include "core/assert.h"

namespace tidegate::cache {
namespace {

uint64_t saturating_sub(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

// Statuses whose caching requirements this cache meets, for must-understand (§5.2.2.3).
bool is_understood(uint16_t status) {
  switch (status) {
    case 200:
    case 203:
    case 204:
    case 300:
    case 301:
    case 302:
    case 303:
    case 307:
    case 308:
    case 404:
    case 405:
    case 410:
    case 414:
    case 501:
      return true;
    default:
      return false;
  }
}

// RFC 9110 §15.1, without 206.
bool is_heuristically_cacheable(uint16_t status) {
  switch (status) {
    case 200:
    case 203:
    case 204:
    case 300:
    case 301:
    case 308:
    case 404:
    case 405:
    case 410:
    case 414:
    case 501:
      return true;
    default:
      return false;
  }
}

struct Reading {
  CacheControl control;
  bool targeted = false;  // control came from CDN-Cache-Control: Expires does not count (RFC 9213 §2.1)
  const http1::Field* expires = nullptr;
  uint64_t date_ms = 0;
};

Reading read_response(const ResponseView& response) {
  Reading reading;
  if (auto targeted = parse_targeted_cache_control(response.fields)) {
    reading.control = *targeted;
    reading.targeted = true;
  } else {
    reading.control = parse_cache_control(response.fields);
    reading.expires = find_field(response.fields, "expires");
  }
  reading.date_ms = response.response_ms;
  if (const http1::Field* date = find_field(response.fields, "date")) {
    reading.date_ms = parse_http_date(date->value, response.response_ms).value_or(response.response_ms);
  }
  return reading;
}

bool has_explicit_freshness(const Reading& reading) {
  return reading.control.s_maxage || reading.control.max_age || reading.expires != nullptr;
}

// §3, item by item.
Refusal may_store(const RequestView& request, const ResponseView& response, const RouteCache& policy,
                  const Reading& reading) {
  const CacheControl& control = reading.control;
  if (request.method != "GET") return Refusal::request_method;
  if (response.status < 200 || response.status == 206 || response.status == 304) return Refusal::status;
  if (control.must_understand && !is_understood(response.status)) return Refusal::status;
  if (control.no_store && !control.must_understand) return Refusal::no_store;
  if (request_control(request.fields).no_store) return Refusal::request_no_store;
  if (control.is_private) return Refusal::is_private;
  // §3.5: a shared cache may reuse the answer to an authenticated request only when the origin says so.
  const bool shareable = control.is_public || control.must_revalidate || control.s_maxage.has_value();
  if (find_field(request.fields, "authorization") != nullptr && !shareable) return Refusal::authorization;
  const bool heuristic = is_heuristically_cacheable(response.status) || control.is_public;
  if (!has_explicit_freshness(reading) && !heuristic) return Refusal::not_cacheable;
  if (!has_explicit_freshness(reading) && response.status >= 400 && policy.default_ttl_ms == 0)
    return Refusal::not_cacheable;
  bool vary_star = false;
  size_t vary_names = 0;
  for_each_list_element(response.fields, "vary",
                        [&](std::string_view name) { vary_star |= name == "*" || ++vary_names > kVaryNames; });
  if (vary_star) return Refusal::vary_star;  // §4.1: it would never match
  // RFC 9111 §7.3 leaves cookies to Cache-Control. At an edge, one forgotten directive would give one client's session
  // to all clients.
  if (find_field(response.fields, "set-cookie") != nullptr && !control.is_public && !control.withholds("set-cookie")) {
    return Refusal::set_cookie;
  }
  return Refusal::none;
}

// §4.2.1, §4.2.2
uint64_t lifetime_ms(const ResponseView& response, const RouteCache& policy, const Reading& reading) {
  if (reading.control.s_maxage) return *reading.control.s_maxage * 1000;
  if (reading.control.max_age) return *reading.control.max_age * 1000;
  if (reading.expires != nullptr) {
    const auto expires_ms = parse_http_date(reading.expires->value, response.response_ms);
    return expires_ms ? saturating_sub(*expires_ms, reading.date_ms) : 0;  // §5.3: an invalid date is in the past
  }
  if (policy.default_ttl_ms > 0) {
    return response.status >= 400 ? std::min(policy.default_ttl_ms, kNegativeTtlCapMs) : policy.default_ttl_ms;
  }
  const http1::Field* modified = find_field(response.fields, "last-modified");
  if (modified == nullptr) return 0;
  const auto modified_ms = parse_http_date(modified->value, response.response_ms);
  return modified_ms ? std::min(saturating_sub(reading.date_ms, *modified_ms) / 10, kHeuristicCapMs) : 0;
}

// §4.2.3, of a response that has just arrived.
uint64_t corrected_initial_age_ms(const ResponseView& response, uint64_t date_ms) {
  uint64_t age_value_ms = 0;
  if (const http1::Field* age = find_field(response.fields, "age")) {
    // §5.1: of several values, the first one
    const std::string_view first = trim(age->value.substr(0, age->value.find(',')));
    age_value_ms = parse_delta_seconds(first).value_or(0) * 1000;
  }
  const uint64_t apparent_age = saturating_sub(response.response_ms, date_ms);
  const uint64_t response_delay = saturating_sub(response.response_ms, response.request_ms);
  return std::max(apparent_age, age_value_ms + response_delay);
}

Freshness make_freshness(const ResponseView& response, const RouteCache& policy, const Reading& reading) {
  const CacheControl& control = reading.control;
  Freshness freshness;
  freshness.born_ms = saturating_sub(response.response_ms, corrected_initial_age_ms(response, reading.date_ms));
  freshness.lifetime_ms = std::min(lifetime_ms(response, policy, reading), policy.max_ttl_ms);
  freshness.no_cache = control.no_cache;
  const bool prohibited = control.must_revalidate || control.proxy_revalidate;
  // s-maxage prohibits stale answers like proxy-revalidate (§5.2.2.10), except those that the same response grants.
  freshness.must_revalidate = prohibited || control.s_maxage.has_value();
  if (prohibited || control.no_cache) return freshness;
  const bool defaults_apply = !freshness.must_revalidate;
  const auto window_ms = [&](const std::optional<uint64_t>& granted_s, uint64_t default_ms) {
    return granted_s ? *granted_s * 1000 : (defaults_apply ? default_ms : 0);
  };
  freshness.stale_while_revalidate_ms = window_ms(control.stale_while_revalidate, policy.stale_while_revalidate_ms);
  freshness.stale_if_error_ms = window_ms(control.stale_if_error, policy.stale_if_error_ms);
  return freshness;
}

bool has_validator(const ResponseView& response) {
  return find_field(response.fields, "etag") != nullptr || find_field(response.fields, "last-modified") != nullptr;
}

uint64_t staleness_ms(const Freshness& freshness, uint64_t now_ms) {
  return saturating_sub(age_ms(freshness, now_ms), freshness.lifetime_ms);
}

bool is_fresh(const Freshness& freshness, uint64_t now_ms) {
  return freshness.lifetime_ms > age_ms(freshness, now_ms);  // §4.2
}

}  // namespace

const char* token(Refusal refusal) {
  constexpr const char* kTokens[] = {
      "none",       "method", "request-no-store", "status",      "no-store",  "private",   "authorization", "vary-star",
      "set-cookie", "vary",   "not-cacheable",    "no-lifetime", "too-large", "no-memory", "too-many-tags"};
  static_assert(std::size(kTokens) == static_cast<size_t>(Refusal::count_));
  TIDEGATE_ASSERT(refusal < Refusal::count_, "a refusal has a token");
  return kTokens[static_cast<size_t>(refusal)];
}

bool is_credential(std::string_view field_name) {
  return same_name(field_name, "authorization") || same_name(field_name, "cookie");
}

Credentials credentials_of(Fields request_fields) {
  return {find_field(request_fields, "authorization") != nullptr, find_field(request_fields, "cookie") != nullptr};
}

Scope scope_of(Refusal refusal, uint16_t status, Fields request_fields) {
  if (refusal == Refusal::request_no_store || refusal == Refusal::request_method || refusal == Refusal::no_memory ||
      status >= 400)
    return Scope::request;
  const Credentials credentials = credentials_of(request_fields);
  if (credentials.authorization) return Scope::authorization;
  return credentials.cookie ? Scope::cookie : Scope::key;
}

StoreDecision decide_store(const RequestView& request, const ResponseView& response, const RouteCache& policy) {
  const Reading reading = read_response(response);
  StoreDecision decision;
  decision.refusal = may_store(request, response, policy, reading);
  decision.explicit_lifetime = has_explicit_freshness(reading);
  decision.freshness = make_freshness(response, policy, reading);
  if (decision.refusal != Refusal::none) return decision;
  const Freshness& f = decision.freshness;
  const bool ever_served =
      !f.no_cache && (is_fresh(f, response.response_ms) || f.stale_while_revalidate_ms > 0 || f.stale_if_error_ms > 0);
  if (!ever_served && !has_validator(response)) decision.refusal = Refusal::no_lifetime;
  return decision;
}

StoreDecision decide_freshen(const RequestView& request, uint16_t status, Fields merged,
                             const ResponseView& not_modified, const RouteCache& policy) {
  std::vector<http1::Field> all(merged.begin(), merged.end());
  if (const http1::Field* age = find_field(not_modified.fields, "age"))
    all.push_back(*age);  // the stored head does not contain Age
  ResponseView response = not_modified;
  response.status = status;
  response.fields = all;
  return decide_store(request, response, policy);
}

uint64_t age_ms(const Freshness& freshness, uint64_t now_ms) {
  if (freshness.born_ms > now_ms + kClockCorrectionMs) return freshness.lifetime_ms;
  return saturating_sub(now_ms, freshness.born_ms);
}

int64_t ttl_ms(const Freshness& freshness, uint64_t now_ms) {
  return static_cast<int64_t>(freshness.lifetime_ms) - static_cast<int64_t>(age_ms(freshness, now_ms));
}

UseDecision decide_use(const Freshness& freshness, const CacheControl& request, bool soft_purged, uint64_t now_ms) {
  if (request.no_cache) return {Use::validate, Forward::request};  // §5.2.1.4
  if (freshness.no_cache) return {Use::validate, Forward::stale};  // §5.2.2.4
  const uint64_t age = age_ms(freshness, now_ms);
  const bool too_old = request.max_age && age > *request.max_age * 1000;  // §5.2.1.1
  const bool zero_age = request.max_age && *request.max_age == 0;         // asks for validation, even within one tick
  if (is_fresh(freshness, now_ms) && !soft_purged) {
    if (too_old || zero_age) return {Use::validate, Forward::request};
    const bool spoils_soon = request.min_fresh && freshness.lifetime_ms - age < *request.min_fresh * 1000;  // §5.2.1.3
    if (spoils_soon) return {Use::validate, Forward::request};
    return {Use::fresh, Forward::none};
  }
  if (too_old || zero_age || request.min_fresh) return {Use::validate, Forward::stale};
  const uint64_t staleness = staleness_ms(freshness, now_ms);
  const bool request_takes = request.any_max_stale || (request.max_stale && staleness <= *request.max_stale * 1000);
  // stale-while-revalidate (RFC 5861 §3) is tried before max-stale (§4.2.4), because it also starts an update of the
  // stored response.
  if (freshness.stale_while_revalidate_ms > 0 && staleness <= freshness.stale_while_revalidate_ms) {
    return {Use::stale_while_revalidate, Forward::none};
  }
  if (request_takes && !freshness.must_revalidate && !soft_purged)
    return {Use::stale_by_request, Forward::none};  // §4.2.4
  return {Use::validate, Forward::stale};
}

bool may_serve_on_error(const Freshness& freshness, const CacheControl& request, uint64_t now_ms) {
  if (freshness.no_cache || request.no_cache) return false;
  uint64_t window_ms = freshness.stale_if_error_ms;
  if (request.stale_if_error && !freshness.must_revalidate)
    window_ms = std::max(window_ms, *request.stale_if_error * 1000);
  return is_fresh(freshness, now_ms) || (window_ms > 0 && staleness_ms(freshness, now_ms) <= window_ms);
}

CacheControl request_control(Fields fields) {
  CacheControl control = parse_cache_control(fields);
  if (control.present) return control;
  for_each_list_element(fields, "pragma",
                        [&](std::string_view word) { control.no_cache |= same_name(word, "no-cache"); });
  return control;
}

CacheControl request_control(Fields fields, const RouteCache& policy) {
  CacheControl control = request_control(fields);
  if (!policy.ignore_reload) return control;
  control.no_cache = false;
  control.max_age.reset();
  control.min_fresh.reset();
  return control;
}

const char* bypass_reason(const RequestView& request) {
  if (request.method != "GET" && request.method != "HEAD") return "method";
  return nullptr;
}

bool invalidates(std::string_view method, uint16_t status) {
  const bool safe = method == "GET" || method == "HEAD" || method == "OPTIONS" || method == "TRACE";
  return !safe && status >= 200 && status < 400;
}

}  // namespace tidegate::cache
