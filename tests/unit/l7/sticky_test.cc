// SPDX-License-Identifier: Apache-2.0
#include "l7/exchange/sticky.h"
#include "conf/model.h"
#include "conf/model/pool.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::sticky_test {

struct Sticky : ::testing::Test {
  Sticky() {
    auto model = std::make_shared<Model>();
    for (const char* name : {"p", "q"}) {
      Pool pool;
      pool.name = name;
      for (const char* backend_name : {"a", "b", "c"}) {
        Backend backend;
        backend.name = backend_name;
        backend.addresses = {*IpAddress::parse("192.0.2.1")};
        pool.backends.push_back(backend);
      }
      model->pools.push_back(pool);
    }
    snapshot = make_snapshot(1, "d", model, std::make_shared<LiveState>());
  }
  RuntimeRegistry registry;
  std::shared_ptr<const Snapshot> snapshot;
  const HashKey key{1, 2};
};

TEST_F(Sticky, ATokenNamesItsServerInItsPoolUntilItIsOver) {
  const BackendPool p(*snapshot, 0, registry, key), q(*snapshot, 1, registry, key);
  for (const PoolMember& member : p.members()) {
    const std::string token = sticky_token(key, p, member, 1'000);
    EXPECT_EQ(sticky_member(key, p, token, 999), &member);
    EXPECT_EQ(sticky_member(key, p, token, 1'000), nullptr) << "over";
    EXPECT_EQ(sticky_member(key, q, token, 999), nullptr) << "of another pool";
    EXPECT_EQ(sticky_member({1, 3}, p, token, 999), nullptr) << "of another site";
    EXPECT_EQ(token.find(member.name + "/"), std::string::npos);
    for (size_t i = 0; i < token.size(); ++i) {
      std::string forged = token;
      forged[i] = forged[i] == '1' ? '2' : '1';
      EXPECT_EQ(sticky_member(key, p, forged, 500), nullptr) << i;
      EXPECT_EQ(sticky_member(key, p, token.substr(0, i), 500), nullptr) << i;
    }
  }
  for (const char* nonsense : {"", ".", "..", "zz", "1.2.3", "ffffffffffffffff.0.0"}) {
    EXPECT_EQ(sticky_member(key, p, nonsense, 1), nullptr) << nonsense;
  }
}

class StickyProxy : public ::testing::Test {
 protected:
  void start(StickyBy by, uint64_t ttl_ms = 0) {
    const uint32_t pool = edge_.add_pool("p", {one_.endpoint(), two_.endpoint()});
    edge_.model.pools[pool].sticky = {.by = by, .name = "lane", .ttl_ms = ttl_ms};
    edge_.model.pools[pool].retry_attempts = 1;
    edge_.add_route("/*", pool);
    edge_.start();
  }
  Answer with(const std::string& fields) { return ask(edge_.endpoint(), get("/", "a.test", fields)); }
  Origin one_{Origin::says("one")}, two_{Origin::says("two")};
  Edge edge_;
};

TEST_F(StickyProxy, ACookieKeepsAClientOnItsBackend) {
  start(StickyBy::cookie, 60'000);
  std::set<std::string> seen;
  for (int i = 0; i < 2; ++i) {
    const Answer first = with("");
    const std::string set = first.field("set-cookie");
    ASSERT_TRUE(set.starts_with("lane=")) << set;
    EXPECT_NE(set.find("; path=/; httponly; samesite=lax; max-age=60"), std::string::npos) << set;
    const std::string cookie = "Cookie: x=1; " + set.substr(0, set.find(';')) + "; y=2\r\n";
    seen.insert(first.body);
    for (int k = 0; k < 6; ++k) {
      const Answer next = with(cookie);
      EXPECT_EQ(next.body, first.body);
      EXPECT_EQ(next.field("set-cookie"), "") << "it has it already";
    }
  }
  EXPECT_EQ(seen.size(), 2u) << "new clients are balanced";
}

TEST_F(StickyProxy, AFieldKeepsAClientOnItsBackend) {
  start(StickyBy::header);
  const Answer first = with("");
  for (int k = 0; k < 6; ++k) EXPECT_EQ(with("Lane: " + first.field("lane") + "\r\n").body, first.body);
}

TEST_F(StickyProxy, AForgedTokenIsBalancedLikeNone) {
  start(StickyBy::cookie);
  std::set<std::string> bodies;
  for (int i = 0; i < 4; ++i) {
    const Answer answer = with("Cookie: lane=ffffffff.0123456789abcdef.0123456789abcdef0123456789abcdef\r\n");
    bodies.insert(answer.body);
    EXPECT_TRUE(answer.field("set-cookie").starts_with("lane="));
  }
  EXPECT_EQ(bodies.size(), 2u);
}

TEST_F(StickyProxy, AClientWhoseBackendIsGoneGetsAnother) {
  start(StickyBy::cookie);
  const Answer first = with("");
  (first.body == "one" ? one_ : two_).die();
  const std::string set = first.field("set-cookie");
  const Answer next = with("Cookie: " + set.substr(0, set.find(';')) + "\r\n");
  EXPECT_EQ(next.status, 200);
  EXPECT_NE(next.body, first.body);
  EXPECT_TRUE(next.field("set-cookie").starts_with("lane=")) << "and is kept there from now on";
}

}  // namespace tidegate::l7::test::sticky_test
