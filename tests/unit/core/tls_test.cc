// SPDX-License-Identifier: Apache-2.0
#include "core/tls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <array>

#include "core/http_client.h"
#include "http_fixture.h"
#include "made_identity.h"

namespace tidegate::tls_test {

using ::testing::HasSubstr;
using ::testing::StartsWith;

const TlsIdentity& identity_a() {
  static const TlsIdentity identity = make_identity("a", "DNS:a.test,DNS:*.w.test");
  return identity;
}

std::shared_ptr<TlsContext> server_context(const TlsServerOptions& options) {
  auto context = TlsContext::server(options);
  EXPECT_TRUE(context) << context.error().message;
  return *context;
}
std::shared_ptr<TlsContext> client_context(const TlsClientOptions& options = {}) {
  return *TlsContext::client(options);
}

struct Link {
  Link() {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    client.reset(fds[0]);
    server.reset(fds[1]);
  }
  UniqueFd client, server;
};

// Both ends of a connection, run until their handshakes have ended.
struct Pair {
  Pair(std::shared_ptr<TlsContext> server_side, std::shared_ptr<TlsContext> client_side, const std::string& name = {})
      : client(std::move(client_side), link.client.get(), false, name),
        server(std::move(server_side), link.server.get(), true) {
    for (int i = 0; i < 10 && (client_status != TlsStatus::ok || server_status != TlsStatus::ok); ++i) {
      if (client_status != TlsStatus::ok && client_status != TlsStatus::error) client_status = client.handshake();
      if (server_status != TlsStatus::ok && server_status != TlsStatus::error) server_status = server.handshake();
    }
  }
  bool up() const { return client_status == TlsStatus::ok && server_status == TlsStatus::ok; }

