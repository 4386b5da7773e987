// SPDX-License-Identifier: Apache-2.0
#include "conf/policy/split.h"

#include <fmt/format.h>

#include <algorithm>

#include "conf/field_builders.h"
#include "conf/limits.h"
#include "conf/model.h"
#include "conf/model/pool.h"
#include "conf/model/route.h"
#include "conf/names.h"
#include "conf/policy/kind.h"
#include "conf/policy/limit_by.h"
#include "conf/route_checks.h"
#include "conf/text.h"
#include "core/http1.h"

namespace tidegate {
namespace {

using namespace fields;

const Section& split_variant_section() {
  static const Section section{
      "variant",
      {
          fields::name(&SplitVariant::name, "In the access log (`variant`) and in metrics."),
          required(reference("pool", &SplitVariant::pool, "pools", "Its requests go to this pool.")),
          integer("weight", &SplitVariant::weight, {0, 1'000'000},
                  "Its share of the requests that no `when` has taken, beside the weights of the others. 0: none."),
          text("when", &SplitVariant::when,
               "Requests that have it go to this variant, whatever the weights are: `header:NAME`, `cookie:NAME` or "
               "`claim:NAME` (of the client's token). The first variant in the list whose `when` holds takes them.",
               256),
          text("values", &SplitVariant::values, "Of `when`: only these. Without the key, any.", 256),
          row("request_headers", FieldType::text_map, &SplitVariant::request_headers,
              "Set on its requests towards the backend; an empty value removes the field. Those of the route come "
              "after and win. Host and fields of framing cannot be set."),
          row("response_headers", FieldType::text_map, &SplitVariant::response_headers,
              "The same for its answers towards the client."),
      }};
  return section;
}

const Section& split_section() {
  static const Section section{
      "split",
      {
          required(nested("variants", &SplitPolicy::variants, split_variant_section(),
                          "Among which requests are split, instead of the route's pool. At most 16.")),
          text("sticky", &SplitPolicy::sticky,
               "Requests that are alike in all of these get one variant: `client` (its address), `country` (by the "
               "databases of `geo`), `identity`, `host`, `route`, `pool` (of the route), `header:NAME`, "
               "`cookie:NAME`, `claim:NAME`. A request without one of them goes by its client. When weights change, "
               "only as many move as must. Without the key, each request is chosen for anew."),
      }};
  return section;
}

void check_split_when(Checks& checks, size_t p, size_t v, const SplitVariant& variant) {
  if (variant.when.empty()) {
    if (!variant.values.empty()) {
      checks.refuse({"policies", p, "split", "variants", v, "values"},
                    {"without_effect", "values without `when`", {}, "remove them"});
    }
  } else if (!parse_split_condition(variant.when)) {
    const std::vector<std::string_view> kinds = {"header", "cookie", "claim"};
    const std::string_view kind = std::string_view(variant.when).substr(0, variant.when.find(':'));
    const bool known = std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
    checks.refuse({"policies", p, "split", "variants", v, "when"},
                  {"bad_value", fmt::format("{} is nothing to choose by", in_quotes(variant.when)),
                   "header:NAME, cookie:NAME or claim:NAME", known ? std::string() : did_you_mean(kind, kinds)});
  }
}

void check_variant_edits(Checks& checks, size_t p, size_t v, const char* key,
                         const std::vector<std::pair<std::string, std::string>>& edits) {
  for (const auto& [name, value] : edits) {
    const std::string lower = field_name_as_read(name);
    if (lower != "host" && !is_framing_field(lower)) continue;
    checks.refuse({"policies", p, "split", "variants", v, key, std::string_view(name)},
                  {"bad_value", fmt::format("a variant cannot edit {}", in_quotes(name)), "another field", {}});
  }
}

void check_split_route(Checks& checks, size_t p, const SplitPolicy& split, const Route& route) {
  const auto complain = [&](std::string sentence, std::string hint) {
    checks.refuse({"policies", p, "split"}, {"conflicting_keys", std::move(sentence), {}, std::move(hint)});
  };
  if (!route.labels.empty()) {
    complain(fmt::format("labels of route '{}' do not hold in the variants' pools", route.name), "remove one of them");
  } else if (route.grpc_web && std::any_of(split.variants.begin(), split.variants.end(), [&](const SplitVariant& each) {
               return each.pool != kNone && checks.model().pools[each.pool].protocol == BackendProtocol::h1;
             })) {
    complain(fmt::format("route '{}' has grpc_web, and a variant's pool speaks HTTP/1.1", route.name),
             "`protocol: h2` for every variant's pool");
  }
}

void check_split_routes(Checks& checks, size_t p, const SplitPolicy& split) {
  for (const uint32_t r : routes_it_may_hold_for(checks, p)) {
    const Route& route = checks.model().routes[r];
    if (checks.full() || route.pool() == kNone) continue;
    check_split_route(checks, p, split, route);
  }
}

void check_split(Checks& checks, size_t p) {
  const SplitPolicy& split = *checks.model().policies[p].part<SplitPolicy>("split");
  if (split.variants.size() > kSplitVariantsMost) {
    checks.refuse({"policies", p, "split", "variants"}, {"out_of_range",
                                                         fmt::format("{} variants", split.variants.size()),
                                                         fmt::format("at most {}", kSplitVariantsMost),
                                                         {}});
    return;
  }
  for (size_t v = 0; v < split.variants.size(); ++v) {
    check_split_when(checks, p, v, split.variants[v]);
    check_variant_edits(checks, p, v, "request_headers", split.variants[v].request_headers);
    check_variant_edits(checks, p, v, "response_headers", split.variants[v].response_headers);
  }
  if (std::none_of(split.variants.begin(), split.variants.end(), [](const auto& each) { return each.weight > 0; })) {
    checks.refuse({"policies", p, "split", "variants"},
                  {"missing_key",
                   "no variant has a weight: a request without a `when` goes nowhere",
                   "weight of at least one variant",
                   {}});
  }
  if (!split.sticky.empty()) check_limit_by(checks, p, "split", split.sticky, "sticky");
  check_split_routes(checks, p, split);
}

}  // namespace

std::optional<SplitCondition> parse_split_condition(std::string_view word) {
  constexpr std::pair<std::string_view, SplitCondition::What> kKinds[] = {{"header:", SplitCondition::What::header},
                                                                          {"cookie:", SplitCondition::What::cookie},
                                                                          {"claim:", SplitCondition::What::claim}};
  for (const auto& [prefix, what] : kKinds) {
    if (!word.starts_with(prefix)) continue;
    const std::string_view name = word.substr(prefix.size());
    if (name.empty() || (what != SplitCondition::What::claim && !http1::is_token(name))) return std::nullopt;
    return SplitCondition{what, what == SplitCondition::What::header ? lower_case(name) : std::string(name)};
  }
  return std::nullopt;
}

PolicyKind split_policy_kind() {
  PolicyKind kind = policy_kind<SplitPolicy>(
      "split", "Which of several pools gets a request: a canary by weight, or by what the request says.",
      split_section(), check_split);
  kind.pools_of = [](const Policy& policy) {
    std::vector<uint32_t> pools;
    for (const SplitVariant& each : policy.part<SplitPolicy>("split")->variants) pools.push_back(each.pool);
    return pools;
  };
  return kind;
}

}  // namespace tidegate
