// SPDX-License-Identifier: Apache-2.0
// Names as backends, with a name server whose answers the test changes.
#include "conf/backend_names.h"
#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"

#include <gtest/gtest.h>
#include <atomic>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/unit/l7/support.h"
#include "tests/unit/name_server.h"

namespace tidegate::l7::test::names_test {

using tidegate::testing::address_record;
using tidegate::testing::NameServer;
using tidegate::testing::srv_record;
using tidegate::testing::wire_name;

class Names : public ::testing::Test {
 protected:
  // A pool with one such backend; its names are asked for every 20 ms.
  Pool& pool(const std::function<void(Backend&)>& set) {
    const uint32_t index = edge_.add_pool("p", {{}});
    Pool& made = edge_.model.pools[index];
    made.backends[0].addresses.clear();
    made.lookup_min_ms = made.lookup_max_ms = 20;
    set(made.backends[0]);
    edge_.add_route("/*", index);
    edge_.model.nodes[0].dns.resolvers = {server_.endpoint};
    return made;
  }
  bool becomes(const std::string& body) {
    return edge_.run_until([&] { return ask(edge_.endpoint(), get("/")).body == body; });
  }
  // The Plan in force leads only to that server.
  bool leads_to(const std::string& server) {
    return edge_.run_until([&] {
      HttpRequest request;
      request.query = "client=192.0.2.1&url=http://a.test/";
      const nlohmann::json servers = (*edge_.proxy().explain(request))["eligible"][0]["servers"];
      return servers.size() == 1 && servers[0]["backend"] == server;
    });
  }
  NameServer server_;
  Edge edge_;
};

TEST_F(Names, AHostFollowsItsAnswersAndKeepsTheLastWhenTheServerFails) {
  Origin one(Origin::says("one"));
  server_.set("app.test", 1, {address_record("127.0.0.1")});
  pool([&](Backend& backend) {
    backend.host = "app.test.";
    backend.port = one.endpoint().port;
  });
  edge_.start();
  ASSERT_TRUE(becomes("one"));
  server_.set("app.test", 1, {address_record("127.0.0.2")});  // nothing listens there on that port
  ASSERT_TRUE(edge_.run_until([&] { return ask(edge_.endpoint(), get("/")).status == 502; }));
  server_.set("app.test", 1, {address_record("127.0.0.1")});
  ASSERT_TRUE(becomes("one"));
  server_.fails = true;
  size_t asked = server_.asked;
  ASSERT_TRUE(edge_.run_until([&] { return server_.asked > asked + 4; }));
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).body, "one") << "the last addresses stay";
  server_.fails = false;
  server_.set("app.test", 1, {});
  asked = server_.asked;
  ASSERT_TRUE(edge_.run_until([&] { return server_.asked > asked + 4; }));
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).body, "one") << "an empty answer empties no pool";
  EXPECT_GT(edge_.metric("tidegate_l7_name_lookups_total{result=\"found\"}"), 0u);
  EXPECT_GT(edge_.metric("tidegate_l7_name_lookups_total{result=\"none\"}"), 0u);
}

TEST_F(Names, AnSrvRecordSaysHostsPortsAndWhichAreBackups) {
  Origin one(Origin::says("one")), spare(Origin::says("spare"));
  server_.set("_http._tcp.app.test", 33,
              {srv_record(10, 5, one.endpoint().port, "a.test"), srv_record(20, 5, spare.endpoint().port, "b.test")});
  for (const char* name : {"a.test", "b.test"}) server_.set(name, 1, {address_record("127.0.0.1")});
  Pool& p = pool([](Backend& backend) { backend.srv = "_http._tcp.app.test."; });
  p.eject_after = 1;
  edge_.start();
  ASSERT_TRUE(becomes("one"));
  for (int i = 0; i < 6; ++i) EXPECT_EQ(ask(edge_.endpoint(), get("/")).body, "one");
  one.die();
  ASSERT_TRUE(becomes("spare"));
}

// Running work on an address that is gone continues.
TEST_F(Names, AChangeCutsNothing) {
  std::atomic<bool> go{false};
  Origin slow([&](const std::string&, Wire& wire) {
    wire.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbe");
    while (!go) std::this_thread::yield();
    return wire.send("en");
  });
  server_.set("app.test", 1, {address_record("127.0.0.1")});
  pool([&](Backend& backend) {
    backend.host = "app.test.";
    backend.port = slow.endpoint().port;
  });
  edge_.start();
  const std::string port = std::to_string(slow.endpoint().port);
  Wire wire = Wire::connect(edge_.endpoint());
  // A worker gets the first answer of the name server a moment after the main thread. Until then it answers 503.
  ASSERT_TRUE(edge_.run_until([&] {
    wire = Wire::connect(edge_.endpoint());
    wire.send(get("/"));
    return read_answer(wire, true).status == 200;
  }));
  server_.set("app.test", 1, {address_record("127.0.0.2")});
  EXPECT_TRUE(leads_to("b1/127.0.0.2:" + port));
  go = true;
  EXPECT_EQ(wire.read_exactly(4), "been");
}

TEST(NameLookup, TheSmallestTtlIsTheAnswers) {
  std::string message("\0\1\x81\x80\0\1\0\2\0\0\0\0", 12);
  message += wire_name("a.test") + std::string("\0\x21\0\1", 4);
  message += srv_record(1, 1, 80, "b.test", 300) + srv_record(1, 1, 80, "c.test", 7);
  EXPECT_EQ(smallest_ttl(message), 7u);
  for (size_t bytes = 0; bytes < message.size(); ++bytes)
    smallest_ttl(message.substr(0, bytes));  // reads nothing beyond
  message[7] = 1;
  EXPECT_EQ(smallest_ttl(message), 300u);
  message[7] = 9;
  EXPECT_EQ(smallest_ttl(message), 0u) << "fewer records than it says";
}

}  // namespace tidegate::l7::test::names_test
