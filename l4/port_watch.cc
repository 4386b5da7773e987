// SPDX-License-Identifier: Apache-2.0
#include "l4/port_watch.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/clock.h"
#include "core/log.h"
#include "l4/link_facts.h"

namespace tidegate::l4 {
namespace {

constexpr uint64_t kShortestWaitNs = 200 * kNsPerMs, kLongestWaitNs = 8 * kNsPerS;

}  // namespace

PortWatch::PortWatch(std::vector<Port>& ports, PortBoard& board, std::function<bool()> leave)
    : ports_(ports), board_(board), leave_(std::move(leave)), states_(ports.size()) {}

bool PortWatch::check() {
  bool changed = false;
  for (size_t index = 0; index < ports_.size(); ++index) changed = check_port(index) || changed;
  return changed;
}

// Returns what is wrong with the port. Sets `reopen` if opening it again may help.
std::string PortWatch::find_problem(const Port& port, PortState& state, bool& reopen) const {
  state.link = state.program = true;
  if (!port.is_kernel_interface()) {
    state.link = port.has_carrier();
    return state.link ? "" : "no link";
  }
  const Result<LinkFacts> facts = read_link(port.device());
  if (!facts) return state.problem;  // the kernel could not be asked, so nothing new is known
  state.link = facts->up;
  if (!facts->exists) {
    state.program = false;
    return "the interface is gone";
  }
  const uint32_t ours = port.link().xdp_program;
  state.program = !port.is_open() ? false : ours == 0 || facts->xdp_program == ours;
  reopen = !port.is_open() || facts->index != port.link().index || (ours != 0 && facts->xdp_program == 0);
  if (reopen) return "its device is lost";
  if (!state.program) return fmt::format("another XDP program, {}, takes its frames", facts->xdp_program);
  return facts->up ? "" : "no link";
}

// A further VLAN works if the port does that has its device, which was checked before.
bool PortWatch::follow_holder(size_t index) {
  states_[index] = states_[*ports_[index].holder()];
  const bool works = states_[index].problem.empty();
  if (works == board_.is_usable(index)) return false;
  board_.set_usable(index, works);
  return true;
}

bool PortWatch::check_port(size_t index) {
  Port& port = ports_[index];
  if (port.holder()) return follow_holder(index);
  PortState& state = states_[index];
  bool reopen = false;
  std::string problem = find_problem(port, state, reopen);
  if (reopen && monotonic_ns() < state.next_try_ns) {
    problem = state.problem;
    reopen = false;
  } else if (reopen) {
    problem = open_again(index);
    state.wait_ns = problem.empty() ? 0 : std::clamp(state.wait_ns * 2, kShortestWaitNs, kLongestWaitNs);
    state.next_try_ns = monotonic_ns() + state.wait_ns;
    if (problem.empty()) {
      ++state.reopened;
      problem = find_problem(port, state, reopen);
      log_info("port {}: opened again, driver {}, MAC {}", port.device(), port.driver(),
               port.identity().mac.to_string());
    }
  }
  if (problem != state.problem) {
    if (problem.empty()) {
      log_info("port {}: works again", port.device());
    } else {
      log_warn("port {}: {}: it is left out of decisions", port.device(), problem);
    }
  }
  const bool changed = problem.empty() != board_.is_usable(index) || problem.empty() != state.problem.empty();
  state.problem = std::move(problem);
  if (changed) board_.set_usable(index, state.problem.empty());
  return changed || (reopen && state.problem.empty());
}

// Returns an empty string if it is open now. Its MAC address may have changed.
std::string PortWatch::open_again(size_t index) {
  Port& port = ports_[index];
  for (size_t other = 0; other < ports_.size(); ++other) {
    const bool has_device = other == index || ports_[other].holder() == index;
    if (has_device && board_.is_usable(other)) board_.set_usable(other, false);
  }
  // No worker reads the data that changes below until the workers are told to use the port again.
  if (!leave_()) return "its device is lost, and workers hold frames of it";
  if (port.is_open()) {
    log_warn(
        "port {}: its device is lost (the interface was made anew, or its XDP program taken off); opening it again",
        port.device());
    port.shut();
  }
  const Result<void> opened = port.open_again();
  for (Port& other : ports_) {
    if (other.holder() == index) other.follow(port);
  }
  return opened ? "" : "cannot be opened: " + opened.error().message;
}

}  // namespace tidegate::l4
