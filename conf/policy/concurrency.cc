// SPDX-License-Identifier: Apache-2.0
#include "conf/policy/concurrency.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "conf/field_builders.h"
#include "conf/limits.h"
#include "conf/model.h"
#include "conf/model/route.h"
#include "conf/names.h"
#include "conf/policy/kind.h"
#include "conf/policy/limit_by.h"

namespace tidegate {
namespace {

using namespace fields;

// These keys have no default: either this key or another key sets the number.
template <class Owner>
Field optional_integer(const char* key, uint64_t Owner::*member, Range range, const char* sentence) {
  Field field = integer(key, member, range, sentence);
  field.default_value.reset();
  return field;
}
template <class Owner>
Field optional_share(const char* key, double Owner::*member, const char* sentence) {
  Field field = number(key, member, 0.01, 1.0, sentence);
  field.default_value.reset();
  return field;
}

const Section& adaptive_section() {
  static const Section section{
      "adaptive section",
      {
          enabled<AdaptiveConcurrency>(),
          integer("least", &AdaptiveConcurrency::least, {1, 100'000}, "The limit never falls below this."),
          integer("most", &AdaptiveConcurrency::most, {1, 100'000}, "It never rises above this."),
          integer("initial", &AdaptiveConcurrency::initial, {1, 100'000}, "The limit at first."),
          number("tolerance", &AdaptiveConcurrency::tolerance, 1.0, 10.0,
                 "Answers that take so many times as long as those of an unloaded backend are no sign of a queue yet."),
      }};
  return section;
}

const Section& lane_section() {
  static const Section section{
      "lane",
      {
          fields::name(&ConcurrencyLane::name, "In metrics. `other` is the name of all requests without a lane."),
          text("values", &ConcurrencyLane::values,
               "Tenants that share the lane, as `tenant` finds their names. Without the key, the one of this name.",
               256),
          optional_integer("requests", &ConcurrencyLane::requests, {1, 1'000'000},
                           "How many of the lane may be under way at one time. Not with `adaptive`."),
          optional_share(
              "share", &ConcurrencyLane::share,
              "With `adaptive`: how much of the measured limit the lane may use; 0.01 to 1. A request over it is "
              "refused at once, also with `wait`."),
      }};
  return section;
}

const Section& concurrency_section() {
  static const Section section{
      "concurrency",
      {
          optional_integer("requests", &ConcurrencyPolicy::requests, {1, 1'000'000},
                           "How many may be under way at one time."),
          optional_integer("connections", &ConcurrencyPolicy::connections, {1, 1'000'000},
                           "How many connections of clients may have requests under way at one time, of each key of "
                           "`by`. All requests of one HTTP/2 connection count as one. A request over it is refused at "
                           "once; a connection between two requests is not counted."),
          text("by", &ConcurrencyPolicy::by,
               "What requests are counted by, all of these together: `client` (its address), `country` (of its "
               "address, by the databases of `geo`), `route`, `host`, `pool` (of the route), `identity`, "
               "`header:NAME`, `cookie:NAME`, `claim:NAME`. A request without that identity, header, cookie or claim, "
               "or of an unknown country, is counted by its client. Without the key, all requests that the policy "
               "holds for are counted as one."),
          integer("client_prefix_v4", &ConcurrencyPolicy::prefix_v4, {0, 32},
                  "Clients in a network of this length count as one."),
          integer("client_prefix_v6", &ConcurrencyPolicy::prefix_v6, {0, 128},
                  "The same for IPv6, where each client has a network of its own."),
          integer("keys", &ConcurrencyPolicy::keys, {1'024, 4'194'304},
                  "How many clients (keys) with requests under way are remembered; about 32 bytes each."),
          duration("retry_after", &ConcurrencyPolicy::retry_after_s, {1 * kSecond, 1 * kHour},
                   "When a client that is refused should come again.", kSecond),
          duration("wait", &ConcurrencyPolicy::wait_ms, {0, 1 * kMinute},
                   "How long a request waits for a place before it is refused; who came first gets it first. 0: it is "
                   "refused at once. Requests of `low_priority` never wait."),
          integer("queue", &ConcurrencyPolicy::queue, {1, 65'536},
                  "With `wait`: how many requests may wait at one time, of all keys together; more are refused at "
                  "once."),
          row("exempt", FieldType::cidr, &ConcurrencyPolicy::exempt, "Clients that are neither counted nor refused."),
          text("low_priority", &ConcurrencyPolicy::low_priority,
               "Routes whose requests are refused first: they get no place when `low_share` of the places are taken."),
          number("low_share", &ConcurrencyPolicy::low_share, 0.01, 1.0,
                 "Of the places, for requests of `low_priority`. At least one."),
          nested(
              "adaptive", &ConcurrencyPolicy::adaptive, adaptive_section(),
              "The number is found by measuring: it falls while the backends' answers take longer than without load, "
              "and rises while they do not. It holds for all requests of the policy as one."),
          text(
              "tenant", &ConcurrencyPolicy::tenant,
              "What names the tenant of a request: `identity` (the name that `authenticate` gives to its API key, user "
              "or token), `claim:NAME`, `header:NAME` or `cookie:NAME`. A client can write what it likes into a header "
              "and a cookie.",
              256),
          nested("lanes", &ConcurrencyPolicy::lanes, lane_section(),
                 "Places of a tenant that no other one takes, with metrics of their own; at most 64 lanes. Requests of "
                 "other tenants, and of none, are counted by `by`, against `requests`."),
      }};
  return section;
}

void check_adaptive(Checks& checks, size_t p, const AdaptiveConcurrency& adaptive) {
  if (adaptive.least > adaptive.most) {
    checks.refuse({"policies", p, "concurrency", "adaptive", "least"},
                  {"out_of_range",
                   fmt::format("least is {}", adaptive.least),
                   fmt::format("at most {}, as `most` says", adaptive.most),
                   {}});
  }
  if (checks.written({"policies", p, "concurrency", "adaptive", "initial"}) && adaptive.least <= adaptive.most &&
      (adaptive.initial < adaptive.least || adaptive.initial > adaptive.most)) {
    checks.refuse({"policies", p, "concurrency", "adaptive", "initial"},
                  {"out_of_range",
                   fmt::format("initial is {}", adaptive.initial),
                   fmt::format("{} to {}, as `least` and `most` say", adaptive.least, adaptive.most),
                   {}});
  }
  for (const char* key : {"requests", "connections", "by", "client_prefix_v4", "client_prefix_v6", "keys"}) {
    if (!checks.written({"policies", p, "concurrency", key})) continue;
    checks.refuse({"policies", p, "concurrency", key},
                  {"without_effect", fmt::format("{} does not go with adaptive", key), {}, "remove one of them"});
  }
}

void check_priorities(Checks& checks, size_t p, const std::vector<std::string>& low) {
  std::vector<std::string_view> names;
  for (const Route& route : checks.model().routes) names.push_back(route.name);
  for (size_t i = 0; i < low.size(); ++i) {
    if (std::find(names.begin(), names.end(), low[i]) != names.end()) continue;
    checks.refuse({"policies", p, "concurrency", "low_priority", i},
                  {"no_such_name", fmt::format("no route is named {}", in_quotes(low[i])), "the name of a route",
                   did_you_mean(low[i], names)});
  }
  if (low.empty() && checks.written({"policies", p, "concurrency", "low_share"})) {
    checks.refuse({"policies", p, "concurrency", "low_share"},
                  {"without_effect", "low_share is for routes of low_priority", {}, "name them, or remove it"});
  }
}

void check_tenant(Checks& checks, size_t p, const ConcurrencyPolicy& concurrency) {
  if (concurrency.tenant.empty()) {
    checks.refuse({"policies", p, "concurrency", "lanes"},
                  {"missing_key", "lanes without 'tenant'", "'tenant': what names a request's tenant", {}});
    return;
  }
  const std::optional<LimitBy> by = parse_limit_by(concurrency.tenant);
  const bool names = by && (by->what == LimitBy::What::identity || by->what == LimitBy::What::claim ||
                            by->what == LimitBy::What::header || by->what == LimitBy::What::cookie);
  if (!names) {
    checks.refuse({"policies", p, "concurrency", "tenant"},
                  {"bad_value",
                   fmt::format("{} names no tenant", in_quotes(concurrency.tenant)),
                   "identity, claim:NAME, header:NAME or cookie:NAME",
                   {}});
  }
  if (concurrency.lanes.empty()) {
    checks.refuse({"policies", p, "concurrency", "tenant"},
                  {"without_effect", "tenant without 'lanes'", {}, "write lanes; `by` limits each tenant alike"});
  }
}

// Checks the limit of a lane: exactly one key sets it, and that key must fit the policy.
void check_lane_limit(Checks& checks, size_t p, size_t l, const ConcurrencyPolicy& concurrency) {
  const ConcurrencyLane& lane = concurrency.lanes[l];
  const bool adaptive = concurrency.adaptive.enabled;
  const char* const wanted = adaptive ? "share" : "requests";
  const char* const other = adaptive ? "requests" : "share";
  if (checks.written({"policies", p, "concurrency", "lanes", l, other})) {
    checks.refuse({"policies", p, "concurrency", "lanes", l, other},
                  {"without_effect",
                   fmt::format("{} of a lane {} adaptive", other, adaptive ? "with" : "without"),
                   fmt::format("'{}'", wanted),
                   {}});
  } else if (adaptive ? lane.share == 0 : lane.requests == 0) {
    checks.refuse(
        {"policies", p, "concurrency", "lanes", l},
        {"missing_key", fmt::format("lane '{}' does not say how many", lane.name), fmt::format("'{}'", wanted), {}});
  }
}

void check_lanes(Checks& checks, size_t p, const ConcurrencyPolicy& concurrency) {
  if (concurrency.tenant.empty() && concurrency.lanes.empty()) return;
  check_tenant(checks, p, concurrency);
  if (concurrency.lanes.size() > kConcurrencyLanesMost) {
    checks.refuse({"policies", p, "concurrency", "lanes"}, {"out_of_range",
                                                            fmt::format("{} lanes", concurrency.lanes.size()),
                                                            fmt::format("at most {}", kConcurrencyLanesMost),
                                                            {}});
    return;
  }
  std::map<std::string, std::string_view> lane_of;  // by tenant
  for (size_t l = 0; l < concurrency.lanes.size(); ++l) {
    const ConcurrencyLane& lane = concurrency.lanes[l];
    check_lane_limit(checks, p, l, concurrency);
    if (lane.name == kConcurrencyOtherLane) {
      checks.refuse({"policies", p, "concurrency", "lanes", l, "name"},
                    {"bad_value", "'other' is the name of the requests without a lane", "another name", {}});
    }
    if (lane.values.size() > kConcurrencyLaneValuesMost) {
      checks.refuse({"policies", p, "concurrency", "lanes", l, "values"},
                    {"out_of_range",
                     fmt::format("{} tenants", lane.values.size()),
                     fmt::format("at most {}", kConcurrencyLaneValuesMost),
                     {}});
      continue;
    }
    const std::vector<std::string> own = {lane.name};
    for (const std::string& value : lane.values.empty() ? own : lane.values) {
      if (value.empty()) {
        checks.refuse({"policies", p, "concurrency", "lanes", l, "values"},
                      {"bad_value", "a tenant without a name", {}, "requests of no tenant are `other`"});
      }
      if (const auto [known, first] = lane_of.emplace(value, lane.name); !first) {
        checks.refuse({"policies", p, "concurrency", "lanes", l},
                      {"duplicate_name",
                       fmt::format("tenant {} has the lane '{}' already", in_quotes(value), known->second),
                       {},
                       {}});
      }
    }
  }
}

void check_concurrency(Checks& checks, size_t p) {
  const ConcurrencyPolicy& concurrency = *checks.model().policies[p].part<ConcurrencyPolicy>("concurrency");
  check_priorities(checks, p, concurrency.low_priority);
  if (concurrency.wait_ms == 0 && checks.written({"policies", p, "concurrency", "queue"})) {
    checks.refuse({"policies", p, "concurrency", "queue"},
                  {"without_effect", "nobody waits: 'wait' is 0", {}, "write 'wait', or remove it"});
  }
  check_lanes(checks, p, concurrency);
  if (concurrency.adaptive.enabled) return check_adaptive(checks, p, concurrency.adaptive);
  if (concurrency.requests == 0 && (concurrency.connections == 0 || !concurrency.lanes.empty())) {
    checks.refuse({"policies", p, "concurrency"},
                  {"missing_key", "it does not say how many", "'requests', 'connections' or 'adaptive'", {}});
  }
  if (concurrency.requests == 0 && checks.written({"policies", p, "concurrency", "wait"})) {
    checks.refuse({"policies", p, "concurrency", "wait"},
                  {"without_effect", "nobody waits for a connection", {}, "write 'requests', or remove it"});
  }
  check_limit_by(checks, p, "concurrency", concurrency.by);
}

}  // namespace

PolicyKind concurrency_policy_kind() {
  return policy_kind<ConcurrencyPolicy>("concurrency",
                                        "How many requests may be under way at one time; more wait, or get 503.",
                                        concurrency_section(), check_concurrency);
}

}  // namespace tidegate
