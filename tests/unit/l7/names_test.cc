// SPDX-License-Identifier: Apache-2.0
// Names as backends, with a name server whose answers the test changes.
#include "l7/backend/names.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <atomic>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::names_test {

void put_16(std::string& out, size_t value) {
  out += static_cast<char>(value >> 8);
  out += static_cast<char>(value);
}

std::string wire_name(const std::string& name) {
  std::string out;
  for (size_t at = 0; at < name.size();) {
    const size_t end = std::min(name.find('.', at), name.size());
    out += static_cast<char>(end - at);
    out += name.substr(at, end - at);
    at = end + 1;
  }
  return out + '\0';
}

std::string record(uint16_t type, uint32_t ttl, const std::string& data) {
  std::string out("\xc0\x0c", 2);  // the question's name
  put_16(out, type);
  put_16(out, 1);
  put_16(out, ttl >> 16);
  put_16(out, ttl & 0xffff);
  put_16(out, data.size());
  return out + data;
}

std::string address_record(const char* address, uint32_t ttl = 60) {
  const IpAddress parsed = *IpAddress::parse(address);
  return record(parsed.is_v4() ? 1 : 28, ttl, {reinterpret_cast<const char*>(parsed.bytes.data()), parsed.size()});
}

std::string srv_record(uint16_t priority, uint16_t weight, uint16_t port, const char* target, uint32_t ttl = 60) {
  std::string data;
  for (const uint16_t value : {priority, weight, port}) put_16(data, value);
  return record(33, ttl, data + wire_name(target));
}

// Answers over UDP what the test has set; NXDOMAIN for other names.
class NameServer {
 public:
  NameServer() : fd_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_storage address{};
    socklen_t length = Endpoint::parse("127.0.0.1:0")->to_sockaddr(address);
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    ::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &length);
    endpoint = Endpoint::from(address);
    thread_ = std::thread([this] { run(); });
  }
  ~NameServer() {
    ::shutdown(fd_.get(), SHUT_RDWR);
    thread_.join();
  }
  void set(const std::string& name, uint16_t type, std::vector<std::string> records) {
    const std::lock_guard lock(mutex_);
    records_[{wire_name(name), type}] = std::move(records);
  }
  std::atomic<bool> fails{false};  // SERVFAIL to everything
  std::atomic<size_t> asked{0};
  Endpoint endpoint;

 private:
  void run() {
    char bytes[512];
    sockaddr_storage peer{};
    for (socklen_t length = sizeof peer;; length = sizeof peer) {
      const ssize_t got = ::recvfrom(fd_.get(), bytes, sizeof bytes, 0, reinterpret_cast<sockaddr*>(&peer), &length);
      if (got <= 12) return;
      ++asked;
      const std::string answer = reply({bytes, static_cast<size_t>(got)});
      ::sendto(fd_.get(), answer.data(), answer.size(), 0, reinterpret_cast<sockaddr*>(&peer), length);
    }
  }
  std::string reply(const std::string& query) {
    const size_t end = query.find('\0', 12) + 1;
    const std::string question = query.substr(12, end + 4 - 12);
    const auto type =
        static_cast<uint16_t>(static_cast<uint8_t>(query[end]) << 8 | static_cast<uint8_t>(query[end + 1]));
    const std::lock_guard lock(mutex_);
    const auto found = records_.find({query.substr(12, end - 12), type});
    const size_t count = fails || found == records_.end() ? 0 : found->second.size();
    std::string out = query.substr(0, 2);
    put_16(out, 0x8180 | (fails ? 2 : found == records_.end() ? 3 : 0));
    for (const size_t value : {size_t{1}, count, size_t{0}, size_t{0}}) put_16(out, value);
    out += question;
    for (size_t i = 0; i < count; ++i) out += found->second[i];
    return out;
  }

  UniqueFd fd_;
  std::mutex mutex_;
  std::map<std::pair<std::string, uint16_t>, std::vector<std::string>> records_;
  std::thread thread_;
};

class Names : public testing::Test {
 protected:
  // A pool with one backend of that kind; its names are asked for every 20 ms.
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
  // The Plan in force leads to that server alone.
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
  server_.set("app.test", 1, {address_record("127.0.0.2")});  // where nobody listens on that port
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

// What runs on an address that is gone runs on.
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
  // A worker takes up the first answer of the name server a moment after the main thread has it. Until then it says
  // 503.
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
