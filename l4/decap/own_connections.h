// SPDX-License-Identifier: Apache-2.0
// OwnConnections: whether a TCP connection is one of this host's. It asks the kernel (sock_diag(7)), which also knows
// connections that are just being opened and those that were just closed. Answers are kept for kKeptNs. So the kernel
// is not asked for each packet of a transfer.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "core/fd.h"
#include "core/hash.h"
#include "core/ip.h"
#include "core/result.h"
#include "l4/limits.h"

namespace tidegate::l4 {

struct TcpEnds {
  IpAddress client, vip;  // of one family
  uint16_t client_port_be = 0, vip_port_be = 0;
};

// The ends of a TCP packet that continues a connection: it has not only SYN, is no fragment, and TCP follows the IP
// header directly. `packet` has a whole IP header. Returns nothing for any other packet. Such a packet is not handed
// on.
std::optional<TcpEnds> ends_of_continued_tcp(const uint8_t* packet, size_t bytes);

class OwnConnections {
 public:
  // Returns an Error if the kernel does not answer such questions.
  static Result<OwnConnections> open();

  // If the kernel does not answer, the connection counts as one of this host's.
  bool has(const TcpEnds& ends, uint64_t now_ns);
  uint64_t asked() const { return asked_; }

  static constexpr uint64_t kKeptNs = 1'000'000'000;

 private:
  struct Known {
    uint64_t key = 0, until_ns = 0;
    bool is_own = false;
  };
  explicit OwnConnections(UniqueFd fd, const HashKey& key) : fd_(std::move(fd)), key_(key) {}
  std::optional<bool> ask(const TcpEnds& ends);

  UniqueFd fd_;
  HashKey key_;  // random: nobody can choose connections that share a place
  uint32_t asked_ = 0;
  std::array<Known, kMaxAskedConnections> known_ = {};  // each connection has one place; the last one has it
};

}  // namespace tidegate::l4
