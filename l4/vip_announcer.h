// SPDX-License-Identifier: Apache-2.0
// VipAnnouncer: tells the links that our addresses are here, by gratuitous ARP (RFC 5227 §3) and by unsolicited
// neighbour advertisement (RFC 4861 §7.2.6). It does so when an address is new, when a port came back, and when another
// station claims one of our addresses. In the last case it announces at most once in kDefendIntervalMs, so that two
// stations with the same address do not flood the link (RFC 5227 §2.4). There is one VipAnnouncer per node, on the
// first worker.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "l4/neighbour.h"
#include "l4/rounds.h"

namespace tidegate::l4 {

class VipAnnouncer {
 public:
  static constexpr uint8_t kTimes = 3;  // RFC 5227 §1.1 says two; switches are known to miss one

  static constexpr uint32_t kDefendIntervalMs = 10'000;  // RFC 5227 §1.1

  explicit VipAnnouncer(std::vector<PortIdentity> ports) : ports_(std::move(ports)), rounds_(kTimes) {}

  // Announces the addresses that no earlier set contained.
  void adopt(std::shared_ptr<const LocalSet> set, uint32_t now_ms);
  void set_ports(std::vector<PortIdentity> ports) { ports_ = std::move(ports); }
  // Announces every address again.
  void restart(uint32_t now_ms) { rounds_.restart(now_ms); }
  void defend(const IpAddress& address, uint16_t port, uint32_t now_ms);
  // Sends the announcements that are due, at most `most_frames` frames. Returns the number of sent frames.
  size_t tick(uint32_t now_ms, size_t most_frames, FrameSink& sink);

 private:
  struct Defence {
    IpAddress address;
    uint16_t port = 0;
    bool due = false;
    uint32_t since_ms = 0;
  };
  size_t send_defences(size_t most, FrameSink& sink);
  void announce(const IpAddress& address, uint16_t port, FrameSink& sink) const;

  std::vector<PortIdentity> ports_;
  std::shared_ptr<const LocalSet> set_;
  Rounds rounds_;
  std::array<Defence, kMaxConflicts> defences_;
  size_t defence_count_ = 0;
  bool defence_due_ = false;
};

}  // namespace tidegate::l4
