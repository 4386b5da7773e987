// Announcer: says that our addresses are here, by gratuitous ARP (RFC 5227 §3) and unsolicited advertisement (RFC 4861
// §7.2.6), when an address is new and when a port came back. One a node, on the first worker.
#pragma once

#include <memory>
#include <vector>

#include "l4/neighbour.h"
#include "l4/rounds.h"

namespace tidegate::l4 {

class Announcer {
 public:
  static constexpr uint8_t kTimes = 3;  // RFC 5227 §1.1 says two; switches are known to miss one

  explicit Announcer(std::vector<PortIdentity> ports) : ports_(std::move(ports)), rounds_(kTimes) {}

  // Announces what was in no set before.
  void adopt(std::shared_ptr<const LocalSet> set, uint32_t now_ms);
  // Announces everything.
  void restart(uint32_t now_ms) { rounds_.restart(now_ms); }
  // Sends what is due, `most_frames` at most; returns how many.
  size_t tick(uint32_t now_ms, size_t most_frames, FrameSink& sink);

 private:
  std::vector<PortIdentity> ports_;
  std::shared_ptr<const LocalSet> set_;
  Rounds rounds_;
};

}  // namespace tidegate::l4
