// SPDX-License-Identifier: Apache-2.0
// The access log: its lines by template, the times of a request's phases, and syslog collectors that are there, slow or
// gone.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <regex>
#include <thread>

#include "conf/model.h"
#include "conf/model/certificate.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/policy.h"
#include "conf/model/pool.h"
#include "conf/policy/fault.h"
#include "l7/observe/log_line.h"
#include "tests/unit/l7/certificates.h"
#include "tests/unit/l7/state_dir.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::access_log_test {

// --- lines, as functions of a record

LogTemplate template_of(std::string_view text) {
  LogTemplate out;
  EXPECT_EQ(LogTemplate::parse(text, out).detail, "") << text;
  return out;
}

std::string line_of(const AccessRecord& record, std::string_view text, const LogLineHeader& header = {}) {
  std::string out(kLongestLogLine, '\0');
  out.resize(write_template_line(record, template_of(text), header, out.data()));
  EXPECT_TRUE(out.ends_with("\n"));
  out.pop_back();
  return out;
}

TEST(LogLines, ATemplateIsFilledInAndWhatIsEmptyIsADash) {
  AccessRecord record;
  record.realtime_ns = 1'769'860'800'123'456'789;  // 2026-01-31 12:00:00 UTC
  record.client = "192.0.2.1";
  record.method = "GET";
  record.path = "/a";
  record.query = "b=1";
  record.status = 200;
  record.response_bytes = 17;
  record.total_ns = 1'234'567;
  EXPECT_EQ(line_of(record, "{client} - {identity} [{time_common}] \"{request}\" {status} {response_bytes}"),
            "192.0.2.1 - - [31/Jan/2026:12:00:00 +0000] \"GET /a?b=1 HTTP/1.1\" 200 17");
  EXPECT_EQ(line_of(record, "{time} {time_unix} {uri} {total_ms} {connect_ms} {backend} {cookie.a}"),
            "2026-01-31T12:00:00.123Z 1769860800.123 /a?b=1 1.234 - - -");
  EXPECT_EQ(line_of(record, "{{{status}}}"), "{200}");
}

TEST(LogLines, FieldsAndCookiesAreTakenFromBothHeads) {
  FieldList request;
  request.add({"x-shop", "17", FieldKind::other});
  request.add({"cookie", "a=1; sid=abc", FieldKind::other});
  const Field response[] = {{"etag", "\"v1\"", FieldKind::other}};
  AccessRecord record;
  record.request_fields = &request;
  record.response_fields = response;
  EXPECT_EQ(line_of(record, "{header.X-Shop} {cookie.sid} {response_header.etag} {header.nothing}"),
            "17 abc \\u0022v1\\u0022 -");
}

// Text from a client cannot end its quotes or its line.
TEST(LogLines, AValueNeverEndsItsQuotesOrItsLine) {
  FieldList request;
  request.add({"user-agent", "a\" 200 \\ \t\x1b\xff\r\nGET", FieldKind::other});
  AccessRecord record;
  record.request_fields = &request;
  const std::string line = line_of(record, "\"{header.user-agent}\" end");
  EXPECT_EQ(line, "\"a\\u0022 200 \\u005c \\u0009\\u001b\\u00ff\\u000d\\u000aGET\" end");
  EXPECT_EQ(nlohmann::json::parse(line.substr(0, line.size() - 4)).get<std::string>(),
            "a\" 200 \\ \t\x1b\xc3\xbf\r\nGET");
}

