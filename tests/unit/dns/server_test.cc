// SPDX-License-Identifier: Apache-2.0
#include "dns/server/server.h"
#include "conf/model.h"
#include "conf/model/httpdns.h"
#include "conf/model/node.h"
#include "conf/model/zone.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <thread>

#include "core/clock.h"
#include "core/http_client.h"
#include "tests/unit/dns/support.h"

namespace tidegate::dns::test::server_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kPatienceMs = 60'000;

UniqueFd connect_to(const Endpoint& to, int type) {
  sockaddr_storage storage;
  const socklen_t bytes = to.to_sockaddr(storage);
  UniqueFd fd(::socket(storage.ss_family, type | SOCK_CLOEXEC, 0));
  const timeval patience{kPatienceMs / 1000, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&storage), bytes), 0);
  return fd;
}

std::vector<uint8_t> exchange_udp(const Endpoint& server, const std::vector<uint8_t>& query) {
  const UniqueFd fd = connect_to(server, SOCK_DGRAM);
  EXPECT_EQ(::send(fd.get(), query.data(), query.size(), 0), static_cast<ssize_t>(query.size()));
  std::vector<uint8_t> out(kMaxMessageBytes);
  const ssize_t got = ::recv(fd.get(), out.data(), out.size(), 0);
  out.resize(got < 0 ? 0 : static_cast<size_t>(got));
  return out;
}

std::vector<uint8_t> framed(const std::vector<uint8_t>& message) {
  std::vector<uint8_t> out(2);
  store_u16(out.data(), static_cast<uint16_t>(message.size()));
  out.insert(out.end(), message.begin(), message.end());
  return out;
}

bool read_exactly(int fd, uint8_t* to, size_t bytes) {
  for (size_t at = 0; at < bytes;) {
    const ssize_t got = ::recv(fd, to + at, bytes - at, 0);
    if (got <= 0) return false;
    at += static_cast<size_t>(got);
  }
  return true;
}

// Returns nothing if the server closed the connection.
std::vector<uint8_t> read_framed(int fd) {
  uint8_t length[2];
  if (!read_exactly(fd, length, 2)) return {};
  std::vector<uint8_t> message(load_u16(length));
  if (!read_exactly(fd, message.data(), message.size())) return {};
  return message;
}

class Serving : public ::testing::Test {
 protected:
  Serving() : server_(HashKey{1, 2}) {
    model_.zones.resize(1);
    set_zone(kZone);
    node_.dns.enabled = true;
    node_.dns.workers = 2;
    node_.dns.listen = {*Endpoint::parse("127.0.0.1:0"), *Endpoint::parse("[::1]:0")};
    node_.dns.httpdns_listen = {*Endpoint::parse("127.0.0.1:0")};
    node_.dns.trusted_proxies = {*Cidr::parse("127.0.0.0/8")};
  }
  void set_zone(const std::string& text) {
    model_.zones[0].name = "example.test.";
    model_.zones[0].file = {"example.zone", std::to_string(std::hash<std::string>{}(text)),
                            std::make_shared<const std::string>(text)};
  }
  Result<void> apply() {
    return server_.apply(
        make_snapshot(1, "d", std::make_shared<const Model>(model_), std::make_shared<const LiveState>()), node_);
  }
  void start() {
    auto applied = apply();
    // TCP uses the port that the kernel gave to UDP. Another program's TCP client on this machine may be using that
    // port.
    const auto port_taken = [&] { return !applied && applied.error().message.find("in use") != std::string::npos; };
    for (int turn = 0; turn < 50 && port_taken(); ++turn) applied = apply();
    ASSERT_TRUE(applied) << (applied ? "" : applied.error().message);
  }
  std::string metrics_text() {
    std::string out;
    server_.append_metrics(out);
    return out;
  }

  Model model_;
  Node node_;
  Server server_;
};

