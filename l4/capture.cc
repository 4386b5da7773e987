// SPDX-License-Identifier: Apache-2.0
#include "l4/capture.h"

#include <algorithm>
#include <cstring>

#include "l4/packet_view.h"

namespace tidegate::l4 {
namespace {

// ARP has no IP packet. It matches only a filter without address, port and protocol.
bool is_about(const Cidr& network, const PacketView& view) {
  return network.contains(address_of(view.source, view.family)) ||
         network.contains(address_of(view.destination, view.family));
}

}  // namespace

bool CaptureFilter::takes(const Frame& frame) const {
  if (frame.learn_only || frame.asked != 0) return false;  // it was captured where it came in
  if (!client && !vip && !port && !protocol) return true;
  PacketView view;
  if (!read_observed(frame, view)) return false;
  if (client && !is_about(*client, view)) return false;
  if (vip && !is_about(*vip, view)) return false;
  if (protocol && view.protocol != *protocol) return false;
  if (!port) return true;
  const uint16_t port_be = htons(*port);
  return view.kind == PacketKind::transport && (view.source_port_be == port_be || view.destination_port_be == port_be);
}

bool CaptureFilter::takes(const FrameOutcome& outcome) const {
  if (!dropped && reason == DropReason::none) return true;
  return outcome.verdict == FrameVerdict::drop && (reason == DropReason::none || outcome.reason == reason);
}

Capture::Capture(CaptureFilter filter, CaptureBounds bounds) : filter_(std::move(filter)), bounds_(bounds) {
  records_.reserve(bounds_.packets);
  // The copies of a burst come after the records that are kept.
  bytes_.resize(bounds_.bytes + kBurst * bounds_.snap_bytes);
}

void Capture::before(const Frame* frames, size_t count, uint32_t now_ms) {
  taken_count_ = 0;
  if (full_.load(std::memory_order_relaxed)) return;
  size_t place = used_bytes_;
  for (size_t i = 0; i < count; ++i) {
    const Frame& frame = frames[i];
    if (!filter_.takes(frame)) continue;
    Taken& taken = taken_[taken_count_++];
    taken.frame = static_cast<uint16_t>(i);
    taken.record = {now_ms, frame.bytes, 0, place, frame.port, {}, kNoBackend};
    // A frame in several segments is not one piece, so only its length is kept.
    taken.record.kept_bytes = frame.bytes > UINT16_MAX ? 0 : std::min(frame.bytes, bounds_.snap_bytes);
    std::memcpy(bytes_.data() + place, frame.data, taken.record.kept_bytes);
    place += taken.record.kept_bytes;
  }
}

void Capture::after(const Frame*, const Fate* fates, size_t) {
  for (size_t i = 0; i < taken_count_; ++i) {
    Record record = taken_[i].record;
    const Fate& fate = fates[taken_[i].frame];
    if (!filter_.takes(*fate.outcome)) continue;
    if (records_.size() == bounds_.packets || used_bytes_ + record.kept_bytes > bounds_.bytes) {
      full_.store(true, std::memory_order_release);
      return;
    }
    // Moves it to the front if an earlier frame was left out.
    std::memmove(bytes_.data() + used_bytes_, bytes_.data() + record.place, record.kept_bytes);
    record.place = used_bytes_;
    used_bytes_ += record.kept_bytes;
    record.outcome = *fate.outcome;
    record.backend = fate.backend;
    records_.push_back(record);
  }
  if (records_.size() == bounds_.packets) full_.store(true, std::memory_order_release);
}

}  // namespace tidegate::l4
