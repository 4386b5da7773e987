// SPDX-License-Identifier: Apache-2.0
// Who clients are: by key, password and token.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/policy.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "l7/limits.h"
#include "l7/policy/credentials.h"
#include "tests/unit/l7/authenticated_edge.h"
#include "tests/unit/l7/token_signer.h"

namespace tidegate::l7::test::authenticate_test {

class AuthenticateTest : public AuthenticatedEdge {};

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

// The backend gets both values. It may read the second one, which the proxy has not judged.
TEST_F(AuthenticateTest, TwoDifferentCredentialsOfAKindAreRefused) {
  add_keys();
  add_users();
  part_->api_keys.query = "key";
  part_->jwt = rules_of({"HS256"});
  const KeyPair pair = KeyPair::make("oct");
  part_->jwt.keys.bytes = std::make_shared<const std::string>(set_of({pair.jwk()}));
  part_->jwt.cookie = "token";
  start();
  const std::string good = pair.token("HS256", {{"sub", "amy"}}), evil = good.substr(0, good.rfind('.')) + ".AAAA";
  const std::string key = "X-API-Key: xyzzy\r\n", bearer = "Authorization: Bearer " + good + "\r\n";
  const auto cookies = [](const std::string& one, const std::string& two) {
    return "Cookie: a=b; token=" + one + "; token=" + two + "\r\n";
  };
  EXPECT_EQ(with(key + key).status, 200);
  EXPECT_EQ(with(bearer + bearer).status, 200);
  EXPECT_EQ(with(cookies(good, good)).status, 200);
  EXPECT_EQ(with("", "/x?key=xyzzy&a=b&key=xyzzy").status, 200);
  EXPECT_EQ(with(key + "X-Api-Key: root\r\n").status, 401);
  EXPECT_EQ(with(bearer + "Authorization: Bearer " + evil + "\r\n").status, 401);
  EXPECT_EQ(with(basic("amy:password") + basic("root:password")).status, 401);
  EXPECT_EQ(with(cookies(good, evil)).status, 401);
  EXPECT_EQ(with("Cookie: token=" + good + "\r\nCookie: token=" + evil + "\r\n").status, 401);
  EXPECT_EQ(with("", "/x?key=xyzzy&k%65y=root").status, 401);
  EXPECT_EQ(origin_.requests(), 4u);
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
  const PolicyContent content;
  policy::Compiling compiling{name, content, key, registry, rules};
  const policy::Users known(known_by_name(users), compiling);
  Arena arena;
  const Known* found = nullptr;
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
  EXPECT_EQ(policy::Users(known_by_name(users), compiling).check({"amy", "password"}, kNsPerS, arena, found),
            PasswordCheck::right);
  users.users[0].hash[users.users[0].hash.size() - 1] = '/';
  EXPECT_EQ(policy::Users(known_by_name(users), compiling).check({"amy", "password"}, 3 * kNsPerS, arena, found),
            PasswordCheck::wrong);
}

TEST_F(AuthenticateTest, ManyGuessesAreToldToComeAgain) {
  add_users();
  start();
  EXPECT_EQ(with(basic("amy:password")).status, 200);
  std::map<int, int> statuses;
  std::string guesses;
  for (int i = 0; i < 100; ++i) guesses += get("/x", "a.test", basic("amy:" + std::to_string(i)));
  // The guesses come faster than the bound per second: a batch takes some tens of milliseconds.
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

}  // namespace tidegate::l7::test::authenticate_test
