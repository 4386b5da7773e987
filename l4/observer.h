// SPDX-License-Identifier: Apache-2.0
// FrameObserver: sees the frames of a worker and what happens to them, while an operator uses a capture or top talkers.
// A worker without an observer pays one comparison for each burst.
//
// Threads: the worker's. The observer must not allocate. The thread that installed it removes it by Worker::read, and
// only then reads its data.
#pragma once

#include <cstddef>
#include <cstdint>

#include "l4/frame.h"
#include "l4/ids.h"
#include "l4/packet_view.h"

namespace tidegate::l4 {

struct FrameOutcome;

// The fate of a frame. Backend and service are set if the frame was a packet of a service.
struct Fate {
  const FrameOutcome* outcome = nullptr;
  BackendId backend = kNoBackend;
  ServiceId service = kNoService;
};

class FrameObserver {
 public:
  virtual ~FrameObserver() = default;
  // The frames on arrival. They include copies of frames that another worker has seen already (`asked`, `learn_only`).
  virtual void before(const Frame* frames, size_t count, uint32_t now_ms) = 0;
  // Called after the decisions with the same frames, of which some are changed, and the fate of each.
  virtual void after(const Frame* frames, const Fate* fates, size_t count) = 0;
};

// Reads the IP packet of a received frame, after its tags if it has any. Returns false for other frames, and for a
// packet that cannot be read.
inline bool read_observed(const Frame& frame, PacketView& view) {
  size_t place = kEthernetBytes;
  if (frame.bytes > UINT16_MAX) return false;
  for (int tags = 0; tags < 3 && frame.bytes > place; ++tags, place += kTagBytes) {
    const uint16_t type = load_be16(frame.data + place - 2);
    if (type == kEtherTypeIp4 || type == kEtherTypeIp6) {
      const uint8_t family = type == kEtherTypeIp4 ? 4 : 6;
      return parse_quoted_packet(frame.data + place, frame.bytes - place, family, view) == DropReason::none;
    }
    if (type != kEtherTypeVlan && type != kEtherTypeQinQ) return false;
    if (frame.bytes < place + kTagBytes) return false;
  }
  return false;
}

}  // namespace tidegate::l4
