// SPDX-License-Identifier: Apache-2.0
// The client against a real etcd: users, endpoints that do not answer, watch streams. Answers that no etcd sends come
// from a server of the test.

#include "control/etcd/client.h"

#include "tests/unit/control/etcd_server.h"

namespace tidegate::testing::etcd_client_test {

using etcd::Client;
using nlohmann::json;
using ::testing::HasSubstr;

class EtcdClientTest : public ::testing::Test {
 protected:
  Result<json> ask(Client& client, const std::string& path, const json& body) {
    std::optional<Result<json>> answer;
    client.call(path, body, [&](Result<json> came) { answer.emplace(std::move(came)); });
    EXPECT_TRUE(pump(loop, [&] { return answer.has_value(); })) << path;
    return answer ? *answer : Result<json>(fail("no answer"));
  }
  // Asks until etcd has started.
  void wait_for(Client& client) {
    ASSERT_TRUE(
        pump(loop, [&] { return static_cast<bool>(ask(client, "/v3/kv/range", etcd::range_request("k", {}, 0))); }));
  }
  Result<json> put(Client& client, const std::string& value) {
    etcd::Txn txn;
    txn.puts = {{"k", value}};
    return ask(client, "/v3/kv/txn", etcd::txn_request(txn));
  }
  Result<std::string> get(Client& client) {
    const Result<json> answer = ask(client, "/v3/kv/range", etcd::range_request("k", {}, 0));
    if (!answer) return answer.error();
    const Result<etcd::Range> range = etcd::parse_range(*answer);
    return range && range->kvs.size() == 1 ? Result<std::string>(range->kvs[0].value) : fail("no such key");
  }
  EventLoop loop;
  std::vector<HttpExchangePtr> kept;  // of servers that never answer
};

TEST_F(EtcdClientTest, AnEndpointThatDoesNotAnswerIsLeftForTheNextOne) {
  EtcdServer server;
  server.start();
  HttpServer silent(loop, [this](const HttpExchangePtr& exchange) { kept.push_back(exchange); });
  ASSERT_TRUE(silent.listen_tcp(*Endpoint::parse("127.0.0.1:0")));
  const std::string dead = "http://127.0.0.1:1";
  Client client(loop, {.endpoints = {"http://" + silent.tcp_endpoint().to_string(), dead, server.endpoint()}});
  wait_for(client);
  EXPECT_EQ(client.endpoint(), server.endpoint());
  ASSERT_TRUE(put(client, "one"));
  EXPECT_EQ(*get(client), "one");
  server.kill();
  const Result<std::string> none = get(client);
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().message, HasSubstr(server.endpoint())) << "the first failure is told";
}

TEST_F(EtcdClientTest, AWatchTellsChangesAndThatItEnded) {
  EtcdServer server;
  server.start();
  Client client(loop, {.endpoints = {server.endpoint()}});
  wait_for(client);
  std::vector<std::string> seen;
  std::string ended;
  client.watch(
      etcd::watch_request("k", etcd::range_end_of("k"), 1),
      [&](const etcd::WatchAnswer& answer) {
        for (const etcd::WatchEvent& event : answer.events) {
          const std::string value = event.erased ? "gone" : event.kv.value;
          if (seen.empty() || seen.back() != value) seen.push_back(value);
        }
      },
      [&](const std::string& why) { ended = why; });
  // Again if a busy etcd answers too late. Then there are two events of it.
  const auto until_done = [&](const auto& call) { return pump(loop, [&] { return static_cast<bool>(call()); }); };
  ASSERT_TRUE(until_done([&] { return put(client, "one"); }));
  ASSERT_TRUE(until_done([&] { return put(client, std::string(100'000, 'x')); }));
  ASSERT_TRUE(until_done([&] { return ask(client, "/v3/kv/deleterange", etcd::delete_request("k", {})); }));
  ASSERT_TRUE(pump(loop, [&] { return seen.size() == 3; }));
  EXPECT_EQ(seen[0], "one");
  EXPECT_EQ(seen[1].size(), 100'000u);
  EXPECT_EQ(seen[2], "gone");
  server.kill();
  ASSERT_TRUE(pump(loop, [&] { return !ended.empty(); }));
}

TEST_F(EtcdClientTest, AUserLogsInAndAgainWhenTheTokenHasEnded) {
  EtcdServer server;
  server.start();
  Client anybody(loop, {.endpoints = {server.endpoint()}});
  wait_for(anybody);
  ASSERT_TRUE(ask(anybody, "/v3/auth/user/add", {{"name", "root"}, {"password", "right"}}));
  ASSERT_TRUE(ask(anybody, "/v3/auth/role/add", {{"name", "root"}}));
  ASSERT_TRUE(ask(anybody, "/v3/auth/user/grant", {{"user", "root"}, {"role", "root"}}));
  ASSERT_TRUE(ask(anybody, "/v3/auth/enable", json::object()));
  EXPECT_FALSE(put(anybody, "by nobody"));
  etcd::ClientOptions options;
  options.endpoints = {server.endpoint()};
  options.user = "root";
  options.password = "wrong";
  Client wrong(loop, options);
  EXPECT_THAT(get(wrong).error().message, HasSubstr("the login failed"));
  options.password = "right";
  Client root(loop, options);
  ASSERT_TRUE(put(root, "by root"));
  server.kill();
  server.start();  // it keeps tokens in memory only
  wait_for(root);
  EXPECT_EQ(*get(root), "by root");
}

// None of these answers is etcd's.
TEST_F(EtcdClientTest, AnswersThatAreNoEtcdsAreErrors) {
  const std::string deep = std::string(100'000, '[');
  for (const std::string& body :
       {std::string(), std::string("<html>"), deep, std::string("{\"error\":7}"), std::string("\xff\xfe")}) {
    HttpServer server(loop, [&](const HttpExchangePtr& exchange) { exchange->respond(HttpResponse::json(200, body)); });
    ASSERT_TRUE(server.listen_tcp(*Endpoint::parse("127.0.0.1:0")));
    Client client(loop, {.endpoints = {"http://" + server.tcp_endpoint().to_string()}});
    EXPECT_FALSE(ask(client, "/v3/kv/range", json::object())) << body.substr(0, 20);
    std::string ended;
    client.watch(
        json::object(), [](const etcd::WatchAnswer&) {}, [&](const std::string& why) { ended = why; });
    EXPECT_TRUE(pump(loop, [&] { return !ended.empty(); })) << body.substr(0, 20);
  }
}

TEST_F(EtcdClientTest, ACallThatIsUnderWayEndsWithItsClient) {
  HttpServer silent(loop, [this](const HttpExchangePtr& exchange) { kept.push_back(exchange); });
  ASSERT_TRUE(silent.listen_tcp(*Endpoint::parse("127.0.0.1:0")));
  {
    Client client(loop, {.endpoints = {"http://" + silent.tcp_endpoint().to_string()}});
    client.call("/v3/kv/range", json::object(), [](const Result<json>&) { ADD_FAILURE() << "the client is gone"; });
    client.watch(
        json::object(), [](const etcd::WatchAnswer&) {}, [](const std::string&) { ADD_FAILURE(); });
    ASSERT_TRUE(pump(loop, [&] { return kept.size() == 2; }));
  }
  for (int i = 0; i < 10; ++i) loop.run_once(0);
}

}  // namespace tidegate::testing::etcd_client_test
