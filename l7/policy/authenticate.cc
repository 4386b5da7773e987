// SPDX-License-Identifier: Apache-2.0
// The authenticate policy (conf/policy/authenticate.h). On the request: who the client is, by the first of signature,
// API key, Basic, token and TLS certificate that it shows; the name and roles stand in PolicyUse::identity. On the
// answer: WWW-Authenticate where it refused. Everything is decided here and at once; only `forward` asks somebody
// (l7/policy/forward.cc). A policy that holds twice (two policies with this part in one chain) must be satisfied twice;
// the last name counts. A request without a client (a revalidation, a mirror's copy) shows nobody: the one that it
// repeats has passed, and `check` refuses changes of it on routes with a cache. Runtime: the passwords that were right,
// and the tokens whose signatures were good, lately. It survives versions.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "conf/model/policy.h"
#include "core/clock.h"
#include "l7/exchange/exchange.h"
#include "l7/exchange/forwarding.h"
#include "l7/exchange/sticky.h"
#include "l7/limits.h"
#include "l7/plan/certificate_names.h"
#include "l7/policy/credentials.h"
#include "l7/policy/forward.h"
#include "l7/policy/jwt.h"
#include "l7/policy/kinds.h"
#include "l7/policy/names.h"
#include "l7/policy/signatures.h"

namespace tidegate::l7::policy {
namespace {

class AuthenticateRule final : public Rule {
 public:
  AuthenticateRule(const AuthenticatePolicy& rules, std::shared_ptr<KeySource> source, Compiling& out)
      : Rule(Stage::authenticate, out.policy, "authenticate", out.registry),
        rules_(rules),
        key_header_(lower_case(rules.api_keys.header)),
        identity_header_(lower_case(rules.identity_header)),
        keys_(out.content.authenticate->keys),
        certificates_(out.content.authenticate->certificates),
        source_(source),
        good_tokens_(rules.jwt.enabled ? out.registry.get<GoodTokens>(fmt::format("{}/authenticate/tokens", out.policy))
                                       : nullptr),
        tokens_(rules.jwt, out.content.authenticate->token_keys, std::move(source), good_tokens_) {
    if (rules.basic.enabled) users_.emplace(out.content.authenticate->users, out);
    if (rules.signatures.enabled) signatures_.emplace(rules.signatures, out.content.authenticate->signers, out);
    const std::string realm = fmt::format("realm=\"{}\"", quoted(rules.realm));
    if (rules.basic.enabled) ask_basic_ = fmt::format("Basic {}, charset=\"UTF-8\"", realm);
    if (rules.jwt.enabled) {
      ask_bearer_ = fmt::format("Bearer {}", realm);
      ask_again_bearer_ = fmt::format("Bearer {}, error=\"invalid_token\"", realm);
    }
    // RFC 9110 §11.6.1 wants a challenge; no scheme is registered for keys in fields.
    if (ask_basic_.empty() && ask_bearer_.empty()) {
      const char* const scheme = rules.api_keys.enabled ? "ApiKey" : rules.signatures.enabled ? "Signature" : "Mutual";
      ask_key_ = fmt::format("{} {}", scheme, realm);
    }
  }

  RuleDecision on_request(Exchange& exchange, Arena& arena, Note& note, uint64_t now_ns) const override {
    remove_imitations(exchange.request.fields, identity_header_);
    if (rules_.certificates.client_cert) {  // RFC 9440 §4: only this proxy may write these fields
      remove_imitations(exchange.request.fields, "client-cert");
      remove_imitations(exchange.request.fields, "client-cert-chain");
    }
    Shown shown;
    const RuleDecision decision = judge(exchange, arena, now_ns, shown);
    if (decision.verdict == RuleVerdict::refused) {
      note.values[0] = shown.by_token ? 1 : 0;
      return decision;
    }
    if (shown.name.empty()) return decision;
    exchange.policies.identity = {shown.name, shown.roles, shown.role_count, shown.claims};
    if (!rules_.keep_credentials) remove_credentials(exchange.request.fields, shown, arena);
    if (!identity_header_.empty()) {
      exchange.request.fields.add({identity_header_, shown.name, FieldKind::other, false, rules_.identity_header});
    }
    if (shown.by_certificate && rules_.certificates.client_cert) {
      const std::string_view encoded = arena.copy(exchange.facts.certificate->encoded);
      exchange.request.fields.add({"client-cert", encoded, FieldKind::other, false, "Client-Cert"});
    }
    return decision;
  }

  void on_answer(Exchange& exchange, Arena&, const Note& note) const override {
    if (note.verdict != RuleVerdict::refused || exchange.outcome.failure != Failure::unauthenticated) return;
    FieldList& fields = exchange.response.fields;
    for (const std::string* ask : {&ask_basic_, note.values[0] != 0 ? &ask_again_bearer_ : &ask_bearer_, &ask_key_}) {
      if (!ask->empty()) fields.add_own("WWW-Authenticate", "www-authenticate", *ask, FieldKind::other);
    }
  }

