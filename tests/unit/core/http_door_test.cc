// SPDX-License-Identifier: Apache-2.0
// Many clients at an HttpServer: who is admitted, who makes room, who is refused.
#include "core/http_door.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <list>

#include "core/http_server.h"
#include "core/metrics.h"
#include "core/open_files.h"
#include "http_fixture.h"

namespace tidegate::http_door_test {

using ::testing::HasSubstr;
using ::testing::StartsWith;

const Endpoint kAnyPort = *Endpoint::parse("127.0.0.1:0");
constexpr std::string_view kAsk = "GET /now HTTP/1.1\r\nHost: h\r\n\r\n";
constexpr std::string_view kHold = "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n";

// A client with its own address in 127/8.
UniqueFd connect_from(const char* source, const Endpoint& to) {
  sockaddr_storage address{};
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  socklen_t length = Endpoint::parse(std::string(source) + ":0")->to_sockaddr(address);
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length), 0);
  length = to.to_sockaddr(address);
  EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length), 0);
  return fd;
}

uint64_t refused(const char* reason) {
  return metrics().counter("tidegate_http_server_refused_requests_total", "", {{"reason", reason}}).value();
}
uint64_t recycled() { return metrics().counter("tidegate_http_server_recycled_connections_total", "").value(); }

// /hold is never answered, /stream never ends, everything else is answered at once.
class HttpDoorTest : public ::testing::Test {
 protected:
  void serve(const HttpServerLimits& limits) {
    server_ = std::make_unique<HttpServer>(
        loop_,
        [this](HttpExchangePtr exchange) {
          if (exchange->request().path == "/hold") return held_.push_back(std::move(exchange));
          if (exchange->request().path != "/stream") return exchange->respond(HttpResponse::text(200, "here"));
          exchange->begin_stream(200, {});
          if (exchange->write("begun")) held_.push_back(std::move(exchange));
        },
        limits);
    const Result<void> listening = server_->listen_tcp(kAnyPort);
    ASSERT_TRUE(listening) << listening.error().message;
  }
  void TearDown() override {
    clients_.clear();
    held_.clear();
    server_.reset();
  }
  RawClient& client(const char* source = "127.0.0.1") {
    return clients_.emplace_back(loop_, connect_from(source, server_->tcp_endpoint()));
  }
  // A client that was certainly accepted and has no request in progress.
  RawClient& idle_client(const char* source = "127.0.0.1") {
    RawClient& made = client(source);
    made.send(kAsk);
    made.read_until("here");
    return made;
  }
  RawClient& busy_client(const char* source = "127.0.0.1") {
    const size_t before = held_.size();
    RawClient& made = client(source);
    made.send(kHold);
    EXPECT_TRUE(turn_until(loop_, [&] { return held_.size() == before + 1; }));
    return made;
  }
  std::string ask_from(const char* source) {
    RawClient& made = client(source);
    made.send("GET /now HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    return made.read_all();
  }
  static bool is_open(RawClient& asked) {
    asked.send(kAsk);
    return asked.read_until("here", asked.count("here") + 1).find("here") != std::string::npos;
  }

  EventLoop loop_;
  std::unique_ptr<HttpServer> server_;
  std::vector<HttpExchangePtr> held_;
  std::list<RawClient> clients_;
};

TEST_F(HttpDoorTest, AtTheBoundTheConnectionIdleLongestMakesRoom) {
  HttpServerLimits limits;
  limits.connections = 4;
  serve(limits);
  RawClient& busy = busy_client("127.0.0.2");
  RawClient& first = idle_client("127.0.0.3");
  RawClient& second = idle_client("127.0.0.4");
  RawClient& silent = client("127.0.0.5");  // has not sent a byte
  first.send(kAsk);                         // from now on it has been idle for less time than the second
  first.read_until("here", 2);
  const uint64_t before = recycled(), refused_before = refused("too_many_connections");
  EXPECT_THAT(ask_from("127.0.0.6"), HasSubstr("here"));
  EXPECT_EQ(recycled(), before + 1);
  EXPECT_EQ(second.read_all().find("503"), std::string::npos);
  idle_client("127.0.0.7");  // takes the place of the client that asked
  EXPECT_THAT(ask_from("127.0.0.8"), HasSubstr("here"));
  EXPECT_EQ(silent.read_all(), "") << "who has not asked yet makes room like the others";
  EXPECT_TRUE(is_open(first));
  held_.front()->respond(HttpResponse::text(200, "late"));
  EXPECT_THAT(busy.read_until("late"), HasSubstr("late"));
  EXPECT_EQ(refused("too_many_connections"), refused_before);
}

// The common attack: more idle connections than there are places, and half a head on some more.
TEST_F(HttpDoorTest, ABystanderIsServedBesideACrowdThatSitsOnEveryPlace) {
  HttpServerLimits limits;
  limits.connections = 32;
  limits.connections_per_address = 32;
  serve(limits);
  for (int i = 0; i < 40; ++i) client().send(i % 2 == 0 ? "" : "GET / HTTP/1.1\r\nHo");
  for (int i = 0; i < 20; ++i) {
    EXPECT_THAT(ask_from("127.0.0.9"), HasSubstr("here"));
    client().send(i % 2 == 0 ? "" : "GET / HTTP/1.1\r\nHo");
  }
}

TEST_F(HttpDoorTest, WhoseRequestIsUnderWayIsNeverClosedAndTheNewcomerIsToldSo) {
  HttpServerLimits limits;
  limits.connections = 2;
  serve(limits);
  busy_client();
  RawClient& second = busy_client();
  const uint64_t before = refused("too_many_connections");
  EXPECT_THAT(client("127.0.0.2").read_all(), StartsWith("HTTP/1.1 503 "));
  EXPECT_EQ(refused("too_many_connections"), before + 1);
  held_.back()->respond(HttpResponse::text(200, "done"));
  EXPECT_THAT(second.read_until("done"), HasSubstr("done"));
}

TEST_F(HttpDoorTest, OneAddressHasItsShareAndTheOthersHaveTheirs) {
  HttpServerLimits limits;
  limits.connections = 100;
  limits.connections_per_address = 3;
  serve(limits);
  RawClient& bystander = idle_client("127.0.0.2");  // idle longest of all
  busy_client();
  busy_client();
  RawClient& own = idle_client();
  const uint64_t before = refused("too_many_from_address");
  busy_client();  // an idle connection of the same address makes room
  own.read_all();
  EXPECT_THAT(client().read_all(), StartsWith("HTTP/1.1 503 "));
  EXPECT_EQ(refused("too_many_from_address"), before + 1);
  EXPECT_TRUE(is_open(bystander));
  EXPECT_THAT(ask_from("127.0.0.3"), HasSubstr("here"));
  held_.clear();  // three answers with 500, which leave the connections idle
  EXPECT_THAT(ask_from("127.0.0.1"), HasSubstr("here"));
}

TEST_F(HttpDoorTest, ATrustedProxyIsNotCountedByAddress) {
  HttpServerLimits limits;
  limits.connections_per_address = 3;
  limits.trusted_addresses = {*Cidr::parse("127.0.0.1/32")};
  serve(limits);
  for (int i = 0; i < 50; ++i) busy_client();
  EXPECT_THAT(ask_from("127.0.0.1"), HasSubstr("here"));
}

TEST_F(HttpDoorTest, TheUnixSocketHasPlacesOfItsOwn) {
  TemporaryDirectory directory;
  HttpServerLimits limits;
  limits.connections = 4;
  serve(limits);
  ASSERT_TRUE(server_->listen_unix(directory / "s"));
  for (int i = 0; i < 4; ++i) busy_client();
  EXPECT_THAT(client("127.0.0.2").read_all(), StartsWith("HTTP/1.1 503 "));
  RawClient& local = clients_.emplace_back(loop_, connect_unix(directory / "s"));
  local.send(kAsk);
  EXPECT_THAT(local.read_until("here"), HasSubstr("here"));
}

TEST_F(HttpDoorTest, StreamsHaveABoundAndLeaveRoomForQuestions) {
  HttpServerLimits limits;
  limits.streams = 2;
  serve(limits);
  const auto watch = [&]() -> RawClient& {
    RawClient& made = client();
    made.send("GET /stream HTTP/1.1\r\nHost: h\r\n\r\n");
    return made;
  };
  RawClient& first = watch();
  first.read_until("begun");
  watch().read_until("begun");
  const uint64_t before = refused("too_many_streams");
  RawClient& third = watch();
  EXPECT_THAT(third.read_until("as many streams"), StartsWith("HTTP/1.1 503 "));
  EXPECT_EQ(refused("too_many_streams"), before + 1);
  third.send(kAsk);  // the connection works as before
  third.read_until("here");
  first.close();
  loop_.run_once(kNsPerS);
  EXPECT_THAT(watch().read_until("begun"), HasSubstr("begun"));
}

TEST(HttpDoor, TheLastPlacesOfAUnixSocketAreItsOwners) {
  HttpDoor door(HttpDoor::Kind::local, {4, 0, 2, 1, {}}, metrics().counter("tidegate_test_recycled_total", ""));
  HttpDoor::Newcomer other, owner;
  other.uid = ::geteuid() + 1;
  owner.uid = ::geteuid();
  std::list<HttpDoor::Place> places;
  const auto enter = [&](const HttpDoor::Newcomer& newcomer) {
    return door.enter(newcomer, 1, places.emplace_back()) == HttpDoor::Refusal::none;
  };
  EXPECT_TRUE(enter(other));
  EXPECT_TRUE(enter(other));
  EXPECT_FALSE(enter(other));
  EXPECT_TRUE(enter(owner));
  EXPECT_TRUE(enter(owner));
  EXPECT_FALSE(enter(owner));
  places.clear();
  EXPECT_TRUE(enter(other));
}

// Lowers the limit of open files, and opens files until only `left` more may be opened.
class FewFiles {
 public:
  explicit FewFiles(uint64_t limit) {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    rlimit lowered = before_;
    lowered.rlim_cur = limit;
    EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &lowered), 0);
  }
  ~FewFiles() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  // Opens files until the lowest free number is `next`.
  void fill_up_to(int next) {
    for (;;) {
      UniqueFd fd(::dup(2));
      if (!fd || fd.get() >= next) return;
      files_.push_back(std::move(fd));
    }
  }

 private:
  rlimit before_{};
  std::vector<UniqueFd> files_;
};

