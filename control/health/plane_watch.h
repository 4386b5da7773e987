// SPDX-License-Identifier: Apache-2.0
// PlaneWatch: on the control that leads, decides which planes of the edge are down, and writes verdicts
// ("plane/<node>/<plane>") like those on backends.
//
// It gets the state of its own planes from OwnPlanes, and of other hosts' planes from their controls (GET
// /v1/node/planes). A host that reports nothing for kHostSilentMs is silent. Only then the clients' path decides: TCP
// to the VIPs of a forwarder, to the addresses of a proxy, to the ports of a name server (`probes_of`). If a forwarder
// has only UDP services, its VIPs get the probes of the pools (udp, dns), else ICMP echo, which a forwarder answers
// itself. So a broken management network, or the restart of a control, takes no plane down.
//
// Invariants: a plane without a record is up, so a healthy edge writes nothing. A node without a management address
// cannot report and gets no verdicts. If several other hosts are all silent, and none of their addresses for clients
// can be reached, this control is itself cut off, and all verdicts stay. Worse verdicts are written at once, better
// verdicts after a wait (ReturnGuard).
//
// Threads: the control's loop.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "conf/model.h"
#include "conf/model/node.h"
#include "control/health/own_planes.h"
#include "control/health/plane_judge.h"
#include "control/health/probe.h"
#include "control/health/verdict_writer.h"
#include "control/host_state.h"
#include "control/observe/fleet.h"
#include "core/metrics.h"

namespace tidegate {

// The probes that reach a plane of a node as clients do: at most kMostProbes. Empty: nothing can be probed. If one of
// several forwarders holds a VIP, probing the VIP says something only about the holder. For a forwarder that shares
// such VIPs, only the VIPs that it holds count, because another forwarder answers for the others. `planes` is
// Snapshot::nodes.
std::vector<ProbeTarget> probes_of(const Model& model, const std::vector<NodeStatus>& planes, uint32_t node,
                                   PlaneKind kind);

class PlaneWatch {
 public:
  PlaneWatch(EventLoop& loop, HostState& host_state, Fleet& fleet, OwnPlanes& own, VerdictWriter& writer);
  ~PlaneWatch();

  // Uses the model in force. Call it for each version.
  void update();
  // Updates the verdicts. Call it when OwnPlanes has something new.
  void judge_all();
  size_t silent_hosts() const;

 private:
  struct Peer {
    explicit Peer(uint64_t now_ns) : hearing(now_ns) {}
    HostHearing hearing;
    OwnPlanes::Verdicts said;  // the last report of the host's control
    std::unique_ptr<HttpCall> stream;
    std::string buffer;
    bool ended = false;
    uint64_t connected_ns = 0, heard_ns = 0, probed_ns = 0, patience_ns = 0;
    // Attempts of the round in progress and of earlier rounds: an attempt must not be destroyed inside its own
    // callback.
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
  void say_cannot_probe(const std::string& asked, const std::string& why);
  bool is_cut_off(uint64_t now_ns) const;
  void judge(const std::string& node, const std::string& plane, const HealthVerdict& found);
  void remove_stale();
  const Node* find(const std::string& node) const;

  EventLoop& loop_;
  HostState& host_state_;
  Fleet& fleet_;
  OwnPlanes& own_;
  VerdictWriter& writer_;
  std::map<std::string, Peer> peers_;          // by node; this host is not in it
  std::map<std::string, ReturnGuard> guards_;  // by key
  Timer timer_;
  uint64_t last_tick_ns_ = 0;
  uint64_t cannot_probe_ns_ = 0;  // when it was last logged that a probe could not be sent; 0: never
  Counter& answered_;
  Counter& unanswered_;
  Counter& to_up_;
  Counter& to_draining_;
  Counter& to_down_;
};

}  // namespace tidegate
