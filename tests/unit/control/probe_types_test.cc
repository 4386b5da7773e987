// SPDX-License-Identifier: Apache-2.0
// The probes that speak: tcp and udp with send and expect, dns, tls; against real sockets.

#include <sys/socket.h>

#include "conf/model/probe.h"
#include "control/health/probe.h"
#include "control/health/probe_dns.h"
#include "core/tls.h"
#include "tests/unit/control/host.h"
#include "tests/unit/core/made_identity.h"

namespace tidegate::testing::probe_types_test {

using ::testing::HasSubstr;

// A socket on loopback that answers data by `reply`. An empty reply means no answer.
class Backend final : private IoHandler {
 public:
  using Reply = std::function<std::string(std::string_view)>;

  Backend(EventLoop& loop, int type, Reply reply) : loop_(loop), type_(type), reply_(std::move(reply)) {
    fd_.reset(::socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_storage address{};
    socklen_t length = Endpoint::parse("127.0.0.1:0")->to_sockaddr(address);
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    if (type == SOCK_STREAM) {
      EXPECT_EQ(::listen(fd_.get(), 16), 0);
    }
    length = sizeof address;
    EXPECT_EQ(::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
    endpoint = Endpoint::from(address);
    loop_.add(fd_.get(), EPOLLIN, this);
  }
  ~Backend() {
    loop_.remove(fd_.get());
    if (client_) loop_.remove(client_.get());
  }
  Endpoint endpoint;
  bool greets = false;  // a stream sends reply("") as soon as it is open
  bool closes = false;  // it is closed after the answer

 private:
  void on_io(uint32_t) override {
    if (type_ == SOCK_DGRAM) return answer_datagram();
    if (!client_) {
      client_.reset(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (!client_) return;
      loop_.add(client_.get(), EPOLLIN, this);
      if (greets) send_to_client("");
      return;
    }
    char buffer[4'096];
    const ssize_t got = ::recv(client_.get(), buffer, sizeof buffer, 0);
    if (got > 0) return send_to_client({buffer, static_cast<size_t>(got)});
    if (got < 0 && errno == EAGAIN) return;
    drop_client();
  }
  void send_to_client(std::string_view asked) {
    const std::string answer = reply_(asked);
    ::send(client_.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
    if (closes) drop_client();
  }
  void drop_client() {
    loop_.remove(client_.get());
    client_.reset();
  }
  void answer_datagram() {
    char buffer[4'096];
    sockaddr_storage peer{};
    socklen_t length = sizeof peer;
    const ssize_t got = ::recvfrom(fd_.get(), buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&peer), &length);
    if (got < 0) return;
    const std::string answer = reply_({buffer, static_cast<size_t>(got)});
    if (answer.empty()) return;
    ::sendto(fd_.get(), answer.data(), answer.size(), 0, reinterpret_cast<sockaddr*>(&peer), length);
  }

  EventLoop& loop_;
  int type_;
  Reply reply_;
  UniqueFd fd_, client_;
};

class ProbeTypes : public ::testing::Test {
 protected:
  ProbeResult probe(ProbeTarget target, uint64_t timeout_ms = kPatienceMs) {
    target.timeout_ms = timeout_ms;
    std::optional<ProbeResult> result;
    const auto attempt = start_probe(loop, target, [&](ProbeResult given) { result = std::move(given); });
    EXPECT_TRUE(pump(loop, [&] { return result.has_value(); }));
    return result.value_or(ProbeResult{});
  }
  ProbeTarget target(ProbeType type, const Endpoint& endpoint) const {
    ProbeTarget target;
    target.type = type;
    target.endpoint = endpoint;
    return target;
  }
  EventLoop loop;
};

TEST_F(ProbeTypes, TcpSendsAndLooksForATextAlsoInPieces) {
  Backend redis(loop, SOCK_STREAM, [](std::string_view asked) {
    return asked == "PING\r\n" ? std::string("+PO") : std::string("NG\r\n");
  });
  redis.greets = true;
  ProbeTarget ping = target(ProbeType::tcp, redis.endpoint);
  ping.send = "PING\r\n";
  ping.expect = "+PO";
  EXPECT_TRUE(probe(ping).success);
  ping.expect = "G\r\n+P";  // across two pieces: "NG\r\n" and "+PO"
  EXPECT_TRUE(probe(ping).success);
}

TEST_F(ProbeTypes, TcpTellsWhatTheAnswerLacks) {
  Backend other(loop, SOCK_STREAM, [](std::string_view) { return std::string("-LOADING\r\n"); });
  other.closes = true;
  ProbeTarget ping = target(ProbeType::tcp, other.endpoint);
  ping.send = "PING\r\n";
  ping.expect = "+PONG";
  const ProbeResult result = probe(ping);
  EXPECT_FALSE(result.success);
  EXPECT_EQ(result.cause, ProbeCause::answer) << result.reason;
  EXPECT_THAT(result.reason, HasSubstr("the answer lacks '+PONG'"));
}

TEST_F(ProbeTypes, TcpReadsNoMoreThanItsBound) {
  Backend endless(loop, SOCK_STREAM, [](std::string_view) { return std::string(64 * 1024, 'x'); });
  endless.greets = true;
  ProbeTarget wanted = target(ProbeType::tcp, endless.endpoint);
  wanted.expect = "ready";
  EXPECT_EQ(probe(wanted).reason, "the answer lacks 'ready'");
}

TEST_F(ProbeTypes, UdpIsUpByItsAnswerAlone) {
  Backend echo(loop, SOCK_DGRAM, [](std::string_view asked) { return "echo " + std::string(asked); });
  Backend mute(loop, SOCK_DGRAM, [](std::string_view) { return std::string(); });
  ProbeTarget ping = target(ProbeType::udp, echo.endpoint);
  ping.send = "ping";
  EXPECT_TRUE(probe(ping).success);
  ping.expect = "echo ping";
  EXPECT_TRUE(probe(ping).success);
  ping.expect = "pong";
  EXPECT_EQ(probe(ping).reason, "the answer lacks 'pong'");
  ping.endpoint = mute.endpoint;
  const ProbeResult silent = probe(ping, 100);
  EXPECT_EQ(silent.reason, "nothing for 100 ms");
  EXPECT_EQ(silent.cause, ProbeCause::timeout);
}

TEST_F(ProbeTypes, BytesOfAnyValueAreSentAndExpected) {
  const std::string bytes("\x00\xff\r\n\x80", 5);
  std::string came;
  Backend binary(loop, SOCK_DGRAM, [&](std::string_view asked) {
    came = asked;
    return std::string("\0ok\xfe", 4);
  });
  Probe probe_of;
  probe_of.type = ProbeType::udp;
  probe_of.port = binary.endpoint.port;
  probe_of.send = R"(\0\xFF\r\n\x80)";
  probe_of.expect = R"(\0ok\xfe)";
  tidegate::Backend backend;
  backend.addresses = {binary.endpoint.address};
  ProbeTarget ping = probe_target(probe_of, backend);
  EXPECT_TRUE(probe(ping).success);
  EXPECT_EQ(came, bytes);
  ping.expect = std::string("\xfd\0", 2);
  EXPECT_EQ(probe(ping).reason, R"(the answer lacks '\xfd\x00')");
}

TEST_F(ProbeTypes, UdpToAPortWhereNobodyListensIsRefused) {
  Endpoint gone;
  {
    Backend short_lived(loop, SOCK_DGRAM, [](std::string_view) { return std::string(); });
    gone = short_lived.endpoint;
  }
  ProbeTarget ping = target(ProbeType::udp, gone);
  ping.send = "ping";
  EXPECT_EQ(probe(ping).cause, ProbeCause::refused);
}

std::string answer_to(std::string_view query, int rcode) {
  std::string answer(query);
  answer[2] = static_cast<char>(answer[2] | '\x80');
  answer[3] = static_cast<char>(rcode);
  return answer;
}

TEST_F(ProbeTypes, DnsAsksTheNameAndComparesTheCode) {
  std::string asked;
  int rcode = 0;
  Backend server(loop, SOCK_DGRAM, [&](std::string_view query) {
    asked = query;
    return answer_to(query, rcode);
  });
  ProbeTarget query = target(ProbeType::dns, server.endpoint);
  query.dns_name = "www.example.com";
  query.dns_type = "AAAA";
  query.dns_rcode = "NOERROR";
  EXPECT_TRUE(probe(query).success);
  EXPECT_EQ(asked.substr(12), std::string("\3www\7example\3com\0\0\x1c\0\1", 21));
  rcode = 2;
  EXPECT_EQ(probe(query).reason, "answers SERVFAIL, expected NOERROR");
  rcode = 3;
  query.dns_rcode = "NXDOMAIN";
  EXPECT_TRUE(probe(query).success);
}

TEST_F(ProbeTypes, DnsDoesNotTakeAnAnswerToAnotherQuery) {
  Backend server(loop, SOCK_DGRAM, [](std::string_view query) {
    std::string answer = answer_to(query, 0);
    answer[0] = static_cast<char>(answer[0] ^ 1);
    return answer;
  });
  ProbeTarget query = target(ProbeType::dns, server.endpoint);
  query.dns_name = ".";
  query.dns_type = "SOA";
  query.dns_rcode = "NOERROR";
  EXPECT_EQ(probe(query, 100).cause, ProbeCause::timeout);
  EXPECT_EQ(dns_probe_fault("short", 1, "NOERROR"), std::nullopt);
  EXPECT_EQ(dns_probe_query(7, ".", "SOA").size(), 17U);
}

// A TLS server with a certificate for "backend.test" that ends in `days` days and an hour.
class TlsBackend {
 public:
  TlsBackend(EventLoop& loop, long days)
      : identity(make_identity("backend", "DNS:backend.test", false, days * 86'400 + 3'600)),
        server_(loop, [](const HttpExchangePtr& exchange) { exchange->respond(HttpResponse::text(200, "x")); }) {
    TlsServerOptions options;
    options.identities = {identity};
    auto context = TlsContext::server(options);
    EXPECT_TRUE(context);
    EXPECT_TRUE(server_.listen_tls(*Endpoint::parse("127.0.0.1:0"), *context));
    endpoint = server_.tcp_endpoint();
  }
  TlsIdentity identity;
  Endpoint endpoint;

 private:
  HttpServer server_;
};

TEST_F(ProbeTypes, TlsLooksAtTheDaysThatTheCertificateHasLeft) {
  const TlsBackend backend(loop, 20);
  ProbeTarget hello = target(ProbeType::tls, backend.endpoint);
  hello.host = "backend.test";
  hello.tls_ca_pem = backend.identity.certificate_pem;
  hello.tls_days = 14;
  EXPECT_TRUE(probe(hello).success) << probe(hello).reason;
  hello.tls_days = 30;
  EXPECT_EQ(probe(hello).reason, "the certificate ends in 20 days, 30 are expected");
  EXPECT_EQ(probe(hello).cause, ProbeCause::certificate);
  hello.tls_days = 0;
  hello.host = "other.test";
  EXPECT_FALSE(probe(hello).success) << "another name";
  hello.tls_verify = false;
  hello.tls_ca_pem.clear();
  EXPECT_TRUE(probe(hello).success) << "believes whoever answers";
}

TEST_F(ProbeTypes, TlsToABackendWithoutTlsIsDown) {
  Backend plain(loop, SOCK_STREAM, [](std::string_view) { return std::string("HTTP/1.1 400 Bad Request\r\n\r\n"); });
  EXPECT_EQ(probe(target(ProbeType::tls, plain.endpoint)).cause, ProbeCause::certificate);
}

}  // namespace tidegate::testing::probe_types_test
