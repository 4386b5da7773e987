// SPDX-License-Identifier: Apache-2.0
// FlowEvents: a sample of the new flows (one in `flow_events`), as events for a collector. The flow's keyed hash
// chooses. So nobody can send flows that are always reported, or never, and all forwarders of a site report the same
// flows. The ring has fixed memory in a worker. Events that were not read in time are overwritten and counted.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "l4/flow_key.h"
#include "l4/ids.h"
#include "l4/limits.h"

namespace tidegate::l4 {

struct NewFlow {
  uint32_t at_ms = 0;  // on the worker's clock
  FlowTuple tuple;
  BackendId backend = kNoBackend;
  ServiceId service = kNoService;
  bool begun_here = true;  // the flow began with a SYN
};

class FlowEvents {
 public:
  // True if the flow is the one in `one_of` that is reported. 0: none is.
  static bool tells(uint64_t hash, uint64_t one_of) { return one_of != 0 && (hash >> 16) % one_of == 0; }

  void add(const NewFlow& flow) { ring_[next_++ % kMaxFlowEvents] = flow; }
  // Appends the events from number `from` on to `out`, which has room for kMaxFlowEvents. Returns the number of the
  // next one. Adds the number of overwritten ones to `lost`.
  uint64_t read(uint64_t from, std::vector<NewFlow>& out, uint64_t& lost) const {
    const uint64_t first = std::max(from, next_ < kMaxFlowEvents ? 0 : next_ - kMaxFlowEvents);
    lost += first - from;
    for (uint64_t at = first; at < next_; ++at) out.push_back(ring_[at % kMaxFlowEvents]);
    return next_;
  }

 private:
  std::array<NewFlow, kMaxFlowEvents> ring_{};
  uint64_t next_ = 0;
};

}  // namespace tidegate::l4
