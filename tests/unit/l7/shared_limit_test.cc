// SPDX-License-Identifier: Apache-2.0
// Limits that several proxies share through a real Redis server: there, gone, and slow.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "conf/model.h"
#include "conf/model/policy.h"
#include "conf/policy/limit.h"
#include "core/http_server.h"
#include "l7/policy/shared_quota.h"
#include "tests/unit/l7/state_dir.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::shared_limit_test {

class RedisServer {
 public:
  explicit RedisServer(std::string password = {}) : password_(std::move(password)) {
    // The kernel chooses a free port. If another process takes it before Redis does, the test fails.
    const UniqueFd probe(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_storage address{};
    socklen_t length = Endpoint::parse("127.0.0.1:0")->to_sockaddr(address);
    EXPECT_EQ(::bind(probe.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    ::getsockname(probe.get(), reinterpret_cast<sockaddr*>(&address), &length);
    endpoint = Endpoint::from(address);
  }
  ~RedisServer() { kill(); }
  RedisServer(const RedisServer&) = delete;
  RedisServer& operator=(const RedisServer&) = delete;

  void start() {
    std::vector<std::string> words = {"/usr/bin/redis-server",
                                      "--port",
                                      std::to_string(endpoint.port),
                                      "--bind",
                                      "127.0.0.1",
                                      "--save",
                                      "",
                                      "--appendonly",
                                      "no",
                                      "--dir",
                                      directory_.path};
    if (!password_.empty()) words.insert(words.end(), {"--requirepass", password_});
    pid_ = ::fork();
    if (pid_ == 0) {
      if (std::freopen("/dev/null", "a", stdout) == nullptr) ::_exit(126);
      std::vector<char*> arguments;
      for (std::string& word : words) arguments.push_back(word.data());
      arguments.push_back(nullptr);
      ::execv(arguments[0], arguments.data());
      ::_exit(127);
    }
    ASSERT_GT(pid_, 0);
    // The server runs as soon as it accepts a connection.
    for (;;) {
      const UniqueFd probe(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      sockaddr_storage address{};
      const socklen_t length = endpoint.to_sockaddr(address);
      if (::connect(probe.get(), reinterpret_cast<sockaddr*>(&address), length) == 0) return;
      ASSERT_EQ(::waitpid(pid_, nullptr, WNOHANG), 0) << "redis-server ended";
      std::this_thread::yield();
    }
  }
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  void pause() const { ::kill(pid_, SIGSTOP); }
  void go_on() const { ::kill(pid_, SIGCONT); }

  Endpoint endpoint;

 private:
  const std::string password_;
  const StateDir directory_;
  pid_t pid_ = 0;
};

// A proxy with one limit for everything.
struct LimitedEdge : Edge {
  explicit LimitedEdge(const Endpoint& redis, const std::function<void(LimitPolicy&)>& set) {
    auto part = std::make_shared<LimitPolicy>();
    part->shared.enabled = true;
    part->shared.address = redis;
    part->shared.timeout_ms = 1'000;  // on a busy machine; what is shorter is for the tests of slow servers
    part->per_ms = 3'600'000;
    set(*part);
    model.policies.push_back({"q", true, {{"limit", part}}});
    add_fixed("/x", 204);
    start();
  }
  Answer ask_x() { return ask(endpoint(), get("/x")); }
  int passed(int requests) {
    int count = 0;
    for (int i = 0; i < requests; ++i) count += ask_x().status == 204 ? 1 : 0;
    return count;
  }
  uint64_t of(const std::string& family) const { return metric(family + "{policy=\"q\"}"); }
  bool is_up() const { return of("tidegate_l7_limit_redis_up") == 1; }
};

TEST(SharedLimit, ThreeProxiesHaveOneQuotaAndAskSeldom) {
  RedisServer redis;
  redis.start();
  const auto set = [](LimitPolicy& part) { part.requests = 600; };
  LimitedEdge edges[] = {LimitedEdge(redis.endpoint, set), LimitedEdge(redis.endpoint, set),
                         LimitedEdge(redis.endpoint, set)};
  int passed = 0, requests = 0;
  for (int round = 0; round < 300; ++round) {
    for (LimitedEdge& edge : edges) passed += edge.passed(1), ++requests;
  }
  EXPECT_GE(passed, 570);
  EXPECT_LE(passed, 630);
  uint64_t calls = 0;
  for (const LimitedEdge& edge : edges) {
    calls += edge.of("tidegate_l7_limit_redis_calls_total");
    EXPECT_EQ(edge.of("tidegate_l7_limit_redis_unanswered_total"), 0u);
  }
  EXPECT_LE(calls, 60u + 3 * 5) << "0.05 a request, and some for each second of refusals on a slow machine";
  const Answer refused = edges[0].ask_x();
  EXPECT_EQ(refused.status, 429);
  EXPECT_GE(std::stoi(refused.field("retry-after")), 1);
  EXPECT_EQ(refused.field("ratelimit-policy"), "\"q\";q=600;w=3600");
  EXPECT_EQ(refused.field("ratelimit").substr(0, 8), "\"q\";r=0;");
}

TEST(SharedLimit, TellsWhatWasLeftOfTheQuotaOfAll) {
  RedisServer redis;
  redis.start();
  const auto set = [](LimitPolicy& part) { part.requests = 100; };  // leases of one
  LimitedEdge first(redis.endpoint, set), second(redis.endpoint, set);
  EXPECT_EQ(first.ask_x().field("ratelimit"), "\"q\";r=99;t=36");
  EXPECT_EQ(second.passed(10), 10);
  EXPECT_EQ(first.ask_x().field("ratelimit").substr(0, 9), "\"q\";r=88;") << "what the other one took, too";
  EXPECT_EQ(second.passed(89), 88);
  const Answer refused = first.ask_x();
  EXPECT_EQ(refused.status, 429);
  EXPECT_GT(std::stoi(refused.field("retry-after")), 20) << "there is a token in 36 s, not when we ask again";
  EXPECT_GT(std::stoi(refused.field("ratelimit").substr(10)), 3'500)
      << "until the quota is whole: " << refused.field("ratelimit");
}

TEST(SharedLimit, WithoutTheServerEachProxyDoesAsOnFailureSays) {
  RedisServer nobody;  // never started
  for (const OnFailure on_failure : {OnFailure::local, OnFailure::open, OnFailure::closed}) {
    LimitedEdge edge(nobody.endpoint, [&](LimitPolicy& part) {
      part.requests = 3;
      part.shared.on_failure = on_failure;
    });
    const int passed = edge.passed(6);
    EXPECT_EQ(passed, on_failure == OnFailure::local ? 3 : on_failure == OnFailure::open ? 6 : 0);
    EXPECT_EQ(edge.of("tidegate_l7_limit_redis_unanswered_total"), 6u);
    EXPECT_FALSE(edge.is_up());
    HttpRequest request;
    request.query = "client=127.0.0.1&url=http://a.test/x";
    const nlohmann::json entry = (*edge.proxy().explain(request))["policies"][0];
    EXPECT_EQ(entry["shared"]["up"], false);
    EXPECT_EQ(entry["verdict"], on_failure == OnFailure::closed ? "refused" : "passed");
  }
}

// The server stops, dies, and comes back without its data: requests continue, and the quota applies again.
TEST(SharedLimit, AServerThatStandsStillOrIsStartedAgainIsUsedAgain) {
  RedisServer redis("secret words");
  redis.start();
  LimitedEdge edge(redis.endpoint, [](LimitPolicy& part) {
    part.requests = 8;  // leases of one
    part.by = {"header:X-Key"};
    part.shared.timeout_ms = 20;
    part.shared.password = "secret words";
    part.shared.on_failure = OnFailure::open;
  });
  EXPECT_EQ(edge.ask_x().status, 204);
  redis.pause();
  for (int i = 0; i < 30; ++i) {
    EXPECT_EQ(ask(edge.endpoint(), get("/x", "a", "X-Key: " + std::to_string(i) + "\r\n")).status, 204);
  }
  EXPECT_GE(edge.of("tidegate_l7_limit_redis_unanswered_total"), 1u);
  EXPECT_GE(edge.of("tidegate_l7_limit_redis_failures_total"), 1u);
  redis.go_on();
  EXPECT_TRUE(edge.run_until([&] { return edge.is_up(); }));
  redis.kill();
  EXPECT_TRUE(edge.run_until([&] {
    edge.ask_x();
    return !edge.is_up();
  }));
  redis.start();
  EXPECT_TRUE(edge.run_until([&] { return edge.is_up(); }));
  // The restarted server does not know the script any more, and counts from zero.
  EXPECT_TRUE(edge.run_until([&] { return edge.ask_x().status == 429; }));
}

TEST(SharedLimit, AWrongPasswordIsAServerThatDoesNotAnswer) {
  RedisServer redis("right");
  redis.start();
  LimitedEdge edge(redis.endpoint, [](LimitPolicy& part) {
    part.requests = 2;
    part.shared.password = "wrong";
  });
  EXPECT_EQ(edge.passed(4), 2) << "the proxy's own quota";
  EXPECT_TRUE(edge.run_until([&] { return !edge.is_up(); }));
}

TEST(SharedLimit, ALeaseIsASmallPartOfTheQuota) {
  using Terms = policy::SharedQuota::Terms;
  EXPECT_EQ(Terms::lease_of(5, 60'000, 5), 1u);
  EXPECT_EQ(Terms::lease_of(600, 60'000, 600), 10u);
  EXPECT_EQ(Terms::lease_of(1'000, 1'000, 1'000), 50u);
  EXPECT_EQ(Terms::lease_of(1'000, 1'000, 8), 2u) << "of a small burst";
  EXPECT_EQ(Terms::lease_of(1'000'000'000, 86'400'000, 1'000'000'000), 10'000u);
}

}  // namespace tidegate::l7::test::shared_limit_test
