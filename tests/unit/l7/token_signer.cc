// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/l7/token_signer.h"

#include <gtest/gtest.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/hmac.h>
#include <openssl/rsa.h>

#include "core/crypto.h"

namespace tidegate::l7::test {

KeyPair KeyPair::make(const std::string& kty) {
  EVP_PKEY* made = kty == "RSA"     ? EVP_RSA_gen(2048)
                   : kty == "P-256" ? EVP_EC_gen("P-256")
                   : kty == "P-384" ? EVP_EC_gen("P-384")
                   : kty == "P-521" ? EVP_EC_gen("P-521")
                   : kty == "OKP"   ? EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519")
                                    : nullptr;
  return {"k-" + kty, kty, {made, EVP_PKEY_free}};
}

std::string KeyPair::number(const char* parameter, size_t bytes) const {
  BIGNUM* value = nullptr;
  EVP_PKEY_get_bn_param(key.get(), parameter, &value);
  std::string out(bytes == 0 ? static_cast<size_t>(BN_num_bytes(value)) : bytes, '\0');
  BN_bn2binpad(value, reinterpret_cast<unsigned char*>(out.data()), static_cast<int>(out.size()));
  BN_free(value);
  return base64url_encode(out);
}

nlohmann::json KeyPair::jwk() const {
  if (kty == "oct") return {{"kty", "oct"}, {"kid", kid}, {"k", base64url_encode(secret)}};
  if (kty == "RSA") return {{"kty", "RSA"}, {"kid", kid}, {"n", number("n")}, {"e", number("e")}};
  if (kty == "OKP") {
    std::string raw(32, '\0');
    size_t length = raw.size();
    EVP_PKEY_get_raw_public_key(key.get(), reinterpret_cast<unsigned char*>(raw.data()), &length);
    return {{"kty", "OKP"}, {"crv", "Ed25519"}, {"kid", kid}, {"x", base64url_encode(raw)}};
  }
  const size_t half = kty == "P-256" ? 32 : kty == "P-384" ? 48 : 66;
  return {{"kty", "EC"}, {"crv", kty}, {"kid", kid}, {"x", number("qx", half)}, {"y", number("qy", half)}};
}

std::string KeyPair::sign(const std::string& alg, const std::string& text) const {
  const EVP_MD* const hash = alg.ends_with("256")   ? EVP_sha256()
                             : alg.ends_with("384") ? EVP_sha384()
                             : alg.ends_with("512") ? EVP_sha512()
                                                    : nullptr;
  const auto* const in = reinterpret_cast<const unsigned char*>(text.data());
  std::string out(1'024, '\0');
  auto* const to = reinterpret_cast<unsigned char*>(out.data());
  size_t length = out.size();
  if (!key) {
    unsigned written = 0;
    HMAC(hash, secret.data(), static_cast<int>(secret.size()), in, text.size(), to, &written);
    return out.substr(0, written);
  }
  EVP_MD_CTX* const context = EVP_MD_CTX_new();
  EVP_PKEY_CTX* parameters = nullptr;
  EVP_DigestSignInit(context, &parameters, hash, nullptr, key.get());
  if (alg.starts_with("PS")) {
    EVP_PKEY_CTX_set_rsa_padding(parameters, RSA_PKCS1_PSS_PADDING);
    EVP_PKEY_CTX_set_rsa_pss_saltlen(parameters, RSA_PSS_SALTLEN_DIGEST);
  }
  EXPECT_EQ(EVP_DigestSign(context, to, &length, in, text.size()), 1);
  EVP_MD_CTX_free(context);
  out.resize(length);
  if (!alg.starts_with("ES")) return out;
  const unsigned char* der = to;
  ECDSA_SIG* const pair = d2i_ECDSA_SIG(nullptr, &der, static_cast<long>(length));
  const size_t half = kty == "P-256" ? 32 : kty == "P-384" ? 48 : 66;
  std::string raw(2 * half, '\0');
  auto* const half_to = reinterpret_cast<unsigned char*>(raw.data());
  BN_bn2binpad(ECDSA_SIG_get0_r(pair), half_to, static_cast<int>(half));
  BN_bn2binpad(ECDSA_SIG_get0_s(pair), half_to + half, static_cast<int>(half));
  ECDSA_SIG_free(pair);
  return raw;
}

std::string KeyPair::token(const std::string& alg, const nlohmann::json& claims, nlohmann::json head) const {
  head["alg"] = alg;
  if (!head.contains("kid")) head["kid"] = kid;
  const std::string text = base64url_encode(head.dump()) + "." + base64url_encode(claims.dump());
  return text + "." + base64url_encode(sign(alg, text));
}

std::string set_of(const std::vector<nlohmann::json>& keys) { return nlohmann::json{{"keys", keys}}.dump(); }

JwtRules rules_of(std::vector<std::string> algorithms) {
  JwtRules rules;
  rules.enabled = true;
  rules.algorithms = std::move(algorithms);
  rules.skew_s = 10;
  return rules;
}

}  // namespace tidegate::l7::test
