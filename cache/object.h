// SPDX-License-Identifier: Apache-2.0
// Stored objects in memory, and their bodies on disk.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include "cache/body.h"
#include "cache/key.h"
#include "cache/s3fifo.h"
#include "cache/stored.h"

namespace tidegate::cache {

// Chunks whose last reader has gone; the writer deletes them with its next transaction. Thread-safe.
class Reclaim {
 public:
  struct Chunks {
    uint64_t generation = 0;
    uint64_t footprint = 0;  // as the writer accounted for them
  };
  void add(Chunks chunks) {
    const std::lock_guard lock(mutex_);
    doomed_.push_back(chunks);
  }
  std::vector<Chunks> take() {
    const std::lock_guard lock(mutex_);
    return std::move(doomed_);
  }

 private:
  std::mutex mutex_;
  std::vector<Chunks> doomed_;
};

// Where a small object lay in LMDB's map when it was last read. A snapshot never changes while it is held: in the one
// of this number the bytes are there. In a later one the writer may have moved them, and what is left is a hint: an
// address to ask mincore(2) about, never to be read from.
struct DiskPlace {
  size_t snapshot = 0;      // LMDB's number of the transaction
  std::string_view record;  // empty: not known
  std::string_view chunk;   // the value with its checksum; empty: no body
};

// A body's chunks on disk. Whoever may still read them holds it; when it was doomed (evicted, replaced, purged, never
// finished) the last to let go has the chunks deleted. The S3Node is the writer's eviction queue; hits touch() it.
struct DiskBody : S3Node {
  DiskBody(const KeyHash& key_, uint64_t generation_, std::shared_ptr<Reclaim> reclaim_)
      : key(key_), generation(generation_), reclaim(std::move(reclaim_)) {}
  ~DiskBody() {
    if (doomed.load(std::memory_order_acquire)) reclaim->add({generation, footprint.load(std::memory_order_relaxed)});
  }
  DiskBody(const DiskBody&) = delete;
  DiskBody& operator=(const DiskBody&) = delete;

  const KeyHash key;          // whose the chunks are, as their checksums have it
  const uint64_t generation;  // of the chunks
  std::atomic<bool> doomed{false};
  std::atomic<bool> committed{false};  // its meta record is durable: whole on disk
  std::atomic<uint64_t> footprint{0};  // bytes of the map; written by the writer alone
  DiskPlace place;                     // guarded by the mutex of its key's shard
  std::shared_ptr<Reclaim> reclaim;
};

// One stored response. Immutable, shared by the index and by every answer made from it.
struct StoredObject {
  std::shared_ptr<const StoredHead> head;
  std::vector<Slice> body;         // chunks of kChunkBytes, the last shorter, when resident
  std::shared_ptr<DiskBody> disk;  // where to read the body from when it is not resident
  bool resident = true;

  uint64_t memory_bytes() const {
    const uint64_t body_bytes = resident ? head->body_bytes : 0;
    return body_bytes + head->field_text.size() + head->key.size() + head->fields.size() * sizeof(http1::Field) + 512;
  }
};

// Bodies up to this size are kept in memory whole; of larger ones the head.
constexpr uint64_t kMaxResidentBytes = 256 * 1024;

}  // namespace tidegate::cache
