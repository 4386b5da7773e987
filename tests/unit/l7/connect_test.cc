// SPDX-License-Identifier: Apache-2.0
// How connections are made: to unix sockets, from a local address, with a PROXY header, with a client certificate. Also
// PROXY headers that we receive.
#include <gtest/gtest.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <chrono>
#include <mutex>
#include <optional>
#include <thread>

#include "conf/model.h"
#include "conf/model/certificate.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "l7/plan/backend_address.h"
#include "l7/wire/proxy_protocol.h"
#include "tests/unit/l7/certificates.h"
#include "tests/unit/l7/state_dir.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::connect_test {

// Accepts on any listening socket and gives each connection to a function, one after the other.
class Acceptor {
 public:
  Acceptor(UniqueFd listen, std::function<void(UniqueFd)> serve)
      : listen_(std::move(listen)), thread_([this, serve = std::move(serve)] {
          for (int fd; (fd = ::accept4(listen_.get(), nullptr, nullptr, SOCK_CLOEXEC)) >= 0;) serve(UniqueFd(fd));
        }) {}
  ~Acceptor() {
    ::shutdown(listen_.get(), SHUT_RDWR);
    thread_.join();
  }

 private:
  UniqueFd listen_;
  std::thread thread_;
};

UniqueFd listen_at(const BackendAddress& address, Endpoint* bound = nullptr) {
  UniqueFd fd(::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_storage storage{};
  socklen_t length = address.to_sockaddr(storage);
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&storage), length), 0);
  EXPECT_EQ(::listen(fd.get(), 16), 0);
  length = sizeof storage;
  ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&storage), &length);
  if (bound != nullptr) *bound = Endpoint::from(storage);
  return fd;
}

// A new version is in force when an answer shows it.
bool becomes(Edge& edge, int status) {
  return edge.run_until([&] { return ask(edge.endpoint(), get("/")).status == status; });
}

TEST(Connect, ABackendCanBeAUnixSocket) {
  const StateDir state;
  const std::string path = state.path + "/app.sock";
  std::mutex mutex;
  std::string head;
  const Acceptor acceptor(listen_at({{}, path}), [&](UniqueFd fd) {
    Wire wire(std::move(fd));
    for (std::string got; !(got = wire.read_until("\r\n\r\n")).empty();) {
      {
        const std::lock_guard lock(mutex);
        head = got;
      }
      wire.send(Origin::ok("over a socket"));
    }
  });
  Edge edge;
  const uint32_t pool = edge.add_pool("p", {{}});
  edge.model.pools[pool].backends[0].addresses.clear();
  edge.model.pools[pool].backends[0].socket = path;
  edge.add_route("/*", pool);
  edge.start();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ask(edge.endpoint(), get("/")).body, "over a socket");
  EXPECT_EQ(edge.metric("tidegate_l7_backend_connections_total"), 1u) << "it is kept like any other";
  EXPECT_EQ(ask(edge.endpoint(), "GET / HTTP/1.0\r\n\r\n").status, 200);
  {
    const std::lock_guard lock(mutex);
    EXPECT_NE(head.find("Host: localhost"), std::string::npos) << head;
  }
  edge.model.pools[pool].backends[0].socket = state.path + "/nobody.sock";
  ASSERT_TRUE(edge.publish());
  EXPECT_TRUE(becomes(edge, 502));
  EXPECT_EQ(edge.metric("tidegate_l7_failures_total{reason=\"connect_failed\"}"), 1u);
}

TEST(Connect, ALocalAddressIsTheOneThatBackendsSee) {
  Origin origin([](const std::string&, Wire& wire) {
    sockaddr_storage storage{};
    socklen_t length = sizeof storage;
    ::getpeername(wire.fd(), reinterpret_cast<sockaddr*>(&storage), &length);
    return wire.send(Origin::ok(Endpoint::from(storage).address.to_string()));
  });
  Edge edge;
  const uint32_t pool = edge.add_pool("p", {origin.endpoint()});
  edge.model.pools[pool].local_addresses = {*IpAddress::parse("::1"), *IpAddress::parse("127.0.0.9")};
  edge.add_route("/*", pool);
  edge.start();
  EXPECT_EQ(ask(edge.endpoint(), get("/")).body, "127.0.0.9");
  // An address that this host does not have.
  edge.model.pools[pool].local_addresses = {*IpAddress::parse("192.0.2.77")};
  ASSERT_TRUE(edge.publish());
  EXPECT_TRUE(becomes(edge, 502));
  edge.model.pools[pool].local_addresses = {};
  ASSERT_TRUE(edge.publish());
  EXPECT_TRUE(becomes(edge, 200));
}

