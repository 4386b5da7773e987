// SPDX-License-Identifier: Apache-2.0
// Facts about the certificate of a TLS peer.
#pragma once

#include <cstdint>
#include <optional>

namespace tidegate {

class TlsStream;

// When the peer's certificate ends, in epoch seconds. Nothing before the handshake is complete.
std::optional<int64_t> peer_not_after_s(const TlsStream& stream);

}  // namespace tidegate