TEST_F(Serving, AnswersOverUdpOnBothFamilies) {
  start();
  ASSERT_EQ(server_.udp_endpoints().size(), 2U);
  for (const Endpoint& endpoint : server_.udp_endpoints()) {
    const Answer answer = read_answer(exchange_udp(endpoint, make_query("www.example.test", rrtype::kA)));
    ASSERT_TRUE(answer);
    EXPECT_THAT(answer.addresses(), ElementsAre("192.0.2.80", "192.0.2.81"));
  }
}

TEST_F(Serving, AWildcardSocketAnswersFromTheAddressThatWasAsked) {
  node_.dns.listen = {*Endpoint::parse("0.0.0.0:0"), *Endpoint::parse("[::]:0")};
  start();
  // A connected socket receives only from the address that it asked. An answer from another source would not arrive.
  for (const auto& [index, address] : {std::pair(0, "127.0.0.77"), std::pair(1, "::1")}) {
    const Endpoint asked{*IpAddress::parse(address), server_.udp_endpoints()[static_cast<size_t>(index)].port};
    EXPECT_TRUE(read_answer(exchange_udp(asked, make_query("www.example.test", rrtype::kA)))) << address;
  }
}

TEST_F(Serving, SurvivesNoiseOverUdpAndCountsIt) {
  start();
  const Endpoint endpoint = server_.udp_endpoints()[0];
  const UniqueFd fd = connect_to(endpoint, SOCK_DGRAM);
  const std::vector<uint8_t> oversized(5'000, 0x55);
  ASSERT_GT(::send(fd.get(), oversized.data(), oversized.size(), 0), 0);
  ASSERT_GT(::send(fd.get(), "short", 5, 0), 0);
  ASSERT_EQ(::send(fd.get(), "", 0, 0), 0);
  // Queries of one socket go to one worker's queue. So this query is answered after all earlier ones.
  const auto query = make_query("www.example.test", rrtype::kA);
  ASSERT_GT(::send(fd.get(), query.data(), query.size(), 0), 0);
  std::vector<uint8_t> out(2'048);
  ASSERT_GT(::recv(fd.get(), out.data(), out.size(), 0), 0);
  EXPECT_THAT(metrics_text(), HasSubstr("tidegate_dns_udp_faults_total{fault=\"oversized\"} 1\n"));
  EXPECT_THAT(metrics_text(), HasSubstr("tidegate_dns_outcomes_total{outcome=\"bad_short\"} 2\n"));
}

TEST_F(Serving, AnswersPipelinedQueriesOverTcpInOrder) {
  start();
  for (const Endpoint& endpoint : server_.tcp_endpoints()) {
    const UniqueFd fd = connect_to(endpoint, SOCK_STREAM);
    std::vector<uint8_t> stream;
    for (uint16_t id = 1; id <= 300; ++id) {
      const auto message =
          framed(make_query(id % 2 == 0 ? "www.example.test" : "nowhere.example.test", rrtype::kA, std::nullopt, id));
      stream.insert(stream.end(), message.begin(), message.end());
    }
    // In pieces that split lengths and names.
    std::thread writer([&] {
      for (size_t at = 0; at < stream.size(); at += 97) {
        ::send(fd.get(), stream.data() + at, std::min<size_t>(97, stream.size() - at), MSG_NOSIGNAL);
      }
    });
    for (uint16_t id = 1; id <= 300; ++id) {
      const Answer answer = read_answer(read_framed(fd.get()));
      ASSERT_TRUE(answer) << id;
      ASSERT_EQ(ldns_pkt_id(answer.packet.get()), id);
      ASSERT_EQ(answer.rcode(), id % 2 == 0 ? 0 : 3);
    }
    writer.join();
  }
}

TEST_F(Serving, AClientThatDoesNotReadIsNotBufferedForWithoutEnd) {
  std::string zone = kZone;
  for (int i = 0; i < 250; ++i) zone += "big IN A 10.0.0." + std::to_string(i) + "\n";
  set_zone(zone);
  start();
  const UniqueFd fd = connect_to(server_.tcp_endpoints()[0], SOCK_STREAM);
  const auto query = framed(make_query("big.example.test", rrtype::kA));
  // Far more answers than sockets and backlog can hold. The server must stop reading, and continue once we read.
  constexpr int kQueries = 8'000;
  std::thread writer([&] {
    for (int i = 0; i < kQueries; ++i) {
      size_t at = 0;
      while (at < query.size()) {
        const ssize_t sent = ::send(fd.get(), query.data() + at, query.size() - at, MSG_NOSIGNAL);
        if (sent <= 0) return;
        at += static_cast<size_t>(sent);
      }
    }
  });
  for (int i = 0; i < kQueries; ++i) ASSERT_GT(read_framed(fd.get()).size(), 4'000U) << i;
  writer.join();
}

// RFC 7766 §6.2.4: some clients say in this way that they have no more queries.
TEST_F(Serving, AnswersEveryQueryOfAClientThatHasClosedItsSide) {
  start();
  const UniqueFd fd = connect_to(server_.tcp_endpoints()[0], SOCK_STREAM);
  constexpr int kQueries = 100;
  std::vector<uint8_t> stream;
  for (int i = 0; i < kQueries; ++i) {
    const auto query = framed(make_query("www.example.test", rrtype::kA));
    stream.insert(stream.end(), query.begin(), query.end());
  }
  ASSERT_EQ(::send(fd.get(), stream.data(), stream.size(), MSG_NOSIGNAL), static_cast<ssize_t>(stream.size()));
  ::shutdown(fd.get(), SHUT_WR);
  for (int i = 0; i < kQueries; ++i) ASSERT_FALSE(read_framed(fd.get()).empty()) << i;
  EXPECT_TRUE(read_framed(fd.get()).empty()) << "the server closes too";
}

TEST_F(Serving, ClosesATcpConnectionThatSendsNoQueries) {
  start();
  for (const std::vector<uint8_t>& bytes : {std::vector<uint8_t>{0xff, 0xff, 0, 0}, framed({1, 2, 3})}) {
    const UniqueFd fd = connect_to(server_.tcp_endpoints()[0], SOCK_STREAM);
    ASSERT_GT(::send(fd.get(), bytes.data(), bytes.size(), 0), 0);
    EXPECT_THAT(read_framed(fd.get()), IsEmpty());
  }
  EXPECT_THAT(metrics_text(), HasSubstr("tidegate_dns_tcp_connections_total{event=\"oversized_query\"} 1\n"));
  EXPECT_THAT(metrics_text(), HasSubstr("tidegate_dns_tcp_connections_total{event=\"unanswerable\"} 1\n"));
}

TEST(Tcp, IdleConnectionsEndAndTheOldestMakesRoom) {
  Edge edge;
  edge.add_zone("example.test.", kZone);
  TablesPublisher publisher;
  TablesSlot& slot = publisher.add_reader();
  publisher.publish(edge.build().value());
  EventLoop loop;
  Worker worker(HashKey{});
  TcpServer server(loop, slot, worker, {.connections = 2, .idle_ms = 50});
  HeldPorts none_held;
  const Endpoint endpoint = server.listen(*Endpoint::parse("127.0.0.1:0"), none_held).value();
  const UniqueFd first = connect_to(endpoint, SOCK_STREAM);
  const UniqueFd second = connect_to(endpoint, SOCK_STREAM);
  while (server.tally().accepted.load() < 2) loop.run_once(kPatienceMs * 1'000'000ULL);
  const UniqueFd third = connect_to(endpoint, SOCK_STREAM);
  while (server.tally().accepted.load() < 3) loop.run_once(kPatienceMs * 1'000'000ULL);
  EXPECT_EQ(server.connections(), 2U);
  EXPECT_EQ(server.tally().evicted.load(), 1U);
  EXPECT_THAT(read_framed(first.get()), IsEmpty()) << "the one idle longest was closed";
  while (server.connections() > 0) loop.run_once(kPatienceMs * 1'000'000ULL);
  EXPECT_EQ(server.tally().timed_out.load(), 2U);
  EXPECT_THAT(read_framed(second.get()), IsEmpty());
  EXPECT_THAT(read_framed(third.get()), IsEmpty());
}

// A TcpServer in this thread, for tests with many clients.
class TcpDoor : public ::testing::Test {
 protected:
  void serve(TcpLimits limits) {
    edge_.add_zone("example.test.", kZone);
    publisher_.publish(edge_.build().value());
    server_ = std::make_unique<TcpServer>(loop_, slot_, worker_, limits);
    HeldPorts none_held;
    endpoint_ = server_->listen(*Endpoint::parse("127.0.0.1:0"), none_held).value();
  }
  UniqueFd connect_from(const char* source) {
    sockaddr_storage address{};
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const timeval patience{kPatienceMs / 1000, 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    socklen_t length = Endpoint{*IpAddress::parse(source), 0}.to_sockaddr(address);
    EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length), 0);
    length = endpoint_.to_sockaddr(address);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length), 0);
    return fd;
  }
  UniqueFd accepted_from(const char* source) {
    const uint64_t before = server_->tally().accepted.load();
    UniqueFd fd = connect_from(source);
    while (server_->tally().accepted.load() == before) loop_.run_once(kPatienceMs * 1'000'000ULL);
    return fd;
  }
  static bool is_open(const UniqueFd& fd) {
    char byte;
    return ::recv(fd.get(), &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
  }

  Edge edge_;
  TablesPublisher publisher_;
  TablesSlot& slot_ = publisher_.add_reader();
  EventLoop loop_;
  Worker worker_{HashKey{}};
  std::unique_ptr<TcpServer> server_;
  Endpoint endpoint_;
};

TEST_F(TcpDoor, AnAddressThatConnectsWithoutEndSweepsOutItsOwnConnectionsAlone) {
  serve({.connections = 8, .connections_per_address = 2});
  const UniqueFd bystander = accepted_from("127.0.0.2");  // longest without progress
  std::vector<UniqueFd> crowd;
  for (int i = 0; i < 100; ++i) crowd.push_back(accepted_from("127.0.0.1"));
  EXPECT_TRUE(is_open(bystander));
  EXPECT_EQ(server_->connections(), 3U);
  EXPECT_EQ(server_->tally().evicted_by_address.load(), 98U);
  EXPECT_EQ(server_->tally().evicted.load(), 0U);
  EXPECT_TRUE(is_open(crowd.back()));
  EXPECT_FALSE(is_open(crowd.front()));
}

TEST_F(TcpDoor, WithoutADescriptorTheOldestMakesRoomAndAloneItDoesNotSpin) {
  serve({});
  const UniqueFd first = accepted_from("127.0.0.1");
  UniqueFd second = connect_from("127.0.0.2"), third = connect_from("127.0.0.3");
  rlimit before{};
  ::getrlimit(RLIMIT_NOFILE, &before);
  const int next = UniqueFd(::dup(2)).get();
  rlimit lowered = before;
  lowered.rlim_cur = static_cast<rlim_t>(next);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &lowered), 0);
  // One descriptor for three clients: each takes it from the previous one, and the last one keeps it.
  while (server_->tally().accepted.load() < 3) loop_.run_once(kPatienceMs * 1'000'000ULL);
  EXPECT_EQ(server_->connections(), 1U);
  size_t rounds = 0;
  const uint64_t end_ns = monotonic_ns() + 50'000'000;
  for (; monotonic_ns() < end_ns; ++rounds) loop_.run_once(20'000'000);
  EXPECT_LT(rounds, 50U);
  ::setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_FALSE(is_open(first));
}

