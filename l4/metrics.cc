// SPDX-License-Identifier: Apache-2.0
#include "l4/metrics.h"

#include <fmt/format.h>

#include "conf/model.h"
#include "conf/model/service.h"
#include "conf/model/site.h"
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
    {"resets_total", "counter", "RST sent for packets of unknown flows", &WorkerCounters::resets},
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

// One metric with a line for each (labels, value) that `lines` passes to its argument.
template <class Lines>
void append_labelled(std::string& out, const char* name, const char* help, Lines&& lines) {
  append_head(out, name, "counter", help);
  lines([&](const std::string& labels, uint64_t value) {
    out += fmt::format("tidegate_l4_{}{} {}\n", name, labels, value);
  });
}

void append_drops(std::string& out, const Workers& workers) {
  const auto append = [&](const char* what, const char* help,
                          std::array<OwnedCounter, kDropReasons> WorkerCounters::*counters) {
    append_labelled(out, what, help, [&](auto&& line) {
      for (size_t i = 1; i < kDropReasons; ++i) {
        line(fmt::format("{{reason=\"{}\"}}", name(static_cast<DropReason>(i))),
             sum(workers, [&](const WorkerCounters& w) { return (w.*counters)[i].value(); }));
      }
    });
  };
  append("dropped_packets_total", "Frames dropped, by reason", &WorkerCounters::dropped_packets);
  append("dropped_bytes_total", "Bytes of frames dropped, by reason", &WorkerCounters::dropped_bytes);
}

void append_tunnels(std::string& out, const Workers& workers) {
  const auto append = [&](const char* what, const char* help, OwnedCounter Traffic::*counter) {
    append_labelled(out, what, help, [&](auto&& line) {
      for (const Forwarding mode : {Forwarding::ipip, Forwarding::gue, Forwarding::vxlan}) {
        line(fmt::format("{{mode=\"{}\"}}", name(mode)), sum(workers, [&](const WorkerCounters& w) {
               return (w.tunnelled[static_cast<size_t>(mode)].*counter).value();
             }));
      }
    });
  };
  append("tunnelled_packets_total", "Frames that got an outer header, by mode", &Traffic::packets);
  append("tunnelled_bytes_total", "Bytes of these frames, with the outer header", &Traffic::bytes);
}

void append_backends(std::string& out, const Workers& workers, const BackendIds& backends) {
  const auto append = [&](const char* what, const char* help, auto&& read) {
    append_labelled(out, what, help, [&](auto&& line) {
      backends.for_each([&](const BackendKey& key, BackendId id) {
        line(render_labels({{"pool", key.first}, {"backend", key.second}}),
             sum(workers, [&](const WorkerCounters& w) { return read(w.backends, index_of(id)).value(); }));
      });
    });
  };
  using Counters = const BackendCounters&;
  append("backend_flows_total", "New flows given to the backend",
         [](Counters c, size_t id) -> const OwnedCounter& { return c.flows[id]; });
  append("backend_packets_total", "Frames forwarded to the backend",
         [](Counters c, size_t id) -> const OwnedCounter& { return c.forwarded[id].packets; });
  append("backend_bytes_total", "Bytes of frames forwarded to the backend",
         [](Counters c, size_t id) -> const OwnedCounter& { return c.forwarded[id].bytes; });
}

