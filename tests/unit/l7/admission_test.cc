// SPDX-License-Identifier: Apache-2.0
// Many clients at the proxy's listeners: who is admitted, who makes room, who is refused, and what happens if this node
// has no descriptors left.
#include "l7/listener/admission.h"
#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/route.h"

#include <gtest/gtest.h>

#include <list>

#include "core/open_files.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::admission_test {

const std::string kRefused = "tidegate_l7_client_connections_refused_total{reason=";
const std::string kRecycled = "tidegate_l7_client_connections_recycled_total";

// An edge with a route that answers at once ("/now") and one whose origin answers on command ("/hold").
class DoorTest : public ::testing::Test {
 protected:
  DoorTest()
      : origin_([this](const std::string&, Wire& wire) {
          ++held_;
          while (!released_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
          return wire.send(Origin::ok("held"));
        }) {
    Route now;
    now.name = "now";
    now.path = "/now";
    now.what = RouteAnswer{200, "here"};
    edge_.model.routes.push_back(now);
    edge_.add_route("/hold", edge_.add_pool("p", {origin_.endpoint()}));
  }
  ~DoorTest() override {
    released_ = true;
    clients_.clear();
  }

  L7Node& node() { return edge_.model.nodes[0].l7; }
  Wire& client(const char* source = "127.0.0.1") {
    sockaddr_storage address{};
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const timeval patience{20, 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    socklen_t length = Endpoint{*IpAddress::parse(source), 0}.to_sockaddr(address);
    EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length), 0);
    length = edge_.endpoint().to_sockaddr(address);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length), 0);
    return clients_.emplace_back(std::move(fd));
  }
  static int status_on(Wire& wire, std::string_view path = "/now") {
    if (!wire.send(get(path))) return 0;
    return read_answer(wire).status;
  }
  // A client that got one answer and keeps its connection open.
  Wire& idle_client(const char* source = "127.0.0.1") {
    Wire& made = client(source);
    EXPECT_EQ(status_on(made), 200);
    return made;
  }
  Wire& busy_client(const char* source = "127.0.0.1") {
    const size_t before = held_;
    Wire& made = client(source);
    made.send(get("/hold"));
    EXPECT_TRUE(edge_.run_until([&] { return held_ == before + 1; }));
    return made;
  }
  int ask_from(const char* source) {
    Wire& made = client(source);
    const int status = status_on(made);
    clients_.pop_back();
    return status;
  }
  uint64_t refused(const std::string& reason) const { return edge_.metric(kRefused + "\"" + reason + "\"}"); }

  std::atomic<size_t> held_{0};
  std::atomic<bool> released_{false};
  Origin origin_;
  Edge edge_;
  std::list<Wire> clients_;
};

TEST_F(DoorTest, AtMaxConnectionsTheOneIdleLongestMakesRoom) {
  node().max_connections = 3;
  edge_.start();
  Wire& first = idle_client("127.0.0.1");
  Wire& second = idle_client("127.0.0.2");
  Wire& busy = busy_client("127.0.0.3");
  EXPECT_EQ(status_on(first), 200);  // from now on it has been idle for less time than the second
  Wire& newcomer = idle_client("127.0.0.4");
  EXPECT_TRUE(second.at_end());
  EXPECT_EQ(edge_.metric(kRecycled), 1u);
  EXPECT_EQ(status_on(first), 200);
  EXPECT_EQ(status_on(newcomer), 200);
  released_ = true;
  EXPECT_EQ(read_answer(busy).body, "held");
  EXPECT_EQ(refused("max_connections"), 0u);
}

TEST_F(DoorTest, WhoHasNotSaidAWholeHeadMakesRoomToo) {
  node().max_connections = 3;
  edge_.start();
  Wire& silent = client("127.0.0.1");
  Wire& slow = client("127.0.0.2");
  slow.send("GET /now HTTP/1.1\r\nHo");
  Wire& preface = client("127.0.0.3");
  preface.send("PRI * HTTP/2.0\r\n");
  for (int i = 4; i < 7; ++i) EXPECT_EQ(status_on(idle_client(("127.0.0." + std::to_string(i)).c_str())), 200);
  EXPECT_TRUE(silent.at_end());
  EXPECT_TRUE(slow.at_end());
  EXPECT_TRUE(preface.at_end());
}

// The common attack: idle clients take every place, and more of them come all the time.
TEST_F(DoorTest, ABystanderIsServedBesideACrowdThatSitsOnEveryPlace) {
  node().max_connections = 200;
  node().max_connections_per_client = 200;
  node().workers = 2;
  edge_.start();
  const auto crowd = [&](int i) { client().send(i % 2 == 0 ? "" : "GET / HTTP/1.1\r\nHo"); };
  for (int i = 0; i < 260; ++i) crowd(i);
  int served = 0;
  for (int i = 0; i < 50; ++i) {
    served += ask_from("127.0.0.9") == 200 ? 1 : 0;
    crowd(i);
  }
  EXPECT_EQ(served, 50);
  EXPECT_EQ(refused("max_connections"), 0u);
  EXPECT_GE(edge_.metric(kRecycled), 60u);
}

TEST_F(DoorTest, WhereNobodyIsIdleTheNewcomerIsRefusedAndTheOthersAreServed) {
  node().max_connections = 2;
  edge_.start();
  Wire& one = busy_client("127.0.0.1");
  Wire& two = busy_client("127.0.0.2");
  EXPECT_TRUE(client("127.0.0.3").at_end());
  EXPECT_EQ(refused("max_connections"), 1u);
  released_ = true;
  EXPECT_EQ(read_answer(one).body, "held");
  EXPECT_EQ(read_answer(two).body, "held");
  EXPECT_EQ(ask_from("127.0.0.3"), 200);
}

