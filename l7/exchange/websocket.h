// SPDX-License-Identifier: Apache-2.0
// The parts of a WebSocket's opening handshake that exist in HTTP/1 and not in HTTP/2 (RFC 6455 §4, RFC 8441 §5). Pure.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace tidegate::l7 {

// A value of Sec-WebSocket-Key: 16 bytes that a client chooses at random, in base64.
std::string websocket_key(const std::array<uint64_t, 2>& random);
// The value of Sec-WebSocket-Accept that answers `key`.
std::string websocket_accept(std::string_view key);

}  // namespace tidegate::l7
