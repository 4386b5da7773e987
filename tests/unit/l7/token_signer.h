// SPDX-License-Identifier: Apache-2.0
// A signer of tokens for tests.
#pragma once

#include <openssl/evp.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "conf/policy/authenticate.h"

namespace tidegate::l7::test {

// A key that signs tokens, and its public half as a JWK.
struct KeyPair {
  std::string kid, kty;
  std::shared_ptr<EVP_PKEY> key;  // null: a secret
  std::string secret = std::string(64, 's');

  // `kty`: RSA, P-256, P-384, P-521, OKP or oct.
  static KeyPair make(const std::string& kty);
  // A number of the key, in base64url; of `bytes` bytes, or as few as it needs.
  std::string number(const char* parameter, size_t bytes = 0) const;
  nlohmann::json jwk() const;
  std::string sign(const std::string& alg, const std::string& text) const;
  std::string token(const std::string& alg, const nlohmann::json& claims, nlohmann::json head = {}) const;
};

// A JWK set of these keys.
std::string set_of(const std::vector<nlohmann::json>& keys);

// Takes tokens of these algorithms alone, with ten seconds of skew.
JwtRules rules_of(std::vector<std::string> algorithms);

}  // namespace tidegate::l7::test