  Link link;
  TlsStream client, server;
  TlsStatus client_status = TlsStatus::want_read, server_status = TlsStatus::want_read;
};

TEST(TlsIdentities, SayWhatTheyAreFor) {
  const auto info = inspect_identity(make_identity("Cn.Test", "DNS:A.test,DNS:*.W.test,IP:10.0.0.1"));
  ASSERT_TRUE(info) << info.error().message;
  EXPECT_EQ(info->names, (std::vector<std::string>{"a.test", "*.w.test"}));
  EXPECT_EQ(info->subject, "CN=Cn.Test");
  EXPECT_EQ(info->issuer, "CN=Cn.Test");
  EXPECT_EQ(info->not_after_s - info->not_before_s, 3660);
  EXPECT_EQ(inspect_identity(make_identity("Only.Test"))->names, std::vector<std::string>{"only.test"});
}

TEST(TlsIdentities, ThatDoNotWorkSayWhy) {
  const auto why = [](const std::string& certificate, const std::string& key) {
    return inspect_identity({certificate, key}).error().message;
  };
  const TlsIdentity& a = identity_a();
  const TlsIdentity b = make_identity("b");
  EXPECT_THAT(why("", a.key_pem), HasSubstr("no PEM certificate found"));
  const TlsIdentity weak = make_identity("weak", {}, true, 3600, -60, 1024);
  EXPECT_THAT(why(weak.certificate_pem, weak.key_pem), HasSubstr("key too small"))
      << "a server would find that at a handshake";
  EXPECT_THAT(why("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", a.key_pem),
              StartsWith("certificate: "));
  EXPECT_THAT(why(a.certificate_pem, ""), StartsWith("private key: "));
  EXPECT_THAT(why(a.certificate_pem, b.key_pem), HasSubstr("does not belong to certificate CN=a"));
  const std::string encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
  EXPECT_THAT(why(a.certificate_pem, encrypted), HasSubstr("unencrypted"));  // and OpenSSL does not ask on the terminal
  EXPECT_FALSE(TlsContext::server({}));
  TlsServerOptions odd;
  odd.identities = {a};
  odd.min_version = "1.1";
  EXPECT_FALSE(TlsContext::server(odd));
}

TEST(TlsHandshake, AgreesOnOurFavouriteProtocolOfTheClients) {
  TlsServerOptions options;
  options.identities = {identity_a()};
  options.alpn = {"h2", "http/1.1"};
  const auto server = server_context(options);
  Pair both(server, client_context({{"http/1.1", "h2"}, false, {}}), "a.test");
  ASSERT_TRUE(both.up());
  EXPECT_EQ(both.server.alpn(), "h2");
  EXPECT_EQ(both.client.alpn(), "h2");
  EXPECT_EQ(both.server.server_name(), "a.test");
  EXPECT_EQ(both.server.version(), "TLSv1.3");
  EXPECT_EQ(both.server.cipher(), "TLS_AES_128_GCM_SHA256");
  EXPECT_FALSE(both.server.resumed());
  EXPECT_EQ(Pair(server, client_context()).server.alpn(), "");
  Pair none(server, client_context({{"ftp"}, false, {}}));  // RFC 7301 §3.2
  EXPECT_EQ(none.server_status, TlsStatus::error);
}

TEST(TlsHandshake, ChoosesTheCertificateByName) {
  TlsServerOptions options;
  options.identities = {identity_a(), make_identity("b", "DNS:b.test,DNS:x.w.test"),
                        make_identity("c", "DNS:rsa.test", true), make_identity("d", "DNS:rsa.test")};
  const auto server = server_context(options);
  const auto shown_for = [&](const std::string& name) {
    TlsClientOptions trusting;  // trusts exactly one of them at a time
    for (size_t i = 0; i < options.identities.size(); ++i) {
      trusting.verify = true;
      trusting.ca_pem = options.identities[i].certificate_pem;
      if (Pair(server, client_context(trusting), name).client_status == TlsStatus::ok) return static_cast<int>(i);
    }
    return -1;
  };
  EXPECT_EQ(shown_for("a.test"), 0);
  EXPECT_EQ(shown_for("B.test"), 1);
  EXPECT_EQ(shown_for("x.w.test"), 1);     // exact before wildcard
  EXPECT_EQ(shown_for("y.w.test"), 0);     // wildcard
  EXPECT_EQ(shown_for("y.z.w.test"), -1);  // a wildcard covers one label
  EXPECT_EQ(shown_for("w.test"), -1);
  EXPECT_EQ(shown_for("unknown.test"), -1);  // the first one is presented, and does not match
  EXPECT_EQ(shown_for("rsa.test"), 3);       // two keys for one name: the algorithm that the client prefers wins
}

TEST(TlsHandshake, PrefersAValidCertificateToOneThatIsNot) {
  constexpr long kHourS = 3600;
  TlsServerOptions options;
  options.identities = {make_identity("first", "DNS:first.test"),
                        make_identity("old", "DNS:a.test", false, -kHourS),
                        make_identity("early", "DNS:a.test", false, 2 * kHourS, kHourS),
                        make_identity("new", "DNS:a.test"),
                        make_identity("gone", "DNS:x.w.test,DNS:lonely.test", false, -kHourS),
                        make_identity("wild", "DNS:*.w.test")};
  const auto server = server_context(options);
  // The common name of the certificate that is shown to a client without checks.
  const auto shown_for = [&](const std::string& name) {
    Link link;
    TlsStream stream(server, link.server.get(), true);
    SSL_CTX* client = SSL_CTX_new(TLS_client_method());
    SSL* ssl = SSL_new(client);
    SSL_set_fd(ssl, link.client.get());
    SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, const_cast<char*>(name.c_str()));
    int connected = 0;
    for (int i = 0; i < 10 && connected != 1; ++i) {
      connected = SSL_connect(ssl);
      stream.handshake();
    }
    char shown[100] = {};
    if (X509* leaf = SSL_get0_peer_certificate(ssl)) {
      X509_NAME_get_text_by_NID(X509_get_subject_name(leaf), NID_commonName, shown, sizeof shown);
    }
    SSL_free(ssl);
    SSL_CTX_free(client);
    return std::string(shown);
  };
  EXPECT_EQ(shown_for("a.test"), "new");
  EXPECT_EQ(shown_for("x.w.test"), "wild") << "an expired exact name is passed over for a wildcard";
  EXPECT_EQ(shown_for("lonely.test"), "gone") << "there is no other of that name";
}

