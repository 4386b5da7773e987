// SPDX-License-Identifier: Apache-2.0
// Wire formats that several files of this room share: MAC addresses, big-endian access, the Internet checksum, and the
// few numbers of Ethernet, IP and ICMP that the forwarder needs. All functions read and write bytes, so no buffer needs
// an alignment.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "core/ip.h"

namespace tidegate::l4 {

struct Mac {
  std::array<uint8_t, 6> bytes{};

  static Mac from(const uint8_t* six_bytes) {
    Mac mac;
    std::memcpy(mac.bytes.data(), six_bytes, mac.bytes.size());
    return mac;
  }
  bool is_multicast() const { return (bytes[0] & 1) != 0; }  // includes broadcast
  bool is_zero() const { return *this == Mac{}; }
  std::string to_string() const;
  bool operator==(const Mac&) const = default;
};

constexpr Mac kBroadcastMac = {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};

constexpr size_t kEthernetBytes = 14;
constexpr size_t kMinFrameBytes = 60;  // without FCS; shorter frames of our own are padded (IEEE 802.3)
constexpr uint16_t kEtherTypeIp4 = 0x0800;
constexpr uint16_t kEtherTypeArp = 0x0806;
constexpr uint16_t kEtherTypeIp6 = 0x86dd;
constexpr uint16_t kEtherTypeVlan = 0x8100;
constexpr uint16_t kEtherTypeQinQ = 0x88a8;

constexpr size_t kTagBytes = 4;

// True for a tag with VLAN 0, which carries only a priority (IEEE 802.1Q §9.6). Such a frame otherwise counts as
// untagged.
inline bool has_priority_tag(const uint8_t* frame, size_t bytes) {
  if (bytes < kEthernetBytes + kTagBytes) return false;
  return frame[12] == 0x81 && frame[13] == 0 && (frame[14] & 0x0f) == 0 && frame[15] == 0;
}

constexpr size_t kIp4HeaderBytes = 20, kIp6HeaderBytes = 40;  // without options and extensions
constexpr uint8_t kUnreachable4 = 3;                          // ICMP type (RFC 792)
constexpr uint8_t kProtocolIcmp = 1;
constexpr uint8_t kProtocolTcp = 6;
constexpr uint8_t kProtocolUdp = 17;
constexpr uint8_t kProtocolIcmp6 = 58;

constexpr uint8_t kTcpFin = 0x01, kTcpSyn = 0x02, kTcpRst = 0x04, kTcpAck = 0x10;

inline uint16_t load_be16(const uint8_t* p) { return static_cast<uint16_t>(p[0] << 8 | p[1]); }
inline uint32_t load_be32(const uint8_t* p) { return static_cast<uint32_t>(load_be16(p)) << 16 | load_be16(p + 2); }
inline void store_be16(uint8_t* p, uint16_t value) {
  p[0] = static_cast<uint8_t>(value >> 8);
  p[1] = static_cast<uint8_t>(value);
}
inline void store_be32(uint8_t* p, uint32_t value) {
  store_be16(p, static_cast<uint16_t>(value >> 16));
  store_be16(p + 2, static_cast<uint16_t>(value));
}
// Loads bytes in memory order, for comparing and hashing.
template <class T>
inline T load_raw(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

// The one's-complement sum of big-endian words, not folded (RFC 1071). An odd last byte counts as the upper half of a
// word.
uint32_t checksum_add(const uint8_t* bytes, size_t count, uint32_t sum);
// Folds all carries and complements.
inline uint16_t checksum_finish(uint32_t sum) {
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~((sum & 0xffff) + (sum >> 16)));
}
// RFC 1624, equation 3: the checksum after one 16-bit word of what it covers has changed.
uint16_t checksum_update(uint16_t checksum, uint16_t old_word, uint16_t new_word);
// ICMPv6 over its pseudo header (RFC 8200 §8.1). A correct packet sums to zero.
uint16_t icmp6_checksum(const uint8_t* ip6_header, const uint8_t* icmp, size_t icmp_bytes);

}  // namespace tidegate::l4
