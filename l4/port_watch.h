// SPDX-License-Identifier: Apache-2.0
// PortWatch: checks regularly that each port still works. It learns by rtnetlink, at once or within a second, that a
// link is down, that an interface is gone or was made again, or that somebody removed an XDP program. Then it removes
// the port from the decisions, opens its device again if that helps, and logs all of this. Control thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "l4/port_board.h"
#include "l4/ports.h"

namespace tidegate::l4 {

// A device that a port bonds.
struct MemberState {
  std::string problem;  // empty: its link is up
  BondMemberState in_bond;
  uint64_t next_try_ns = 0, wait_ns = 0;  // when to try to open it, as for a port
};

struct PortState {
  std::string problem;  // empty: the port works
  bool link = true;
  bool program = true;  // the XDP program that feeds us is attached; also true for drivers that need none
  uint64_t reopened = 0;
  uint64_t next_try_ns = 0;  // when to try to open it; each failure doubles the wait before the next try
  uint64_t wait_ns = 0;
  std::vector<MemberState> members;  // of a bond
  std::optional<size_t> active;      // the member that a bond with one active member uses
  uint32_t unsettled_checks = 0;     // in a row
};

class PortWatch {
 public:
  // `leave` returns true if no worker has frames of the ports that the board has removed.
  PortWatch(std::vector<Port>& ports, PortBoard& board, std::function<bool()> leave);

  // Returns true if a port stopped working or works again.
  bool check();
  // A bond has not yet left a member whose link is down: check again in some milliseconds.
  bool is_unsettled() const { return unsettled_; }
  const std::vector<PortState>& states() const { return states_; }

 private:
  bool check_port(size_t index);
  std::string find_problem(const Port& port, PortState& state, bool& reopen);
  std::string find_bond_problem(const Port& port, PortState& state, bool& reopen);
  void move_members(size_t index);
  bool take_from_workers(size_t index);
  bool follow_holder(size_t index);
  std::string open_again(size_t index);

  std::vector<Port>& ports_;
  PortBoard& board_;
  std::function<bool()> leave_;
  std::vector<PortState> states_;
  bool unsettled_ = false;
};

}  // namespace tidegate::l4