TEST(TlsHandshake, TellsTheClientWhyItWasRefused) {
  TlsServerOptions options;
  options.identities = {identity_a()};
  const auto server = server_context(options);
  TlsClientOptions trusting;
  trusting.verify = true;
  trusting.ca_pem = identity_a().certificate_pem;
  Pair wrong_name(server, client_context(trusting), "other.test");
  EXPECT_THAT(wrong_name.client.last_error(), HasSubstr("hostname mismatch"));
  trusting.ca_pem = make_identity("stranger").certificate_pem;
  Pair wrong_issuer(server, client_context(trusting), "a.test");
  EXPECT_THAT(wrong_issuer.client.last_error(), HasSubstr("certificate verify failed"));
}

TEST(TlsHandshake, KeepsToItsMinimumVersion) {
  TlsServerOptions options;
  options.identities = {identity_a()};
  const auto both = server_context(options);
  options.min_version = "1.3";
  const auto only_13 = server_context(options);
  const auto client_12 = client_context();
  SSL_CTX_set_max_proto_version(client_12->get(), TLS1_2_VERSION);
  const Pair old(both, client_12);
  ASSERT_TRUE(old.up());
  EXPECT_EQ(old.server.version(), "TLSv1.2");
  EXPECT_THAT(std::string(old.server.cipher()), HasSubstr("ECDHE-ECDSA-AES128-GCM"));
  EXPECT_FALSE(Pair(only_13, client_12).up());
  const auto client_11 = client_context();
  SSL_CTX_set_min_proto_version(client_11->get(), TLS1_1_VERSION);
  SSL_CTX_set_max_proto_version(client_11->get(), TLS1_1_VERSION);
  SSL_CTX_set_security_level(client_11->get(), 0);
  EXPECT_FALSE(Pair(both, client_11).up());
}