  void add_samples(std::vector<Sample>& out) const override {
    if (source_ != nullptr) source_->add_samples(monotonic_ns(), out);
    if (good_tokens_ == nullptr) return;
    out.push_back({"tidegate_l7_token_signatures_total", "counter",
                   "Signatures of tokens, and whether one was computed", good_tokens_->checked.value(), "how",
                   "checked"});
    out.push_back({"tidegate_l7_token_signatures_total", "counter",
                   "Signatures of tokens, and whether one was computed", good_tokens_->remembered.value(), "how",
                   "remembered"});
  }

  void explain(const Subject&, uint64_t now_ns, nlohmann::json& out) const override {
    out["takes"] = nlohmann::json::array();
    if (rules_.api_keys.enabled) out["takes"].push_back("api_keys");
    if (rules_.basic.enabled) out["takes"].push_back("basic");
    if (rules_.jwt.enabled) out["takes"].push_back("jwt");
    if (rules_.signatures.enabled) out["takes"].push_back("signatures");
    if (rules_.certificates.enabled) {
      out["takes"].push_back("certificates");
      out["certificate_name"] = rules_.certificates.name_from;
      out["certificate_clients"] = nlohmann::json::array();
      for (const CertificateClient& client : rules_.certificates.clients) {
        out["certificate_clients"].push_back({{"name", client.name}, {"roles", client.roles}});
      }
    }
    if (source_ != nullptr) source_->explain(now_ns, out["keys"]);
    out["without_credentials"] = name(rules_.optional ? RuleVerdict::passed : RuleVerdict::refused);
  }

  // The backend does not get a key in the query. The client's own request keeps it, because the log and the rules of
  // the answer use that request.
  bool forwards() const override { return !rules_.keep_credentials && !rules_.api_keys.query.empty(); }
  RuleDecision on_forward(Exchange& exchange, Arena& arena) const override {
    const RequestHead& from = exchange.outgoing == nullptr ? exchange.request : *exchange.outgoing;
    const std::string& key = rules_.api_keys.query;
    if (exchange.policies.identity.name.empty() || !has_parameter(from.query, key)) return {RuleVerdict::none};
    auto* const head = new (arena.allocate_aligned(sizeof(RequestHead))) RequestHead(from);
    head->query = query_without(from.query, key, arena);
    head->has_query = !head->query.empty();
    exchange.outgoing = head;
    return {RuleVerdict::none};
  }

 private:
  struct Shown {
    std::string_view name;
    const std::string_view* roles = nullptr;
    size_t role_count = 0;
    std::string_view claims = {};
    bool by_key = false, by_token = false, by_signature = false, by_certificate = false;
  };

