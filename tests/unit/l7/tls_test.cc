// SPDX-License-Identifier: Apache-2.0
// TLS towards clients: names choose certificates, ALPN chooses the protocol, and one proxy resumes another's sessions.
#include <gtest/gtest.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <chrono>
#include <fstream>
#include <functional>

#include "conf/model.h"
#include "conf/model/certificate.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "core/crypto.h"
#include "l7/exchange/failure.h"
#include "l7/plan.h"
#include "tests/unit/core/made_identity.h"
#include "tests/unit/l7/certificates.h"
#include "tests/unit/l7/state_dir.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::tls_test {

template <class T, void (*Free)(T*)>
struct Deleter {
  void operator()(T* object) const { Free(object); }
};
using Leaf = std::unique_ptr<X509, Deleter<X509, X509_free>>;
using Session = std::unique_ptr<SSL_SESSION, Deleter<SSL_SESSION, SSL_SESSION_free>>;

struct TlsAnswer {
  std::string subject, alpn, text;
  std::string staple;  // empty: none was shown
  bool resumed = false;
  bool acme_identifier = false;  // the critical extension of RFC 8737
  Session session;
};

// One HTTP/1 exchange over TLS, on a connection that is still unused.
TlsAnswer ask_tls(const Wire& wire, const std::string& name, std::string_view alpn, SSL_SESSION* session = nullptr,
                  bool may_be_refused = false) {
  TlsAnswer answer;
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  SSL* ssl = SSL_new(context);
  SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, const_cast<char*>(name.c_str()));
  SSL_set_alpn_protos(ssl, reinterpret_cast<const unsigned char*>(alpn.data()), static_cast<unsigned>(alpn.size()));
  if (session != nullptr) SSL_set_session(ssl, session);
  SSL_set_tlsext_status_type(ssl, TLSEXT_STATUSTYPE_ocsp);
  SSL_set_fd(ssl, wire.fd());
  const int connected = SSL_connect(ssl);
  if (connected != 1 && may_be_refused) {
    SSL_free(ssl);
    SSL_CTX_free(context);
    return answer;
  }
  EXPECT_EQ(connected, 1);
  const Leaf leaf(SSL_get1_peer_certificate(ssl));
  if (leaf) {
    char common[100] = {};
    X509_NAME_get_text_by_NID(X509_get_subject_name(leaf.get()), NID_commonName, common, sizeof common);
    answer.subject = common;
    ASN1_OBJECT* oid = OBJ_txt2obj("1.3.6.1.5.5.7.1.31", 1);
    const int at = X509_get_ext_by_OBJ(leaf.get(), oid, -1);
    answer.acme_identifier = at >= 0 && X509_EXTENSION_get_critical(X509_get_ext(leaf.get(), at)) == 1;
    ASN1_OBJECT_free(oid);
  }
  const unsigned char* shown = nullptr;
  const long shown_bytes = SSL_get_tlsext_status_ocsp_resp(ssl, &shown);
  if (shown_bytes > 0) answer.staple.assign(reinterpret_cast<const char*>(shown), static_cast<size_t>(shown_bytes));
  const unsigned char* chosen = nullptr;
  unsigned chosen_bytes = 0;
  SSL_get0_alpn_selected(ssl, &chosen, &chosen_bytes);
  answer.alpn.assign(reinterpret_cast<const char*>(chosen), chosen_bytes);
  answer.resumed = SSL_session_reused(ssl) == 1;
  if (answer.alpn == "acme-tls/1") {  // the server has closed, so a write would raise a signal
    SSL_free(ssl);
    SSL_CTX_free(context);
    return answer;
  }
  if (answer.alpn != "h2") {
    const std::string request = get("/", name, "Connection: close\r\n");
    SSL_write(ssl, request.data(), static_cast<int>(request.size()));
    char chunk[4096];
    int got;
    while ((got = SSL_read(ssl, chunk, sizeof chunk)) > 0) answer.text.append(chunk, static_cast<size_t>(got));
    answer.session.reset(SSL_get1_session(ssl));
  }
  SSL_shutdown(ssl);  // otherwise the session counts as broken
  SSL_free(ssl);
  SSL_CTX_free(context);
  return answer;
}

