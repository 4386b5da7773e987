// SPDX-License-Identifier: Apache-2.0
// Capture: the frames of a worker that match an operator's filter, with the result of each, until a bound is reached.
// All memory is allocated before the worker sees it.
#pragma once

#include <atomic>
#include <optional>
#include <span>
#include <vector>

#include "core/ip.h"
#include "l4/decider.h"
#include "l4/observer.h"

namespace tidegate::l4 {

// A condition that is not set matches every frame.
struct CaptureFilter {
  std::optional<Cidr> client;            // source or destination; for an ICMP error its sender
  std::optional<Cidr> vip;               // source or destination
  std::optional<uint16_t> port;          // source or destination
  std::optional<uint8_t> protocol;       // of IP
  bool dropped = false;                  // only frames that were dropped
  DropReason reason = DropReason::none;  // only frames that were dropped for this reason; none: any reason

  bool takes(const Frame& frame) const;
  bool takes(const FrameOutcome& outcome) const;
};

struct CaptureBounds {
  uint64_t packets = 1'000;
  uint64_t bytes = 1 << 20;
  uint32_t snap_bytes = 256;  // most bytes that are kept of each frame
};

class Capture final : public FrameObserver {
 public:
  struct Record {
    uint32_t at_ms = 0;  // on the worker's clock
    uint32_t whole_bytes = 0;
    uint32_t kept_bytes = 0;
    size_t place = 0;  // offset of its bytes
    uint16_t port = 0;
    FrameOutcome outcome;
    BackendId backend = kNoBackend;
  };

  Capture(CaptureFilter filter, CaptureBounds bounds);

  void before(const Frame* frames, size_t count, uint32_t now_ms) override;
  void after(const Frame* frames, const Fate* fates, size_t count) override;

  // Any thread.
  bool is_full() const { return full_.load(std::memory_order_acquire); }
  // Call it when no worker uses the capture any more.
  const std::vector<Record>& records() const { return records_; }
  std::span<const uint8_t> bytes_of(const Record& record) const {
    return {bytes_.data() + record.place, record.kept_bytes};
  }

 private:
  CaptureFilter filter_;
  CaptureBounds bounds_;
  std::vector<Record> records_;
  std::vector<uint8_t> bytes_;
  size_t used_bytes_ = 0;
  // For the present burst: frames whose content matches the filter, and where their copies are.
  struct Taken {
    uint16_t frame = 0;
    Record record;
  };
  std::array<Taken, kBurst> taken_;
  size_t taken_count_ = 0;
  std::atomic<bool> full_{false};
};

}  // namespace tidegate::l4
