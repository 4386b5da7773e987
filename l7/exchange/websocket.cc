// SPDX-License-Identifier: Apache-2.0
#include "l7/exchange/websocket.h"

#include <openssl/sha.h>

#include "core/crypto.h"

namespace tidegate::l7 {

std::string websocket_key(const std::array<uint64_t, 2>& random) {
  return base64_encode({reinterpret_cast<const char*>(random.data()), sizeof random});
}

std::string websocket_accept(std::string_view key) {
  const std::string text = std::string(key) + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  unsigned char digest[SHA_DIGEST_LENGTH];
  SHA1(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest);
  return base64_encode({reinterpret_cast<const char*>(digest), sizeof digest});
}

}  // namespace tidegate::l7