TlsAnswer ask_tls(const Endpoint& endpoint, const std::string& name, std::string_view alpn,
                  SSL_SESSION* session = nullptr, bool may_be_refused = false) {
  return ask_tls(Wire::connect(endpoint), name, alpn, session, may_be_refused);
}

class Tls : public ::testing::Test {
 protected:
  void configure(Edge& edge, uint32_t workers = 2) {
    edge.model.certificates = certificates_;
    edge.model.listeners[0].tls.enabled = true;
    edge.model.listeners[0].tls.certificates = {0, 1};
    edge.model.nodes[0].l7.workers = workers;
    edge.add_route("/*", edge.add_pool("p", {origin_.endpoint()}));
    edge.start();
  }
  static constexpr std::string_view kHttp1{"\x08http/1.1", 9};
  static constexpr std::string_view kBoth{"\x02h2\x08http/1.1", 12};
  Elements<Certificate> certificates_{certificate_for("a.test"), certificate_for("b.test")};
  Origin origin_{Origin::says("secret")};
};

TEST_F(Tls, TheNameChoosesTheCertificateAndAlpnTheProtocol) {
  Edge edge;
  configure(edge);
  EXPECT_EQ(ask_tls(edge.endpoint(), "a.test", kHttp1).subject, "a.test");
  EXPECT_EQ(ask_tls(edge.endpoint(), "b.test", kHttp1).subject, "b.test");
  const TlsAnswer unknown = ask_tls(edge.endpoint(), "c.test", kHttp1);
  EXPECT_EQ(unknown.subject, "a.test") << "the first is the default";
  EXPECT_EQ(unknown.alpn, "http/1.1");
  EXPECT_TRUE(unknown.text.ends_with("secret"));
  EXPECT_EQ(ask_tls(edge.endpoint(), "a.test", kBoth).alpn, "h2");
}

// A client that sends nothing, or stops in the middle of its handshake, does not delay a drain. A quick one is
// answered.
TEST_F(Tls, AClientInItsHandshakeHasTwoSecondsOfADrain) {
  Edge edge;
  edge.model.nodes[0].l7.drain_timeout_ms = 60'000;
  configure(edge);
  Wire silent = Wire::connect(edge.endpoint()), stopped = Wire::connect(edge.endpoint());
  const Wire quick = Wire::connect(edge.endpoint());
  stopped.send({"\x16\x03\x01", 3});
  ASSERT_TRUE(edge.run_until([&] { return edge.proxy().connections() == 3; }));
  const auto began = std::chrono::steady_clock::now();
  bool drained = false;
  edge.proxy().drain([&] { drained = true; });
  EXPECT_TRUE(ask_tls(quick, "a.test", kHttp1).text.ends_with("secret"));
  EXPECT_TRUE(silent.at_end());
  EXPECT_TRUE(stopped.at_end());
  EXPECT_TRUE(edge.run_until([&] { return drained; }));
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(8)) << "header_timeout is 10 s";
}

// An ordered certificate: a self-made one until it is issued, then the issued one, without a new version.
TEST_F(Tls, AnOrderedCertificateIsSelfMadeUntilItIsIssued) {
  Edge edge;
  certificates_[1] = {};
  certificates_[1].name = "ordered";
  certificates_[1].order.names = {"b.test"};
  configure(edge);
  EXPECT_EQ(ask_tls(edge.endpoint(), "b.test", kHttp1).subject, "b.test");
  EXPECT_EQ(edge.metric("tidegate_l7_self_made_certificates"), 1u);
  const TlsIdentity real = make_identity("issued", "DNS:b.test");
  auto live_state = std::make_shared<LiveState>();
  live_state->sequence = 1;
  IssuedCertificate& issued = live_state->certificates["ordered"];
  issued.names = {"b.test"};
  issued.certificate_hash = sha256_hex(real.certificate_pem);
  issued.key_hash = sha256_hex(real.key_pem);
  issued.certificate = std::make_shared<const std::string>(real.certificate_pem);
  issued.key = std::make_shared<const std::string>(real.key_pem);
  edge.publish(live_state);
  EXPECT_TRUE(edge.run_until([&] { return ask_tls(edge.endpoint(), "b.test", kHttp1).subject == "issued"; }));
  EXPECT_EQ(edge.metric("tidegate_l7_self_made_certificates"), 0u);

  // A certificate that cannot be used removes nothing.
  auto broken = std::make_shared<LiveState>(*live_state);
  broken->sequence = 2;
  broken->certificates["ordered"].certificate_hash = "00";
  broken->certificates["ordered"].certificate = std::make_shared<const std::string>("nonsense");
  edge.publish(broken);
  EXPECT_EQ(ask_tls(edge.endpoint(), "b.test", kHttp1).subject, "issued");
  EXPECT_EQ(edge.metric("tidegate_l7_self_made_certificates"), 0u);
}

