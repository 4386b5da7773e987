// SPDX-License-Identifier: Apache-2.0
#include "l4/decider.h"

#include <algorithm>
#include <cassert>

#include "l4/encap.h"
#include "l4/icmp.h"
#include "l4/plain_packet.h"

namespace tidegate::l4 {
namespace {

// How long the later fragments of a datagram may arrive after the first. Receivers wait longer, but in practice
// fragments that take another path for seconds are lost.
constexpr uint32_t kFragmentMs = 3'000;
// The time of one whole sweep of the flow table. The number of live flows may be this old.
constexpr uint32_t kSweepRoundMs = 4'096;
constexpr size_t kPrefetchAhead = 4;

Outcome drop(DropReason reason) { return {Verdict::drop, reason, 0, false}; }

// Sends the frame to the kernel if there is a punt device, otherwise drops it for `reason`.
Outcome punt(DropReason reason) { return {Verdict::punt, reason, 0, false}; }

// UDP has no flags.
FlowEvent event_of(uint8_t tcp_flags) {
  if ((tcp_flags & (kTcpFin | kTcpRst | kTcpSyn)) == 0) return FlowEvent::data;
  if ((tcp_flags & (kTcpFin | kTcpRst)) != 0) return FlowEvent::close;
  return (tcp_flags & kTcpAck) == 0 ? FlowEvent::open : FlowEvent::data;
}

FlowTuple tuple_of(const PacketView& view) {
  return {view.family, view.protocol, view.source_port_be, view.destination_port_be, view.source, view.destination};
}

uint64_t word_of(const Mac& mac) {
  uint8_t eight_bytes[8] = {};
  std::memcpy(eight_bytes, mac.bytes.data(), mac.bytes.size());
  return mac_word(eight_bytes);
}

void take_tag_off(Frame& frame) {
  std::memmove(frame.data + kTagBytes, frame.data, 2 * 6);
  frame.data += kTagBytes;
  frame.bytes -= static_cast<uint32_t>(kTagBytes);
  frame.capacity -= static_cast<uint32_t>(kTagBytes);
}

bool is_malformed_ip(DropReason reason) { return reason != DropReason::vlan_tagged && reason != DropReason::not_ip; }

}  // namespace

Decider::Decider(DeciderConfig config, WorkerCounters& counters)
    : config_(std::move(config)),
      counters_(counters),
      batch_(config_.hasher),
      flows_(config_.flows),
      neighbours_(config_.ports, config_.board),
      announcer_(config_.ports),
      groups_(config_.ports) {
  for (const PortIdentity& port : config_.ports) own_macs_.push_back(word_of(port.mac));
}

void Decider::set_ports(std::vector<PortIdentity> ports) {
  for (size_t port = 0; port < ports.size(); ++port) own_macs_[port] = word_of(ports[port].mac);
  neighbours_.set_ports(ports);
  announcer_.set_ports(ports);
  groups_.set_ports(ports);
  config_.ports = std::move(ports);
}

void Decider::introduce(uint32_t now_ms) {
  neighbours_.ask_again(now_ms);
  if (!config_.announces) return;
  announcer_.restart(now_ms);
  groups_.restart(now_ms);
}

void Decider::adopt(const ForwardingTables& tables, uint32_t now_ms) {
  neighbours_.set_targets(tables.neighbours, now_ms);
  if (!config_.announces) return;
  announcer_.adopt(tables.local, now_ms);
  groups_.adopt(tables.local, now_ms);
}

std::optional<FlowEntry> Decider::flow(uint64_t hash, uint32_t now_ms) {
  const FlowEntry* entry = flows_.find(hash, now_ms);
  if (entry == nullptr) return std::nullopt;
  return *entry;
}

void Decider::tick(uint32_t now_ms, FrameSink& sink) {
  // Membership reports go first. Until they are out, solicitations for our addresses may not reach us.
  if (config_.announces) counters_.mld_reports.add(groups_.tick(now_ms, sink));
  const size_t announced = announcer_.tick(now_ms, Neighbours::kMaxFramesPerTick, sink);
  neighbours_.tick(now_ms, Neighbours::kMaxFramesPerTick - announced, sink);
  const uint64_t elapsed_ms = now_ms - swept_ms_;
  swept_ms_ = now_ms;
  flows_.sweep(elapsed_ms * flows_.bucket_count() / kSweepRoundMs + 1, now_ms);
  counters_.flows_live.set(flows_.live());
  counters_.flows_evicted.set(flows_.evicted());
  counters_.neighbours_resolved.set(neighbours_.resolved());
  counters_.neighbours.set(neighbours_.targets());
}

inline DropReason Decider::address(BackendId backend, const NextHop& hop, const Frame& frame, uint16_t& port) {
  if (backend == kNoBackend) return DropReason::no_backend;
  if (!hop.usable) return DropReason::neighbour_unresolved;
  rewrite_l2dsr(frame.data, hop);
  port = hop.port;
  return DropReason::none;
}

std::optional<uint16_t> Decider::decide(const ForwardingTables& tables, Frame* frames, Outcome* outcomes, size_t count,
                                        uint32_t now_ms) {
  assert(count <= kBurst);
  candidate_count_ = follower_count_ = 0;
  moved_ = false;
  asked_service_ = nullptr;
  for (size_t i = 0; i < std::min(count, kPrefetchAhead); ++i) __builtin_prefetch(frames[i].data);
  for (size_t i = 0; i < count; ++i) {
    if (i + kPrefetchAhead < count) __builtin_prefetch(frames[i + kPrefetchAhead].data);
    const auto index = static_cast<uint16_t>(i);
    if (!take_plain(tables, frames[i], index)) classify(tables, frames[i], index, outcomes[i], now_ms);
  }
  batch_.finish([this](uint16_t candidate, uint64_t hash) {
    hashes_[candidate] = hash;
    flows_.prefetch(hash);
  });
  for (size_t i = 0; i < candidate_count_; ++i) {
    choose(tables, candidates_[i], hashes_[i], frames[candidates_[i].frame], now_ms);
  }
  for (size_t i = 0; i < follower_count_; ++i) {
    const uint16_t index = followers_[i];
    outcomes[index] = settle_follower(tables, frames[index], views_[index], now_ms);
  }
  size_t forwarded = 0;
  uint16_t bits_of_all = UINT16_MAX, bits_of_any = 0;  // of the ports by which the frames leave
  for (size_t i = 0; i < candidate_count_; ++i) {
    const Candidate& candidate = candidates_[i];
    Frame& frame = frames[candidate.frame];
    Outcome& outcome = outcomes[candidate.frame];
    // We assign field by field. A returned Outcome would be written as bytes and copied as words, and the copy would
    // wait for the writes.
    outcome.reason = address(candidate.backend, *candidate.hop, frame, outcome.port);
    outcome.verdict = outcome.reason == DropReason::none ? Verdict::forward : Verdict::drop;
    outcome.share = false;
    if (outcome.reason != DropReason::none) continue;
    bits_of_all &= outcome.port;
    bits_of_any |= outcome.port;
    ++forwarded;
    counters_.backends.packets[index_of(candidate.backend)].add();
  }
  if (forwarded == count && !moved_) return bits_of_all == bits_of_any ? std::optional(bits_of_all) : std::nullopt;
  for (size_t i = 0; i < count; ++i) {
    Outcome& outcome = outcomes[i];
    if (outcome.verdict == Verdict::punt && !config_.punt_tap) outcome.verdict = Verdict::drop;
    if (frames[i].learn_only) continue;  // it was counted where it came in
    if (outcome.verdict == Verdict::drop) counters_.drop(outcome.reason);
    if (outcome.verdict == Verdict::consume) counters_.consumed_packets.add();
  }
  return std::nullopt;
}

[[gnu::always_inline]] inline bool Decider::take_plain(const ForwardingTables& tables, const Frame& frame,
                                                       uint16_t index) {
  const auto take = [&](const PlainPacket& packet) __attribute__((always_inline)) {
    const ServiceEntry* service = find_service(tables, packet.tuple);
    if (service == nullptr) return false;
    add_candidate(index, service, packet.tuple, event_of(packet.tcp_flags), false);
    return true;
  };
  return if_plain(frame.data, frame.bytes, own_macs_[frame.port], take);
}

[[gnu::always_inline]] inline void Decider::add_candidate(uint16_t index, const ServiceEntry* service,
                                                          const FlowTuple& tuple, FlowEvent event,
                                                          bool first_fragment) {
  Candidate& candidate = candidates_[candidate_count_];
  candidate.frame = index;
  candidate.family = tuple.family;
  candidate.event = event;
  candidate.first_fragment = first_fragment;
  candidate.service = service;
  batch_.add(static_cast<uint16_t>(candidate_count_++), tuple);
}

[[gnu::noinline]] void Decider::classify(const ForwardingTables& tables, Frame& frame, uint16_t index, Outcome& outcome,
                                         uint32_t now_ms) {
  if (has_priority_tag(frame.data, frame.bytes)) {
    take_tag_off(frame);
    moved_ = true;
    if (take_plain(tables, frame, index)) return;
  }
  PacketView& view = views_[index];
  const DropReason reason = parse_frame(frame.data, frame.bytes, view);
  if (reason == DropReason::frame_truncated || reason == DropReason::frame_oversized) {
    outcome = drop(reason);
    return;
  }
  const Mac to = Mac::from(frame.data);
  const bool to_us = to == config_.ports[frame.port].mac;
  if (!to_us && !to.is_multicast()) {
    outcome = drop(DropReason::other_station);
    return;
  }
  if (reason != DropReason::none) {
    outcome = is_malformed_ip(reason) ? drop(reason) : punt(reason);
    return;
  }
  if (view.kind == PacketKind::transport && to_us) {
    const FlowTuple tuple = tuple_of(view);
    const ServiceEntry* service = find_service(tables, tuple);
    if (service == nullptr) {
      outcome = settle_without_service(tables, view);
    } else if (has_martian_source(view)) {
      outcome = drop(DropReason::martian_source);
    } else {
      add_candidate(index, service, tuple, event_of(view.tcp_flags), view.first_fragment);
    }
    return;
  }
  if (view.kind == PacketKind::arp) {
    outcome = settle_arp(tables, frame, now_ms);
  } else if (is_nd(frame.data, view)) {
    outcome = settle_nd(tables, frame, view, now_ms);
  } else if (is_mld_query(frame.data, view)) {
    outcome = settle_mld_query(frame, view, now_ms);
  } else if (!to_us) {
    outcome = punt(DropReason::not_local);
  } else if (view.kind == PacketKind::icmp || view.kind == PacketKind::later_fragment) {
    followers_[follower_count_++] = index;
  } else {
    outcome = settle_without_service(tables, view);
  }
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

Outcome Decider::settle_without_service(const ForwardingTables& tables, const PacketView& view) const {
  return tables.local_kind(view.family, view.destination) == LocalKind::vip ? drop(DropReason::no_service)
                                                                            : punt(DropReason::not_local);
}

inline BackendId Decider::pick(const Candidate& candidate, uint64_t hash, const Frame& frame) const {
  return pick_backend(*candidate.service, config_.hasher, candidate.family,
                      source_of(frame.data + kEthernetBytes, candidate.family), hash);
}

inline void Decider::choose(const ForwardingTables& tables, Candidate& candidate, uint64_t hash, const Frame& frame,
                            uint32_t now_ms) {
  const ServiceEntry& service = *candidate.service;
  if (service.tracking) {
    FlowEntry* entry = flows_.find(hash, now_ms);
    // A SYN on a flow that is still embryonic is the same SYN sent again, so it must go to the same backend. On any
    // other flow it is a new connection from a reused port, and a backend is picked anew.
    const bool reopened =
        candidate.event == FlowEvent::open && entry != nullptr && entry->state != FlowState::embryonic;
    if (entry != nullptr && !reopened && tables.backend(entry->backend).keeps_flows(candidate.family)) {
      candidate.backend = entry->backend;
      entry->advance(candidate.event, service.timeouts, now_ms);
    } else {
      candidate.backend = choose_anew(candidate, hash, frame, entry, reopened, now_ms);
    }
  } else {
    candidate.backend = pick(candidate, hash, frame);
  }
  candidate.hop = &neighbours_.next_hop(tables.backend(candidate.backend).neighbour(candidate.family));
  __builtin_prefetch(candidate.hop);
  if (candidate.backend != kNoBackend) __builtin_prefetch(&counters_.backends.packets[index_of(candidate.backend)], 1);
  if (candidate.first_fragment && candidate.backend != kNoBackend) {
    remember_fragments(views_[candidate.frame], candidate.backend, now_ms);
  }
}

[[gnu::noinline]] BackendId Decider::choose_anew(const Candidate& candidate, uint64_t hash, const Frame& frame,
                                                 FlowEntry* entry, bool reopened, uint32_t now_ms) {
  const BackendId backend = pick(candidate, hash, frame);
  if (entry != nullptr) {
    if (!reopened) counters_.flows_repicked.add();
    flows_.erase(*entry);
  }
  if (backend == kNoBackend) return backend;
  const FlowState begun_as = candidate.event == FlowEvent::open ? FlowState::embryonic : FlowState::stray;
  entry = flows_.insert(hash, backend, candidate.service->timeouts.of(begun_as), now_ms, begun_as);
  (entry != nullptr ? counters_.flows_created : counters_.flows_untracked).add();
  counters_.backends.flows[index_of(backend)].add();
  return backend;
}

// Later fragments of a datagram have no ports. They follow the first fragment by (source, destination, protocol, id).
// This is recorded in the same fixed table, as a flow that expires within seconds.
void Decider::remember_fragments(const PacketView& view, BackendId backend, uint32_t now_ms) {
  const uint64_t hash = config_.hasher.fragments(view);
  FlowEntry* entry = flows_.find(hash, now_ms);
  if (entry == nullptr) entry = flows_.insert(hash, backend, kFragmentMs, now_ms);
  if (entry == nullptr) return;
  entry->backend = backend;
  entry->expires_ms = now_ms + kFragmentMs;
}

Outcome Decider::settle_later_fragment(const ForwardingTables& tables, Frame& frame, const PacketView& view,
                                       uint32_t now_ms) {
  if (tables.local_kind(view.family, view.destination) != LocalKind::vip) return punt(DropReason::not_local);
  const FlowEntry* entry = flows_.find(config_.hasher.fragments(view), now_ms);
  if (entry == nullptr || !tables.backend(entry->backend).keeps_flows(view.family)) {
    return drop(DropReason::fragment_without_first);
  }
  const Outcome outcome = addressed(tables, entry->backend, view.family, frame);
  if (outcome.verdict == Verdict::forward) {
    counters_.backends.packets[index_of(entry->backend)].add();
  }
  return outcome;
}

Outcome Decider::addressed(const ForwardingTables& tables, BackendId backend, uint8_t family, Frame& frame) {
  uint16_t port = 0;
  const NextHop& hop = neighbours_.next_hop(tables.backend(backend).neighbour(family));
  const DropReason reason = address(backend, hop, frame, port);
  return {reason == DropReason::none ? Verdict::forward : Verdict::drop, reason, port, false};
}

Outcome Decider::settle_arp(const ForwardingTables& tables, Frame& frame, uint32_t now_ms) {
  NeighbourMessage message;
  const DropReason reason = read_arp(frame.data, frame.bytes, kEthernetBytes, message);
  if (reason != DropReason::none) return drop(reason);
  return settle_neighbour_message(tables, frame, message, now_ms);
}

Outcome Decider::settle_nd(const ForwardingTables& tables, Frame& frame, const PacketView& view, uint32_t now_ms) {
  NeighbourMessage message;
  const DropReason reason = read_nd(frame.data, view, message);
  if (reason != DropReason::none) return drop(reason);
  return settle_neighbour_message(tables, frame, message, now_ms);
}

// RFC 5227 §2.4: tell the operator, and repeat our own claim.
Outcome Decider::settle_conflict(const Frame& frame, const NeighbourMessage& message, uint32_t now_ms) {
  if (config_.announces) announcer_.defend(message.sender, frame.port, now_ms);
  if (frame.learn_only) return {Verdict::consume, DropReason::none, 0, false};
  if (config_.conflicts != nullptr) config_.conflicts->tell({message.sender, message.sender_mac, frame.port});
  Outcome outcome = drop(DropReason::vip_conflict);
  outcome.share = !config_.announces;
  return outcome;
}

// The kernel is a group member too when it receives the port's other frames.
Outcome Decider::settle_mld_query(const Frame& frame, const PacketView& view, uint32_t now_ms) {
  MldQuery query;
  const DropReason reason = read_mld_query(frame.data, view, query);
  if (reason != DropReason::none) return drop(reason);
  if (config_.announces) groups_.on_query(frame.port, query, now_ms);
  Outcome outcome{Verdict::consume, DropReason::none, 0, false};
  if (config_.punt_tap && !frame.learn_only) outcome.verdict = Verdict::punt;
  outcome.share = !config_.announces && !frame.learn_only;
  return outcome;
}

Outcome Decider::settle_neighbour_message(const ForwardingTables& tables, Frame& frame, const NeighbourMessage& message,
                                          uint32_t now_ms) {
  const Mac& own_mac = config_.ports[frame.port].mac;
  const auto local_kind = [&](const IpAddress& address) {
    return tables.local_kind(static_cast<uint8_t>(address.family), words_of(address));
  };
  Learned learned = Learned::unknown;
  const bool ours = std::any_of(config_.ports.begin(), config_.ports.end(),
                                [&](const PortIdentity& port) { return port.mac == message.sender_mac; });
  if (!message.sender_mac.is_zero() && !ours) {
    if (local_kind(message.sender) != LocalKind::none) return settle_conflict(frame, message, now_ms);
    learned = neighbours_.learn(message.sender, message.sender_mac, now_ms);
  }
  if (frame.learn_only) return {Verdict::consume, DropReason::none, 0, false};

  LocalKind asked = message.is_request ? local_kind(message.target) : LocalKind::none;
  const bool kernel_owns = config_.punt_tap && asked != LocalKind::vip;
  if (asked == LocalKind::none && message.is_request && message.target == link_local_of(own_mac)) {
    asked = LocalKind::own;
  }
  if (asked != LocalKind::none && !kernel_owns && frame.capacity >= kMaxNeighbourFrameBytes) {
    frame.bytes = static_cast<uint32_t>(write_answer(frame.data, {own_mac, message.target}, message));
    return {Verdict::answer, DropReason::none, frame.port, false};
  }
  Outcome outcome = config_.punt_tap               ? punt(DropReason::neighbour_unknown)
                    : learned == Learned::expected ? Outcome{Verdict::consume, DropReason::none, 0, false}
                                                   : drop(DropReason::neighbour_unknown);
  outcome.share = learned == Learned::expected && config_.workers > 1;
  return outcome;
}

Outcome Decider::settle_follower(const ForwardingTables& tables, Frame& frame, const PacketView& view,
                                 uint32_t now_ms) {
  return view.kind == PacketKind::icmp ? settle_icmp(tables, frame, view, now_ms)
                                       : settle_later_fragment(tables, frame, view, now_ms);
}

Outcome Decider::settle_icmp(const ForwardingTables& tables, Frame& frame, const PacketView& view, uint32_t now_ms) {
  const LocalKind kind = tables.local_kind(view.family, view.destination);
  if (kind == LocalKind::none || (kind == LocalKind::own && config_.punt_tap)) return punt(DropReason::not_local);
  if (has_martian_source(view)) return drop(DropReason::martian_source);
  if (is_echo_request(frame.data, view)) {
    if (!has_right_checksum(frame.data, view)) return drop(DropReason::icmp_checksum);
    make_echo_reply(frame.data, view);
    return {Verdict::answer, DropReason::none, frame.port, false};
  }
  return relay_icmp_error(tables, frame, view, now_ms);
}

Outcome Decider::relay_icmp_error(const ForwardingTables& tables, Frame& frame, const PacketView& view,
                                  uint32_t now_ms) {
  FlowTuple flow;
  const DropReason reason = read_icmp_error(frame.data, view, flow);
  if (reason != DropReason::none) return drop(reason);
  const ServiceEntry* service = tables.find_service(flow.family, flow.vip, flow.protocol, flow.service_port_be);
  if (service == nullptr) return drop(DropReason::icmp_quote_unknown);

  const uint64_t hash = config_.hasher.tuple(flow);
  const FlowEntry* entry = service->tracking ? flows_.find(hash, now_ms) : nullptr;
  BackendId backend = kNoBackend;
  if (entry != nullptr && tables.backend(entry->backend).keeps_flows(flow.family)) {
    backend = entry->backend;
  } else if (service->tracking && frame.asked + 1u < config_.workers) {
    // The router that sent the error has other addresses than the flow. So the error may have come to another queue
    // than the flow.
    return {Verdict::hand_over, DropReason::none, 0, false};
  } else {
    backend = pick_backend(*service, config_.hasher, flow.family, flow.client, hash);
  }
  Outcome outcome = addressed(tables, backend, flow.family, frame);
  if (outcome.verdict == Verdict::forward) outcome.verdict = Verdict::relay;
  return outcome;
}

}  // namespace tidegate::l4
