// SPDX-License-Identifier: Apache-2.0
// Who clients are and what they may do: tokens alone, and what clients of the proxy see.
#include <gtest/gtest.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rsa.h>

#include <mutex>
#include <nlohmann/json.hpp>

#include "conf/policy/authenticate.h"
#include "conf/policy/authorise.h"
#include "conf/policy/limit.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "l7/limits.h"
#include "l7/policy/claims.h"
#include "l7/policy/credentials.h"
#include "l7/policy/good_tokens.h"
#include "l7/policy/json_scan.h"
#include "l7/policy/jwt.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::authenticate_test {

using policy::TokenClaims;
using policy::TokenFault;
using policy::TokenVerifier;

constexpr uint64_t kNow = 1'700'000'000;

// --- JSON of tokens

TEST(JsonScan, TakesWhatNlohmannTakesAndRefusesTheRest) {
  const char* const texts[] = {"{}",
                               "[]",
                               " { \"a\" : [1, -2.5e+3, true, null, {\"b\":\"\\u00e9\\n\"}] } ",
                               "\"\"",
                               "0",
                               "-0",
                               "01",
                               "1.",
                               ".5",
                               "1e",
                               "+1",
                               "{\"a\"}",
                               "{\"a\":}",
                               "{\"a\":1,}",
                               "[1,]",
                               "[1 2]",
                               "{a:1}",
                               "\"\\x\"",
                               "\"\\u12\"",
                               "\"a",
                               "tru",
                               "nul",
                               "",
                               " ",
                               "{} {}",
                               "\"\n\"",
                               "[[[[[[[[1]]]]]]]]",
                               "{\"a\":1 \"b\":2}",
                               "[,1]",
                               "{,}"};
  for (const std::string_view text : texts) {
    const nlohmann::json other = nlohmann::json::parse(text, nullptr, false);
    EXPECT_EQ(policy::scan_json(text).has_value(), !other.is_discarded()) << text;
    policy::JsonMembers members(text);
    size_t count = 0;
    while (members.next()) ++count;
    EXPECT_EQ(members.is_whole(), other.is_object()) << text;
    if (members.is_whole()) EXPECT_EQ(count, other.size()) << text;
    EXPECT_FALSE(members.next()) << text;
  }
  EXPECT_FALSE(policy::scan_json(std::string(17, '[') + std::string(17, ']'))) << "too deep";
  EXPECT_TRUE(policy::scan_json(std::string(16, '[') + std::string(16, ']')));
}

