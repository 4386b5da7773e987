// SPDX-License-Identifier: Apache-2.0
// Each row of failure.def happens here: the client's answer, who is charged, and whether another backend is asked. The
// expectations come from the table itself, so that every row is true.
#include "l7/exchange/failure.h"
#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/policy.h"
#include "conf/model/pool.h"
#include "conf/model/route.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "conf/policy/authenticate.h"
#include "conf/policy/authorise.h"
#include "conf/policy/concurrency.h"
#include "conf/policy/fault.h"
#include "conf/policy/limit.h"
#include "conf/policy/respond.h"
#include "conf/policy/transform.h"
#include "tests/unit/l7/state_dir.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::failure_test {

// --- rows that one backend, one key or one request makes happen

// The scene in which a row happens: backend, configuration, client.
struct Scene {
  Origin::Handler origin = [](const std::string&, Wire& wire) { return !wire.at_end(); };  // silent
  std::function<void(Edge&, Pool&, Route&)> set = [](Edge&, Pool&, Route&) {};
  std::string request = get("/x");
  bool after_head = false;  // the client already has a status, and its answer breaks off
  bool repeatable = true;   // the method of `request` allows a repetition
};

std::string put(size_t length, std::string_view body) {
  return "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(length) + "\r\n\r\n" + std::string(body);
}

Origin::Handler sends(std::string bytes, bool then_close = false) {
  return [=](const std::string&, Wire& wire) { return wire.send(bytes) && !then_close && !wire.at_end(); };
}

