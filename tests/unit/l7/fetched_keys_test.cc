// SPDX-License-Identifier: Apache-2.0
// Keys of tokens that are fetched from a URL, and what clients of the proxy see.
#include <gtest/gtest.h>

#include <mutex>

#include "conf/model.h"
#include "conf/model/policy.h"
#include "core/clock.h"
#include "l7/limits.h"
#include "tests/unit/l7/authenticated_edge.h"
#include "tests/unit/l7/token_signer.h"

namespace tidegate::l7::test::fetched_keys_test {

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

class FetchedKeysTest : public AuthenticatedEdge {
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

// Nor does it become good again if the document names another issuer, and then the first one again.
TEST_F(FetchedKeysTest, AnInvalidTokenStaysSoWhenItsUrlComesBack) {
  const KeyPair first = pair_of("1"), second = pair_of("2");
  KeyServer server(set_of({first.jwk()})), other(set_of({second.jwk()}));
  start_with(server.url());
  const std::string shown = token(first);
  ASSERT_TRUE(edge_.run_until([&] { return with(shown).status == 200; }));
  EXPECT_EQ(with(shown).status, 200) << "its signature is remembered";
  const auto use = [this](const std::string& url) {
    auto changed = std::make_shared<AuthenticatePolicy>(*part_);
    changed->jwt.keys_url = url;
    edge_.model.policies[0].parts["authenticate"] = changed;
    ASSERT_TRUE(edge_.publish());
  };
  use(other.url());
  ASSERT_TRUE(edge_.run_until([&] { return status(second) == 200; }));
  EXPECT_EQ(with(shown).status, 401);
  const KeyPair third = pair_of("3");
  server.serve(set_of({third.jwk()}));
  use(server.url());
  ASSERT_TRUE(edge_.run_until([&] { return status(third) == 200; }));
  EXPECT_EQ(with(shown).status, 401);
}

TEST_F(FetchedKeysTest, StayInForceWhenTheyAreToBeFetchedMoreOften) {
  const KeyPair pair = pair_of("1");
  KeyServer server(set_of({pair.jwk()}));
  start_with(server.url());
  ASSERT_TRUE(edge_.run_until([&] { return status(pair) == 200; }));
  server.die();
  auto changed = std::make_shared<AuthenticatePolicy>(*part_);
  changed->jwt.keys_refresh_ms = 100;
  changed->jwt.audience = {"api"};
  edge_.model.policies[0].parts["authenticate"] = changed;
  ASSERT_TRUE(edge_.publish());
  ASSERT_TRUE(edge_.run_until([&] { return status(pair) != 200; })) << "it is for no audience";
  EXPECT_EQ(status(pair), 401) << "not 503: the keys are there";
  ASSERT_TRUE(edge_.run_until([&] { return counted("failures_total") != 0; })) << "it is fetched at the new pace";
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

}  // namespace tidegate::l7::test::fetched_keys_test
