// SPDX-License-Identifier: Apache-2.0
// Fleet: how this control asks: its own host's planes over their admin sockets, other hosts' planes through the control
// at the node's management address. Every question has a bounded time and exactly one answer; who cannot be reached is
// said.
//
// Threads: the control's loop. Answers may come before the call returns.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "conf/model.h"
#include "control/host_state.h"
#include "control/peers.h"
#include "core/event_loop.h"
#include "core/http_client.h"
#include "core/result.h"

namespace tidegate {

struct FleetOptions {
  std::string node;     // this host's
  std::string run_dir;  // its planes' admin sockets
  Peers peers;          // the other controls
  uint64_t plane_timeout_ms = 500;
  uint64_t node_timeout_ms = 1'500;  // covers what the other control waits for its planes
};

class Fleet {
 public:
  using JsonAnswer = std::function<void(Result<nlohmann::json>)>;
  using HttpAnswer = std::function<void(Result<HttpResponse>)>;

  Fleet(EventLoop& loop, const HostState& host_state, FleetOptions options)
      : loop_(loop), host_state_(host_state), options_(std::move(options)) {}

  const std::string& own_node() const { return options_.node; }
  void set_peers(Peers peers) { options_.peers = std::move(peers); }
  // What this control adds to its node's status: role, leader.
  void set_self(std::function<nlohmann::json()> describe) { describe_self_ = std::move(describe); }

  // `target` is the plane's own: "/explain?client=...". An answer that is not 200 is an Error with what it said.
  void ask_plane(const std::string& node, const std::string& plane, const std::string& target, JsonAnswer answer);
  // This host's plane, answer unread.
  void ask_own_plane(const std::string& plane, const std::string& target, HttpAnswer answer);
  // {"name","head",...,"planes":[...],"unreachable":[{"plane","why"}]}: of this host.
  void own_status(JsonAnswer answer);
  // The whole edge: {"asked","head","digest","converged","nodes":[...]}; one element a node, unreachable ones included.
  void status(std::function<void(nlohmann::json)> answer);

  // "l4", "l7", "dns": what the configuration makes this node run.
  static std::vector<std::string> planes_of(const Node& node);

 private:
  void call(const HttpTarget& target, HttpClientRequest request, HttpAnswer answer);
  void ask_node(const Node& node, const std::string& target, JsonAnswer answer);
  void status_of(const std::string& node, JsonAnswer answer);
  const Node* find(const std::string& node) const;

  EventLoop& loop_;
  const HostState& host_state_;
  FleetOptions options_;
  std::function<nlohmann::json()> describe_self_;
  // Shared with the callbacks, which may outlive the Fleet inside the loop.
  std::shared_ptr<std::map<uint64_t, std::unique_ptr<HttpCall>>> calls_ =
      std::make_shared<std::map<uint64_t, std::unique_ptr<HttpCall>>>();
  uint64_t next_call_ = 0;
};

}  // namespace tidegate
