// SPDX-License-Identifier: Apache-2.0
// The cache's metrics (tidegate_cache_*), declared once at the start.
#pragma once

#include <array>

#include "cache/policy/policy.h"
#include "cache/status.h"
#include "core/metrics.h"

namespace tidegate::cache {

struct Counters {
  explicit Counters(Metrics& metrics);

  Counter& hits_memory;
  Counter& hits_disk;  // the head or the body came from disk
  Counter& hits_stale;
  Counter& attached;     // answered by another transaction's fetch
  Counter& revalidated;  // 304: stored response freshened
  Counter& stored_memory;
  Counter& stored_disk;
  Counter& stored_bytes;
  Counter& coded_hits;  // bodies from `compress` that were stored
  Counter& coded_stored;
  Counter& coded_left;  // not stored: too long, or the response was gone
  Counter& evicted_memory;
  Counter& evicted_disk;
  Counter& evicted_variants;  // evicted because one key had too many variants
  Counter& purged;
  Counter& promoted;    // waiters that became the leader
  Counter& abandoned;   // fetches that failed after their head
  Counter& corrupt;     // records or chunks that did not verify; they are erased
  Counter& laggards;    // slow readers for which the others did not wait any longer
  Counter& queue_full;  // responses not stored on disk, because the writer was behind
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
