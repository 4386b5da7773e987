// SPDX-License-Identifier: Apache-2.0
#include "core/tls_trial.h"

#include <algorithm>
#include <array>
#include <string>

#include "core/tls_context.h"

namespace tidegate {
namespace {

using SslPtr = std::unique_ptr<SSL, OpensslFree<SSL_free>>;

// All groups that any client may know. So a handshake fails only if it would fail with every client.
constexpr char kTrialGroups[] =
    "X25519:P-256:P-384:P-521:X448:brainpoolP256r1:brainpoolP384r1:brainpoolP512r1:P-224:secp256k1";
constexpr int kMostTurns = 16;  // a handshake has three or four

struct End {
  SslPtr ssl;
  bool done = false;

  // Returns false after an error, which is then in OpenSSL's queue.
  bool go_on() {
    if (done) return true;
    const int rc = SSL_do_handshake(ssl.get());
    done = rc == 1;
    return done || SSL_get_error(ssl.get(), rc) == SSL_ERROR_WANT_READ;
  }
};

void connect_in_memory(SSL* client, SSL* server) {
  std::array<BIO*, 2> ways{BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem())};  // to the server, to the client
  for (BIO* const way : ways) {
    BIO_set_mem_eof_return(way, -1);  // an empty one may get more
    BIO_up_ref(way);
  }
  SSL_set_bio(client, ways[1], ways[0]);
  SSL_set_bio(server, ways[0], ways[1]);
  SSL_set_connect_state(client);
  SSL_set_accept_state(server);
}

SslCtxPtr make_client(const std::string& alpn, int newest_version) {
  SslCtxPtr context(SSL_CTX_new(TLS_client_method()));
  if (!context || SSL_CTX_set1_groups_list(context.get(), kTrialGroups) != 1) return nullptr;
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_NONE, nullptr);
  SSL_CTX_set_max_proto_version(context.get(), newest_version);
  if (!alpn.empty()) {  // this function returns 0 on success
    SSL_CTX_set_alpn_protos(context.get(), reinterpret_cast<const unsigned char*>(alpn.data()),
                            static_cast<unsigned>(alpn.size()));
  }
  return context;
}

Result<void> connect(const TlsContext& server, int newest_version) {
  ERR_clear_error();
  const SslCtxPtr context = make_client(server.impl().alpn, newest_version);
  if (!context) return fail("no client could be made: " + take_openssl_error());
  End client{SslPtr(SSL_new(context.get()))}, own{SslPtr(SSL_new(server.get()))};
  connect_in_memory(client.ssl.get(), own.ssl.get());
  for (int turn = 0; turn < kMostTurns && !(client.done && own.done); ++turn) {
    const bool moved = client.go_on() && own.go_on();
    if (moved) continue;
    const bool lacks_certificate = ERR_GET_REASON(ERR_peek_error()) == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE;
    if (lacks_certificate) {
      ERR_clear_error();
      return {};
    }
    return fail(take_openssl_error());
  }
  if (!client.done || !own.done) return fail("it does not come to an end");
  return {};
}

}  // namespace

// OpenSSL speaks TLS 1.3 with whoever knows it, also if the certificate is one for TLS 1.2 alone.
Result<void> try_handshake(const TlsContext& server) {
  Result<void> tried = connect(server, TLS1_3_VERSION);
  return tried || connect(server, TLS1_2_VERSION) ? Result<void>() : tried;
}

TrialFacts trial_facts(const ServerIdentity& identity) {
  const LoadedIdentity& loaded = identity.impl().loaded;
  EVP_PKEY* const key = loaded.key.get();
  TrialFacts facts;
  const char* const type = EVP_PKEY_get0_type_name(key);
  facts.key = type == nullptr ? "unknown" : type;
  std::array<char, 64> group{};
  if (EVP_PKEY_get_group_name(key, group.data(), group.size(), nullptr) == 1) {
    facts.key += std::string(" ") + group.data();
  } else {
    facts.key += " " + std::to_string(EVP_PKEY_get_bits(key));
  }
  ERR_clear_error();
  facts.chain_bytes = static_cast<size_t>(std::max(0, i2d_X509(loaded.certificate.get(), nullptr)));
  for (int i = 0; i < sk_X509_num(loaded.intermediates.get()); ++i) {
    facts.chain_bytes +=
        static_cast<size_t>(std::max(0, i2d_X509(sk_X509_value(loaded.intermediates.get(), i), nullptr)));
  }
  return facts;
}

}  // namespace tidegate
