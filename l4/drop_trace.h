// SPDX-License-Identifier: Apache-2.0
// DropTrace: the frames that a worker dropped last, with their headers, so that an operator can find out why. Its
// memory is fixed, and only dropped frames touch it.
//
// A flood of frames with one reason must not displace frames with other reasons, and must not cost a copy for each
// frame. So at most kAtOnce frames are kept for each reason in one second.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "l4/drop_reason.h"
#include "l4/frame.h"

namespace tidegate::l4 {

struct DroppedFrame {
  static constexpr size_t kMostBytes = 96;  // Ethernet with two tags, IPv6, TCP with its usual options
  uint32_t at_ms = 0;                       // on the worker's clock
  uint32_t bytes = 0;                       // length of the whole frame
  uint16_t port = 0;
  DropReason reason = DropReason::none;
  uint8_t kept = 0;  // bytes in `head`
  std::array<uint8_t, kMostBytes> head{};
};

class DropTrace {
 public:
  static constexpr size_t kFrames = 256;
  static constexpr uint8_t kAtOnce = 8;

  void record(const Frame& frame, DropReason reason, uint32_t now_ms) {
    const uint32_t second = now_ms / 1'000;
    if (second != second_) {
      second_ = second;
      of_reason_.fill(0);
    }
    uint8_t& count = of_reason_[static_cast<size_t>(reason)];
    if (count == kAtOnce) return;
    ++count;
    DroppedFrame& entry = ring_[next_++ % kFrames];
    entry.at_ms = now_ms;
    entry.bytes = frame.bytes;
    entry.port = frame.port;
    entry.reason = reason;
    // A frame in several segments is not one piece, so only its length is kept.
    entry.kept = frame.bytes > UINT16_MAX ? 0 : static_cast<uint8_t>(std::min<size_t>(frame.bytes, entry.head.size()));
    std::memcpy(entry.head.data(), frame.data, entry.kept);
  }
  // The frames of the ring, the newest first.
  std::vector<DroppedFrame> last() const {
    std::vector<DroppedFrame> out;
    for (uint64_t i = 0; i < std::min<uint64_t>(next_, kFrames); ++i) out.push_back(ring_[(next_ - 1 - i) % kFrames]);
    return out;
  }

 private:
  std::array<DroppedFrame, kFrames> ring_{};
  uint64_t next_ = 0;
  uint32_t second_ = 0;
  std::array<uint8_t, kDropReasons> of_reason_{};
};

}  // namespace tidegate::l4
