// SPDX-License-Identifier: Apache-2.0
#include "core/tls_trial.h"

#include <gtest/gtest.h>

#include "core/tls_clients.h"
#include "tests/unit/core/made_identity.h"

namespace tidegate::tls_trial_test {

std::shared_ptr<const ServerIdentity> loaded(const TlsIdentity& identity) { return *ServerIdentity::load(identity); }

std::shared_ptr<const ServerIdentity> of_curve(const char* curve) {
  return loaded(make_identity_of(EVP_EC_gen(curve), "a.test"));
}

Result<void> tried(const std::shared_ptr<const ServerIdentity>& identity, const std::string& min_version = "1.2",
                   std::shared_ptr<const TlsClientRules> clients = nullptr) {
  TlsServerOptions options;
  options.loaded = {identity};
  options.min_version = min_version;
  options.alpn = {"h2", "http/1.1"};
  options.clients = std::move(clients);
  const auto context = TlsContext::server(options);
  return context ? try_handshake(**context) : context.error();
}

TEST(TlsTrial, TakesEachKeyThatSomeClientTakes) {
  for (const char* version : {"1.2", "1.3"}) {
    EXPECT_TRUE(tried(loaded(make_identity("a.test")), version));
    EXPECT_TRUE(tried(loaded(make_identity("a.test", {}, true)), version));
    EXPECT_TRUE(tried(of_curve("P-384"), version));
    EXPECT_TRUE(tried(of_curve("P-521"), version));
    EXPECT_TRUE(tried(loaded(make_identity_of(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"), "a.test")), version));
    EXPECT_TRUE(tried(loaded(make_identity_of(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED448"), "a.test")), version));
  }
  EXPECT_TRUE(tried(of_curve("brainpoolP256r1"))) << "some clients of TLS 1.2 know the curve";
}

TEST(TlsTrial, TellsThatNoClientTakesAKey) {
  const std::shared_ptr<const ServerIdentity> dsa = loaded(make_identity_of(make_dsa_key(), "a.test"));
  EXPECT_EQ(trial_facts(*dsa).key, "DSA 2048");
  ASSERT_FALSE(tried(dsa));
  EXPECT_EQ(tried(dsa).error().message, "no suitable signature algorithm");
  EXPECT_EQ(trial_facts(*of_curve("brainpoolP256r1")).key, "EC brainpoolP256r1");
  EXPECT_FALSE(tried(of_curve("brainpoolP256r1"), "1.3")) << "TLS 1.3 has no signatures of this curve";
  EXPECT_FALSE(tried(of_curve("secp256k1"), "1.3"));
}

TEST(TlsTrial, ClientsThatMustShowACertificateAreNoFault) {
  const std::string authority = make_identity("authority").certificate_pem;
  const std::shared_ptr<const ServerIdentity> own = loaded(make_identity("a.test"));
  for (const bool optional : {true, false}) {
    const TlsClientRules rules{authority, {}, optional};
    EXPECT_TRUE(tried(own, "1.2", std::make_shared<const TlsClientRules>(rules)));
    EXPECT_TRUE(tried(own, "1.3", std::make_shared<const TlsClientRules>(rules)));
  }
  std::string crowd;
  for (size_t i = 0; i < 8; ++i) crowd += make_identity_with_long_subject(i).certificate_pem;
  EXPECT_FALSE(tried(own, "1.2", std::make_shared<const TlsClientRules>(TlsClientRules{crowd, {}, true})))
      << "the names of the authorities do not fit into the message that asks for a certificate";
}

}  // namespace tidegate::tls_trial_test
