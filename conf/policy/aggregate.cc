// SPDX-License-Identifier: Apache-2.0
#include "conf/policy/aggregate.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "conf/field_builders.h"
#include "conf/limits.h"
#include "conf/model.h"
#include "conf/model/route.h"
#include "conf/names.h"
#include "conf/policy/kind.h"
#include "conf/policy/template.h"
#include "conf/route_checks.h"
#include "conf/route_pattern.h"
#include "conf/text.h"
#include "core/http1.h"

namespace tidegate {
namespace {

using namespace fields;

constexpr uint64_t kAggregateTextBytes = 1'024;

const Section& aggregate_part_section() {
  static const Section section{
      "part",
      {
          fields::name(&AggregatePart::name, "The member of the answer that has this part."),
          required(reference("pool", &AggregatePart::pool, "pools", "Who is asked for it.")),
          text("path", &AggregatePart::path,
               "What it is asked for, by GET: a text with variables, as `path` of `transform` has them.",
               kAggregateTextBytes),
          row("query", FieldType::text_map, &AggregatePart::query,
              "Parameters of the query, by name; the values are texts with variables. One whose value is empty is left "
              "out."),
          text("host", &AggregatePart::host,
               "The host that it is asked for; a text with variables. Without the key, that of the client's request.",
               kAggregateTextBytes),
          boolean(
              "required", &AggregatePart::required,
              "`false`: if this part cannot be had, the answer has `fallback` in its place. `true`: the client gets "
              "the failure instead."),
          text("fallback", &AggregatePart::fallback,
               "JSON that stands for the part if it cannot be had and is not required. Without the key, null.",
               kAggregateTextBytes),
          bounded("pass_statuses", FieldType::integer, &AggregatePart::pass_statuses, {400, 499},
                  "Statuses of a required part that the client gets, with the part's body, for example 404. Any other "
                  "status outside of 2xx is a failure: 502."),
      }};
  return section;
}

const Section& aggregate_section() {
  static const Section section{
      "aggregate",
      {
          required(nested("parts", &AggregatePolicy::parts, aggregate_part_section(),
                          "What the answer is made of. All are asked at one time. At most 16.")),
          duration("timeout", &AggregatePolicy::timeout_ms, {10, 1 * kMinute},
                   "For all parts together, further tries included. A part that has not come by then has failed."),
          size("most", &AggregatePolicy::most, {1 * kKB, 4 * kMB},
               "Of the body of each part. One that is longer has failed."),
          text("request_headers", &AggregatePolicy::request_headers,
               "Fields of the client's request that each part gets. Without the key, none.", 128),
          text("errors", &AggregatePolicy::errors,
               "The member of the answer that tells which parts failed, and why. It is there only if one has. Empty: "
               "they are not told.",
               128),
      }};
  return section;
}

void check_part_text(Checks& checks, Way way, const std::string& text) {
  const Result<TextTemplate> parsed = parse_template(text);
  if (!parsed) return checks.refuse(way, {"bad_value", parsed.error().message, {}, {}});
  for (const TemplatePart& part : parsed->parts) {
    using What = TemplatePart::What;
    if (part.what == What::group || part.what == What::status || part.what == What::json) {
      return checks.refuse(way,
                           {"bad_value", fmt::format("{{{}}} is not known of a request", variable_name(part)), {}, {}});
    }
    if (part.what == What::literal && !http1::is_field_value(part.text)) {
      return checks.refuse(way, {"bad_value", "a text with a control character", {}, {}});
    }
  }
}

void check_part_path(Checks& checks, size_t p, size_t i, const std::string& path) {
  const Way way = {"policies", p, "aggregate", "parts", i, "path"};
  check_part_text(checks, way, path);
  if (!path.starts_with('/') && !path.starts_with("{path}")) {
    checks.refuse(way, {"bad_value", fmt::format("{} is no path", in_quotes(path)), "/PATH", {}});
  } else if (const Result<TextTemplate> parsed = parse_template(path)) {
    for (const TemplatePart& part : parsed->parts) {
      if (part.what != TemplatePart::What::literal) continue;
      const std::string_view why = why_not_in_path(part.text);
      if (!why.empty()) return checks.refuse(way, {"bad_value", std::string(why), {}, {}});
    }
  }
}

void check_part(Checks& checks, size_t p, size_t i, const AggregatePart& part, const std::string& errors) {
  check_part_path(checks, p, i, part.path);
  for (const auto& [name, value] : part.query) {
    check_part_text(checks, {"policies", p, "aggregate", "parts", i, "query", std::string_view(name)}, value);
  }
  if (!part.host.empty()) check_part_text(checks, {"policies", p, "aggregate", "parts", i, "host"}, part.host);
  if (part.name == errors) {
    checks.refuse({"policies", p, "aggregate", "parts", i, "name"},
                  {"duplicate_name",
                   fmt::format("{} is the member that tells of failures", in_quotes(errors)),
                   {},
                   "another name, or another one for `errors`"});
  }
  if (!part.fallback.empty() && !nlohmann::json::accept(part.fallback)) {
    checks.refuse({"policies", p, "aggregate", "parts", i, "fallback"},
                  {"bad_value", fmt::format("{} is no JSON", in_quotes(part.fallback)), {}, {}});
  }
  const char* const idle = part.required ? "fallback" : "pass_statuses";
  if (checks.written({"policies", p, "aggregate", "parts", i, idle})) {
    checks.refuse({"policies", p, "aggregate", "parts", i, idle},
                  {"without_effect",
                   fmt::format("{} of a part that is {}required", idle, part.required ? "" : "not "),
                   {},
                   "remove it, or change `required`"});
  }
}

void check_part_fields(Checks& checks, size_t p, const std::vector<std::string>& names) {
  if (names.size() > kAggregateFieldsMost) {
    checks.refuse(
        {"policies", p, "aggregate", "request_headers"},
        {"out_of_range", fmt::format("{} fields", names.size()), fmt::format("at most {}", kAggregateFieldsMost), {}});
    return;
  }
  // These fields are never passed on to parts. Some belong to one message alone. The others ask for a part of the body
  // or for another coding, and the proxy could not use such an answer.
  constexpr std::string_view kOwn[] = {
      "accept-encoding", "content-type",        "expect", "host", "if-match",    "if-modified-since", "if-none-match",
      "if-range",        "if-unmodified-since", "range",  "via",  "x-request-id"};
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string lower = lower_case(names[i]);
    const bool own = is_framing_field(lower) || std::find(std::begin(kOwn), std::end(kOwn), lower) != std::end(kOwn);
    if (http1::is_token(names[i]) && !own) continue;
    checks.refuse({"policies", p, "aggregate", "request_headers", i},
                  {"bad_value",
                   own ? fmt::format("{} cannot be passed on to parts", in_quotes(names[i]))
                       : fmt::format("{} is no name of a field", in_quotes(names[i])),
                   {},
                   {}});
  }
}

// Every path parameter in a text must be one of the route's path.
void check_part_parameters(Checks& checks, size_t p, size_t i, const std::vector<std::string>& known,
                           const Route& route, const AggregatePart& part) {
  const auto check = [&](const char* key, const std::string& text) {
    const Result<TextTemplate> parsed = parse_template(text);
    if (!parsed) return;
    for (const TemplatePart& each : parsed->parts) {
      if (each.what != TemplatePart::What::path_parameter ||
          std::find(known.begin(), known.end(), each.text) != known.end()) {
        continue;
      }
      checks.refuse(
          {"policies", p, "aggregate", "parts", i, key},
          {"bad_value",
           fmt::format("{{{}}} is no variable, and no parameter of the path of route '{}'", each.text, route.name),
           {},
           variable_hint(each.text, {known.begin(), known.end()})});
    }
  };
  check("path", part.path);
  check("host", part.host);
  for (const auto& [name, value] : part.query) check("query", value);
}

void check_routes_of_aggregate(Checks& checks, size_t p, const AggregatePolicy& aggregate) {
  for (const uint32_t r : routes_it_may_hold_for(checks, p)) {
    const Route& route = checks.model().routes[r];
    if (checks.full()) return;
    if (route.cache.enabled) {
      checks.refuse({"policies", p, "aggregate"},
                    {"conflicting_keys",
                     fmt::format("route '{}' has a cache, which an aggregated answer does not reach", route.name),
                     {},
                     "caches of the routes that the parts come from"});
    }
    const bool named = std::find(route.policies.begin(), route.policies.end(), p) != route.policies.end();
    const Result<PathPattern> pattern = PathPattern::parse(route.path);
    if (!named || !pattern) continue;
    std::vector<std::string> known;
    for (const PathSegment& segment : pattern->segments) {
      if (segment.kind == PathSegment::Kind::parameter) known.push_back(segment.text);
    }
    for (size_t i = 0; i < aggregate.parts.size(); ++i) {
      check_part_parameters(checks, p, i, known, route, aggregate.parts[i]);
    }
  }
}

void check_aggregate(Checks& checks, size_t p) {
  const AggregatePolicy& aggregate = *checks.model().policies[p].part<AggregatePolicy>("aggregate");
  if (aggregate.parts.size() > kAggregatePartsMost) {
    checks.refuse({"policies", p, "aggregate", "parts"}, {"out_of_range",
                                                          fmt::format("{} parts", aggregate.parts.size()),
                                                          fmt::format("at most {}", kAggregatePartsMost),
                                                          {}});
    return;
  }
  for (size_t i = 0; i < aggregate.parts.size(); ++i) check_part(checks, p, i, aggregate.parts[i], aggregate.errors);
  check_part_fields(checks, p, aggregate.request_headers);
  check_routes_of_aggregate(checks, p, aggregate);
}

}  // namespace

PolicyKind aggregate_policy_kind() {
  PolicyKind kind = policy_kind<AggregatePolicy>(
      "aggregate",
      "The answers of several backends become one JSON object, which answers GET and HEAD in place of the route's own "
      "backend.",
      aggregate_section(), check_aggregate);
  kind.pools_of = [](const Policy& policy) {
    std::vector<uint32_t> pools;
    for (const AggregatePart& each : policy.part<AggregatePolicy>("aggregate")->parts) pools.push_back(each.pool);
    return pools;
  };
  return kind;
}

}  // namespace tidegate
