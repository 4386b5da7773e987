// SPDX-License-Identifier: Apache-2.0
// The respond policy (conf/policy/respond.h). Five rules, each a kind of its own in counters and logs:
//   cors         answers preflights (before anybody is asked who they are: browsers send no credentials with them);
//                on the answer it replaces the backend's fields of CORS, and adds Vary
//   maintenance  503 for every client that is not excepted
//   mock         an answer instead of the backend's, after everything that may refuse
//   security     on the answer: fields that are not there yet
//   error_pages  on the answer: a page in place of the proxy's own sentence
// Runtime: none but the counters of verdicts.
// A request without a client (a revalidation, a mirror's copy) has no answer, so none of them meets it.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "conf/model/policy.h"
#include "conf/policy/respond.h"
#include "l7/exchange/exchange.h"
#include "l7/exchange/forwarding.h"
#include "l7/policy/kinds.h"
#include "l7/policy/names.h"
#include "l7/policy/preflight.h"
#include "l7/wire/arena.h"

namespace tidegate::l7::policy {
namespace {

// --- CORS (Fetch standard §3.2)

class CorsRule final : public Rule {
 public:
  CorsRule(const CorsRules& cors, Compiling& out)
      : Rule(Stage::preflight, out.policy, "cors", out.registry),
        cors_(cors),
        origins_(out.content.cors_origins),
        methods_(fmt::format("{}", fmt::join(cors.methods, ", "))),
        expose_(fmt::format("{}", fmt::join(cors.expose, ", "))),
        max_age_(std::to_string(cors.max_age_s)) {
    for (const std::string& header : cors.headers) headers_.push_back(lower_case(header));
    headers_text_ = fmt::format("{}", fmt::join(cors.headers, ", "));
    any_header_ = std::find(headers_.begin(), headers_.end(), "*") != headers_.end();
    any_origin_ = std::any_of(origins_.begin(), origins_.end(),
                              [](const OriginPattern& each) { return each.kind == OriginPattern::Kind::any; });
  }

  bool answers_preflights() const override { return true; }

  RuleDecision on_request(Exchange& exchange, Arena& arena, Note&, uint64_t) const override {
    static_cast<void>(arena);
    const RuleVerdict verdict = verdict_on(exchange.request);
    if (verdict == RuleVerdict::none) return {RuleVerdict::none};
    if (verdict == RuleVerdict::refused) return {RuleVerdict::refused, Failure::cors_refused};
    const RequestHead& request = exchange.request;
    const std::string_view method = request.fields.find(kRequestMethod)->value;
    const Field* const headers = request.fields.find(kRequestHeaders);
    FieldList& fields = exchange.response.fields;
    // The method that was asked for is allowed: the route matches it, otherwise there would be another route.
    fields.add_own("Access-Control-Allow-Methods", "access-control-allow-methods",
                   cors_.methods.empty() ? method : std::string_view(methods_), FieldKind::other);
    if (any_header_ && headers != nullptr) {
      fields.add_own("Access-Control-Allow-Headers", "access-control-allow-headers", headers->value, FieldKind::other);
    } else if (!any_header_ && !headers_text_.empty()) {
      fields.add_own("Access-Control-Allow-Headers", "access-control-allow-headers", headers_text_, FieldKind::other);
    }
    fields.add_own("Access-Control-Max-Age", "access-control-max-age", max_age_, FieldKind::other);
    return {.verdict = RuleVerdict::answered, .status = 204};
  }

