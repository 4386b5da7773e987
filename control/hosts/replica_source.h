// SPDX-License-Identifier: Apache-2.0
// ReplicaSource: the leader's side of replication. GET /v1/replica is a stream of NDJSON lines. It begins with what the
// follower does not have. Then it sends each commit as soon as it is made.
//
//   {"type":"hello","node","head"}                       once
//   {"type":"version","manifest",{"objects":{hash:b64}}} the version in force; small objects that are new come along
//   {"type":"words","words","issued",{"objects"}}        all words, whole; ordered certificates that are new come along
//   {"type":"purge","purge"}                             each, in order
//   {"type":"alive"}                                     every kAliveMs, so that a dead link is noticed
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "control/api/route_table.h"
#include "control/host_state.h"
#include "control/vote/provisional_versions.h"
#include "core/event_loop.h"

namespace tidegate {

class ReplicaSource {
 public:
  static constexpr uint64_t kAliveMs = 1'000;
  // Bound for objects in one line. Larger ones are fetched by GET /v1/objects/{hash}.
  static constexpr size_t kMaxInlineBytes = 256 << 10;
  static constexpr size_t kPurgesAtOnce = 1'000;

  ReplicaSource(EventLoop& loop, HostState& host_state, const ProvisionalVersions& provisionals, std::string node);
  void add_routes(RouteTable& table);
  // Tells every follower that the version in force was confirmed.
  void say_confirmed();
  size_t followers() const { return streams_.size(); }

 private:
  struct Stream {
    HttpExchangePtr exchange;
    StateHead sent;
    std::vector<ManifestEntry> sent_entries;  // entries of the version that was sent last on this stream
    std::set<std::string> sent_objects;       // objects of ordered certificates, by hash, that the follower has by now
    bool gone = false;
  };

  void open(const ApiCall& call);
  void push_all();
  void push(Stream& stream);
  void push_live_state(Stream& stream);
  void push_version(Stream& stream);
  void write(Stream& stream, const nlohmann::json& line);
  void sweep();
  void keep_alive();

  HostState& host_state_;
  const ProvisionalVersions& provisionals_;
  std::string node_;
  std::map<uint64_t, std::shared_ptr<Stream>> streams_;
  uint64_t next_id_ = 0;
  Timer alive_;
};

}  // namespace tidegate
