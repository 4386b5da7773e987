// SPDX-License-Identifier: Apache-2.0
// AES-128 as client protocols use it, over OpenSSL. Sealed data begins with its own initialisation vector.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace tidegate {

enum class AesMode {
  cbc,  // IV of 16 bytes, PKCS #7 padding; the reader cannot tell a forged message from a damaged one
  gcm,  // IV of 12 bytes, a tag of 16 at the end (NIST SP 800-38D)
};
constexpr size_t kAes128KeyBytes = 16;

// The IV is random. `key` has kAes128KeyBytes bytes.
std::string aes128_seal(AesMode mode, std::string_view key, std::string_view plain);
// Returns nothing if the data is too short, damaged, or sealed with another key.
std::optional<std::string> aes128_open(AesMode mode, std::string_view key, std::string_view sealed);

}  // namespace tidegate
