// SPDX-License-Identifier: Apache-2.0
// ReplicaSource: the leader's side of replication. GET /v1/replica is a stream of NDJSON lines. It begins with what the
// follower does not have. Then it sends each commit as soon as it is made. The line of a large version is written
// outside of the loop. Until it is sent, the lines after it wait.
//
// A follower tells which version it has, with the digest of its content. If this host still keeps that version, only
// the changes since are sent, to a follower that reads changes. Otherwise the whole manifest is sent.
//
//   {"type":"hello","node","head"}                       once
//   {"type":"version","manifest",{"objects":{hash:b64}}} the version in force; small objects that are new come along
//   {"type":"version","manifest","changes"}              the same without the manifest's entries, for a follower that
//   says
//                                                        that it reads changes: a candidate (conf/candidate.h) from the
//                                                        version that it has; objects that are large do not come along
//   {"type":"words","words","issued",{"objects"}}        all words, whole; ordered certificates that are new come along
//   {"type":"purge","purge"}                             each, in order
//   {"type":"alive"}                                     every kAliveMs, so that a dead link is noticed
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "control/api/background.h"
#include "control/api/route_table.h"
#include "control/host_state.h"
#include "control/vote/provisional_versions.h"
#include "core/event_loop.h"

namespace tidegate {

class ReplicaSource {
 public:
  static constexpr uint64_t kAliveMs = 1'000;
  // Bound for objects in one line. Others are fetched by POST /v1/objects.
  static constexpr size_t kMaxInlineBytes = 256 << 10;
  // If there are more changes, the line has the whole manifest, which is then shorter.
  static constexpr size_t kMaxChanges = 1'000;
  // With more entries, a version's line takes milliseconds.
  static constexpr size_t kEntriesWrittenAtOnce = 100;
  // A field of the follower's request, with this value: it reads changes. Earlier releases neither send nor know it.
  static constexpr const char* kFormField = "Tidegate-Replica";
  static constexpr const char* kFormChanges = "changes";
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
    std::shared_ptr<const Manifest> sent_manifest;  // of the version that was sent last on this stream; null: none
    std::string has_digest;  // digest of the version that the follower says it has, `sent.version`; empty: none
    bool reads_changes = false;
    bool writing = false;                // a version's line is being written; what follows waits
    uint64_t confirmed = 0;              // a version whose confirmation must still be sent to the follower; 0: none
    std::set<std::string> sent_objects;  // objects of ordered certificates, by hash, that the follower has by now
    bool gone = false;
  };

  using StreamPtr = std::shared_ptr<Stream>;
  using Line = std::shared_ptr<const std::string>;
  // A version's line, for all streams that have the same version now.
  struct VersionLine {
    std::shared_ptr<const Manifest> from, to;  // `from` may be null
    bool as_changes = false;
    std::optional<ProvisionalVersion> provisional;
    std::vector<StreamPtr> streams;
    // Without `from`: the version that the followers say they have.
    uint64_t has_version = 0;
    std::string has_digest = {};
  };

  static Line write_line(const StateStore& store, const VersionLine& version);
  static std::shared_ptr<const Manifest> kept_manifest(const StateStore& store, const VersionLine& version);
  void open(const ApiCall& call);
  void send_objects(const ApiCall& call);
  void push_all();
  void push(const StreamPtr& stream);
  void push_live_state(Stream& stream);
  void push_version(const StreamPtr& stream);
  void send_version(VersionLine& version, const Line& line);
  void write(Stream& stream, const nlohmann::json& line);
  void sweep();
  void keep_alive();

  HostState& host_state_;
  const ProvisionalVersions& provisionals_;
  std::string node_;
  std::map<uint64_t, StreamPtr> streams_;
  uint64_t next_id_ = 0;
  std::vector<std::shared_ptr<VersionLine>> writing_;
  Timer alive_;
  Background lines_;
};

}  // namespace tidegate
