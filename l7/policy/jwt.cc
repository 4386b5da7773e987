// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/jwt.h"

#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rsa.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>

#include "core/crypto.h"
#include "l7/limits.h"
#include "l7/policy/claims.h"
#include "l7/policy/json_scan.h"

namespace tidegate::l7::policy {
namespace {

const unsigned char* bytes(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }

// SHA-2 of the size that the last three digits of an algorithm's name say.
const EVP_MD* hash_of(std::string_view algorithm) {
  if (algorithm.ends_with("256")) return EVP_sha256();
  if (algorithm.ends_with("384")) return EVP_sha384();
  return EVP_sha512();
}

bool hmac_is_good(const EVP_MD* hash, const std::string& secret, std::string_view text, std::string_view signature) {
  unsigned char expected[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  if (HMAC(hash, secret.data(), static_cast<int>(secret.size()), bytes(text), text.size(), expected, &length) ==
      nullptr) {
    return false;
  }
  return equal_constant_time({reinterpret_cast<const char*>(expected), length}, signature);
}

// RFC 7518 §3.4: the signature is R and S, each as long as the curve's order. OpenSSL reads DER.
std::optional<std::string> der_of(std::string_view signature) {
  if (signature.empty() || signature.size() % 2 != 0) return std::nullopt;
  const int half = static_cast<int>(signature.size() / 2);
  const std::unique_ptr<ECDSA_SIG, decltype(&ECDSA_SIG_free)> pair(ECDSA_SIG_new(), ECDSA_SIG_free);
  BIGNUM* const r = BN_bin2bn(bytes(signature), half, nullptr);
  BIGNUM* const s = BN_bin2bn(bytes(signature) + half, half, nullptr);
  if (pair == nullptr || ECDSA_SIG_set0(pair.get(), r, s) != 1) {
    BN_free(r);
    BN_free(s);
    return std::nullopt;
  }
  unsigned char* der = nullptr;
  const int length = i2d_ECDSA_SIG(pair.get(), &der);
  if (length <= 0) return std::nullopt;
  std::string out(reinterpret_cast<const char*>(der), static_cast<size_t>(length));
  OPENSSL_free(der);
  return out;
}

size_t half_of(Jwk::Type type) { return type == Jwk::Type::p256 ? 32 : type == Jwk::Type::p384 ? 48 : 66; }

bool is_good(const Jwk& key, std::string_view algorithm, std::string_view text, std::string_view signature) {
  if (key.type == Jwk::Type::secret) return hmac_is_good(hash_of(algorithm), key.secret, text, signature);
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  EVP_PKEY_CTX* parameters = nullptr;  // the context's own
  const EVP_MD* const hash = key.type == Jwk::Type::ed25519 ? nullptr : hash_of(algorithm);
  if (context == nullptr ||
      EVP_DigestVerifyInit(context.get(), &parameters, hash, nullptr, key.public_key.get()) != 1) {
    return false;
  }
  if (algorithm.starts_with("PS") &&
      (EVP_PKEY_CTX_set_rsa_padding(parameters, RSA_PKCS1_PSS_PADDING) != 1 ||
       EVP_PKEY_CTX_set_rsa_pss_saltlen(parameters, RSA_PSS_SALTLEN_DIGEST) != 1)) {  // RFC 7518 §3.5
    return false;
  }
  std::string der;
  if (algorithm.starts_with("ES")) {
    if (signature.size() != 2 * half_of(key.type)) return false;
    std::optional<std::string> converted = der_of(signature);
    if (!converted) return false;
    der = *std::move(converted);
    signature = der;
  }
  return EVP_DigestVerify(context.get(), bytes(signature), signature.size(), bytes(text), text.size()) == 1;
}

// The members to read from a head or from claims, each at most once. (RFC 7515 §4: if a name occurs twice, either the
// token is refused or the last one counts. This code refuses it.)
struct JsonMember {
  std::string_view name;
  std::optional<JsonView> value;
};

// Returns false if it is not an object, or if one of the names occurs twice.
bool read_members(std::string_view json, std::initializer_list<JsonMember*> members, Arena& arena) {
  JsonMembers given(json);
  while (given.next()) {
    std::string_view name = given.name();
    if (name.find('\\') != std::string_view::npos) {
      const char* const quoted = name.data() - 1;
      const std::optional<std::string_view> decoded =
          json_text({JsonView::Kind::string, {quoted, name.size() + 2}}, arena);
      if (!decoded) return false;
      name = *decoded;
    }
    for (JsonMember* const member : members) {
      if (member->name != name) continue;
      if (member->value) return false;
      member->value = given.value();
    }
  }
  return given.is_whole();
}

// Decodes a part of the token into the arena.
std::optional<std::string_view> decoded(std::string_view part, Arena& arena) {
  char* const out = arena.allocate(part.size() * 3 / 4);
  const std::optional<size_t> bytes = base64url_decode_to(part, out);
  return bytes ? std::optional(std::string_view(out, *bytes)) : std::nullopt;
}

// `aud`: a string, or a list of them.
bool names_one_of(const JsonView& value, const std::vector<std::string>& wanted, Arena& arena) {
  const auto is_wanted = [&](const JsonView& each) {
    const std::optional<std::string_view> text = json_text(each, arena);
    return text && std::find(wanted.begin(), wanted.end(), *text) != wanted.end();
  };
  if (value.kind != JsonView::Kind::array) return is_wanted(value);
  for (JsonWalk walk(value); walk.next();) {
    if (is_wanted(walk.value())) return true;
  }
  return false;
}

// A list of texts, or one text with spaces between (RFC 8693 §4.2: scope).
void read_roles(const JsonView& value, Arena& arena, TokenClaims& out) {
  auto* const roles =
      reinterpret_cast<std::string_view*>(arena.allocate_aligned(kTokenRoles * sizeof(std::string_view)));
  const auto add = [&](std::string_view role) {
    if (!role.empty() && out.role_count < kTokenRoles) std::construct_at(&roles[out.role_count++], role);
  };
  if (value.kind == JsonView::Kind::array) {
    for (JsonWalk walk(value); walk.next();) add(json_text(walk.value(), arena).value_or(std::string_view()));
  } else {
    std::string_view rest = json_text(value, arena).value_or(std::string_view());
    while (!rest.empty()) {
      const size_t end = std::min(rest.find(' '), rest.size());
      add(rest.substr(0, end));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
  out.roles = roles;
}

// The claim's value goes into the log and into a field for the backend.
bool is_claim_name(std::string_view text) {
  return !text.empty() && text.size() <= kTokenNameBytes &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c < '\x7f'; });
}

}  // namespace

const char* name(TokenFault fault) {
  constexpr const char* kNames[] = {"",
                                    "token_malformed",
                                    "token_algorithm",
                                    "token_no_key",
                                    "token_signature",
                                    "token_expired",
                                    "token_not_yet_valid",
                                    "token_issuer",
                                    "token_audience",
                                    "token_no_name",
                                    "token_keys_unavailable"};
  return kNames[static_cast<size_t>(fault)];
}

TokenVerifier::TokenVerifier(const JwtRules& rules, std::vector<Jwk> keys, std::shared_ptr<KeySource> source,
                             std::shared_ptr<GoodTokens> good)
    : rules_(rules), keys_(std::move(keys)), source_(std::move(source)), good_(std::move(good)) {
  if (good_ == nullptr) return;
  std::string text = rules_.keys_url + '\n' + rules_.keys_ca.hash + '\n';
  if (rules_.keys.bytes != nullptr) text += *rules_.keys.bytes;
  for (const std::string& algorithm : rules_.algorithms) text += '\n' + algorithm;
  const Sha256 hash = sha256(text);
  std::memcpy(&basis_, hash.data(), sizeof basis_);
}

TokenFault TokenVerifier::verify(std::string_view token, uint64_t now_s, Arena& arena, TokenClaims& out) const {
  if (token.size() > kTokenBytes) return TokenFault::malformed;
  const size_t first = token.find('.');
  const size_t second = first == std::string_view::npos ? first : token.find('.', first + 1);
  if (second == std::string_view::npos || token.find('.', second + 1) != std::string_view::npos) {
    return TokenFault::malformed;
  }
  const std::optional<std::string_view> payload = decoded(token.substr(first + 1, second - first - 1), arena);
  if (!payload) return TokenFault::malformed;
  // The number of the fetched set is read before its keys. If a new set comes in between, the remembered result counts
  // as too old, never as too new.
  const uint64_t basis = basis_ + (source_ == nullptr ? 0 : source_->generation());
  if (good_ != nullptr && good_->has(basis, token)) {
    good_->remembered.add();
  } else {
    const std::optional<std::string_view> head = decoded(token.substr(0, first), arena);
    const std::optional<std::string_view> signature = decoded(token.substr(second + 1), arena);
    if (!head || !signature) return TokenFault::malformed;
    const TokenFault fault = check_signature(token.substr(0, second), *head, *signature, arena);
    if (fault != TokenFault::none) return fault;
    if (good_ != nullptr) good_->add(basis, token);
  }
  return read_claims(*payload, now_s, arena, out);
}

TokenFault TokenVerifier::check_signature(std::string_view signed_part, std::string_view head,
                                          std::string_view signature, Arena& arena) const {
  JsonMember algorithm{"alg", {}}, id{"kid", {}}, critical{"crit", {}};
  if (!read_members(head, {&algorithm, &id, &critical}, arena) || !algorithm.value) return TokenFault::malformed;
  if (critical.value) return TokenFault::malformed;  // RFC 7515 §4.1.11: extensions that we do not know
  const std::optional<std::string_view> name = json_text(*algorithm.value, arena);
  if (!name) return TokenFault::malformed;
  if (std::find(rules_.algorithms.begin(), rules_.algorithms.end(), *name) == rules_.algorithms.end()) {
    return TokenFault::algorithm;
  }
  std::string_view wanted;
  if (id.value) {
    const std::optional<std::string_view> text = json_text(*id.value, arena);
    if (!text) return TokenFault::malformed;
    wanted = *text;
  }
  const std::vector<Jwk>* const fetched = source_ == nullptr ? nullptr : source_->keys();
  const std::vector<Jwk>& keys = fetched == nullptr ? keys_ : *fetched;
  if (keys.empty()) return TokenFault::no_keys;
  size_t tried = 0;
  for (const Jwk& key : keys) {
    if ((!wanted.empty() && key.id != wanted) || !key.serves(*name)) continue;
    if (tried++ == kTokenKeysTried) break;
    if (good_ != nullptr) good_->checked.add();
    if (is_good(key, *name, signed_part, signature)) return TokenFault::none;
  }
  if (tried != 0) return TokenFault::signature;
  if (source_ != nullptr && !wanted.empty()) source_->note_unknown_key();
  return TokenFault::no_key;
}

TokenFault TokenVerifier::read_claims(std::string_view payload, uint64_t now_s, Arena& arena, TokenClaims& out) const {
  JsonMember expires{"exp", {}}, begins{"nbf", {}}, issuer{"iss", {}}, audience{"aud", {}}, name{rules_.name_claim, {}},
      roles{rules_.roles_claim, {}};
  if (!read_members(payload, {&expires, &begins, &issuer, &audience, &name, &roles}, arena)) {
    return TokenFault::malformed;
  }
  for (JsonMember* const nested : {&name, &roles}) {
    if (!nested->value && nested->name.find('.') != std::string_view::npos) {
      nested->value = find_claim(payload, nested->name, arena);
    }
  }
  if (expires.value) {
    const std::optional<uint64_t> at_s = json_seconds(*expires.value);
    if (!at_s) return TokenFault::malformed;
    if (now_s >= *at_s + rules_.skew_s) return TokenFault::expired;
  }
  if (begins.value) {
    const std::optional<uint64_t> at_s = json_seconds(*begins.value);
    if (!at_s) return TokenFault::malformed;
    if (now_s + rules_.skew_s < *at_s) return TokenFault::not_yet;
  }
  if (!rules_.issuer.empty() && (!issuer.value || json_text(*issuer.value, arena) != std::string_view(rules_.issuer))) {
    return TokenFault::issuer;
  }
  if (!rules_.audience.empty() && (!audience.value || !names_one_of(*audience.value, rules_.audience, arena))) {
    return TokenFault::audience;
  }
  const std::optional<std::string_view> text =
      name.value ? json_text(*name.value, arena) : std::optional<std::string_view>();
  if (!text || !is_claim_name(*text)) return TokenFault::no_name;
  out.name = *text;
  out.json = payload;
  if (roles.value) read_roles(*roles.value, arena, out);
  return TokenFault::none;
}

}  // namespace tidegate::l7::policy
