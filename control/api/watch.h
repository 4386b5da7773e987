// SPDX-License-Identifier: Apache-2.0
// Watch: GET /v1/watch, server-sent events (WHATWG HTML §9.2) for every change: version, live state, purge, applied.
// The id of an event is the head after it ("version.words.purge"). A client that sends the id as Last-Event-ID gets the
// events that it missed: each version, each purge, and the present live state. A watcher needs a descriptor, but no
// thread.
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "control/api/route_table.h"
#include "control/host_state.h"
#include "control/observe/fleet.h"
#include "core/event_loop.h"

namespace tidegate {

class Watch {
 public:
  static constexpr uint64_t kHeartbeatMs = 5'000;
  static constexpr uint64_t kAppliedPollMs = 10;  // used while planes are behind and there is a watcher
  static constexpr uint64_t kAppliedPatienceMs = 10'000;
  static constexpr size_t kMaxReplayed = 1'000;

  Watch(EventLoop& loop, HostState& host_state, Fleet& fleet);
  void add_routes(RouteTable& table);
  size_t watchers() const { return streams_.size(); }

 private:
  struct Stream {
    HttpExchangePtr exchange;
    StateHead sent;
    bool gone = false;
  };

  void open(const ApiCall& call);
  void on_change();
  void push(Stream& stream);
  void send(Stream& stream, const char* event, const nlohmann::json& data);
  void heartbeat();
  void sweep();
  // After a change: asks the planes until all have applied it, and sends an event for each one.
  void ask_applied();
  void push_applied(const nlohmann::json& status);

  HostState& host_state_;
  Fleet& fleet_;
  std::map<uint64_t, std::shared_ptr<Stream>> streams_;
  uint64_t next_id_ = 0;
  Timer heartbeat_;
  Timer applied_;
  uint64_t applied_until_ns_ = 0;
  bool asking_ = false;
  std::map<std::string, StateHead> applied_heads_;  // by "node/plane": the last one that was sent
};

// Parses "3.17.2". Returns nothing if it is not three numbers.
std::optional<StateHead> parse_event_id(std::string_view text);
std::string event_id(const StateHead& head);

}  // namespace tidegate
