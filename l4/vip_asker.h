// SPDX-License-Identifier: Apache-2.0
// VipAsker: while this host's control hears no leader, asks the link by ARP and neighbour discovery for the VIP
// addresses that this forwarder shares with others (l4/left_vips.h). So it learns when another one answers for an
// address that it holds, and when nobody answers for one that it left. It asks for each once in a round. The answers go
// to the ConflictBoard. There is one VipAsker per node, on the first worker.
#pragma once

#include <memory>
#include <vector>

#include "l4/limits.h"
#include "l4/neighbour.h"

namespace tidegate::l4 {

class VipAsker {
 public:
  static constexpr uint32_t kPortionMs = 500;
  // The control thread takes kMaxConflicts answers from the board in kPortionMs.
  static constexpr size_t kPortion = kMaxConflicts / 2;

  // The length of a round of questions for this many addresses: a second, or more if there are many addresses.
  static constexpr uint32_t round_ms(size_t addresses) {
    const size_t portions = (addresses + kPortion - 1) / kPortion;
    return kPortionMs * static_cast<uint32_t>(portions < 2 ? 2 : portions);
  }

  explicit VipAsker(std::vector<PortIdentity> ports) : ports_(std::move(ports)) {}

  void adopt(std::shared_ptr<const LocalSet> set, uint32_t now_ms);
  void set_ports(std::vector<PortIdentity> ports) { ports_ = std::move(ports); }
  // Sends the questions that are due, at most `most_frames` frames. Returns the number of sent frames.
  size_t tick(uint32_t now_ms, size_t most_frames, FrameSink& sink);

 private:
  std::vector<PortIdentity> ports_;
  std::shared_ptr<const LocalSet> set_;
  size_t next_ = 0;  // the address that is asked for next
  uint32_t due_ms_ = 0;
};

}  // namespace tidegate::l4
