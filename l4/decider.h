// SPDX-License-Identifier: Apache-2.0
// Decider: takes a burst of frames and gives a verdict for each. It holds all decisions of a worker, without DPDK,
// without a clock and without system calls. So it can be tested and fuzzed as a function of bytes and time.
//
// A burst passes through stages. While one packet is processed, the memory for other packets is being loaded:
//    take_plain (stages.h)   reads the packet and finds its service. Nearly every packet needs only this; otherwise:
//    classify (classify.cc)  parse_frame, then the service. Other packets are settled here (ARP, ND, unwanted ones).
//    FlowBatch               hashes the flows eight at a time and prefetches their places in the flow table.
//    guard (guard.cc)        client lists and limits of services. Removes packets that may not pass.
//    choose (stages.h)       the flow's backend from ConnTable; of a new flow (choose.cc) from the hash table.
//    follow (follow.cc)      ICMP and later fragments. They follow a flow that this same burst may have begun.
//    act (decider.cc)        for each chosen backend: makes the frame ready to leave.
// Threads: one Decider per worker. Tables may change between bursts, never within one.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "l4/conflict_board.h"
#include "l4/conn_table.h"
#include "l4/counters.h"
#include "l4/drop_trace.h"
#include "l4/flow_batch.h"
#include "l4/flow_events.h"
#include "l4/fragment_table.h"
#include "l4/frame.h"
#include "l4/group_member.h"
#include "l4/kept_state.h"
#include "l4/neighbour.h"
#include "l4/observer.h"
#include "l4/plan/forwarding.h"
#include "l4/probe/board.h"
#include "l4/shared_bounds.h"
#include "l4/source_table.h"
#include "l4/vip_announcer.h"
#include "l4/vip_asker.h"

namespace tidegate::l4 {

constexpr size_t kBurst = FlowBatch::kMost;

enum class FrameVerdict : uint8_t {
  drop,
  forward,    // to a backend
  relay,      // to a backend: an ICMP error about one of its flows
  answer,     // out of the port it came in by
  punt,       // to the kernel, if there is a punt device
  consume,    // understood, nothing to send
  hand_over,  // to the next worker, which may have the flow to which the frame belongs
};

struct FrameOutcome {
  FrameVerdict verdict = FrameVerdict::drop;
  DropReason reason = DropReason::none;  // why it is dropped
  uint16_t port = 0;                     // the port it leaves by
  bool share = false;                    // other workers must also learn from it
};

struct DeciderConfig {
  FlowHasher hasher{HashKey{}};
  std::vector<PortIdentity> ports;
  uint64_t flows = 262'144;
  bool punt_tap = false;  // frames that are not ours go to the kernel, which then handles its own addresses itself
  uint32_t workers = 1;
  bool announces = true;            // one worker of a node announces the VIPs
  NeighbourBoard* board = nullptr;  // the announcing worker reports silent neighbours here
  ConflictBoard* conflicts = nullptr;
  ProbeBoard* probes = nullptr;  // probes ordered by control; null: none
  // the token buckets of services, shared by all workers; null: the Decider makes its own
  SharedBounds* bounds = nullptr;
  KeptMemory kept = {};  // memory of flows and neighbours that outlives the process, if there is any
};

class Decider {
 public:
  Decider(DeciderConfig config, WorkerCounters& counters);

  // Call before the first burst under `tables`.
  void adopt(const ForwardingTables& tables, uint32_t now_ms);
  // A port was opened again, perhaps with another MAC address. Call between bursts.
  void set_ports(std::vector<PortIdentity> ports);
  // A link came back: announces our addresses again, and asks for every neighbour that is not known.
  void introduce(uint32_t now_ms);
  // `count` is at most kBurst. If every frame of the burst is forwarded by the same port, returns that port. After
  // that, moved() says whether a frame now begins elsewhere in its buffer or has another length than on arrival.
  std::optional<uint16_t> decide(const ForwardingTables& tables, Frame* frames, FrameOutcome* outcomes, size_t count,
                                 uint32_t now_ms);
  bool moved() const { return moved_; }
  // Sends neighbour requests, sweeps expired flows, updates gauges. Call at most once a millisecond.
  void tick(uint32_t now_ms, FrameSink& sink);

  // Flows that another forwarder has reported. Call between bursts.
  void learn(const LearnedFlow* flows, size_t count, uint32_t now_ms, LessonCounts& counts);

