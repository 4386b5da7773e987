// SPDX-License-Identifier: Apache-2.0
// SecondHop: how a tunnel's header names a second backend for the packet. A forwarder uses this if it did not see the
// beginning of the TCP connection, and if the pool's previous table picks another backend than its present table. The
// first backend's decapsulator hands the packet on if it does not know the connection.
//
// ipip over IPv4: the identification field has the last two bytes of the second backend's IPv4 address; 0: none. The
// outer packet has DF, so the field has no other use (RFC 6864 §4.1), and the kernel's own ipip interfaces ignore it.
// The decapsulator takes the other two bytes from its `--peer`. A second header could name any address, but then the
// kernel's ipip interface would not find the packet. IPv6 has no such field. vxlan packets are unwrapped by the kernel,
// which cannot hand them on.
//
// gue: private data, after the four bytes of the GUE header: 'T' 'G', the family of the address (4 or 6), 0, the
// address. Receivers that do not know it ignore it (draft-ietf-intarea-gue-09 §3.1). Pure functions of bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/ip.h"

namespace tidegate::l4 {

constexpr size_t kSecondHopHeadBytes = 4;
constexpr size_t second_hop_bytes(uint8_t family) { return kSecondHopHeadBytes + (family == 4 ? 4 : 16); }
constexpr size_t kMostSecondHopBytes = second_hop_bytes(6);
// How many more bytes a handed-on packet has (gue over UDP) than a packet in an ipip header.
constexpr size_t kHandedOnBytes = 8 + 4;

// `ip4` has four bytes.
inline uint16_t second_hop_id(const uint8_t* ip4) { return static_cast<uint16_t>(ip4[2] << 8 | ip4[3]); }

// Writes second_hop_bytes(family) bytes. `address` has 4 or 16 bytes.
inline void write_second_hop(uint8_t* out, uint8_t family, const uint8_t* address) {
  const uint8_t head[kSecondHopHeadBytes] = {'T', 'G', family, 0};
  std::memcpy(out, head, sizeof head);
  std::memcpy(out + sizeof head, address, second_hop_bytes(family) - sizeof head);
}

enum class SecondHopKind : uint8_t { none, named, malformed };
struct SecondHop {
  SecondHopKind kind = SecondHopKind::none;
  IpAddress address = {};
};
// Private data of others gives `none`. Our own data gives `malformed` if it is cut short or has an unknown family.
inline SecondHop read_second_hop(const uint8_t* data, size_t bytes) {
  if (bytes < kSecondHopHeadBytes || data[0] != 'T' || data[1] != 'G') return {};
  const uint8_t family = data[2];
  if ((family != 4 && family != 6) || data[3] != 0 || bytes != second_hop_bytes(family)) {
    return {SecondHopKind::malformed};
  }
  SecondHop hop{SecondHopKind::named};
  hop.address.family = family == 4 ? IpAddress::Family::v4 : IpAddress::Family::v6;
  std::memcpy(hop.address.bytes.data(), data + kSecondHopHeadBytes, hop.address.size());
  return hop;
}

}  // namespace tidegate::l4
