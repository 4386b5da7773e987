// SPDX-License-Identifier: Apache-2.0
#include "conf/policy/respond.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "conf/field_builders.h"
#include "conf/model.h"
#include "conf/names.h"
#include "conf/policy/kind.h"
#include "conf/text.h"
#include "core/http1.h"

namespace tidegate {
namespace {

using namespace fields;

const Section& security_section() {
  static const Section section{
      "security section",
      {
          enabled<SecurityFields>(),
          duration("hsts", &SecurityFields::hsts_s, {0, 3'650 * kDay},
                   "Browsers use TLS alone for so long (RFC 6797). Sent over TLS only. 0: not sent.", kSecond),
          boolean("hsts_subdomains", &SecurityFields::hsts_subdomains, "For every name below the host too."),
          boolean("hsts_preload", &SecurityFields::hsts_preload,
                  "The host may be put on the browsers' own list; that is hard to undo."),
          text("content_security_policy", &SecurityFields::content_security_policy, "As it is sent.", 4'096),
          text("permissions_policy", &SecurityFields::permissions_policy, "As it is sent.", 4'096),
          word("referrer_policy", &SecurityFields::referrer_policy,
               {"no-referrer", "no-referrer-when-downgrade", "origin", "origin-when-cross-origin", "same-origin",
                "strict-origin", "strict-origin-when-cross-origin", "unsafe-url"},
               "What browsers tell other sites of where they come from."),
          word("frame_options", &SecurityFields::frame_options, {"DENY", "SAMEORIGIN"},
               "Whether other pages may show this one in a frame."),
          boolean("nosniff", &SecurityFields::nosniff, "Browsers believe Content-Type (`X-Content-Type-Options`)."),
      }};
  return section;
}

const Section& cors_section() {
  static const Section section{
      "cors section",
      {
          enabled<CorsRules>(),
          required(text("origins", &CorsRules::origins,
                        "Sites whose pages may read answers: `https://app.example.com`, `https://*.example.com` for "
                        "every name below, `*` for all, `null` for pages without an origin.",
                        512)),
          row("methods", FieldType::method, &CorsRules::methods,
              "That a preflight allows. Without it, those that the routes of the path take."),
          text("headers", &CorsRules::headers,
               "Fields of requests that a preflight allows; `*` for all. Simple ones are always allowed.", 128),
          text("expose", &CorsRules::expose, "Fields of answers that pages may read besides the simple ones.", 128),
          boolean("credentials", &CorsRules::credentials,
                  "Pages may send cookies and credentials. Then `origins` cannot be `*`."),
          duration("max_age", &CorsRules::max_age_s, {0, 1 * kDay}, "How long a browser keeps a preflight's answer.",
                   kSecond),
      }};
  return section;
}

const Section& error_page_section() {
  static const Section section{
      "error page",
      {
          required(integer("statuses", &ErrorPage::statuses, {400, 599}, "Of the answers that have this page.")),
          required(bounded("body", FieldType::lines, &ErrorPage::body, {1, 64 * kKB},
                           "Replaced are `{status}` and `{request_id}`. `${file:PATH}` takes it from a file.")),
          text("content_type", &ErrorPage::content_type, "Of the body.", 128),
      }};
  return section;
}

const Section& maintenance_section() {
  static const Section section{
      "maintenance section",
      {
          enabled<Maintenance>(),
          duration("retry_after", &Maintenance::retry_after_s, {1 * kSecond, 30 * kDay},
                   "When clients should come again.", kSecond),
          bounded("body", FieldType::lines, &Maintenance::body, {0, 64 * kKB}, "Of the answer. Without it a sentence."),
          text("content_type", &Maintenance::content_type, "Of the body.", 128),
          row("except", FieldType::cidr, &Maintenance::except, "Clients that are served as always."),
      }};
  return section;
}

const Section& mock_section() {
  static const Section section{
      "mock section",
      {
          enabled<MockAnswer>(),
          integer("status", &MockAnswer::status, {200, 599}, "Of the answer."),
          bounded("body", FieldType::lines, &MockAnswer::body, {0, 64 * kKB}, "Of the answer."),
          text("content_type", &MockAnswer::content_type, "Of the body.", 128),
          row("headers", FieldType::text_map, &MockAnswer::headers, "Further fields of the answer."),
      }};
  return section;
}

const Section& respond_section() {
  static const Section section{
      "respond section",
      {
          nested("security", &RespondPolicy::security, security_section(),
                 "Fields that tell browsers to be careful. One that the answer has already is left as it is."),
          nested("cors", &RespondPolicy::cors, cors_section(),
                 "Which other sites' pages may use this one (Fetch standard). Preflights are answered here. The "
                 "backend's own fields of CORS are replaced."),
          nested("error_pages", &RespondPolicy::error_pages, error_page_section(),
                 "Instead of the proxy's own sentences; what a backend or a route answers is left as it is."),
          nested("maintenance", &RespondPolicy::maintenance, maintenance_section(),
                 "Every request gets 503, also before anybody is asked who they are."),
          nested("mock", &RespondPolicy::mock, mock_section(), "The answer to every request, instead of a backend's."),
      }};
  return section;
}

// scheme "://" host [":" port], and nothing after it.
bool is_origin(std::string_view text) {
  const size_t mark = text.find("://");
  if (mark == 0 || mark == std::string_view::npos || mark + 3 == text.size()) return false;
  return text.find_first_of("/?#@ \"\\,;", mark + 3) == std::string_view::npos;
}

bool is_field_value(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c == '\t' || (c >= ' ' && c < '\x7f'); });
}

void check_origins(Checks& checks, size_t p, const CorsRules& cors) {
  for (size_t i = 0; i < cors.origins.size(); ++i) {
    const std::optional<OriginPattern> pattern = parse_origin_pattern(cors.origins[i]);
    if (!pattern) {
      checks.refuse({"policies", p, "respond", "cors", "origins", i},
                    {"bad_value", fmt::format("{} is no origin", in_quotes(cors.origins[i])),
                     "https://app.example.com, https://*.example.com, * or null",
                     cors.origins[i].find("://") == std::string::npos ? "an origin begins with its scheme"
                                                                      : "an origin has no path"});
    } else if (pattern->kind == OriginPattern::Kind::any && cors.credentials) {
      checks.refuse({"policies", p, "respond", "cors", "origins", i},
                    {"bad_value", "credentials for every site of the world", "the origins that may use them",
                     "any page could act in the name of its visitor"});
    }
  }
}

void check_pages(Checks& checks, size_t p, const RespondPolicy& respond) {
  std::set<uint16_t> seen;
  for (size_t e = 0; e < respond.error_pages.size(); ++e) {
    for (size_t s = 0; s < respond.error_pages[e].statuses.size(); ++s) {
      if (seen.insert(respond.error_pages[e].statuses[s]).second) continue;
      checks.refuse(
          {"policies", p, "respond", "error_pages", e, "statuses", s},
          {"duplicate_name", fmt::format("status {} has two pages", respond.error_pages[e].statuses[s]), {}, {}});
    }
  }
}

// Fields that a mock answer may set: those of its content.
void check_mock(Checks& checks, size_t p, const MockAnswer& mock) {
  constexpr std::string_view kFraming[] = {"connection",        "content-length", "keep-alive",   "trailer",
                                           "transfer-encoding", "upgrade",        "content-type", "host"};
  if (!mock.body.empty() && (mock.status == 204 || mock.status == 205 || mock.status == 304)) {
    checks.refuse({"policies", p, "respond", "mock", "body"},
                  {"without_effect",
                   fmt::format("an answer with status {} has no body", mock.status),
                   {},
                   "remove it, or write another status"});
  }
  for (const auto& header : mock.headers) {
    const std::string& name = header.first;
    const bool framing = std::any_of(std::begin(kFraming), std::end(kFraming),
                                     [read = field_name_as_read(name)](std::string_view each) { return read == each; });
    if (!framing) continue;
    checks.refuse({"policies", p, "respond", "mock", "headers", std::string_view(name)},
                  {"bad_value", fmt::format("{} cannot be set here", in_quotes(name)), "a field of the content",
                   http1::equals_ignore_case(name, "content-type") ? "content_type sets it"
                                                                   : "the proxy frames each message itself"});
  }
}

void check_respond(Checks& checks, size_t p) {
  const RespondPolicy& respond = *checks.model().policies[p].part<RespondPolicy>("respond");
  check_origins(checks, p, respond.cors);
  check_pages(checks, p, respond);
  check_mock(checks, p, respond.mock);
  const SecurityFields& security = respond.security;
  for (const auto& [key, value] :
       {std::pair<const char*, const std::string&>("content_security_policy", security.content_security_policy),
        {"permissions_policy", security.permissions_policy}}) {
    if (is_field_value(value)) continue;
    checks.refuse({"policies", p, "respond", "security", key},
                  {"bad_value", fmt::format("{} has a byte that a field cannot have", key), "visible ASCII", {}});
  }
  if (!checks.written({"policies", p, "respond", "security"}) && !checks.written({"policies", p, "respond", "cors"}) &&
      !checks.written({"policies", p, "respond", "error_pages"}) &&
      !checks.written({"policies", p, "respond", "maintenance"}) &&
      !checks.written({"policies", p, "respond", "mock"})) {
    checks.refuse(
        {"policies", p, "respond"},
        {"missing_key", "a respond section that says nothing", "security, cors, error_pages, maintenance or mock", {}});
  }
}

}  // namespace

std::optional<OriginPattern> parse_origin_pattern(std::string_view word) {
  if (word == "*") return OriginPattern{OriginPattern::Kind::any, {}, {}};
  if (word == "null") return OriginPattern{OriginPattern::Kind::exact, {}, "null"};
  if (!is_origin(word)) return std::nullopt;
  std::string lower(word);
  for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
  const size_t host = lower.find("://") + 3;
  if (lower.compare(host, 2, "*.") != 0) {
    if (lower.find('*') != std::string::npos) return std::nullopt;
    return OriginPattern{OriginPattern::Kind::exact, {}, std::move(lower)};
  }
  if (lower.find('*', host + 1) != std::string::npos || lower.size() == host + 2) return std::nullopt;
  return OriginPattern{OriginPattern::Kind::subdomains, lower.substr(0, host), lower.substr(host + 1)};
}

// Browsers write origins in lower case (RFC 6454 §6.2).
bool OriginPattern::matches(std::string_view origin) const {
  if (kind == Kind::any) return true;
  if (kind == Kind::exact) return origin == rest;
  if (origin.size() <= scheme.size() + rest.size() || !origin.starts_with(scheme) || !origin.ends_with(rest)) {
    return false;
  }
  const std::string_view below = origin.substr(scheme.size(), origin.size() - scheme.size() - rest.size());
  return std::all_of(below.begin(), below.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
  });
}

PolicyKind respond_policy_kind() {
  return policy_kind<RespondPolicy>("respond", "What the proxy itself says to clients.", respond_section(),
                                    check_respond);
}

}  // namespace tidegate
