// SPDX-License-Identifier: Apache-2.0
// tls-alpn-01 (RFC 8737): a certificate authority connects with the one protocol "acme-tls/1" and looks at the
// certificate that it is shown.
#pragma once

#include <memory>
#include <string_view>

#include "core/tls.h"

namespace tidegate {

constexpr std::string_view kAcmeTlsProtocol = "acme-tls/1";

// `own` as before, but a client that offers kAcmeTlsProtocol alone gets a handshake of `acme`, which is a server
// context for that protocol. The result keeps both alive. `own` is changed: it is served by its result only.
std::shared_ptr<TlsContext> with_acme(std::shared_ptr<TlsContext> own, std::shared_ptr<TlsContext> acme);

}  // namespace tidegate
