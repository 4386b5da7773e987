// SPDX-License-Identifier: Apache-2.0
// The implementation of TlsContext. Only for core/tls*.cc.
#pragma once

#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/tls_clients.h"
#include "core/tls_openssl.h"

namespace tidegate {

struct TlsContext::Impl {
  Result<void> take_identities(const TlsServerOptions& options);
  std::vector<size_t> identities_for(std::string_view server_name) const;
  static int choose_certificate(SSL* ssl, void* self);
  void show_staples();
  static int choose_staple(SSL* ssl, void* self);

  // Declared before the context, because its callbacks point to them.
  std::vector<std::shared_ptr<const ServerIdentity>> identities;
  std::unordered_map<std::string, std::vector<size_t>> by_name;  // indices into identities
  std::unordered_map<const X509*, const ServerIdentity*> by_certificate;
  std::vector<size_t> fallback;
  std::string alpn;  // our protocols in wire format
  std::optional<TicketRing> tickets;
  bool verifies = false;
  std::string client_rules;  // a digest of TlsClientRules; empty: clients are not asked for a certificate
  SslCtxPtr context;
};

// Makes a server's context ask its clients for certificates, after its session id context is set. Returns when the
// first of the revocation lists ends, epoch; INT64_MAX: there is none. In core/tls_clients.cc.
Result<int64_t> ask_clients(TlsContext::Impl& server, const TlsClientRules& rules);

}  // namespace tidegate
