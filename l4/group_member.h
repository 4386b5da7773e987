// SPDX-License-Identifier: Apache-2.0
// GroupMember: keeps the forwarder a member of the multicast groups in which it is asked for by neighbour discovery:
// the solicited-node group of each IPv6 VIP and own address, and of each port's link-local address (RFC 4861 §7.2.1). A
// switch that snoops passes solicitations only to ports from which such reports came. One a node, on the first worker.
//
// A group is joined by two reports a second apart (RFC 3810 §6.1), left in the same way, and reported again whenever
// the querier asks, after a random part of the time that it gives. Where the querier speaks version 1, so do we for as
// long as it is heard (§8.2.1): a frame for each group. A leave that another change overtakes is not sent twice; the
// querier then finds it out by asking.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "l4/mld_wire.h"
#include "l4/neighbour.h"
#include "l4/rounds.h"

namespace tidegate::l4 {

class GroupMember {
 public:
  static constexpr uint8_t kReports = 2;               // RFC 3810 §9.1, robustness
  static constexpr uint32_t kLongestDelayMs = 10'000;  // §9.3; a querier may allow more, nobody needs it
  static constexpr uint32_t kVersion1Ms = 260'000;     // §9.12: two query intervals and one answer's time
  static constexpr size_t kMaxFramesPerTick = 8;

  explicit GroupMember(const std::vector<PortIdentity>& ports);

  void set_ports(const std::vector<PortIdentity>& ports);
  // Joins the groups that no set before had, leaves those that are gone.
  void adopt(std::shared_ptr<const LocalSet> set, uint32_t now_ms);
  // Joins all again: a port came back, and perhaps with another switch behind it.
  void restart(uint32_t now_ms);
  void on_query(uint16_t port, const MldQuery& query, uint32_t now_ms);
  // Sends what is due; returns how many reports.
  size_t tick(uint32_t now_ms, FrameSink& sink);

 private:
  struct PortState {
    Mac mac;
    IpAddress link_local_group;
    uint8_t joins_left = kReports;  // of link_local_group
    uint32_t join_due_ms = 0;
    bool asked = false;  // for all groups
    uint32_t answer_due_ms = 0;
    size_t answered = 0;                                 // groups of the answer at hand, all ports' counted
    std::array<IpAddress, kMaxAskedGroups> asked_for{};  // one by one
    size_t asked_for_count = 0;
    uint32_t asked_for_due_ms = 0;
    bool version1 = false;
    uint32_t version1_until_ms = 0;
  };
  // Reports on their way: groups of one port and one kind, until a frame is full.
  struct Pending {
    MldRecord record = MldRecord::is_member;
    size_t count = 0;
    std::array<IpAddress, kMaxMldRecords> groups{};
  };
  class Writer;

  bool is_member(uint16_t port, const IpAddress& group) const;
  uint32_t delay_ms(uint32_t longest_ms);
  size_t items_a_tick() const;
  void join(Writer& writer, uint32_t now_ms);
  void answer(uint16_t port, Writer& writer, uint32_t now_ms);

  std::vector<PortState> ports_;
  std::vector<Pending> pending_;  // by port
  std::shared_ptr<const LocalSet> set_;
  Rounds joins_{kReports}, leaves_{kReports};
  uint64_t random_ = 0;
};

}  // namespace tidegate::l4