// RFC 8737: an authority sees it, and nobody else. The OCSP answer comes with the live state. It is shown only with its
// certificate, and only as long as it is valid.
TEST_F(Tls, AnOcspAnswerIsShownWithItsCertificateAsLongAsItIsThere) {
  Edge edge;
  certificates_[0].name = "a";
  certificates_[0].ocsp.enabled = true;
  configure(edge);
  const auto staple = [&] { return ask_tls(edge.endpoint(), "a.test", kHttp1).staple; };
  EXPECT_EQ(staple(), "");
  EXPECT_EQ(edge.metric("tidegate_l7_missing_staples"), 1u);
  uint64_t sequence = 0;
  const auto publish = [&](const std::string& certificate_hash, const std::string& text, int64_t until_s) {
    auto live_state = std::make_shared<LiveState>();
    live_state->sequence = ++sequence;
    StapleRecord& record = live_state->staples["a"];
    record.certificate_hash = certificate_hash;
    record.status = RevocationStatus::good;
    record.next_update_s = until_s;
    if (!text.empty()) record.answer = std::make_shared<const std::string>(text);
    edge.publish(live_state);
  };
  const std::string own_hash = certificates_[0].certificate.hash;
  publish(own_hash, "answer 1", std::time(nullptr) + 600);
  EXPECT_TRUE(edge.run_until([&] { return staple() == "answer 1"; }));
  EXPECT_EQ(ask_tls(edge.endpoint(), "b.test", kHttp1).staple, "") << "it is another certificate's";
  EXPECT_EQ(edge.metric("tidegate_l7_missing_staples"), 0u);
  publish(own_hash, "answer 2", std::time(nullptr) + 600);
  EXPECT_TRUE(edge.run_until([&] { return staple() == "answer 2"; }));
  publish(own_hash, "answer 3", std::time(nullptr) - 1);
  EXPECT_TRUE(edge.run_until([&] { return staple().empty(); })) << "it has ended";
  EXPECT_EQ(edge.metric("tidegate_l7_missing_staples"), 1u);
  publish(own_hash, "answer 4", std::time(nullptr) + 600);
  EXPECT_TRUE(edge.run_until([&] { return staple() == "answer 4"; }));
  publish(own_hash, "", 0);
  EXPECT_TRUE(edge.run_until([&] { return staple().empty(); })) << "it is revoked";
  publish("of a certificate before", "answer 5", std::time(nullptr) + 600);
  EXPECT_EQ(edge.metric("tidegate_l7_missing_staples"), 1u);
}

TEST_F(Tls, AnAuthorityIsShownTheProofAndEverybodyElseTheCertificate) {
  constexpr std::string_view kAcme{
      "\x0a"
      "acme-tls/1",
      11},
      kAcmeAndHttp{
          "\x0a"
          "acme-tls/1\x08http/1.1",
          20};
  Edge edge;
  configure(edge, 1);
  auto live_state = std::make_shared<LiveState>();
  live_state->sequence = 1;
  live_state->proofs["alpn/b.test"] = sha256_hex("key authorization");
  live_state->proofs["alpn/odd.test"] = "no digest";
  edge.publish(live_state);
  TlsAnswer authority;
  EXPECT_TRUE(edge.run_until([&] {
    authority = ask_tls(edge.endpoint(), "b.test", kAcme, nullptr, true);
    return authority.alpn == "acme-tls/1";
  })) << "when the worker has it";
  EXPECT_TRUE(authority.acme_identifier);
  EXPECT_EQ(authority.subject, "b.test");
  EXPECT_EQ(authority.text, "");
  for (const std::string_view alpn : {kHttp1, kAcmeAndHttp}) {
    const TlsAnswer client = ask_tls(edge.endpoint(), "b.test", alpn);
    EXPECT_EQ(client.alpn, "http/1.1");
    EXPECT_FALSE(client.acme_identifier);
    EXPECT_TRUE(client.text.ends_with("secret"));
  }
  EXPECT_EQ(edge.metric("tidegate_l7_acme_answers_total"), 1u);
}

