// SPDX-License-Identifier: Apache-2.0
// Stored objects in memory, and their bodies on disk.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "cache/body.h"
#include "cache/index/s3fifo.h"
#include "cache/policy/key.h"
#include "cache/stored.h"
#include "core/mutex.h"

namespace tidegate::cache {

// Chunks whose last reader has gone. The writer erases them in its next transaction. Any thread.
class Reclaim {
 public:
  struct Chunks {
    uint64_t generation = 0;
    uint64_t footprint = 0;  // bytes of the map, as the writer counted them
  };
  void add(Chunks chunks) {
    const MutexLock lock(mutex_);
    doomed_.push_back(chunks);
  }
  std::vector<Chunks> take() {
    const MutexLock lock(mutex_);
    return std::move(doomed_);
  }

 private:
  Mutex mutex_;
  std::vector<Chunks> doomed_ TIDEGATE_GUARDED_BY(mutex_);
};

// Where a small object lay in LMDB's map when it was last read. The bytes are valid in the snapshot of this number,
// because a snapshot never changes. In a later snapshot the place is only a hint for mincore(2): never read there.
struct DiskPlace {
  size_t snapshot = 0;      // LMDB's transaction number
  std::string_view record;  // empty: the place is not known
  std::string_view chunk;   // the value with its checksum; empty: no body
};

// A body's chunks on disk. Every possible reader of them holds this object. A body that was evicted, replaced, purged
// or never finished is doomed: its chunks are erased when the last holder releases it. The S3Node is its place in the
// writer's eviction queue; a hit calls touch() on it.
struct DiskBody : S3Node {
  DiskBody(const KeyHash& key_, uint64_t generation_, std::shared_ptr<Reclaim> reclaim_)
      : key(key_), generation(generation_), reclaim(std::move(reclaim_)) {}
  ~DiskBody() {
    if (doomed.load(std::memory_order_acquire)) reclaim->add({generation, footprint.load(std::memory_order_relaxed)});
  }
  DiskBody(const DiskBody&) = delete;
  DiskBody& operator=(const DiskBody&) = delete;

  const KeyHash key;          // the key in the chunks' checksums
  const uint64_t generation;  // generation of the chunks
  std::atomic<bool> doomed{false};
  std::atomic<bool> committed{false};  // its meta record is durable: the body is whole on disk
  std::atomic<uint64_t> footprint{0};  // bytes of the map; only the writer changes it
  DiskPlace place;                     // guarded by the mutex of its key's shard
  std::shared_ptr<Reclaim> reclaim;
};

// One stored response. Immutable, shared by the index and by every answer made from it.
struct StoredObject {
  std::shared_ptr<const StoredHead> head;
  std::vector<Slice> body;         // if resident: chunks of kChunkBytes, the last one may be shorter
  std::shared_ptr<DiskBody> disk;  // if not resident: where to read the body
  bool resident = true;

  uint64_t memory_bytes() const {
    const uint64_t body_bytes = resident ? head->body_bytes : 0;
    return body_bytes + head->text_bytes() + head->key.size() + head->fields.size() * sizeof(http1::Field) + 512;
  }
};

// Bodies up to this size are kept in memory whole. For larger ones only the head is kept.
constexpr uint64_t kMaxResidentBytes = 256 * 1024;

}  // namespace tidegate::cache
