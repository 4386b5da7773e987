// SPDX-License-Identifier: Apache-2.0
// Backends whose kernel accepts few new connections, and drops others without telling anybody. Requests wait, go
// elsewhere, or are left to the kernel. No request is lost, and no request is sent twice if that is not safe.
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <list>
#include <thread>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/policy.h"
#include "conf/model/pool.h"
#include "conf/policy/authenticate.h"
#include "l7/backend/connections.h"
#include "tests/unit/l7/http2_origin.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::acceptance_test {

// The kernel's treatment of connections beyond its queue.
enum class Drops : uint8_t {
  first_packets,  // nobody answers
  data,  // the connection is established for us, but nothing that we send arrives (Linux does so under load, too)
};

// Accepts one connection at a time, when it is allowed to, answers one request and closes.
class Origin1 {
 public:
  Origin1(Drops drops, int backlog) : listen_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_storage address{};
    socklen_t length = Endpoint::parse("127.0.0.1:0")->to_sockaddr(address);
    if (drops == Drops::data) take_first_packets_alone();
    EXPECT_EQ(::bind(listen_.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(::listen(listen_.get(), backlog), 0);
    ::getsockname(listen_.get(), reinterpret_cast<sockaddr*>(&address), &length);
    endpoint = Endpoint::from(address);
  }
  ~Origin1() {
    over_ = true;
    if (server_.joinable()) server_.join();
  }
  void serve() {
    const int none = 0;
    ::setsockopt(listen_.get(), SOL_SOCKET, SO_DETACH_FILTER, &none, sizeof none);
    server_ = std::thread([this] {
      while (!over_) {
        pollfd ready{listen_.get(), POLLIN, 0};
        if (::poll(&ready, 1, 20) != 1) continue;
        Wire wire{UniqueFd(::accept4(listen_.get(), nullptr, nullptr, SOCK_CLOEXEC))};
        if (!wire.read_until("\r\n\r\n").ends_with("\r\n\r\n")) continue;
        ++requests;
        wire.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx");
      }
    });
  }
  Endpoint endpoint;
  std::atomic<int> requests{0};

 private:
  // A filter that begins at TCP's header. It drops packets without SYN.
  void take_first_packets_alone() {
    sock_filter code[] = {{BPF_LD | BPF_B | BPF_ABS, 0, 0, 13},
                          {BPF_JMP | BPF_JSET | BPF_K, 0, 1, 2},
                          {BPF_RET | BPF_K, 0, 0, UINT32_MAX},
                          {BPF_RET | BPF_K, 0, 0, 0}};
    const sock_fprog program{4, code};
    EXPECT_EQ(::setsockopt(listen_.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program), 0);
  }

  UniqueFd listen_;
  std::atomic<bool> over_{false};
  std::thread server_;
};

struct AcceptanceTest : ::testing::Test {
  void start(const std::vector<Endpoint>& backends) {
    const uint32_t pool = edge_.add_pool("p", backends);
    edge_.add_route("/*", pool);
    edge_.start();
  }
  void ask(int count, const std::string& request) {
    for (int i = 0; i < count; ++i) clients_.emplace_back(Wire::connect(edge_.endpoint())).send(request);
  }
  void expect_all_answered() {
    for (Wire& client : clients_) EXPECT_EQ(read_answer(client).status, 200);
  }
  uint64_t of_backend(const std::string& series) const {
    return edge_.metric("tidegate_l7_backend_" + series + "{pool=\"p\",backend=\"b1\"}");
  }
  uint64_t not_accepted() const { return of_backend("connections_not_accepted_total"); }
  bool until_not_accepted() {
    return edge_.run_until([&] { return not_accepted() > 0; });
  }
  Edge edge_;
  std::list<Wire> clients_;
};

TEST_F(AcceptanceTest, ABurstWaitsForABackendThatDropsFirstPackets) {
  Origin1 origin(Drops::first_packets, 2);
  start({origin.endpoint});
  ask(24, get("/x"));
  origin.serve();
  expect_all_answered();
  EXPECT_EQ(origin.requests, 24);
  EXPECT_EQ(of_backend("failures_total"), 0u);
}

TEST_F(AcceptanceTest, ABurstWaitsForABackendThatDropsWhatItSeemedToAccept) {
  Origin1 origin(Drops::data, 64);
  start({origin.endpoint});
  ask(24, get("/x"));
  EXPECT_TRUE(until_not_accepted());
  origin.serve();
  expect_all_answered();
  EXPECT_EQ(origin.requests, 24);
  EXPECT_EQ(of_backend("failures_total"), 0u) << "it is busy, and that is no failure";
}

// The bound by the kernel's queue is not a bound of the operator. So no request is refused for it.
TEST_F(AcceptanceTest, ARequestForWhichTheQueueHasNoPlaceWaitsForTheKernel) {
  Origin1 origin(Drops::data, 64);
  const uint32_t pool = edge_.add_pool("p", {origin.endpoint});
  edge_.model.pools[pool].queue_size = 2;
  edge_.add_route("/*", pool);
  edge_.start();
  ask(24, get("/x"));
  EXPECT_TRUE(until_not_accepted());
  origin.serve();
  expect_all_answered();
  EXPECT_EQ(origin.requests, 24);
}

// Calls of policies share the queue and the bound.
TEST_F(AcceptanceTest, ACallOfAPolicyForWhichTheQueueHasNoPlaceWaitsForTheKernelToo) {
  Origin1 service(Drops::data, 64);
  Origin application(Origin::says("x"));
  const auto part = std::make_shared<AuthenticatePolicy>();
  part->forward.enabled = true;
  part->forward.path = "/verify";
  part->forward.timeout_ms = 20'000;
  part->forward.pool = edge_.add_pool("p", {service.endpoint});
  edge_.model.pools[part->forward.pool].queue_size = 2;
  edge_.model.policies.push_back({"sso", false, {{"authenticate", part}}});
  edge_.add_route("/*", edge_.add_pool("application", {application.endpoint()})).policies = {0};
  edge_.start();
  ask(24, get("/x"));
  EXPECT_TRUE(until_not_accepted());
  service.serve();
  expect_all_answered();
}

TEST_F(AcceptanceTest, WhatOneBackendDoesNotTakeAnotherOneGets) {
  Origin1 full(Drops::data, 64), free(Drops::first_packets, 64);
  edge_.model.listeners[0].idle_timeout_ms = 60'000;
  start({full.endpoint, free.endpoint});
  free.serve();
  ask(16, get("/x"));
  EXPECT_TRUE(edge_.run_until([&] { return free.requests >= 15; }));
  EXPECT_GE(not_accepted(), 6u);
  full.serve();
  expect_all_answered();
}

// If nothing of it was acknowledged, that proves little: the acknowledgement may be lost.
TEST_F(AcceptanceTest, ARequestThatMustNotBeRepeatedIsLeftToTheKernel) {
  Origin1 origin(Drops::data, 64);
  start({origin.endpoint});
  ask(4, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
  EXPECT_TRUE(until_not_accepted());
  origin.serve();
  expect_all_answered();
  EXPECT_EQ(origin.requests, 4);
  EXPECT_EQ(edge_.metric("tidegate_l7_backend_connections_total"), 4u);
}

TEST_F(AcceptanceTest, StreamsOfAnHttp2ConnectionThatWasNotTakenGoElsewhere) {
  Origin1 full(Drops::data, 64);
  Http2Origin free([](const Http2Origin::Request&) { return Http2Origin::Answer{.body = "x"}; });
  const uint32_t pool = edge_.add_pool("p", {full.endpoint, free.endpoint()});
  edge_.model.pools[pool].protocol = BackendProtocol::h2;
  edge_.add_route("/*", pool);
  edge_.start();
  ask(8, get("/x"));
  expect_all_answered();
  EXPECT_EQ(free.requests(), 8u);
  EXPECT_GE(not_accepted(), 4u) << "the last one that leaves may try it once more";
}

TEST_F(AcceptanceTest, BeforeTlsIsReadyNothingOfARequestWasSentSoAnyMethodGoesElsewhere) {
  Origin1 origin(Drops::data, 64);
  const uint32_t pool = edge_.add_pool("p", {origin.endpoint});
  edge_.model.pools[pool].tls = true;
  edge_.add_route("/*", pool);
  edge_.start();
  ask(1, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
  EXPECT_TRUE(edge_.run_until([&] { return edge_.metric("tidegate_l7_backend_connections_total") == 2; }));
  EXPECT_EQ(not_accepted(), 1u);
}

// --- how many connections it gets then

struct BoundTest : ::testing::Test {
  BoundTest() : backends(loop, blocks, {[] { return false; }, [](uint32_t) {}, nullptr, nullptr, nullptr}) {}
  EventLoop loop;
  BlockPool blocks;
  BackendRuntime backend{3, 0, 0};
  BackendConnections backends;
};

TEST_F(BoundTest, HalfOfWhatWasTooMuchOrAsManyAsItHasAcknowledged) {
  EXPECT_EQ(backends.most_accepted(backend), UINT32_MAX);
  EXPECT_TRUE(backends.note_not_accepted(backend, 40));
  EXPECT_EQ(backends.most_accepted(backend), 20u);
  EXPECT_FALSE(backends.note_not_accepted(backend, 10)) << "told once";
  EXPECT_EQ(backends.most_accepted(backend), 5u);
  EXPECT_FALSE(backends.note_not_accepted(backend, 80));
  EXPECT_EQ(backends.most_accepted(backend), 5u) << "one of the same burst";
  for (int i = 0; i < 7; ++i) backends.note_acknowledged(backend.id);
  EXPECT_EQ(backends.most_accepted(backend), 7u);
  backends.note_not_accepted(backend, 1);
  EXPECT_EQ(backends.most_accepted(backend), 7u);
}

TEST_F(BoundTest, OneIsAlwaysTried) {
  backends.note_not_accepted(backend, 1);
  EXPECT_EQ(backends.most_accepted(backend), 1u);
  EXPECT_TRUE(backends.has_room(backend, 4096));
}

TEST(Silence, IsChargedOnlyWhenNobodyWasAnsweredForAsLong) {
  BackendRuntime backend{1, 0, 0};
  constexpr uint64_t kSecond = 1'000'000'000;
  EXPECT_FALSE(backend.was_silent(1 * kSecond, 2 * kSecond, 5 * kSecond));
  backend.answered_ns = 4 * kSecond;
  EXPECT_FALSE(backend.was_silent(6 * kSecond, 7 * kSecond, 5 * kSecond)) << "it began anew";
  EXPECT_TRUE(backend.was_silent(10 * kSecond, 11 * kSecond, 5 * kSecond));
}

}  // namespace tidegate::l7::test::acceptance_test
