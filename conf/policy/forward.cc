// SPDX-License-Identifier: Apache-2.0
#include "conf/policy/forward.h"

#include <fmt/format.h>

#include <algorithm>

#include "conf/field_builders.h"
#include "conf/limits.h"
#include "conf/model.h"
#include "conf/model/certificate.h"
#include "conf/model/policy.h"
#include "conf/names.h"
#include "conf/policy/authenticate.h"
#include "conf/text.h"
#include "core/http1.h"

namespace tidegate {
namespace {

using namespace fields;

constexpr const char* kWords[] = {"method", "host", "path", "query", "client", "header:NAME", "cookie:NAME"};

// Fields that each message has for itself: they frame it, or hold only between two neighbours (RFC 9110 §7.6.1).
bool is_of_one_message(std::string_view lower) {
  constexpr std::string_view kNames[] = {"connection",
                                         "content-length",
                                         "content-type",
                                         "date",
                                         "expect",
                                         "host",
                                         "http2-settings",
                                         "keep-alive",
                                         "te",
                                         "proxy-connection",
                                         "trailer",
                                         "via",
                                         "transfer-encoding",
                                         "upgrade"};
  return std::find(std::begin(kNames), std::end(kNames), lower) != std::end(kNames);
}

void check_names(Checks& checks, size_t p, const char* key, const std::vector<std::string>& names) {
  if (names.size() > kForwardFieldsMost) {
    checks.refuse({"policies", p, "authenticate", "forward", key},
                  {"out_of_range",
                   fmt::format("{} names {} fields", key, names.size()),
                   fmt::format("at most {}", kForwardFieldsMost),
                   {}});
    return;
  }
  for (size_t i = 0; i < names.size(); ++i) {
    const bool token = http1::is_token(names[i]);
    if (token && !is_of_one_message(lower_case(names[i]))) continue;
    checks.refuse({"policies", p, "authenticate", "forward", key, i},
                  {"bad_value",
                   token ? fmt::format("{} belongs to one message and cannot be copied", in_quotes(names[i]))
                         : fmt::format("{} is no name of a field", in_quotes(names[i])),
                   {},
                   {}});
  }
}

void check_statuses(Checks& checks, size_t p, const ForwardAuth& forward) {
  for (size_t i = 0; i < forward.refusals.size(); ++i) {
    if (forward.refusals[i] != 304) continue;
    checks.refuse({"policies", p, "authenticate", "forward", "refusals", i},
                  {"bad_value", "304 answers a question that only caches ask", {}, {}});
  }
}

void check_cache_by(Checks& checks, size_t p, const ForwardAuth& forward) {
  std::vector<std::string_view> known;
  for (const std::string_view word : kWords) known.push_back(word.substr(0, word.find(':')));
  for (size_t i = 0; i < forward.cache_by.size(); ++i) {
    const std::string_view word = forward.cache_by[i];
    if (parse_forward_cache_by(word)) continue;
    const std::string_view head = word.substr(0, word.find(':'));
    const bool misses_name = std::find(known.begin(), known.end(), head) != known.end();
    checks.refuse({"policies", p, "authenticate", "forward", "cache_by", i},
                  {"bad_value", fmt::format("{} is nothing to remember by", in_quotes(word)),
                   one_of({std::begin(kWords), std::end(kWords)}), misses_name ? "" : did_you_mean(head, known)});
  }
  for (const char* key : {"cache_by", "cache_entries"}) {
    if (forward.cache_ttl_ms != 0 || !checks.written({"policies", p, "authenticate", "forward", key})) continue;
    checks.refuse({"policies", p, "authenticate", "forward", key},
                  {"without_effect", fmt::format("{} belongs to a cache", key), {}, "set `cache_ttl`"});
  }
}

}  // namespace

const Section& forward_section() {
  static const Section section{
      "forward section",
      {
          enabled<ForwardAuth>(),
          required(reference("pool", &ForwardAuth::pool, "pools", "The service's backends.")),
          text("path", &ForwardAuth::path,
               "The path of what it is asked: a GET, with the client's request in `X-Forwarded-Method`, "
               "`X-Forwarded-Proto`, `X-Forwarded-Host`, `X-Forwarded-Uri` and `X-Forwarded-For`.",
               1'024),
          text("host", &ForwardAuth::host, "The Host of what it is asked. Without it, that of the client's request.",
               255),
          text("request_headers", &ForwardAuth::request_headers,
               "Fields of the client's request that it gets. Without the key, Authorization and Cookie. The body stays "
               "here.",
               128),
          text("to_backend", &ForwardAuth::to_backend,
               "Fields of its answer that the backend gets. A client's own are removed. Not for routes with a cache.",
               128),
          text("to_client", &ForwardAuth::to_client,
               "Fields of its refusal that the client gets, for example WWW-Authenticate, Location or Set-Cookie.",
               128),
          text("name_header", &ForwardAuth::name_header, "A field of its answer that names the client.", 128),
          text("roles_header", &ForwardAuth::roles_header,
               "A field of its answer that has the client's roles, with commas between.", 128),
          bounded(
              "refusals", FieldType::integer, &ForwardAuth::refusals, {300, 499},
              "Its statuses that the client gets, with the body. Without the key, 401 and 403. 2xx lets the request "
              "pass. Any other is a failure."),
          duration("timeout", &ForwardAuth::timeout_ms, {10, 1 * kMinute},
                   "For the whole question, other backends included."),
          choice("on_failure", &ForwardAuth::on_failure,
                 {{"refuse", ForwardAuth::OnFailure::refuse}, {"pass", ForwardAuth::OnFailure::pass}},
                 "Where it gives no answer, or none that is known. `pass`: the request passes without a name."),
          integer("failure_status", &ForwardAuth::failure_status, {400, 599}, "What the client gets then."),
          duration("cache_ttl", &ForwardAuth::cache_ttl_ms, {0, 1 * kHour},
                   "How long a yes is remembered. A no never is. 0: it is asked each time."),
          integer("cache_entries", &ForwardAuth::cache_entries, {64, 1'048'576},
                  "How many are remembered; at most 2 KiB each. Beyond it, the one that ends first is forgotten."),
          text("cache_by", &ForwardAuth::cache_by,
               "What a yes is remembered by, all of these together: `method`, `host`, `path`, `query`, `client`, "
               "`header:NAME`, `cookie:NAME`. Name all that the service judges by. Without the key, by all that it is "
               "told.",
               192),
      }};
  return section;
}

void check_forward(Checks& checks, size_t p) {
  const AuthenticatePolicy& authenticate = *checks.model().policies[p].part<AuthenticatePolicy>("authenticate");
  const ForwardAuth& forward = authenticate.forward;
  const bool path_good =
      forward.path.starts_with('/') &&
      std::all_of(forward.path.begin(), forward.path.end(), [](char c) { return c > ' ' && c < '\x7f' && c != '#'; });
  if (!path_good) {
    checks.refuse({"policies", p, "authenticate", "forward", "path"},
                  {"bad_value", fmt::format("{} is no path", in_quotes(forward.path)), "'/verify'", {}});
  }
  const bool host_good = std::all_of(forward.host.begin(), forward.host.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           std::string_view(".-_:[]").find(c) != std::string_view::npos;
  });
  if (!host_good) {
    checks.refuse({"policies", p, "authenticate", "forward", "host"},
                  {"bad_value", fmt::format("{} is no host", in_quotes(forward.host)), "'auth.example.com'", {}});
  }
  check_names(checks, p, "request_headers", forward.request_headers);
  check_names(checks, p, "to_backend", forward.to_backend);
  check_names(checks, p, "to_client", forward.to_client);
  if (!forward.name_header.empty()) check_names(checks, p, "name_header", {forward.name_header});
  if (!forward.roles_header.empty()) check_names(checks, p, "roles_header", {forward.roles_header});
  check_statuses(checks, p, forward);
  check_cache_by(checks, p, forward);
  if (authenticate.api_keys.enabled || authenticate.basic.enabled || authenticate.jwt.enabled ||
      authenticate.signatures.enabled || authenticate.certificates.enabled) {
    checks.refuse({"policies", p, "authenticate", "forward"},
                  {"conflicting_keys",
                   "the service decides alone: other credentials would not be looked at",
                   {},
                   "a policy of its own; a route that names both asks for both"});
  }
}

std::optional<ForwardCacheBy> parse_forward_cache_by(std::string_view word) {
  using What = ForwardCacheBy::What;
  constexpr std::pair<std::string_view, What> kPlain[] = {{"method", What::method},
                                                          {"host", What::host},
                                                          {"path", What::path},
                                                          {"query", What::query},
                                                          {"client", What::client}};
  for (const auto& [name, what] : kPlain) {
    if (word == name) return ForwardCacheBy{what, {}};
  }
  const size_t colon = word.find(':');
  if (colon == std::string_view::npos || !http1::is_token(word.substr(colon + 1))) return std::nullopt;
  if (word.substr(0, colon) == "cookie") return ForwardCacheBy{What::cookie, std::string(word.substr(colon + 1))};
  if (word.substr(0, colon) != "header") return std::nullopt;
  return ForwardCacheBy{What::header, lower_case(word.substr(colon + 1))};
}

}  // namespace tidegate