TEST_F(DoorTest, OneAddressHasAQuarterAndItsOwnIdleOnesMakeRoomForIt) {
  node().max_connections = 12;
  edge_.start();
  Wire& bystander = idle_client("127.0.0.2");  // idle longest of all
  busy_client();
  busy_client();
  Wire& own = idle_client();
  busy_client();  // the fourth connection of an address that may have three
  EXPECT_TRUE(own.at_end());
  EXPECT_TRUE(client().at_end());
  EXPECT_EQ(refused("client_connections"), 1u);
  EXPECT_EQ(status_on(bystander), 200);
  EXPECT_EQ(ask_from("127.0.0.3"), 200);
}

TEST_F(DoorTest, ATrustedProxyIsNotCountedByAddress) {
  node().max_connections = 100;
  node().max_connections_per_client = 3;
  node().connection_rate_per_client = 1;
  node().connection_burst_per_client = 5;
  edge_.model.listeners[0].trusted_proxies = {*Cidr::parse("127.0.0.1/32")};
  edge_.start();
  for (int i = 0; i < 20; ++i) busy_client();
  EXPECT_EQ(ask_from("127.0.0.1"), 200);
  EXPECT_EQ(refused("client_connections") + refused("client_rate"), 0u);
}

TEST_F(DoorTest, AnAddressThatConnectsTooFastIsRefusedAndItsNeighbourIsNot) {
  node().connection_rate_per_client = 1;
  node().connection_burst_per_client = 10;
  edge_.start();
  int served = 0;
  for (int i = 0; i < 30; ++i) served += ask_from("127.0.0.1") == 200 ? 1 : 0;
  EXPECT_GE(served, 10);
  EXPECT_LE(served, 15) << "ten at once, and one a second for as long as this took";
  EXPECT_EQ(refused("client_rate"), 30u - served);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(ask_from("127.0.0.2"), 200);
}

TEST(Admission, WhatAnAddressIsChargedIsTakenFromItsNewConnections) {
  Metrics metrics;
  Stats stats(metrics);
  EventLoop loop;
  AdmissionShared shared(HashKey{1, 2});
  L7Node node;
  node.connection_rate_per_client = 1'000;
  node.connection_burst_per_client = 100;
  shared.configure(node);
  Admission admission(shared, stats, loop, [] { return false; });
  const IpAddress guilty = *IpAddress::parse("192.0.2.1"), other = *IpAddress::parse("192.0.2.2");
  const uint64_t now_ns = loop.now_ns();
  const auto admitted = [&](const IpAddress& address, uint64_t at_ns) {
    AddressTable::Hold hold;
    return admission.admit_address({0, address, at_ns}, hold) == ConnectionRefusal::none;
  };
  EXPECT_TRUE(admitted(guilty, now_ns));
  admission.charge(guilty, 99);
  EXPECT_FALSE(admitted(guilty, now_ns));
  EXPECT_TRUE(admitted(other, now_ns));
  admission.charge(guilty, 1'000'000);
  // The debt ends after the time of one burst, 0.1 s.
  EXPECT_FALSE(admitted(guilty, now_ns + 100'000'000));
  EXPECT_TRUE(admitted(guilty, now_ns + 101'000'000));
  EXPECT_EQ(shared.look(guilty, now_ns).most_connections, 4'000u);
}

// The honest twin: an office, a school or a mobile network behind one address, all at once, with default settings.
TEST_F(DoorTest, AThousandClientsBehindOneAddressAreServed) {
  raise_open_files_limit();
  edge_.start();
  for (int i = 0; i < 1'000; ++i) idle_client();
  for (Wire& wire : clients_) ASSERT_EQ(status_on(wire), 200);
  EXPECT_EQ(edge_.metric(kRecycled), 0u);
}

TEST_F(DoorTest, WithoutADescriptorForItNoBackendIsToBlame) {
  edge_.model.pools[0].eject_after = 1;
  edge_.start();
  released_ = true;
  Wire& asker = idle_client();
  {
    const FewFiles few(200);
    for (int i = 0; i < 5; ++i) {
      EXPECT_EQ(status_on(asker, "/hold"), 503);
    }
    EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"out_of_sockets\"}"), 5u);
    EXPECT_EQ(edge_.metric("tidegate_l7_ejections_total"), 0u);
    EXPECT_EQ(edge_.metric("tidegate_l7_backend_failures_total{pool=\"p\",backend=\"b1\"}"), 0u);
  }
  EXPECT_EQ(status_on(asker, "/hold"), 200) << "it is in service all the time";
}

TEST_F(DoorTest, AnIdleClientsDescriptorServesARequest) {
  edge_.start();
  released_ = true;
  Wire& idle = idle_client("127.0.0.2");
  Wire& asker = idle_client();
  const FewFiles few(200);
  EXPECT_EQ(status_on(asker, "/hold"), 200);
  EXPECT_EQ(edge_.metric(kRecycled), 1u);
  EXPECT_TRUE(idle.at_end());
}

TEST_F(DoorTest, ClientsLeaveTheLastDescriptorsToTheProcess) {
  edge_.start();
  Wire& first = idle_client("127.0.0.2");
  busy_client("127.0.0.3");
  const FewFiles few(200);
  Wire& second = client("127.0.0.4");  // the first one makes room for it
  EXPECT_EQ(status_on(second), 200);
  EXPECT_TRUE(first.at_end());
  EXPECT_EQ(edge_.metric(kRecycled), 1u);
  const size_t before = held_;
  second.send(get("/hold"));  // no idle client and no descriptor: it gets its own 503
  EXPECT_EQ(read_answer(second).status, 503);
  EXPECT_EQ(held_, before);
}

}  // namespace tidegate::l7::test::admission_test