// The server has no connection to close. So it must wait, and not be woken again and again.
TEST_F(TcpDoor, WithoutADescriptorAndWithoutAConnectionItWaits) {
  serve({});
  const UniqueFd waiting = connect_from("127.0.0.1");
  rlimit before{};
  ::getrlimit(RLIMIT_NOFILE, &before);
  rlimit lowered = before;
  lowered.rlim_cur = static_cast<rlim_t>(UniqueFd(::dup(2)).get());
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &lowered), 0);
  size_t rounds = 0;
  const uint64_t end_ns = monotonic_ns() + 50'000'000;
  for (; monotonic_ns() < end_ns; ++rounds) loop_.run_once(20'000'000);
  ::setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_LT(rounds, 50U);
  while (server_->tally().accepted.load() < 1) loop_.run_once(kPatienceMs * 1'000'000ULL);
  EXPECT_EQ(server_->connections(), 1U);
}

TEST_F(Serving, SpeaksHttpDnsAndDohOverHttp) {
  model_.httpdns_accounts = {{"1001", "secret", true}};
  model_.httpdns_client_rate = 1;
  model_.httpdns_client_burst = 4;
  start();
  ASSERT_EQ(server_.http_endpoints().size(), 1U);
  const auto get = [&](const std::string& target) {
    HttpTarget http;
    http.endpoint = server_.http_endpoints()[0];
    HttpClientRequest request;
    request.target = target;
    request.host = "httpdns.example.test";
    request.headers = {{"X-Forwarded-For", "10.2.0.2"}};
    auto response = http_fetch(http, request);
    EXPECT_TRUE(response) << (response ? "" : response.error().message);
    return std::move(response).value();
  };
  const HttpResponse answer = get("/1001/d?host=www.example.test");
  EXPECT_EQ(answer.status, 200);
  EXPECT_THAT(answer.body, HasSubstr("\"ips\":[\"192.0.2.80\",\"192.0.2.81\"]"));
  EXPECT_THAT(answer.body, HasSubstr("\"client_ip\":\"10.2.0.2\""));
  EXPECT_EQ(get("/dns-query?dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlBHRlc3QAAAEAAQ").status, 200);
  EXPECT_EQ(get("/dns-query?dns=***").status, 400);
  EXPECT_EQ(get("/9/d?host=x").status, 403);
  const HttpResponse text = get("/d?id=1001&dn=www.example.test&ttl=1");
  EXPECT_EQ(text.body, "192.0.2.80;192.0.2.81,60");
  EXPECT_THAT(text.header("content-type"), HasSubstr("text/plain"));
  const HttpResponse refused = get("/d?id=1001&dn=a.test,b.test,c.test,d.test,e.test");  // more than a full quota
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(refused.body, "TooManyRequests");
  EXPECT_EQ(refused.header("retry-after"), "1");
  EXPECT_EQ(get("/somewhere").status, 404);
  EXPECT_THAT(metrics_text(), HasSubstr("tidegate_dns_httpdns_errors_total{code=\"AccountNotExists\"} 1\n"));
}