// An address at which nobody accepts: the kernel's queue of a listening socket is full.
class FullBacklog {
 public:
  FullBacklog() : listen_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_storage address{};
    socklen_t length = Endpoint::parse("127.0.0.1:0")->to_sockaddr(address);
    EXPECT_EQ(::bind(listen_.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(::listen(listen_.get(), 0), 0);
    ::getsockname(listen_.get(), reinterpret_cast<sockaddr*>(&address), &length);
    endpoint = Endpoint::from(address);
    for (UniqueFd& client : clients_) {
      client = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
      ::connect(client.get(), reinterpret_cast<sockaddr*>(&address), length);
    }
  }
  Endpoint endpoint;

 private:
  UniqueFd listen_;
  std::array<UniqueFd, 4> clients_;
};

std::map<Failure, Scene> scenes() {
  const auto patience = [](Edge& edge, Pool&, Route&) { edge.model.listeners[0].idle_timeout_ms = 50; };
  const std::string upgrade = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
  std::map<Failure, Scene> out;
  out[Failure::bad_request].request = "GET /x HTTP/1.1\r\nHost: a\r\nbad name: 1\r\n\r\n";
  out[Failure::no_route].request = get("/elsewhere");
  out[Failure::method_not_allowed].set = [](Edge&, Pool&, Route& route) { route.methods = {"POST"}; };
  out[Failure::loop_detected].request = get("/x", "a", "Via: 1.1 n1, 1.1 n1, 1.1 n1, 1.1 n1\r\n");
  out[Failure::body_too_large] = {.set = [](Edge& edge, Pool&, Route&) { edge.model.listeners[0].max_body_bytes = 9; },
                                  .request = put(10, "")};
  out[Failure::request_timeout] = {.set = patience, .request = put(10, "")};
  out[Failure::request_late] = {.set = [](Edge&, Pool&, Route& route) { route.total_timeout_ms = 50; },
                                .request = put(10, "12345")};
  out[Failure::gave_up_waiting] = {.origin = [](const std::string&, Wire&) { return false; },
                                   .request = put(10, "12345")};
  out[Failure::pool_down].set = [](Edge&, Pool& pool, Route&) {
    for (Backend& backend : pool.backends) backend.weight = 0;
  };
  const auto bind = [](const char* kind, std::shared_ptr<const PolicyPart> part) {
    return [=](Edge& edge, Pool&, Route&) { edge.model.policies.push_back({"q", true, {{kind, part}}}); };
  };
  auto authenticate = std::make_shared<AuthenticatePolicy>();
  authenticate->api_keys.enabled = true;
  out[Failure::unauthenticated].set = bind("authenticate", authenticate);
  out[Failure::auth_unavailable].set = [](Edge& edge, Pool&, Route&) {
    auto forward = std::make_shared<AuthenticatePolicy>();
    forward->forward.enabled = true;
    forward->forward.pool = edge.add_pool("service", {});
    edge.model.policies.push_back({"q", true, {{"authenticate", forward}}});
  };
  auto authorise = std::make_shared<AuthorisePolicy>();
  authorise->deny = {*Cidr::parse("127.0.0.0/8")};
  out[Failure::forbidden].set = bind("authorise", authorise);
  auto respond = std::make_shared<RespondPolicy>();
  respond->maintenance.enabled = true;
  out[Failure::maintenance].set = bind("respond", respond);
  auto fault = std::make_shared<FaultPolicy>();
  fault->abort_status = 503;
  out[Failure::fault_injected].set = bind("fault", fault);
  auto transform = std::make_shared<TransformPolicy>();
  transform->host = "{header.absent}";
  out[Failure::not_transformable].set = bind("transform", transform);
  auto cors = std::make_shared<RespondPolicy>();
  cors->cors.enabled = true;
  out[Failure::cors_refused] = {.set = bind("respond", cors),
                                .request =
                                    "OPTIONS /x HTTP/1.1\r\nHost: a\r\nOrigin: https://b\r\n"
                                    "Access-Control-Request-Method: GET\r\n\r\n"};
  const std::string large = "HTTP/1.1 200 OK\r\nx: " + std::string(80'000, 'x') + "\r\n\r\n";
  out[Failure::response_too_large].origin = sends(large);
  out[Failure::bad_response].origin = sends("HTTP/1.1 200 OK\r\nbad name: 1\r\n\r\n");
  std::string hints;
  for (int i = 0; i < 100; ++i) hints += "HTTP/1.1 103 Early Hints\r\n\r\n";
  out[Failure::too_many_interim].origin = sends(hints);
  out[Failure::tunnel_timeout] = {
      .origin = sends("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
      .set = [](Edge&, Pool& pool, Route&) { pool.tunnel_timeout_ms = 50; },
      .request = upgrade,
      .after_head = true};
  out[Failure::total_timeout].set = [](Edge&, Pool&, Route& route) { route.total_timeout_ms = 50; };
  out[Failure::exchange_timeout].set = [](Edge& edge, Pool&, Route&) {
    edge.model.listeners[0].request_timeout_ms = 50;
  };
  out[Failure::connect_failed].set = [](Edge&, Pool& pool, Route&) { pool.backends[0].port = 1; };
  out[Failure::backend_closed].origin = [](const std::string&, Wire&) { return false; };
  out[Failure::first_byte_timeout].set = [](Edge&, Pool& pool, Route&) { pool.first_byte_timeout_ms = 50; };
  out[Failure::body_timeout] = {.origin = sends("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
                                .set = [](Edge&, Pool& pool, Route&) { pool.idle_timeout_ms = 50; },
                                .after_head = true};
  out[Failure::backend_truncated] = {.origin = sends("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", true),
                                     .after_head = true};
  return out;
}

std::string series(Failure failure) {
  return std::string("tidegate_l7_failures_total{reason=\"") + info(failure).name + "\"}";
}
uint64_t charged(const Edge& edge) {
  return edge.metric("tidegate_l7_backend_failures_total{pool=\"p\",backend=\"b1\"}");
}
bool charges(Failure failure) {
  return info(failure).blame == Blame::backend || info(failure).blame == Blame::slow_backend;
}

class FailureRow : public ::testing::TestWithParam<Failure> {
 protected:
  void add(Edge& edge, const std::vector<Endpoint>& backends, const Scene& scene) {
    const uint32_t pool = edge.add_pool("p", backends);
    edge.model.pools[pool].eject_after = 1;
    Route& route = edge.add_route("/x", pool);
    scene.set(edge, edge.model.pools[pool], route);
    edge.start();
  }
};

// Without another backend: the client and the metric get what the row says, and only a guilty backend is charged.
TEST_P(FailureRow, IsToldAndChargedAsTheTableSays) {
  const Scene scene = scenes().at(GetParam());
  Origin origin(scene.origin);
  Edge edge;
  add(edge, {origin.endpoint()}, scene);
  Wire wire = Wire::connect(edge.endpoint());
  wire.send(scene.request);
  if (scene.after_head) {
    wire.read_until("\r\n\r\n");
    wire.read_to_end();
    EXPECT_TRUE(edge.run_until([&] { return edge.metric(series(GetParam())) == 1; }));
  } else {
    const Answer answer = read_final_answer(wire);
    EXPECT_EQ(answer.status, info(GetParam()).status);
    EXPECT_EQ(answer.body.find(info(GetParam()).sentence) == std::string::npos, GetParam() == Failure::bad_request);
  }
  EXPECT_EQ(edge.metric(series(GetParam())), 1u);
  EXPECT_EQ(charged(edge), charges(GetParam()) ? 1u : 0u);
  EXPECT_EQ(edge.metric("tidegate_l7_ejections_total"), charges(GetParam()) ? 1u : 0u);
  EXPECT_EQ(edge.metric("tidegate_l7_retries_total"), 0u) << "there is no other backend";
  EXPECT_LE(origin.requests(), 1u);
}

// With another backend that works.
TEST_P(FailureRow, IsTriedOnAnotherBackendAsTheTableSays) {
  const Scene scene = scenes().at(GetParam());
  const auto status_of = [&](std::string request) {
    Origin origin(scene.origin), other([](const std::string&, Wire&wire) { return wire.send(Origin::ok("other")); });
    Edge edge;
    add(edge, {origin.endpoint(), other.endpoint()}, scene);
    const int status = ask(edge.endpoint(), request).status;
    EXPECT_EQ(other.requests(), edge.metric("tidegate_l7_retries_total"));
    return status;
  };
  const bool another = info(GetParam()).retry == Retry::sent || info(GetParam()).retry == Retry::unsent;
  const int told = scene.after_head ? (GetParam() == Failure::tunnel_timeout ? 101 : 200) : info(GetParam()).status;
  EXPECT_EQ(status_of(scene.request), another ? 200 : told);
  if (!another) return;
  EXPECT_EQ(status_of("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
            info(GetParam()).retry == Retry::unsent ? 200 : told);
}

std::vector<Failure> rows_with_scenes() {
  std::vector<Failure> out;
  for (const auto& [failure, scene] : scenes()) out.push_back(failure);
  return out;
}

INSTANTIATE_TEST_SUITE_P(, FailureRow, ::testing::ValuesIn(rows_with_scenes()),
                         [](const auto& row) { return std::string(l7::info(row.param).name); });

// --- rows that need a test of their own

class FailureTest : public ::testing::Test {
 protected:
  Pool& start(const std::vector<Endpoint>& backends, const std::function<void(Pool&, Route&)>& set) {
    const uint32_t pool = edge_.add_pool("p", backends);
    edge_.model.pools[pool].eject_after = 1;
    set(edge_.model.pools[pool], edge_.add_route("/*", pool));
    edge_.start();
    return edge_.model.pools[pool];
  }
  // Checks that the row happened once, and that the backend was charged if the row says so.
  void expect_row(Failure failure, bool at_once = true) {
    if (!at_once) EXPECT_TRUE(edge_.run_until([&] { return edge_.metric(series(failure)) == 1; }));
    EXPECT_EQ(edge_.metric(series(failure)), 1u);
    EXPECT_EQ(charged(edge_), charges(failure) ? 1u : 0u);
  }
  const StateDir state_;
  Edge edge_;
};

TEST_F(FailureTest, ConnectTimeout) {
  const FullBacklog full;
  Origin other(Origin::says("other"));
  start({full.endpoint}, [](Pool& pool, Route&) { pool.connect_timeout_ms = 100; });
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).status, info(Failure::connect_timeout).status);
  expect_row(Failure::connect_timeout);
  EXPECT_EQ(edge_.metric("tidegate_l7_backend_connections_total"), 1u) << "one try: there is no other backend";
}

// Sends text that is not TLS on each connection.
class PlainTalker {
 public:
  PlainTalker() : listen_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_storage address{};
    socklen_t length = Endpoint::parse("127.0.0.1:0")->to_sockaddr(address);
    EXPECT_EQ(::bind(listen_.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(::listen(listen_.get(), 16), 0);
    ::getsockname(listen_.get(), reinterpret_cast<sockaddr*>(&address), &length);
    endpoint = Endpoint::from(address);
    thread_ = std::thread([this] {
      for (int fd; (fd = ::accept4(listen_.get(), nullptr, nullptr, SOCK_CLOEXEC)) >= 0;) {
        talks_.emplace_back(UniqueFd(fd)).send("HTTP/1.1 400 Bad Request\r\n\r\n");
      }
    });
  }
  ~PlainTalker() {
    ::shutdown(listen_.get(), SHUT_RDWR);
    thread_.join();
  }
  Endpoint endpoint;

 private:
  UniqueFd listen_;
  std::vector<Wire> talks_;
  std::thread thread_;
};

TEST_F(FailureTest, TlsFailed) {
  const PlainTalker one, two;
  start({one.endpoint, two.endpoint}, [](Pool& pool, Route&) { pool.tls = true; });
  EXPECT_EQ(ask(edge_.endpoint(), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").status,
            info(Failure::tls_failed).status);
  expect_row(Failure::tls_failed);
  EXPECT_EQ(edge_.metric("tidegate_l7_backend_failures_total{pool=\"p\",backend=\"b2\"}"), 1u) << "it was tried too";
  EXPECT_EQ(edge_.metric("tidegate_l7_retries_total"), 1u);
}

TEST_F(FailureTest, StaleConnection) {
  // Answers the first request of each connection and closes at the second.
  std::mutex mutex;
  std::set<const Wire*> used;
  Origin origin([&](const std::string&, Wire& wire) {
    const std::lock_guard lock(mutex);
    if (used.insert(&wire).second) return wire.send(Origin::ok("x"));
    used.erase(&wire);
    return false;
  });
  start({origin.endpoint()}, [](Pool& pool, Route&) { pool.retry_budget = 0; });
  Wire wire = Wire::connect(edge_.endpoint());
  // the second request meets the closing connection, and is sent again without cost
  for (const char* method : {"GET", "GET"}) {
    wire.send(std::string(method) + " / HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_EQ(read_answer(wire).status, 200);
  }
  EXPECT_EQ(origin.requests(), 3u);
  wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(read_answer(wire).status, info(Failure::stale_connection).status);
  EXPECT_EQ(origin.requests(), 4u);
  expect_row(Failure::stale_connection);
}

TEST_F(FailureTest, RequestStalled) {
  Origin origin([](const std::string&, Wire& wire) {  // takes no body
    pollfd ended{wire.fd(), POLLRDHUP, 0};
    return ::poll(&ended, 1, 60'000) == 0;
  });
  start({origin.endpoint()}, [](Pool& pool, Route&) { pool.idle_timeout_ms = 100; });
  Wire wire = Wire::connect(edge_.endpoint());
  std::thread sender([&] { wire.send(put(50'000'000, std::string(50'000'000, 'x'))); });
  EXPECT_TRUE(edge_.run_until([&] { return edge_.metric(series(Failure::request_stalled)) == 1; }));
  expect_row(Failure::request_stalled);
  ::shutdown(wire.fd(), SHUT_RDWR);
  sender.join();
}

TEST_F(FailureTest, ClientTooSlow) {
  Origin origin([](const std::string&, Wire& wire) { return !wire.at_end(); });
  edge_.model.listeners[0].idle_timeout_ms = 100;
  edge_.model.listeners[0].minimum_rate_bytes = 1 << 20;
  start({origin.endpoint()}, [](Pool&, Route&) {});
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send(put(1'000'000, ""));
  EXPECT_TRUE(edge_.run_until([&] {
    wire.send("x");
    return edge_.metric(series(Failure::client_too_slow)) == 1;
  }));
  EXPECT_EQ(read_answer(wire).status, info(Failure::client_too_slow).status);
  expect_row(Failure::client_too_slow);
}

TEST_F(FailureTest, ClientGone) {
  Origin origin([](const std::string&, Wire& wire) { return !wire.at_end(); });
  start({origin.endpoint()}, [](Pool&, Route&) {});
  {
    Wire wire = Wire::connect(edge_.endpoint());
    wire.send(get("/"));
    EXPECT_TRUE(edge_.run_until([&] { return origin.requests() == 1; }));
  }
  expect_row(Failure::client_gone, false);
}

TEST_F(FailureTest, PoolBusy) {
  Origin origin([](const std::string&, Wire& wire) { return !wire.at_end(); });
  start({origin.endpoint()}, [](Pool& pool, Route&) {
    pool.max_connections = 1;
    pool.queue_size = 0;
  });
  Wire first = Wire::connect(edge_.endpoint());
  first.send(get("/"));
  EXPECT_TRUE(edge_.run_until([&] { return origin.requests() == 1; }));
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).status, info(Failure::pool_busy).status);
  expect_row(Failure::pool_busy);
}

TEST_F(FailureTest, BreakerOpen) {
  Origin origin([](const std::string&, Wire&) { return false; });
  start({origin.endpoint()}, [](Pool& pool, Route&) {
    pool.eject_after = 0;
    pool.retry_attempts = 0;
    pool.breaker = {.enabled = true, .consecutive_failures = 1};
  });
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).status, info(Failure::backend_closed).status);
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).status, info(Failure::breaker_open).status);
  EXPECT_EQ(edge_.metric(series(Failure::breaker_open)), 1u);
  EXPECT_EQ(charged(edge_), 1u) << "the first request alone";
  EXPECT_EQ(origin.requests(), 1u);
}

TEST_F(FailureTest, QueueTimeout) {
  Origin origin([](const std::string&, Wire& wire) { return !wire.at_end(); });
  start({origin.endpoint()}, [](Pool& pool, Route&) {
    pool.max_connections = 1;
    pool.queue_timeout_ms = 50;
  });
  Wire first = Wire::connect(edge_.endpoint());
  first.send(get("/"));
  EXPECT_TRUE(edge_.run_until([&] { return origin.requests() == 1; }));
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).status, info(Failure::queue_timeout).status);
  expect_row(Failure::queue_timeout);
}

