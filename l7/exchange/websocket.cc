// SPDX-License-Identifier: Apache-2.0
#include "l7/exchange/websocket.h"

#include <openssl/evp.h>
#include <openssl/sha.h>

namespace tidegate::l7 {
namespace {

std::string base64(const unsigned char* bytes, size_t count) {
  std::string out(4 * ((count + 2) / 3) + 1, '\0');  // EVP_EncodeBlock writes a final NUL
  out.resize(static_cast<size_t>(
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), bytes, static_cast<int>(count))));
  return out;
}

}  // namespace

std::string websocket_key(const std::array<uint64_t, 2>& random) {
  return base64(reinterpret_cast<const unsigned char*>(random.data()), sizeof random);
}

std::string websocket_accept(std::string_view key) {
  const std::string text = std::string(key) + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  unsigned char digest[SHA_DIGEST_LENGTH];
  SHA1(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest);
  return base64(digest, sizeof digest);
}

}  // namespace tidegate::l7
