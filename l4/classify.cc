// SPDX-License-Identifier: Apache-2.0
// The stage that reads every frame that is not a plain packet, and handles frames that need no flow: ARP, neighbour
// discovery, multicast queries, and unwanted frames.
#include <algorithm>

#include "l4/stages.h"

namespace tidegate::l4 {
namespace {

FlowTuple tuple_of(const PacketView& view) {
  return {view.family, view.protocol, view.source_port_be, view.destination_port_be, view.source, view.destination};
}

void take_tags_off(Frame& frame, size_t bytes) {
  std::memmove(frame.data + bytes, frame.data, 2 * 6);
  frame.data += bytes;
  frame.headroom += static_cast<uint32_t>(bytes);
  frame.bytes -= static_cast<uint32_t>(bytes);
  frame.capacity -= static_cast<uint32_t>(bytes);
}

// Another worker has removed the tags before it handed the frame over.
bool came_from_a_worker(const Frame& frame) { return frame.asked != 0 || frame.learn_only; }

// Handles the reply to a probe that the forwarder itself has sent.
std::optional<FrameOutcome> take_probe_reply(ProbeBoard* probes, Frame& frame, const PacketView& view) {
  if (probes == nullptr) return std::nullopt;
  const ProbeBoard::Taken taken = probes->take(frame.data, frame.bytes, frame.capacity, view);
  if (taken == ProbeBoard::Taken::not_ours) return std::nullopt;
  return FrameOutcome{taken == ProbeBoard::Taken::answer ? FrameVerdict::answer : FrameVerdict::consume,
                      DropReason::none, frame.port, false};
}

bool is_malformed_ip(DropReason reason) { return reason != DropReason::vlan_tagged && reason != DropReason::not_ip; }

}  // namespace

// The port whose tags the frame carries, of those that have the device by which it came.
uint16_t Decider::port_of(const Frame& frame) const {
  for (const uint16_t port : vlans_of_device_[frame.port]) {
    const PortTags& tags = config_.ports[port].tags;
    if (tags.vlan != 0 && carries_tags(tags, frame.data, frame.bytes)) return port;
  }
  return frame.port;
}

[[gnu::noinline]] void Decider::classify(const ForwardingTables& tables, Frame& frame, uint16_t index,
                                         FrameOutcome& outcome, uint32_t now_ms) {
  if (!came_from_a_worker(frame)) frame.port = port_of(frame);
  const PortTags& tags = config_.ports[frame.port].tags;
  size_t tag_bytes = has_priority_tag(frame.data, frame.bytes) ? kTagBytes : 0;
  if (tags.vlan != 0) {
    tag_bytes = came_from_a_worker(frame) ? 0 : tags.bytes();
    if (tag_bytes != 0 && !carries_tags(tags, frame.data, frame.bytes)) {
      outcome = drop(frame.bytes < kEthernetBytes ? DropReason::frame_truncated : DropReason::other_vlan);
      return;
    }
    if (tag_bytes == 0 && take_plain(tables, frame, index, own_macs_[frame.port])) return;
  }
  if (tag_bytes != 0) {
    take_tags_off(frame, tag_bytes);
    moved_ = true;
    if (take_plain(tables, frame, index, own_macs_[frame.port])) return;
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
      const std::optional<FrameOutcome> reply = take_probe_reply(config_.probes, frame, view);
      outcome = reply ? *reply : settle_without_service(tables, view);
    } else if (has_martian_source(view)) {
      outcome = drop(DropReason::martian_source);
    } else {
      add_packet(index, service, tuple, event_of(view.tcp_flags), view.first_fragment);
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

FrameOutcome Decider::settle_without_service(const ForwardingTables& tables, const PacketView& view) const {
  return is_vip(tables.local_kind(view.family, view.destination)) ? drop(DropReason::no_service)
                                                                  : punt(DropReason::not_local);
}

FrameOutcome Decider::settle_arp(const ForwardingTables& tables, Frame& frame, uint32_t now_ms) {
  NeighbourMessage message;
  const DropReason reason = read_arp(frame.data, frame.bytes, kEthernetBytes, message);
  if (reason != DropReason::none) return drop(reason);
  return settle_neighbour_message(tables, frame, message, now_ms);
}

FrameOutcome Decider::settle_nd(const ForwardingTables& tables, Frame& frame, const PacketView& view, uint32_t now_ms) {
  NeighbourMessage message;
  const DropReason reason = read_nd(frame.data, view, message);
  if (reason != DropReason::none) return drop(reason);
  return settle_neighbour_message(tables, frame, message, now_ms);
}

// RFC 5227 §2.4: reports it to the operator, and repeats our own claim.
FrameOutcome Decider::settle_conflict(const Frame& frame, const NeighbourMessage& message, uint32_t now_ms) {
  if (config_.announces) announcer_.defend(message.sender, frame.port, now_ms);
  if (frame.learn_only) return {FrameVerdict::consume, DropReason::none, 0, false};
  if (config_.conflicts != nullptr) config_.conflicts->tell({message.sender, message.sender_mac, frame.port});
  FrameOutcome outcome = drop(DropReason::vip_conflict);
  outcome.share = !config_.announces;
  return outcome;
}

// The kernel is a group member too when it receives the port's other frames.
FrameOutcome Decider::settle_mld_query(const Frame& frame, const PacketView& view, uint32_t now_ms) {
  MldQuery query;
  const DropReason reason = read_mld_query(frame.data, view, query);
  if (reason != DropReason::none) return drop(reason);
  if (config_.announces) groups_.on_query(frame.port, query, now_ms);
  FrameOutcome outcome{FrameVerdict::consume, DropReason::none, 0, false};
  if (config_.punt_tap && !frame.learn_only) outcome.verdict = FrameVerdict::punt;
  outcome.share = !config_.announces && !frame.learn_only;
  return outcome;
}

FrameOutcome Decider::settle_neighbour_message(const ForwardingTables& tables, Frame& frame,
                                               const NeighbourMessage& message, uint32_t now_ms) {
  const Mac& own_mac = config_.ports[frame.port].mac;
  const auto any_kind = [&](const IpAddress& address) {
    return tables.local_kind(static_cast<uint8_t>(address.family), words_of(address));
  };
  const auto local_kind = [&](const IpAddress& address) {
    const LocalKind kind = any_kind(address);
    return kind == LocalKind::standby ? LocalKind::none : kind;  // the holder answers, and its claims are no conflict
  };
  Learned learned = Learned::unknown;
  bool answers_us = false;  // for an address that we left to others
  const bool ours = std::any_of(config_.ports.begin(), config_.ports.end(),
                                [&](const PortIdentity& port) { return port.mac == message.sender_mac; });
  if (!message.sender_mac.is_zero() && !ours) {
    if (local_kind(message.sender) != LocalKind::none) return settle_conflict(frame, message, now_ms);
    answers_us = !tables.local->asked.empty() && any_kind(message.sender) == LocalKind::standby;
    if (answers_us && config_.conflicts != nullptr && !frame.learn_only) {
      config_.conflicts->tell({message.sender, message.sender_mac, frame.port});
    }
    learned = neighbours_.learn(message.sender, message.sender_mac, now_ms);
  }
  if (frame.learn_only) return {FrameVerdict::consume, DropReason::none, 0, false};

  LocalKind asked = message.is_request ? local_kind(message.target) : LocalKind::none;
  const bool kernel_owns = config_.punt_tap && asked != LocalKind::vip;
  if (asked == LocalKind::none && message.is_request && message.target == link_local_of(own_mac)) {
    asked = LocalKind::own;
  }
  if (asked != LocalKind::none && !kernel_owns && frame.capacity >= kMaxNeighbourFrameBytes) {
    frame.bytes = static_cast<uint32_t>(write_answer(frame.data, {own_mac, message.target}, message));
    return {FrameVerdict::answer, DropReason::none, frame.port, false};
  }
  FrameOutcome outcome = config_.punt_tap ? punt(DropReason::neighbour_unknown)
                         : learned == Learned::expected || answers_us
                             ? FrameOutcome{FrameVerdict::consume, DropReason::none, 0, false}
                             : drop(DropReason::neighbour_unknown);
  outcome.share = learned == Learned::expected && config_.workers > 1;
  return outcome;
}

}  // namespace tidegate::l4
