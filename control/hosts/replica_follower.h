// SPDX-License-Identifier: Apache-2.0
// ReplicaFollower: writes another control's stream (see replica_source.h) into this host's own state, version by
// version. This host's planes follow that state, as on every host. If the leader is gone, the last state stays in
// force. The follower connects again with growing pauses and continues where it was.
//
// Threads: the control's loop.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "control/api/background.h"
#include "control/host_state.h"
#include "control/hosts/long_lines.h"
#include "control/hosts/peers.h"
#include "control/vote/provisional_versions.h"
#include "core/event_loop.h"
#include "core/http_client.h"
#include "core/ip.h"

namespace tidegate {

class ReplicaFollower {
 public:
  static constexpr uint64_t kFirstPauseMs = 50;
  static constexpr uint64_t kLongestPauseMs = 2'000;
  static constexpr uint64_t kSilenceMs = 4'000;   // the leader sends a line every second
  static constexpr uint64_t kObjectsMs = 30'000;  // for an answer with many objects; a dead leader is silent before
  static constexpr size_t kMaxLineBytes = 64 << 20;
  // A longer line is read outside of the loop, because that takes milliseconds.
  static constexpr size_t kLineReadAtOnceBytes = 64 << 10;
  // The bound for a line that changes a version: with more entries it is read outside of the loop.
  static constexpr size_t kEntriesReadAtOnce = 100;

  ReplicaFollower(EventLoop& loop, HostState& host_state, ProvisionalVersions& provisionals, const Endpoint& leader,
                  Peers peers);
  ~ReplicaFollower();
  void start() { connect(); }
  void set_peers(Peers peers) { peers_ = std::move(peers); }  // used from the next connection on

  const Endpoint& leader() const { return leader_; }
  bool connected() const { return connected_; }
  // True if the follower is connected and no version is arriving.
  bool up_to_date() const { return connected_ && !arriving_; }
  const std::string& trouble() const { return trouble_; }  // why it is not connected; empty while it is

 private:
  // A version whose objects are being fetched.
  struct ArrivingVersion {
    Manifest manifest;
    std::optional<ProvisionalVersion> provisional;
    HostState::NewObjects objects;
    std::vector<std::string> missing;
  };
  // A line as it was read. Its JSON is null if it is a version.
  struct ReadLine {
    Result<nlohmann::json> json;
    std::optional<Result<ArrivingVersion>> version;
  };

  static Result<ArrivingVersion> read_version(const StateStore& store, const Manifest& in_force,
                                              const nlohmann::json& line);
  void connect();
  void reconnect(const std::string& why);
  void take(std::string_view bytes);
  void take_lines();
  void take_line(const nlohmann::json& line);
  void read_beside(std::function<ReadLine()> read);
  void take_live_state(const nlohmann::json& line);
  void take_version(Result<ArrivingVersion> version);
  void stored(uint64_t stream, uint64_t version, const Result<void>& result);
  void fetch_next();
  void fetch(std::vector<std::string> asked);
  void fetch_one(const std::string& hash);
  void take_objects(const std::vector<std::string>& asked, std::string answer);
  void store_version();
  HttpClientRequest request(std::string target) const;
  HttpTarget target() const { return peers_.target(leader_).value(); }  // load_peers() has checked that there is one
  // Ends the stream inside its own callback: the loop destroys it at the end of the iteration.
  void give_up(const std::string& why);

  EventLoop& loop_;
  HostState& host_state_;
  ProvisionalVersions& provisionals_;
  Endpoint leader_;
  Peers peers_;
  std::unique_ptr<HttpCall> stream_;
  std::unique_ptr<HttpCall> fetch_;
  nlohmann::json held_;     // a line that waits until the previous version is stored; null: none
  LongLines lines_;         // those that are not taken yet
  bool taking_ = false;     // take_lines() is running
  int working_ = 0;         // lines that are read or stored outside of the loop; the next lines wait
  uint64_t stream_id_ = 0;  // grows with each connection
  std::optional<ArrivingVersion> arriving_;
  uint64_t arrivals_ = 0;       // grows with each such version
  bool one_at_a_time_ = false;  // the leader is of a release that gives one object in a call
  Timer pause_;                 // pause before the next attempt; it also fires at once to leave a callback
  Timer silence_;
  uint64_t pause_ms_ = kFirstPauseMs;
  bool connected_ = false;
  bool giving_up_ = false;
  std::string trouble_ = "not connected yet";
  std::shared_ptr<ReplicaFollower*> self_ = std::make_shared<ReplicaFollower*>(this);  // null once it is destroyed
  Background reads_;
};

}  // namespace tidegate