TEST(AcmeAnswers, ComeBeforeRoutesAndOnlyForATokenThatIsOrdered) {
  Edge edge;
  edge.add_fixed("/*", 404);
  edge.start();
  auto live_state = std::make_shared<LiveState>();
  live_state->sequence = 1;
  live_state->proofs["http/tok-1"] = "tok-1.thumbprint";
  live_state->proofs["alpn/a.test"] = "00";
  edge.publish(live_state);
  const auto ask = [&](const std::string& path) {
    Wire wire = Wire::connect(edge.endpoint());
    wire.send(get(path, "a.test", "Connection: close\r\n"));
    return wire.read_to_end();
  };
  std::string answer;
  EXPECT_TRUE(edge.run_until([&] {
    answer = ask("/.well-known/acme-challenge/tok-1");
    return answer.starts_with("HTTP/1.1 200");
  })) << answer;
  EXPECT_TRUE(answer.ends_with("tok-1.thumbprint")) << answer;
  for (const char* path : {"/.well-known/acme-challenge/tok-2", "/.well-known/acme-challenge/", "/a.test"}) {
    EXPECT_TRUE(ask(path).starts_with("HTTP/1.1 404")) << path;
  }
  auto over = std::make_shared<LiveState>();
  over->sequence = 2;
  edge.publish(over);
  EXPECT_TRUE(edge.run_until([&] { return ask("/.well-known/acme-challenge/tok-1").starts_with("HTTP/1.1 404"); }));
  EXPECT_GE(edge.metric("tidegate_l7_acme_answers_total"), 1u);
}

TEST_F(Tls, SessionsResumeOnEveryWorkerAcrossVersionsAndOnAnotherProxy) {
  Edge one, other;
  configure(one);
  configure(other);
  const TlsAnswer first = ask_tls(one.endpoint(), "a.test", kHttp1);
  ASSERT_FALSE(first.resumed);
  ASSERT_TRUE(first.session);
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(ask_tls(one.endpoint(), "a.test", kHttp1, first.session.get()).resumed);
  EXPECT_TRUE(ask_tls(other.endpoint(), "a.test", kHttp1, first.session.get()).resumed);
  ASSERT_TRUE(one.publish());
  EXPECT_TRUE(ask_tls(one.endpoint(), "a.test", kHttp1, first.session.get()).resumed);
}

// OpenSSL keeps the beginning of a record until the rest comes. A worker that asks it again and again would serve
// nobody else.
TEST_F(Tls, AClientThatStopsInTheMiddleOfARecordHoldsNobodyUp) {
  Edge edge;
  configure(edge, 1);
  Wire wire = Wire::connect(edge.endpoint());
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  SSL* ssl = SSL_new(context);
  SSL_set_fd(ssl, wire.fd());
  ASSERT_EQ(SSL_connect(ssl), 1);
  BIO* written = BIO_new(BIO_s_mem());
  SSL_set0_wbio(ssl, written);
  const std::string request = get("/", "a.test", "Connection: close\r\n");
  ASSERT_EQ(SSL_write(ssl, request.data(), static_cast<int>(request.size())), static_cast<int>(request.size()));
  char* record = nullptr;
  const auto bytes = static_cast<size_t>(BIO_get_mem_data(written, &record));
  ASSERT_TRUE(wire.send({record, bytes / 2}));

  EXPECT_TRUE(ask_tls(edge.endpoint(), "b.test", kHttp1).text.ends_with("secret"));
  ASSERT_TRUE(wire.send({record + bytes / 2, bytes - bytes / 2}));
  char answer[4096];
  const int got = SSL_read(ssl, answer, sizeof answer);
  EXPECT_TRUE(std::string_view(answer, static_cast<size_t>(std::max(got, 0))).starts_with("HTTP/1.1 200"));
  SSL_free(ssl);
  SSL_CTX_free(context);
}

