// SPDX-License-Identifier: Apache-2.0
#include "cache/disk/crc32c.h"

#include <array>
#include <cstring>

#ifdef __x86_64__
#include <nmmintrin.h>
#endif

namespace tidegate::cache {
namespace {

constexpr std::array<uint32_t, 256> make_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78U : 0);
    table[i] = crc;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kTable = make_table();

uint32_t by_table(std::string_view bytes, uint32_t so_far) {
  uint32_t crc = ~so_far;
  for (const char c : bytes) crc = crc >> 8 ^ kTable[(crc ^ static_cast<uint8_t>(c)) & 0xff];
  return ~crc;
}

#ifdef __x86_64__
__attribute__((target("sse4.2"))) uint32_t by_instruction(std::string_view bytes, uint32_t so_far) {
  uint64_t crc = ~so_far;
  while (bytes.size() >= 8) {
    uint64_t word;
    std::memcpy(&word, bytes.data(), 8);
    crc = _mm_crc32_u64(crc, word);
    bytes.remove_prefix(8);
  }
  auto tail = static_cast<uint32_t>(crc);
  for (const char c : bytes) tail = _mm_crc32_u8(tail, static_cast<uint8_t>(c));
  return ~tail;
}
#endif

}  // namespace

uint32_t crc32c(std::string_view bytes, uint32_t so_far) {
#ifdef __x86_64__
  static const bool has_instruction = __builtin_cpu_supports("sse4.2") != 0;
  if (has_instruction) return by_instruction(bytes, so_far);
#endif
  return by_table(bytes, so_far);
}

}  // namespace tidegate::cache