TEST_F(Serving, AnInterfaceThatCannotBeOpenedCostsNothingButItself) {
  node_.dns.xdp = {"no-such-link"};
  start();
  EXPECT_TRUE(read_answer(exchange_udp(server_.udp_endpoints()[0], make_query("www.example.test", rrtype::kA))));
  EXPECT_TRUE(server_.tend_xdp());
  ASSERT_EQ(server_.xdp_states().size(), 1U);
  EXPECT_EQ(server_.xdp_states()[0].interface, "no-such-link");
  EXPECT_THAT(server_.xdp_states()[0].refused, HasSubstr("No such device"));
  EXPECT_THAT(metrics_text(), HasSubstr("tidegate_dns_xdp_open{interface=\"no-such-link\"} 0\n"));
  node_.dns.xdp.clear();
  start();
  EXPECT_FALSE(server_.tend_xdp());
  EXPECT_THAT(server_.xdp_states(), IsEmpty());
}

TEST_F(Serving, AFaultyZoneIsRefusedAndTheOldOneStays) {
  start();
  set_zone(std::string(kZone) + "broken IN A nonsense\n");
  const auto refused = apply();
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("example.zone:"));
  EXPECT_TRUE(read_answer(exchange_udp(server_.udp_endpoints()[0], make_query("www.example.test", rrtype::kA))));
}

