// SPDX-License-Identifier: Apache-2.0
#include "l4/dataplane_status.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "core/clock.h"

namespace tidegate::l4 {

uint64_t sum_of(const Dataplane& dataplane, OwnedCounter WorkerCounters::*counter) {
  uint64_t total = 0;
  for (const auto& worker : dataplane.workers()) total += (worker->counters().*counter).value();
  return total;
}

nlohmann::json ports_status(const Dataplane& dataplane) {
  nlohmann::json ports = nlohmann::json::array();
  for (size_t i = 0; i < dataplane.ports().size(); ++i) {
    const Port& port = dataplane.ports()[i];
    const PortState& state = dataplane.port_states()[i];
    ports.push_back({{"device", port.device()},
                     {"driver", port.driver()},
                     {"mac", port.identity().mac.to_string()},
                     {"link", state.link},
                     {"program", state.program},
                     {"problem", state.problem},
                     {"reopened", state.reopened}});
    for (size_t m = 0; m < port.members().size() && m < state.members.size(); ++m) {
      const MemberState& member = state.members[m];
      const auto& partner = member.in_bond.partner;
      ports.back()["members"].push_back({{"device", port.members()[m].device},
                                         {"problem", member.problem},
                                         {"used", member.in_bond.used},
                                         {"partner", partner ? nlohmann::json(partner->to_string()) : nullptr}});
    }
  }
  return ports;
}

std::string port_problems(const Dataplane& dataplane) {
  std::string out;
  for (size_t i = 0; i < dataplane.ports().size(); ++i) {
    const Port& port = dataplane.ports()[i];
    const PortState& state = dataplane.port_states()[i];
    if (!state.problem.empty()) {
      out += fmt::format("port {}: {}\n", port.device(), state.problem);
      continue;
    }
    for (size_t m = 0; m < state.members.size(); ++m) {
      const std::string& problem = state.members[m].problem;
      if (problem.empty() || port.holder()) continue;
      out += fmt::format("port {}: {}: {}\n", port.device(), port.members()[m].device, problem);
    }
  }
  return out;
}

nlohmann::json last_dropped(const Dataplane& dataplane) {
  nlohmann::json out = nlohmann::json::array();
  const auto now_ms = static_cast<uint32_t>(monotonic_ns() / kNsPerMs);
  for (size_t worker = 0; worker < dataplane.workers().size(); ++worker) {
    for (const DroppedFrame& frame : dataplane.workers()[worker]->last_dropped()) {
      out.push_back(
          {{"worker", worker},
           {"ms_ago", now_ms - frame.at_ms},
           {"port", dataplane.ports()[frame.port].device()},
           {"bytes", frame.bytes},
           {"reason", name(frame.reason)},
           {"why", sentence(frame.reason)},
           {"head", fmt::format("{:02x}", fmt::join(frame.head.begin(), frame.head.begin() + frame.kept, ""))}});
    }
  }
  return out;
}

}  // namespace tidegate::l4
