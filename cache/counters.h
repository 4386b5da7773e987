// SPDX-License-Identifier: Apache-2.0
// The cache's metrics, declared once at start: tidegate_cache_*.
#pragma once

#include <array>

#include "cache/policy.h"
#include "cache/status.h"
#include "core/metrics.h"

namespace tidegate::cache {

struct Counters {
  explicit Counters(Metrics& metrics);

  Counter& hits_memory;
  Counter& hits_disk;  // the head or body had to come from disk
  Counter& hits_stale;
  Counter& joins;        // answered by another transaction's fetch
  Counter& revalidated;  // 304: stored response freshened
  Counter& stored_memory;
  Counter& stored_disk;
  Counter& stored_bytes;
  Counter& evicted_memory;
  Counter& evicted_disk;
  Counter& purged;
  Counter& promoted;    // waiters that took over from a leader that went away
  Counter& abandoned;   // fills that failed after their head
  Counter& corrupt;     // records or chunks that did not verify, erased
  Counter& laggards;    // readers of a fetch that the others waited for no longer
  Counter& queue_full;  // responses not stored on disk because the writer was behind
  Counter& commits;
  Counter& commit_failures;  // MDB_MAP_FULL, ENOSPC, EIO
  LatencyHistogram& commit_seconds;

  Counter& forwarded(Forward why) { return *forwarded_[static_cast<size_t>(why)]; }
  Counter& refused(Refusal why) { return *refused_[static_cast<size_t>(why)]; }

 private:
  std::array<Counter*, static_cast<size_t>(Forward::count_)> forwarded_{};
  std::array<Counter*, static_cast<size_t>(Refusal::count_)> refused_{};
};

}  // namespace tidegate::cache
