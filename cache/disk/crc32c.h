// SPDX-License-Identifier: Apache-2.0
// CRC-32C (Castagnoli, RFC 3720 §12.1): by the processor's instruction where it has one.
#pragma once

#include <cstdint>
#include <string_view>

namespace tidegate::cache {

// `so_far`: the checksum of the bytes before these; 0 at the beginning.
uint32_t crc32c(std::string_view bytes, uint32_t so_far = 0);

}  // namespace tidegate::cache
