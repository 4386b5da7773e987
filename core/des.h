// SPDX-License-Identifier: Apache-2.0
// DES in ECB mode with PKCS #5 padding, because the clients of DNSPod's HTTPDNS speak it. It protects nothing. Nothing
// else may use it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace tidegate {

constexpr size_t kDesKeyBytes = 8;

// `key` has kDesKeyBytes.
std::string des_seal(std::string_view key, std::string_view plain);
// Returns nothing if the data is not whole blocks or its padding is wrong (another key).
std::optional<std::string> des_open(std::string_view key, std::string_view sealed);

}  // namespace tidegate
