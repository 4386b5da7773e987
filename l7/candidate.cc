// SPDX-License-Identifier: Apache-2.0
// A candidate in the proxy: what it needs is held until the version comes or the candidate is given up.
#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <iterator>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/worker_count.h"
#include "l7/fixed_keys.h"
#include "l7/proxy.h"

namespace tidegate::l7 {

Vote Proxy::hold(const std::shared_ptr<const Snapshot>& snapshot, const Node& node) {
  Vote vote = prepare_candidate(snapshot, node);
  if (!vote.yes()) release();
  return vote;
}

Vote Proxy::prepare_candidate(const std::shared_ptr<const Snapshot>& snapshot, const Node& node) {
  if (Result<void> paths = check_paths(started_as_, node, state_dir_); !paths) return Vote::no(paths.error().message);
  Result<Description> described = describe_for(snapshot, node);
  if (!described) return Vote::no(described.error().message);
  held_ = std::make_shared<const Description>(*std::move(described));
  for (TlsContexts& contexts : tls_) {
    if (const Result<void> made = contexts.hold(*held_); !made) return Vote::no(made.error().message);
  }
  if (tls_.empty()) {  // the first version: its workers are started with it
    if (const auto set = TlsContexts(tickets_).prepare(*held_); !set) return Vote::no(set.error().message);
  }
  const size_t workers = workers_.empty() ? worker_count(node.l7.workers) : workers_.size();
  if (Result<void> ports = hold_ports(*held_, workers); !ports) return Vote::no(ports.error().message);
  Vote vote;
  if (plan_) {
    // Keys that an earlier version changed are left out, because they wait for a restart already.
    const std::vector<std::string> changed = differences_fixed_at_start(plan_->this_node(), node);
    for (std::string& key : differences_fixed_at_start(started_as_, node)) {
      if (std::find(changed.begin(), changed.end(), key) != changed.end()) vote.needs_restart.push_back(std::move(key));
    }
  }
  return vote;
}

void Proxy::release() {
  held_ports_.clear();
  held_.reset();
  for (TlsContexts& contexts : tls_) contexts.release();
}

bool Proxy::has_port(const Endpoint& bind) const {
  return std::any_of(bound_.begin(), bound_.end(), [&](const auto& known) { return share_a_port(bind, known.second); });
}

// A port that this process has need not be held, because nobody can take it.
Result<void> Proxy::hold_ports(const Description& description, size_t workers) {
  for (const uint32_t index : description.listeners) {
    const Listener& listener = description.model().listeners[index];
    for (const Endpoint& bind : listener.bind) {
      if (bind.port == 0 || bound_.contains(bind) || held_ports_.holds(bind, SOCK_STREAM)) continue;
      const bool may_be_shared = (overlaps_ && !plan_) || has_port(bind) || held_ports_.meets(bind, SOCK_STREAM);
      Result<void> held = may_be_shared ? Result<void>() : check_port_is_free(bind, SOCK_STREAM);
      if (held) held = held_ports_.hold(bind, SOCK_STREAM, workers, kListenPort);
      if (held) continue;
      return fail(
          fmt::format("listener {}: cannot bind {}: {}", listener.name, bind.to_string(), held.error().message));
    }
  }
  return {};
}

}  // namespace tidegate::l7
