// SPDX-License-Identifier: Apache-2.0
// The rare half of the stage that chooses a backend: the flow is new, or it must move.
#include "l4/stages.h"

namespace tidegate::l4 {

[[gnu::noinline]] BackendId Decider::choose_anew(ServicePacket& packet, uint64_t hash, const Frame& frame,
                                                 FlowEntry* entry, bool reopened, uint32_t now_ms) {
  packet.unseen = packet.event != FlowEvent::open;
  if (entry == nullptr || reopened) {
    packet.refused = why_flow_may_not_begin(packet, now_ms);
    if (packet.refused != DropReason::none) return kNoBackend;
  }
  const BackendId backend = pick(packet, hash, frame);
  if (entry != nullptr) {
    if (!reopened) counters_.flows_repicked.add();
    flows_.erase(*entry);
  }
  if (backend == kNoBackend) return backend;
  const FlowState begun_as = packet.event == FlowEvent::open ? FlowState::embryonic : FlowState::stray;
  entry = flows_.insert(hash, backend, packet.service->timeouts.of(begun_as), now_ms, begun_as);
  if (entry != nullptr) entry->unseen = packet.unseen ? 1 : 0;
  (entry != nullptr ? counters_.flows_created : counters_.flows_untracked).add();
  counters_.backends.flows[index_of(backend)].add();
  counters_.services[index_of(packet.service->id)].flows.add();
  if (FlowEvents::tells(hash, tells_one_of_)) tell_flow(packet, backend, frame, now_ms);
  return backend;
}

// The packet belongs to a flow that another forwarder has reported. From now on it is a flow of this table.
[[gnu::noinline]] void Decider::take_over_shared(FlowEntry& entry) {
  entry.shared = 0;
  counters_.flows_taken_over.add();
}

void Decider::learn(const LearnedFlow* flows, size_t count, uint32_t now_ms, LessonCounts& counts) {
  for (size_t i = 0; i < count; ++i) flows_.prefetch(flows[i].hash);
  for (size_t i = 0; i < count; ++i) ++counts.counts[static_cast<size_t>(flows_.learn(flows[i], now_ms))];
}

void Decider::tell_flow(const ServicePacket& packet, BackendId backend, const Frame& frame, uint32_t now_ms) {
  PacketView view;
  if (parse_frame(frame.data, frame.bytes, view) != DropReason::none) return;
  const FlowTuple tuple = {view.family, view.protocol,   view.source_port_be, view.destination_port_be,
                           view.source, view.destination};
  flow_events_.add({now_ms, tuple, backend, packet.service->id, !packet.unseen});
}

// A connection that did not begin here may have begun at another forwarder, or here before the flow table was lost. If
// the pool has changed since then, its backend may be the backend in the previous table. So the packet also names that
// backend. The first backend hands the packet on if it does not know the connection.
[[gnu::noinline]] const Action* Decider::second_chance(const ForwardingTables& tables, const ServicePacket& packet,
                                                       uint64_t hash, const Frame& frame) const {
  if (packet.first_fragment) return nullptr;  // later fragments have no ports, so nobody could hand them on
  const AddressWords client = source_of(frame.data + kEthernetBytes, packet.family);
  const BackendId before = pick_before(tables, *packet.service, config_.hasher, client, hash, packet.backend);
  return before == kNoBackend ? nullptr : &tables.tunnel(before, packet.family);
}

// A router that spreads packets over our queues reads no ports in fragments. So a first fragment may come to another
// worker than its flow. It is passed from worker to worker until one has the flow. Its later fragments take the same
// way.
[[gnu::noinline]] void Decider::choose_for_first_fragment(const ForwardingTables& tables, ServicePacket& packet,
                                                          uint64_t hash, const Frame& frame, uint32_t now_ms) {
  packet.handed_over = packet.service->tracking && flows_.find(hash, now_ms) == nullptr && may_be_elsewhere(frame);
  if (packet.handed_over) {
    packet.backend = kNoBackend;
    return;
  }
  packet.backend = choose_for_flow(tables, packet, hash, frame, now_ms);
  if (packet.backend == kNoBackend) return;
  fragments_.remember(config_.hasher.fragments(views_[packet.frame]), packet.backend, packet.service->id, now_ms);
}

}  // namespace tidegate::l4