// The services in force. Both families of a service have the same counters.
void append_services(std::string& out, const Workers& workers, const ForwardingTables& tables) {
  const Model& model = *tables.snapshot->model;
  const auto append = [&](const char* what, const char* help, auto&& read) {
    append_labelled(out, what, help, [&](auto&& line) {
      for (size_t i = 0; i < tables.services.size(); ++i) {
        const ServiceEntry& entry = tables.services[i];
        if (i != 0 && tables.services[i - 1].id == entry.id) continue;
        const Service& service = model.services[entry.service];
        line(render_labels({{"service", service.name}, {"vip", model.vips[service.vip].name}}),
             sum(workers, [&](const WorkerCounters& w) { return read(w.services[index_of(entry.id)]).value(); }));
      }
    });
  };
  using Counters = const ServiceCounters&;
  append("service_flows_total", "New flows of the service", [](Counters c) -> const OwnedCounter& { return c.flows; });
  append("service_packets_total", "Frames forwarded for the service",
         [](Counters c) -> const OwnedCounter& { return c.forwarded.packets; });
  append("service_bytes_total", "Bytes of frames forwarded for the service",
         [](Counters c) -> const OwnedCounter& { return c.forwarded.bytes; });
  append("service_refused_packets_total", "Frames that the service's lists and bounds dropped",
         [](Counters c) -> const OwnedCounter& { return c.refused; });
}

void append_acls(std::string& out, const Workers& workers, const AclIds& acls) {
  append_labelled(out, "acl_packets_total", "Frames about whose client a list decided", [&](auto&& line) {
    acls.for_each([&](const std::string& list, AclId id) {
      const auto of = [&](OwnedCounter AclCounters::*counter) {
        return sum(workers, [&](const WorkerCounters& w) { return (w.acls[index_of(id)].*counter).value(); });
      };
      line(render_labels({{"acl", list}, {"decision", "allowed"}}), of(&AclCounters::allowed));
      line(render_labels({{"acl", list}, {"decision", "denied"}}), of(&AclCounters::denied));
    });
  });
}

void append_worker_traffic(std::string& out, const Workers& workers) {
  const auto append = [&](const char* what, const char* help, OwnedCounter WorkerCounters::*counter) {
    append_labelled(out, what, help, [&](auto&& line) {
      for (size_t i = 0; i < workers.size(); ++i) {
        line(fmt::format("{{worker=\"{}\"}}", i), (workers[i]->*counter).value());
      }
    });
  };
  append("worker_received_packets_total", "Frames that the worker received", &WorkerCounters::received_packets);
  append("worker_received_bytes_total", "Bytes that the worker received", &WorkerCounters::received_bytes);
  append("worker_forwarded_packets_total", "Frames that the worker forwarded", &WorkerCounters::forwarded_packets);
  append("worker_forwarded_bytes_total", "Bytes that the worker forwarded", &WorkerCounters::forwarded_bytes);
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

void append_counter(std::string& out, const char* name, const char* help, uint64_t value) {
  out += fmt::format("# HELP {} {}\n# TYPE {} counter\n{} {}\n", name, help, name, name, value);
}

void append_metrics(std::string& out, const Workers& workers, const ForwardingTables& tables,
                    const CountedNames& names) {
  for (const MetricRow& row : kRows) {
    append_head(out, row.name, row.type, row.help);
    out += fmt::format("tidegate_l4_{} {}\n", row.name,
                       sum(workers, [&](const WorkerCounters& w) { return (w.*row.counter).value(); }));
  }
  append_counter(out, "tidegate_l4_sources_forgotten_total",
                 "Networks of clients forgotten while their bounds may have been in use",
                 sum(workers, [](const WorkerCounters& w) { return w.sources_forgotten.value(); }));
  append_drops(out, workers);
  append_tunnels(out, workers);
  append_services(out, workers, tables);
  append_backends(out, workers, names.backends);
  append_acls(out, workers, names.acls);
  append_worker_times(out, workers);
  append_worker_traffic(out, workers);
  append_head(out, "services", "gauge", "Services in force, each family of a VIP counted");
  out += fmt::format("tidegate_l4_services {}\n", tables.services.size());
  append_head(out, "local_addresses", "gauge", "VIP and own addresses answered for");
  out += fmt::format("tidegate_l4_local_addresses {}\n", tables.local->addresses.size());
  append_head(out, "multicast_groups", "gauge", "Solicited-node groups of VIP and own addresses");
  out += fmt::format("tidegate_l4_multicast_groups {}\n", tables.local->groups.size());
}

}  // namespace tidegate::l4