TEST(JsonScan, DecodesTextsAndSeconds) {
  Arena arena;
  const auto text = [&](std::string_view json) { return policy::json_text(*policy::scan_json(json), arena); };
  EXPECT_EQ(text("\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00e9\\u20ac\\ud83d\\ude00\""),
            "a\"\\/\b\f\n\r\tA\u00e9\u20ac\U0001f600");
  EXPECT_EQ(text("\"\\ud83d\""), std::nullopt);
  EXPECT_EQ(text("\"\\ude00\""), std::nullopt);
  EXPECT_EQ(text("7"), std::nullopt);
  const auto seconds = [&](std::string_view json) { return policy::json_seconds(*policy::scan_json(json)); };
  EXPECT_EQ(seconds("1700000000"), 1'700'000'000u);
  EXPECT_EQ(seconds("1.7e9"), 1'700'000'000u);
  EXPECT_EQ(seconds("1700000000.9"), 1'700'000'000u);
  EXPECT_EQ(seconds("-1"), std::nullopt);
  EXPECT_EQ(seconds("1e300"), std::nullopt);
  EXPECT_EQ(seconds("\"1\""), std::nullopt);
}

// --- tokens: a signer of our own, and the examples of the RFCs

struct KeyPair {
  std::string kid, kty;
  std::shared_ptr<EVP_PKEY> key;  // null: a secret
  std::string secret = std::string(64, 's');

  static KeyPair make(const std::string& kty) {
    EVP_PKEY* made = kty == "RSA"     ? EVP_RSA_gen(2048)
                     : kty == "P-256" ? EVP_EC_gen("P-256")
                     : kty == "P-384" ? EVP_EC_gen("P-384")
                     : kty == "P-521" ? EVP_EC_gen("P-521")
                     : kty == "OKP"   ? EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519")
                                      : nullptr;
    return {"k-" + kty, kty, {made, EVP_PKEY_free}};
  }
  std::string number(const char* parameter, size_t bytes = 0) const {
    BIGNUM* value = nullptr;
    EVP_PKEY_get_bn_param(key.get(), parameter, &value);
    std::string out(bytes == 0 ? static_cast<size_t>(BN_num_bytes(value)) : bytes, '\0');
    BN_bn2binpad(value, reinterpret_cast<unsigned char*>(out.data()), static_cast<int>(out.size()));
    BN_free(value);
    return base64url_encode(out);
  }
  nlohmann::json jwk() const {
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
  std::string sign(const std::string& alg, const std::string& text) const {
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
  std::string token(const std::string& alg, const nlohmann::json& claims, nlohmann::json head = {}) const {
    head["alg"] = alg;
    if (!head.contains("kid")) head["kid"] = kid;
    const std::string text = base64url_encode(head.dump()) + "." + base64url_encode(claims.dump());
    return text + "." + base64url_encode(sign(alg, text));
  }
};

std::string set_of(const std::vector<nlohmann::json>& keys) { return nlohmann::json{{"keys", keys}}.dump(); }

JwtRules rules_of(std::vector<std::string> algorithms) {
  JwtRules rules;
  rules.enabled = true;
  rules.algorithms = std::move(algorithms);
  rules.skew_s = 10;
  return rules;
}

TokenVerifier verifier(const JwtRules& rules, const std::string& keys) {
  const Result<std::vector<Jwk>> read = parse_jwks(keys);
  EXPECT_TRUE(read) << read.error().message;
  return {rules, *read};
}

TokenFault fault_of(const TokenVerifier& verifier, const std::string& token, uint64_t now_s = kNow) {
  Arena arena;
  TokenClaims claims;
  return verifier.verify(token, now_s, arena, claims);
}

TEST(Tokens, OfEveryAlgorithmAreTakenAndNoneThatWasChanged) {
  const std::pair<const char*, const char*> rows[] = {
      {"HS256", "oct"},   {"HS384", "oct"},   {"HS512", "oct"}, {"RS256", "RSA"}, {"RS384", "RSA"},
      {"RS512", "RSA"},   {"PS256", "RSA"},   {"PS384", "RSA"}, {"PS512", "RSA"}, {"ES256", "P-256"},
      {"ES384", "P-384"}, {"ES512", "P-521"}, {"EdDSA", "OKP"}};
  const KeyPair rsa = KeyPair::make("RSA");
  for (const auto& [alg, kty] : rows) {
    const KeyPair pair = std::string(kty) == "RSA" ? rsa : KeyPair::make(kty);
    const TokenVerifier verify = verifier(rules_of({alg}), set_of({pair.jwk()}));
    const std::string token = pair.token(alg, {{"sub", "amy"}, {"roles", {"a", "b"}}});
    Arena arena;
    TokenClaims claims;
    ASSERT_EQ(verify.verify(token, kNow, arena, claims), TokenFault::none) << alg;
    EXPECT_EQ(claims.name, "amy");
    ASSERT_EQ(claims.role_count, 2u);
    EXPECT_EQ(claims.roles[1], "b");
    // Changes the first byte of each part of the signature and of the payload.
    const size_t dot = token.find('.'), second = token.find('.', dot + 1);
    for (const size_t at : {dot + 3, second + 1, second + (token.size() - second) / 2}) {
      std::string changed = token;
      changed[at] = changed[at] == 'A' ? 'B' : 'A';
      EXPECT_NE(fault_of(verify, changed), TokenFault::none) << alg << " at " << at;
    }
    EXPECT_EQ(fault_of(verify, token.substr(0, second + 1)), TokenFault::signature) << alg << ": no signature at all";
  }
}

// RFC 7515 A.1 and A.3, RFC 8037 A.4: signatures that others made.
TEST(Tokens, OfTheRfcsAreTaken) {
  JwtRules rules = rules_of({"HS256", "ES256", "EdDSA"});
  rules.name_claim = "iss";
  const TokenVerifier verify = verifier(rules, R"({"keys": [
        {"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"},
        {"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
         "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
        {"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]})");
  const std::string claims =
      "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
  const std::string hs256 =
      "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." + claims + ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
  const std::string es256 = "eyJhbGciOiJFUzI1NiJ9." + claims +
                            ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
  constexpr uint64_t kExpiry = 1'300'819'380;
  for (const std::string& token : {hs256, es256}) {
    EXPECT_EQ(fault_of(verify, token, kExpiry - 1), TokenFault::none);
    EXPECT_EQ(fault_of(verify, token, kExpiry + 9), TokenFault::none) << "within the skew";
    EXPECT_EQ(fault_of(verify, token, kExpiry + 10), TokenFault::expired);
  }
  const std::string eddsa =
      "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
      "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
  EXPECT_EQ(fault_of(verify, eddsa), TokenFault::malformed) << "the signature is good, the content is no claims";
}

TEST(Tokens, CannotChooseTheirAlgorithm) {
  const KeyPair rsa = KeyPair::make("RSA");
  const KeyPair secret = KeyPair::make("oct");
  const TokenVerifier verify = verifier(rules_of({"RS256"}), set_of({rsa.jwk(), secret.jwk()}));
  const nlohmann::json claims{{"sub", "amy"}};
  EXPECT_EQ(fault_of(verify, rsa.token("RS256", claims)), TokenFault::none);
  EXPECT_EQ(fault_of(verify, rsa.token("RS512", claims)), TokenFault::algorithm) << "the key could do it";
  EXPECT_EQ(fault_of(verify, secret.token("HS256", claims)), TokenFault::algorithm);
  // "none", and the public key used as an HMAC secret (RFC 8725 §2.1).
  for (const char* none : {"none", "None", ""}) {
    const std::string unsigned_token =
        base64url_encode(nlohmann::json{{"alg", none}}.dump()) + "." + base64url_encode(claims.dump()) + ".";
    EXPECT_EQ(fault_of(verify, unsigned_token), TokenFault::algorithm) << none;
  }
  KeyPair confused{rsa.kid, "oct", nullptr};
  confused.secret = rsa.number("n");
  const TokenVerifier both = verifier(rules_of({"RS256", "HS256"}), set_of({rsa.jwk()}));
  EXPECT_EQ(fault_of(both, confused.token("HS256", claims)), TokenFault::no_key);
  nlohmann::json only_ps = rsa.jwk();
  only_ps["alg"] = "PS256";
  EXPECT_EQ(fault_of(verifier(rules_of({"RS256"}), set_of({only_ps})), rsa.token("RS256", claims)), TokenFault::no_key);
}

TEST(Tokens, AreForTheirTimeIssuerAndAudience) {
  const KeyPair pair = KeyPair::make("P-256");
  JwtRules rules = rules_of({"ES256"});
  rules.issuer = "https://id.test";
  rules.audience = {"api", "web"};
  const TokenVerifier verify = verifier(rules, set_of({pair.jwk()}));
  const nlohmann::json good{{"sub", "amy"}, {"iss", "https://id.test"}, {"aud", "web"}};
  const auto with = [&](const char* name, nlohmann::json value) {
    nlohmann::json claims = good;
    if (value.is_null()) {
      claims.erase(name);
    } else {
      claims[name] = std::move(value);
    }
    return fault_of(verify, pair.token("ES256", claims));
  };
  EXPECT_EQ(with("x", 1), TokenFault::none);
  EXPECT_EQ(with("exp", kNow + 1), TokenFault::none);
  EXPECT_EQ(with("exp", kNow - 9), TokenFault::none);
  EXPECT_EQ(with("exp", kNow - 10), TokenFault::expired);
  EXPECT_EQ(with("exp", "soon"), TokenFault::malformed);
  EXPECT_EQ(with("exp", -5), TokenFault::malformed);
  EXPECT_EQ(with("nbf", kNow + 10), TokenFault::none);
  EXPECT_EQ(with("nbf", kNow + 11), TokenFault::not_yet);
  EXPECT_EQ(with("iss", "https://id.test/"), TokenFault::issuer);
  EXPECT_EQ(with("iss", nullptr), TokenFault::issuer);
  EXPECT_EQ(with("aud", nlohmann::json{"other", "api"}), TokenFault::none);
  EXPECT_EQ(with("aud", "apis"), TokenFault::audience);
  EXPECT_EQ(with("aud", nlohmann::json::array()), TokenFault::audience);
  EXPECT_EQ(with("aud", nullptr), TokenFault::audience);
  EXPECT_EQ(with("sub", nullptr), TokenFault::no_name);
  EXPECT_EQ(with("sub", "a\nb"), TokenFault::no_name) << "it goes into logs and fields";
  EXPECT_EQ(with("sub", std::string(257, 'a')), TokenFault::no_name);
}

TEST(Claims, AreFoundByTheirNameOrByAPath) {
  Arena arena;
  const std::string claims = R"({"a":"x","b":{"c":{"d":["y",5,true]},"twice":1,"twice":2},"b.c":"z",)"
                             R"("https://id.test/roles":["r"],"num":7,"e\u0066":"f","deep":{"g":null}})";
  const auto has = [&](const std::string& name, const std::string& value) {
    const std::optional<policy::JsonView> claim = policy::find_claim(claims, name, arena);
    return claim && policy::claim_has(*claim, {"other", value}, arena);
  };
  EXPECT_TRUE(has("a", "x"));
  EXPECT_TRUE(has("b.c", "z")) << "the very name comes first";
  EXPECT_TRUE(has("b.c.d", "y"));
  EXPECT_TRUE(has("b.c.d", "5"));
  EXPECT_TRUE(has("b.c.d", "true"));
  EXPECT_TRUE(has("https://id.test/roles", "r"));
  EXPECT_TRUE(has("num", "7"));
  EXPECT_TRUE(has("ef", "f"));
  for (const char* none : {"", ".", "b", "b.", ".b", "b.x", "b.twice", "a.x", "b.c.d.y", "x", "deep"}) {
    EXPECT_FALSE(has(none, "y")) << none;
  }
  for (const char* broken : {"", "[]", "{", "7"}) EXPECT_FALSE(policy::find_claim(broken, "a", arena)) << broken;
}

TEST(Tokens, HaveTheirRolesInNestedClaimsToo) {
  const KeyPair pair = KeyPair::make("oct");
  JwtRules rules = rules_of({"HS256"});
  rules.roles_claim = "realm_access.roles";
  rules.name_claim = "user.id";
  const TokenVerifier verify = verifier(rules, set_of({pair.jwk()}));
  Arena arena;
  TokenClaims claims;
  const nlohmann::json nested{{"user", {{"id", "amy"}}}, {"realm_access", {{"roles", {"a", "b"}}}}};
  ASSERT_EQ(verify.verify(pair.token("HS256", nested), kNow, arena, claims), TokenFault::none);
  EXPECT_EQ(claims.name, "amy");
  ASSERT_EQ(claims.role_count, 2u);
  EXPECT_EQ(claims.roles[1], "b");
  EXPECT_EQ(fault_of(verify, pair.token("HS256", {{"user", "amy"}})), TokenFault::no_name);
}

TEST(Tokens, ThatAreMalformedAreRefused) {
  const KeyPair pair = KeyPair::make("oct");
  const TokenVerifier verify = verifier(rules_of({"HS256"}), set_of({pair.jwk()}));
  const auto signed_by = [&](const std::string& head, const std::string& claims) {
    const std::string text = base64url_encode(head) + "." + base64url_encode(claims);
    return text + "." + base64url_encode(pair.sign("HS256", text));
  };
  const std::string head = R"({"alg":"HS256"})", claims = R"({"sub":"amy"})";
  EXPECT_EQ(fault_of(verify, signed_by(head, claims)), TokenFault::none) << "without kid each key is tried";
  EXPECT_EQ(fault_of(verify, signed_by(head, R"({"sub":"amy","sub":"eve"})")), TokenFault::malformed);
  EXPECT_EQ(fault_of(verify, signed_by(head, R"({"s\u0075b":"amy","sub":"eve"})")), TokenFault::malformed);
  EXPECT_EQ(fault_of(verify, signed_by(R"({"alg":"HS256","alg":"HS256"})", claims)), TokenFault::malformed);
  EXPECT_EQ(fault_of(verify, signed_by(R"({"alg":"HS256","crit":["exp"]})", claims)), TokenFault::malformed);
  EXPECT_EQ(fault_of(verify, signed_by(R"({"alg":"HS256","kid":"other"})", claims)), TokenFault::no_key);
  EXPECT_EQ(fault_of(verify, signed_by(R"({"alg":"HS256","kid":7})", claims)), TokenFault::malformed);
  EXPECT_EQ(fault_of(verify, signed_by(R"({"typ":"JWT"})", claims)), TokenFault::malformed);
  EXPECT_EQ(fault_of(verify, signed_by(head, "[]")), TokenFault::malformed);
  for (const char* text : {"", ".", "..", "...", "a.b.c", "a.b.c.d", "=.=.=", "e30.e30.e30"}) {
    EXPECT_EQ(fault_of(verify, text), TokenFault::malformed) << text;
  }
  EXPECT_EQ(fault_of(verify, signed_by(head, R"({"sub":"amy","x":")" + std::string(9'000, 'x') + "\"}")),
            TokenFault::malformed);
}

TEST(JwkSets, RefuseWhatIsMalformedOrWeakAndLeaveOutWhatIsNotForSignatures) {
  const auto told = [](const std::string& text) { return parse_jwks(text) ? "" : parse_jwks(text).error().message; };
  EXPECT_EQ(told("{"), "it is no JSON object");
  EXPECT_EQ(told("{}"), "it has no list 'keys'");
  EXPECT_EQ(told(R"({"keys":[]})"), "it has no key for signatures");
  EXPECT_EQ(told(R"({"keys":[{"kty":"EC","use":"enc"}]})"), "it has no key for signatures");
  EXPECT_EQ(told(R"({"keys":[{"kty":"oct","kid":"a","k":"c2hvcnQ"}]})"),
            "key 1 (a): k of a secret has at least 32 bytes, in base64url");
  EXPECT_EQ(told(set_of({{{"kty", "EC"},
                          {"crv", "P-256"},
                          {"x", base64url_encode(std::string(32, 'x'))},
                          {"y", base64url_encode(std::string(32, 'y'))}}})),
            "key 1: a point that is not on its curve");
  EXPECT_NE(told(R"({"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]})"), "");
  nlohmann::json whole = KeyPair::make("OKP").jwk();
  whole["d"] = whole["x"];
  EXPECT_EQ(told(set_of({whole})), "key 1 (k-OKP) has its private part ('d'): only the issuer needs that");
  EXPECT_EQ(told(set_of({KeyPair::make("OKP").jwk(), {{"kty", "new"}}})), "");
}

// --- the proxy

class AuthenticateTest : public ::testing::Test {
 protected:
  AuthenticateTest()
      : origin_([](const std::string&, Wire& wire) { return wire.send(Origin::ok("x")); }),
        part_(std::make_shared<AuthenticatePolicy>()) {}
  void add_keys() {
    part_->api_keys.enabled = true;
    part_->api_keys.keys = {{"shop", sha256_hex("open sesame"), {"reader"}}, {"ops", sha256_hex("xyzzy"), {"writer"}}};
  }
  void add_users() {
    part_->basic.enabled = true;
    // The password is "password". The low number of rounds is for tests, which guess often.
    part_->basic.users = {{"amy",
                           "$6$rounds=1000$salt$O0nhCLTaysO7YRx7RhswA9LUudDbe8n/29Fg0mCv48MlTSygeX82/"
                           "gn5a5m7.zIERei.MTm0LX6AbQbQLYGS5.",
                           {"reader"}}};
  }
  void start(const std::function<void(Route&)>& set = [](Route&) {}) {
    edge_.model.policies.push_back({"auth", false, {{"authenticate", part_}}});
    Route& route = edge_.add_route("/x", edge_.add_pool("p", {origin_.endpoint()}));
    route.policies = {static_cast<uint32_t>(edge_.model.policies.size() - 1)};
    set(route);
    edge_.start();
  }
  Answer with(const std::string& fields, const std::string& path = "/x") {
    return ask(edge_.endpoint(), get(path, "a.test", fields));
  }
  static std::string basic(const std::string& text) { return "Authorization: Basic " + base64_encode(text) + "\r\n"; }
  uint64_t refused() { return edge_.metric("tidegate_l7_failures_total{reason=\"unauthenticated\"}"); }
  Edge edge_;
  Origin origin_;
  std::shared_ptr<AuthenticatePolicy> part_;
};

TEST_F(AuthenticateTest, AnApiKeyIsKnownByItsHash) {
  add_keys();
  part_->api_keys.query = "key";
  part_->identity_header = "X-Client";
  start();
  EXPECT_EQ(with("X-API-Key: open sesame\r\n").status, 200);
  EXPECT_NE(origin_.last_head().find("X-Client: shop\r\n"), std::string::npos) << origin_.last_head();
  EXPECT_EQ(with("", "/x?a=1&key=xyzzy").status, 200);
  const Answer none = with("");
  EXPECT_EQ(none.status, 401);
  EXPECT_EQ(none.field("www-authenticate"), "apikey realm=\"tidegate\"");
  EXPECT_EQ(with("X-API-Key: Open sesame\r\n").status, 401);
  EXPECT_EQ(with("X-API-Key: " + sha256_hex("open sesame") + "\r\n").status, 401) << "the hash is no key";
  EXPECT_EQ(refused(), 3u);
  EXPECT_EQ(origin_.requests(), 2u);
}

TEST_F(AuthenticateTest, AClientCannotSayItselfWhoItIs) {
  add_keys();
  part_->optional = true;
  part_->identity_header = "X-Client";
  edge_.model.listeners[0].underscores_in_headers = true;
  start();
  EXPECT_EQ(with("X-Client: root\r\nX_Client: root\r\nx-client: root\r\n").status, 200);
  EXPECT_EQ(origin_.last_head().find("root"), std::string::npos) << origin_.last_head();
  EXPECT_EQ(with("X-Client: root\r\nX-API-Key: xyzzy\r\n").status, 200);
  EXPECT_EQ(origin_.last_head().find("root"), std::string::npos);
  EXPECT_NE(origin_.last_head().find("X-Client: ops\r\n"), std::string::npos);
  EXPECT_EQ(with("X-API-Key: wrong\r\n").status, 401) << "optional: but not wrong";
}

TEST_F(AuthenticateTest, CredentialsStayHereWhereTold) {
  add_keys();
  add_users();
  part_->keep_credentials = false;
  start();
  EXPECT_EQ(with("X-API-Key: xyzzy\r\n").status, 200);
  EXPECT_EQ(origin_.last_head().find("xyzzy"), std::string::npos);
  EXPECT_EQ(with(basic("amy:password")).status, 200);
  EXPECT_EQ(origin_.last_head().find("Basic"), std::string::npos) << origin_.last_head();
}

TEST_F(AuthenticateTest, APasswordIsRightOrWrong) {
  add_users();
  start();
  const Answer none = with("");
  EXPECT_EQ(none.status, 401);
  EXPECT_EQ(none.field("www-authenticate"), "basic realm=\"tidegate\", charset=\"utf-8\"");
  EXPECT_EQ(with(basic("amy:password")).status, 200);
  EXPECT_EQ(with(basic("amy:password")).status, 200) << "known from before";
  EXPECT_EQ(with(basic("amy:Password")).status, 401);
  EXPECT_EQ(with(basic("eve:password")).status, 401);
  EXPECT_EQ(with(basic("amy")).status, 401);
  EXPECT_EQ(with("Authorization: Basic !!!\r\n").status, 401);
  EXPECT_EQ(with("Authorization: Bearer x\r\n").status, 401);
}

// Guesses do not block a worker, and clients whose passwords were right before are not affected.
TEST(Passwords, ThatWereRightLatelyCostNothingWhenNoMoreMayBeComputed) {
  BasicUsers users;
  const std::string hash =
      "$6$rounds=1000$salt$O0nhCLTaysO7YRx7RhswA9LUudDbe8n/29Fg0mCv48MlTSygeX82/gn5a5m7.zIERei.MTm0LX6AbQbQLYGS5.";
  users.users = {{"amy", hash, {}}, {"bob", hash, {}}};
  policy::Registry registry;
  std::vector<std::unique_ptr<policy::Rule>> rules;
  const HashKey key{1, 2};
  const std::string name = "who";
  policy::Compiling compiling{name, key, registry, rules};
  const policy::Users known(users, compiling);
  Arena arena;
  const policy::Known* found = nullptr;
  const auto check = [&](std::string_view user, std::string_view password, uint64_t now_ns) {
    return known.check({user, password}, now_ns, arena, found);
  };
  using policy::PasswordCheck;
  EXPECT_EQ(check("amy", "password", 1), PasswordCheck::right);
  EXPECT_EQ(found->name, "amy");
  for (uint64_t i = 1; i < kPasswordsPerSecond; ++i) {
    ASSERT_EQ(check(i % 2 == 0 ? "amy" : "eve", std::to_string(i), 1), PasswordCheck::wrong);
  }
  EXPECT_EQ(check("amy", "guess", 1), PasswordCheck::busy);
  EXPECT_EQ(check("bob", "password", 1), PasswordCheck::busy) << "not known yet";
  EXPECT_EQ(check("amy", "password", 1), PasswordCheck::right);
  EXPECT_EQ(check("bob", "password", kNsPerS), PasswordCheck::right);
  EXPECT_EQ(found->name, "bob");
  // Another version of the policy knows which passwords were right. A version with another hash does not.
  EXPECT_EQ(policy::Users(users, compiling).check({"amy", "password"}, kNsPerS, arena, found), PasswordCheck::right);
  users.users[0].hash[users.users[0].hash.size() - 1] = '/';
  EXPECT_EQ(policy::Users(users, compiling).check({"amy", "password"}, 3 * kNsPerS, arena, found),
            PasswordCheck::wrong);
}

TEST_F(AuthenticateTest, ManyGuessesAreToldToComeAgain) {
  add_users();
  start();
  EXPECT_EQ(with(basic("amy:password")).status, 200);
  std::map<int, int> statuses;
  std::string guesses;
  for (int i = 0; i < 100; ++i) guesses += get("/x", "a.test", basic("amy:" + std::to_string(i)));
  // They come faster than allowed per second: a batch takes some tens of milliseconds.
  for (int batch = 0; batch < 50 && statuses[503] == 0; ++batch) {
    Wire wire = Wire::connect(edge_.endpoint());
    wire.send(guesses);
    for (int i = 0; i < 100; ++i) ++statuses[read_answer(wire).status];
  }
  EXPECT_GT(statuses[401], 0);
  EXPECT_GT(statuses[503], 0);
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"passwords_busy\"}"),
            static_cast<uint64_t>(statuses[503]));
  EXPECT_EQ(with(basic("amy:password")).status, 200);
}

TEST_F(AuthenticateTest, ATokenNamesAClient) {
  const KeyPair pair = KeyPair::make("P-256");
  part_->jwt = rules_of({"ES256"});
  part_->jwt.keys.bytes = std::make_shared<const std::string>(set_of({pair.jwk()}));
  part_->jwt.cookie = "session";
  part_->identity_header = "X-Client";
  start();
  const std::string good = pair.token("ES256", {{"sub", "amy"}, {"exp", realtime_ns() / kNsPerS + 60}});
  EXPECT_EQ(with("Authorization: Bearer " + good + "\r\n").status, 200);
  EXPECT_NE(origin_.last_head().find("X-Client: amy\r\n"), std::string::npos);
  EXPECT_EQ(with("Cookie: a=b; session=" + good + "\r\n").status, 200);
  const Answer old = with("Authorization: bearer " + pair.token("ES256", {{"sub", "amy"}, {"exp", 5}}) + "\r\n");
  EXPECT_EQ(old.status, 401);
  EXPECT_EQ(old.field("www-authenticate"), "bearer realm=\"tidegate\", error=\"invalid_token\"");
  EXPECT_EQ(with("").field("www-authenticate"), "bearer realm=\"tidegate\"");
}

// Only the result for the signature is remembered, and only under the keys and algorithms with which it was checked.
TEST_F(AuthenticateTest, AGoodSignatureIsComputedOnceAndAllElseIsJudgedEachTime) {
  const KeyPair pair = KeyPair::make("P-256"), other = KeyPair::make("P-256");
  part_->jwt = rules_of({"ES256"});
  part_->jwt.keys.bytes = std::make_shared<const std::string>(set_of({pair.jwk()}));
  start();
  const std::string token = pair.token("ES256", {{"sub", "amy"}, {"aud", "web"}});
  const auto status = [&](const std::string& shown) { return with("Authorization: Bearer " + shown + "\r\n").status; };
  const auto counted = [&](const std::string& how) {
    return edge_.metric("tidegate_l7_token_signatures_total{policy=\"auth\",how=\"" + how + "\"}");
  };
  for (int i = 0; i < 3; ++i) EXPECT_EQ(status(token), 200);
  EXPECT_EQ(counted("checked"), 1u);
  EXPECT_EQ(counted("remembered"), 2u);
  const size_t second = token.rfind('.');
  for (const size_t at : {size_t{3}, token.find('.') + 3, second + 1, second + 40}) {
    std::string changed = token;
    changed[at] = changed[at] == 'A' ? 'B' : 'A';
    EXPECT_EQ(status(changed), 401) << at;
  }
  EXPECT_EQ(status(token.substr(0, second + 1)), 401) << "no signature";
  const auto publish = [&](const std::function<void(AuthenticatePolicy&)>& change) {
    auto changed = std::make_shared<AuthenticatePolicy>(*part_);
    change(*changed);
    edge_.model.policies[0].parts["authenticate"] = changed;
    ASSERT_TRUE(edge_.publish());
  };
  publish([](AuthenticatePolicy& part) { part.jwt.audience = {"api"}; });
  EXPECT_TRUE(edge_.run_until([&] { return status(token) == 401; })) << "it is for another audience";
  publish([](AuthenticatePolicy&) {});
  EXPECT_TRUE(edge_.run_until([&] { return status(token) == 200; }));
  publish([&](AuthenticatePolicy& part) {
    part.jwt.keys.bytes = std::make_shared<const std::string>(set_of({other.jwk()}));
  });
  EXPECT_TRUE(edge_.run_until([&] { return status(token) == 401; })) << "its key is gone";
  publish([](AuthenticatePolicy& part) { part.jwt.algorithms = {"RS256"}; });
  EXPECT_TRUE(edge_.run_until([&] { return status(pair.token("ES256", {{"sub", "x"}})) == 401; }));
  EXPECT_EQ(status(token), 401) << "its algorithm is not allowed any more";
}

TEST(Tokens, WithAGoodSignatureExpireAllTheSame) {
  const KeyPair pair = KeyPair::make("P-256");
  const JwtRules rules = rules_of({"ES256"});
  const auto good = std::make_shared<policy::GoodTokens>();
  const TokenVerifier verify(rules, *parse_jwks(set_of({pair.jwk()})), nullptr, good);
  const std::string token = pair.token("ES256", {{"sub", "amy"}, {"exp", kNow + 60}});
  EXPECT_EQ(fault_of(verify, token), TokenFault::none);
  EXPECT_EQ(fault_of(verify, token, kNow + 70), TokenFault::expired);
  EXPECT_EQ(good->checked.value(), 1u);
  EXPECT_EQ(good->remembered.value(), 1u);
}

// Memory is fixed: a forgotten signature is computed again, and a bad one is never remembered.
TEST(Tokens, MoreThanTheMemoryHoldsAreCheckedAgain) {
  policy::GoodTokens good;
  const auto token = [](int i) { return "token-" + std::to_string(i); };
  for (int i = 0; i < 100'000; ++i) good.add(7, token(i));
  int remembered = 0;
  for (int i = 0; i < 100'000; ++i) remembered += good.has(7, token(i)) ? 1 : 0;
  EXPECT_GT(remembered, 25'000);
  EXPECT_LE(remembered, 32'768);
  for (int i = 0; i < 10'000; ++i) {
    EXPECT_FALSE(good.has(7, token(-1 - i)));
    EXPECT_FALSE(good.has(8, token(99'999 - i))) << "judged by other keys";
  }
}

// Serves a JWK set that the test can change.
class KeyServer {
 public:
  explicit KeyServer(std::string text)
      : text_(std::move(text)), origin_([this](const std::string&, Wire& wire) {
          const std::lock_guard lock(mutex_);
          return wire.send(Origin::ok(text_));
        }) {}
  void serve(std::string text) {
    const std::lock_guard lock(mutex_);
    text_ = std::move(text);
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(origin_.endpoint().port) + "/jwks.json"; }
  size_t requests() const { return origin_.requests(); }
  void die() { origin_.die(); }

 private:
  std::mutex mutex_;
  std::string text_;
  Origin origin_;
};

class FetchedKeysTest : public AuthenticateTest {
 protected:
  void start_with(const std::string& url) {
    part_->jwt = rules_of({"ES256"});
    part_->jwt.keys_url = url;
    start();
  }
  static std::string token(const KeyPair& pair) {
    return "Authorization: Bearer " + pair.token("ES256", {{"sub", "amy"}}) + "\r\n";
  }
  static KeyPair pair_of(const std::string& kid) {
    KeyPair pair = KeyPair::make("P-256");
    pair.kid = kid;
    return pair;
  }
  int status(const KeyPair& pair) { return with(token(pair)).status; }
  uint64_t counted(const std::string& what) { return edge_.metric("tidegate_l7_jwks_" + what + "{policy=\"auth\"}"); }
};

TEST_F(FetchedKeysTest, AreThoseOfTheUrlAndAnUnknownKeyHasThemFetchedEarly) {
  const KeyPair first = pair_of("1"), second = pair_of("2");
  KeyServer server(set_of({first.jwk()}));
  start_with(server.url());
  EXPECT_EQ(status(first), 503) << "there are none yet";
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"auth_unavailable\"}"), 1u);
  ASSERT_TRUE(edge_.run_until([&] { return status(first) == 200; }));
  EXPECT_EQ(counted("keys"), 1u);
  server.serve(set_of({second.jwk()}));
  EXPECT_EQ(status(second), 401);
  ASSERT_TRUE(edge_.run_until([&] { return status(second) == 200; }));
  EXPECT_EQ(status(first), 401) << "it is no key of the issuer's any more";
  EXPECT_EQ(counted("early_total"), 1u);
  EXPECT_EQ(counted("fetches_total"), 2u);
  HttpRequest request;
  request.query = "url=http://a.test/x&client=192.0.2.1";
  EXPECT_EQ((*edge_.proxy().explain(request))["policies"][0]["keys"]["count"], 1);
}

TEST_F(FetchedKeysTest, StayWhereTheUrlFailsOrBringsNone) {
  const KeyPair pair = pair_of("1"), other = pair_of("2");
  KeyServer server(set_of({pair.jwk()}));
  start_with(server.url());
  ASSERT_TRUE(edge_.run_until([&] { return status(pair) == 200; }));
  server.serve(std::string(kKeySetBytes + 1, ' '));
  EXPECT_EQ(status(other), 401);
  ASSERT_TRUE(edge_.run_until([&] { return counted("failures_total") == 1; }));
  EXPECT_EQ(status(pair), 200);
  server.die();
  ASSERT_TRUE(edge_.run_until([&] { return counted("failures_total") == 2; })) << "it is tried again by itself";
  EXPECT_EQ(status(pair), 200);
  // A new version of the policy that asks for other claims has the keys at once.
  auto changed = std::make_shared<AuthenticatePolicy>(*part_);
  changed->jwt.audience = {"api"};
  edge_.model.policies[0].parts["authenticate"] = changed;
  ASSERT_TRUE(edge_.publish());
  ASSERT_TRUE(edge_.run_until([&] { return status(pair) == 401; }));
  EXPECT_EQ(counted("keys"), 1u);
}

// A token that was good becomes invalid with its key.
TEST_F(FetchedKeysTest, EndWhatIsRememberedOfTheirTokens) {
  const KeyPair first = pair_of("1"), second = pair_of("2");
  KeyServer server(set_of({first.jwk()}));
  start_with(server.url());
  const std::string shown = token(first);
  ASSERT_TRUE(edge_.run_until([&] { return with(shown).status == 200; }));
  EXPECT_EQ(with(shown).status, 200);
  server.serve(set_of({second.jwk()}));
  EXPECT_EQ(status(second), 401);
  ASSERT_TRUE(edge_.run_until([&] { return status(second) == 200; }));
  EXPECT_EQ(with(shown).status, 401);
}

// Anybody can name a missing key.
TEST_F(FetchedKeysTest, CannotBeFetchedEarlyWithoutEnd) {
  const KeyPair pair = pair_of("1");
  KeyServer server(set_of({pair.jwk()}));
  start_with(server.url());
  ASSERT_TRUE(edge_.run_until([&] { return status(pair) == 200; }));
  int named = 0;
  const auto name_one = [&] { EXPECT_EQ(status(pair_of("x" + std::to_string(++named))), 401); };
  ASSERT_TRUE(edge_.run_until([&] {
    name_one();
    return counted("early_total") == kKeySetEarlyBurst;
  }));
  // None of the requests now causes a fetch.
  const uint64_t end_ns = monotonic_ns() + 600 * kNsPerMs;  // more than two looks of the fetcher
  edge_.run_until([&] {
    name_one();
    return monotonic_ns() > end_ns;
  });
  EXPECT_EQ(server.requests(), 1 + kKeySetEarlyBurst);
  EXPECT_EQ(status(pair), 200) << "the honest client is served all the time";
}

TEST_F(AuthenticateTest, RolesDecideByMethod) {
  add_keys();
  auto authorise = std::make_shared<AuthorisePolicy>();
  authorise->rules = {{{"GET"}, {"reader", "writer"}, {}}, {{"PUT"}, {"writer"}, {}}};
  edge_.model.policies.push_back({"roles", true, {{"authorise", authorise}}});
  start();
  const auto status = [&](const std::string& method, const std::string& key) {
    Wire wire = Wire::connect(edge_.endpoint());
    wire.send(method + " /x HTTP/1.1\r\nHost: a\r\nX-API-Key: " + key + "\r\n\r\n");
    return read_answer(wire, true).status;
  };
  EXPECT_EQ(status("GET", "open sesame"), 200);
  EXPECT_EQ(status("HEAD", "open sesame"), 200);
  EXPECT_EQ(status("PUT", "open sesame"), 403);
  EXPECT_EQ(status("PUT", "xyzzy"), 200);
  EXPECT_EQ(status("DELETE", "xyzzy"), 403);
  EXPECT_EQ(status("GET", "wrong"), 401) << "who it is comes first, wherever the policies are bound";
  EXPECT_EQ(with("", "/none").status, 403) << "everywhere: nobody is known there";
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"forbidden\"}"), 3u);
}

// Default deny: a new route without a policy is closed for everybody.
TEST_F(AuthenticateTest, AListenerThatAsksForAnIdentityRefusesRoutesThatKnowNobody) {
  add_keys();
  auto authorise = std::make_shared<AuthorisePolicy>();
  authorise->rules = {{}};
  edge_.model.policies.push_back({"known-only", false, {{"authorise", authorise}}});
  edge_.model.listeners[0].policies = {0};
  edge_.add_fixed("/forgotten", 204);
  start();
  EXPECT_EQ(with("X-API-Key: xyzzy\r\n", "/forgotten").status, 403);
  EXPECT_EQ(with("X-API-Key: xyzzy\r\n").status, 200);
  EXPECT_EQ(with("").status, 401);
  EXPECT_EQ(with("", "/nowhere").status, 403) << "nor does it tell which paths there are";
}

TEST_F(AuthenticateTest, ClaimsDecideBesideRoles) {
  const KeyPair pair = KeyPair::make("oct");
  add_keys();
  part_->jwt = rules_of({"HS256"});
  part_->jwt.keys.bytes = std::make_shared<const std::string>(set_of({pair.jwk()}));
  auto authorise = std::make_shared<AuthorisePolicy>();
  authorise->rules = {{{"GET"}, {"reader"}, {{"org.department", {"sales", "ops"}}, {"plan", {"gold"}}}}};
  edge_.model.policies.push_back({"claims", true, {{"authorise", authorise}}});
  start();
  const auto status = [&](nlohmann::json claims) {
    claims["sub"] = "amy";
    if (!claims.contains("roles")) claims["roles"] = {"reader"};
    return with("Authorization: Bearer " + pair.token("HS256", claims) + "\r\n").status;
  };
  EXPECT_EQ(status({{"org", {{"department", "ops"}}}, {"plan", {"free", "gold"}}}), 200);
  EXPECT_EQ(status({{"org", {{"department", "ops"}}}, {"plan", "free"}}), 403);
  EXPECT_EQ(status({{"org", {{"department", "it"}}}, {"plan", "gold"}}), 403);
  EXPECT_EQ(status({{"plan", "gold"}}), 403);
  EXPECT_EQ(status({{"org", {{"department", "ops"}}}, {"plan", "gold"}, {"roles", {"writer"}}}), 403);
  EXPECT_EQ(with("X-API-Key: open sesame\r\n").status, 403) << "a key has no claims";
}

TEST_F(AuthenticateTest, NetworksDecideByTheLongest) {
  edge_.model.listeners[0].trusted_proxies = {*Cidr::parse("127.0.0.0/8")};
  auto authorise = std::make_shared<AuthorisePolicy>();
  authorise->allow = {*Cidr::parse("192.0.2.0/24"), *Cidr::parse("2001:db8::/32")};
  authorise->deny = {*Cidr::parse("192.0.2.128/25"), *Cidr::parse("2001:db8::/32")};
  edge_.model.policies.push_back({"net", true, {{"authorise", authorise}}});
  edge_.add_fixed("/x", 204);
  edge_.start();
  const auto status = [&](const std::string& client) { return with("X-Forwarded-For: " + client + "\r\n").status; };
  EXPECT_EQ(status("192.0.2.1"), 204);
  EXPECT_EQ(status("192.0.2.129"), 403);
  EXPECT_EQ(status("198.51.100.1"), 403);
  EXPECT_EQ(status("2001:db8::1"), 403) << "deny wins a tie";
}

TEST_F(AuthenticateTest, ALimitByIdentityFollowsTheClientNotItsAddress) {
  add_keys();
  auto limit = std::make_shared<LimitPolicy>();
  limit->requests = 1;
  limit->per_ms = 3'600'000;
  limit->by = {"identity"};
  edge_.model.policies.push_back({"each", true, {{"limit", limit}}});
  start();
  EXPECT_EQ(with("X-API-Key: wrong\r\n").status, 401);
  EXPECT_EQ(with("X-API-Key: xyzzy\r\n").status, 200);
  EXPECT_EQ(with("X-API-Key: xyzzy\r\n").status, 429);
  EXPECT_EQ(with("X-API-Key: open sesame\r\n").status, 200);
}

}  // namespace tidegate::l7::test::authenticate_test
