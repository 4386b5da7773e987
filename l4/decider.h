// SPDX-License-Identifier: Apache-2.0
// Decider: a burst of frames in, a verdict for each out. The whole of a worker's thinking, without DPDK, without a
// clock, without system calls, so that it is tested and fuzzed as a function of bytes and time.
//
// A burst goes through in stages, so that the memory one packet needs is under way while another is worked on:
//   take_plain    if_plain, find the service: this is all for nearly every packet; else
//   classify      parse_frame, find the service; what is no service's packet is settled here (ARP, ND, the unwanted)
//   FlowBatch     hashes the flows of eight of them at a time; their places in the flow table are sent for
//   choose        for each service packet: the flow's backend by ConnTable, else by Maglev; its next hop is sent for
//   follow        ICMP and later fragments, which go after a flow that this very burst may have begun
//   address       for each chosen backend: rewrite to the next hop
// Threads: one Decider a worker. Tables may change between bursts, never within one.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "l4/announcer.h"
#include "l4/conflict_board.h"
#include "l4/conn_table.h"
#include "l4/counters.h"
#include "l4/flow_batch.h"
#include "l4/forwarding.h"
#include "l4/group_member.h"
#include "l4/neighbour.h"

namespace tidegate::l4 {

constexpr size_t kBurst = FlowBatch::kMost;

// A frame in a buffer of `capacity` bytes, borrowed for one call. An answer may be longer than its question. A frame
// whose priority tag was taken off begins kTagBytes later than it came.
struct Frame {
  uint8_t* data = nullptr;
  uint32_t bytes = 0;
  uint32_t capacity = 0;
  uint16_t port = 0;        // it came in by
  uint8_t asked = 0;        // workers that have already looked for its flow in vain
  bool learn_only = false;  // a copy of what another worker has answered: only what it says of neighbours counts here
};

enum class Verdict : uint8_t {
  drop,
  forward,    // to a backend
  relay,      // to a backend: an ICMP error about one of its flows
  answer,     // back by the port it came in
  punt,       // to the kernel, when there is a punt device
  consume,    // understood, nothing to send
  hand_over,  // to the next worker: the flow that it is about may be there
};

struct Outcome {
  Verdict verdict = Verdict::drop;
  DropReason reason = DropReason::none;  // of a drop
  uint16_t port = 0;                     // out
  bool share = false;                    // other workers should learn from it too
};

struct DeciderConfig {
  FlowHasher hasher{HashKey{}};
  std::vector<PortIdentity> ports;
  uint64_t flows = 262'144;
  bool punt_tap = false;  // frames that are not ours go to the kernel; its own addresses are its own business then
  uint32_t workers = 1;
  bool announces = true;            // one worker of a node says that VIPs are here
  NeighbourBoard* board = nullptr;  // of the same worker: whom it tells which neighbours are silent
  ConflictBoard* conflicts = nullptr;
};

class Decider {
 public:
  Decider(DeciderConfig config, WorkerCounters& counters);

  // Before the first burst under `tables`.
  void adopt(const ForwardingTables& tables, uint32_t now_ms);
  // A port was opened anew, perhaps with another MAC address. Between bursts.
  void set_ports(std::vector<PortIdentity> ports);
  // A link came back: says again who we are, and asks for whoever is not known.
  void introduce(uint32_t now_ms);
  // `count` is at most kBurst. Gives the port where every frame of the burst is to be forwarded, all by the same.
  std::optional<uint16_t> decide(const ForwardingTables& tables, Frame* frames, Outcome* outcomes, size_t count,
                                 uint32_t now_ms);
  // Neighbours' questions, sweeping of expired flows, gauges. Once a millisecond or seldomer.
  void tick(uint32_t now_ms, FrameSink& sink);

  // For explain: the flow as it is pinned now.
  std::optional<FlowEntry> flow(uint64_t hash, uint32_t now_ms);
  const Neighbours& neighbours() const { return neighbours_; }

 private:
  // A service's packet between the stages.
  struct Candidate {
    uint16_t frame = 0;  // index in the burst
    uint8_t family = 0;
    FlowEvent event = FlowEvent::data;
    bool first_fragment = false;  // has a view in views_
    BackendId backend = kNoBackend;
    const ServiceEntry* service = nullptr;
    const NextHop* hop = nullptr;  // of the backend, once it is chosen
  };

  bool take_plain(const ForwardingTables& tables, const Frame& frame, uint16_t index);
  void classify(const ForwardingTables& tables, Frame& frame, uint16_t index, Outcome& outcome, uint32_t now_ms);
  void add_candidate(uint16_t index, const ServiceEntry* service, const FlowTuple& tuple, FlowEvent event,
                     bool first_fragment);
  const ServiceEntry* find_service(const ForwardingTables& tables, const FlowTuple& tuple);
  Outcome settle_arp(const ForwardingTables& tables, Frame& frame, uint32_t now_ms);
  Outcome settle_nd(const ForwardingTables& tables, Frame& frame, const PacketView& view, uint32_t now_ms);
  Outcome settle_conflict(const Frame& frame, const NeighbourMessage& message, uint32_t now_ms);
  Outcome settle_mld_query(const Frame& frame, const PacketView& view, uint32_t now_ms);
  Outcome settle_neighbour_message(const ForwardingTables& tables, Frame& frame, const NeighbourMessage& message,
                                   uint32_t now_ms);
  Outcome settle_follower(const ForwardingTables& tables, Frame& frame, const PacketView& view, uint32_t now_ms);
  Outcome settle_icmp(const ForwardingTables& tables, Frame& frame, const PacketView& view, uint32_t now_ms);
  Outcome relay_icmp_error(const ForwardingTables& tables, Frame& frame, const PacketView& view, uint32_t now_ms);
  Outcome settle_later_fragment(const ForwardingTables& tables, Frame& frame, const PacketView& view, uint32_t now_ms);
  Outcome settle_without_service(const ForwardingTables& tables, const PacketView& view) const;
  void choose(const ForwardingTables& tables, Candidate& candidate, uint64_t hash, const Frame& frame, uint32_t now_ms);
  BackendId choose_anew(const Candidate& candidate, uint64_t hash, const Frame& frame, FlowEntry* entry, bool reopened,
                        uint32_t now_ms);
  BackendId pick(const Candidate& candidate, uint64_t hash, const Frame& frame) const;
  void remember_fragments(const PacketView& view, BackendId backend, uint32_t now_ms);
  // Rewrites the frame to its next hop and gives the port by which it goes, or says why it cannot go.
  static DropReason address(BackendId backend, const NextHop& hop, const Frame& frame, uint16_t& port);
  Outcome addressed(const ForwardingTables& tables, BackendId backend, uint8_t family, Frame& frame);

  DeciderConfig config_;
  std::vector<uint64_t> own_macs_;  // by port, as mac_word gives them
  WorkerCounters& counters_;
  FlowBatch batch_;
  ConnTable flows_;
  Neighbours neighbours_;
  Announcer announcer_;
  GroupMember groups_;
  uint32_t swept_ms_ = 0;
  std::array<PacketView, kBurst> views_;
  std::array<Candidate, kBurst> candidates_;
  std::array<uint64_t, kBurst> hashes_;     // of the candidates' flows
  std::array<uint16_t, kBurst> followers_;  // indexes in the burst
  size_t candidate_count_ = 0, follower_count_ = 0;
  bool moved_ = false;                           // some frame of the burst begins elsewhere than it came
  LookupKey asked_key_;                          // of the burst's last question for a service
  const ServiceEntry* asked_service_ = nullptr;  // null: nothing was asked yet, or there is none
};

}  // namespace tidegate::l4
