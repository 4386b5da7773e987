// SPDX-License-Identifier: Apache-2.0
// Clients with TLS certificates at the proxy: which are accepted and under which name, what backends and the log get,
// and the effect of a new version on open connections. Listeners that deny by default.
#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "conf/model.h"
#include "conf/model/certificate.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/policy.h"
#include "conf/model/route.h"
#include "conf/policy/authenticate.h"
#include "conf/policy/authorise.h"
#include "core/crypto.h"
#include "l7/limits.h"
#include "l7/plan/certificate_names.h"
#include "tests/unit/core/made_authority.h"
#include "tests/unit/l7/certificates.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::client_certificates_test {

const MadeAuthority& client_root() {
  static const MadeAuthority authority("root");
  return authority;
}

Blob blob_of(const std::string& name, const std::string& text) {
  return {name, sha256_hex(text), std::make_shared<const std::string>(text)};
}

// A client of OpenSSL's own that shows a certificate, on one connection after the other.
class ShowingClient {
 public:
  ShowingClient(const Endpoint& endpoint, const TlsIdentity* identity, std::string_view alpn = {})
      : endpoint_(endpoint), context_(SSL_CTX_new(TLS_client_method())) {
    ::signal(SIGPIPE, SIG_IGN);  // OpenSSL's own socket raises it when the proxy has closed
    SSL_CTX_set_session_cache_mode(context_, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    if (!alpn.empty()) {
      SSL_CTX_set_alpn_protos(context_, reinterpret_cast<const unsigned char*>(alpn.data()),
                              static_cast<unsigned>(alpn.size()));
    }
    if (identity == nullptr) return;
    BIO* in = BIO_new_mem_buf(identity->certificate_pem.data(), static_cast<int>(identity->certificate_pem.size()));
    X509* leaf = PEM_read_bio_X509(in, nullptr, nullptr, nullptr);
    SSL_CTX_use_certificate(context_, leaf);
    X509_free(leaf);
    BIO_free(in);
    in = BIO_new_mem_buf(identity->key_pem.data(), static_cast<int>(identity->key_pem.size()));
    EVP_PKEY* key = PEM_read_bio_PrivateKey(in, nullptr, nullptr, nullptr);
    SSL_CTX_use_PrivateKey(context_, key);
    EVP_PKEY_free(key);
    BIO_free(in);
  }
  ~ShowingClient() {
    leave();
    SSL_SESSION_free(session_);
    SSL_CTX_free(context_);
  }
  ShowingClient(const ShowingClient&) = delete;
  ShowingClient& operator=(const ShowingClient&) = delete;

  // Returns the head of the answer in lower case, or "alert: NAME", or an empty text if there is no answer. Uses the
  // open connection, otherwise a new one.
  std::string ask(const std::string& path = "/", const std::string& fields = {}) {
    if (ssl_ == nullptr) {
      wire_.emplace(Wire::connect(endpoint_));
      ssl_ = SSL_new(context_);
      SSL_set_fd(ssl_, wire_->fd());
      if (session_ != nullptr) SSL_set_session(ssl_, session_);
      if (SSL_connect(ssl_) != 1) return trouble();
    }
    const std::string request = get(path, "a.test", fields);
    if (SSL_write(ssl_, request.data(), static_cast<int>(request.size())) <= 0) return trouble();
    std::string answer;
    char byte;
    while (answer.find("\r\n\r\n") == std::string::npos) {
      if (SSL_read(ssl_, &byte, 1) <= 0) return trouble();
      answer += byte;
    }
    for (char& c : answer) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    const size_t length = answer.find("content-length: ");
    size_t rest = length == std::string::npos ? 0 : std::stoul(answer.substr(length + 16));
    for (; rest > 0 && SSL_read(ssl_, &byte, 1) == 1; --rest) {
    }
    SSL_SESSION_free(session_);
    session_ = SSL_get1_session(ssl_);
    return answer;
  }
  int status(const std::string& path = "/", const std::string& fields = {}) {
    const std::string answer = ask(path, fields);
    return answer.starts_with("http/1.1 ") ? std::stoi(answer.substr(9)) : 0;
  }
  bool resumed() const { return SSL_session_reused(ssl_) == 1; }
  void leave() {
    if (ssl_ != nullptr) {
      SSL_set_shutdown(ssl_, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
      SSL_free(ssl_);
    }
    ssl_ = nullptr;
    wire_.reset();
    ERR_clear_error();
  }
  SSL* ssl() const { return ssl_; }

 private:
  std::string trouble() {
    const char* const reason = ERR_reason_error_string(ERR_peek_error());
    std::string text = reason == nullptr ? "" : std::string("alert: ") + reason;
    leave();
    return text;
  }
  const Endpoint endpoint_;
  SSL_CTX* context_;
  SSL_SESSION* session_ = nullptr;
  std::optional<Wire> wire_;
  SSL* ssl_ = nullptr;
};

class ClientCertificates : public ::testing::Test {
 protected:
  ClientCertificates() {
    Listener& listener = edge_.model.listeners[0];
    edge_.model.certificates = {certificate_for("a.test")};
    listener.tls.enabled = true;
    listener.tls.certificates = {0};
    listener.tls.clients.enabled = true;
    listener.tls.clients.ca = blob_of("ca.pem", client_root().pem());
  }
  void start() {
    edge_.add_route("/*", edge_.add_pool("p", {origin_.endpoint()}));
    if (part_) {
      edge_.model.policies.push_back({"who", false, {{"authenticate", part_}}});
      edge_.model.routes[0].policies = {static_cast<uint32_t>(edge_.model.policies.size() - 1)};
    }
    edge_.start();
  }
  void revoke(const std::vector<long>& serials) {
    edge_.model.listeners[0].tls.clients.crl = blob_of("crl.pem", client_root().revokes(serials));
  }
  AuthenticatePolicy& part() {
    if (!part_) part_ = std::make_shared<AuthenticatePolicy>();
    part_->certificates.enabled = true;
    return *part_;
  }
  uint64_t refused(const std::string& reason) {
    return edge_.metric("tidegate_l7_client_certificates_refused_total{reason=\"" + reason + "\"}");
  }
  std::string head() {  // of the last request at the origin
    return origin_.last_head();
  }

  Edge edge_;
  Origin origin_{Origin::says("x")};
  std::shared_ptr<AuthenticatePolicy> part_;
  const TlsIdentity billing_ = client_root().issue(
      {.common_name = "billing", .alternatives = "URI:spiffe://example.org/billing/a", .serial = 7});
};

TEST_F(ClientCertificates, AreCheckedInTheHandshakeAndTheAlertArrives) {
  revoke({9});
  start();
  ShowingClient good(edge_.endpoint(), &billing_);
  EXPECT_EQ(good.status(), 200);
  EXPECT_EQ(edge_.metric("tidegate_l7_client_certificates_total"), 1u);
  const auto alert = [&](const TlsIdentity* identity) { return ShowingClient(edge_.endpoint(), identity).ask(); };
  EXPECT_EQ(alert(nullptr), "alert: tlsv13 alert certificate required");
  const TlsIdentity old = client_root().issue({.ends_in_s = -10}), revoked = client_root().issue({.serial = 9});
  const TlsIdentity stranger = MadeAuthority("stranger").issue({});
  const TlsIdentity server = client_root().issue({.purpose = "serverAuth"});
  EXPECT_EQ(alert(&old), "alert: sslv3 alert certificate expired");
  EXPECT_EQ(alert(&revoked), "alert: sslv3 alert certificate revoked");
  EXPECT_EQ(alert(&stranger), "alert: tlsv1 alert unknown ca");
  EXPECT_EQ(alert(&server), "alert: sslv3 alert unsupported certificate");
  for (const char* reason : {"missing", "expired", "revoked", "unknown_authority", "wrong_purpose"}) {
    EXPECT_EQ(refused(reason), 1u) << reason;
  }
  EXPECT_EQ(edge_.metric("tidegate_l7_tls_failures_total"), 5u);
  EXPECT_EQ(origin_.requests(), 1u);
  EXPECT_EQ(good.status(), 200) << "a bystander";
}

TEST_F(ClientCertificates, NameTheClientForRolesBackendsAndTheLog) {
  part().certificates.clients = {{"spiffe://example.org/billing/*", {"writer"}}, {"spiffe://example.org/shop", {}}};
  part_->certificates.client_cert = true;
  part_->identity_header = "X-Client";
  auto authorise = std::make_shared<AuthorisePolicy>();
  authorise->rules = {{{}, {"writer"}, {}}};
  const std::string log = ::testing::TempDir() + "client_certificates.log";
  std::filesystem::remove(log);
  edge_.model.nodes[0].l7.access_log = log;
  edge_.model.policies.push_back({"roles", true, {{"authorise", authorise}}});
  start();
  ShowingClient billing(edge_.endpoint(), &billing_);
  EXPECT_NE(billing.ask("/b", "X-Client: root\r\nClient-Cert: :AAAA:\r\nClient_Cert_Chain: :AAAA:\r\n").find(" 200 "),
            std::string::npos);
  EXPECT_NE(head().find("X-Client: spiffe://example.org/billing/a\r\n"), std::string::npos) << head();
  EXPECT_NE(head().find("\r\nClient-Cert: :MII"), std::string::npos) << head();
  EXPECT_EQ(head().find("AAAA:"), std::string::npos) << "what a client writes itself: " << head();
  EXPECT_EQ(head().find("root"), std::string::npos);
  const TlsIdentity shop = client_root().issue({.alternatives = "URI:spiffe://example.org/shop"});
  const TlsIdentity other = client_root().issue({.alternatives = "URI:spiffe://example.org/billing"});
  const TlsIdentity nameless = client_root().issue({.alternatives = "DNS:a.test"});
  EXPECT_EQ(ShowingClient(edge_.endpoint(), &shop).status(), 403) << "known, without the role";
  EXPECT_EQ(ShowingClient(edge_.endpoint(), &other).status(), 401) << "not below itself";
  const std::string asked = ShowingClient(edge_.endpoint(), &nameless).ask();
  EXPECT_TRUE(asked.starts_with("http/1.1 401 "));
  EXPECT_NE(asked.find("www-authenticate: mutual realm=\"tidegate\""), std::string::npos) << asked;

  HttpRequest request;
  request.query = "url=https://a.test/x";
  const nlohmann::json explained = *edge_.proxy().explain(request);
  EXPECT_EQ(explained["client_certificates"]["required"], true);
  EXPECT_EQ(explained["policies"][0]["certificate_clients"][0]["roles"][0], "writer");

  std::vector<nlohmann::json> lines;
  ASSERT_TRUE(edge_.run_until([&] {
    std::ifstream file(log);
    lines.clear();
    for (std::string line; std::getline(file, line);) lines.push_back(nlohmann::json::parse(line));
    return !lines.empty() && lines.back().value("failure_detail", "") == "certificate_nameless";
  }));
  const auto b = std::find_if(lines.begin(), lines.end(), [](const auto& line) { return line["path"] == "/b"; });
  EXPECT_EQ((*b)["identity"], "spiffe://example.org/billing/a");
  EXPECT_EQ((*b)["certificate"], "spiffe://example.org/billing/a");
  EXPECT_EQ((*b)["certificate_serial"], "07");
  EXPECT_EQ(lines.back()["certificate"], "CN=client") << "no SPIFFE ID: the subject";
}

TEST_F(ClientCertificates, AreOptionalWhereAnotherCredentialWillDo) {
  edge_.model.listeners[0].tls.clients.optional = true;
  part().api_keys.enabled = true;
  part_->api_keys.keys = {{"shop", sha256_hex("xyzzy"), {}}};
  part_->identity_header = "X-Client";
  start();
  ShowingClient bare(edge_.endpoint(), nullptr);
  EXPECT_EQ(bare.status(), 401);
  EXPECT_EQ(bare.status("/", "X-API-Key: xyzzy\r\n"), 200);
  EXPECT_NE(head().find("X-Client: shop\r\n"), std::string::npos);
  ShowingClient billing(edge_.endpoint(), &billing_);
  EXPECT_EQ(billing.status(), 200);
  EXPECT_NE(head().find("X-Client: spiffe://example.org/billing/a\r\n"), std::string::npos);
  EXPECT_EQ(billing.status("/", "X-API-Key: wrong\r\n"), 401) << "what the request itself shows comes first";
}

TEST_F(ClientCertificates, ResumedSessionsHaveThemAndEndWithTheRules) {
  part();
  start();
  ShowingClient client(edge_.endpoint(), &billing_);
  EXPECT_EQ(client.status(), 200);
  client.leave();
  EXPECT_EQ(client.status(), 200) << "known by the ticket";
  EXPECT_TRUE(client.resumed());
  client.leave();
  revoke({8});
  ASSERT_TRUE(edge_.publish());
  ASSERT_TRUE(edge_.run_until([&] {
    EXPECT_EQ(client.status(), 200);
    const bool resumed = client.resumed();
    client.leave();
    return !resumed;
  })) << "a newer list: a full handshake";
  EXPECT_EQ(client.status(), 200);
  EXPECT_TRUE(client.resumed());
  client.leave();
  revoke({7});
  ASSERT_TRUE(edge_.publish());
  std::string answer;
  EXPECT_TRUE(edge_.run_until([&] {
    answer = client.ask();
    client.leave();
    return answer.starts_with("alert: ");  // before that 421, if the handshake was complete when the version came
  }));
  EXPECT_EQ(answer, "alert: sslv3 alert certificate revoked");
}

// Connections that are open when a version comes: clients that are still accepted do not notice it.
TEST_F(ClientCertificates, OfOpenConnectionsAreJudgedByTheVersionInForce) {
  part();
  start();
  const TlsIdentity second = client_root().issue({.alternatives = "URI:spiffe://example.org/second", .serial = 8});
  ShowingClient revoked(edge_.endpoint(), &billing_), kept(edge_.endpoint(), &second);
  EXPECT_EQ(revoked.status(), 200);
  EXPECT_EQ(kept.status(), 200);
  SSL* const connection = kept.ssl();
  revoke({7});
  ASSERT_TRUE(edge_.publish());
  std::string answer;
  ASSERT_TRUE(edge_.run_until([&] { return (answer = revoked.ask()).find(" 200 ") == std::string::npos; }));
  EXPECT_TRUE(answer.starts_with("http/1.1 421 ")) << answer;
  EXPECT_NE(answer.find("connection: close"), std::string::npos);
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"client_certificate_refused\"}"), 1u);
  EXPECT_EQ(refused("revoked"), 1u);
  revoked.leave();
  EXPECT_EQ(revoked.ask(), "alert: sslv3 alert certificate revoked");
  EXPECT_EQ(kept.status(), 200);
  EXPECT_EQ(kept.ssl(), connection) << "the same connection";
  edge_.model.listeners[0].tls.clients = {};
  ASSERT_TRUE(edge_.publish());
  EXPECT_TRUE(edge_.run_until([&] { return kept.status() == 401; })) << "nobody is asked: nobody is known";
  EXPECT_EQ(kept.ssl(), connection);
}

