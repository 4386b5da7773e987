// SPDX-License-Identifier: Apache-2.0
#include "core/tls_acme.h"

#include <cstring>

#include "core/tls_openssl.h"

namespace tidegate {
namespace {

// RFC 8737 §3: the client's list has only this protocol.
bool offers_acme_alone(SSL* ssl) {
  const unsigned char* list = nullptr;
  size_t bytes = 0;
  constexpr size_t kHead = 3;  // the length of the list, and that of its protocol
  if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &list, &bytes) != 1)
    return false;
  return bytes == kHead + kAcmeTlsProtocol.size() && list[0] == 0 && list[1] == kAcmeTlsProtocol.size() + 1 &&
         list[2] == kAcmeTlsProtocol.size() &&
         std::memcmp(list + kHead, kAcmeTlsProtocol.data(), kAcmeTlsProtocol.size()) == 0;
}

int on_client_hello(SSL* ssl, int*, void* acme) {
  if (!offers_acme_alone(ssl)) return SSL_CLIENT_HELLO_SUCCESS;
  // Tickets belong to the context that the connection began with: such a connection neither takes nor gives any.
  SSL_set_options(ssl, SSL_OP_NO_TICKET);
  SSL_set_num_tickets(ssl, 0);
  SSL_set_verify(ssl, SSL_VERIFY_NONE, nullptr);  // an authority has no certificate of ours
  SSL_set_SSL_CTX(ssl, static_cast<SSL_CTX*>(acme));
  return SSL_CLIENT_HELLO_SUCCESS;
}

}  // namespace

std::shared_ptr<TlsContext> with_acme(std::shared_ptr<TlsContext> own, std::shared_ptr<TlsContext> acme) {
  SSL_CTX_set_client_hello_cb(own->get(), on_client_hello, acme->get());
  TlsContext* const context = own.get();
  const auto both = std::make_shared<std::pair<std::shared_ptr<TlsContext>, std::shared_ptr<TlsContext>>>(
      std::move(own), std::move(acme));
  return {both, context};
}

}  // namespace tidegate
