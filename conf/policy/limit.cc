// SPDX-License-Identifier: Apache-2.0
#include "conf/policy/limit.h"

#include <fmt/format.h>

#include <algorithm>

#include "conf/field_builders.h"
#include "conf/limits.h"
#include "conf/live_state.h"
#include "conf/model.h"
#include "conf/names.h"
#include "conf/policy/kind.h"
#include "conf/policy/limit_by.h"
#include "conf/text.h"
#include "core/http1.h"

namespace tidegate {
namespace {

using namespace fields;

constexpr size_t kMostNameBytes = 128;  // of a header or a cookie

const Section& shared_section() {
  static const Section section{
      "shared section",
      {
          enabled<SharedLimit>(),
          required(
              row("address", FieldType::endpoint, &SharedLimit::address, "Of the Redis server, version 5 or later.")),
          text("user", &SharedLimit::user, "Of the server. Without it the default user."),
          secret(text("password", &SharedLimit::password, "Of that user. `${file:PATH}` takes it from a file.")),
          duration("timeout", &SharedLimit::timeout_ms, {1, 1 * kSecond},
                   "How long a request may wait for the server at the most. Few do: tokens are taken in leases."),
          choice("on_failure", &SharedLimit::on_failure,
                 {{"local", OnFailure::local}, {"open", OnFailure::open}, {"closed", OnFailure::closed}},
                 "While the server does not answer: `local`: the quota holds for each proxy alone. `open`: nobody is "
                 "refused. `closed`: everybody is."),
      }};
  return section;
}

const Section& limit_section() {
  static const Section section{
      "limit",
      {
          required(integer("requests", &LimitPolicy::requests, {1, 1'000'000'000}, "How many, in the time of `per`.")),
          duration("per", &LimitPolicy::per_ms, {1 * kSecond, 1 * kDay}, "The time in which so many are allowed."),
          choice("algorithm", &LimitPolicy::algorithm,
                 {{"token_bucket", LimitAlgorithm::token_bucket}, {"sliding_window", LimitAlgorithm::sliding_window}},
                 "`token_bucket`: at an even pace, and a burst after a pause. `sliding_window`: so many in any such "
                 "time, weighted between two windows; at most 2000000."),
          integer("burst", &LimitPolicy::burst, {0, 1'000'000'000},
                  "Of the token bucket: how many may come at once after a pause. 0: as many as `requests`."),
          text(
              "by", &LimitPolicy::by,
              "What requests are counted by, all of these together: `client` (its address), `country` (of its address, "
              "by the databases of `geo`), `route`, `host`, `pool` (of the route), `identity` (who `authenticate` says "
              "that it is), `header:NAME`, `cookie:NAME`, `claim:NAME` (of its token; one text, number or truth "
              "value). "
              "A request without that identity, header, cookie or claim, or of an unknown country, is counted by its "
              "client. What a client says of itself it can change: a limit by header or cookie needs one by `client` "
              "beside it. Without the key, by `client`."),
          integer("client_prefix_v4", &LimitPolicy::prefix_v4, {0, 32},
                  "Clients in a network of this length count as one."),
          integer("client_prefix_v6", &LimitPolicy::prefix_v6, {0, 128},
                  "The same for IPv6, where each client has a network of its own."),
          duration("wait", &LimitPolicy::wait_ms, {0, 1 * kMinute},
                   "Of the token bucket: a request over the limit waits for its turn for at most so long. 0: it is "
                   "refused at once."),
          integer("keys", &LimitPolicy::keys, {1'024, 4'194'304},
                  "How many clients are remembered; about 32 bytes each. Beyond it, the one that is free again first "
                  "is forgotten."),
          boolean("fields", &LimitPolicy::fields, "Answers tell what is left: `RateLimit-Policy` and `RateLimit`."),
          row("exempt", FieldType::cidr, &LimitPolicy::exempt, "Clients that are not limited."),
          nested("shared", &LimitPolicy::shared, shared_section(),
                 "All proxies that name the same server and policy have one quota together."),
      }};
  return section;
}

QuotaFault bucket_fault(const LimitPolicy& limit) {
  if (limit.requests * kSecond > kTokenBucketFastest * limit.per_ms) {
    return {"requests",
            fmt::format("{} requests in {} ms are too many", limit.requests, limit.per_ms),
            fmt::format("at most {} a second", kTokenBucketFastest),
            {}};
  }
  if (limit.burst * (limit.per_ms * 1'000 / limit.requests) > kTokenBucketLongestMs * 1'000) {
    return {"burst", "a bucket of this burst takes over 30 days to fill", "a smaller burst", {}};
  }
  return {};
}

void check_shared(Checks& checks, size_t p, const LimitPolicy& limit) {
  if (limit.algorithm != LimitAlgorithm::token_bucket) {
    checks.refuse({"policies", p, "limit", "shared"},
                  {"bad_value", "a shared quota is a token bucket", "algorithm token_bucket", {}});
  }
  if (checks.written({"policies", p, "limit", "wait"})) {
    checks.refuse({"policies", p, "limit", "wait"},
                  {"without_effect", "requests do not wait for a turn of a shared quota", {}, "remove it"});
  }
}

void check_limit(Checks& checks, size_t p) {
  const LimitPolicy& limit = *checks.model().policies[p].part<LimitPolicy>("limit");
  if (limit.shared.enabled) check_shared(checks, p, limit);
  check_limit_by(checks, p, "limit", limit.by);
  if (const QuotaFault fault = quota_fault(limit); fault.key != nullptr) {
    checks.refuse({"policies", p, "limit", fault.key}, {"out_of_range", fault.what, fault.expected, fault.hint});
  }
  if (limit.algorithm == LimitAlgorithm::token_bucket) return;
  for (const char* key : {"burst", "wait"}) {
    if (!checks.written({"policies", p, "limit", key})) continue;
    checks.refuse({"policies", p, "limit", key},
                  {"without_effect", fmt::format("{} belongs to a token bucket", key), {}, "remove it"});
  }
}

}  // namespace

QuotaFault quota_fault(const LimitPolicy& limit) {
  if (limit.shared.enabled && limit.requests * kSecond > kSharedLimitFastest * limit.per_ms) {
    return {"requests",
            fmt::format("{} requests in {} ms are too many for a shared quota", limit.requests, limit.per_ms),
            fmt::format("at most {} a second", kSharedLimitFastest),
            {}};
  }
  if (limit.algorithm == LimitAlgorithm::token_bucket) return bucket_fault(limit);
  if (limit.requests > kSlidingWindowMost) {
    return {"requests", fmt::format("requests of a sliding window is {}", limit.requests),
            fmt::format("at most {}", kSlidingWindowMost), "a shorter `per` gives the same rate"};
  }
  return {};
}

bool take_quota(const LiveState& live_state, std::string_view policy, LimitPolicy& limit) {
  const auto found = live_state.overrides.find(limit_key(policy));
  if (found == live_state.overrides.end() || found->second.requests == 0) return false;
  LimitPolicy changed = limit;
  changed.requests = found->second.requests;
  if (limit.algorithm == LimitAlgorithm::token_bucket) changed.burst = found->second.burst;
  // The quota may be older than the version: it was good for another `per` or algorithm.
  if (quota_fault(changed).key != nullptr) return false;
  limit = std::move(changed);
  return true;
}

void check_limit_by(Checks& checks, size_t p, const char* kind, const std::vector<std::string>& by, const char* key) {
  if (by.size() > kLimitByMost) {
    checks.refuse(
        {"policies", p, kind, key},
        {"out_of_range", fmt::format("{} has {} words", key, by.size()), fmt::format("at most {}", kLimitByMost), {}});
  }
  constexpr std::string_view kWords[] = {"client",   "country",     "route",       "host",      "pool",
                                         "identity", "header:NAME", "cookie:NAME", "claim:NAME"};
  for (size_t i = 0; i < by.size(); ++i) {
    const std::string& word = by[i];
    if (word == "country" && checks.model().geo.mmdb.empty()) {
      checks.refuse({"policies", p, kind, key, i},
                    {"missing_key", "nothing tells where clients are", "'geo' with 'mmdb'", {}});
    }
    if (parse_limit_by(word)) continue;
    const size_t colon = word.find(':');
    std::vector<std::string_view> candidates;
    for (const std::string_view known : kWords) candidates.push_back(known.substr(0, known.find(':')));
    const std::string meant = did_you_mean(std::string_view(word).substr(0, colon), candidates);
    const bool misses_name = meant.empty() || std::find(candidates.begin(), candidates.end(),
                                                        std::string_view(word).substr(0, colon)) != candidates.end();
    checks.refuse({"policies", p, kind, key, i},
                  {"bad_value", fmt::format("{} is nothing to tell requests apart by", in_quotes(word)),
                   one_of({std::begin(kWords), std::end(kWords)}), misses_name ? "" : meant});
  }
}

std::optional<LimitBy> parse_limit_by(std::string_view word) {
  using What = LimitBy::What;
  if (word == "client") return LimitBy{What::client, {}};
  if (word == "country") return LimitBy{What::country, {}};
  if (word == "route") return LimitBy{What::route, {}};
  if (word == "identity") return LimitBy{What::identity, {}};
  if (word == "host") return LimitBy{What::host, {}};
  if (word == "pool") return LimitBy{What::pool, {}};
  const size_t colon = word.find(':');
  if (colon == std::string_view::npos) return std::nullopt;
  std::string name(word.substr(colon + 1));
  if (name.empty() || name.size() > kMostNameBytes) return std::nullopt;
  if (word.substr(0, colon) == "claim") return LimitBy{What::claim, std::move(name)};
  if (!http1::is_token(name)) return std::nullopt;
  if (word.substr(0, colon) == "cookie") return LimitBy{What::cookie, std::move(name)};
  if (word.substr(0, colon) != "header") return std::nullopt;
  return LimitBy{What::header, lower_case(name)};
}

bool needs_identity(std::string_view word) {
  const std::optional<LimitBy> by = parse_limit_by(word);
  return by && (by->what == LimitBy::What::identity || by->what == LimitBy::What::claim);
}

PolicyKind limit_policy_kind() {
  return policy_kind<LimitPolicy>("limit", "How many requests are allowed in a time; more get 429.", limit_section(),
                                  check_limit);
}

}  // namespace tidegate