// The client's first request goes to no backend: a connection to one would close at some time after its answer, and
// give its descriptor to the second request.
TEST_F(FailureTest, OutOfSockets) {
  Origin origin(Origin::says("x"));
  edge_.add_fixed("/fixed", 204);
  start({origin.endpoint()}, [](Pool&, Route&) {});
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send(get("/fixed"));
  EXPECT_EQ(read_answer(wire).status, 204);
  {
    const FewFiles few(200);
    wire.send(get("/"));
    EXPECT_EQ(read_answer(wire).status, info(Failure::out_of_sockets).status);
  }
  expect_row(Failure::out_of_sockets);
  EXPECT_EQ(origin.connections(), 0u);
}

TEST_F(FailureTest, RateLimited) {
  Origin origin(Origin::says("x"));
  auto limit = std::make_shared<LimitPolicy>();
  limit->requests = 1;
  limit->per_ms = 3'600'000;
  edge_.model.policies.push_back({"q", true, {{"limit", limit}}});
  start({origin.endpoint()}, [](Pool&, Route&) {});
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).status, 200);
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).status, info(Failure::rate_limited).status);
  expect_row(Failure::rate_limited);
  EXPECT_EQ(origin.requests(), 1u);
}

TEST_F(FailureTest, ConcurrencyLimited) {
  Origin origin([](const std::string&, Wire& wire) { return !wire.at_end(); });
  auto concurrency = std::make_shared<ConcurrencyPolicy>();
  concurrency->requests = 1;
  edge_.model.policies.push_back({"q", true, {{"concurrency", concurrency}}});
  start({origin.endpoint()}, [](Pool&, Route&) {});
  Wire first = Wire::connect(edge_.endpoint());
  first.send(get("/"));
  EXPECT_TRUE(edge_.run_until([&] { return origin.requests() == 1; }));
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).status, info(Failure::concurrency_limited).status);
  expect_row(Failure::concurrency_limited);
  EXPECT_EQ(origin.requests(), 1u);
}

