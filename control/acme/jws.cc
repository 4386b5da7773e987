// SPDX-License-Identifier: Apache-2.0
#include "control/acme/jws.h"

#include <fmt/format.h>

#include "control/api/json_bounds.h"
#include "core/crypto.h"

namespace tidegate::acme {

using nlohmann::json;

std::string public_jwk(const SigningKey& key) {
  return fmt::format(R"({{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}})", base64url_encode(key.x()),
                     base64url_encode(key.y()));
}

std::string thumbprint(const SigningKey& key) { return base64url_encode(text_of(sha256(public_jwk(key)))); }

std::string key_authorization(std::string_view token, const SigningKey& account) {
  return fmt::format("{}.{}", token, thumbprint(account));
}

Result<std::string> sign_request(const SigningKey& account, const JwsHead& head, std::string_view payload) {
  json protected_head = {{"alg", "ES256"}, {"nonce", head.nonce}, {"url", head.url}};
  if (head.account_url.empty()) {
    protected_head["jwk"] = json::parse(public_jwk(account));
  } else {
    protected_head["kid"] = head.account_url;
  }
  const std::string first = base64url_encode(dump(protected_head)), second = base64url_encode(payload);
  const Result<std::string> signature = account.sign(first + "." + second);
  if (!signature) return signature.error();
  return dump({{"protected", first}, {"payload", second}, {"signature", base64url_encode(*signature)}});
}

Result<json> external_binding(const SigningKey& account, const std::string& key_id, const std::string& mac_key,
                              const std::string& url) {
  const std::optional<std::string> key = base64url_decode(mac_key);
  if (!key) return fail("eab_key is not base64url");
  const std::string first = base64url_encode(dump({{"alg", "HS256"}, {"kid", key_id}, {"url", url}}));
  const std::string second = base64url_encode(public_jwk(account));
  return json{{"protected", first},
              {"payload", second},
              {"signature", base64url_encode(text_of(hmac_sha256(*key, first + "." + second)))}};
}

}  // namespace tidegate::acme
