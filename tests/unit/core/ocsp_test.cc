// SPDX-License-Identifier: Apache-2.0
// The question to an authority about a certificate, the check of its answer, and how a server shows it.
#include "core/ocsp.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/metrics.h"
#include "made_ocsp.h"

namespace tidegate::ocsp_test {

using ::testing::HasSubstr;

int64_t now_s() { return static_cast<int64_t>(std::time(nullptr)); }

// A root, an authority below it, and a certificate of a server.
struct World {
  MadeAuthority root{"root"};
  MadeAuthority authority = root.below("authority", 2);
  std::string chain =
      authority.issue({.common_name = "www", .alternatives = "DNS:a.test", .purpose = "serverAuth", .serial = 9})
          .certificate_pem;

  OcspJudgement judge(const std::string& answer, int64_t at_s = now_s()) const {
    return judge_ocsp(chain, answer, at_s);
  }
  OcspVerdict verdict(const std::string& answer) const { return judge(answer).verdict; }
};

const World& world() {
  static const World made;
  return made;
}

TEST(OcspFactsOfAChain, AreTheResponderTheNeedOfAStapleAndTheIssuer) {
  const TlsIdentity told =
      world().authority.issue({.alternatives = "DNS:a.test", .responder = "http://ocsp.test/ask", .must_staple = true});
  const OcspFacts facts = ocsp_facts(told.certificate_pem).value();
  EXPECT_EQ(facts.responder, "http://ocsp.test/ask");
  EXPECT_TRUE(facts.must_staple);
  EXPECT_TRUE(facts.has_issuer);
  const OcspFacts plain = ocsp_facts(world().chain).value();
  EXPECT_EQ(plain.responder, "");
  EXPECT_FALSE(plain.must_staple);
  const TlsIdentity by_root = world().root.issue({.responder = "ldap://ocsp.test"});
  EXPECT_FALSE(ocsp_facts(by_root.certificate_pem)->has_issuer) << "the root is not in the file";
  EXPECT_EQ(ocsp_facts(by_root.certificate_pem)->responder, "") << "a scheme that nobody asks";
  EXPECT_TRUE(ocsp_facts(by_root.certificate_pem + world().root.pem())->has_issuer);
  EXPECT_FALSE(ocsp_facts("nothing"));
}

TEST(OcspQuestion, IsTheOneThatOpensslReads) {
  const std::string question = ocsp_question(world().chain).value();
  const auto* at = reinterpret_cast<const unsigned char*>(question.data());
  OCSP_REQUEST* const request = d2i_OCSP_REQUEST(nullptr, &at, static_cast<long>(question.size()));
  ASSERT_NE(request, nullptr);
  ASSERT_EQ(OCSP_request_onereq_count(request), 1);
  ASN1_INTEGER* serial = nullptr;
  OCSP_id_get0_info(nullptr, nullptr, nullptr, &serial, OCSP_onereq_get0_id(OCSP_request_onereq_get0(request, 0)));
  EXPECT_EQ(ASN1_INTEGER_get(serial), 9);
  EXPECT_LT(OCSP_REQUEST_get_ext_by_NID(request, NID_id_pkix_OCSP_Nonce, -1), 0);
  OCSP_REQUEST_free(request);
  EXPECT_THAT(ocsp_question(world().root.issue({}).certificate_pem).error().message, HasSubstr("issuer"));
}

TEST(OcspAnswer, IsGoodIfTheIssuerOrWhomItNamedSignedIt) {
  const World& w = world();
  const OcspJudgement own = w.judge(make_ocsp_answer(w.authority.identity(), w.chain));
  EXPECT_EQ(own.verdict, OcspVerdict::good) << own.why;
  EXPECT_EQ(own.why, "");
  EXPECT_EQ(own.next_update_s - own.this_update_s, 3'660);
  const TlsIdentity named = w.authority.issue({.common_name = "responder", .purpose = "OCSPSigning", .serial = 20});
  EXPECT_EQ(w.verdict(make_ocsp_answer(named, w.chain)), OcspVerdict::good);
}

TEST(OcspAnswer, IsNotGoodIfAnybodyElseSignedIt) {
  const World& w = world();
  const MadeAuthority other("authority");  // with the same name
  EXPECT_EQ(w.verdict(make_ocsp_answer(other.identity(), w.chain)), OcspVerdict::wrong_signature);
  const TlsIdentity server = w.authority.issue({.common_name = "shop", .purpose = "serverAuth", .serial = 21});
  EXPECT_EQ(w.verdict(make_ocsp_answer(server, w.chain)), OcspVerdict::wrong_signature) << "not named for that";
  const TlsIdentity of_root = w.root.issue({.common_name = "above", .purpose = "OCSPSigning", .serial = 22});
  EXPECT_EQ(w.verdict(make_ocsp_answer(of_root, w.chain)), OcspVerdict::wrong_signature) << "another issuer named it";
  const TlsIdentity ended = w.authority.issue(
      {.common_name = "old", .purpose = "OCSPSigning", .serial = 23, .ends_in_s = -10, .begins_in_s = -7200});
  EXPECT_EQ(w.verdict(make_ocsp_answer(ended, w.chain)), OcspVerdict::wrong_signature) << "its certificate has ended";
}

TEST(OcspAnswer, SaysWhyItIsNotGood) {
  const World& w = world();
  const auto judged = [&](const OcspTerms& terms) {
    return w.judge(make_ocsp_answer(w.authority.identity(), w.chain, terms));
  };
  const OcspJudgement revoked = judged({.status = V_OCSP_CERTSTATUS_REVOKED});
  EXPECT_EQ(revoked.verdict, OcspVerdict::revoked);
  EXPECT_THAT(revoked.why, HasSubstr("keyCompromise"));
  EXPECT_GT(revoked.next_update_s, now_s());
  EXPECT_EQ(judged({.status = V_OCSP_CERTSTATUS_UNKNOWN}).verdict, OcspVerdict::unknown);
  EXPECT_THAT(judged({.begins_in_s = -3'600, .ends_in_s = -1}).why, HasSubstr("held until"));
  EXPECT_THAT(judged({.begins_in_s = 1'000}).why, HasSubstr("clock"));
  EXPECT_EQ(judged({.begins_in_s = 200}).verdict, OcspVerdict::good) << "clocks may differ a little";
  EXPECT_THAT(judged({.has_end = false}).why, HasSubstr("how long"));
  EXPECT_THAT(judged({.begins_in_s = 250, .ends_in_s = 200}).why, HasSubstr("before it begins"));
  for (const OcspTerms& outdated : {OcspTerms{.ends_in_s = -1}, OcspTerms{.has_end = false}}) {
    EXPECT_EQ(judged(outdated).verdict, OcspVerdict::outdated);
  }
  const std::string neighbour = w.authority.issue({.serial = 10}).certificate_pem;
  EXPECT_EQ(w.verdict(make_ocsp_answer(w.authority.identity(), neighbour)), OcspVerdict::other_certificate);
  // RFC 6960 §4.2.1: responseStatus tryLater, and nothing else.
  EXPECT_EQ(w.verdict(std::string("\x30\x03\x0a\x01\x03", 5)), OcspVerdict::refused);
  EXPECT_EQ(w.verdict(std::string("\x30\x03\x0a\x01\x00", 5)), OcspVerdict::malformed) << "successful, but no answer";
}

TEST(OcspAnswer, IsNeverGoodIfABitOrAnEndIsMissing) {
  const World& w = world();
  const std::string good = make_ocsp_answer(w.authority.identity(), w.chain);
  ASSERT_EQ(w.verdict(good), OcspVerdict::good);
  for (size_t bytes = 0; bytes < good.size(); ++bytes) {
    EXPECT_EQ(w.verdict(good.substr(0, bytes)), OcspVerdict::malformed) << bytes;
  }
  EXPECT_EQ(w.verdict(good + "x"), OcspVerdict::malformed);
  EXPECT_EQ(w.verdict(std::string(100'000, 'x')), OcspVerdict::malformed);
  // The signer's certificate comes with the answer and is not needed here, so bits after the signature do not matter.
  const size_t signed_bytes = good.size() / 3;
  for (size_t at = 0; at < signed_bytes; ++at) {
    std::string changed = good;
    changed[at] = static_cast<char>(changed[at] ^ (1 << (at % 8)));
    EXPECT_NE(w.verdict(changed), OcspVerdict::good) << "byte " << at;
  }
}

// Runs a handshake in memory. Returns what the client was shown; "none" if nothing.
std::string shown_to_client(const std::shared_ptr<TlsContext>& server, const std::string& name, bool asks = true,
                            int version = TLS1_3_VERSION) {
  SSL_CTX* const client_context = SSL_CTX_new(TLS_client_method());
  SSL* const client = SSL_new(client_context);
  SSL* const own = SSL_new(server->get());
  SSL_set_max_proto_version(client, version);
  SSL_set_tlsext_host_name(client, name.c_str());
  if (asks) SSL_set_tlsext_status_type(client, TLSEXT_STATUSTYPE_ocsp);
  BIO *one = nullptr, *other = nullptr;
  BIO_new_bio_pair(&one, 0, &other, 0);
  SSL_set_bio(client, one, one);
  SSL_set_bio(own, other, other);
  SSL_set_connect_state(client);
  SSL_set_accept_state(own);
  for (int i = 0; i < 10; ++i) {
    SSL_do_handshake(client);
    SSL_do_handshake(own);
  }
  EXPECT_TRUE(SSL_is_init_finished(client));
  const unsigned char* bytes = nullptr;
  const long length = SSL_get_tlsext_status_ocsp_resp(client, &bytes);
  std::string shown =
      length < 0 ? "none" : std::string(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
  SSL_free(client);
  SSL_free(own);
  SSL_CTX_free(client_context);
  ERR_clear_error();
  return shown;
}

uint64_t staples_counted(const std::string& result) {
  const std::string line = "tidegate_tls_staples_total{result=\"" + result + "\"} ";
  const std::string text = metrics().prometheus_text();
  const size_t at = text.find(line);
  return at == std::string::npos ? 0 : std::stoull(text.substr(at + line.size()));
}

TEST(StapleOfAServer, IsShownWithItsCertificateToClientsThatAskUntilItEnds) {
  const auto a = ServerIdentity::load(make_identity("a", "DNS:a.test")).value();
  const auto b = ServerIdentity::load(make_identity("b", "DNS:b.test")).value();
  TlsServerOptions options;
  options.loaded = {a, b};
  const auto server = TlsContext::server(options).value();
  EXPECT_EQ(shown_to_client(server, "a.test"), "none");
  a->set_staple(std::make_shared<const Staple>(Staple{"answer a", now_s() + 60}));
  b->set_staple(std::make_shared<const Staple>(Staple{"answer b", now_s() + 60}));
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    EXPECT_EQ(shown_to_client(server, "a.test", true, version), "answer a");
    EXPECT_EQ(shown_to_client(server, "b.test", true, version), "answer b");
    EXPECT_EQ(shown_to_client(server, "other.test", true, version), "answer a") << "of the certificate by default";
    EXPECT_EQ(shown_to_client(server, "a.test", false, version), "none");
  }
  const uint64_t ended_before = staples_counted("ended");
  a->set_staple(std::make_shared<const Staple>(Staple{"answer a", now_s()}));
  EXPECT_EQ(shown_to_client(server, "a.test"), "none") << "it has ended";
  EXPECT_EQ(shown_to_client(server, "b.test"), "answer b");
  b->set_staple(nullptr);
  EXPECT_EQ(shown_to_client(server, "b.test"), "none");
  EXPECT_EQ(staples_counted("ended") - ended_before, 1u);
}

}  // namespace tidegate::ocsp_test
