// SPDX-License-Identifier: Apache-2.0
#include "l4/port_metrics.h"

#include <fmt/format.h>

#include <utility>

#include "core/metrics.h"

namespace tidegate::l4 {

namespace {

// Of bonds. A further VLAN of a bond has no members of its own.
void append_members(std::string& out, const std::vector<Port>& ports, const std::vector<PortState>& states) {
  const auto append = [&](const char* name, const char* type, const char* help, auto&& value_of) {
    bool is_first = true;
    for (size_t i = 0; i < ports.size(); ++i) {
      const std::vector<PortMember>& members = ports[i].members();
      for (size_t m = 0; m < members.size() && m < states[i].members.size(); ++m) {
        if (std::exchange(is_first, false)) {
          out += fmt::format("# HELP tidegate_l4_{0} {1}\n# TYPE tidegate_l4_{0} {2}\n", name, help, type);
        }
        out += fmt::format("tidegate_l4_{}{} {}\n", name,
                           render_labels({{"port", ports[i].device()}, {"member", members[m].device}}),
                           value_of(ports[i], states[i].members[m], m));
      }
    }
  };
  append("port_member_up", "gauge", "1 while the link of the bond's member is up",
         [](const Port&, const MemberState& state, size_t) { return state.problem.empty() ? 1 : 0; });
  append("port_member_used", "gauge", "1 while the bond sends and receives by the member",
         [](const Port&, const MemberState& state, size_t) { return state.in_bond.used ? 1 : 0; });
  append("port_member_received_packets_total", "counter", "Frames received by the member, as its device counts",
         [](const Port& port, const MemberState&, size_t m) { return port.member_counts(m).received; });
  append("port_member_sent_packets_total", "counter", "Frames sent by the member, as its device counts",
         [](const Port& port, const MemberState&, size_t m) { return port.member_counts(m).sent; });
}

}  // namespace

void append_port_metrics(std::string& out, const std::vector<Port>& ports, const std::vector<PortState>& states,
                         uint64_t silent_neighbours) {
  const auto append_of = [&](bool devices_only, const char* name, const char* type, const char* help, auto&& value_of) {
    out += fmt::format("# HELP tidegate_l4_{0} {1}\n# TYPE tidegate_l4_{0} {2}\n", name, help, type);
    for (size_t i = 0; i < ports.size(); ++i) {
      if (devices_only && ports[i].holder()) continue;
      out += fmt::format("tidegate_l4_{}{} {}\n", name, render_labels({{"port", ports[i].device()}}),
                         value_of(ports[i], states[i]));
    }
  };
  const auto append = [&](auto... rest) { append_of(false, rest...); };
  // A device counts the frames of all its VLANs together.
  const auto append_count = [&](auto... rest) { append_of(true, rest...); };
  out += "# HELP tidegate_l4_port_info The driver of each port\n# TYPE tidegate_l4_port_info gauge\n";
  for (const Port& port : ports) {
    out += fmt::format(
        "tidegate_l4_port_info{} 1\n",
        render_labels({{"port", port.device()}, {"driver", port.driver()}, {"mac", port.identity().mac.to_string()}}));
  }
  append("port_up", "gauge", "1 while the port is used in decisions",
         [](const Port&, const PortState& state) { return state.problem.empty() ? 1 : 0; });
  append("port_link", "gauge", "1 while the port's link is up",
         [](const Port&, const PortState& state) { return state.link ? 1 : 0; });
  append("port_program", "gauge", "1 while the XDP program that feeds the port is attached, or none is needed",
         [](const Port&, const PortState& state) { return state.program ? 1 : 0; });
  append("port_reopened_total", "counter", "Times that the port's device was opened again",
         [](const Port&, const PortState& state) { return state.reopened; });
  append_count("port_received_packets_total", "counter", "Frames received, as the device counts",
               [](const Port& port, const PortState&) { return port.counts().received; });
  append_count("port_sent_packets_total", "counter", "Frames sent, as the device counts",
               [](const Port& port, const PortState&) { return port.counts().sent; });
  append_count("port_missed_packets_total", "counter",
               "Frames that the device dropped: its receive queue was full, or they were larger than a buffer",
               [](const Port& port, const PortState&) { return port.counts().missed; });
  append_count("port_receive_errors_total", "counter", "Frames received with errors",
               [](const Port& port, const PortState&) { return port.counts().receive_errors; });
  append_count("port_no_buffers_total", "counter", "Frames dropped for want of a packet buffer",
               [](const Port& port, const PortState&) { return port.counts().no_buffers; });
  append_count("port_send_errors_total", "counter", "Frames that the device could not send",
               [](const Port& port, const PortState&) { return port.counts().send_errors; });
  append_members(out, ports, states);
  out += fmt::format(
      "# HELP tidegate_l4_neighbours_silent Backends and gateways that do not answer for their MAC address\n"
      "# TYPE tidegate_l4_neighbours_silent gauge\ntidegate_l4_neighbours_silent {}\n",
      silent_neighbours);
}

}  // namespace tidegate::l4
