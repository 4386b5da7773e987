// SPDX-License-Identifier: Apache-2.0
// PortWatch: checks regularly that each port still works. It learns by rtnetlink, at once or within a second, that a
// link is down, that an interface is gone or was made again, or that somebody removed an XDP program. Then it removes
// the port from the decisions, opens its device again if that helps, and logs all of this. Control thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "l4/port_board.h"
#include "l4/ports.h"

namespace tidegate::l4 {

struct PortState {
  std::string problem;  // empty: the port works
  bool link = true;
  bool program = true;  // the XDP program that feeds us is attached; also true for drivers that need none
  uint64_t reopened = 0;
  uint64_t next_try_ns = 0;  // when to try to open it; each failure doubles the wait before the next try
  uint64_t wait_ns = 0;
};

class PortWatch {
 public:
  // `leave` returns true if no worker has frames of the ports that the board has removed.
  PortWatch(std::vector<Port>& ports, PortBoard& board, std::function<bool()> leave);

  // Returns true if a port stopped working or works again.
  bool check();
  const std::vector<PortState>& states() const { return states_; }

 private:
  bool check_port(size_t index);
  std::string find_problem(const Port& port, PortState& state, bool& reopen) const;
  bool follow_holder(size_t index);
  std::string open_again(size_t index);

  std::vector<Port>& ports_;
  PortBoard& board_;
  std::function<bool()> leave_;
  std::vector<PortState> states_;
};

}  // namespace tidegate::l4
