// SPDX-License-Identifier: Apache-2.0
#include "conf/policy/jwks.h"

#include <fmt/format.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "conf/limits.h"
#include "core/crypto.h"

namespace tidegate {
namespace {

constexpr int kRsaBitsLeast = 2'048;  // RFC 7518 §3.3

struct Algorithm {
  std::string_view name;
  std::vector<Jwk::Type> types;
  size_t secret_bytes;  // RFC 7518 §3.2: a secret is at least as long as the hash
};
const std::vector<Algorithm>& algorithms() {
  using Type = Jwk::Type;
  static const std::vector<Algorithm> all = {
      {"HS256", {Type::secret}, 32}, {"HS384", {Type::secret}, 48}, {"HS512", {Type::secret}, 64},
      {"RS256", {Type::rsa}, 0},     {"RS384", {Type::rsa}, 0},     {"RS512", {Type::rsa}, 0},
      {"PS256", {Type::rsa}, 0},     {"PS384", {Type::rsa}, 0},     {"PS512", {Type::rsa}, 0},
      {"ES256", {Type::p256}, 0},    {"ES384", {Type::p384}, 0},    {"ES512", {Type::p521}, 0},
      {"EdDSA", {Type::ed25519}, 0},
  };
  return all;
}

template <auto kFree>
struct Free {
  template <class T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using ParamBuild = std::unique_ptr<OSSL_PARAM_BLD, Free<OSSL_PARAM_BLD_free>>;
using Params = std::unique_ptr<OSSL_PARAM, Free<OSSL_PARAM_free>>;
using KeyContext = std::unique_ptr<EVP_PKEY_CTX, Free<EVP_PKEY_CTX_free>>;
using Number = std::unique_ptr<BIGNUM, Free<BN_free>>;

std::string text_of(const nlohmann::json& key, const char* name) {
  const auto found = key.find(name);
  return found != key.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::optional<std::string> bytes_of(const nlohmann::json& key, const char* name) {
  const std::string text = text_of(key, name);
  return text.empty() ? std::nullopt : base64url_decode(text);
}

std::shared_ptr<EVP_PKEY> build(const char* type, const ParamBuild& parts) {
  const Params params(OSSL_PARAM_BLD_to_param(parts.get()));
  const KeyContext context(EVP_PKEY_CTX_new_from_name(nullptr, type, nullptr));
  EVP_PKEY* key = nullptr;
  if (params == nullptr || context == nullptr || EVP_PKEY_fromdata_init(context.get()) != 1 ||
      EVP_PKEY_fromdata(context.get(), &key, EVP_PKEY_PUBLIC_KEY, params.get()) != 1) {
    return nullptr;
  }
  return {key, EVP_PKEY_free};
}

Result<void> read_rsa(const nlohmann::json& json, Jwk& key) {
  const std::optional<std::string> n = bytes_of(json, "n"), e = bytes_of(json, "e");
  if (!n || !e) return fail("n and e of an RSA key are base64url");
  const auto number = [](const std::string& bytes) {
    return Number(
        BN_bin2bn(reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()), nullptr));
  };
  const Number modulus = number(*n), exponent = number(*e);
  const ParamBuild parts(OSSL_PARAM_BLD_new());
  OSSL_PARAM_BLD_push_BN(parts.get(), OSSL_PKEY_PARAM_RSA_N, modulus.get());
  OSSL_PARAM_BLD_push_BN(parts.get(), OSSL_PKEY_PARAM_RSA_E, exponent.get());
  key.type = Jwk::Type::rsa;
  key.public_key = build("RSA", parts);
  if (key.public_key == nullptr) return fail("an RSA key that OpenSSL does not take");
  if (EVP_PKEY_get_bits(key.public_key.get()) < kRsaBitsLeast) return fail("an RSA key has at least 2048 bits");
  return {};
}

struct Curve {
  std::string_view name;
  const char* group;
  Jwk::Type type;
  size_t bytes;
};
constexpr Curve kCurves[] = {{"P-256", "P-256", Jwk::Type::p256, 32},
                             {"P-384", "P-384", Jwk::Type::p384, 48},
                             {"P-521", "P-521", Jwk::Type::p521, 66}};
const Curve* curve_of(std::string_view name) {
  const auto found =
      std::find_if(std::begin(kCurves), std::end(kCurves), [&](const Curve& c) { return c.name == name; });
  return found == std::end(kCurves) ? nullptr : found;
}

Result<void> read_ec(const nlohmann::json& json, Jwk& key) {
  const Curve* const known = curve_of(text_of(json, "crv"));
  if (known == nullptr) return fail("an EC key without its curve");
  const Curve& curve = *known;
  const std::optional<std::string> x = bytes_of(json, "x"), y = bytes_of(json, "y");
  if (!x || !y || x->size() != curve.bytes || y->size() != curve.bytes) {
    return fail(fmt::format("x and y of a {} key have {} bytes, in base64url", curve.name, curve.bytes));
  }
  const std::string point = "\x04" + *x + *y;
  const ParamBuild parts(OSSL_PARAM_BLD_new());
  OSSL_PARAM_BLD_push_utf8_string(parts.get(), OSSL_PKEY_PARAM_GROUP_NAME, curve.group, 0);
  OSSL_PARAM_BLD_push_octet_string(parts.get(), OSSL_PKEY_PARAM_PUB_KEY, point.data(), point.size());
  key.type = curve.type;
  key.public_key = build("EC", parts);
  return key.public_key == nullptr ? Result<void>(fail("a point that is not on its curve")) : Result<void>();
}

Result<void> read_ed25519(const nlohmann::json& json, Jwk& key) {
  const std::optional<std::string> x = bytes_of(json, "x");
  if (!x || x->size() != 32) return fail("x of an Ed25519 key has 32 bytes, in base64url");
  key.type = Jwk::Type::ed25519;
  key.public_key = {EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr,
                                                reinterpret_cast<const unsigned char*>(x->data()), x->size()),
                    EVP_PKEY_free};
  return key.public_key == nullptr ? Result<void>(fail("an Ed25519 key that OpenSSL does not take")) : Result<void>();
}

Result<void> read_secret(const nlohmann::json& json, Jwk& key) {
  const std::optional<std::string> secret = bytes_of(json, "k");
  if (!secret || secret->size() < 32) return fail("k of a secret has at least 32 bytes, in base64url");
  key.type = Jwk::Type::secret;
  key.secret = *secret;
  return {};
}

// RFC 7517 §4.2, §4.3, §5: keys for something else, and of types and curves that we do not know, do not count.
bool is_for_us(const nlohmann::json& json) {
  const std::string use = text_of(json, "use"), type = text_of(json, "kty"), curve = text_of(json, "crv");
  if (!use.empty() && use != "sig") return false;
  const auto operations = json.find("key_ops");
  if (operations != json.end() && operations->is_array() &&
      std::find(operations->begin(), operations->end(), "verify") == operations->end()) {
    return false;
  }
  return type == "RSA" || type == "oct" || (type == "EC" && (curve.empty() || curve_of(curve) != nullptr)) ||
         (type == "OKP" && curve == "Ed25519");
}

Result<void> read_key(const nlohmann::json& json, Jwk& key) {
  key.id = text_of(json, "kid");
  key.algorithm = text_of(json, "alg");
  if (json.contains("d")) return fail("it has its private part ('d'): only the issuer needs that");
  const std::string type = text_of(json, "kty");
  if (type == "RSA") return read_rsa(json, key);
  if (type == "EC") return read_ec(json, key);
  return type == "OKP" ? read_ed25519(json, key) : read_secret(json, key);
}

}  // namespace

const std::vector<std::string_view>& jwt_algorithms() {
  static const std::vector<std::string_view> names = [] {
    std::vector<std::string_view> out;
    for (const Algorithm& algorithm : algorithms()) out.push_back(algorithm.name);
    return out;
  }();
  return names;
}

bool Jwk::serves(std::string_view algorithm_name) const {
  if (!algorithm.empty() && algorithm != algorithm_name) return false;
  for (const Algorithm& each : algorithms()) {
    if (each.name == algorithm_name) return each.types[0] == type && secret.size() >= each.secret_bytes;
  }
  return false;
}

Result<std::vector<Jwk>> parse_jwks(std::string_view text, std::vector<std::string>* left_out) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  if (json.is_discarded() || !json.is_object()) return fail("it is no JSON object");
  const auto list = json.find("keys");
  if (list == json.end() || !list->is_array()) return fail("it has no list 'keys'");
  if (list->size() > kKeySetKeys) return fail(fmt::format("it has more than {} keys", kKeySetKeys));
  std::vector<Jwk> keys;
  std::string first_fault;
  for (size_t i = 0; i < list->size(); ++i) {
    const nlohmann::json& each = (*list)[i];
    if (each.is_object() && !is_for_us(each)) continue;
    Jwk key;
    const Result<void> read = each.is_object() ? read_key(each, key) : Result<void>(fail("it is no object"));
    if (read) {
      keys.push_back(std::move(key));
      continue;
    }
    std::string fault =
        fmt::format("key {}{}: {}", i + 1, key.id.empty() ? "" : " (" + key.id + ")", read.error().message);
    if (left_out == nullptr) return fail(std::move(fault));
    if (first_fault.empty()) first_fault = fault;
    left_out->push_back(std::move(fault));
  }
  if (!keys.empty()) return keys;
  return fail(first_fault.empty() ? "it has no key for signatures" : "it has no good key; " + first_fault);
}

}  // namespace tidegate
