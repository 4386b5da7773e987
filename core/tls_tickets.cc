// SPDX-License-Identifier: Apache-2.0
// Session tickets (RFC 5077 §4, used by TLS 1.2 and 1.3) with keys that every host of a site derives itself.
#include <openssl/core_names.h>
#include <openssl/rand.h>

#include <algorithm>
#include <cassert>
#include <charconv>
#include <cstring>
#include <string>

#include "core/clock.h"
#include "core/crypto.h"
#include "core/tls_openssl.h"

namespace tidegate {

int64_t TicketKeys::wall_clock_s() { return static_cast<int64_t>(realtime_ns() / kNsPerS); }

TicketKeys::Key TicketKeys::at(int64_t epoch_s) const {
  const std::string info = "tidegate tls ticket key " + std::to_string(epoch_s / kWindowS);
  Key key;
  const std::string bytes = hkdf_sha256(secret_, info, key.name.size() + key.aes.size() + key.hmac.size());
  const char* at = bytes.data();
  std::memcpy(key.name.data(), at, key.name.size());
  std::memcpy(key.aes.data(), at += key.name.size(), key.aes.size());
  std::memcpy(key.hmac.data(), at + key.aes.size(), key.hmac.size());
  return key;
}

void TicketRing::turn_to(int64_t epoch_s) {
  const int64_t window = epoch_s / TicketKeys::kWindowS;
  if (window == window_) return;
  window_ = window;
  previous_ = keys_->at(epoch_s - TicketKeys::kWindowS);
  current_ = keys_->at(epoch_s);
  next_ = keys_->at(epoch_s + TicketKeys::kWindowS);
}

void TicketRing::serve(SSL_CTX* context) {
  SSL_CTX_set_app_data(context, this);
  SSL_CTX_set_tlsext_ticket_key_evp_cb(context, &TicketRing::on_ticket);
}

void TicketRing::bind_to_certificates(SSL_CTX* context, int64_t revocations_until_s) {
  revocations_until_s_ = revocations_until_s;
  SSL_CTX_set_session_ticket_cb(context, &TicketRing::on_new_ticket, &TicketRing::on_old_ticket, this);
}

// A session has only the client's own certificate, not those of its authorities. So the moment at which the first of
// the chain ends is written into the ticket, and stays there when the ticket is renewed.
int TicketRing::on_new_ticket(SSL* ssl, void*) {
  if (SSL_session_reused(ssl) == 1) return 1;
  const STACK_OF(X509)* const chain = SSL_get0_verified_chain(ssl);
  if (chain == nullptr) return 1;  // it has shown none
  int64_t until_s = INT64_MAX;
  for (int i = 0; i < sk_X509_num(chain); ++i) {
    until_s = std::min(until_s, epoch_of(X509_get0_notAfter(sk_X509_value(chain, i))));
  }
  const std::string text = std::to_string(until_s);
  return SSL_SESSION_set1_ticket_appdata(SSL_get_session(ssl), text.data(), text.size());
}

SSL_TICKET_RETURN TicketRing::on_old_ticket(SSL*, SSL_SESSION* session, const unsigned char*, size_t,
                                            SSL_TICKET_STATUS status, void* ring) {
  if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW) return SSL_TICKET_RETURN_IGNORE_RENEW;
  if (SSL_SESSION_get0_peer(session) != nullptr) {
    const auto& self = *static_cast<const TicketRing*>(ring);
    void* data = nullptr;
    size_t bytes = 0;
    int64_t until_s = 0;  // a time that cannot be read counts as past
    if (SSL_SESSION_get0_ticket_appdata(session, &data, &bytes) == 1 && data != nullptr) {
      const char* const text = static_cast<const char*>(data);
      if (std::from_chars(text, text + bytes, until_s).ec != std::errc()) until_s = 0;
    }
    if (self.keys_->now_s() >= std::min(until_s, self.revocations_until_s_)) return SSL_TICKET_RETURN_IGNORE_RENEW;
  }
  return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

// Return values of SSL_CTX_set_tlsext_ticket_key_evp_cb(3): negative is an error, 0 is an unknown key (a full handshake
// follows), 1 accepts, 2 accepts and renews.
int TicketRing::on_ticket(SSL* ssl, unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher, EVP_MAC_CTX* mac,
                          int encrypt) {
  auto* ring = static_cast<TicketRing*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
  ring->turn_to(ring->keys_->now_s());
  const TicketKeys::Key* key = nullptr;
  if (encrypt != 0) {
    key = &ring->current_;
    std::memcpy(name, key->name.data(), key->name.size());
    if (RAND_bytes(iv, EVP_MAX_IV_LENGTH) != 1) return -1;
  } else {
    // The key of the next window is accepted too: another host's clock may be a little ahead.
    for (const TicketKeys::Key* candidate : {&ring->current_, &ring->previous_, &ring->next_}) {
      if (key == nullptr && std::memcmp(name, candidate->name.data(), candidate->name.size()) == 0) key = candidate;
    }
    if (key == nullptr) return 0;
  }
  // Fetched once per process, because OpenSSL 3 looks EVP_aes_256_cbc() up again at each use.
  static EVP_CIPHER* const aes = EVP_CIPHER_fetch(nullptr, "AES-256-CBC", nullptr);
  TicketKeys::Key used = *key;  // a copy, because OpenSSL's parameters are not const
  char digest[] = "SHA256";
  const OSSL_PARAM params[] = {
      OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, used.hmac.data(), used.hmac.size()),
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_end(),
  };
  const bool ready = EVP_MAC_CTX_set_params(mac, params) == 1 &&
                     EVP_CipherInit_ex(cipher, aes, nullptr, used.aes.data(), iv, encrypt) == 1;
  OPENSSL_cleanse(&used, sizeof used);
  if (!ready) return -1;
  // A TLS 1.3 client uses a ticket only once (RFC 8446 §C.4), so each resumption brings the next one.
  const bool renews = encrypt == 0 && (key == &ring->previous_ || SSL_version(ssl) == TLS1_3_VERSION);
  return renews ? 2 : 1;
}

}  // namespace tidegate
