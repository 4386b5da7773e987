// SPDX-License-Identifier: Apache-2.0
#include "conf/policy/transform.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "conf/field_builders.h"
#include "conf/limits.h"
#include "conf/model.h"
#include "conf/model/route.h"
#include "conf/names.h"
#include "conf/policy/kind.h"
#include "conf/policy/template.h"
#include "conf/route_pattern.h"
#include "conf/text.h"
#include "core/http1.h"
#include "core/regex.h"

namespace tidegate {
namespace {

using namespace fields;
using Action = TransformEdit::Action;
using What = TemplatePart::What;

constexpr std::array<const char*, 5> kActionKeys = {"set", "add", "remove", "rename", "replace"};
constexpr size_t kTransformNameBytes = 256, kTransformTextBytes = 2'048;

const Section& transform_edit_section() {
  static const Section section{
      "edit",
      {
          text("set", &TransformEdit::set,
               "The name of what becomes `value`, whether it was there or not. If `value` turns out empty, it is "
               "removed.",
               kTransformNameBytes),
          text("add", &TransformEdit::add, "The name of what is added beside those of the same name.",
               kTransformNameBytes),
          text("remove", &TransformEdit::remove, "The name of what is removed.", kTransformNameBytes),
          text("rename", &TransformEdit::rename, "The name of what is called `to` from then on.", kTransformNameBytes),
          text("replace", &TransformEdit::replace,
               "The name of what is changed where `match` matches: what that takes becomes `value`.",
               kTransformNameBytes),
          text("value", &TransformEdit::value, "A text with variables; of `set`, `add` and `replace`.",
               kTransformTextBytes),
          text("match", &TransformEdit::match,
               "A regular expression (RE2) of `replace`. `{match.1}` in `value` is what its first group took.",
               kTransformTextBytes),
          text("to", &TransformEdit::to, "The new name, of `rename`.", kTransformNameBytes),
      }};
  return section;
}

const Section& transform_path_section() {
  static const Section section{
      "path section",
      {
          required(text("value", &TransformPath::value,
                        "A text with variables. Without `prefix` and `match`, the whole path becomes it.",
                        kTransformTextBytes)),
          text("prefix", &TransformPath::prefix,
               "`/api`: only these segments at the beginning of the path become `value`. Another path stays.",
               kTransformTextBytes),
          text("match", &TransformPath::match,
               "A regular expression (RE2): what it takes of the path becomes `value`. Another path stays.",
               kTransformTextBytes),
      }};
  return section;
}

const Section& transform_section() {
  static const Section section{
      "transform",
      {
          nested(
              "path", &TransformPolicy::path, transform_path_section(),
              "The path that the backend gets. Variables: `{client}` (its address), `{port}` (that it connected to), "
              "`{host}`, `{authority}`, `{path}`, `{query}`, `{method}`, `{scheme}`, `{route}`, `{request_id}`, "
              "`{identity}` (whom `authenticate` found), `{tls.version}`, `{path.NAME}` or `{NAME}` (a parameter of "
              "the route's path), `{query.NAME}`, `{header.NAME}`, `{cookie.NAME}`, `{jwt.CLAIM}`, `{match.N}` (what "
              "a group of `match` took), `{status}` (of the answer); `{{` and `}}` are braces. All are of the "
              "request as the client sent it."),
          nested("query", &TransformPolicy::query, transform_edit_section(),
                 "Changes of the query's parameters, in this order."),
          text("host", &TransformPolicy::host, "The host that the backend is asked for; a text with variables.",
               kTransformTextBytes),
          nested("request_headers", &TransformPolicy::request_headers, transform_edit_section(),
                 "Changes of the request's fields, in this order. Those of the route come after them."),
          nested(
              "request_json", &TransformPolicy::request_json, transform_json_section(),
              "Changes of the request's body, if its Content-Type is JSON. It is taken into memory whole. One that is "
              "longer, compressed or no JSON is refused."),
          nested("response_json", &TransformPolicy::response_json, transform_json_section(),
                 "Changes of the answer's body, if its Content-Type is JSON. It is taken into memory whole, and the "
                 "backend is asked for it uncompressed. One that is longer, compressed or no JSON is refused. Not for "
                 "routes with a cache."),
          nested("response_headers", &TransformPolicy::response_headers, transform_edit_section(),
                 "Changes of the answer's fields, for each client, on hits of the cache too. Those of the route come "
                 "after them."),
      }};
  return section;
}

// Where a text is, which decides what it may use.
struct TransformPlace {
  bool of_answer = false;
  size_t groups = 0;  // groups of `match`, including the whole match
};

// Reports a fault in a text. Returns the text if it has none.
std::optional<TextTemplate> check_template(Checks& checks, Way way, const std::string& text,
                                           const TransformPlace& place) {
  Result<TextTemplate> parsed = parse_template(text);
  if (!parsed) {
    checks.refuse(way, {"bad_value", parsed.error().message, {}, {}});
    return std::nullopt;
  }
  for (const TemplatePart& part : parsed->parts) {
    if (part.what == What::literal && !http1::is_field_value(part.text)) {
      checks.refuse(way, {"bad_value", "a text with a control character", {}, {}});
    } else if (part.what == What::json) {
      checks.refuse(way, {"bad_value", "{json.PATH} is for bodies", {}, "request_json or response_json"});
    } else if (part.what == What::status && !place.of_answer) {
      checks.refuse(way, {"bad_value", "{status} is known of answers alone", {}, {}});
    } else if (part.what == What::group && part.number >= place.groups) {
      checks.refuse(
          way, {"bad_value",
                place.groups == 0 ? fmt::format("{{{}}} without `match`", variable_name(part))
                                  : fmt::format("{{{}}}: `match` has {} groups", variable_name(part), place.groups - 1),
                {},
                {}});
    } else {
      continue;
    }
    return std::nullopt;
  }
  return *std::move(parsed);
}

// The number of groups of the expression, including the whole match. 0 if the expression is refused.
size_t check_regex(Checks& checks, Way way, const std::string& pattern) {
  const Result<Regex> regex = Regex::compile(pattern, kRegexMemoryBytes);
  if (regex) return regex->groups() + 1;
  checks.refuse(way, {"bad_value",
                      fmt::format("{} is no regular expression of RE2: {}", in_quotes(pattern), regex.error().message),
                      {},
                      {}});
  return 0;
}

// A place in a list of edits.
struct EditPlace {
  size_t p;
  const char* list;
  size_t index;
  bool of_fields, of_answer;
};

void check_edit_name(Checks& checks, const EditPlace& at, const char* key, const std::string& name) {
  const Way way = {"policies", at.p, "transform", at.list, at.index, key};
  if (!at.of_fields) return;
  const std::string lower = lower_case(name);
  if (!http1::is_token(name)) {
    checks.refuse(way, {"bad_value", fmt::format("{} is no name of a field", in_quotes(name)), {}, {}});
  } else if (lower == "host" && !at.of_answer) {
    checks.refuse(way, {"bad_value", "Host is not one of the fields here", "the key `host`", {}});
  } else if (is_own_field(field_name_as_read(name), at.of_answer)) {
    checks.refuse(way, {"bad_value",
                        fmt::format("{} cannot be changed: the proxy writes it itself", in_quotes(name)),
                        "a field of the message's content",
                        {}});
  }
}

// Which keys an action may have in addition to its name.
void check_edit_keys(Checks& checks, const EditPlace& at, Action action) {
  const bool has_value = action == Action::set || action == Action::add || action == Action::replace;
  const std::pair<const char*, bool> kKeys[] = {
      {"value", has_value}, {"match", action == Action::replace}, {"to", action == Action::rename}};
  for (const auto& [key, belongs] : kKeys) {
    const bool written = checks.written({"policies", at.p, "transform", at.list, at.index, key});
    if (written == belongs) continue;
    const char* const verb = kActionKeys[static_cast<size_t>(action)];
    if (written) {
      checks.refuse({"policies", at.p, "transform", at.list, at.index, key},
                    {"without_effect", fmt::format("`{}` has no `{}`", verb, key), {}, "remove it"});
    } else {
      checks.refuse({"policies", at.p, "transform", at.list, at.index},
                    {"missing_key", fmt::format("`{}` needs `{}`", verb, key), {}, {}});
    }
  }
}

void check_edit(Checks& checks, const EditPlace& at, const TransformEdit& edit) {
  size_t actions = 0;
  for (const char* key : kActionKeys) {
    actions += checks.written({"policies", at.p, "transform", at.list, at.index, key}) ? 1 : 0;
  }
  if (actions != 1 || edit.name().empty()) {
    checks.refuse({"policies", at.p, "transform", at.list, at.index},
                  {"exactly_one",
                   actions == 0 ? "an edit that does nothing" : "an edit does one thing, to one name",
                   "one of set, add, remove, rename and replace, with a name",
                   {}});
    return;
  }
  const Action action = edit.action();
  check_edit_name(checks, at, kActionKeys[static_cast<size_t>(action)], edit.name());
  check_edit_keys(checks, at, action);
  if (action == Action::rename && !edit.to.empty()) check_edit_name(checks, at, "to", edit.to);
  size_t groups = 0;
  if (!edit.match.empty()) {
    groups = check_regex(checks, {"policies", at.p, "transform", at.list, at.index, "match"}, edit.match);
    if (groups == 0) return;
  }
  check_template(checks, {"policies", at.p, "transform", at.list, at.index, "value"}, edit.value,
                 {at.of_answer, groups});
}

void check_transform_edits(Checks& checks, size_t p, const char* list, const std::vector<TransformEdit>& edits,
                           bool of_fields, bool of_answer) {
  if (edits.size() > kTransformEdits) {
    checks.refuse({"policies", p, "transform", list}, {"out_of_range",
                                                       fmt::format("{} has {} edits", list, edits.size()),
                                                       fmt::format("at most {}", kTransformEdits),
                                                       {}});
    return;
  }
  for (size_t i = 0; i < edits.size() && !checks.full(); ++i) {
    check_edit(checks, {p, list, i, of_fields, of_answer}, edits[i]);
  }
}

void check_transform_path(Checks& checks, size_t p, const TransformPath& path) {
  const Way at_value = {"policies", p, "transform", "path", "value"};
  if (!path.prefix.empty() && !path.match.empty()) {
    checks.refuse({"policies", p, "transform", "path", "match"},
                  {"exactly_one", "a path with `prefix` and `match`", "one of them, or none", {}});
    return;
  }
  if (!path.prefix.empty() && path.prefix[0] != '/') {
    checks.refuse({"policies", p, "transform", "path", "prefix"},
                  {"bad_value", fmt::format("{} is no beginning of a path", in_quotes(path.prefix)), "/SEGMENT", {}});
  }
  size_t groups = 0;
  if (!path.match.empty()) {
    groups = check_regex(checks, {"policies", p, "transform", "path", "match"}, path.match);
    if (groups == 0) return;
  }
  const std::optional<TextTemplate> value = check_template(checks, at_value, path.value, {false, groups});
  if (!value) return;
  for (const TemplatePart& part : value->parts) {
    const std::string_view why = part.what == What::literal ? why_not_in_path(part.text) : std::string_view();
    if (why.empty()) continue;
    const bool has_query = part.text.find('?') != std::string::npos;
    checks.refuse(at_value, {"bad_value", std::string(why), {}, has_query ? "the key `query` is for it" : ""});
    return;
  }
  const bool rooted =
      !value->parts.empty() && (value->parts[0].what == What::path || value->parts[0].text.starts_with('/'));
  const bool cuts_prefix = !path.prefix.empty() && path.value.empty();
  if (path.match.empty() && !rooted && !cuts_prefix) {
    checks.refuse(at_value, {"bad_value", fmt::format("{} is no path", in_quotes(path.value)), "/PATH", {}});
  }
}

// Visits every text of the part that reaches backends.
template <class Visit>
void for_each_request_text(const TransformPolicy& transform, Visit visit) {
  if (transform.path) visit(Step("path"), transform.path->value);
  if (!transform.host.empty()) visit(Step("host"), transform.host);
  for (const TransformEdit& edit : transform.query) visit(Step("query"), edit.value);
  for (const TransformEdit& edit : transform.request_headers) visit(Step("request_headers"), edit.value);
}

// A cached answer goes to all clients, and the key of the cache is the URL as the client sent it. So nothing else from
// a client may change the backend's request.
void check_transform_of_cached(Checks& checks, size_t p, const TransformPolicy& transform) {
  const auto complain = [&](const Step& key, const Route& route, std::string_view what) {
    checks.refuse({"policies", p, "transform", key},
                  {"conflicting_keys",
                   fmt::format("route '{}' has a cache, whose key does not have {}", route.name, what),
                   {},
                   "a route of its own without a cache"});
  };
  for (const uint32_t r : routes_it_may_hold_for(checks, p)) {
    const Route& route = checks.model().routes[r];
    if (!route.cache.enabled) continue;
    bool refused = false;
    if (transform.response_json) {
      checks.refuse({"policies", p, "transform", "response_json"},
                    {"conflicting_keys",
                     fmt::format("route '{}' has a cache, which keeps answers as backends send them", route.name),
                     {},
                     "a route of its own without a cache"});
      return;
    }
    for_each_request_text(transform, [&](const Step& key, const std::string& text) {
      const Result<TextTemplate> parsed = parse_template(text);
      if (refused || !parsed) return;
      for (const TemplatePart& part : parsed->parts) {
        const bool of_path = part.what == What::group && key.key != "request_headers";
        if (refused || is_of_url(part.what) || of_path) continue;
        complain(key, route, fmt::format("{{{}}}", variable_name(part)));
        refused = true;
      }
    });
    for (const TransformEdit& edit : transform.request_headers) {
      const std::string lower = lower_case(edit.name());
      if (refused) break;
      refused = true;
      if (edit.action() == Action::rename || edit.action() == Action::replace) {
        complain("request_headers", route, "the client's own fields");
      } else if (edit.action() != Action::remove && (lower == "authorization" || lower == "cookie")) {
        checks.refuse({"policies", p, "transform", "request_headers"},
                      {"conflicting_keys",
                       fmt::format("route '{}' has a cache: {} is not sent there", route.name, edit.name()),
                       {},
                       "the route's own request_headers"});
      } else {
        refused = false;
      }
    }
    if (refused) return;
  }
}

// If a route names the policy itself, the policy may use only the parameters of this route's path. Thousands of routes
// may name it, so their paths are read only if the policy uses parameters.
void check_transform_parameters(Checks& checks, size_t p, const TransformPolicy& transform) {
  std::vector<std::pair<Step, std::string>> used;  // where, and the parameter
  for_each_request_text(transform, [&](const Step& key, const std::string& text) {
    const Result<TextTemplate> parsed = parse_template(text);
    if (!parsed) return;
    for (const TemplatePart& part : parsed->parts) {
      if (part.what == What::path_parameter) used.emplace_back(key, part.text);
    }
  });
  if (used.empty()) return;
  for (const uint32_t r : checks.routes_that_name(p)) {
    const Route& route = checks.model().routes[r];
    const auto path = PathPattern::parse(route.path);
    if (!path) continue;
    std::vector<std::string_view> names;
    for (const PathSegment& segment : path->segments) {
      if (segment.kind == PathSegment::Kind::parameter) names.emplace_back(segment.text);
    }
    for (const auto& [key, parameter] : used) {
      if (std::find(names.begin(), names.end(), parameter) != names.end()) continue;
      return checks.refuse(
          {"policies", p, "transform", key},
          {"bad_value",
           fmt::format("{{{}}} is no variable, and no parameter of the path of route '{}'", parameter, route.name),
           route.path, variable_hint(parameter, names)});
    }
  }
}

void check_transform(Checks& checks, size_t p) {
  const TransformPolicy& transform = *checks.model().policies[p].part<TransformPolicy>("transform");
  if (!transform.path && transform.host.empty() && transform.query.empty() && transform.request_headers.empty() &&
      transform.response_headers.empty() && !transform.request_json && !transform.response_json) {
    checks.refuse({"policies", p, "transform"},
                  {"missing_key",
                   "a transform that changes nothing",
                   "path, query, host, request_headers, response_headers, request_json or response_json",
                   {}});
  }
  if (transform.path) check_transform_path(checks, p, *transform.path);
  if (!transform.host.empty()) check_template(checks, {"policies", p, "transform", "host"}, transform.host, {});
  check_transform_edits(checks, p, "query", transform.query, false, false);
  check_transform_edits(checks, p, "request_headers", transform.request_headers, true, false);
  check_transform_edits(checks, p, "response_headers", transform.response_headers, true, true);
  if (transform.request_json) check_transform_json(checks, p, "request_json", *transform.request_json);
  if (transform.response_json) check_transform_json(checks, p, "response_json", *transform.response_json);
  check_transform_of_cached(checks, p, transform);
  check_transform_parameters(checks, p, transform);
}

}  // namespace

TransformEdit::Action TransformEdit::action() const {
  const std::string* const names[] = {&set, &add, &remove, &rename, &replace};
  for (size_t i = 0; i < std::size(names); ++i) {
    if (!names[i]->empty()) return static_cast<Action>(i);
  }
  return Action::set;
}

const std::string& TransformEdit::name() const {
  const std::string* const names[] = {&set, &add, &remove, &rename, &replace};
  return *names[static_cast<size_t>(action())];
}

bool is_own_field(std::string_view lower_name, bool of_answer) {
  constexpr std::string_view kFraming[] = {
      "connection", "content-length",    "expect",  "http2-settings", "keep-alive", "proxy-connection", "te",
      "trailer",    "transfer-encoding", "upgrade", "host",           "via",        "x-request-id"};
  constexpr std::string_view kOfRequests[] = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"};
  // A transform cannot change these fields of answers. The first two describe the bytes of the content, which stay as
  // they are.
  constexpr std::string_view kOfAnswers[] = {"content-encoding", "content-range", "date", "age", "cache-status"};
  const auto has = [lower_name](const auto& names) {
    return std::find(std::begin(names), std::end(names), lower_name) != std::end(names);
  };
  return has(kFraming) || (of_answer ? has(kOfAnswers) : has(kOfRequests));
}

PolicyKind transform_policy_kind() {
  return policy_kind<TransformPolicy>(
      "transform", "What is changed in requests on their way to the backend, and in the fields of answers.",
      transform_section(), check_transform);
}

}  // namespace tidegate