  void on_answer(Exchange& exchange, Arena&, const Note& note) const override {
    FieldList& fields = exchange.response.fields;
    const Field* const origin = exchange.request.fields.find(kOrigin);
    const auto is_cors = [](const Field& field) { return field.name.starts_with("access-control-"); };
    const bool has_own = note.verdict == RuleVerdict::answered;  // a preflight's answer has none of a backend
    if (!has_own && std::any_of(fields.begin(), fields.end(), is_cors)) {
      for (const std::string_view name : kOfBackend) fields.remove_named(name);
    }
    if (!any_origin_ || note.verdict != RuleVerdict::none) {
      fields.add_own("Vary", "vary",
                     note.verdict == RuleVerdict::none
                         ? std::string_view("Origin")
                         : std::string_view("Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
                     FieldKind::other);
    }
    if (origin == nullptr || !allows_origin(origin->value)) return;
    fields.add_own("Access-Control-Allow-Origin", "access-control-allow-origin",
                   any_origin_ ? std::string_view("*") : origin->value, FieldKind::other);
    if (cors_.credentials) {
      fields.add_own("Access-Control-Allow-Credentials", "access-control-allow-credentials", "true", FieldKind::other);
    }
    if (note.verdict == RuleVerdict::none && !expose_.empty()) {
      fields.add_own("Access-Control-Expose-Headers", "access-control-expose-headers", expose_, FieldKind::other);
    }
  }

  void explain(const Subject& subject, uint64_t, nlohmann::json& out) const override {
    out["verdict"] = name(verdict_on(subject.request));
    out["origins"] = cors_.origins;
    out["methods"] = cors_.methods;
    out["credentials"] = cors_.credentials;
  }

 private:
  static constexpr std::string_view kOfBackend[] = {"access-control-allow-origin",   "access-control-allow-credentials",
                                                    "access-control-expose-headers", "access-control-allow-methods",
                                                    "access-control-allow-headers",  "access-control-max-age"};
  // RuleVerdict::none if it is not a preflight.
  RuleVerdict verdict_on(const RequestHead& request) const {
    if (!is_preflight(request)) return RuleVerdict::none;
    const Field* const headers = request.fields.find(kRequestHeaders);
    const bool allowed = allows_origin(request.fields.find(kOrigin)->value) &&
                         takes(request.fields.find(kRequestMethod)->value) &&
                         (headers == nullptr || allows_headers(headers->value));
    return allowed ? RuleVerdict::answered : RuleVerdict::refused;
  }
  bool allows_origin(std::string_view origin) const {
    return std::any_of(origins_.begin(), origins_.end(),
                       [&](const OriginPattern& pattern) { return pattern.matches(origin); });
  }
  // Methods are case-sensitive. The simple ones need no permission (Fetch §2.2.1).
  bool takes(std::string_view method) const {
    return cors_.methods.empty() || method == "GET" || method == "HEAD" || method == "POST" ||
           std::find(cors_.methods.begin(), cors_.methods.end(), method) != cors_.methods.end();
  }
  bool allows_headers(std::string_view list) const {
    if (any_header_) return true;
    while (!list.empty()) {
      const size_t end = list.find(',');
      std::string_view name = list.substr(0, end);
      list = end == std::string_view::npos ? std::string_view() : list.substr(end + 1);
      while (!name.empty() && name.front() == ' ') name.remove_prefix(1);
      while (!name.empty() && name.back() == ' ') name.remove_suffix(1);
      if (name.empty()) continue;
      const bool known = std::any_of(headers_.begin(), headers_.end(), [&](const std::string& allowed) {
        return http1::equals_ignore_case(allowed, name);
      });
      if (!known && !is_simple(name)) return false;
    }
    return true;
  }
  // Fetch §2.2.2: browsers name them only if their values are not simple.
  static bool is_simple(std::string_view name) {
    constexpr std::string_view kSimple[] = {"accept", "accept-language", "content-language"};
    return std::any_of(std::begin(kSimple), std::end(kSimple),
                       [&](std::string_view each) { return http1::equals_ignore_case(each, name); });
  }

  const CorsRules cors_;
  const std::vector<OriginPattern> origins_;
  const std::string methods_, expose_, max_age_;
  std::vector<std::string> headers_;  // lower case
  std::string headers_text_;
  bool any_header_ = false, any_origin_ = false;
};

// --- maintenance

class MaintenanceRule final : public Rule {
 public:
  MaintenanceRule(const Maintenance& maintenance, Compiling& out)
      : Rule(Stage::maintenance, out.policy, "maintenance", out.registry),
        maintenance_(maintenance),
        retry_after_(std::to_string(maintenance.retry_after_s)) {}

