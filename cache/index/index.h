// SPDX-License-Identifier: Apache-2.0
// Index: the stored responses by key, in memory, divided into shards. A miss is decided here and never touches the
// disk. The memory tier belongs to it.
//
// Each shard has one mutex. It is held for a few hundred nanoseconds: find, copy a pointer, count a use. A thread that
// holds a shard's mutex may take a flight's mutex. A thread that holds a flight's mutex must not take a shard's mutex.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "cache/index/object.h"
#include "cache/index/s3fifo.h"
#include "cache/index/uncacheable.h"
#include "cache/limits.h"
#include "cache/policy/key.h"
#include "conf/policy/compress.h"
#include "core/mutex.h"

namespace tidegate::cache {

class Flight;

// One stored variant, guarded by its shard's mutex. The S3Node is its place in the memory tier's queue: it is queued
// while `object` is set.
struct Entry : S3Node {
  KeyHash key;
  uint64_t variant = 0;
  std::string vary;           // the names this variant was selected by
  Freshness freshness;        // a soft purge by URL shortens it here; the head keeps the old value
  uint64_t generation = 0;    // generation of the head, which purges compare
  uint64_t stored_bytes = 0;  // head and body, wherever they are
  std::vector<uint64_t> tags;
  bool coded = false;        // a body in a content coding, made from another entry's body; its bucket has nothing else
  uint64_t purges_seen = 0;  // PurgeTable::version() when the verdict was last `live`
  std::shared_ptr<const StoredObject> object;  // null: on disk only
  std::shared_ptr<DiskBody> disk;              // null: in memory only
  // The object as long as anybody holds it: a client that reads it, the writer until it is durable, or a load that just
  // ended. Later requests use it, although the memory tier does not keep it.
  std::weak_ptr<const StoredObject> in_use;

  std::shared_ptr<const StoredObject> readable() const { return object != nullptr ? object : in_use.lock(); }
};

struct Bucket {
  std::string last_vary;  // Vary of the newest response under the key; it distinguishes flights that have no head yet
  std::vector<std::shared_ptr<Entry>> entries;  // oldest first
  std::vector<uint64_t> variants;               // variants of `entries`, in one array: a hit searches these
  std::vector<std::string> varies;              // contains at least each Vary of `entries`
  uint64_t bytes = 0;                           // of all entries, heads and bodies
  std::vector<std::shared_ptr<Flight>> flights;
  bool empty() const { return entries.empty() && flights.empty(); }
};

// A disk body whose entry left the index. The writer erases its meta record.
struct Retired {
  KeyHash key;
  uint64_t variant = 0;
  std::shared_ptr<DiskBody> disk;
};

// The objects that an operation on a shard released. The caller destroys them after it has unlocked the mutex.
struct DeferredRelease {
  std::vector<std::shared_ptr<const StoredObject>> objects;
  std::vector<Retired> retired;
  uint64_t evicted_from_ram = 0;
  uint64_t evicted_variants = 0;
};

struct Shard {
  explicit Shard(uint64_t ram_bytes) : ram(ram_bytes) {}
  Mutex mutex;
  std::unordered_map<KeyHash, Bucket> buckets TIDEGATE_GUARDED_BY(mutex);
  S3Fifo ram TIDEGATE_GUARDED_BY(mutex);
  UncacheableKeys uncacheable TIDEGATE_GUARDED_BY(mutex);
  uint64_t objects TIDEGATE_GUARDED_BY(mutex) = 0;  // entries in all buckets, without coded ones
  uint64_t coded TIDEGATE_GUARDED_BY(mutex) = 0;    // coded ones

  // All of these need the mutex.
  Bucket* find(const KeyHash& key) TIDEGATE_REQUIRES(mutex);
  // The newest variant that the request selects. `scratch` receives its Vary values.
  static std::shared_ptr<Entry> match(const HashKeys& keys, const Bucket& bucket, const RequestView& request,
                                      std::string& scratch);
  // Replaces an older entry of the same variant. Returns false, and changes nothing, if a newer entry is there.
  bool publish(std::shared_ptr<Entry> entry, DeferredRelease& deferred) TIDEGATE_REQUIRES(mutex);
  // Gives the entry an object to hold in memory and evicts others to make room.
  void hold(Entry& entry, std::shared_ptr<const StoredObject> object, DeferredRelease& deferred)
      TIDEGATE_REQUIRES(mutex);
  void erase(Entry& entry, DeferredRelease& deferred) TIDEGATE_REQUIRES(mutex);
  // The variant's body in that coding. Null if there is none for this body. Counts a use.
  std::shared_ptr<const StoredObject> find_coded(const KeyHash& key, uint64_t variant, Coding coding,
                                                 uint64_t generation) TIDEGATE_REQUIRES(mutex);
  // Keeps a coded body in memory, and replaces an older one. Returns false if the index no longer has this generation
  // of the variant, or if the memory tier has no room.
  bool keep_coded(const KeyHash& key, uint64_t variant, Coding coding, uint64_t generation,
                  std::shared_ptr<const StoredObject> object, DeferredRelease& deferred) TIDEGATE_REQUIRES(mutex);
  // The variant's body was confirmed. So its coded forms are valid for the new generation too.
  void move_coded(const KeyHash& key, uint64_t variant, uint64_t from, uint64_t to) TIDEGATE_REQUIRES(mutex);
  void erase_flight(const KeyHash& key, const Flight* flight) TIDEGATE_REQUIRES(mutex);

 private:
  std::shared_ptr<Entry> coded_entry(const KeyHash& key, uint64_t variant, Coding coding) TIDEGATE_REQUIRES(mutex);
  void erase_coded(const KeyHash& key, uint64_t variant, DeferredRelease& deferred) TIDEGATE_REQUIRES(mutex);
  void release_object(Entry& entry, DeferredRelease& deferred) TIDEGATE_REQUIRES(mutex);
  void make_room_for_variant(const KeyHash& key, uint64_t bytes, DeferredRelease& deferred) TIDEGATE_REQUIRES(mutex);
  void drop_if_empty(const KeyHash& key) TIDEGATE_REQUIRES(mutex);
};

class Index {
 public:
  explicit Index(uint64_t ram_bytes);
  Shard& shard(const KeyHash& key) { return *shards_[key.high & (shards_.size() - 1)]; }
  const std::vector<std::unique_ptr<Shard>>& shards() const { return shards_; }
  // Sums over all shards. Each mutex is held only for a moment, however much is stored.
  uint64_t ram_bytes() const;
  uint64_t objects() const;
  uint64_t coded() const;

 private:
  std::vector<std::unique_ptr<Shard>> shards_;  // their number is a power of two
};

}  // namespace tidegate::cache
