// SPDX-License-Identifier: Apache-2.0
// JSON Web Tokens (RFC 7519) in the compact form of JWS (RFC 7515), checked as RFC 8725 says: the configuration chooses
// the algorithms, and each key serves only the algorithms of its own type.
//
// Threads: any; a verifier is never changed.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "conf/policy/authenticate.h"
#include "conf/policy/jwks.h"
#include "l7/policy/good_tokens.h"
#include "l7/policy/key_source.h"
#include "l7/wire/arena.h"

namespace tidegate::l7::policy {

enum class TokenFault : uint8_t {
  none,
  malformed,
  algorithm,  // the algorithm is not allowed
  no_key,     // no key has its `kid`, or none is for its algorithm
  signature,
  expired,
  not_yet,
  issuer,
  audience,
  no_name,
  no_keys,  // the keys could not be fetched yet
};
const char* name(TokenFault fault);  // for the log: "token_expired"

struct TokenClaims {
  std::string_view name;
  const std::string_view* roles = nullptr;
  size_t role_count = 0;
  std::string_view json;  // all claims
};

class TokenVerifier {
 public:
  // `source`: keys that are fetched; null: only `keys` are used. `keys` serve until the first ones were fetched.
  // `good`: remembers good signatures; null: each one is checked.
  TokenVerifier(const JwtRules& rules, std::vector<Jwk> keys, std::shared_ptr<KeySource> source = nullptr,
                std::shared_ptr<GoodTokens> good = nullptr);

  // `now_s`: from the real-time clock. The claims' texts are in the token or in the arena.
  TokenFault verify(std::string_view token, uint64_t now_s, Arena& arena, TokenClaims& out) const;

 private:
  TokenFault check_signature(std::string_view signed_part, std::string_view head, std::string_view signature,
                             Arena& arena) const;
  TokenFault read_claims(std::string_view payload, uint64_t now_s, Arena& arena, TokenClaims& out) const;

  const JwtRules rules_;
  const std::vector<Jwk> keys_;
  const std::shared_ptr<KeySource> source_;
  const std::shared_ptr<GoodTokens> good_;
  // for good_: a hash of the algorithms, and of the keys in the document or the URL of fetched ones
  uint64_t basis_ = 0;
};

}  // namespace tidegate::l7::policy