TEST_F(FailureTest, OnlyIfCached) {
  Origin origin(Origin::says("x"));
  edge_.model.nodes[0].cache.enabled = true;
  edge_.state_dir = state_.path;
  start({origin.endpoint()}, [](Pool&, Route& route) { route.cache.enabled = true; });
  const Answer answer = ask(edge_.endpoint(), get("/", "a.test", "Cache-Control: only-if-cached\r\n"));
  EXPECT_EQ(answer.status, info(Failure::only_if_cached).status);
  expect_row(Failure::only_if_cached);
  EXPECT_EQ(origin.requests(), 0u);
}

// Two clients ask for the same. The first leads, and its backend does not answer: the backend is charged once, and the
// second client gets the result of the shared fetch.
TEST_F(FailureTest, SharedFetchFailed) {
  Origin origin([](const std::string&, Wire& wire) { return !wire.at_end(); });
  edge_.model.nodes[0].cache.enabled = true;
  edge_.state_dir = state_.path;
  start({origin.endpoint()}, [](Pool& pool, Route& route) {
    route.cache.enabled = true;
    pool.first_byte_timeout_ms = 500;
  });
  Wire first = Wire::connect(edge_.endpoint()), second = Wire::connect(edge_.endpoint());
  first.send(get("/"));
  EXPECT_TRUE(edge_.run_until([&] { return origin.requests() == 1; }));
  second.send(get("/"));
  EXPECT_EQ(read_answer(first).status, info(Failure::first_byte_timeout).status);
  EXPECT_EQ(read_answer(second).status, info(Failure::shared_fetch_failed).status);
  EXPECT_EQ(charged(edge_), 1u);
  EXPECT_EQ(edge_.metric(series(Failure::shared_fetch_failed)), 1u);
  EXPECT_EQ(origin.requests(), 1u);
}

