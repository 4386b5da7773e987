// SPDX-License-Identifier: Apache-2.0
// RAII types for OpenSSL's handles, and what core/tls*.cc share. Only for core/tls*.cc.
#pragma once

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string>
#include <vector>

#include "core/result.h"
#include "core/tls.h"

namespace tidegate {

template <auto kFree>
struct OpensslFree {
  template <class T>
  void operator()(T* handle) const {
    kFree(handle);
  }
};
inline void free_x509_stack(STACK_OF(X509) * chain) { sk_X509_pop_free(chain, X509_free); }

using BioPtr = std::unique_ptr<BIO, OpensslFree<BIO_free_all>>;
using X509Ptr = std::unique_ptr<X509, OpensslFree<X509_free>>;
using X509StackPtr = std::unique_ptr<STACK_OF(X509), OpensslFree<free_x509_stack>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, OpensslFree<EVP_PKEY_free>>;
using SslCtxPtr = std::unique_ptr<SSL_CTX, OpensslFree<SSL_CTX_free>>;

// Returns the oldest entry of this thread's error queue as text, and empties the queue.
std::string take_openssl_error();

// A certificate with its chain and key, parsed and verified to belong together.
struct LoadedIdentity {
  X509Ptr certificate;
  X509StackPtr intermediates;
  KeyPtr key;
};
struct ServerIdentity::Impl {
  LoadedIdentity loaded;
  std::vector<std::string> names;                // CertificateInfo::names
  mutable std::shared_ptr<const Staple> staple;  // belongs to the contexts' thread
};
Result<LoadedIdentity> load_identity(const TlsIdentity& identity);
CertificateInfo describe_certificate(X509* certificate);
Result<X509StackPtr> parse_certificates(const std::string& pem);
int64_t epoch_of(const ASN1_TIME* time);  // 0: it cannot be read

SSL* ssl_of(const TlsStream& stream);  // borrowed
// True if the handshake failed because the peer has shown no certificate.
bool showed_no_certificate(const TlsStream& stream);

// The keys with which a server context issues and accepts tickets, kept for the window they were made for. One thread.
class TicketRing {
 public:
  explicit TicketRing(std::shared_ptr<const TicketKeys> keys) : keys_(std::move(keys)) {}
  // Makes `context` issue and accept tickets with this ring, which must outlive it.
  void serve(SSL_CTX* context);
  // Also, a ticket is accepted only while the certificates that its client has shown are valid, and until
  // `revocations_until_s` (epoch). Afterwards a full handshake follows.
  void bind_to_certificates(SSL_CTX* context, int64_t revocations_until_s);

 private:
  static int on_new_ticket(SSL* ssl, void* ring);
  static SSL_TICKET_RETURN on_old_ticket(SSL* ssl, SSL_SESSION* session, const unsigned char* name, size_t name_bytes,
                                         SSL_TICKET_STATUS status, void* ring);
  static int on_ticket(SSL* ssl, unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher, EVP_MAC_CTX* mac,
                       int encrypt);
  void turn_to(int64_t epoch_s);

  std::shared_ptr<const TicketKeys> keys_;
  int64_t window_ = -1;
  int64_t revocations_until_s_ = INT64_MAX;
  TicketKeys::Key previous_{}, current_{}, next_{};
};

}  // namespace tidegate
