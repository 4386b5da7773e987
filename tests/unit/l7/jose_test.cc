// SPDX-License-Identifier: Apache-2.0
// Tokens are judged as `jose` (José, of Latchset) judges them: its own tokens, and the same with single changed
// characters.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>

#include "l7/policy/jwt.h"
#include "tests/unit/l7/state_dir.h"

namespace tidegate::l7::test::jose_test {

class Jose {
 public:
  bool run(const std::string& command) const {
    return std::system(("cd " + directory_.path + " && jose " + command + " >out 2>&1").c_str()) == 0;
  }
  std::string read(const std::string& name) const {
    std::ostringstream text;
    text << std::ifstream(directory_.path + "/" + name).rdbuf();
    return text.str();
  }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(directory_.path + "/" + name) << text;
  }

 private:
  const StateDir directory_;
};

TEST(LongJoseTwin, JudgesTokensAlike) {
  const Jose jose;
  ASSERT_TRUE(jose.run("alg")) << "the package jose is missing";
  const std::pair<const char*, std::vector<std::string>> rows[] = {
      {R"({"kty":"oct","bytes":64})", {"HS256", "HS384", "HS512"}},
      {R"({"kty":"RSA","bits":2048})", {"RS256", "RS512", "PS256", "PS384"}},
      {R"({"kty":"EC","crv":"P-256"})", {"ES256"}},
      {R"({"kty":"EC","crv":"P-384"})", {"ES384"}},
      {R"({"kty":"EC","crv":"P-521"})", {"ES512"}}};
  std::mt19937 random(7);
  jose.write("claims", R"({"sub":"amy","roles":["a"]})");
  for (const auto& [key, algorithms] : rows) {
    jose.write("template", key);
    ASSERT_TRUE(jose.run("jwk gen -i template -o key.jwk")) << jose.read("out");
    const bool secret = std::string_view(key).find("oct") != std::string_view::npos;
    const std::string judges = secret ? "key.jwk" : "public.jwk";
    if (!secret) ASSERT_TRUE(jose.run("jwk pub -i key.jwk -o public.jwk")) << jose.read("out");
    const Result<std::vector<Jwk>> keys = parse_jwks("{\"keys\":[" + jose.read(judges) + "]}");
    ASSERT_TRUE(keys) << keys.error().message;
    for (const std::string& algorithm : algorithms) {
      JwtRules rules;
      rules.enabled = true;
      rules.algorithms = {algorithm};
      const policy::TokenVerifier verifier(rules, *keys);
      jose.write("head", R"({"protected":{"alg":")" + algorithm + "\"}}");
      ASSERT_TRUE(jose.run("jws sig -I claims -k key.jwk -s head -c -o token")) << jose.read("out");
      const std::string token = jose.read("token");
      for (int change = 0; change < 5; ++change) {
        std::string text = token;
        if (change > 0) {
          // Not the last character of a part, because its lowest bits may mean nothing.
          const size_t at = random() % token.size();
          if (at + 1 == token.size() || text[at] == '.' || text[at + 1] == '.') continue;
          text[at] = text[at] == 'A' ? 'B' : 'A';
        }
        Arena arena;
        policy::TokenClaims claims;
        const bool good = verifier.verify(text, 1'700'000'000, arena, claims) == policy::TokenFault::none;
        jose.write("changed", text);
        EXPECT_EQ(good, jose.run("jws ver -i changed -k " + judges)) << algorithm << ": " << text;
        EXPECT_EQ(good, change == 0) << algorithm << ": " << text;
      }
    }
  }
}

}  // namespace tidegate::l7::test::jose_test
