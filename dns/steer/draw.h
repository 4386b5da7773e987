// SPDX-License-Identifier: Apache-2.0
// The random draw in a steered answer. It is a function only of the name, the client's network and a short window of
// time. So a client that asks twice, by two transports or two servers, gets the same addresses in the same order. Each
// other network has its own draw, so that a crowd spreads, and each network draws again in its next window.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

#include "core/hash.h"
#include "core/ip.h"
#include "dns/steer/prefix_map.h"

namespace tidegate::dns {

// Identifies a draw. The network is what resolvers reveal about a client (RFC 7871 §11.1): a /24 of IPv4, a /56 of
// IPv6. So a client subnet and a whole address give the same draw.
class DrawKey {
 public:
  static constexpr uint32_t kWindowS = 10;
  static constexpr size_t kV4Bytes = 3, kV6Bytes = 7;

  // Both are borrowed: `lower_name` in wire form, and the address by which the client is located.
  DrawKey(std::span<const uint8_t> lower_name, const IpAddress& client_address, uint64_t realtime_s)
      : name_(lower_name), client_(client_address), now_s_(realtime_s) {}

  // Without a secret, so it is the same on every server. A client that chooses names or networks to reach a certain
  // server could also use that server's address.
  uint64_t seed() const {
    const uint64_t hash = hash_of_asker();
    return mix64(hash ^ (now_s_ + offset_s(hash)) / kWindowS * 0xd1b54a32d192ed03ULL);
  }
  // The hash of the client's network with this many bits, the same at any time; for `sticky`.
  uint64_t hash_of_network(uint8_t prefix) const {
    const IpAddress base = Cidr::of(client_, prefix).base;
    uint64_t words[2];
    std::memcpy(words, base.bytes.data(), sizeof words);
    if (client_.is_v4()) {
      words[0] &= 0xffffffff;  // IPv4 uses the first four bytes
      words[1] = 0;
    }
    return mix64(mix64(words[0] ^ (client_.is_v4() ? 0x9e3779b97f4a7c15ULL : 0)) ^ words[1]);
  }
  // Seconds until the next window.
  uint32_t changes_in_s() const {
    return static_cast<uint32_t>(kWindowS - (now_s_ + offset_s(hash_of_asker())) % kWindowS);
  }
  std::string network() const { return Cidr::of(client_, client_.is_v4() ? 8 * kV4Bytes : 8 * kV6Bytes).to_string(); }

 private:
  uint64_t hash_of_asker() const {
    uint64_t hash = name_.size();
    for (size_t at = 0; at < name_.size(); at += 8) {
      uint64_t word = 0;
      std::memcpy(&word, name_.data() + at, std::min<size_t>(8, name_.size() - at));
      hash = mix64(hash ^ word) + 0x9e3779b97f4a7c15ULL;
    }
    uint64_t network = 0;
    std::memcpy(&network, client_.bytes.data(), client_.is_v4() ? kV4Bytes : kV6Bytes);
    return mix64(hash ^ network);
  }
  // The windows of different networks begin at different times. So not all clients change at once.
  static uint64_t offset_s(uint64_t hash) { return hash % kWindowS; }

  std::span<const uint8_t> name_;
  const IpAddress& client_;
  uint64_t now_s_;
};

// A small generator; not for secrets (splitmix64, Steele et al. 2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15ULL;
    return mix64(state_);
  }
  // Uniform in [0, bound), bound > 0; by multiplication (Lemire 2019). The bias is below 2^-32 for any bound here.
  uint32_t below(uint32_t bound) { return static_cast<uint32_t>((next() >> 32) * bound >> 32); }
  uint64_t below_wide(uint64_t bound) { return static_cast<uint64_t>(Uint128{next()} * bound >> 64); }

 private:
  uint64_t state_;
};

}  // namespace tidegate::dns