  RuleDecision on_request(Exchange& exchange, Arena&, Note&, uint64_t) const override {
    if (is_excepted(exchange.client_address)) return {RuleVerdict::exempt};
    return {.verdict = RuleVerdict::refused,
            .failure = Failure::maintenance,
            .body = maintenance_.body,
            .content_type = maintenance_.content_type};
  }
  void on_answer(Exchange& exchange, Arena&, const Note& note) const override {
    if (note.verdict != RuleVerdict::refused) return;
    exchange.response.fields.add_own("Retry-After", "retry-after", retry_after_, FieldKind::other);
  }
  void explain(const Subject& subject, uint64_t, nlohmann::json& out) const override {
    out["verdict"] = name(is_excepted(subject.client) ? RuleVerdict::exempt : RuleVerdict::refused);
  }

 private:
  bool is_excepted(std::string_view client) const {
    if (maintenance_.except.empty()) return false;
    const std::optional<IpAddress> address = IpAddress::parse(client);
    return address && std::any_of(maintenance_.except.begin(), maintenance_.except.end(),
                                  [&](const Cidr& network) { return network.contains(*address); });
  }
  const Maintenance maintenance_;
  const std::string retry_after_;
};

// --- mock

class MockRule final : public Rule {
 public:
  MockRule(const MockAnswer& mock, Compiling& out) : Rule(Stage::mock, out.policy, "mock", out.registry), mock_(mock) {
    for (const auto& [name, value] : mock.headers) lower_names_.push_back(lower_case(name));
  }
  RuleDecision on_request(Exchange& exchange, Arena&, Note&, uint64_t) const override {
    for (size_t i = 0; i < mock_.headers.size(); ++i) {
      exchange.response.fields.add(
          {lower_names_[i], mock_.headers[i].second, classify_field(lower_names_[i]), false, mock_.headers[i].first});
    }
    return {.verdict = RuleVerdict::answered,
            .status = mock_.status,
            .body = mock_.body,
            .content_type = mock_.content_type};
  }
  void on_answer(Exchange&, Arena&, const Note&) const override {}
  void explain(const Subject&, uint64_t, nlohmann::json& out) const override {
    out["verdict"] = name(RuleVerdict::answered);
    out["status"] = mock_.status;
  }

 private:
  const MockAnswer mock_;
  std::vector<std::string> lower_names_;
};

// --- fields of security

class SecurityRule final : public Rule {
 public:
  SecurityRule(const SecurityFields& security, Compiling& out)
      : Rule(Stage::answer, out.policy, "security", out.registry) {
    if (security.hsts_s != 0) {
      hsts_ = fmt::format("max-age={}{}{}", security.hsts_s, security.hsts_subdomains ? "; includeSubDomains" : "",
                          security.hsts_preload ? "; preload" : "");
    }
    add("Content-Security-Policy", security.content_security_policy);
    add("Permissions-Policy", security.permissions_policy);
    add("Referrer-Policy", security.referrer_policy);
    add("X-Frame-Options", security.frame_options);
    add("X-Content-Type-Options", security.nosniff ? "nosniff" : "");
  }
  RuleDecision on_request(Exchange&, Arena&, Note&, uint64_t) const override { return {RuleVerdict::none}; }
  void on_answer(Exchange& exchange, Arena&, const Note&) const override {
    FieldList& fields = exchange.response.fields;
    for (const Added& added : added_) {
      if (fields.find(added.lower_name) == nullptr) {
        fields.add_own(added.name, added.lower_name, added.value, FieldKind::other);
      }
    }
    // RFC 6797 §7.2: never in plain text.
    if (hsts_.empty() || client_scheme(exchange.request, exchange.facts) != "https") return;
    if (fields.find("strict-transport-security") != nullptr) return;
    fields.add_own("Strict-Transport-Security", "strict-transport-security", hsts_, FieldKind::other);
  }
  void explain(const Subject&, uint64_t, nlohmann::json& out) const override {
    for (const Added& added : added_) out["adds"].push_back(added.name);
    if (!hsts_.empty()) out["adds"].push_back("Strict-Transport-Security");
  }

