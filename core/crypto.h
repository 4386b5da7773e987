// SPDX-License-Identifier: Apache-2.0
// The few cryptographic primitives that the rooms need, over OpenSSL. None is for a hot path unless its comment says
// so.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/hash.h"

namespace tidegate {

using Sha256 = std::array<uint8_t, 32>;

Sha256 sha256(std::string_view bytes);
std::string sha256_hex(std::string_view bytes);
Sha256 hmac_sha256(std::string_view key, std::string_view message);
std::string md5_hex(std::string_view bytes);  // only where a protocol requires it (HTTPDNS signatures)
// HKDF-SHA256 (RFC 5869) with an empty salt. Returns `bytes` bytes for the one purpose that `info` names.
std::string hkdf_sha256(std::string_view secret, std::string_view info, size_t bytes);
// A host's flow-hash key. It is the same for the same secret and purpose, and cannot be guessed without the secret.
HashKey derive_hash_key(std::string_view secret, std::string_view purpose);
std::string random_bytes(size_t bytes);
HashKey random_hash_key();

std::string hex_encode(std::string_view bytes);
std::optional<std::string> hex_decode(std::string_view hex);
std::string base64url_encode(std::string_view bytes);                // no padding (RFC 4648 §5)
std::optional<std::string> base64url_decode(std::string_view text);  // refuses padding
// The same without an allocation: writes at most text.size() * 3 / 4 bytes to `out`, and returns how many. `out` may be
// where `text` is.
std::optional<size_t> base64url_decode_to(std::string_view text, char* out);
std::string base64_encode(std::string_view bytes);
// The time of the comparison depends only on the lengths.
bool equal_constant_time(std::string_view a, std::string_view b);

}  // namespace tidegate