TEST_F(Serving, ANewVersionIsAnsweredFromAtOnceAndTheOldIsLetGo) {
  start();
  const Endpoint endpoint = server_.udp_endpoints()[0];
  for (int version = 1; version <= 5; ++version) {
    const std::string address = "192.0.2." + std::to_string(100 + version);
    set_zone(std::string(kZone) + "fresh IN A " + address + "\n");
    start();
    EXPECT_THAT(read_answer(exchange_udp(endpoint, make_query("fresh.example.test", rrtype::kA))).addresses(),
                ElementsAre(address));
  }
  while (!server_.collect()) std::this_thread::yield();  // a worker may still be between its answer and its next wait
}

TEST_F(Serving, ListenersFollowTheNode) {
  start();
  const Endpoint before = server_.udp_endpoints()[0];
  ASSERT_TRUE(read_answer(exchange_udp(before, make_query("www.example.test", rrtype::kA))));
  node_.dns.listen.push_back(*Endpoint::parse("127.0.0.2:0"));
  node_.dns.listen[0] = before;
  start();
  ASSERT_EQ(server_.udp_endpoints().size(), 3U);
  EXPECT_EQ(server_.udp_endpoints()[0], before);
  for (const Endpoint& endpoint : server_.udp_endpoints()) {
    EXPECT_TRUE(read_answer(exchange_udp(endpoint, make_query("www.example.test", rrtype::kA))));
  }
  EXPECT_EQ(server_.queries(), 4U) << "counters outlive their listeners";
  node_.dns.listen.push_back(*Endpoint::parse("203.0.113.254:53"));
  const auto refused = apply();
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("203.0.113.254:53"));
  EXPECT_EQ(server_.udp_endpoints().size(), 3U);
}

