// SPDX-License-Identifier: Apache-2.0
// PlaneWatch: the control that leads decides which planes of the edge are down, and writes it as verdicts
// ("plane/<node>/<plane>"), of the same kind as those of backends.
//
// It hears its own planes from OwnPlanes and those of other hosts from their controls (GET /v1/node/planes). A host
// that says nothing for kHostSilentMs is silent. Then, and only then, the way of its clients decides: TCP to the VIPs
// of a forwarder, to the addresses of a proxy, to the ports of a name server (`probes_of`). So a management network
// that is cut, or a control that is started again, takes nobody down.
//
// Invariants: a plane without a record is up, so a healthy edge writes nothing. A node without a management address
// cannot be heard and is never judged. If this control hears none of several hosts and reaches none of their clients'
// addresses, it is itself cut off, and all verdicts hold. What is worse is written at once, what is better after a wait
// (ReturnGuard).
//
// Threads: the control's loop.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "control/health/own_planes.h"
#include "control/health/plane_judge.h"
#include "control/health/probe.h"
#include "control/health/verdict_writer.h"
#include "control/host_state.h"
#include "control/observe/fleet.h"
#include "core/metrics.h"

namespace tidegate {

// The addresses at which clients reach a plane of a node. Empty: no TCP leads there, so nothing can be said.
// A VIP that one of several forwarders holds says something about its holder alone, and is the only one that counts for
// a forwarder that shares such a VIP: another one would answer for it. `planes` is Snapshot::nodes.
std::vector<Endpoint> probes_of(const Model& model, const std::vector<NodeStatus>& planes, uint32_t node,
                                PlaneKind kind);

class PlaneWatch {
 public:
  PlaneWatch(EventLoop& loop, HostState& host_state, Fleet& fleet, OwnPlanes& own, VerdictWriter& writer);
  ~PlaneWatch();

  // Takes the model in force. Call it for each version.
  void update();
  // Compares what is known with the verdicts. Call it when OwnPlanes has something new.
  void judge_all();
  size_t silent_hosts() const;

 private:
  struct Peer {
    explicit Peer(uint64_t now_ns) : hearing(now_ns) {}
    HostHearing hearing;
    OwnPlanes::Verdicts said;  // by the host's control, when it was heard last
    std::unique_ptr<HttpCall> stream;
    std::string buffer;
    bool ended = false;
    uint64_t connected_ns = 0, heard_ns = 0, probed_ns = 0, patience_ns = 0;
    // Of the round that is under way, and of those that are over: an attempt may not end inside its own callback.
    std::vector<std::unique_ptr<ProbeAttempt>> attempts;
    size_t under_way = 0;
  };
  // The answers to one question: does any of a plane's addresses answer?
  struct Round;

  void tick();
  void connect(const std::string& node, Peer& peer);
  void take(Peer& peer, std::string_view bytes);
  void take_line(Peer& peer, std::string_view line);
  void probe(const std::string& node, Peer& peer);
  bool is_cut_off(uint64_t now_ns) const;
  void judge(const std::string& node, const std::string& plane, const HealthVerdict& found);
  void remove_stale();
  const Node* find(const std::string& node) const;

  EventLoop& loop_;
  HostState& host_state_;
  Fleet& fleet_;
  OwnPlanes& own_;
  VerdictWriter& writer_;
  std::map<std::string, Peer> peers_;          // by node, without this host's
  std::map<std::string, ReturnGuard> guards_;  // by key
  Timer timer_;
  uint64_t last_tick_ns_ = 0;
  Counter& answered_;
  Counter& unanswered_;
  Counter& to_up_;
  Counter& to_draining_;
  Counter& to_down_;
};

}  // namespace tidegate
