// SPDX-License-Identifier: Apache-2.0
// A flow's identity in 64 bits: a keyed hash (SipHash-1-3) of the 5-tuple. The hash stands for the tuple in the flow
// table (16 bytes per flow, four to a cache line) and picks the Maglev slot. The key is derived from the site's secret,
// so nobody outside can craft a collision. By chance two of a million flows share a hash with a probability of 3e-8;
// they would then share a backend. The hash is equal on every host of a site and after a restart, because the key
// depends only on the site's secret.
#pragma once

#include <cstdint>

#include "core/hash.h"
#include "l4/packet_view.h"

namespace tidegate::l4 {

struct FlowTuple {
  uint8_t family = 4;  // 4 or 6
  uint8_t protocol = 0;
  uint16_t client_port_be = 0, service_port_be = 0;
  AddressWords client, vip;
};

class FlowHasher {
 public:
  explicit FlowHasher(const HashKey& key) : key_(key) {}

  // Never 0, because 0 marks an empty entry of the flow table.
  uint64_t tuple(const FlowTuple& t) const { return addresses(t.family, t.client, t.vip, rest_of(t)); }
  // The last word that tuple() hashes.
  static uint64_t rest_of(const FlowTuple& t) {
    return static_cast<uint64_t>(t.client_port_be) | static_cast<uint64_t>(t.service_port_be) << 16 |
           static_cast<uint64_t>(t.protocol) << 32 | kTuple;
  }
  static uint64_t not_zero(uint64_t hash) { return hash == 0 ? 1 : hash; }
  const HashKey& key() const { return key_; }
  // One hash for all flows of a client.
  uint64_t client(uint8_t family, const AddressWords& client) const {
    return addresses(family, client, AddressWords{}, kClient);
  }
  // One hash for all fragments of a datagram. The protocol counts only in IPv4 (RFC 791 §2.3, RFC 8200 §4.5).
  uint64_t fragments(const PacketView& view) const {
    const uint64_t protocol = view.family == 4 ? view.protocol : 0;
    const uint64_t last = view.fragment_id | protocol << 32 | kFragments;
    return addresses(view.family, view.source, view.destination, last);
  }

 private:
  static constexpr uint64_t kTuple = uint64_t{1} << 56, kClient = uint64_t{2} << 56, kFragments = uint64_t{3} << 56;

  [[gnu::always_inline]] uint64_t addresses(uint8_t family, const AddressWords& from, const AddressWords& to,
                                            uint64_t last) const {
    uint64_t hash;
    if (family == 4) {
      hash = siphash13_words<2>(key_, {from.a | to.a << 32, last});
    } else {
      hash = siphash13_words<5>(key_, {from.a, from.b, to.a, to.b, last});
    }
    return not_zero(hash);
  }

  HashKey key_;
};

}  // namespace tidegate::l4