// An origin that takes a PROXY header at the beginning of each connection.
struct ProxiedOrigin {
  std::mutex mutex;
  std::vector<ProxyAddresses> seen;  // by connection
  size_t requests = 0;
  Endpoint endpoint;
  std::vector<std::thread> threads;
  std::optional<Acceptor> acceptor{
      std::in_place, listen_at({*Endpoint::parse("127.0.0.1:0"), {}}, &endpoint),
      [this](UniqueFd fd) { threads.emplace_back([this, fd = std::move(fd)]() mutable { serve(std::move(fd)); }); }};
  ~ProxiedOrigin() {
    acceptor.reset();
    for (std::thread& thread : threads) thread.join();
  }
  void serve(UniqueFd fd) {
    std::string bytes(512, '\0');
    ProxyHeader header;
    while (header.status == ProxyHeader::Status::incomplete) {
      const ssize_t got = ::recv(fd.get(), bytes.data(), bytes.size(), MSG_PEEK);
      if (got <= 0) return;
      header = parse_proxy_header({bytes.data(), static_cast<size_t>(got)});
    }
    EXPECT_EQ(header.status, ProxyHeader::Status::ok);
    ::recv(fd.get(), bytes.data(), header.bytes, 0);
    {
      const std::lock_guard lock(mutex);
      seen.push_back(header.addresses.value_or(ProxyAddresses{}));
    }
    Wire wire(std::move(fd));
    while (!wire.read_until("\r\n\r\n").empty()) {
      {
        const std::lock_guard lock(mutex);
        ++requests;
      }
      wire.send(Origin::ok("x"));
    }
  }
};

Endpoint own_end(const Wire& wire) {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  ::getsockname(wire.fd(), reinterpret_cast<sockaddr*>(&storage), &length);
  return Endpoint::from(storage);
}

TEST(Connect, APoolsProxyHeaderNamesTheClientOfEachConnection) {
  for (const ProxyProtocol version : {ProxyProtocol::v1, ProxyProtocol::v2}) {
    ProxiedOrigin origin;
    {
      Edge edge;
      const uint32_t pool = edge.add_pool("p", {origin.endpoint});
      edge.model.pools[pool].proxy_protocol = version;
      edge.add_route("/*", pool);
      edge.start();
      Wire one = Wire::connect(edge.endpoint()), other = Wire::connect(edge.endpoint());
      for (int i = 0; i < 3; ++i) {
        for (Wire* wire : {&one, &other}) {
          wire->send(get("/"));
          EXPECT_EQ(read_answer(*wire).body, "x");
        }
      }
      const std::lock_guard lock(origin.mutex);
      ASSERT_EQ(origin.seen.size(), 2u) << "a client's connection to the backend is used by nobody else";
      EXPECT_EQ(origin.seen[0].source, own_end(one));
      EXPECT_EQ(origin.seen[1].source, own_end(other));
      EXPECT_EQ(origin.seen[0].destination, edge.endpoint());
      EXPECT_EQ(origin.requests, 6u);
    }
  }
}

class ProxySender : public ::testing::Test {
 protected:
  ProxySender() {
    edge_.model.listeners[0].proxy_protocol_from = {*Cidr::parse("127.0.0.1/32")};
    edge_.add_route("/*", edge_.add_pool("p", {origin_.endpoint()}));
  }
  std::string forwarded_for() const {
    const std::string head = origin_.last_head();
    const size_t at = head.find("X-Forwarded-For: ");
    return at == std::string::npos ? "" : head.substr(at + 17, head.find('\r', at) - at - 17);
  }
  uint64_t refused() { return edge_.metric("tidegate_l7_proxy_headers_refused_total"); }
  const ProxyAddresses client_{*Endpoint::parse("203.0.113.7:4321"), *Endpoint::parse("198.51.100.1:443")};
  Origin origin_{Origin::says("x")};
  Edge edge_;
};

TEST_F(ProxySender, TheClientThatAHeaderNamesIsThePeer) {
  edge_.start();
  for (const ProxyProtocol version : {ProxyProtocol::v1, ProxyProtocol::v2}) {
    EXPECT_EQ(ask(edge_.endpoint(), write_proxy_header(version, client_) + get("/")).body, "x");
    EXPECT_EQ(forwarded_for(), "203.0.113.7");
  }
  EXPECT_EQ(ask(edge_.endpoint(), write_proxy_header(ProxyProtocol::v2, std::nullopt) + get("/")).body, "x");
  EXPECT_EQ(forwarded_for(), "127.0.0.1") << "a connection of the sender's own";
}

TEST_F(ProxySender, AHeaderMayComeInPieces) {
  edge_.start();
  const std::string header = write_proxy_header(ProxyProtocol::v2, client_);
  Wire wire = Wire::connect(edge_.endpoint());
  for (const char byte : header) wire.send({&byte, 1});
  wire.send(get("/"));
  EXPECT_EQ(read_answer(wire).body, "x");
  EXPECT_EQ(forwarded_for(), "203.0.113.7");
}

TEST_F(ProxySender, WithoutAHeaderASendersConnectionIsClosed) {
  edge_.start();
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send(get("/"));
  EXPECT_TRUE(wire.at_end());
  EXPECT_EQ(refused(), 1u);
  EXPECT_EQ(origin_.requests(), 0u);
}

