// SPDX-License-Identifier: Apache-2.0
// AES-128 as the protocols of clients use it, over OpenSSL. What is sealed begins with its own initialisation vector.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace tidegate {

enum class AesMode {
  cbc,  // IV of 16 bytes, PKCS #7 padding; whoever opens it cannot tell a change from a fault
  gcm,  // IV of 12 bytes, a tag of 16 at the end (NIST SP 800-38D)
};
constexpr size_t kAes128KeyBytes = 16;

// The IV is random. `key` has kAes128KeyBytes.
std::string aes128_seal(AesMode mode, std::string_view key, std::string_view plain);
// Nothing: too short, damaged, or sealed under another key.
std::optional<std::string> aes128_open(AesMode mode, std::string_view key, std::string_view sealed);

}  // namespace tidegate
