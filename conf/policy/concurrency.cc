// SPDX-License-Identifier: Apache-2.0
#include "conf/policy/concurrency.h"

#include <fmt/format.h>

#include <algorithm>

#include "conf/field_builders.h"
#include "conf/names.h"
#include "conf/policy/kind.h"
#include "conf/policy/limit_by.h"

namespace tidegate {
namespace {

using namespace fields;

// It has no default: without it, `adaptive` says how many.
Field requests_field() {
  Field field =
      integer("requests", &ConcurrencyPolicy::requests, {1, 1'000'000}, "How many may be under way at one time.");
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

const Section& concurrency_section() {
  static const Section section{
      "concurrency",
      {
          requests_field(),
          text("by", &ConcurrencyPolicy::by,
               "What requests are counted by, all of these together: `client` (its address), `route`, `host`, "
               "`identity`, `header:NAME`, `cookie:NAME`. A request without that identity, header or cookie is counted "
               "by its client. Without the key, all requests that the policy holds for are counted as one."),
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
  for (const char* key : {"requests", "by", "client_prefix_v4", "client_prefix_v6", "keys"}) {
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

void check_concurrency(Checks& checks, size_t p) {
  const ConcurrencyPolicy& concurrency = *checks.model().policies[p].part<ConcurrencyPolicy>("concurrency");
  check_priorities(checks, p, concurrency.low_priority);
  if (concurrency.wait_ms == 0 && checks.written({"policies", p, "concurrency", "queue"})) {
    checks.refuse({"policies", p, "concurrency", "queue"},
                  {"without_effect", "nobody waits: 'wait' is 0", {}, "write 'wait', or remove it"});
  }
  if (concurrency.adaptive.enabled) return check_adaptive(checks, p, concurrency.adaptive);
  if (concurrency.requests == 0) {
    checks.refuse({"policies", p, "concurrency"},
                  {"missing_key", "it does not say how many", "'requests' or 'adaptive'", {}});
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