TEST_F(ProxySender, AHeaderThatDoesNotComeDelaysNoDrain) {
  edge_.model.nodes[0].l7.drain_timeout_ms = 60'000;
  edge_.start();
  Wire silent = Wire::connect(edge_.endpoint()), half = Wire::connect(edge_.endpoint());
  half.send("PROXY TCP4 ");
  ASSERT_TRUE(edge_.run_until([&] { return edge_.proxy().connections() == 2; }));
  const auto began = std::chrono::steady_clock::now();
  EXPECT_TRUE(edge_.drain());
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(8)) << "header_timeout is 10 s";
}

TEST_F(ProxySender, AHeaderThatNeverEndsHoldsNothingForLong) {
  edge_.model.listeners[0].header_timeout_ms = 50;
  edge_.start();
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send("PROXY TCP4 ");
  EXPECT_TRUE(wire.at_end());
}

TEST_F(ProxySender, WhoIsNoSenderCannotNameAnother) {
  edge_.model.listeners[0].proxy_protocol_from = {*Cidr::parse("192.0.2.0/24")};
  edge_.start();
  EXPECT_EQ(ask(edge_.endpoint(), write_proxy_header(ProxyProtocol::v1, client_) + get("/")).status, 400);
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).body, "x");
  EXPECT_EQ(forwarded_for(), "127.0.0.1");
}

// The sender's own address is exempt; each client that it names has its own share.
TEST_F(ProxySender, EachNamedClientHasItsOwnShareOfConnections) {
  Origin silent([](const std::string&, Wire& wire) { return !wire.at_end(); });
  edge_.model.pools[0].backends[0].port = silent.endpoint().port;
  edge_.model.nodes[0].l7.max_connections_per_client = 2;
  edge_.start();
  std::vector<Wire> busy;
  const auto open = [&](const char* source) {
    Wire wire = Wire::connect(edge_.endpoint());
    wire.send(write_proxy_header(ProxyProtocol::v1, ProxyAddresses{*Endpoint::parse(source), client_.destination}) +
              "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345");
    busy.push_back(std::move(wire));
  };
  for (const char* source : {"203.0.113.7:1", "203.0.113.7:2", "203.0.113.8:1", "203.0.113.8:2"}) open(source);
  ASSERT_TRUE(
      edge_.run_until([&] { return edge_.metric("tidegate_l7_backend_in_flight{pool=\"p\",backend=\"b1\"}") == 4; }));
  open("203.0.113.7:3");
  EXPECT_TRUE(busy.back().at_end());
  EXPECT_EQ(edge_.metric("tidegate_l7_client_connections_refused_total{reason=\"client_connections\"}"), 1u);
}

// A TLS origin that asks for a certificate and says whose it was.
TEST(Connect, AClientCertificateIsShownToTheBackend) {
  const Certificate origins = certificate_for("a.test"), own = certificate_for("proxy.test");
  SSL_CTX* context = SSL_CTX_new(TLS_server_method());
  BIO* pem = BIO_new_mem_buf(origins.certificate.bytes->data(), static_cast<int>(origins.certificate.bytes->size()));
  X509* leaf = PEM_read_bio_X509(pem, nullptr, nullptr, nullptr);
  BIO* key_pem = BIO_new_mem_buf(origins.key.bytes->data(), static_cast<int>(origins.key.bytes->size()));
  EVP_PKEY* key = PEM_read_bio_PrivateKey(key_pem, nullptr, nullptr, nullptr);
  SSL_CTX_use_certificate(context, leaf);
  SSL_CTX_use_PrivateKey(context, key);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                     [](int, X509_STORE_CTX*) { return 1; });
  Endpoint endpoint;
  {
    const Acceptor acceptor(listen_at({*Endpoint::parse("127.0.0.1:0"), {}}, &endpoint), [&](UniqueFd fd) {
      SSL* ssl = SSL_new(context);
      SSL_set_fd(ssl, fd.get());
      char request[4096];
      if (SSL_accept(ssl) == 1 && SSL_read(ssl, request, sizeof request) > 0) {
        char common[100] = {};
        X509* shown = SSL_get1_peer_certificate(ssl);
        X509_NAME_get_text_by_NID(X509_get_subject_name(shown), NID_commonName, common, sizeof common);
        X509_free(shown);
        const std::string answer = Origin::ok(common, "Connection: close\r\n");
        SSL_write(ssl, answer.data(), static_cast<int>(answer.size()));
      }
      SSL_free(ssl);
    });
    Edge edge;
    edge.model.certificates = {own};
    const uint32_t pool = edge.add_pool("p", {endpoint});
    edge.model.pools[pool].tls = true;
    edge.model.pools[pool].tls_verify = false;
    edge.model.pools[pool].tls_certificate = 0;
    edge.add_route("/*", pool);
    edge.start();
    EXPECT_EQ(ask(edge.endpoint(), get("/")).body, "proxy.test");
    edge.model.pools[pool].tls_certificate = kNone;
    ASSERT_TRUE(edge.publish());
    EXPECT_TRUE(becomes(edge, 502)) << "it asks for one";
  }
  X509_free(leaf);
  EVP_PKEY_free(key);
  BIO_free(pem);
  BIO_free(key_pem);
  SSL_CTX_free(context);
}

}  // namespace tidegate::l7::test::connect_test
