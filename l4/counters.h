// SPDX-License-Identifier: Apache-2.0
// WorkerCounters: the counters of one worker. Only that worker writes them, with plain adds (a relaxed load and store).
// Any scraper reads them. Each worker's counters have their own cache lines.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "conf/model/service.h"
#include "l4/drop_reason.h"
#include "l4/ids.h"

namespace tidegate::l4 {

constexpr size_t kForwardings = static_cast<size_t>(Forwarding::vxlan) + 1;

class OwnedCounter {
 public:
  void add(uint64_t n = 1) { value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed); }
  void set(uint64_t value) { value_.store(value, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

struct Traffic {
  OwnedCounter packets, bytes;  // bytes of whole frames as they are sent, without tags and FCS

  void add(uint64_t more_packets, uint64_t more_bytes) {
    packets.add(more_packets);
    bytes.add(more_bytes);
  }
};

// The counters of one service; index: ServiceId.
struct ServiceCounters {
  Traffic forwarded;
  OwnedCounter flows;
  OwnedCounter refused;  // packets that its lists and limits dropped
};

// By AclId: packets about whose client the list decided.
struct AclCounters {
  OwnedCounter allowed, denied;
};

// Indexed by BackendId. Each kind has its own array: nearly every packet needs the first kind, and it should touch as
// few cache lines as possible when there are many backends.
struct BackendCounters {
  std::vector<Traffic> forwarded = std::vector<Traffic>(kMaxBackends);
  std::vector<OwnedCounter> flows = std::vector<OwnedCounter>(kMaxBackends);
};

// The kind of an outgoing frame. The frame counts as sent if the device took it, otherwise as dropped. So every
// received frame is counted exactly once as forwarded, relayed, answered, punted, consumed or dropped.
enum class FrameKind : uint8_t { forwarded, relayed, answered, own };

struct alignas(64) WorkerCounters {
  OwnedCounter received_packets, received_bytes;
  OwnedCounter sent_packets, sent_bytes;
  OwnedCounter forwarded_packets, forwarded_bytes;  // to backends
  OwnedCounter answered_packets;                    // ARP, ND and echo requests that we answered
  OwnedCounter punted_packets;
  OwnedCounter consumed_packets;  // what stations said about themselves, and queries
  OwnedCounter unsent_packets;    // frames of our own and of the kernel; no received frame belongs to them
  OwnedCounter mld_reports;
  OwnedCounter icmp_relayed_packets;
  OwnedCounter handed_over_packets;  // to another worker
  OwnedCounter flows_created, flows_repicked, flows_untracked;
  OwnedCounter flows_evicted, flows_live;             // copied from the flow table
  OwnedCounter flows_inherited, flows_not_inherited;  // flows from the previous process, at the start
  // flows that another forwarder reported, and of which packets came
  OwnedCounter flows_taken_over;
  OwnedCounter fragmented;  // copied from the table of fragmented datagrams
  OwnedCounter neighbours_resolved, neighbours;
  OwnedCounter busy_ns, elapsed_ns;
  OwnedCounter second_chance_packets;           // packets that name a second backend, which the previous table picks
  OwnedCounter too_big_packets;                 // senders told that a packet does not fit into its tunnel
  std::array<Traffic, kForwardings> tunnelled;  // by Forwarding; l2dsr is not counted here
  std::array<OwnedCounter, kDropReasons> dropped_packets, dropped_bytes;
  OwnedCounter resets;             // RST sent for packets of unknown flows
  OwnedCounter sources_forgotten;  // copied from the table of sources
  BackendCounters backends;
  std::vector<ServiceCounters> services = std::vector<ServiceCounters>(kMaxServices);
  std::vector<AclCounters> acls = std::vector<AclCounters>(kMaxAclIds);

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
  void unsent(FrameKind kind, DropReason reason, uint64_t packets, uint64_t bytes) {
    if (kind == FrameKind::own) {
      unsent_packets.add(packets);
    } else {
      drop(reason, packets, bytes);
    }
  }
  void drop(DropReason reason, uint64_t packets, uint64_t bytes) {
    dropped_packets[static_cast<size_t>(reason)].add(packets);
    dropped_bytes[static_cast<size_t>(reason)].add(bytes);
  }
};

}  // namespace tidegate::l4
