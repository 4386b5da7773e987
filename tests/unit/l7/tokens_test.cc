// SPDX-License-Identifier: Apache-2.0
// Tokens alone: their JSON, signatures, claims and times, and what is remembered of them.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/crypto.h"
#include "l7/policy/claims.h"
#include "l7/policy/good_tokens.h"
#include "l7/policy/json_scan.h"
#include "l7/policy/jwt.h"
#include "tests/unit/l7/token_signer.h"

namespace tidegate::l7::test::tokens_test {

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
  EXPECT_EQ(told(set_of({whole})), "key 1 (k-OKP): it has its private part ('d'): only the issuer needs that");
  EXPECT_EQ(told(set_of({KeyPair::make("OKP").jwk(), {{"kty", "new"}}})), "");
}

// What issuers publish beside the keys that we know: secp256k1, Ed448, and keys that only encrypt.
TEST(JwkSets, LeaveOutUnknownCurvesAndKeysForOtherWork) {
  const nlohmann::json good = KeyPair::make("P-256").jwk();
  nlohmann::json encrypts = good, verifies = good;
  encrypts["key_ops"] = {"encrypt", "wrapKey"};
  verifies["key_ops"] = {"verify"};
  const auto read = parse_jwks(set_of({{{"kty", "EC"}, {"crv", "secp256k1"}, {"x", "AA"}, {"y", "AA"}},
                                       {{"kty", "OKP"}, {"crv", "Ed448"}, {"x", "AA"}},
                                       {{"kty", "OKP"}, {"crv", "X25519"}, {"x", "AA"}},
                                       encrypts,
                                       verifies}));
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->size(), 1u);
}

TEST(JwkSets, OfAnIssuerLoseABadKeyAlone) {
  const nlohmann::json weak = {{"kty", "RSA"}, {"kid", "w"}, {"n", "AQAB"}, {"e", "AQAB"}};
  const auto none = nlohmann::json(7);
  std::vector<std::string> left_out;
  const auto read = parse_jwks(set_of({weak, none, KeyPair::make("P-256").jwk()}), &left_out);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->size(), 1u);
  ASSERT_EQ(left_out.size(), 2u);
  EXPECT_EQ(left_out[0].substr(0, 10), "key 1 (w):");
  EXPECT_EQ(left_out[1], "key 2: it is no object");
  const auto nothing = parse_jwks(set_of({weak}), &left_out);
  ASSERT_FALSE(nothing);
  EXPECT_EQ(nothing.error().message.substr(0, 33), "it has no good key; key 1 (w): an");
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

}  // namespace tidegate::l7::test::tokens_test
