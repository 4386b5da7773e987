// SPDX-License-Identifier: Apache-2.0
// The implementation of TlsContext. Only for core/tls*.cc.
#pragma once

#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/tls_openssl.h"

namespace tidegate {

struct TlsContext::Impl {
  Result<void> take_identities(const TlsServerOptions& options);
  std::vector<size_t> identities_for(std::string_view server_name) const;
  static int choose_certificate(SSL* ssl, void* self);

  // Declared before the context, because its callbacks point to them.
  std::vector<std::shared_ptr<const ServerIdentity>> identities;
  std::unordered_map<std::string, std::vector<size_t>> by_name;  // indices into identities
  std::vector<size_t> fallback;
  std::string alpn;  // our protocols in wire format
  std::optional<TicketRing> tickets;
  bool verifies = false;
  SslCtxPtr context;
};

}  // namespace tidegate
