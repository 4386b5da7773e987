// SPDX-License-Identifier: Apache-2.0
// PortWatch: keeps looking whether each port still works. A link that is down, an interface that is gone or was made
// anew, and an XDP program that somebody took off are found by rtnetlink, at once or within a second; the port is left
// out of decisions, its device opened again where that helps, and everything is said in the log. Control thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "l4/port_board.h"
#include "l4/ports.h"

namespace tidegate::l4 {

struct PortState {
  std::string problem;  // empty: it works
  bool link = true;
  bool program = true;  // the XDP program that feeds us is attached; true for drivers that need none
  uint64_t reopened = 0;
  uint64_t next_try_ns = 0;  // at opening it; each that fails doubles the wait for the next
  uint64_t wait_ns = 0;
};

class PortWatch {
 public:
  // `leave`: returns true when no worker holds anything of the ports that the board took away.
  PortWatch(std::vector<Port>& ports, PortBoard& board, std::function<bool()> leave);

  // True when a port stopped working, or works again.
  bool check();
  const std::vector<PortState>& states() const { return states_; }

 private:
  bool check_port(size_t index);
  std::string judge(const Port& port, PortState& state, bool& reopen) const;
  std::string open_again(size_t index);

  std::vector<Port>& ports_;
  PortBoard& board_;
  std::function<bool()> leave_;
  std::vector<PortState> states_;
};

}  // namespace tidegate::l4
