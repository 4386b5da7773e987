// SPDX-License-Identifier: Apache-2.0
// FlowSharing: exchanges assured flows with the other forwarders of the site, over UDP between the hosts' kernel
// addresses. So a forwarder that takes over a VIP keeps flows whose backend its hash table would no longer pick.
//
// Why UDP: a lost datagram costs nothing, because every flow is reported again in each round through the tables
// (kShareRoundMs; shorter for small tables, longer for large ones or if the rate is too low). Nothing waits for a dead
// or slow peer, and no forwarder keeps a copy of another forwarder's table.
//
// The control thread does all of this. It reads and teaches the workers' flow tables in slices, between two bursts.
// There is a connected socket for each peer, and one socket for datagrams from strangers. Each socket has its own queue
// and a limit of datagrams per second. So a flood blocks neither the main thread nor the queue of a peer, unless it is
// sent with that peer's address.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/event_loop.h"
#include "core/fd.h"
#include "core/result.h"
#include "l4/conn_table.h"
#include "l4/limits.h"
#include "l4/plan/forwarding.h"
#include "l4/plan/share_settings.h"
#include "l4/share/datagram.h"

namespace tidegate {
class Counter;
}

namespace tidegate::l4 {

class Dataplane;

class FlowSharing {
 public:
  FlowSharing(EventLoop& loop, const std::string& secret);
  ~FlowSharing();
  FlowSharing(const FlowSharing&) = delete;
  FlowSharing& operator=(const FlowSharing&) = delete;

  // Opens sockets if the settings changed. After an Error, each call tries again, and problem() says why.
  void configure(const std::optional<ShareSettings>& settings);
  // Checks that the node could listen at this address. Has no effect.
  static Result<void> try_listen(const Endpoint& listen);
  // Begins to use the tables of the workers. Null stops it. Call it with null before `dataplane` is destroyed.
  void use(const Dataplane* dataplane);
  // Call at the start, and when the ids in force or the longest time-out have changed.
  void learn_names(const KeptIds& ids);

  const std::string& problem() const { return problem_; }
  nlohmann::json status() const;

  static constexpr uint64_t kTickMs = 100, kShareRoundMs = 5'000;

 private:
  struct Peer;
  class Strangers;
  struct Counters;
  struct Cursor {
    uint64_t bucket = 0;
  };

  Result<void> open(const ShareSettings& settings);
  void close();
  void tick();
  void tell_flows(uint64_t elapsed_ms);
  void tell_flows_of(size_t worker, uint64_t elapsed_ms);
  void add_flow(const FlowEntry& flow, uint32_t now_ms);
  void send_datagram();
  void hear(Peer& peer, const uint8_t* datagram, size_t bytes);
  void take_lessons();
  uint64_t unread() const;

  EventLoop& loop_;
  std::string secret_;
  HashKey name_key_;
  Timer timer_;
  std::optional<ShareSettings> settings_;
  std::string problem_;
  const Dataplane* dataplane_ = nullptr;
  std::vector<uint64_t> words_;                  // by BackendId; 0: no backend has the id
  std::unordered_map<uint64_t, BackendId> ids_;  // by backend_word
  uint32_t longest_timeout_ms_ = 0;
  uint64_t epoch_ = 0, sequence_ = 0, ticked_ns_ = 0, sent_ns_ = 0;
  double budget_ = 0;            // flows that may still be sent now
  uint64_t ended_budget_ = 0;    // how many of these may be connections that have ended
  std::string key_;              // key for what this node sends
  std::vector<Cursor> cursors_;  // by worker
  size_t first_worker_ = 0;      // the worker with which the next tick begins
  std::vector<FlowEntry> slice_;
  std::array<SharedFlow, kMostSharedFlows> pending_;
  size_t pending_count_ = 0;
  std::vector<LearnedFlow> lessons_;
  std::vector<std::unique_ptr<Peer>> peers_;
  std::unique_ptr<Strangers> strangers_;
  uint64_t unread_before_ = 0;  // count of sockets that were closed
  std::unique_ptr<Counters> counters_;
};

}  // namespace tidegate::l4