TEST(TlsStreams, CarryMoreThanTheSocketHoldsBothWays) {
  TlsServerOptions options;
  options.identities = {identity_a()};
  Pair both(server_context(options), client_context());
  ASSERT_TRUE(both.up());
  std::string sent(3'000'000, '\0');
  for (size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<char>(i * 31 >> 3);
  for (auto [from, to] : {std::pair{&both.client, &both.server}, std::pair{&both.server, &both.client}}) {
    std::string received;
    size_t offset = 0;
    bool blocked = false;
    char buffer[10'000];
    for (int turn = 0; turn < 1'000'000 && received.size() < sent.size(); ++turn) {
      if (offset < sent.size()) {
        const std::string moving = sent.substr(offset, 100'000);  // a different buffer every time
        const TlsStream::Io io = from->write(moving.data(), moving.size());
        ASSERT_TRUE(io.status == TlsStatus::ok || io.status == TlsStatus::want_write);
        blocked = blocked || io.status == TlsStatus::want_write;
        offset += io.bytes;
      }
      const TlsStream::Io io = to->read(buffer, sizeof buffer);
      ASSERT_NE(io.status, TlsStatus::error) << to->last_error();
      received.append(buffer, io.bytes);
    }
    EXPECT_TRUE(received == sent);
    EXPECT_TRUE(blocked);
  }
}

TEST(TlsStreams, GatherRecordsWhileCorkedAndKeepWhatTheSocketDoesNotTake) {
  TlsServerOptions options;
  options.identities = {identity_a()};
  Pair both(server_context(options), client_context());
  ASSERT_TRUE(both.up());
  char buffer[10'000];
  both.server.cork();
  EXPECT_EQ(both.server.write("held", 4).bytes, 4U);
  while (both.client.read(buffer, sizeof buffer).status == TlsStatus::ok) FAIL() << "sent while corked";
  EXPECT_EQ(both.server.uncork(), TlsStatus::ok);
  EXPECT_EQ(both.client.read(buffer, sizeof buffer).bytes, 4U);

  std::string sent(3'000'000, '\0');
  for (size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<char>(i * 31 >> 3);
  std::string received;
  bool blocked = false;
  for (size_t offset = 0; received.size() < sent.size();) {
    both.server.cork();
    for (TlsStatus status = TlsStatus::ok; offset < sent.size() && status == TlsStatus::ok;) {
      const TlsStream::Io io = both.server.write(sent.data() + offset, sent.size() - offset);
      status = io.status;
      offset += io.bytes;
    }
    const TlsStatus left = both.server.uncork();
    ASSERT_TRUE(left == TlsStatus::ok || left == TlsStatus::want_write);
    EXPECT_EQ(left == TlsStatus::ok, both.server.drained());
    blocked = blocked || left == TlsStatus::want_write;
    for (TlsStream::Io io{TlsStatus::ok}; io.status == TlsStatus::ok; received.append(buffer, io.bytes)) {
      io = both.client.read(buffer, sizeof buffer);
      ASSERT_NE(io.status, TlsStatus::error) << both.client.last_error();
    }
  }
  EXPECT_TRUE(received == sent);
  EXPECT_TRUE(blocked);
}

TEST(TlsStreams, HaveNothingPendingWhileOnlyTheBeginningOfARecordIsHere) {
  Pair pair(server_context({{identity_a()}}), client_context());
  ASSERT_TRUE(pair.up());
  char got[100];
  EXPECT_EQ(pair.server.read(got, sizeof got).status, TlsStatus::want_read);
  ASSERT_EQ(pair.client.write("hello", 5).bytes, 5u);
  char record[100];
  const ssize_t bytes = ::recv(pair.link.server.get(), record, sizeof record, 0);
  ASSERT_GT(bytes, 10);
  const size_t half = 10, rest = static_cast<size_t>(bytes) - half;

  ASSERT_EQ(::send(pair.link.client.get(), record, half, 0), static_cast<ssize_t>(half));
  EXPECT_EQ(pair.server.read(got, sizeof got).status, TlsStatus::want_read);
  EXPECT_FALSE(pair.server.has_pending());
  ASSERT_EQ(::send(pair.link.client.get(), record + half, rest, 0), static_cast<ssize_t>(rest));
  const TlsStream::Io io = pair.server.read(got, 2);
  EXPECT_EQ(std::string_view(got, io.bytes), "he");
  EXPECT_TRUE(pair.server.has_pending());
  EXPECT_EQ(pair.server.read(got, sizeof got).bytes, 3u);
  EXPECT_FALSE(pair.server.has_pending());
}

TEST(TlsStreams, TellAnOrderlyEndFromACutOne) {
  TlsServerOptions options;
  options.identities = {identity_a()};
  const auto server = server_context(options);
  char byte;
  Pair orderly(server, client_context());
  orderly.client.send_close_notify();
  EXPECT_EQ(orderly.server.read(&byte, 1).status, TlsStatus::closed);
  Pair cut(server, client_context());
  cut.link.client.reset();
  EXPECT_EQ(cut.server.read(&byte, 1).status, TlsStatus::error);
}

// A client of TLS 1.3 that can send what our own never does. Its server's end is a TlsStream.
struct RawClient {
  RawClient()
      : context(client_context()),
        server(server_context({{identity_a()}}), link.server.get(), true),
        ssl(SSL_new(context->get())) {
    SSL_set_fd(ssl, link.client.get());
    SSL_set_connect_state(ssl);
    for (int i = 0; i < 10 && server_status != TlsStatus::ok; ++i) {
      SSL_do_handshake(ssl);
      server_status = server.handshake();
    }
    EXPECT_EQ(server_status, TlsStatus::ok);
  }
  ~RawClient() { SSL_free(ssl); }
  // Returns false if the socket is full.
  bool update_keys(int kind) { return SSL_key_update(ssl, kind) == 1 && SSL_do_handshake(ssl) == 1; }

  Link link;
  std::shared_ptr<TlsContext> context;
  TlsStream server;
  SSL* ssl;
  TlsStatus server_status = TlsStatus::want_read;
};

TEST(TlsStreams, APeerThatOnlyUpdatesKeysIsSentAway) {
  for (const int kind : {SSL_KEY_UPDATE_NOT_REQUESTED, SSL_KEY_UPDATE_REQUESTED}) {
    RawClient client;
    size_t sent = 0;
    while (sent < 200 && client.update_keys(kind)) ++sent;
    ASSERT_EQ(sent, 200u);
    ASSERT_EQ(SSL_write(client.ssl, "x", 1), 1);
    char byte;
    TlsStream::Io io{TlsStatus::ok};
    for (int i = 0; i < 10'000 && (io = client.server.read(&byte, 1)).status == TlsStatus::want_read; ++i) {
    }
    EXPECT_EQ(io.status, TlsStatus::error);
    EXPECT_EQ(client.server.last_error(), "the peer sends handshake messages and no content");
  }
}

TEST(TlsStreams, APeerMayUpdateItsKeysAsOftenAsItSendsContent) {
  for (const int kind : {SSL_KEY_UPDATE_NOT_REQUESTED, SSL_KEY_UPDATE_REQUESTED}) {
    RawClient client;
    for (int i = 0; i < 1'000; ++i) {
      // More than one now and then.
      for (int n = i % 100 == 0 ? 32 : 1; n > 0; --n) ASSERT_TRUE(client.update_keys(kind));
      ASSERT_EQ(SSL_write(client.ssl, "x", 1), 1);
      char byte;
      ASSERT_EQ(client.server.read(&byte, 1).status, TlsStatus::ok) << client.server.last_error();
      ASSERT_EQ(client.server.write("y", 1).status, TlsStatus::ok);
      ASSERT_EQ(SSL_read(client.ssl, &byte, 1), 1);
    }
  }
}

TEST(TlsStreams, WritingToAPeerThatIsGoneIsAnErrorAndNoSignal) {
  TlsServerOptions options;
  options.identities = {identity_a()};
  Pair both(server_context(options), client_context());
  both.link.client.reset();
  const TlsStream::Io io = both.server.write("x", 1);
  EXPECT_EQ(io.status, TlsStatus::error);
  EXPECT_EQ(both.server.last_error(), "Broken pipe");
}

TEST(TlsStreams, GarbageInsteadOfAHandshakeIsAnError) {
  TlsServerOptions options;
  options.identities = {identity_a()};
  Link link;
  TlsStream stream(server_context(options), link.server.get(), true);
  ASSERT_EQ(::send(link.client.get(), "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
  EXPECT_EQ(stream.handshake(), TlsStatus::error);
  EXPECT_THAT(stream.last_error(), HasSubstr("http request"));
}

// A client that keeps its session. It uses OpenSSL itself, so that the test sees what any client sees.
class Resumption : public ::testing::TestWithParam<int> {
 protected:
  Resumption() : client_(SSL_CTX_new(TLS_client_method())) {
    SSL_CTX_set_min_proto_version(client_, GetParam());
    SSL_CTX_set_max_proto_version(client_, GetParam());
    SSL_CTX_set_session_cache_mode(client_, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  }
  ~Resumption() override {
    SSL_SESSION_free(session_);
    SSL_CTX_free(client_);
  }

  static std::shared_ptr<TlsContext> context(const std::string& secret, int64_t (*now_s)()) {
    TlsServerOptions options;
    options.identities = {identity_a()};
    if (!secret.empty()) options.tickets = std::make_shared<TicketKeys>(secret, now_s);
    return server_context(options);
  }
  // Makes one connection. Returns true if it resumed. The session it received replaces the kept one.
  bool connect(const std::shared_ptr<TlsContext>& server_side) {
    Link link;
    TlsStream server(server_side, link.server.get(), true);
    SSL* ssl = SSL_new(client_);
    SSL_set_fd(ssl, link.client.get());
    if (session_ != nullptr) SSL_set_session(ssl, session_);
    TlsStatus served = TlsStatus::want_read;
    int connected = 0;
    for (int i = 0; i < 10 && (connected != 1 || served != TlsStatus::ok); ++i) {
      if (connected != 1) connected = SSL_connect(ssl);
      if (served != TlsStatus::ok) served = server.handshake();
    }
    EXPECT_EQ(connected, 1);
    EXPECT_EQ(served, TlsStatus::ok);
    char byte;
    EXPECT_LE(SSL_read(ssl, &byte, 1), 0);  // reads the tickets of TLS 1.3
    const bool resumed = SSL_session_reused(ssl) == 1;
    EXPECT_EQ(server.resumed(), resumed);
    keep(SSL_get1_session(ssl));
    SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(ssl);
    return resumed;
  }

  void keep(SSL_SESSION* session) {
    const unsigned char* bytes = nullptr;
    size_t size = 0;
    SSL_SESSION_get0_ticket(session, &bytes, &size);
    std::string ticket(reinterpret_cast<const char*>(bytes), size);
    if (!ticket.empty() && ticket != ticket_) ++tickets_;
    ticket_ = std::move(ticket);
    SSL_SESSION_free(session_);
    session_ = session;
  }

  SSL_CTX* client_;
  SSL_SESSION* session_ = nullptr;
  std::string ticket_;
  int tickets_ = 0;  // number of different tickets received
};

constexpr int64_t kNoon = 100 * TicketKeys::kWindowS + TicketKeys::kWindowS / 2;
int64_t noon() { return kNoon; }
int64_t one_window_later() { return kNoon + TicketKeys::kWindowS; }
int64_t two_windows_later() { return kNoon + 2 * TicketKeys::kWindowS; }
int64_t one_window_earlier() { return kNoon - TicketKeys::kWindowS; }

TEST_P(Resumption, CrossesFromOneProxyToAnotherOfTheSameSecret) {
  const auto proxy1 = context("secret", noon), proxy2 = context("secret", noon);
  EXPECT_FALSE(connect(proxy1));
  EXPECT_EQ(tickets_, 1);
  EXPECT_TRUE(connect(proxy2));
  EXPECT_TRUE(connect(proxy1));
}

TEST_P(Resumption, StopsAtAnotherSecret) {
  EXPECT_FALSE(connect(context("secret", noon)));
  EXPECT_FALSE(connect(context("other", noon)));
}

TEST_P(Resumption, TakesThePreviousWindowsTicketAndRenewsIt) {
  EXPECT_FALSE(connect(context("secret", noon)));
  const auto later = context("secret", one_window_later);
  const int before = tickets_;
  EXPECT_TRUE(connect(later));
  EXPECT_EQ(tickets_, before + 1);
  EXPECT_TRUE(connect(context("secret", two_windows_later)));  // with the renewed ticket
}

TEST_P(Resumption, ForgetsTicketsTwoWindowsOld) {
  EXPECT_FALSE(connect(context("secret", noon)));
  EXPECT_FALSE(connect(context("secret", two_windows_later)));
}

TEST_P(Resumption, ForgivesAClockThatIsBehind) {
  EXPECT_FALSE(connect(context("secret", noon)));
  EXPECT_TRUE(connect(context("secret", one_window_earlier)));
}

TEST_P(Resumption, IsByTicketsAloneAndHandsOutNoSessionIdWithoutOne) {
  SSL_CTX_set_options(client_, SSL_OP_NO_TICKET);
  const auto server = context("secret", noon);
  EXPECT_FALSE(connect(server));
  if (GetParam() == TLS1_2_VERSION) {
    unsigned bytes = 0;
    SSL_SESSION_get_id(session_, &bytes);
    EXPECT_EQ(bytes, 0u);
    EXPECT_FALSE(connect(server));
  }
}

TEST_P(Resumption, IsOffWithoutKeys) {
  const auto server = context("", noon);
  EXPECT_FALSE(connect(server));
  EXPECT_EQ(tickets_, 0);
  EXPECT_FALSE(connect(server));
}

INSTANTIATE_TEST_SUITE_P(BothVersions, Resumption, ::testing::Values(TLS1_2_VERSION, TLS1_3_VERSION),
                         [](const auto& instance) { return instance.param == TLS1_2_VERSION ? "Tls12" : "Tls13"; });

TEST(TicketKeysOfASite, ChangeWithTheWindowAndTheSecretOnly) {
  const TicketKeys one("secret"), same("secret"), other("other");
  EXPECT_EQ(one.at(kNoon).name, same.at(kNoon + 60).name);
  EXPECT_EQ(one.at(kNoon).aes, same.at(kNoon + 60).aes);
  EXPECT_NE(one.at(kNoon).hmac, one.at(kNoon + TicketKeys::kWindowS).hmac);
  EXPECT_NE(one.at(kNoon).aes, other.at(kNoon).aes);
}

TEST(HttpOverTls, CarriesRequestsOfOurClientToOurServer) {
  EventLoop loop;
  HttpServer server(loop, [](const HttpExchangePtr& exchange) {
    exchange->respond(
        HttpResponse::text(200, std::string(1'000'000, 'x') + std::to_string(exchange->request().body.size())));
  });
  TlsServerOptions options;
  options.identities = {identity_a()};
  options.alpn = {"http/1.1"};
  ASSERT_TRUE(server.listen_tls(*Endpoint::parse("127.0.0.1:0"), server_context(options)));
  HttpTarget target;
  target.endpoint = server.tcp_endpoint();
  target.tls = target.tls_verify = true;
  target.tls_server_name = "a.test";
  target.tls_ca_pem = identity_a().certificate_pem;
  HttpClientRequest request;
  request.method = "POST";
  request.body.assign(1'000'000, 'y');
  const auto outcome = [&] {
    std::optional<Result<HttpResponse>> result;
    const auto call =
        http_call(loop, target, request, [&](Result<HttpResponse> response) { result = std::move(response); });
    EXPECT_TRUE(turn_until(loop, [&] { return result.has_value(); }));
    return *result;
  };
  const auto answered = outcome();
  ASSERT_TRUE(answered) << answered.error().message;
  EXPECT_EQ(answered->body.size(), 1'000'007u);
  target.tls_server_name = "wrong.test";
  EXPECT_EQ(outcome().error().message,
            "TLS handshake with " + target.endpoint.to_string() + ": certificate verify failed: hostname mismatch");
  target.tls = false;
  EXPECT_THAT(outcome().error().message, StartsWith("read "));  // plain HTTP to a TLS port
}

// After the handshake of TLS 1.3 the client speaks twice in a row, and the server acknowledges nothing for 40 ms.
TEST(HttpOverTls, ARequestDoesNotWaitForADelayedAcknowledgement) {
  EventLoop loop;
  HttpServer server(loop, [](const HttpExchangePtr& exchange) { exchange->respond(HttpResponse::text(200, "here")); });
  TlsServerOptions options;
  options.identities = {identity_a()};
  options.alpn = {"http/1.1"};
  ASSERT_TRUE(server.listen_tls(*Endpoint::parse("127.0.0.1:0"), server_context(options)));
  HttpTarget target;
  target.endpoint = server.tcp_endpoint();
  target.tls = target.tls_verify = true;
  target.tls_server_name = "a.test";
  target.tls_ca_pem = identity_a().certificate_pem;
  uint64_t fastest_ns = UINT64_MAX;
  for (int i = 0; i < 10; ++i) {  // a busy machine is slow in some of them
    bool ended = false;
    const uint64_t began_ns = monotonic_ns();
    const auto call = http_call(loop, target, {}, [&](const Result<HttpResponse>& response) {
      EXPECT_TRUE(response);
      ended = true;
    });
    ASSERT_TRUE(turn_until(loop, [&] { return ended; }));
    fastest_ns = std::min(fastest_ns, monotonic_ns() - began_ns);
  }
  EXPECT_LT(fastest_ns, 35 * kNsPerMs);
}

}  // namespace tidegate::tls_test