TEST_F(ClientCertificates, DoNotKeepAnAuthorityOfTheEdgeFromItsProof) {
  start();
  auto live_state = std::make_shared<LiveState>();
  live_state->sequence = 1;
  live_state->proofs["alpn/a.test"] = sha256_hex("key authorization");
  edge_.publish(live_state);
  EXPECT_TRUE(edge_.run_until([&] {
    ShowingClient authority(edge_.endpoint(), nullptr,
                            std::string_view("\x0a"
                                             "acme-tls/1",
                                             11));
    authority.ask();
    return edge_.metric("tidegate_l7_acme_answers_total") > 0;
  }));
}

TEST(CertificateNames, AnExactNameComesFirstThenTheLongestAbove) {
  CertificateClients rules;
  rules.clients = {{"spiffe://o/*", {"any"}}, {"spiffe://o/a/*", {"a"}}, {"spiffe://o/a/b", {"b"}}};
  const CertificateNames names(rules);
  const auto role = [&](const std::string& id) {
    PeerCertificate certificate;
    certificate.spiffe = id;
    const auto found = names.find(certificate);
    return found.known == nullptr ? std::string("-") : found.known->roles[0];
  };
  EXPECT_EQ(role("spiffe://o/a/b"), "b");
  EXPECT_EQ(role("spiffe://o/a/c"), "a");
  EXPECT_EQ(role("spiffe://o/a/b/c"), "a");
  EXPECT_EQ(role("spiffe://o/ab"), "any");
  EXPECT_EQ(role("spiffe://o"), "-");
  EXPECT_EQ(role("spiffe://other/a/b"), "-");
  EXPECT_EQ(role(""), "-");
}

