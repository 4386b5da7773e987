// SPDX-License-Identifier: Apache-2.0
// The signed messages of ACME (RFC 8555 §6.2): JSON Web Signatures with ES256 in the flattened form. Pure, except that
// a signature is random.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "core/crypto.h"
#include "core/result.h"
#include "core/signing_key.h"

namespace tidegate::acme {

inline std::string_view text_of(const Sha256& digest) {
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}

// The public key as a JWK (RFC 7518 §6.2), with its members in the order that a thumbprint needs.
std::string public_jwk(const SigningKey& key);
// RFC 7638, in base64url.
std::string thumbprint(const SigningKey& key);
// The required answer to a challenge: token "." thumbprint (RFC 8555 §8.1).
std::string key_authorization(std::string_view token, const SigningKey& account);

struct JwsHead {
  std::string url, nonce;
  std::string account_url;  // empty: the key itself identifies the account, as in the request that creates it
};
// `payload` is JSON, or empty: a POST-as-GET (RFC 8555 §6.3).
Result<std::string> sign_request(const SigningKey& account, const JwsHead& head, std::string_view payload);

// Binds a new account to one that the authority knows (RFC 8555 §7.3.4): HS256 over the account's public key.
// `mac_key` is base64url.
Result<nlohmann::json> external_binding(const SigningKey& account, const std::string& key_id,
                                        const std::string& mac_key, const std::string& url);

}  // namespace tidegate::acme
