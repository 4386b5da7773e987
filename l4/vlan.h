// SPDX-License-Identifier: Apache-2.0
// PortTags: the VLAN of a port. Every frame on its link carries these tags. They are taken off when a frame is read and
// put on when it is sent, so nothing in between knows about them (IEEE 802.1Q §9, 802.1ad).
#pragma once

#include <cstdint>
#include <cstring>

#include "l4/wire.h"

namespace tidegate::l4 {

struct PortTags {
  uint16_t vlan = 0;   // 0: the port has no VLAN
  uint16_t outer = 0;  // the service provider's tag in front of it; 0: none

  size_t bytes() const { return vlan == 0 ? 0 : outer == 0 ? kTagBytes : 2 * kTagBytes; }
  bool operator==(const PortTags&) const = default;
};

inline bool has_tag(const uint8_t* tag, uint16_t vlan) { return (load_be16(tag + 2) & 0x0fff) == vlan; }

// True if the frame carries exactly the port's tags. For the outer tag, both EtherTypes are accepted.
inline bool carries_tags(const PortTags& tags, const uint8_t* frame, size_t bytes) {
  if (bytes < kEthernetBytes + tags.bytes()) return false;
  const uint8_t* tag = frame + 12;
  if (tags.outer != 0) {
    const uint16_t type = load_be16(tag);
    if ((type != kEtherTypeQinQ && type != kEtherTypeVlan) || !has_tag(tag, tags.outer)) return false;
    tag += kTagBytes;
  }
  return load_be16(tag) == kEtherTypeVlan && has_tag(tag, tags.vlan);
}

// Puts the tags into a frame that begins at `frame`. The bytes() before it must be writable. The result begins there.
inline void put_tags_on(const PortTags& tags, uint8_t* frame) {
  uint8_t* begin = frame - tags.bytes();
  std::memmove(begin, frame, 2 * 6);
  uint8_t* tag = begin + 12;
  if (tags.outer != 0) {
    store_be16(tag, kEtherTypeQinQ);
    store_be16(tag + 2, tags.outer);
    tag += kTagBytes;
  }
  store_be16(tag, kEtherTypeVlan);
  store_be16(tag + 2, tags.vlan);
}

}  // namespace tidegate::l4