 private:
  struct Added {
    std::string_view name;
    std::string lower_name, value;
  };
  void add(std::string_view name, std::string value) {
    if (!value.empty()) added_.push_back({name, lower_case(std::string(name)), std::move(value)});
  }
  std::vector<Added> added_;
  std::string hsts_;
};

// --- error pages

class ErrorPagesRule final : public Rule {
 public:
  ErrorPagesRule(const std::vector<ErrorPage>& pages, Compiling& out)
      : Rule(Stage::answer, out.policy, "error_pages", out.registry), pages_(pages) {}

  RuleDecision on_request(Exchange&, Arena&, Note&, uint64_t) const override { return {RuleVerdict::none}; }
  void on_answer(Exchange& exchange, Arena& arena, const Note&) const override {
    const Failure failure = exchange.outcome.failure;
    if (failure == Failure::none || exchange.answer_body.empty()) return;
    // Only our own sentence is replaced. A bad request may have its own sentence instead of the one in the table.
    if (exchange.answer_body.data() != info(failure).sentence && failure != Failure::bad_request) return;
    const ErrorPage* const page = find(exchange.outcome.status);
    if (page == nullptr) return;
    exchange.answer_body = filled(*page, exchange, arena);
    exchange.response.fields.remove_named("content-type");
    exchange.response.fields.add_own("Content-Type", "content-type", page->content_type, FieldKind::other);
  }
  void explain(const Subject&, uint64_t, nlohmann::json& out) const override {
    for (const ErrorPage& page : pages_) {
      for (const uint16_t status : page.statuses) out["statuses"].push_back(status);
    }
  }

 private:
  const ErrorPage* find(uint16_t status) const {
    for (const ErrorPage& page : pages_) {
      if (std::find(page.statuses.begin(), page.statuses.end(), status) != page.statuses.end()) return &page;
    }
    return nullptr;
  }
  // An id may come from a trusted proxy, and a page is read as HTML. So bytes with a meaning in HTML become '_'.
  static std::string_view plain(std::string_view id, Arena& arena) {
    char* const text = arena.allocate(id.size());
    std::transform(id.begin(), id.end(), text, [](char c) { return std::strchr("<>&\"'`", c) != nullptr ? '_' : c; });
    return {text, id.size()};
  }
  static std::string_view filled(const ErrorPage& page, const Exchange& exchange, Arena& arena) {
    constexpr std::string_view kStatus = "{status}", kId = "{request_id}";
    if (page.body.find(kStatus) == std::string::npos && page.body.find(kId) == std::string::npos) return page.body;
    const fmt::format_int status(exchange.outcome.status);
    const std::string_view id = plain(exchange.request_id, arena);
    std::string text;  // errors are not a hot path, and each text is bounded
    for (std::string_view rest = page.body; !rest.empty();) {
      const size_t mark = std::min({rest.find(kStatus), rest.find(kId), rest.size()});
      text += rest.substr(0, mark);
      rest.remove_prefix(mark);
      if (rest.starts_with(kStatus)) {
        text.append(status.data(), status.size());
        rest.remove_prefix(kStatus.size());
      } else if (rest.starts_with(kId)) {
        text += id;
        rest.remove_prefix(kId.size());
      }
    }
    return arena.copy(text);
  }
  const std::vector<ErrorPage> pages_;
};

}  // namespace

void compile_respond(const Policy& policy, Compiling& out) {
  const RespondPolicy& respond = *policy.part<RespondPolicy>("respond");
  if (respond.cors.enabled) out.rules.push_back(std::make_unique<CorsRule>(respond.cors, out));
  if (respond.maintenance.enabled) out.rules.push_back(std::make_unique<MaintenanceRule>(respond.maintenance, out));
  if (respond.mock.enabled) out.rules.push_back(std::make_unique<MockRule>(respond.mock, out));
  if (respond.security.enabled) out.rules.push_back(std::make_unique<SecurityRule>(respond.security, out));
  if (!respond.error_pages.empty()) out.rules.push_back(std::make_unique<ErrorPagesRule>(respond.error_pages, out));
}

}  // namespace tidegate::l7::policy
