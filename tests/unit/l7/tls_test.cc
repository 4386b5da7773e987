// SPDX-License-Identifier: Apache-2.0
// TLS towards clients: names choose certificates, ALPN chooses the protocol, and one proxy resumes another's sessions.
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "core/crypto.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test {
namespace {

template <class T, void (*Free)(T*)>
struct Deleter {
  void operator()(T* object) const { Free(object); }
};
using Key = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY, EVP_PKEY_free>>;
using Leaf = std::unique_ptr<X509, Deleter<X509, X509_free>>;
using Session = std::unique_ptr<SSL_SESSION, Deleter<SSL_SESSION, SSL_SESSION_free>>;

template <class Write>
std::string pem(Write write) {
  BIO* bio = BIO_new(BIO_s_mem());
  write(bio);
  char* data = nullptr;
  const long bytes = BIO_get_mem_data(bio, &data);
  std::string out(data, static_cast<size_t>(bytes));
  BIO_free(bio);
  return out;
}

Certificate certificate_for(const std::string& name) {
  const Key key(EVP_EC_gen("P-256"));
  const Leaf leaf(X509_new());
  X509_set_version(leaf.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(leaf.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(leaf.get()), -3600);
  X509_gmtime_adj(X509_getm_notAfter(leaf.get()), 3600);
  X509_set_pubkey(leaf.get(), key.get());
  X509_NAME* subject = X509_get_subject_name(leaf.get());
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1,
                             0);
  X509_set_issuer_name(leaf.get(), subject);
  X509_EXTENSION* names = X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, ("DNS:" + name).c_str());
  X509_add_ext(leaf.get(), names, -1);
  X509_EXTENSION_free(names);
  X509_sign(leaf.get(), key.get(), EVP_sha256());
  const auto blob = [](std::string text) {
    Blob out;
    out.hash = sha256_hex(text);
    out.bytes = std::make_shared<const std::string>(std::move(text));
    return out;
  };
  Certificate certificate;
  certificate.name = name;
  certificate.certificate = blob(pem([&](BIO* bio) { PEM_write_bio_X509(bio, leaf.get()); }));
  certificate.key =
      blob(pem([&](BIO* bio) { PEM_write_bio_PrivateKey(bio, key.get(), nullptr, nullptr, 0, nullptr, nullptr); }));
  return certificate;
}

struct TlsAnswer {
  std::string subject, alpn, text;
  bool resumed = false;
  Session session;
};

// One HTTP/1 exchange over TLS on a new connection.
TlsAnswer ask_tls(const Endpoint& endpoint, const std::string& name, std::string_view alpn,
                  SSL_SESSION* session = nullptr) {
  TlsAnswer answer;
  const Wire wire = Wire::connect(endpoint);
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  SSL* ssl = SSL_new(context);
  SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, const_cast<char*>(name.c_str()));
  SSL_set_alpn_protos(ssl, reinterpret_cast<const unsigned char*>(alpn.data()), static_cast<unsigned>(alpn.size()));
  if (session != nullptr) SSL_set_session(ssl, session);
  SSL_set_fd(ssl, wire.fd());
  EXPECT_EQ(SSL_connect(ssl), 1);
  const Leaf leaf(SSL_get1_peer_certificate(ssl));
  if (leaf) {
    char common[100] = {};
    X509_NAME_get_text_by_NID(X509_get_subject_name(leaf.get()), NID_commonName, common, sizeof common);
    answer.subject = common;
  }
  const unsigned char* chosen = nullptr;
  unsigned chosen_bytes = 0;
  SSL_get0_alpn_selected(ssl, &chosen, &chosen_bytes);
  answer.alpn.assign(reinterpret_cast<const char*>(chosen), chosen_bytes);
  answer.resumed = SSL_session_reused(ssl) == 1;
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

class Tls : public testing::Test {
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
  std::vector<Certificate> certificates_{certificate_for("a.test"), certificate_for("b.test")};
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

// OpenSSL keeps the beginning of a record until the rest comes. A worker that asked it again and again would serve
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

TEST_F(Tls, ACertificateThatDoesNotFitItsKeyRefusesTheVersion) {
  Edge edge;
  configure(edge);
  std::swap(edge.model.certificates[0].key, edge.model.certificates[1].key);
  EXPECT_FALSE(edge.publish());
  EXPECT_EQ(ask_tls(edge.endpoint(), "a.test", kHttp1).subject, "a.test");
}

}  // namespace
}  // namespace tidegate::l7::test