  // For explain: the flow in the table, as it is now.
  std::optional<FlowEntry> flow(uint64_t hash, uint32_t now_ms);
  const Neighbours& neighbours() const { return neighbours_; }
  const ConnTable& flows() const { return flows_; }
  const DropTrace& dropped() const { return dropped_; }
  const FlowEvents& flow_events() const { return flow_events_; }
  // Sets the observer from the next burst on. Null: none.
  void observe(FrameObserver* observer) { observer_ = observer; }
  // For a dry run: adds a flow of another Decider.
  void preload(const FlowEntry& flow, uint32_t now_ms);
  void preload(const NeighbourView& neighbour, uint32_t now_ms);

 private:
  struct ServicePacket;
  std::optional<uint16_t> run_stages(const ForwardingTables& tables, Frame* frames, FrameOutcome* outcomes,
                                     size_t count, uint32_t now_ms);
  std::optional<uint16_t> decide_observed(const ForwardingTables& tables, Frame* frames, FrameOutcome* outcomes,
                                          size_t count, uint32_t now_ms);
  void tell_flow(const ServicePacket& packet, BackendId backend, const Frame& frame, uint32_t now_ms);
  // A packet of a service, between the stages.
  struct ServicePacket {
    uint16_t frame = 0;  // index in the burst
    uint8_t family = 0;
    FlowEvent event = FlowEvent::data;
    bool first_fragment = false;            // then its view is in views_
    bool handed_over = false;               // for a first fragment: another worker may have its flow
    bool unseen = false;                    // its flow did not begin here
    DropReason refused = DropReason::none;  // decided by the service's lists and limits
    BackendId backend = kNoBackend;
    const ServiceEntry* service = nullptr;
    const NextHop* hop = nullptr;    // of the chosen backend
    const Action* action = nullptr;  // its tunnel; null: the backend is on the link. Set if the tables have any.
    const Action* second =
        nullptr;  // the tunnel of the backend that the previous table would have picked. Set if `action` is.
  };

  bool take_plain(const ForwardingTables& tables, const Frame& frame, uint16_t index, uint64_t own_mac);
  void classify(const ForwardingTables& tables, Frame& frame, uint16_t index, FrameOutcome& outcome, uint32_t now_ms);
  void add_packet(uint16_t index, const ServiceEntry* service, const FlowTuple& tuple, FlowEvent event,
                  bool first_fragment);
  const ServiceEntry* find_service(const ForwardingTables& tables, const FlowTuple& tuple);
  FrameOutcome settle_arp(const ForwardingTables& tables, Frame& frame, uint32_t now_ms);
  FrameOutcome settle_nd(const ForwardingTables& tables, Frame& frame, const PacketView& view, uint32_t now_ms);
  FrameOutcome settle_conflict(const Frame& frame, const NeighbourMessage& message, uint32_t now_ms);
  FrameOutcome settle_mld_query(const Frame& frame, const PacketView& view, uint32_t now_ms);
  FrameOutcome settle_neighbour_message(const ForwardingTables& tables, Frame& frame, const NeighbourMessage& message,
                                        uint32_t now_ms);
  FrameOutcome settle_follower(const ForwardingTables& tables, Frame& frame, const PacketView& view, uint32_t now_ms);
  FrameOutcome settle_icmp(const ForwardingTables& tables, Frame& frame, const PacketView& view, uint32_t now_ms);
  FrameOutcome relay_icmp_error(const ForwardingTables& tables, Frame& frame, const PacketView& view, uint32_t now_ms);
  FrameOutcome settle_later_fragment(const ForwardingTables& tables, Frame& frame, const PacketView& view,
                                     uint32_t now_ms);
  FrameOutcome settle_without_service(const ForwardingTables& tables, const PacketView& view) const;
  template <bool Tunnels>
  void choose(const ForwardingTables& tables, ServicePacket& packet, uint64_t hash, const Frame& frame,
              uint32_t now_ms);
  BackendId choose_anew(ServicePacket& packet, uint64_t hash, const Frame& frame, FlowEntry* entry, bool reopened,
                        uint32_t now_ms);
  void take_over_shared(FlowEntry& entry);
  void guard(const ForwardingTables& tables, const Frame* frames, FrameOutcome* outcomes, uint32_t now_ms);
  DropReason why_client_may_not_come(const ForwardingTables& tables, const Guard& guard, uint8_t family,
                                     const AddressWords& client);
  DropReason why_packet_may_not_pass(const Guard& guard, uint64_t source_hash, uint32_t now_ms);
  DropReason why_fragment_may_not_pass(const Guard& guard, const PacketView& view, uint32_t now_ms);
  DropReason why_error_may_not_pass(const ForwardingTables& tables, const Guard& guard, const FlowTuple& flow,
                                    uint32_t now_ms);
  DropReason why_flow_may_not_begin(const ServicePacket& packet, uint32_t now_ms);
  bool takes_packet(const Guard& guard, uint32_t now_ms);
  void settle_refused(const ServicePacket& packet, Frame& frame, FrameOutcome& outcome, uint32_t now_ms);
  BackendId pick(const ServicePacket& packet, uint64_t hash, const Frame& frame) const;
  void choose_for_first_fragment(const ForwardingTables& tables, ServicePacket& packet, uint64_t hash,
                                 const Frame& frame, uint32_t now_ms);
  const Action* second_chance(const ForwardingTables& tables, const ServicePacket& packet, uint64_t hash,
                              const Frame& frame) const;
  BackendId choose_for_flow(const ForwardingTables& tables, ServicePacket& packet, uint64_t hash, const Frame& frame,
                            uint32_t now_ms);
  template <bool Tunnels>
  bool choose_and_act(const ForwardingTables& tables, Frame* frames, FrameOutcome* outcomes, size_t count,
                      uint32_t now_ms, uint16_t& port_of_all);
  template <bool Tunnels>
  bool act(Frame* frames, FrameOutcome* outcomes, size_t count, uint32_t now_ms, uint16_t& port_of_all);
  void count_fates(const Frame* frames, FrameOutcome* outcomes, size_t count, uint32_t now_ms);
  bool may_be_elsewhere(const Frame& frame) const { return frame.asked + 1u < config_.workers; }
  // Sets the frame's Ethernet addresses and the port by which it leaves, or returns why it cannot be sent.
  static DropReason address(BackendId backend, const NextHop& hop, const Frame& frame, uint16_t& port);
  // Makes a frame ready to leave through a tunnel. If the packet is too long, it becomes an ICMP error for its sender,
  // where that is allowed. `second` is the tunnel of a second backend, or null.
  void send_through_tunnel(const Action& action, const Action* second, uint64_t flow_hash, const NextHop& hop,
                           Frame& frame, FrameOutcome& outcome, uint32_t now_ms);
  void settle_unsent(const Action& action, const Action* second, uint32_t link_mtu, Frame& frame, FrameOutcome& outcome,
                     uint32_t now_ms);
  bool may_tell_too_big(uint32_t now_ms);
  // `flow_hash` chooses what a tunnel varies by flow.
  FrameOutcome addressed(const ForwardingTables& tables, BackendId backend, uint8_t family, uint64_t flow_hash,
                         Frame& frame, uint32_t now_ms);