TEST_F(HttpDoorTest, TcpLeavesTheLastDescriptorsToTheUnixSocket) {
  TemporaryDirectory directory;
  serve({});
  ASSERT_TRUE(server_->listen_unix(directory / "s"));
  FewFiles few(160);  // 20 of these are reserved
  ASSERT_FALSE(is_reserved_file(139));
  ASSERT_TRUE(is_reserved_file(140));
  few.fill_up_to(138);
  RawClient& first = idle_client();  // 138, and 139 for the server's end
  const uint64_t recycled_before = recycled(), refused_before = refused("no_descriptors");
  busy_client("127.0.0.2");  // 140 and 141; the first client's connection makes room for it
  EXPECT_EQ(recycled(), recycled_before + 1);
  EXPECT_EQ(first.count("503"), 0u);
  few.fill_up_to(139);
  few.fill_up_to(140);
  EXPECT_THAT(client("127.0.0.3").read_all(), StartsWith("HTTP/1.1 503 "));
  EXPECT_EQ(refused("no_descriptors"), refused_before + 1);
  RawClient& local = clients_.emplace_back(loop_, connect_unix(directory / "s"));
  local.send(kAsk);
  EXPECT_THAT(local.read_until("here"), HasSubstr("here"));
}

TEST_F(HttpDoorTest, WithoutADescriptorTheIdleMakeRoomAndTheLoopDoesNotSpin) {
  serve({});
  FewFiles few(160);
  RawClient& idle = idle_client();
  UniqueFd waiting = connect_from("127.0.0.2", server_->tcp_endpoint());
  few.fill_up_to(160);
  RawClient& newcomer = clients_.emplace_back(loop_, std::move(waiting));
  newcomer.send(kHold);
  EXPECT_TRUE(turn_until(loop_, [&] { return held_.size() == 1; })) << "the idle one's descriptor serves it";
  idle.close();  // the client's end; this frees one descriptor
  UniqueFd another = connect_from("127.0.0.3", server_->tcp_endpoint());
  ASSERT_TRUE(another);
  size_t rounds = 0;
  for (const uint64_t end_ns = monotonic_ns() + 50 * kNsPerMs; monotonic_ns() < end_ns; ++rounds) {
    loop_.run_once(20 * kNsPerMs);
  }
  EXPECT_LT(rounds, 50u);
}

}  // namespace tidegate::http_door_test
