// SPDX-License-Identifier: Apache-2.0
// The stages that every packet passes, as inline members of Decider, and the outcomes that all stages share. Only the
// Decider's own files include this header.
#pragma once

#include "l4/decider.h"
#include "l4/mode/l2dsr.h"
#include "l4/plain_packet.h"
#include "l4/tunnel.h"

namespace tidegate::l4 {

inline FrameOutcome drop(DropReason reason) { return {FrameVerdict::drop, reason, 0, false}; }

// Sends the frame to the kernel if there is a punt device, otherwise drops it for `reason`.
inline FrameOutcome punt(DropReason reason) { return {FrameVerdict::punt, reason, 0, false}; }

// UDP has no flags.
inline FlowEvent event_of(uint8_t tcp_flags) {
  if ((tcp_flags & (kTcpFin | kTcpRst | kTcpSyn)) == 0) return FlowEvent::data;
  if ((tcp_flags & kTcpRst) != 0) return FlowEvent::reset;
  if ((tcp_flags & kTcpFin) != 0) return FlowEvent::close;
  return (tcp_flags & kTcpAck) == 0 ? FlowEvent::open : FlowEvent::data;
}

[[gnu::always_inline]] inline bool Decider::take_plain(const ForwardingTables& tables, const Frame& frame,
                                                       uint16_t index, uint64_t own_mac) {
  const auto take = [&](const PlainPacket& packet) __attribute__((always_inline)) {
    const ServiceEntry* service = find_service(tables, packet.tuple);
    if (service == nullptr) return false;
    add_packet(index, service, packet.tuple, event_of(packet.tcp_flags), false);
    return true;
  };
  return if_plain(frame.data, frame.bytes, own_mac, take);
}

[[gnu::always_inline]] inline void Decider::add_packet(uint16_t index, const ServiceEntry* service,
                                                       const FlowTuple& tuple, FlowEvent event, bool first_fragment) {
  ServicePacket& packet = packets_[packet_count_];
  packet.frame = index;
  packet.family = tuple.family;
  packet.event = event;
  packet.first_fragment = first_fragment;
  packet.refused = DropReason::none;
  packet.service = service;
  batch_.add(static_cast<uint16_t>(packet_count_++), tuple);
}

// Packets of one service often follow each other, so the last answer is tried first.
[[gnu::always_inline]] inline const ServiceEntry* Decider::find_service(const ForwardingTables& tables,
                                                                        const FlowTuple& tuple) {
  const AddressWords& vip = tuple.vip;
  const uint64_t rest = LookupKey::rest_of_service(tuple.family, tuple.protocol, tuple.service_port_be);
  if (asked_service_ == nullptr || vip.a != asked_key_.address.a || vip.b != asked_key_.address.b ||
      rest != asked_key_.rest) {
    asked_key_ = {vip, rest};
    asked_service_ = tables.find_service(asked_key_);
  }
  return asked_service_;
}

inline DropReason Decider::address(BackendId backend, const NextHop& hop, const Frame& frame, uint16_t& port) {
  if (backend == kNoBackend) return DropReason::no_backend;
  if (!hop.usable) return DropReason::neighbour_unresolved;
  rewrite_l2dsr(frame.data, hop);
  port = hop.port;
  return DropReason::none;
}

// Sends a frame whose backend has a tunnel.
[[gnu::always_inline]] inline void Decider::send_through_tunnel(const Action& action, const Action* second,
                                                                uint64_t flow_hash, const NextHop& hop, Frame& frame,
                                                                FrameOutcome& outcome, uint32_t now_ms) {
  outcome.share = false;
  const uint32_t link_mtu = link_mtus_[hop.port];
  outcome.reason = hop.usable ? encapsulate(action, second, flow_hash, link_mtu, kEthernetBytes, frame)
                              : DropReason::neighbour_unresolved;
  if (outcome.reason != DropReason::none) [[unlikely]] {
    settle_unsent(action, second, link_mtu, frame, outcome, now_ms);
    return;
  }
  moved_ = true;
  outcome.verdict = FrameVerdict::forward;
  outcome.port = hop.port;
  rewrite_l2dsr(frame.data, hop);
  counters_.tunnelled[static_cast<size_t>(action.mode)].add(1, frame.bytes);
  if (second != nullptr) [[unlikely]]
    counters_.second_chance_packets.add();
}

inline BackendId Decider::pick(const ServicePacket& packet, uint64_t hash, const Frame& frame) const {
  return pick_backend(*packet.service, config_.hasher, packet.family,
                      source_of(frame.data + kEthernetBytes, packet.family), hash);
}

[[gnu::always_inline]] inline BackendId Decider::choose_for_flow(const ForwardingTables& tables, ServicePacket& packet,
                                                                 uint64_t hash, const Frame& frame, uint32_t now_ms) {
  const ServiceEntry& service = *packet.service;
  if (!service.tracking) {
    packet.unseen = packet.event != FlowEvent::open;
    return pick(packet, hash, frame);
  }
  FlowEntry* entry = flows_.find(hash, now_ms);
  const bool reopened = packet.event == FlowEvent::open && entry != nullptr && entry->begins_anew();
  if (entry != nullptr && !reopened && tables.backend(entry->backend).keeps_flows(packet.family)) {
    if (entry->shared != 0 && packet.event == FlowEvent::data) [[unlikely]]
      take_over_shared(*entry);
    entry->advance(packet.event, service.timeouts, now_ms);
    packet.unseen = entry->unseen != 0;
    return entry->backend;
  }
  return choose_anew(packet, hash, frame, entry, reopened, now_ms);
}

// `Tunnels`: true if the tables have tunnels. If it is false, tunnels cost no time.
template <bool Tunnels>
[[gnu::always_inline]] inline void Decider::choose(const ForwardingTables& tables, ServicePacket& packet, uint64_t hash,
                                                   const Frame& frame, uint32_t now_ms) {
  if (packet.first_fragment) [[unlikely]] {
    choose_for_first_fragment(tables, packet, hash, frame, now_ms);
  } else {
    packet.backend = choose_for_flow(tables, packet, hash, frame, now_ms);
  }
  const BackendEntry& backend = tables.backend(packet.backend);
  packet.hop = &neighbours_.next_hop(backend.neighbour(packet.family));
  __builtin_prefetch(packet.hop);
  if constexpr (Tunnels) {
    packet.action = nullptr;
    if (backend.has_tunnel(packet.family)) {
      packet.action = &tables.tunnel(packet.backend, packet.family);
      packet.second = nullptr;
      if (packet.unseen && packet.service->before != nullptr) [[unlikely]] {
        packet.second = second_chance(tables, packet, hash, frame);
      }
      __builtin_prefetch(packet.action);
      if (backend.has_long_header(packet.family)) {
        __builtin_prefetch(reinterpret_cast<const char*>(packet.action) + 64);
      }
      __builtin_prefetch(frame.data - 64, 1);
    }
  }
  if (packet.backend != kNoBackend) __builtin_prefetch(&counters_.backends.forwarded[index_of(packet.backend)], 1);
}

}  // namespace tidegate::l4