  DeciderConfig config_;
  void set_links();
  void set_vlans();
  uint16_t port_of(const Frame& frame) const;
  void inherit();

  // By port: if others are further VLANs of its device, these and itself. The longest tags come first.
  std::vector<std::vector<uint16_t>> vlans_of_device_;
  // By port, in the form of mac_word: its address, and the same address if untagged frames can be plain packets.
  std::vector<uint64_t> own_macs_, untagged_macs_;
  std::vector<uint32_t> link_mtus_;  // by port
  WorkerCounters& counters_;
  FlowBatch batch_;
  FlowBatch source_batch_;
  SourceTable sources_;
  std::unique_ptr<SharedBounds> own_bounds_;
  std::vector<ServiceShare> shares_ = std::vector<ServiceShare>(kMaxServices);  // by ServiceId
  std::array<uint64_t, kBurst> source_hashes_{};  // by packet, if its service limits sources
  uint32_t reset_second_ = 0, resets_in_second_ = 0;
  ConnTable flows_;
  FragmentTable fragments_;
  DropTrace dropped_;
  FlowEvents flow_events_;
  uint64_t tells_one_of_ = 0;  // one of this many new flows is reported; 0: none
  FrameObserver* observer_ = nullptr;
  Neighbours neighbours_;
  VipAnnouncer announcer_;
  VipAsker asker_;
  GroupMember groups_;
  uint32_t swept_ms_ = 0;
  // the present second, and how many senders were told in it that a packet is too big
  uint32_t told_second_ = 0, told_in_second_ = 0;
  std::array<PacketView, kBurst> views_;
  std::array<ServicePacket, kBurst> packets_;
  std::array<uint64_t, kBurst> hashes_;     // hashes of the packets' flows
  std::array<uint16_t, kBurst> followers_;  // indexes in the burst
  size_t packet_count_ = 0, follower_count_ = 0;
  bool moved_ = false;                           // some frame of the burst was moved within its buffer
  LookupKey asked_key_;                          // the last service lookup of the burst
  const ServiceEntry* asked_service_ = nullptr;  // null: no lookup yet, or no such service
};

}  // namespace tidegate::l4
