// SPDX-License-Identifier: Apache-2.0
// Index: what is stored, in memory, sharded by key. A miss is decided here and never touches the disk; the RAM tier
// hangs off it.
//
// Each shard has one mutex, held for a few hundred nanoseconds: find, copy a pointer, count a use. Whoever holds a
// shard's mutex may take a flight's, never the other way round.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "cache/key.h"
#include "cache/limits.h"
#include "cache/object.h"
#include "cache/s3fifo.h"
#include "cache/uncacheable.h"

namespace tidegate::cache {

class Flight;

// One stored variant. Guarded by its shard's mutex. The S3Node is the RAM tier's queue: in it while `object` is set.
struct Entry : S3Node {
  KeyHash key;
  uint64_t variant = 0;
  std::string vary;         // the names this variant was selected by
  Freshness freshness;      // the truth for decisions: a soft purge by URL shortens it here
  uint64_t generation = 0;  // of the head: what purges compare
  std::vector<uint64_t> tags;
  uint64_t purges_seen = 0;                    // PurgeTable::version() at the last verdict `live`
  std::shared_ptr<const StoredObject> object;  // null: on disk only
  std::shared_ptr<DiskBody> disk;              // null: in memory only
  // What `object` was or could not become, while anybody holds it still: a client that reads it, the writer until it is
  // durable, a load that is being handed out. Lets those who ask meanwhile have it whatever the memory tier keeps.
  std::weak_ptr<const StoredObject> in_use;

  std::shared_ptr<const StoredObject> readable() const { return object != nullptr ? object : in_use.lock(); }
};

struct Bucket {
  std::string last_vary;  // of the newest response under the key: by what a flight without a head is told apart
  std::vector<std::shared_ptr<Entry>> entries;
  std::vector<std::shared_ptr<Flight>> flights;
  bool empty() const { return entries.empty() && flights.empty(); }
};

// Disk bodies whose entries went away, with what the writer needs to erase their meta records.
struct Retired {
  KeyHash key;
  uint64_t variant = 0;
  std::shared_ptr<DiskBody> disk;
};

// What an operation on a shard let go of, to be destroyed after the mutex was released.
struct Leftovers {
  std::vector<std::shared_ptr<const StoredObject>> objects;
  std::vector<Retired> retired;
  uint64_t evicted_from_ram = 0;
};

struct Shard {
  explicit Shard(uint64_t ram_bytes) : ram(ram_bytes) {}
  std::mutex mutex;
  std::unordered_map<KeyHash, Bucket> buckets;
  S3Fifo ram;
  UncacheableKeys uncacheable;
  uint64_t objects = 0;  // entries in all buckets

  // All with the mutex held.
  Bucket* find(const KeyHash& key);
  // The newest variant that the request selects. `scratch` is for its Vary values.
  static std::shared_ptr<Entry> match(const HashKeys& keys, const Bucket& bucket, Fields request_fields,
                                      std::string& scratch);
  // Puts the entry in the place of an older one of the same variant; false (and nothing happens) when a newer one is
  // there.
  bool publish(std::shared_ptr<Entry> entry, Leftovers& leftovers);
  // Gives the entry an object to hold in memory, evicting others to make room.
  void hold(Entry& entry, std::shared_ptr<const StoredObject> object, Leftovers& leftovers);
  void erase(Entry& entry, Leftovers& leftovers);
  void erase_flight(const KeyHash& key, const Flight* flight);

 private:
  void release_object(Entry& entry, Leftovers& leftovers);
  void drop_if_empty(const KeyHash& key);
};

class Index {
 public:
  explicit Index(uint64_t ram_bytes);
  Shard& shard(const KeyHash& key) { return *shards_[key.high & (shards_.size() - 1)]; }
  const std::vector<std::unique_ptr<Shard>>& shards() const { return shards_; }
  // Sums of the shards' books: a short moment of each mutex, however much is stored.
  uint64_t ram_bytes() const;
  uint64_t objects() const;

 private:
  std::vector<std::unique_ptr<Shard>> shards_;  // a power of two
};

}  // namespace tidegate::cache
