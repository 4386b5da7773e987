// SPDX-License-Identifier: Apache-2.0
// DES in ECB mode with PKCS #5 padding, because the clients of DNSPod's HTTPDNS speak it. It hides nothing from anybody
// who wants to know. Nothing else may use it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace tidegate {

constexpr size_t kDesKeyBytes = 8;

// `key` has kDesKeyBytes.
std::string des_seal(std::string_view key, std::string_view plain);
// Nothing: no whole blocks, or padding that another key made.
std::optional<std::string> des_open(std::string_view key, std::string_view sealed);

}  // namespace tidegate
