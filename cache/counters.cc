// SPDX-License-Identifier: Apache-2.0
#include "cache/counters.h"

namespace tidegate::cache {

Counters::Counters(Metrics& metrics)
    : hits_memory(metrics.counter("tidegate_cache_hits_total", "Answers from the cache", {{"tier", "memory"}})),
      hits_disk(metrics.counter("tidegate_cache_hits_total", "Answers from the cache", {{"tier", "disk"}})),
      hits_stale(metrics.counter("tidegate_cache_stale_hits_total", "Answers that were stale and allowed to be")),
      attached(metrics.counter("tidegate_cache_joins_total", "Answers that followed another transaction's fetch")),
      revalidated(metrics.counter("tidegate_cache_revalidated_total", "Stored responses confirmed by a 304")),
      stored_memory(metrics.counter("tidegate_cache_stored_total", "Responses stored", {{"tier", "memory"}})),
      stored_disk(metrics.counter("tidegate_cache_stored_total", "Responses stored", {{"tier", "disk"}})),
      stored_bytes(metrics.counter("tidegate_cache_stored_bytes_total", "Body bytes committed to disk")),
      coded_hits(metrics.counter("tidegate_cache_coded_hits_total", "Bodies that were stored in the client's coding")),
      coded_stored(metrics.counter("tidegate_cache_coded_stored_total", "Bodies stored after they were compressed")),
      coded_left(metrics.counter("tidegate_cache_coded_left_total",
                                 "Compressed bodies not stored: too long, or the response had left")),
      evicted_memory(metrics.counter("tidegate_cache_evicted_total", "Objects evicted", {{"tier", "memory"}})),
      evicted_disk(metrics.counter("tidegate_cache_evicted_total", "Objects evicted", {{"tier", "disk"}})),
      evicted_variants(metrics.counter("tidegate_cache_variants_evicted_total",
                                       "Variants that left because their key had too many")),
      purged(metrics.counter("tidegate_cache_purged_total", "Objects removed or made stale by a purge")),
      promoted(
          metrics.counter("tidegate_cache_promoted_total", "Waiters that took over a fetch from a leader that left")),
      abandoned(metrics.counter("tidegate_cache_abandoned_total", "Fetches that ended before the body was whole")),
      corrupt(metrics.counter("tidegate_cache_corrupt_total", "Records or chunks that did not verify and were erased")),
      laggards(
          metrics.counter("tidegate_cache_laggards_total", "Readers of a fetch that the others waited for no longer")),
      queue_full(
          metrics.counter("tidegate_cache_queue_full_total", "Responses not stored because the writer was behind")),
      commits(metrics.counter("tidegate_cache_commits_total", "Transactions committed by the writer")),
      commit_failures(metrics.counter("tidegate_cache_commit_failures_total",
                                      "Transactions that failed (map full, disk full, I/O)")),
      commit_seconds(metrics.latency("tidegate_cache_commit_seconds", "Time to write and commit one transaction")) {
  for (size_t i = 0; i < forwarded_.size(); ++i) {
    forwarded_[i] =
        &metrics.counter("tidegate_cache_forwarded_total", "Requests that went to a backend, by why (RFC 9211)",
                         {{"why", token(static_cast<Forward>(i))}});
  }
  for (size_t i = 0; i < refused_.size(); ++i) {
    refused_[i] = &metrics.counter("tidegate_cache_refused_total", "Responses that could not be stored, by why",
                                   {{"why", token(static_cast<Refusal>(i))}});
  }
}

}  // namespace tidegate::cache