// A client that has sent `first` over TLS, and reads until the end. True if the end was a close_notify, and not only a
// close.
class TlsClient {
 public:
  TlsClient(const Endpoint& endpoint, std::string_view alpn)
      : wire_(Wire::connect(endpoint)), context_(SSL_CTX_new(TLS_client_method())), ssl_(SSL_new(context_)) {
    SSL_set_alpn_protos(ssl_, reinterpret_cast<const unsigned char*>(alpn.data()), static_cast<unsigned>(alpn.size()));
    SSL_set_fd(ssl_, wire_.fd());
    EXPECT_EQ(SSL_connect(ssl_), 1);
  }
  ~TlsClient() {
    SSL_free(ssl_);
    SSL_CTX_free(context_);
  }
  void send(std::string_view bytes) {
    EXPECT_EQ(SSL_write(ssl_, bytes.data(), static_cast<int>(bytes.size())), static_cast<int>(bytes.size()));
  }
  std::string read_some() {
    char chunk[4096];
    const int got = SSL_read(ssl_, chunk, sizeof chunk);
    return {chunk, static_cast<size_t>(std::max(got, 0))};
  }
  bool ends_in_order() {
    while (!read_some().empty()) continue;
    return SSL_get_error(ssl_, 0) == SSL_ERROR_ZERO_RETURN;
  }

 private:
  Wire wire_;
  SSL_CTX* context_;
  SSL* ssl_;
};

