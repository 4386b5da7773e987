// SPDX-License-Identifier: Apache-2.0
#include "l4/wire.h"

#include <fmt/format.h>

namespace tidegate::l4 {

std::string Mac::to_string() const {
  return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", bytes[0], bytes[1], bytes[2], bytes[3], bytes[4],
                     bytes[5]);
}

uint32_t checksum_add(const uint8_t* bytes, size_t count, uint32_t sum) {
  // At most 65535 bytes: 32768 words of 16 bits cannot overflow 32 bits.
  for (; count >= 2; bytes += 2, count -= 2) sum += load_be16(bytes);
  if (count == 1) sum += static_cast<uint32_t>(*bytes) << 8;
  return sum;
}

uint16_t checksum_update(uint16_t checksum, uint16_t old_word, uint16_t new_word) {
  const auto inverse = [](uint16_t word) { return static_cast<uint32_t>(static_cast<uint16_t>(~word)); };
  return checksum_finish(inverse(checksum) + inverse(old_word) + new_word);
}

uint16_t icmp6_checksum(const uint8_t* ip6_header, const uint8_t* icmp, size_t icmp_bytes) {
  uint32_t sum = checksum_add(ip6_header + 8, 32, 0);
  sum += static_cast<uint32_t>(icmp_bytes) + kProtocolIcmp6;
  return checksum_finish(checksum_add(icmp, icmp_bytes, sum));
}

}  // namespace tidegate::l4
