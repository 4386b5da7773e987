// SPDX-License-Identifier: Apache-2.0
// JSON Web Tokens (RFC 7519) in the compact form of JWS (RFC 7515), as RFC 8725 says to take them: the algorithms are
// ours to choose, and each key is for those of its own type alone.
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
  algorithm,  // not one of those that are allowed
  no_key,     // none has its `kid`, or none is for its algorithm
  signature,
  expired,
  not_yet,
  issuer,
  audience,
  no_name,
  no_keys,  // they could not be fetched yet
};
const char* name(TokenFault fault);  // for the log: "token_expired"

struct TokenClaims {
  std::string_view name;
  const std::string_view* roles = nullptr;
  size_t role_count = 0;
  std::string_view json;  // all of them
};

class TokenVerifier {
 public:
  // `source`: of keys that are fetched; null: `keys` are all. `keys` serve until the first ones were fetched.
  // `good`: remembers good signatures; null: each one is checked.
  TokenVerifier(const JwtRules& rules, std::vector<Jwk> keys, std::shared_ptr<KeySource> source = nullptr,
                std::shared_ptr<GoodTokens> good = nullptr);

  // `now_s`: of the real clock. The claims' texts are in the token or in the arena.
  TokenFault verify(std::string_view token, uint64_t now_s, Arena& arena, TokenClaims& out) const;

 private:
  TokenFault check_signature(std::string_view signed_part, std::string_view head, std::string_view signature,
                             Arena& arena) const;
  TokenFault read_claims(std::string_view payload, uint64_t now_s, Arena& arena, TokenClaims& out) const;

  const JwtRules rules_;
  const std::vector<Jwk> keys_;
  const std::shared_ptr<KeySource> source_;
  const std::shared_ptr<GoodTokens> good_;
  uint64_t basis_ = 0;  // of good_: the algorithms, and the keys of the document or the URL of those that are fetched
};

}  // namespace tidegate::l7::policy
