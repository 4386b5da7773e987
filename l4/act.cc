// SPDX-License-Identifier: Apache-2.0
// The part of the last stage that not every packet needs: tunnels, and packets that follow a flow.
#include "l4/stages.h"

namespace tidegate::l4 {
// The frame is as it came, and `outcome.reason` says why it was not sent.
[[gnu::noinline]] void Decider::settle_unsent(const Action& action, const Action* second, uint32_t link_mtu,
                                              Frame& frame, FrameOutcome& outcome, uint32_t now_ms) {
  outcome.verdict = FrameVerdict::drop;
  if (outcome.reason != DropReason::exceeds_mtu || !may_tell_too_big(now_ms)) return;
  if (!make_too_big(frame, kEthernetBytes, inner_mtu(action, second, link_mtu))) return;
  counters_.too_big_packets.add();
  ++told_in_second_;
  outcome.reason = DropReason::none;
  outcome.verdict = FrameVerdict::answer;
  outcome.port = frame.port;
}

// A sender repeats lost packets. So if it is not told in this second, it is told in a later one.
bool Decider::may_tell_too_big(uint32_t now_ms) {
  const uint32_t second = now_ms / 1'000;
  if (second != told_second_) {
    told_second_ = second;
    told_in_second_ = 0;
  }
  return told_in_second_ < kMaxTooBigPerSecond;
}

FrameOutcome Decider::addressed(const ForwardingTables& tables, BackendId backend, uint8_t family, uint64_t flow_hash,
                                Frame& frame, uint32_t now_ms) {
  FrameOutcome outcome;
  const BackendEntry& entry = tables.backend(backend);
  const NextHop& hop = neighbours_.next_hop(entry.neighbour(family));
  if (entry.has_tunnel(family)) {
    send_through_tunnel(tables.tunnel(backend, family), nullptr, flow_hash, hop, frame, outcome, now_ms);
  } else {
    outcome.reason = address(backend, hop, frame, outcome.port);
    outcome.verdict = outcome.reason == DropReason::none ? FrameVerdict::forward : FrameVerdict::drop;
  }
  return outcome;
}

}  // namespace tidegate::l4
