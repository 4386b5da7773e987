// SPDX-License-Identifier: Apache-2.0
// Client certificates at a server: which it accepts, how it names a refusal, and which sessions resume.
#include "core/tls_clients.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include "core/fd.h"
#include "made_authority.h"

namespace tidegate::tls_clients_test {

using ::testing::HasSubstr;
using Fault = ClientCertificateFault;

const MadeAuthority& root() {
  static const MadeAuthority authority("root");
  return authority;
}
const MadeAuthority& foreign() {
  static const MadeAuthority authority("foreign");
  return authority;
}

int64_t test_clock_s = 0;
int64_t test_clock() { return test_clock_s; }

std::shared_ptr<TlsContext> asking(const TlsClientRules& rules) {
  static const TlsIdentity own = make_identity("a", "DNS:a.test");
  TlsServerOptions options;
  options.identities = {own};
  options.tickets = std::make_shared<TicketKeys>("secret", test_clock);
  options.clients = rules.authorities_pem.empty() ? nullptr : std::make_shared<const TlsClientRules>(rules);
  auto context = TlsContext::server(options);
  EXPECT_TRUE(context) << context.error().message;
  return *context;
}
TlsClientRules required(std::string lists = {}) { return {root().pem(), std::move(lists), false}; }
TlsClientRules optional(std::string lists = {}) { return {root().pem(), std::move(lists), true}; }

// A client of OpenSSL's own, with or without a certificate, that keeps its session.
class AskedClient {
 public:
  explicit AskedClient(const TlsIdentity* identity = nullptr, int version = TLS1_3_VERSION)
      : context_(SSL_CTX_new(TLS_client_method())) {
    SSL_CTX_set_min_proto_version(context_, version);
    SSL_CTX_set_max_proto_version(context_, version);
    SSL_CTX_set_session_cache_mode(context_, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    if (identity != nullptr) show(*identity);
  }
  ~AskedClient() {
    SSL_SESSION_free(session_);
    SSL_CTX_free(context_);
  }
  AskedClient(const AskedClient&) = delete;
  AskedClient& operator=(const AskedClient&) = delete;

  void show(const TlsIdentity& identity) {
    BIO* in = BIO_new_mem_buf(identity.certificate_pem.data(), static_cast<int>(identity.certificate_pem.size()));
    X509* leaf = PEM_read_bio_X509(in, nullptr, nullptr, nullptr);
    SSL_CTX_use_certificate(context_, leaf);
    X509_free(leaf);
    SSL_CTX_clear_chain_certs(context_);
    while (X509* above = PEM_read_bio_X509(in, nullptr, nullptr, nullptr)) SSL_CTX_add0_chain_cert(context_, above);
    ERR_clear_error();
    BIO_free(in);
    in = BIO_new_mem_buf(identity.key_pem.data(), static_cast<int>(identity.key_pem.size()));
    EVP_PKEY* key = PEM_read_bio_PrivateKey(in, nullptr, nullptr, nullptr);
    SSL_CTX_use_PrivateKey(context_, key);
    EVP_PKEY_free(key);
    BIO_free(in);
  }

  struct Seen {
    bool up = false, resumed = false;
    Fault fault = Fault::none;
    std::unique_ptr<PeerCertificate> certificate;
    Fault judged = Fault::none;  // the verdict under `later`
  };
  Seen connect(const std::shared_ptr<TlsContext>& server_side, const TlsContext* later = nullptr) {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    const UniqueFd client_fd(fds[0]), server_fd(fds[1]);
    TlsStream server(server_side, server_fd.get(), true);
    SSL* ssl = SSL_new(context_);
    SSL_set_fd(ssl, client_fd.get());
    if (session_ != nullptr) SSL_set_session(ssl, session_);
    TlsStatus served = TlsStatus::want_read;
    int connected = 0;
    for (int i = 0; i < 10 && served != TlsStatus::error && (connected != 1 || served != TlsStatus::ok); ++i) {
      if (connected != 1) connected = SSL_connect(ssl);
      if (served != TlsStatus::ok) served = server.handshake();
    }
    Seen seen;
    seen.up = connected == 1 && served == TlsStatus::ok;
    seen.fault = served == TlsStatus::error ? client_certificate_fault(server) : Fault::none;
    if (seen.up) {
      char byte;
      EXPECT_LE(SSL_read(ssl, &byte, 1), 0);  // reads the tickets of TLS 1.3
      seen.resumed = server.resumed();
      seen.certificate = peer_certificate(server);
      if (later != nullptr) seen.judged = judge_peer(server, *later);
      SSL_SESSION_free(session_);
      session_ = SSL_get1_session(ssl);
    }
    SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(ssl);
    ERR_clear_error();
    return seen;
  }

 private:
  SSL_CTX* context_;
  SSL_SESSION* session_ = nullptr;
};

Fault fault_for(const TlsClientRules& rules, const TlsIdentity& identity) {
  AskedClient client(&identity);
  const AskedClient::Seen seen = client.connect(asking(rules));
  EXPECT_NE(seen.up, seen.fault != Fault::none);
  return seen.fault;
}

TEST(TlsClients, AreAcceptedWithACertificateOfTheAuthorityAndRefusedByName) {
  const TlsIdentity good = root().issue({});
  EXPECT_EQ(fault_for(required(), good), Fault::none);
  EXPECT_EQ(fault_for(required(), root().issue({.purpose = ""})), Fault::none) << "no purpose named: any";
  EXPECT_EQ(fault_for(required(), root().issue({.ends_in_s = -10})), Fault::expired);
  EXPECT_EQ(fault_for(required(), root().issue({.begins_in_s = 1000})), Fault::early);
  EXPECT_EQ(fault_for(required(), foreign().issue({})), Fault::unknown_authority);
  EXPECT_EQ(fault_for(required(), make_identity("self-signed")), Fault::unknown_authority);
  EXPECT_EQ(fault_for(required(), root().issue({.purpose = "serverAuth"})), Fault::wrong_purpose);
  EXPECT_EQ(fault_for(required(root().revokes({8})), good), Fault::none);
  EXPECT_EQ(fault_for(required(root().revokes({7})), good), Fault::revoked);
  EXPECT_EQ(fault_for(required(root().revokes({}, -10)), good), Fault::revocation_unknown) << "the list has ended";
  EXPECT_EQ(fault_for(optional(), foreign().issue({})), Fault::unknown_authority) << "optional: not a bad one";
}

TEST(TlsClients, WithoutACertificateMayComeOnlyWhereItIsOptional) {
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    AskedClient bare(nullptr, version);
    EXPECT_EQ(bare.connect(asking(required())).fault, Fault::missing);
    const AskedClient::Seen seen = bare.connect(asking(optional()));
    EXPECT_TRUE(seen.up);
    EXPECT_EQ(seen.certificate, nullptr);
  }
}

TEST(TlsClients, MayHaveAuthoritiesBetween) {
  const MadeAuthority middle = root().below("middle", 50);
  const TlsIdentity client = middle.issue({});
  EXPECT_EQ(fault_for(required(), client), Fault::none);
  EXPECT_EQ(fault_for({middle.pem(), "", false}, client), Fault::none) << "trusted by itself, without its root";
  EXPECT_EQ(fault_for({middle.pem(), "", false}, root().issue({})), Fault::unknown_authority);
  const std::string lists = root().revokes({}) + middle.revokes({});
  EXPECT_EQ(fault_for(required(lists), client), Fault::none);
  EXPECT_EQ(fault_for(required(root().revokes({})), client), Fault::revocation_unknown) << "the middle one has no list";
  EXPECT_EQ(fault_for(required(root().revokes({50}) + middle.revokes({})), client), Fault::revoked);
  EXPECT_EQ(fault_for({middle.pem(), middle.revokes({}), false}, client), Fault::none) << "no list of the root needed";
  EXPECT_EQ(fault_for({middle.pem(), middle.revokes({7}), false}, client), Fault::revoked);
}

TEST(TlsClients, RulesThatCannotBeUsedSayWhy) {
  const auto why = [](const TlsClientRules& rules) {
    const auto read = inspect_client_rules(rules);
    return read ? std::string() : read.error().message;
  };
  EXPECT_EQ(why(required(root().revokes({}))), "");
  EXPECT_THAT(why({"nothing", "", false}), HasSubstr("no PEM certificate"));
  EXPECT_THAT(why(required("nothing")), HasSubstr("no PEM list"));
  EXPECT_THAT(why(required(foreign().revokes({}))), HasSubstr("CN=root has signed none"));
  const MadeAuthority impostor("root");
  EXPECT_THAT(why(required(impostor.revokes({}))), HasSubstr("CN=root has signed none")) << "the name is not enough";
  EXPECT_EQ(*inspect_client_rules(required()), INT64_MAX);
  EXPECT_LT(*inspect_client_rules(required(root().revokes({}, -10))),
            *inspect_client_rules(required(root().revokes({}))));
}

TEST(TlsClients, AreNamedByTheirCertificate) {
  const auto named = [](const IssuedTerms& terms) {
    const TlsIdentity identity = root().issue(terms);
    AskedClient client(&identity);
    std::unique_ptr<PeerCertificate> seen = client.connect(asking(required())).certificate;
    return seen ? *seen : PeerCertificate{};
  };
  const PeerCertificate full =
      named({.common_name = "a, \"b\"", .alternatives = "URI:spiffe://example.org/ns/a,DNS:A.Test,email:a@a.test"});
  EXPECT_EQ(full.spiffe, "spiffe://example.org/ns/a");
  EXPECT_EQ(full.dns, "a.test");
  EXPECT_EQ(full.email, "a@a.test");
  EXPECT_EQ(full.common_name, "a, \"b\"");
  EXPECT_EQ(full.subject, "CN=a\\, \\\"b\\\"");
  EXPECT_EQ(full.serial, "07");
  EXPECT_EQ(full.fingerprint.size(), 64u);
  EXPECT_TRUE(full.encoded.starts_with(":MII") && full.encoded.ends_with(":"));
  for (const char* odd :
       {"URI:https://example.org/a", "URI:spiffe://example.org/a,URI:spiffe://example.org/b",
        "URI:spiffe://example.org:80/a", "URI:spiffe://Example.org/a", "URI:spiffe://example.org/a/../b",
        "URI:spiffe://example.org//a", "URI:spiffe://example.org/", "URI:spiffe:///a", "URI:spiffe://example.org/a?b",
        "URI:spiffe://u@example.org/a", "DNS:a.test"}) {
    EXPECT_EQ(named({.alternatives = odd}).spiffe, "") << odd;
  }
  EXPECT_EQ(named({.alternatives = "URI:spiffe://example.org"}).spiffe, "spiffe://example.org");
  EXPECT_EQ(named({.common_name = "\xc3\xa9"}).common_name, "") << "not visible ASCII";
  EXPECT_EQ(named({.common_name = "\xc3\xa9"}).subject, "CN=\\C3\\A9");
}

TEST(TlsClients, OfAnOpenConnectionAreJudgedByNewerRules) {
  const TlsIdentity identity = root().issue({});
  const auto judged = [&](const TlsIdentity* shown, const TlsClientRules& before, const TlsClientRules& after) {
    AskedClient client(shown);
    const auto later = asking(after);
    const AskedClient::Seen seen = client.connect(asking(before), later.get());
    EXPECT_TRUE(seen.up);
    return seen.judged;
  };
  EXPECT_EQ(judged(&identity, required(), required(root().revokes({}))), Fault::none);
  EXPECT_EQ(judged(&identity, required(), required(root().revokes({7}))), Fault::revoked);
  EXPECT_EQ(judged(&identity, required(), {foreign().pem(), "", false}), Fault::unknown_authority);
  EXPECT_EQ(judged(nullptr, {}, required()), Fault::missing);
  EXPECT_EQ(judged(nullptr, {}, optional()), Fault::none);
  EXPECT_EQ(judged(&identity, required(), {}), Fault::none);
  const MadeAuthority middle = root().below("middle", 50);
  const TlsIdentity below = middle.issue({});
  EXPECT_EQ(judged(&below, required(), required(root().revokes({}) + middle.revokes({}))), Fault::none);
}

class ClientResumption : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override { test_clock_s = static_cast<int64_t>(::time(nullptr)); }
  const TlsIdentity identity_ = root().issue({.alternatives = "URI:spiffe://example.org/a"});
};

