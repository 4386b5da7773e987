// SPDX-License-Identifier: Apache-2.0
// The stage for packets that belong to a flow but do not have its ports: later fragments and ICMP errors.
#include "l4/icmp.h"
#include "l4/stages.h"

namespace tidegate::l4 {

FrameOutcome Decider::settle_later_fragment(const ForwardingTables& tables, Frame& frame, const PacketView& view,
                                            uint32_t now_ms) {
  if (!is_vip(tables.local_kind(view.family, view.destination))) return punt(DropReason::not_local);
  const uint64_t datagram = config_.hasher.fragments(view);
  const auto [backend, service] = fragments_.find(datagram, now_ms);
  if (backend == kNoBackend && may_be_elsewhere(frame)) return {FrameVerdict::hand_over, DropReason::none, 0, false};
  if (!tables.backend(backend).keeps_flows(view.family)) return drop(DropReason::fragment_without_first);
  if (const Guard* guard = tables.guard(service); guard != nullptr) {
    const DropReason refused = why_fragment_may_not_pass(*guard, view, now_ms);
    if (refused != DropReason::none) return drop(refused);
  }
  const FrameOutcome outcome = addressed(tables, backend, view.family, datagram, frame, now_ms);
  if (outcome.verdict == FrameVerdict::forward) {
    counters_.backends.forwarded[index_of(backend)].add(1, frame.bytes);
    counters_.services[index_of(service)].forwarded.add(1, frame.bytes);
  }
  return outcome;
}

FrameOutcome Decider::settle_follower(const ForwardingTables& tables, Frame& frame, const PacketView& view,
                                      uint32_t now_ms) {
  return view.kind == PacketKind::icmp ? settle_icmp(tables, frame, view, now_ms)
                                       : settle_later_fragment(tables, frame, view, now_ms);
}

FrameOutcome Decider::settle_icmp(const ForwardingTables& tables, Frame& frame, const PacketView& view,
                                  uint32_t now_ms) {
  const LocalKind kind = tables.local_kind(view.family, view.destination);
  if (kind == LocalKind::none || (kind == LocalKind::own && config_.punt_tap)) return punt(DropReason::not_local);
  if (has_martian_source(view)) return drop(DropReason::martian_source);
  if (is_echo_request(frame.data, view)) {
    if (!has_right_checksum(frame.data, view)) return drop(DropReason::icmp_checksum);
    make_echo_reply(frame.data, view);
    return {FrameVerdict::answer, DropReason::none, frame.port, false};
  }
  return relay_icmp_error(tables, frame, view, now_ms);
}

FrameOutcome Decider::relay_icmp_error(const ForwardingTables& tables, Frame& frame, const PacketView& view,
                                       uint32_t now_ms) {
  FlowTuple flow;
  const DropReason reason = read_icmp_error(frame.data, view, flow);
  if (reason != DropReason::none) return drop(reason);
  const ServiceEntry* service = tables.find_service(flow.family, flow.vip, flow.protocol, flow.service_port_be);
  if (service == nullptr) return drop(DropReason::icmp_quote_unknown);
  if (service->guard != nullptr && frame.asked == 0) {
    const DropReason refused = why_error_may_not_pass(tables, *service->guard, flow, now_ms);
    if (refused != DropReason::none) return drop(refused);
  }

  const uint64_t hash = config_.hasher.tuple(flow);
  const FlowEntry* entry = service->tracking ? flows_.find(hash, now_ms) : nullptr;
  BackendId backend = kNoBackend;
  if (entry != nullptr && tables.backend(entry->backend).keeps_flows(flow.family)) {
    backend = entry->backend;
  } else if (service->tracking && may_be_elsewhere(frame)) {
    // The error comes from a router and has other addresses than the flow. So it may have come to another queue than
    // the flow.
    return {FrameVerdict::hand_over, DropReason::none, 0, false};
  } else {
    backend = pick_backend(*service, config_.hasher, flow.family, flow.client, hash);
  }
  FrameOutcome outcome = addressed(tables, backend, flow.family, hash, frame, now_ms);
  if (outcome.verdict == FrameVerdict::forward) outcome.verdict = FrameVerdict::relay;
  return outcome;
}

}  // namespace tidegate::l4
