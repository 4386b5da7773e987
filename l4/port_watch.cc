// SPDX-License-Identifier: Apache-2.0
#include "l4/port_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "core/clock.h"
#include "core/log.h"
#include "l4/link_facts.h"

namespace tidegate::l4 {
namespace {

constexpr uint32_t kMostQuickChecks = 50;
constexpr uint64_t kShortestWaitNs = 200 * kNsPerMs, kLongestWaitNs = 8 * kNsPerS;

// The present state of an interface of the kernel.
struct Look {
  std::string problem;
  bool link = true, program = true;
  bool lost = false;   // it must be opened again
  uint32_t index = 0;  // 0: it is gone
};

// `opened`: the facts of the interface when it was opened. Returns nothing if the kernel could not be asked.
std::optional<Look> look_at(const std::string& interface, const LinkFacts& opened, bool is_open) {
  const Result<LinkFacts> facts = read_link(interface);
  if (!facts) return std::nullopt;
  Look look;
  look.link = facts->up;
  if (!facts->exists) {
    look.program = false;
    look.problem = "the interface is gone";
    return look;
  }
  look.index = facts->index;
  const uint32_t ours = opened.xdp_program;
  look.program = is_open && (ours == 0 || facts->xdp_program == ours);
  look.lost = !is_open || facts->index != opened.index || (ours != 0 && facts->xdp_program == 0);
  if (look.lost) {
    look.problem = "its device is lost";
  } else if (!look.program) {
    look.problem = fmt::format("another XDP program, {}, takes its frames", facts->xdp_program);
  } else if (!facts->up) {
    look.problem = "no link";
  }
  return look;
}

const std::string kReturning = "its link is up again";

Look look_at_member(const Port& port, const PortMember& member, const MemberState& before) {
  Look look;
  if (!port.is_kernel_interface()) {
    look.link = port.has_carrier(member);
    look.problem = look.link ? "" : "no link";
    return look;
  }
  const std::optional<Look> seen = look_at(member.device, member.link, member.id.has_value());
  if (!seen) {
    look.problem = before.problem;
    return look;
  }
  look = *seen;
  if (!member.id && look.index != 0) look.problem = look.link ? kReturning : "no link";
  return look;
}

// Sets the time of the next try. After each failure the pause is twice as long, within bounds.
void postpone(MemberState& member, const Result<void>& done) {
  member.wait_ns = done ? 0 : std::clamp(member.wait_ns * 2, kShortestWaitNs, kLongestWaitNs);
  member.next_try_ns = monotonic_ns() + member.wait_ns;
  if (!done) log_warn("a member of a bond cannot be opened: {}", done.error().message);
}

}  // namespace

PortWatch::PortWatch(std::vector<Port>& ports, PortBoard& board, std::function<bool()> leave)
    : ports_(ports), board_(board), leave_(std::move(leave)), states_(ports.size()) {}

bool PortWatch::check() {
  bool changed = false;
  unsettled_ = false;
  for (size_t index = 0; index < ports_.size(); ++index) changed = check_port(index) || changed;
  return changed;
}

// Returns the port's fault, or an empty text. Sets `reopen` if it may help to open the port again.
std::string PortWatch::find_problem(const Port& port, PortState& state, bool& reopen) {
  if (!port.members().empty()) return find_bond_problem(port, state, reopen);
  state.link = state.program = true;
  if (!port.is_kernel_interface()) {
    state.link = port.has_carrier();
    return state.link ? "" : "no link";
  }
  const std::optional<Look> look = look_at(port.device(), port.link(), port.is_open());
  if (!look) return state.problem;
  state.link = look->link;
  state.program = look->program;
  reopen = look->lost;
  return look->problem;
}

// A bond works while one of its members does.
std::string PortWatch::find_bond_problem(const Port& port, PortState& state, bool& reopen) {
  const size_t count = port.members().size();
  state.members.resize(count);
  state.link = state.program = false;
  size_t used = 0, lost = 0;
  bool unsettled = false;
  for (size_t m = 0; m < count; ++m) {
    const PortMember& member = port.members()[m];
    MemberState& now = state.members[m];
    const Look look = look_at_member(port, member, now);
    if (look.problem != now.problem) {
      if (look.problem.empty()) {
        log_info("port {}: {} works again", port.device(), member.device);
      } else {
        log_warn("port {}: {}: {}", port.device(), member.device, look.problem);
      }
    }
    now.problem = look.problem;
    now.in_bond = port.member_state(m);
    state.link = state.link || look.link;
    state.program = state.program || look.program;
    lost += look.lost && member.id ? 1 : 0;
    if (!now.problem.empty() || !member.id) continue;
    used += now.in_bond.used ? 1 : 0;
    unsettled = unsettled || (!now.in_bond.used && !port.is_agreed_by_lacp() && !port.has_one_active_member());
    if (!now.in_bond.used || !port.has_one_active_member()) continue;
    if (state.active && *state.active != m) board_.announce();
    state.active = m;
  }
  unsettled = unsettled || (used == 0 && state.link && !port.is_agreed_by_lacp());
  state.unsettled_checks = unsettled ? state.unsettled_checks + 1 : 0;
  unsettled_ = unsettled_ || (unsettled && state.unsettled_checks <= kMostQuickChecks);
  if (used != 0) return "";
  reopen = lost != 0 || !port.is_open();
  std::string problem;
  for (size_t m = 0; m < count; ++m) {
    const std::string& of_member = state.members[m].problem;
    const char* not_used = port.is_agreed_by_lacp() ? "its LACP partner has not agreed" : "not used yet";
    problem +=
        fmt::format("{}{}: {}", m == 0 ? "" : ", ", port.members()[m].device, of_member.empty() ? not_used : of_member);
  }
  return problem;
}

// DPDK does not see that the link of a kernel interface is down. So such a member leaves the bond, and comes back when
// its link is up, after its device was opened again. The last member stays in the bond.
void PortWatch::move_members(size_t index) {
  Port& port = ports_[index];
  PortState& state = states_[index];
  if (!port.is_kernel_interface() || !port.is_open()) return;
  std::vector<size_t> leaving, joining;
  size_t open = 0;
  for (size_t m = 0; m < state.members.size(); ++m) {
    MemberState& member = state.members[m];
    if (port.members()[m].id) {
      ++open;
      if (!member.problem.empty()) leaving.push_back(m);
      continue;
    }
    if (member.problem != kReturning || monotonic_ns() < member.next_try_ns) continue;
    const Result<void> opened = port.open_member(m);
    if (opened) joining.push_back(m);
    postpone(member, opened);
  }
  if (leaving.size() == open && joining.empty()) leaving.clear();
  if (leaving.empty() && joining.empty()) return;
  if (!take_from_workers(index)) {
    for (const size_t m : joining) port.close_member(m);
    return;
  }
  for (const size_t m : joining) postpone(state.members[m], port.join(m));
  for (const size_t m : leaving) port.part(m);
  for (Port& other : ports_) {
    if (other.holder() == index) other.follow(port);
  }
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
  if (!port.members().empty() && !reopen) {
    move_members(index);
    problem = find_problem(port, state, reopen);
  }
  if (reopen && monotonic_ns() < state.next_try_ns) {
    if (!problem.empty() && !state.problem.empty()) problem = state.problem;  // which says why it cannot be opened
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
  const bool polled = state.problem.empty() || (port.is_open() && port.is_agreed_by_lacp());
  if (changed || polled != board_.is_polled(index)) board_.set_usable(index, state.problem.empty(), polled);
  return changed || (reopen && state.problem.empty());
}

// Afterwards no worker reads the data of the port, or of others on its device, until it is told to use them again.
// Returns false if a worker still holds frames of them.
bool PortWatch::take_from_workers(size_t index) {
  for (size_t other = 0; other < ports_.size(); ++other) {
    const bool has_device = other == index || ports_[other].holder() == index;
    if (has_device && board_.is_polled(other)) board_.set_usable(other, false);
  }
  return leave_();
}

// Returns an empty string if it is open now. Its MAC address may have changed.
std::string PortWatch::open_again(size_t index) {
  Port& port = ports_[index];
  if (!take_from_workers(index)) return "its device is lost, and workers hold frames of it";
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
