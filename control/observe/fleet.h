// SPDX-License-Identifier: Apache-2.0
// Fleet: asks planes. It asks those of its own host over their admin sockets, and those of other hosts through the
// control at the node's management address. Every question has a time limit and exactly one answer. The answer names
// planes and hosts that could not be reached.
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
#include "conf/model/node.h"
#include "control/host_state.h"
#include "control/hosts/peers.h"
#include "core/event_loop.h"
#include "core/http_client.h"
#include "core/result.h"

namespace tidegate {

struct FleetOptions {
  std::string node;        // this host's
  bool node_told = false;  // the operator gave the name: it stays even if the configuration has only another node
  std::string run_dir;     // the directory of its planes' admin sockets
  Peers peers;             // the other controls
  uint64_t plane_timeout_ms = 500;
  uint64_t node_timeout_ms = 1'500;  // longer than the other control waits for its planes
};

class Fleet {
 public:
  using JsonAnswer = std::function<void(Result<nlohmann::json>)>;
  using HttpAnswer = std::function<void(Result<HttpResponse>)>;

  Fleet(EventLoop& loop, const HostState& host_state, FleetOptions options)
      : loop_(loop), host_state_(host_state), options_(std::move(options)) {}

  // This host's name in the configuration in force, by the same rule as in its planes: the given name, or the only
  // node, or the host's name.
  std::string own_node() const { return own_node(host_state_.model().get()); }
  std::string own_node(const Model* model) const;  // the name in another configuration; null: there is none
  void set_peers(Peers peers) { options_.peers = std::move(peers); }
  // Sets what this control adds to the status of its node: role, leader.
  void set_self(std::function<nlohmann::json()> describe) { describe_self_ = std::move(describe); }

  // `target` is a path of the plane: "/explain?client=...". An answer other than 200 is an Error with its text.
  void ask_plane(const std::string& node, const std::string& plane, const std::string& target, JsonAnswer answer);
  // Asks a plane of this host and passes its answer on unchanged.
  void ask_own_plane(const std::string& plane, const std::string& target, HttpAnswer answer);
  // Send a request to a plane of this host, and to the control of another host. They set only host and token.
  void send_to_plane(const std::string& plane, HttpClientRequest request, HttpAnswer answer);
  void send_to_node(const Node& node, HttpClientRequest request, HttpAnswer answer);
  // A stream from the control of another host. Null if the configuration does not say how to reach the node.
  std::unique_ptr<HttpCall> stream_from_node(const Node& node, const std::string& target,
                                             std::function<void(std::string_view)> on_data, HttpDone done);
  // Answers with {"name","head",...,"planes":[...],"unreachable":[{"plane","why"}]} of this host.
  void own_status(JsonAnswer answer);
  // Answers with the whole edge: {"asked","head","digest","converged","nodes":[...]}, including nodes that cannot be
  // reached.
  void status(std::function<void(nlohmann::json)> answer);

  // Returns the planes that this node runs by its configuration: "l4", "l7", "dns".
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
  // Callbacks share it, because they may live longer than the Fleet.
  std::shared_ptr<std::map<uint64_t, std::unique_ptr<HttpCall>>> calls_ =
      std::make_shared<std::map<uint64_t, std::unique_ptr<HttpCall>>>();
  uint64_t next_call_ = 0;
};

}  // namespace tidegate
