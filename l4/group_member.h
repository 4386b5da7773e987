// SPDX-License-Identifier: Apache-2.0
// GroupMember: keeps the forwarder a member of the multicast groups that neighbour discovery uses to ask for it: the
// solicited-node group of each IPv6 VIP, of each own address, and of each port's link-local address (RFC 4861 §7.2.1).
// A switch with MLD snooping passes solicitations only to ports from which such reports came. There is one GroupMember
// per node, on the first worker.
//
// To join a group it sends two reports a second apart (RFC 3810 §6.1). It leaves a group in the same way. It reports
// again whenever the querier asks, after a random part of the time that the querier gives. If the querier speaks
// version 1, so do we while that querier is heard (§8.2.1); then each group needs its own frame. If another change
// comes before the second report of a leave, that second report is not sent; the querier then finds out by asking.
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
  static constexpr uint32_t kLongestDelayMs = 10'000;  // §9.3; a querier may allow more, but nobody needs it
  static constexpr uint32_t kVersion1Ms = 260'000;     // §9.12: two query intervals plus the time of one answer
  static constexpr size_t kMaxFramesPerTick = 8;

  explicit GroupMember(const std::vector<PortIdentity>& ports);

  void set_ports(const std::vector<PortIdentity>& ports);
  // Joins the groups that no earlier set had, and leaves those that are gone.
  void adopt(std::shared_ptr<const LocalSet> set, uint32_t now_ms);
  // Joins all groups again: a port came back, perhaps connected to another switch.
  void restart(uint32_t now_ms);
  void on_query(uint16_t port, const MldQuery& query, uint32_t now_ms);
  // Sends the reports that are due. Returns their number.
  size_t tick(uint32_t now_ms, FrameSink& sink);

 private:
  struct PortState {
    Mac mac;
    IpAddress link_local_group;
    uint8_t joins_left = kReports;  // joins of link_local_group still to send
    uint32_t join_due_ms = 0;
    bool asked = false;  // asked for all groups
    uint32_t answer_due_ms = 0;
    size_t answered = 0;  // groups already reported in the current answer, over all ports
    std::array<IpAddress, kMaxAskedGroups> asked_for{};  // groups asked for one by one
    size_t asked_for_count = 0;
    uint32_t asked_for_due_ms = 0;
    bool version1 = false;
    uint32_t version1_until_ms = 0;
  };
  // Reports that are being collected: groups of one port and one kind, until a frame is full.
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