TEST_P(ClientResumption, KeepsTheCertificate) {
  AskedClient client(&identity_, GetParam());
  const TlsClientRules rules = required(root().revokes({}));
  EXPECT_FALSE(client.connect(asking(rules)).resumed);
  for (int i = 0; i < 3; ++i) {
    const AskedClient::Seen seen = client.connect(asking(rules));  // another worker or proxy with the same rules
    EXPECT_TRUE(seen.resumed);
    ASSERT_NE(seen.certificate, nullptr);
    EXPECT_EQ(seen.certificate->spiffe, "spiffe://example.org/a");
  }
}

// Each pair: the rules under which the ticket was issued, and the rules when it is shown.
TEST_P(ClientResumption, IsNeverByATicketOfOtherRules) {
  const std::string list = root().revokes({}), newer = root().revokes({1000});
  const std::pair<TlsClientRules, TlsClientRules> kPairs[] = {
      {{}, required()},
      {{}, optional()},
      {optional(), required()},
      {required(), optional()},
      {required(), {}},
      {required(), required(list)},
      {required(list), required(newer)},
      {required(), {root().pem() + foreign().pem(), "", false}},
  };
  for (const auto& [before, after] : kPairs) {
    AskedClient client(&identity_, GetParam());
    ASSERT_TRUE(client.connect(asking(before)).up);
    ASSERT_TRUE(client.connect(asking(before)).resumed);
    const AskedClient::Seen seen = client.connect(asking(after));
    EXPECT_TRUE(seen.up) << "a full handshake follows";
    EXPECT_FALSE(seen.resumed);
  }
  AskedClient revoked(&identity_, GetParam());
  ASSERT_TRUE(revoked.connect(asking(required(list))).up);
  EXPECT_EQ(revoked.connect(asking(required(root().revokes({7})))).fault, Fault::revoked);
  AskedClient bare(nullptr, GetParam());
  ASSERT_TRUE(bare.connect(asking({})).up);
  EXPECT_EQ(bare.connect(asking(required())).fault, Fault::missing);
}

TEST_P(ClientResumption, EndsWithTheFirstCertificateOfTheChain) {
  for (const bool of_list : {false, true}) {
    const TlsClientRules rules = of_list ? required(root().revokes({}, 600)) : required();
    const TlsIdentity identity = root().issue({.ends_in_s = of_list ? 3600 : 600});
    AskedClient client(&identity, GetParam());
    ASSERT_TRUE(client.connect(asking(rules)).up);
    test_clock_s += 590;
    EXPECT_TRUE(client.connect(asking(rules)).resumed);
    test_clock_s += 20;
    const AskedClient::Seen seen = client.connect(asking(rules));
    EXPECT_FALSE(seen.resumed) << "also with a ticket that was renewed";
    EXPECT_TRUE(seen.up) << "the certificate itself is judged by the real clock";
    SetUp();
  }
}

INSTANTIATE_TEST_SUITE_P(BothVersions, ClientResumption, ::testing::Values(TLS1_2_VERSION, TLS1_3_VERSION),
                         [](const auto& instance) { return instance.param == TLS1_2_VERSION ? "Tls12" : "Tls13"; });

}  // namespace tidegate::tls_clients_test