TEST(LogLines, WhatIsTooLongIsCutAndTheLineAlwaysFits) {
  FieldList request;
  const std::string odd(9'000, '"');
  request.add({"x", odd, FieldKind::other});
  AccessRecord record;
  record.request_fields = &request;
  record.path = odd;
  std::string text;
  for (int i = 0; i < 60; ++i) text += "{header.x} and ";
  text += "{path} {cut}";
  EXPECT_LT(line_of(record, text).size(), kLongestLogLine);
  EXPECT_TRUE(line_of(record, "{header.x} {client} {header.x} {path} {cut}").ends_with(" x,x,path"))
      << "the values that were cut are named";
  EXPECT_EQ(line_of(record, "{path} {cut}").substr(0, 6), "\\u0022");
  EXPECT_TRUE(line_of(record, "{path} {cut}").ends_with(" path"));
}

TEST(LogLines, ASyslogHeaderHasTheTimeOfTheRequest) {
  AccessRecord record;
  record.realtime_ns = 1'769'860'800'123'456'789;
  EXPECT_EQ(line_of(record, "x", {"<190>1 ", " n1 tidegate 7 access - "}),
            "<190>1 2026-01-31T12:00:00.123Z n1 tidegate 7 access - x");
}

// --- collectors

// A datagram socket at a path, like a syslog daemon's.
class Collector {
 public:
  explicit Collector(const std::string& path) : fd_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    ::unlink(path.c_str());
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    set_time_limit();
  }
  // UDP, on a port of loopback that the kernel chooses.
  Collector() : fd_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_storage address{};
    const socklen_t length = Endpoint::parse("127.0.0.1:0")->to_sockaddr(address);
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    set_time_limit();
  }
  Endpoint endpoint() const {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    ::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &length);
    return Endpoint::from(address);
  }
  // The next message. Empty if none came for a long time.
  std::string next() {
    std::string message(kLongestLogLine, '\0');
    const ssize_t got = ::recv(fd_.get(), message.data(), message.size(), 0);
    message.resize(got < 0 ? 0 : static_cast<size_t>(got));
    return message;
  }
  ssize_t send(std::string_view message) {
    sockaddr_storage own{};
    socklen_t length = sizeof own;
    ::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&own), &length);
    return ::sendto(fd_.get(), message.data(), message.size(), 0, reinterpret_cast<sockaddr*>(&own), length);
  }

 private:
  void set_time_limit() {
    const timeval limit{20, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
  UniqueFd fd_;
};

void expect_message(const std::string& message, const std::string& pri, const std::string& tag) {
  static const std::regex kMessage(
      R"(<(\d+)>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (\S+) (\S+) (\d+) access - ([^\n]*))");
  std::smatch parts;
  ASSERT_TRUE(std::regex_match(message, parts, kMessage)) << message;
  EXPECT_EQ(parts[1], pri);
  EXPECT_EQ(parts[2], "n1") << "the node";
  EXPECT_EQ(parts[3], tag);
  EXPECT_EQ(parts[4], std::to_string(::getpid()));
}

class AccessLogTest : public ::testing::Test {
 protected:
  void start(const std::string& target, const std::string& format) {
    L7Node& l7 = edge_.emplace().model.nodes[0].l7;
    l7.access_log = target;
    l7.access_log_format = format;
    edge_->add_fixed("/*", 204);
    edge_->start();
  }
  // Sends this many requests on one connection. Each is answered, whatever the log does.
  void ask_some(size_t requests, const std::string& fields = "") {
    Wire wire = Wire::connect(edge_->endpoint());
    for (size_t i = 0; i < requests; ++i) {
      wire.send(get("/" + std::to_string(asked_++), "a.test", fields));
      ASSERT_EQ(read_answer(wire).status, 204);
    }
  }
  uint64_t dropped() const { return edge_->metric("tidegate_l7_log_lines_dropped_total"); }

  const StateDir dir_;
  const std::string path_ = dir_.path + "/log";
  std::optional<Edge> edge_;
  size_t asked_ = 0;
};

TEST_F(AccessLogTest, AFileHasLinesByTemplate) {
  start(path_, "{method} {uri} {status} \"{header.X-Shop}\"");
  ask_some(2, "X-Shop: 17\r\n");
  edge_.reset();
  std::ifstream file(path_);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  EXPECT_EQ(text, "GET /0 204 \"17\"\nGET /1 204 \"17\"\n");
}

TEST_F(AccessLogTest, ASocketOfSyslogGetsEachLineAsAMessage) {
  Collector collector(path_);
  start("syslog:" + path_, "");
  ask_some(3);
  for (int i = 0; i < 3; ++i) {
    const std::string message = collector.next();
    expect_message(message, "190", "tidegate");
    const auto line = nlohmann::json::parse(message.substr(message.find(" - ") + 3), nullptr, false);
    ASSERT_TRUE(line.is_object()) << message;
    EXPECT_EQ(line["path"], "/" + std::to_string(i));
  }
}

TEST_F(AccessLogTest, SyslogOverUdpGetsTemplatesWithTheNodesWords) {
  Collector collector;
  edge_.emplace().model.nodes[0].l7.access_log_facility = "daemon";
  L7Node& l7 = edge_->model.nodes[0].l7;
  l7.access_log = "syslog:" + collector.endpoint().to_string();
  l7.access_log_tag = "web";
  l7.access_log_format = "{path} {status}";
  edge_->add_fixed("/*", 204);
  edge_->start();
  ask_some(1);
  const std::string message = collector.next();
  expect_message(message, "30", "web");
  EXPECT_TRUE(message.ends_with(" access - /0 204")) << message;
}

// The collector is not there at first, then ends, and comes back. Lines wait for it in memory, and none is lost.
TEST_F(AccessLogTest, LinesWaitForACollectorThatIsNotThere) {
  start("syslog:" + path_, "{path}");
  ask_some(3);
  std::vector<std::string> got;
  {
    Collector collector(path_);
    for (int i = 0; i < 3; ++i) got.push_back(collector.next());
  }
  ask_some(2);
  Collector again(path_);
  ask_some(1);
  for (int i = 0; i < 3; ++i) got.push_back(again.next());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_TRUE(got[i].ends_with(" - /" + std::to_string(i))) << got[i];
  }
  EXPECT_EQ(dropped(), 0u);
}

