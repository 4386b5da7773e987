// SPDX-License-Identifier: Apache-2.0
// JWK sets (RFC 7517): the keys by which the signatures of tokens are checked (RFC 7518, RFC 8037). A key serves only
// the algorithms of its own type. So no token can make us use an RSA key as an HMAC secret.
//
// Threads: any; a key is never changed after it was read.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

using EVP_PKEY = struct evp_pkey_st;

namespace tidegate {

// The names that `algorithms` may have.
const std::vector<std::string_view>& jwt_algorithms();

struct Jwk {
  enum class Type : uint8_t { secret, rsa, p256, p384, p521, ed25519 };
  Type type = Type::secret;
  std::string id;                        // kid; may be empty
  std::string algorithm;                 // alg; empty: any algorithm of its type
  std::string secret;                    // of Type::secret
  std::shared_ptr<EVP_PKEY> public_key;  // of the others

  // Whether it may check signatures of that algorithm.
  bool serves(std::string_view algorithm_name) const;
};

// Leaves out keys that are not for signatures, and those of unknown types and curves (RFC 7517 §5). Returns an Error if
// no key is left, or if one that counts is malformed or too weak. With `left_out`, such a key is left out too, and its
// fault is added there: an issuer's set changes by itself, and one bad key in it must not cost the good ones.
Result<std::vector<Jwk>> parse_jwks(std::string_view text, std::vector<std::string>* left_out = nullptr);

}  // namespace tidegate