// Two processes in one: the second one gets duplicates of the first one's sockets, as by SCM_RIGHTS.
TEST_F(Serving, AnotherServerTakesEverySocketOverAndNoQueryIsLost) {
  start();
  node_.dns.listen = server_.udp_endpoints();
  node_.dns.httpdns_listen = server_.http_endpoints();
  const auto query = make_query("www.example.test", rrtype::kA);
  const UniqueFd kept = connect_to(node_.dns.listen[0], SOCK_STREAM);
  const auto ask_kept = [&] {
    const auto message = framed(query);
    EXPECT_EQ(::send(kept.get(), message.data(), message.size(), 0), static_cast<ssize_t>(message.size()));
    return read_framed(kept.get());
  };
  EXPECT_FALSE(ask_kept().empty());
  const auto snapshot =
      make_snapshot(1, "d", std::make_shared<const Model>(model_), std::make_shared<const LiveState>());
  const auto take_over = [&](Server& next, uint32_t workers) {
    const std::vector<LentSocket> lent = server_.sockets();
    EXPECT_EQ(lent.size(), 2U * 2 + 3U * 2);  // two workers; UDP on two addresses, TCP on two and HTTP on one
    for (const LentSocket& socket : lent) next.inherit(socket.item, UniqueFd(::fcntl(socket.fd, F_DUPFD_CLOEXEC, 0)));
    Node node = node_;
    node.dns.workers = workers;
    ASSERT_TRUE(next.hold(snapshot, node).yes());
    ASSERT_TRUE(next.apply(snapshot, node));
    next.release();
    EXPECT_GE(next.sockets().size(), lent.size()) << "none is closed";
  };
  const auto ask_often = [&] {
    for (int i = 0; i < 100; ++i) ASSERT_FALSE(exchange_udp(node_.dns.listen[i % 2], query).empty());
  };
  {
    Server given_up(HashKey{1, 2});
    take_over(given_up, 1);
    ask_often();
    given_up.leave();
    ask_often();
  }
  ask_often();
  Server next(HashKey{1, 2});
  take_over(next, 3);
  ask_often();
  EXPECT_FALSE(ask_kept().empty());
  server_.leave();
  ask_often();
  EXPECT_FALSE(ask_kept().empty()) << "a connection is served on";
  EXPECT_EQ(server_.connections_left(), 1U);
}

}  // namespace tidegate::dns::test::server_test