// RFC 8446 §6.1: a peer that ends its side says so. A close without it could come from an attacker.
TEST_F(Tls, ADrainEndsIdleConnectionsWithACloseNotify) {
  Edge edge;
  configure(edge, 1);
  TlsClient http1(edge.endpoint(), kHttp1), http2(edge.endpoint(), kBoth);
  http1.send(get("/", "a.test"));
  EXPECT_TRUE(http1.read_some().starts_with("HTTP/1.1 200"));
  http2.send(std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") + std::string("\0\0\0\x4\0\0\0\0\0", 9));
  EXPECT_FALSE(http2.read_some().empty()) << "its SETTINGS";
  EXPECT_TRUE(edge.drain());
  EXPECT_TRUE(http1.ends_in_order());
  EXPECT_TRUE(http2.ends_in_order());
}

// --- backends

class BackendTls : public Tls {
 protected:
  // An edge in front of another edge that speaks TLS with the certificate of "a.test".
  void start(const std::function<void(Pool&)>& set) {
    configure(behind_, 1);
    const uint32_t pool = front_.add_pool("secure", {behind_.endpoint(), behind_.endpoint()});
    front_.model.pools[pool].tls = true;
    front_.model.pools[pool].tls_server_name = "a.test";
    set(front_.model.pools[pool]);
    front_.add_route("/*", pool);
    log_ = state_.path + "/log";
    front_.model.nodes[0].l7.access_log = log_;
    front_.start();
  }
  std::string log_line() {
    std::string line;
    EXPECT_TRUE(front_.run_until([&] {
      std::ifstream file(log_);
      return static_cast<bool>(std::getline(file, line));
    }));
    return line;
  }
  const StateDir state_;
  Edge behind_, front_;
  std::string log_;
};

TEST_F(BackendTls, CertificatesAreCheckedUnlessThePoolSaysOtherwise) {
  start([](Pool&) {});
  EXPECT_EQ(ask(front_.endpoint(), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").status,
            info(Failure::certificate_refused).status);
  EXPECT_EQ(front_.metric("tidegate_l7_failures_total{reason=\"certificate_refused\"}"), 1u);
  EXPECT_EQ(front_.metric("tidegate_l7_retries_total"), 1u) << "nothing was sent: the other backend was tried";
  for (const char* backend : {"b1", "b2"}) {
    EXPECT_EQ(
        front_.metric("tidegate_l7_backend_failures_total{pool=\"secure\",backend=\"" + std::string(backend) + "\"}"),
        1u);
  }
  const std::string line = log_line();
  EXPECT_NE(line.find("\"failure\":\"certificate_refused\",\"failure_detail\":\"self-signed certificate\""),
            std::string::npos)
      << line;
}

TEST_F(BackendTls, AnAuthorityOfThePoolsOwnIsBelieved) {
  start([this](Pool& pool) { pool.tls_ca = certificates_[0].certificate; });
  EXPECT_EQ(ask(front_.endpoint(), get("/")).body, "secret");
}

TEST_F(BackendTls, AnotherNameThanTheCertificatesIsRefusedByName) {
  start([this](Pool& pool) {
    pool.tls_ca = certificates_[0].certificate;
    pool.tls_server_name = "c.test";
  });
  EXPECT_EQ(ask(front_.endpoint(), get("/")).status, 502);
  EXPECT_NE(log_line().find("\"failure_detail\":\"hostname mismatch\""), std::string::npos);
}

TEST_F(BackendTls, WithoutVerificationWhoeverAnswersIsBelieved) {
  start([](Pool& pool) { pool.tls_verify = false; });
  EXPECT_EQ(ask(front_.endpoint(), get("/")).body, "secret");
}

TEST_F(Tls, ACertificateThatDoesNotFitItsKeyRefusesTheVersion) {
  Edge edge;
  configure(edge);
  std::swap(edge.model.certificates[0].key, edge.model.certificates[1].key);
  EXPECT_FALSE(edge.publish());
  EXPECT_EQ(ask_tls(edge.endpoint(), "a.test", kHttp1).subject, "a.test");
}

TEST(Contexts, AreMadeAnewOfTheCertificateThatChangedAlone) {
  const auto plan_of = [](const std::vector<TlsIdentity>& identities) {
    auto model = std::make_shared<Model>();
    Listener listener;
    listener.tls.enabled = true;
    for (const TlsIdentity& identity : identities) {
      Certificate certificate;
      certificate.certificate = {"crt", sha256_hex(identity.certificate_pem),
                                 std::make_shared<const std::string>(identity.certificate_pem)};
      certificate.key = {"key", sha256_hex(identity.key_pem), std::make_shared<const std::string>(identity.key_pem)};
      listener.tls.certificates.push_back(static_cast<uint32_t>(model->certificates.size()));
      model->certificates.push_back(certificate);
    }
    model->listeners = {listener, listener};
    model->listeners[1].tls.certificates.resize(1);
    Description plan;
    plan.snapshot = make_snapshot(1, "digest", model, std::make_shared<const LiveState>());
    plan.certificates = served_certificates(*plan.snapshot, nullptr, nullptr);
    plan.listeners = {0, 1};
    return plan;
  };
  std::vector<TlsIdentity> identities = {make_identity("a"), make_identity("b"), make_identity("c")};
  TlsContexts contexts(nullptr);
  const Result<TlsContexts::Set> first = contexts.prepare(plan_of(identities));
  ASSERT_TRUE(first);
  EXPECT_EQ(contexts.identities_read(), 3U) << "each once, for both listeners";
  identities[2] = make_identity("d");
  const Result<TlsContexts::Set> second = contexts.prepare(plan_of(identities));
  ASSERT_TRUE(second);
  EXPECT_EQ(contexts.identities_read(), 4U);
  EXPECT_NE(second->listeners[0], first->listeners[0]);
  EXPECT_EQ(second->listeners[1], first->listeners[1]);

  identities[2] = make_identity("e");
  ASSERT_TRUE(contexts.hold(plan_of(identities))) << "a candidate";
  EXPECT_EQ(contexts.identities_read(), 5U);
  const std::vector<TlsIdentity> candidate = std::exchange(identities, {identities[0], identities[1]});
  const Result<TlsContexts::Set> third = contexts.prepare(plan_of(candidate));
  ASSERT_TRUE(third);
  EXPECT_EQ(contexts.identities_read(), 5U) << "it comes in force with what it held";
  ASSERT_TRUE(contexts.hold(plan_of(identities)));
  contexts.release();
  const Result<TlsContexts::Set> fourth = contexts.prepare(plan_of(candidate));
  ASSERT_TRUE(fourth);
  EXPECT_EQ(fourth->listeners, third->listeners) << "a candidate that was given up has changed nothing";
  EXPECT_EQ(contexts.identities_read(), 5U);
}

}  // namespace tidegate::l7::test::tls_test
