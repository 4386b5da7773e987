// SPDX-License-Identifier: Apache-2.0
#include "conf/policy/signatures.h"

#include <fmt/format.h>

#include <algorithm>

#include "conf/field_builders.h"
#include "conf/limits.h"
#include "conf/model.h"
#include "conf/model/policy.h"
#include "conf/names.h"
#include "conf/policy/authenticate.h"
#include "conf/policy/jwks.h"

namespace tidegate {
namespace {

using namespace fields;

const std::vector<std::string_view>& derived_components() {
  static const std::vector<std::string_view> names = {"@method", "@authority", "@scheme",
                                                      "@path",   "@query",     "@target-uri"};
  return names;
}

const Section& client_section() {
  static const Section section{"signing client",
                               {
                                   identity(text("name", &SigningClient::name, "Its `kid` in `keys_file`.", 128)),
                                   row("roles", FieldType::name, &SigningClient::roles, "What `authorise` asks for."),
                               }};
  return section;
}

// The name of a field in lower case (RFC 9421 §2.1).
bool is_field(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '-' || c == '_';
  });
}

bool is_key_id(std::string_view text) {
  return !text.empty() && text.size() <= 128 &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c < '\x7f' && c != '"' && c != '\\'; });
}

void check_covers(Checks& checks, size_t p, const std::vector<std::string>& covers) {
  if (covers.size() > kSignatureCoversMost) {
    checks.refuse({"policies", p, "authenticate", "signatures", "covers"},
                  {"out_of_range",
                   fmt::format("covers has {} components", covers.size()),
                   fmt::format("at most {}", kSignatureCoversMost),
                   {}});
  }
  const std::vector<std::string_view>& known = derived_components();
  for (size_t i = 0; i < covers.size(); ++i) {
    const bool derived = covers[i].starts_with('@');
    if (derived ? std::find(known.begin(), known.end(), covers[i]) != known.end() : is_field(covers[i])) continue;
    checks.refuse({"policies", p, "authenticate", "signatures", "covers", i},
                  {"bad_value", fmt::format("{} is no component of a request", in_quotes(covers[i])),
                   one_of(known) + ", or a field in lower case", derived ? did_you_mean(covers[i], known) : ""});
  }
}

void check_secrets(Checks& checks, size_t p, const SignatureRules& rules) {
  if (!rules.keys.bytes) return;  // this process does not get the file
  const Result<std::vector<Jwk>> keys = parse_jwks(*rules.keys.bytes);
  const auto refuse = [&](const std::string& why) {
    checks.refuse({"policies", p, "authenticate", "signatures", "keys_file"},
                  {"bad_value",
                   fmt::format("file {}: {}", in_quotes(rules.keys.name), why),
                   "a JWK set of secrets (kty oct), each with its kid",
                   {}});
  };
  if (!keys) return refuse(keys.error().message);
  for (const Jwk& key : *keys) {
    if (key.type != Jwk::Type::secret) return refuse(fmt::format("key '{}' is no secret", key.id));
    if (!is_key_id(key.id)) return refuse("a key without a kid that can be a name");
  }
  for (size_t i = 0; i < rules.clients.size(); ++i) {
    const std::string& name = rules.clients[i].name;
    if (std::any_of(keys->begin(), keys->end(), [&](const Jwk& key) { return key.id == name; })) continue;
    checks.refuse(
        {"policies", p, "authenticate", "signatures", "clients", i, "name"},
        {"no_such_name", fmt::format("no key of {} has the kid '{}'", in_quotes(rules.keys.name), name), {}, {}});
  }
}

}  // namespace

const Section& signatures_section() {
  static const Section section{
      "signatures section",
      {
          enabled<SignatureRules>(),
          required(row("keys_file", FieldType::file, &SignatureRules::keys,
                       "The secrets that clients share with us: a JWK set (RFC 7517) of type oct, at least 32 bytes "
                       "each. The `kid` is the signature's `keyid` and names the client. Two keys may have one `kid`, "
                       "so that a client can change from one to the other.")),
          nested("clients", &SignatureRules::clients, client_section(), "The roles of clients."),
          text("covers", &SignatureRules::covers,
               "What a signature must cover: `@method`, `@authority`, `@scheme`, `@path`, `@query`, `@target-uri`, and "
               "names of fields in lower case. `@target-uri` covers the four before it. Without the key: `@method`, "
               "`@authority`, `@path` and `@query`. The body is covered by `content-digest`, which the backend checks.",
               128),
          duration("max_age", &SignatureRules::max_age_s, {1 * kSecond, 1 * kHour},
                   "How long after `created` a signature is good. A request that comes again in that time is refused "
                   "by the proxy that had it, and by the process that takes over from it: at an upgrade, and under "
                   "systemd after a crash. It is forgotten when the proxy is stopped or `remembered` changes. Other "
                   "proxies do not know of it. A client that may send one twice in a second gives each a `nonce`.",
                   kSecond),
          duration("skew", &SignatureRules::skew_s, {0, 10 * kMinute}, "By how much clocks may differ.", kSecond),
          integer("remembered", &SignatureRules::remembered, {1'024, 4'194'304},
                  "How many signed requests are remembered, so that none is taken twice; 24 bytes each. At least those "
                  "of `max_age` and twice `skew`. Beyond it they get 503."),
      }};
  return section;
}

void check_signatures(Checks& checks, size_t p) {
  const SignatureRules& rules = checks.model().policies[p].part<AuthenticatePolicy>("authenticate")->signatures;
  check_covers(checks, p, rules.covers);
  check_secrets(checks, p, rules);
}

}  // namespace tidegate