// --- default deny

TEST(DefaultDeny, RefusesWhatNoPolicyAllows) {
  Edge edge;
  edge.model.listeners[0].default_deny = true;
  auto known = std::make_shared<AuthenticatePolicy>();
  known->api_keys.enabled = true;
  known->api_keys.keys = {{"shop", sha256_hex("xyzzy"), {"reader"}}};
  auto roles = std::make_shared<AuthorisePolicy>(), here = std::make_shared<AuthorisePolicy>();
  roles->rules = {{{}, {"reader"}, {}}};
  here->allow = {*Cidr::parse("127.0.0.0/8")};
  auto elsewhere = std::make_shared<AuthorisePolicy>();
  elsewhere->deny = {*Cidr::parse("192.0.2.0/24")};
  edge.model.policies = {{"known", false, {{"authenticate", known}}},
                         {"roles", false, {{"authorise", roles}}},
                         {"here", false, {{"authorise", here}}},
                         {"elsewhere", false, {{"authorise", elsewhere}}}};
  edge.add_fixed("/forgotten", 204);
  edge.add_fixed("/known", 204).policies = {0};
  edge.add_fixed("/roles", 204).policies = {0, 1};
  edge.add_fixed("/here", 204).policies = {2};
  edge.add_fixed("/elsewhere", 204).policies = {3};
  edge.start();
  const auto status = [&](const std::string& path) {
    return ask(edge.endpoint(), get(path, "a.test", "X-API-Key: xyzzy\r\n")).status;
  };
  EXPECT_EQ(status("/forgotten"), 403);
  EXPECT_EQ(status("/known"), 403) << "to know somebody is not to allow something";
  EXPECT_EQ(status("/elsewhere"), 403) << "not to forbid is not to allow";
  EXPECT_EQ(status("/none"), 403) << "which paths there are is nobody's business";
  EXPECT_EQ(status("/roles"), 204);
  EXPECT_EQ(status("/here"), 204);
  EXPECT_EQ(edge.metric("tidegate_l7_failures_total{reason=\"denied_by_default\"}"), 4u);
  EXPECT_EQ(
      edge.metric("tidegate_l7_policy_verdicts_total{policy=\"listener\",kind=\"default_deny\",verdict=\"refused\"}"),
      4u);
  HttpRequest request;
  request.query = "url=http://a.test/forgotten";
  EXPECT_EQ((*edge.proxy().explain(request))["policies"][0]["verdict"], "refused");
  edge.model.listeners[0].default_deny = false;
  ASSERT_TRUE(edge.publish());
  EXPECT_TRUE(edge.run_until([&] { return status("/forgotten") == 204; }));
  EXPECT_EQ(status("/none"), 404);
}

}  // namespace tidegate::l7::test::client_certificates_test
