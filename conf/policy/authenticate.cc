// SPDX-License-Identifier: Apache-2.0
#include "conf/policy/authenticate.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>

#include "conf/field_builders.h"
#include "conf/limits.h"
#include "conf/model.h"
#include "conf/model/certificate.h"
#include "conf/model/listener.h"
#include "conf/model/route.h"
#include "conf/names.h"
#include "conf/policy/forward.h"
#include "conf/policy/jwks.h"
#include "conf/policy/kind.h"
#include "conf/policy/signatures.h"
#include "core/http1.h"

namespace tidegate {
namespace {

using namespace fields;

const Section& known_section(std::string_view noun, std::string_view hash_key, std::string_view hash_sentence) {
  static std::map<std::string_view, Section> sections;
  Section& section = sections[noun];
  if (!section.fields.empty()) return section;
  section.noun = noun;
  section.fields = {
      identity(text("name", &KnownClient::name, "Who it is, for logs, limits and backends.", 128)),
      secret(required(text(hash_key, &KnownClient::hash, hash_sentence, 512))),
      row("roles", FieldType::name, &KnownClient::roles, "What `authorise` asks for."),
  };
  return section;
}

const Section& api_keys_section() {
  static const Section section{
      "api_keys section",
      {
          enabled<ApiKeys>(),
          text("header", &ApiKeys::header, "The field of the request that has the key.", 128),
          text("query", &ApiKeys::query,
               "A parameter of the query that has it, where there is no such field. Queries are logged: use it only "
               "for clients that cannot do otherwise.",
               128),
          required(nested("keys", &ApiKeys::keys,
                          known_section("API key", "sha256",
                                        "The key's SHA-256 in hexadecimal: `printf %s KEY | sha256sum`. Keys must be "
                                        "random."),
                          "The keys that are known.")),
      }};
  return section;
}

const Section& basic_section() {
  static const Section section{
      "basic section",
      {
          enabled<BasicUsers>(),
          required(nested("users", &BasicUsers::users,
                          known_section("user", "password",
                                        "A hash of crypt(5): `openssl passwd -6` or `htpasswd -nB`. At most 20000 "
                                        "rounds, or a cost of 7."),
                          "The users that are known.")),
      }};
  return section;
}

const Section& jwt_section() {
  static const Section section{
      "jwt section",
      {
          enabled<JwtRules>(),
          row("keys_file", FieldType::file, &JwtRules::keys,
              "The keys of the issuer: a JWK set (RFC 7517). Beside `keys_url`, those that serve until the first set "
              "was "
              "fetched."),
          text("keys_url", &JwtRules::keys_url,
               "Where the set is fetched from: https, or http on this host's own loopback. A token that names an "
               "unknown "
               "key has it fetched early. The last good set stays in force while the URL fails.",
               1'024),
          row("keys_ca_file", FieldType::file, &JwtRules::keys_ca,
              "Certificates (PEM) that the URL's server is checked against. Without it, the system's."),
          duration("keys_refresh", &JwtRules::keys_refresh_ms, {10 * kSecond, 1 * kDay}, "How often it is fetched."),
          required(text("algorithms", &JwtRules::algorithms,
                        "That tokens may be signed by: HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, "
                        "ES256, ES384, ES512, EdDSA.",
                        16)),
          text("issuer", &JwtRules::issuer, "What `iss` must be. Without it, any.", 512),
          text("audience", &JwtRules::audience, "One of them must be in `aud`. Without it, any.", 512),
          duration("skew", &JwtRules::skew_s, {0, 10 * kMinute},
                   "By how much clocks may differ, for `exp` and `nbf`. A token without `exp` does not end by itself.",
                   kSecond),
          text("cookie", &JwtRules::cookie, "A cookie that has the token, where Authorization does not.", 128),
          text("name_claim", &JwtRules::name_claim,
               "The claim that names the client, or a path to it, with dots between.", 128),
          text("roles_claim", &JwtRules::roles_claim,
               "A list of roles, or a text with spaces between (`scope`). `realm_access.roles` is `roles` in "
               "`realm_access`, where no claim has the whole name.",
               128),
      }};
  return section;
}

const Section& certificate_clients_section() {
  static const Section client{
      "client",
      {
          identity(text("name", &CertificateClient::name,
                        "As its certificate says it. `spiffe://example.org/billing/*` is for every name below.",
                        2'048)),
          row("roles", FieldType::name, &CertificateClient::roles, "What `authorise` asks for."),
      }};
  static const Section section{
      "certificates section",
      {
          enabled<CertificateClients>(),
          word("name_from", &CertificateClients::name_from,
               {"spiffe", "dns", "email", "common_name", "subject", "fingerprint"},
               "What of the certificate is the client's name. `spiffe`: the one URI of its alternative names. `dns`, "
               "`email`: the first of them. `subject`: as RFC 2253 writes it. `fingerprint`: SHA-256, in hexadecimal."),
          nested("clients", &CertificateClients::clients, client,
                 "Who is known. An exact name comes first, then the longest with `/*`. Without it, every client whose "
                 "certificate has a name of that kind is known, without roles."),
          boolean("client_cert", &CertificateClients::client_cert,
                  "`true`: the backend gets the certificate as the field `Client-Cert` (RFC 9440). Not for routes with "
                  "a cache."),
      }};
  return section;
}

const Section& authenticate_section() {
  static const Section section{
      "authenticate section",
      {
          text("realm", &AuthenticatePolicy::realm, "What a browser's question names.", 128),
          boolean("optional", &AuthenticatePolicy::optional,
                  "A request without credentials passes, without a name. Wrong ones are refused all the same."),
          nested("api_keys", &AuthenticatePolicy::api_keys, api_keys_section(), "Keys that clients send in a field."),
          nested("basic", &AuthenticatePolicy::basic, basic_section(), "Names and passwords (RFC 7617)."),
          nested("jwt", &AuthenticatePolicy::jwt, jwt_section(),
                 "Signed tokens (RFC 7519), as `Authorization: Bearer`."),
          nested("signatures", &AuthenticatePolicy::signatures, signatures_section(),
                 "Requests that programs sign by HMAC: HTTP Message Signatures (RFC 9421)."),
          nested("certificates", &AuthenticatePolicy::certificates, certificate_clients_section(),
                 "The certificate that the client has shown in the TLS handshake, at a listener with "
                 "`client_certificates`. It counts for requests that show nothing of the above."),
          nested("forward", &AuthenticatePolicy::forward, forward_section(),
                 "A service of your own that is asked about each request. The client waits meanwhile."),
          boolean("keep_credentials", &AuthenticatePolicy::keep_credentials,
                  "`false`: the backend does not get the credentials that this policy reads: the field, cookie or "
                  "parameter of the query (with `forward`: Authorization). Not for routes with a cache."),
          text("identity_header", &AuthenticatePolicy::identity_header,
               "A field that tells the backend the client's name. A client's own is removed. Not for routes with a "
               "cache.",
               128),
      }};
  return section;
}

bool is_sha256(std::string_view text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
         });
}

// Names go into logs and into a field for backends.
bool is_printable(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c < '\x7f'; });
}

void check_known(Checks& checks, size_t p, const char* where, const char* list, const char* hash_key,
                 const std::vector<KnownClient>& known, bool (*good)(std::string_view), const char* expected) {
  std::map<std::string_view, size_t> seen;
  for (size_t i = 0; i < known.size(); ++i) {
    if (!is_printable(known[i].name)) {
      checks.refuse({"policies", p, "authenticate", where, list, i, "name"},
                    {"bad_value", fmt::format("{} is no name", in_quotes(known[i].name)), "visible ASCII", {}});
    }
    if (!good(known[i].hash)) {
      checks.refuse({"policies", p, "authenticate", where, list, i, hash_key},
                    {"bad_value", fmt::format("{} of '{}' is no hash that is taken", hash_key, known[i].name), expected,
                     "a secret is never written itself"});
    } else if (const auto [first, added] = seen.emplace(known[i].hash, i); !added && good == is_sha256) {
      checks.refuse({"policies", p, "authenticate", where, list, i, hash_key},
                    {"duplicate_name",
                     fmt::format("'{}' and '{}' have one key", known[first->second].name, known[i].name),
                     {},
                     {}});
    }
  }
}

// Keys that come over a network without TLS would let anybody there sign tokens.
bool is_trusted_url(std::string_view url) {
  if (std::any_of(url.begin(), url.end(), [](char c) { return c <= ' ' || c >= '\x7f' || c == '#' || c == '\\'; })) {
    return false;
  }
  const size_t colon = url.find("://");
  if (colon == std::string_view::npos) return false;
  const std::string_view rest = url.substr(colon + 3);
  const std::string_view authority = rest.substr(0, rest.find_first_of("/?"));
  if (authority.empty() || authority.find('@') != std::string_view::npos) return false;
  if (url.substr(0, colon) == "https") return true;
  const size_t end = authority.starts_with('[') ? authority.find(']') + 1 : authority.find(':');
  const std::string_view host = authority.substr(0, end);
  return url.substr(0, colon) == "http" && (host == "localhost" || host == "127.0.0.1" || host == "[::1]");
}

bool check_key_source(Checks& checks, size_t p, const JwtRules& jwt) {
  const bool has_file = checks.written({"policies", p, "authenticate", "jwt", "keys_file"});
  if (jwt.keys_url.empty() && !has_file) {
    checks.refuse({"policies", p, "authenticate", "jwt"},
                  {"missing_key", "a jwt section without keys", "keys_file or keys_url", {}});
    return false;
  }
  if (!jwt.keys_url.empty() && !is_trusted_url(jwt.keys_url)) {
    checks.refuse({"policies", p, "authenticate", "jwt", "keys_url"},
                  {"bad_value", fmt::format("{} is no URL that keys are taken from", in_quotes(jwt.keys_url)),
                   "'https://id.example.com/jwks.json'", "http only from localhost, 127.0.0.1 and [::1]"});
  }
  for (const char* key : {"keys_ca_file", "keys_refresh"}) {
    if (!jwt.keys_url.empty() || !checks.written({"policies", p, "authenticate", "jwt", key})) continue;
    checks.refuse({"policies", p, "authenticate", "jwt", key},
                  {"without_effect", fmt::format("{} belongs to keys_url", key), {}, "remove it"});
  }
  return true;
}

void check_jwt(Checks& checks, size_t p, const JwtRules& jwt) {
  const std::vector<std::string_view>& known = jwt_algorithms();
  for (size_t i = 0; i < jwt.algorithms.size(); ++i) {
    if (std::find(known.begin(), known.end(), jwt.algorithms[i]) != known.end()) continue;
    checks.refuse(
        {"policies", p, "authenticate", "jwt", "algorithms", i},
        {"bad_value", fmt::format("{} is no algorithm that is taken", in_quotes(jwt.algorithms[i])), one_of(known),
         jwt.algorithms[i] == "none" ? "a token without a signature shows nothing"
                                     : did_you_mean(jwt.algorithms[i], known)});
    return;
  }
  if (!check_key_source(checks, p, jwt)) return;
  if (!jwt.keys.bytes) return;  // this process does not get the file
  const Result<std::vector<Jwk>> keys = parse_jwks(*jwt.keys.bytes);
  if (!keys) {
    checks.refuse({"policies", p, "authenticate", "jwt", "keys_file"},
                  {"bad_value",
                   fmt::format("file {}: {}", in_quotes(jwt.keys.name), keys.error().message),
                   "a JWK set with at least one key",
                   {}});
    return;
  }
  for (size_t i = 0; i < jwt.algorithms.size(); ++i) {
    if (std::any_of(keys->begin(), keys->end(), [&](const Jwk& key) { return key.serves(jwt.algorithms[i]); }))
      continue;
    checks.refuse(
        {"policies", p, "authenticate", "jwt", "algorithms", i},
        {"without_effect", fmt::format("no key of {} is for {}", in_quotes(jwt.keys.name), jwt.algorithms[i]), {}, {}});
  }
}

// What a cache keeps is for everybody. So the backend may get nothing from a client that is not in the cache's key.
void check_cached_routes(Checks& checks, size_t p, const AuthenticatePolicy& authenticate) {
  const bool forwards = authenticate.forward.enabled && !authenticate.forward.to_backend.empty();
  const bool shows_certificate = authenticate.certificates.enabled && authenticate.certificates.client_cert;
  if (authenticate.keep_credentials && authenticate.identity_header.empty() && !forwards && !shows_certificate) return;
  for (const uint32_t r : routes_it_may_hold_for(checks, p)) {
    const Route& route = checks.model().routes[r];
    if (!route.cache.enabled) continue;
    const Complaint complaint{
        "conflicting_keys",
        fmt::format("route '{}' has a cache: one client's answer would be given to others", route.name),
        {},
        "a route of its own without a cache"};
    if (!authenticate.identity_header.empty()) {
      checks.refuse({"policies", p, "authenticate", "identity_header"}, complaint);
    } else if (!authenticate.keep_credentials) {
      checks.refuse({"policies", p, "authenticate", "keep_credentials"}, complaint);
    } else if (shows_certificate) {
      checks.refuse({"policies", p, "authenticate", "certificates", "client_cert"}, complaint);
    } else {
      checks.refuse({"policies", p, "authenticate", "forward", "to_backend"}, complaint);
    }
    return;
  }
}

void check_certificate_clients(Checks& checks, size_t p, const CertificateClients& certificates) {
  const Elements<Listener>& listeners = checks.model().listeners;
  if (std::none_of(listeners.begin(), listeners.end(), [](const Listener& l) { return l.tls.clients.enabled; })) {
    checks.refuse({"policies", p, "authenticate", "certificates"}, {"without_effect",
                                                                    "no listener asks its clients for certificates",
                                                                    "a listener with tls: {client_certificates: ...}",
                                                                    {}});
  }
  for (size_t i = 0; i < certificates.clients.size(); ++i) {
    const std::string& name = certificates.clients[i].name;
    const size_t star = name.find('*');
    const bool good_star = star == std::string::npos || (star + 1 == name.size() && name.ends_with("/*"));
    if (is_printable(name) && good_star) continue;
    checks.refuse({"policies", p, "authenticate", "certificates", "clients", i, "name"},
                  {"bad_value",
                   fmt::format("{} is no name of a client", in_quotes(name)),
                   "visible ASCII, with `/*` only at its end",
                   {}});
  }
}

void check_authenticate(Checks& checks, size_t p) {
  const AuthenticatePolicy& authenticate = *checks.model().policies[p].part<AuthenticatePolicy>("authenticate");
  if (!authenticate.api_keys.enabled && !authenticate.basic.enabled && !authenticate.jwt.enabled &&
      !authenticate.signatures.enabled && !authenticate.certificates.enabled && !authenticate.forward.enabled) {
    checks.refuse({"policies", p, "authenticate"}, {"missing_key",
                                                    "an authenticate section that knows nobody",
                                                    "api_keys, basic, jwt, signatures, certificates or forward",
                                                    {}});
  }
  check_known(checks, p, "api_keys", "keys", "sha256", authenticate.api_keys.keys, is_sha256, "64 hexadecimal digits");
  check_known(checks, p, "basic", "users", "password", authenticate.basic.users, is_password_hash,
              "what `openssl passwd -6` or `htpasswd -nB` prints");
  for (size_t i = 0; i < authenticate.basic.users.size(); ++i) {
    if (authenticate.basic.users[i].name.find(':') == std::string::npos) continue;
    checks.refuse({"policies", p, "authenticate", "basic", "users", i, "name"},
                  {"bad_value", "a user's name has no ':' (RFC 7617 §2)", {}, {}});
  }
  if (authenticate.jwt.enabled) check_jwt(checks, p, authenticate.jwt);
  if (authenticate.signatures.enabled) check_signatures(checks, p);
  if (authenticate.certificates.enabled) check_certificate_clients(checks, p, authenticate.certificates);
  if (authenticate.forward.enabled) check_forward(checks, p);
  if (!authenticate.identity_header.empty() && !http1::is_token(authenticate.identity_header)) {
    checks.refuse(
        {"policies", p, "authenticate", "identity_header"},
        {"bad_value", fmt::format("{} is no name of a field", in_quotes(authenticate.identity_header)), {}, {}});
  }
  check_cached_routes(checks, p, authenticate);
}

std::optional<uint64_t> number_of(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

bool is_password_hash(std::string_view setting) {
  if (setting.size() < 20 || setting.find_first_of(" \t:") != std::string_view::npos) return false;
  if (setting.starts_with("$2y$") || setting.starts_with("$2b$")) {
    const std::optional<uint64_t> cost = number_of(setting.substr(4, 2));
    return setting.size() == 60 && setting[6] == '$' && cost && *cost >= 4 && *cost <= kPasswordCostMost;
  }
  if (!setting.starts_with("$6$") && !setting.starts_with("$5$")) return false;
  const std::string_view rest = setting.substr(3);
  constexpr std::string_view kRounds = "rounds=";
  if (rest.starts_with(kRounds)) {
    const std::optional<uint64_t> rounds = number_of(rest.substr(kRounds.size(), rest.find('$') - kRounds.size()));
    if (!rounds || *rounds > kPasswordRoundsMost) return false;
  }
  return setting.size() - setting.rfind('$') > 40;
}

PolicyKind authenticate_policy_kind() {
  PolicyKind kind =
      policy_kind<AuthenticatePolicy>("authenticate", "Who a client is. One that does not show it gets 401.",
                                      authenticate_section(), check_authenticate);
  kind.pools_of = [](const Policy& policy) {
    const ForwardAuth& forward = policy.part<AuthenticatePolicy>("authenticate")->forward;
    return std::vector<uint32_t>{forward.enabled ? forward.pool : kNone};
  };
  return kind;
}

}  // namespace tidegate