// --- all of them

// passwords_busy happens in authenticate_test.cc, certificate_refused in tls_test.cc, client_certificate_refused and
// denied_by_default in client_certificates_test.cc, backend_taken_down in take_down_test.cc, upgrade_refused in
// tunnel_test.cc, tunnels_unsupported in http2_tunnel_test.cc, not_accepted in acceptance_test.cc, and
// what only HTTP/2 backends and gRPC clients do in http2_backend_test.cc.
const std::set<Failure> kOwnPlays = {
    Failure::certificate_refused, Failure::connect_timeout,
    Failure::stale_connection,    Failure::request_stalled,
    Failure::client_too_slow,     Failure::client_gone,
    Failure::pool_busy,           Failure::out_of_sockets,
    Failure::only_if_cached,      Failure::tls_failed,
    Failure::queue_timeout,       Failure::shared_fetch_failed,
    Failure::backend_taken_down,  Failure::stream_refused,
    Failure::stream_reset,        Failure::deadline_exceeded,
    Failure::breaker_open,        Failure::rate_limited,
    Failure::passwords_busy,      Failure::upgrade_refused,
    Failure::concurrency_limited, Failure::client_certificate_refused,
    Failure::denied_by_default,   Failure::tunnels_unsupported,
    Failure::not_accepted,
};

TEST(FailureTable, HasATestForEachRow) {
  for (size_t i = 1; i < kFailures; ++i) {
    const auto failure = static_cast<Failure>(i);
    EXPECT_EQ(scenes().contains(failure) + kOwnPlays.count(failure), 1u) << info(failure).name;
  }
}

}  // namespace tidegate::l7::test::failure_test