TEST_F(AccessLogTest, ACollectorThatDoesNotReadCostsLinesAndNoRequestWaits) {
  Collector collector(path_);
  start("syslog:" + path_, "{path} {header.x} {header.x} {header.x}");
  const std::string fields = "X: " + std::string(4'000, 'x') + "\r\n";
  while (dropped() == 0 && asked_ < 4'000) ask_some(20, fields);  // more than the ring and the socket hold
  EXPECT_GT(dropped(), 0u);
}

// Each line has come complete and in order, or is counted.
TEST_F(AccessLogTest, EachLineHasComeOrIsCounted) {
  Collector collector(path_);
  Metrics metrics;
  Counter& dropped = metrics.counter("dropped_total", "");
  AccessLogOptions options;
  options.target = *LogTarget::parse("syslog:" + path_);
  options.tag = "t";
  auto log = AccessLog::open(options, 1, dropped);
  ASSERT_TRUE(log);
  uint64_t given = 0, refused = 0;
  for (; refused < 10; ++given) {  // until the ring is full
    const std::string line = std::to_string(given) + " " + std::string(9'000, 'x') + "\n";
    if (!(*log)->ring(0).push(line)) ++refused;
  }
  uint64_t received = 0;
  std::thread reader([&] {
    uint64_t before = 0;
    for (std::string message = collector.next(); message != "end"; message = collector.next(), ++received) {
      ASSERT_EQ(message.size(), message.find(' ') + 9'001) << "a whole line";
      const uint64_t number = std::stoull(message);
      ASSERT_TRUE(received == 0 || number > before);
      before = number;
    }
  });
  log->reset();  // gives what waits
  ASSERT_EQ(collector.send("end"), 3);
  reader.join();
  EXPECT_GT(received, 100u);
  EXPECT_EQ(received + refused + dropped.value(), given);
}

// --- times

nlohmann::json last_line(const std::string& path) {
  std::ifstream file(path);
  std::string line, last;
  while (std::getline(file, line)) last = line;
  return nlohmann::json::parse(last, nullptr, false);
}

TEST_F(AccessLogTest, TheTimesOfPhasesAreThoseThatTheRequestHad) {
  Edge behind;
  behind.add_fixed("/*", 204);
  behind.model.certificates.push_back(certificate_for("a.test"));
  behind.model.listeners[0].tls.enabled = true;
  behind.model.listeners[0].tls.certificates = {0};
  behind.start();
  edge_.emplace().model.nodes[0].l7.access_log = path_;
  const uint32_t pool = edge_->add_pool("secure", {behind.endpoint()});
  edge_->model.pools[pool].tls = true;
  edge_->model.pools[pool].tls_verify = false;
  auto fault = std::make_shared<FaultPolicy>();
  fault->delay_ms = 30;
  fault->header = "x-slow";
  edge_->model.policies.push_back({"slow", true, {{"fault", fault}}});
  edge_->add_route("/*", pool);
  edge_->start();
  const auto line_after = [&](size_t lines, const std::string& fields) {
    EXPECT_EQ(ask(edge_->endpoint(), get("/", "a.test", fields)).status, 204);
    EXPECT_TRUE(edge_->run_until([&] {
      std::ifstream file(path_);
      return std::count(std::istreambuf_iterator<char>(file), {}, '\n') == static_cast<std::ptrdiff_t>(lines);
    }));
    return last_line(path_);
  };
  const nlohmann::json first = line_after(1, "X-Slow: 1\r\n");
  for (const char* phase : {"policies_ms", "connect_ms", "connected_ms", "first_byte_ms", "total_ms"}) {
    ASSERT_TRUE(first.contains(phase)) << phase << first;
  }
  EXPECT_GE(first["policies_ms"], 29.0) << first;
  // Times within one turn of the loop are equal, but policies are timed by the clock itself. A handshake that ends in
  // the turn in which the connection was made has no time of its own.
  const double connecting = first.value("connect_ms", 0.0) + first.value("backend_tls_ms", 0.0);
  EXPECT_GE(first.value("connected_ms", 0.0) + 20.0, first.value("policies_ms", 0.0) + connecting) << first;
  EXPECT_GE(first["first_byte_ms"], first["connected_ms"]);
  EXPECT_GE(first["total_ms"], first["first_byte_ms"]);
  EXPECT_GE(first["connected_ms"], 29.0) << "policies come first";
  const nlohmann::json second = line_after(2, "");
  EXPECT_LT(second.value("policies_ms", 0.0), first.value("policies_ms", 0.0));
  EXPECT_FALSE(second.contains("connect_ms") || second.contains("backend_tls_ms")) << "the connection was there";
}

}  // namespace tidegate::l7::test::access_log_test
