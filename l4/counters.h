// SPDX-License-Identifier: Apache-2.0
// WorkerCounters: what one worker counts. Written by that worker alone with plain adds (a relaxed load and store), read
// by whoever scrapes; each worker's counters are its own cache lines.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "l4/drop_reason.h"
#include "l4/ids.h"

namespace tidegate::l4 {

class OwnedCounter {
 public:
  void add(uint64_t n = 1) { value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed); }
  void set(uint64_t value) { value_.store(value, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// By BackendId. Each kind lies by itself: nearly every packet needs the first, and of many backends as few cache lines
// as can be.
struct BackendCounters {
  std::vector<OwnedCounter> packets = std::vector<OwnedCounter>(kMaxBackends);
  std::vector<OwnedCounter> flows = std::vector<OwnedCounter>(kMaxBackends);
};

// What a frame on its way out is. Each is counted when the device took it, and else as dropped: so every frame that was
// received is counted once as forwarded, relayed, answered, punted, consumed or dropped.
enum class FrameKind : uint8_t { forwarded, relayed, answered, own };

struct alignas(64) WorkerCounters {
  OwnedCounter received_packets, received_bytes;
  OwnedCounter sent_packets, sent_bytes;
  OwnedCounter forwarded_packets, forwarded_bytes;  // to backends
  OwnedCounter answered_packets;                    // ARP, ND and echo, here
  OwnedCounter punted_packets;
  OwnedCounter consumed_packets;  // what stations said of themselves, and queries
  OwnedCounter unsent_packets;    // of our own and of the kernel, which no frame received stands for
  OwnedCounter mld_reports;
  OwnedCounter icmp_relayed_packets;
  OwnedCounter handed_over_packets;  // to another worker
  OwnedCounter flows_created, flows_repicked, flows_untracked;
  OwnedCounter flows_evicted, flows_live;  // as the table says
  OwnedCounter neighbours_resolved, neighbours;
  OwnedCounter busy_ns, elapsed_ns;
  std::array<OwnedCounter, kDropReasons> dropped_packets;
  BackendCounters backends;

  void sent(FrameKind kind, uint64_t packets, uint64_t bytes) {
    if (kind == FrameKind::forwarded) {
      forwarded_packets.add(packets);
      forwarded_bytes.add(bytes);
    } else if (kind == FrameKind::relayed) {
      icmp_relayed_packets.add(packets);
    } else if (kind == FrameKind::answered) {
      answered_packets.add(packets);
    }
  }
  void unsent(FrameKind kind, DropReason reason, uint64_t packets = 1) {
    if (kind == FrameKind::own) {
      unsent_packets.add(packets);
    } else {
      drop(reason, packets);
    }
  }
  void drop(DropReason reason, uint64_t packets = 1) { dropped_packets[static_cast<size_t>(reason)].add(packets); }
};

}  // namespace tidegate::l4
