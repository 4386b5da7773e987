// SPDX-License-Identifier: Apache-2.0
// The stage that checks client lists and limits. Only tables with a Guard come here. Like the other stages, it
// prefetches what one packet needs while it works on others. It checks the lists first, then the limit of the client's
// network, then the limit of the service. So a refused packet takes no token of the later limits, and a network that
// sends too much does not use the service's tokens.
//
// New flows are limited where they begin, in choose_anew(). A frame from another worker was checked by that worker.
#include "l4/reset.h"
#include "l4/stages.h"

namespace tidegate::l4 {
namespace {

AddressWords masked(const AddressWords& address, const AddressWords& mask) {
  return {address.a & mask.a, address.b & mask.b};
}

// The client's network as a tuple, for the counts of the service. No flow has protocol 0.
FlowTuple source_tuple(const Guard& guard, uint8_t family, const AddressWords& client) {
  return {family, 0, 0, static_cast<uint16_t>(guard.service), masked(client, guard.mask(family)), {}};
}

}  // namespace

// Every packet of the stage passes through these three functions, so they are inlined.
[[gnu::always_inline]] inline DropReason Decider::why_client_may_not_come(const ForwardingTables& tables,
                                                                          const Guard& guard, uint8_t family,
                                                                          const AddressWords& client) {
  if (guard.decisions.empty()) return DropReason::none;
  const ListDecision& decision = guard.decisions[tables.lists->find(family, client)];
  switch (decision.admission) {
    case Admission::open:
      return DropReason::none;
    case Admission::allowed:
      counters_.acls[index_of(decision.list)].allowed.add();
      return DropReason::none;
    case Admission::denied:
      counters_.acls[index_of(decision.list)].denied.add();
      return DropReason::acl_denied;
    case Admission::not_allowed:
      return DropReason::acl_not_allowed;
  }
  return DropReason::none;
}

[[gnu::always_inline]] inline bool Decider::takes_packet(const Guard& guard, uint32_t now_ms) {
  if (guard.packets.per_second == 0) return true;
  const size_t service = index_of(guard.service);
  return shares_[service].packets.take(config_.bounds->services[service].packets, guard.packets, config_.workers,
                                       now_ms);
}

// `source_hash` is used only if the service limits sources.
[[gnu::always_inline]] inline DropReason Decider::why_packet_may_not_pass(const Guard& guard, uint64_t source_hash,
                                                                          uint32_t now_ms) {
  if (guard.source_packets.per_second != 0) {
    SourceEntry& source = sources_.find(source_hash, now_ms);
    source.advance(guard.source_packets, guard.source_flows, now_ms);
    if (!take_token(source.packets_spent, guard.source_packets)) return DropReason::source_packets;
  }
  return takes_packet(guard, now_ms) ? DropReason::none : DropReason::service_packets;
}

[[gnu::noinline]] void Decider::guard(const ForwardingTables& tables, const Frame* frames, FrameOutcome* outcomes,
                                      uint32_t now_ms) {
  // To read the address from the frame again costs less than to keep it.
  const auto client_of = [&](const ServicePacket& packet) {
    return source_of(frames[packet.frame].data + kEthernetBytes, packet.family);
  };
  for (size_t i = 0; i < packet_count_; ++i) {
    const ServicePacket& packet = packets_[i];
    const Guard* guard = packet.service->guard;
    if (guard == nullptr) continue;
    const AddressWords client = client_of(packet);
    if (!guard->decisions.empty()) tables.lists->prefetch_first(packet.family, client);
    if (guard->bounds_sources()) {
      source_batch_.add(static_cast<uint16_t>(i), source_tuple(*guard, packet.family, client));
    }
  }
  source_batch_.finish([this](uint16_t packet, uint64_t hash) {
    source_hashes_[packet] = hash;
    sources_.prefetch(hash);
  });
  for (size_t i = 0; i < packet_count_; ++i) {
    const ServicePacket& packet = packets_[i];
    const Guard* guard = packet.service->guard;
    if (guard != nullptr && !guard->decisions.empty()) {
      tables.lists->prefetch_second(packet.family, client_of(packet));
    }
  }
  size_t kept = 0;
  for (size_t i = 0; i < packet_count_; ++i) {
    ServicePacket& packet = packets_[i];
    const Guard* guard = packet.service->guard;
    if (guard != nullptr && frames[packet.frame].asked == 0) {
      packet.refused = why_client_may_not_come(tables, *guard, packet.family, client_of(packet));
      if (packet.refused == DropReason::none) {
        packet.refused = why_packet_may_not_pass(*guard, source_hashes_[i], now_ms);
      }
    }
    if (packet.refused != DropReason::none) {
      counters_.services[index_of(packet.service->id)].refused.add();
      outcomes[packet.frame] = drop(packet.refused);
      continue;
    }
    if (kept != i) {
      packets_[kept] = packet;
      hashes_[kept] = hashes_[i];
      source_hashes_[kept] = source_hashes_[i];
    }
    ++kept;
  }
  packet_count_ = kept;
}

// A later fragment follows a first fragment that the lists have passed.
DropReason Decider::why_fragment_may_not_pass(const Guard& guard, const PacketView& view, uint32_t now_ms) {
  const uint64_t hash =
      guard.bounds_sources() ? config_.hasher.tuple(source_tuple(guard, view.family, view.source)) : 0;
  const DropReason reason = why_packet_may_not_pass(guard, hash, now_ms);
  if (reason != DropReason::none) counters_.services[index_of(guard.service)].refused.add();
  return reason;
}

// An ICMP error comes from a router, which is in no list, and is about a client's flow. Anybody can send one, so it
// takes no token of the client's network.
DropReason Decider::why_error_may_not_pass(const ForwardingTables& tables, const Guard& guard, const FlowTuple& flow,
                                           uint32_t now_ms) {
  DropReason reason = why_client_may_not_come(tables, guard, flow.family, flow.client);
  if (reason == DropReason::none && !takes_packet(guard, now_ms)) reason = DropReason::service_packets;
  if (reason != DropReason::none) counters_.services[index_of(guard.service)].refused.add();
  return reason;
}

DropReason Decider::why_flow_may_not_begin(const ServicePacket& packet, uint32_t now_ms) {
  const ServiceEntry& service = *packet.service;
  if (service.reset_unknown && packet.event != FlowEvent::open) return DropReason::flow_unknown;
  const Guard* guard = service.guard;
  if (guard == nullptr) return DropReason::none;
  if (guard->source_flows.per_second != 0) {
    SourceEntry& source = sources_.find(source_hashes_[static_cast<size_t>(&packet - packets_.data())], now_ms);
    source.advance(guard->source_packets, guard->source_flows, now_ms);
    if (!take_token(source.flows_spent, guard->source_flows)) return DropReason::source_flows;
  }
  if (guard->flows.per_second == 0) return DropReason::none;
  const size_t at = index_of(service.id);
  const bool takes = shares_[at].flows.take(config_.bounds->services[at].flows, guard->flows, config_.workers, now_ms);
  return takes ? DropReason::none : DropReason::service_flows;
}

// Settles a packet of a new flow that may not begin, or of an unknown flow.
void Decider::settle_refused(const ServicePacket& packet, Frame& frame, FrameOutcome& outcome, uint32_t now_ms) {
  outcome = drop(packet.refused);
  if (packet.refused != DropReason::flow_unknown) {
    counters_.services[index_of(packet.service->id)].refused.add();
    return;
  }
  const uint32_t second = now_ms / 1'000;
  if (second != reset_second_) {
    reset_second_ = second;
    resets_in_second_ = 0;
  }
  if (resets_in_second_ == kMaxResetsPerSecond || !make_reset(frame)) return;
  ++resets_in_second_;
  counters_.resets.add();
  outcome = {FrameVerdict::answer, DropReason::none, frame.port, false};
}

}  // namespace tidegate::l4