  static std::string quoted(std::string_view text) {
    std::string out;
    for (const char c : text) {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
    return out;
  }
  static RuleDecision refuse(const char* detail, Failure failure = Failure::unauthenticated) {
    return {.verdict = RuleVerdict::refused, .failure = failure, .detail = detail};
  }
  static RuleDecision take(const Known& known, Shown& shown) {
    shown.name = known.name;
    shown.roles = known.role_views.data();
    shown.role_count = known.role_views.size();
    return {};
  }

  // Every credential that this policy reads, whichever has shown who the client is. A certificate is not in the
  // request.
  void remove_credentials(FieldList& fields, const Shown& shown, Arena& arena) const {
    if (shown.by_signature) {
      fields.remove_named("signature");
      fields.remove_named("signature-input");
    }
    if (rules_.api_keys.enabled) fields.remove_named(key_header_);
    if (users_ || rules_.jwt.enabled) fields.remove_named("authorization");
    if (rules_.jwt.enabled && !rules_.jwt.cookie.empty()) remove_cookie(fields, rules_.jwt.cookie, arena);
  }

  RuleDecision judge(const Exchange& exchange, Arena& arena, uint64_t now_ns, Shown& shown) const {
    const RequestHead& request = exchange.request;
    if (signatures_ && SignatureVerifier::is_signed(request)) {
      shown.by_signature = true;
      const Known* known = nullptr;
      const SignatureFault fault =
          signatures_->verify(request, client_scheme(request, exchange.facts), realtime_ns() / kNsPerS, arena, known);
      if (fault == SignatureFault::memory_full) return refuse(policy::name(fault), Failure::auth_unavailable);
      return fault == SignatureFault::none ? take(*known, shown) : refuse(policy::name(fault));
    }
    if (shows_two(request)) return refuse("credentials_differ");
    if (const std::optional<std::string_view> key = key_of(request, arena)) {
      shown.by_key = true;
      const Known* const known = find_by_key(*keys_, *key);
      return known == nullptr ? refuse("key_unknown") : take(*known, shown);
    }
    if (users_) {
      if (const std::optional<std::string_view> basic = authorization_of(request, "Basic")) {
        const std::optional<NamePassword> read = read_basic(*basic, arena);
        if (!read) return refuse("basic_malformed");
        const Known* known = nullptr;
        switch (users_->check(*read, now_ns, arena, known)) {
          case PasswordCheck::wrong:
            return refuse("password_wrong");
          case PasswordCheck::busy:
            return refuse("", Failure::passwords_busy);
          case PasswordCheck::right:
            return take(*known, shown);
        }
      }
    }
    if (const std::optional<std::string_view> token = token_of(request)) {
      shown.by_token = true;
      TokenClaims claims;
      const TokenFault fault = tokens_.verify(*token, realtime_ns() / kNsPerS, arena, claims);
      if (fault == TokenFault::no_keys) return refuse(policy::name(fault), Failure::auth_unavailable);
      if (fault != TokenFault::none) return refuse(policy::name(fault));
      shown.name = claims.name;
      shown.roles = claims.roles;
      shown.role_count = claims.role_count;
      shown.claims = claims.json;
      return {};
    }
    if (certificates_ && exchange.facts.certificate != nullptr) {
      return judge_certificate(*exchange.facts.certificate, arena, shown);
    }
    return rules_.optional ? RuleDecision{} : refuse("no_credentials");
  }

  RuleDecision judge_certificate(const PeerCertificate& certificate, Arena& arena, Shown& shown) const {
    const CertificateNames::Found found = certificates_->find(certificate);
    if (found.outcome == CertificateNames::Outcome::nameless) return refuse("certificate_nameless");
    if (found.outcome == CertificateNames::Outcome::unknown) return refuse("certificate_unknown");
    if (rules_.certificates.client_cert && certificate.encoded.size() > kClientCertFieldBytes) {
      return refuse("certificate_too_long");
    }
    shown.by_certificate = true;
    if (found.known != nullptr) take(*found.known, shown);
    shown.name = arena.copy(found.name);  // the connection may end before the request does
    return {};
  }

  // Of those that this policy reads; a signature has a check of its own.
  bool shows_two(const RequestHead& request) const {
    const bool keys = rules_.api_keys.enabled, tokens = rules_.jwt.enabled;
    return (keys && fields_differ(request, key_header_)) ||
           (keys && !rules_.api_keys.query.empty() && parameters_differ(request.query, rules_.api_keys.query)) ||
           ((users_ || tokens) && fields_differ(request, "authorization")) ||
           (tokens && !rules_.jwt.cookie.empty() && cookies_differ(request, rules_.jwt.cookie));
  }

  std::optional<std::string_view> key_of(const RequestHead& request, Arena& arena) const {
    if (!rules_.api_keys.enabled) return std::nullopt;
    if (const Field* field = request.fields.find(key_header_)) return field->value;
    if (rules_.api_keys.query.empty()) return std::nullopt;
    return parameter_of(request.query, rules_.api_keys.query, arena);
  }
  std::optional<std::string_view> token_of(const RequestHead& request) const {
    if (!rules_.jwt.enabled) return std::nullopt;
    if (const std::optional<std::string_view> bearer = authorization_of(request, "Bearer")) return bearer;
    if (rules_.jwt.cookie.empty()) return std::nullopt;
    for (const Field& field : request.fields) {
      if (field.kind != FieldKind::cookie) continue;
      if (const std::string_view value = cookie_of(field.value, rules_.jwt.cookie); !value.empty()) return value;
    }
    return std::nullopt;
  }

  const AuthenticatePolicy rules_;
  const std::string key_header_, identity_header_;
  const std::shared_ptr<const KnownClients> keys_;              // null: none are taken
  const std::shared_ptr<const CertificateNames> certificates_;  // null: none are taken
  std::optional<Users> users_;
  std::optional<SignatureVerifier> signatures_;
  const std::shared_ptr<KeySource> source_;        // null: all keys are in the document
  const std::shared_ptr<GoodTokens> good_tokens_;  // null: there are no tokens
  const TokenVerifier tokens_;
  std::string ask_basic_, ask_bearer_, ask_again_bearer_, ask_key_;
};

}  // namespace

void compile_authenticate(const Policy& policy, Compiling& out) {
  const auto& rules = *policy.part<AuthenticatePolicy>("authenticate");
  if (rules.forward.enabled) {
    out.rules.push_back(make_forward_rule(rules, out));
    return;
  }
  std::shared_ptr<KeySource> source;
  if (rules.jwt.enabled && !rules.jwt.keys_url.empty()) {
    const std::string ca = rules.jwt.keys_ca.bytes ? *rules.jwt.keys_ca.bytes : std::string();
    source = out.registry.get<KeySource>(fmt::format("jwks/{}/{}", rules.jwt.keys_ca.hash, rules.jwt.keys_url),
                                         KeySource::Terms{rules.jwt.keys_url, ca});
    if (out.key_sources != nullptr) out.key_sources->push_back({source, rules.jwt.keys_refresh_ms});
  }
  out.rules.push_back(std::make_unique<AuthenticateRule>(rules, std::move(source), out));
}

}  // namespace tidegate::l7::policy
