// SPDX-License-Identifier: Apache-2.0
// tls-alpn-01 (RFC 8737): a certificate authority connects with the one protocol "acme-tls/1" and looks at the
// certificate that it is shown.
#pragma once

#include <memory>
#include <string_view>

#include "core/tls.h"

namespace tidegate {

constexpr std::string_view kAcmeTlsProtocol = "acme-tls/1";

// Returns a context that serves like `own`, except that a client which offers only kAcmeTlsProtocol gets a handshake of
// `acme`, a server context for that protocol. The result keeps both alive. `own` is changed: use only the result to
// serve it.
std::shared_ptr<TlsContext> with_acme(std::shared_ptr<TlsContext> own, std::shared_ptr<TlsContext> acme);

}  // namespace tidegate
