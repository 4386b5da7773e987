// SPDX-License-Identifier: Apache-2.0
#include "l4/metrics.h"

#include <fmt/format.h>

#include "core/clock.h"
#include "core/metrics.h"
#include "l4/action.h"

namespace tidegate::l4 {
namespace {

using Workers = std::vector<const WorkerCounters*>;

struct MetricRow {
  const char* name;
  const char* type;
  const char* help;
  OwnedCounter WorkerCounters::*counter;
};

constexpr MetricRow kRows[] = {
    {"received_packets_total", "counter", "Frames received", &WorkerCounters::received_packets},
    {"received_bytes_total", "counter", "Bytes received, without FCS", &WorkerCounters::received_bytes},
    {"sent_packets_total", "counter", "Frames sent, of whatever kind", &WorkerCounters::sent_packets},
    {"sent_bytes_total", "counter", "Bytes sent, without FCS", &WorkerCounters::sent_bytes},
    {"forwarded_packets_total", "counter", "Frames forwarded to backends", &WorkerCounters::forwarded_packets},
    {"forwarded_bytes_total", "counter", "Bytes forwarded to backends", &WorkerCounters::forwarded_bytes},
    {"answered_packets_total", "counter", "ARP, ND and echo answered", &WorkerCounters::answered_packets},
    {"punted_packets_total", "counter", "Frames passed up to the kernel", &WorkerCounters::punted_packets},
    {"consumed_packets_total", "counter", "Frames that were for the forwarder itself and need no answer",
     &WorkerCounters::consumed_packets},
    {"unsent_packets_total", "counter", "Frames of its own, and of the kernel, that could not be sent",
     &WorkerCounters::unsent_packets},
    {"mld_reports_total", "counter", "Reports of multicast groups sent, so that switches pass on who looks for a VIP",
     &WorkerCounters::mld_reports},
    {"icmp_relayed_packets_total", "counter", "ICMP errors relayed to the flow's backend",
     &WorkerCounters::icmp_relayed_packets},
    {"handed_over_packets_total", "counter", "Frames passed to another worker", &WorkerCounters::handed_over_packets},
    {"too_big_packets_total", "counter", "Senders told by ICMP that their packet does not fit into its tunnel",
     &WorkerCounters::too_big_packets},
    {"second_chance_packets_total", "counter",
     "Frames of connections that did not begin here, which also name the backend that the table before picks",
     &WorkerCounters::second_chance_packets},
    {"flows_created_total", "counter", "Flows recorded", &WorkerCounters::flows_created},
    {"flows_repicked_total", "counter", "Flows moved because their backend went down", &WorkerCounters::flows_repicked},
    {"flows_untracked_total", "counter", "New flows that found no place in the flow table",
     &WorkerCounters::flows_untracked},
    {"flows_evicted_total", "counter", "Flows not assured yet that made place for new ones",
     &WorkerCounters::flows_evicted},
    {"flows_inherited_total", "counter", "Flows taken over from the process before", &WorkerCounters::flows_inherited},
    {"flows_not_inherited_total", "counter", "Flows of the process before that were damaged or without a known backend",
     &WorkerCounters::flows_not_inherited},
    {"flows_taken_over_total", "counter", "Flows that another forwarder told about, and whose packets then came here",
     &WorkerCounters::flows_taken_over},
    {"flows", "gauge", "Flows in the table", &WorkerCounters::flows_live},
    {"fragmented", "gauge", "Fragmented datagrams whose later fragments would be recognised",
     &WorkerCounters::fragmented},
    {"neighbours", "gauge", "Backends and gateways to resolve", &WorkerCounters::neighbours},
    {"neighbours_resolved", "gauge", "Backends and gateways whose MAC address is known",
     &WorkerCounters::neighbours_resolved},
};

void append_head(std::string& out, const char* name, const char* type, const char* help) {
  out += fmt::format("# HELP tidegate_l4_{} {}\n# TYPE tidegate_l4_{} {}\n", name, help, name, type);
}

template <class Read>
uint64_t sum(const Workers& workers, Read&& read) {
  uint64_t total = 0;
  for (const WorkerCounters* worker : workers) total += read(*worker);
  return total;
}

void append_drops(std::string& out, const Workers& workers) {
  append_head(out, "dropped_packets_total", "counter", "Frames dropped, by reason");
  for (size_t i = 1; i < kDropReasons; ++i) {
    const uint64_t dropped = sum(workers, [i](const WorkerCounters& w) { return w.dropped_packets[i].value(); });
    out += fmt::format("tidegate_l4_dropped_packets_total{{reason=\"{}\"}} {}\n", name(static_cast<DropReason>(i)),
                       dropped);
  }
}

void append_tunnels(std::string& out, const Workers& workers) {
  append_head(out, "tunnelled_packets_total", "counter", "Frames that got an outer header, by mode");
  for (const Forwarding mode : {Forwarding::ipip, Forwarding::gue, Forwarding::vxlan}) {
    const uint64_t packets =
        sum(workers, [&](const WorkerCounters& w) { return w.tunnelled_packets[static_cast<size_t>(mode)].value(); });
    out += fmt::format("tidegate_l4_tunnelled_packets_total{{mode=\"{}\"}} {}\n", name(mode), packets);
  }
}

void append_backends(std::string& out, const Workers& workers, const BackendIds& backends) {
  const auto append = [&](const char* what, const char* help, std::vector<OwnedCounter> BackendCounters::*counters) {
    append_head(out, what, "counter", help);
    backends.for_each([&](const BackendKey& key, BackendId id) {
      const uint64_t value =
          sum(workers, [&](const WorkerCounters& w) { return (w.backends.*counters)[index_of(id)].value(); });
      out += fmt::format("tidegate_l4_{}{} {}\n", what, render_labels({{"pool", key.first}, {"backend", key.second}}),
                         value);
    });
  };
  append("backend_flows_total", "New flows given to the backend", &BackendCounters::flows);
  append("backend_packets_total", "Frames forwarded to the backend", &BackendCounters::packets);
}

void append_worker_times(std::string& out, const Workers& workers) {
  const auto append = [&](const char* what, const char* help, OwnedCounter WorkerCounters::*counter) {
    append_head(out, what, "counter", help);
    for (size_t i = 0; i < workers.size(); ++i) {
      out += fmt::format("tidegate_l4_{}{{worker=\"{}\"}} {:.6f}\n", what, i,
                         static_cast<double>((workers[i]->*counter).value()) / static_cast<double>(kNsPerS));
    }
  };
  append("worker_busy_seconds_total", "Time spent on bursts that held frames", &WorkerCounters::busy_ns);
  append("worker_elapsed_seconds_total", "Time since the worker began: busy over elapsed is its load",
         &WorkerCounters::elapsed_ns);
}

}  // namespace

void append_metrics(std::string& out, const Workers& workers, const ForwardingTables& tables,
                    const BackendIds& backends) {
  for (const MetricRow& row : kRows) {
    append_head(out, row.name, row.type, row.help);
    out += fmt::format("tidegate_l4_{} {}\n", row.name,
                       sum(workers, [&](const WorkerCounters& w) { return (w.*row.counter).value(); }));
  }
  append_drops(out, workers);
  append_tunnels(out, workers);
  append_backends(out, workers, backends);
  append_worker_times(out, workers);
  append_head(out, "services", "gauge", "Services in force, each family of a VIP counted");
  out += fmt::format("tidegate_l4_services {}\n", tables.services.size());
  append_head(out, "local_addresses", "gauge", "VIP and own addresses answered for");
  out += fmt::format("tidegate_l4_local_addresses {}\n", tables.local->addresses.size());
  append_head(out, "multicast_groups", "gauge", "Solicited-node groups of VIP and own addresses");
  out += fmt::format("tidegate_l4_multicast_groups {}\n", tables.local->groups.size());
}

}  // namespace tidegate::l4
