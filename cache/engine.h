// SPDX-License-Identifier: Apache-2.0
// Engine: what the cache's parts share, and the decisions that need several of them: lookup, publishing, purging,
// loading from disk. The facade (cache.h) is a thin skin over it.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "cache/cache.h"
#include "cache/counters.h"
#include "cache/fill_budget.h"
#include "cache/index.h"
#include "cache/owned_request.h"
#include "cache/policy.h"
#include "cache/purge_table.h"
#include "cache/reader_pool.h"
#include "cache/resident_reader.h"
#include "cache/writer.h"

namespace tidegate::cache {

// A lookup that waits, for a flight's head or for the disk. Shared by its Pending (the client's side) and by whom it
// waits for.
struct Pending::Waiter : std::enable_shared_from_this<Pending::Waiter> {
  Waiter(const RequestView& request_, const RouteCache& policy_, uint64_t now_ms, EventLoop& loop, OnFound on_found_);

  // Any thread. Hands the answer to the loop; lost (and any Fill in it passed on) when the client has gone.
  void deliver(Lookup found);
  // The loop, or nullptr when the client has gone.
  EventLoop* loop();
  uint64_t now_ms() const;

  const OwnedRequest request;
  const RouteCache policy;
  const uint64_t asked_ms;  // realtime
  const uint64_t asked_ns;  // monotonic: together they give a later now
  bool waited_for_flight = false;
  bool waited_for_disk = false;

  std::mutex mutex;
  EventLoop* alive_loop;  // guarded by mutex; null once the Pending is gone
  OnFound on_found;       // the loop's thread
};

// Who asks, as lookup() needs it: a caller of the facade, or a waiter that is looked up again.
struct Asker {
  const RequestView& request;
  const RouteCache& policy;
  uint64_t now_ms;
  EventLoop& loop;
  OnFound* on_found;                        // moved from when a waiter is made
  std::shared_ptr<Pending::Waiter> waiter;  // made on demand
  bool from_disk = false;                   // what it is given had to be read from there

  std::shared_ptr<Pending::Waiter> wait();
};

class Engine final : public WriterClient {
 public:
  Engine(const Options& options, Metrics& metrics);
  ~Engine() override;

  Lookup lookup(Asker& asker);
  // Looks a waiter up again and gives it what is found (any thread).
  void lookup_again(const std::shared_ptr<Pending::Waiter>& waiter);
  Explanation explain(const RequestView& request, const RouteCache& policy, uint64_t now_ms);
  void invalidate(const RequestView& request, const RouteCache& policy, const ResponseView& response);
  void purge(const Purge& purge, const std::vector<std::string>& keys);

  Answer make_answer(const RequestView& request, const Freshness& freshness, std::shared_ptr<const StoredObject> object,
                     uint64_t now_ms, EventLoop& loop);

  // --- for flights
  bool stores_on_disk() const { return writer_ != nullptr; }
  Writer& writer() { return *writer_; }
  ReaderPool* readers() { return readers_.get(); }
  std::shared_ptr<DiskBody> new_disk_body(const KeyHash& key, uint64_t generation) {
    return std::make_shared<DiskBody>(key, generation, reclaim_);
  }
  // Puts a whole object into the index, unless it was purged since its fetch began. `disk`: where it is or is going to
  // be.
  void publish(const Flight& flight, const KeyHash& key, uint64_t variant, std::shared_ptr<const StoredObject> object,
               std::shared_ptr<DiskBody> disk);
  // A RAM object whose disk copy was given up.
  void disk_copy_lost(const KeyHash& key, uint64_t variant, const DiskBody* disk);
  // The stored object that a 304 confirmed, with its new head; false when it has gone meanwhile.
  bool freshen(const KeyHash& key, uint64_t variant, const StoredObject& confirmed,
               std::shared_ptr<const StoredObject> fresh, uint64_t received_ms);
  void forget(const KeyHash& key, uint64_t variant, uint64_t generation);
  void clean_up(Leftovers& leftovers);
  KeyHash place_hash(std::string_view key_text) const { return hash_key(keys, place_of(key_text)); }

  // --- WriterClient
  bool on_loaded(const MetaKey& key, const Meta& meta, std::shared_ptr<DiskBody> disk) override;
  void on_all_loaded() override;
  void on_evicted(const KeyHash& key, uint64_t variant, const DiskBody* disk) override;
  uint64_t next_generation() const override { return generation_.load(std::memory_order_acquire); }

  uint64_t take_generation() { return generation_.fetch_add(1, std::memory_order_acq_rel); }
  void wait_loaded();
  void flush();
  Cache::Totals totals();
  PurgePosition durable_purge() const;

  const Options options;
  Counters counters;
  HashKeys keys;
  PurgeTable purges;
  UncacheablePlaces places;
  const std::shared_ptr<FillBudget> fills;  // readers of a flight may outlive the engine
  Index index;

 private:
  struct Sight;  // lookup.cc: what the index showed

  void open_disk();
  void declare_gauges(Metrics& metrics);
  uint64_t oldest_read_age_ns() const;
  PurgeVerdict verdict(Entry& entry);
  void look(Shard& shard, const KeyHash& key, const Asker& asker, const CacheControl& control, Sight& sight,
            Leftovers& leftovers);
  void judge(Shard& shard, std::shared_ptr<Entry> entry, std::shared_ptr<const StoredObject> object, const Asker& asker,
             const CacheControl& control, Sight& sight, Leftovers& leftovers);
  Lookup serve(Asker& asker, Shard& shard, const KeyHash& key, Sight& sight, std::unique_lock<std::mutex>& lock);
  Lookup fetch(Asker& asker, Shard& shard, const KeyHash& key, Sight& sight, const CacheControl& control);
  // Why requests for the key should not wait for each other, as a token; nullptr: they should.
  const char* waiting_is_vain(const Shard& shard, const KeyHash& key, std::string_view key_text, bool is_known,
                              Fields request_fields, uint64_t now_ms) const;
  Lookup start_flight(Asker& asker, Shard& shard, const KeyHash& key, Sight& sight, bool solo);
  std::optional<Lookup> join_flight(Asker& asker, Bucket& bucket, const CacheControl& control);
  void read_here(Asker& asker, Shard& shard, const KeyHash& key, const CacheControl& control, Sight& sight,
                 std::unique_lock<std::mutex>& lock, Leftovers& leftovers);
  std::optional<Lookup> load_from_disk(Asker& asker, Shard& shard, const Entry& entry);
  void read_object(const lmdb::Txn* txn, KeyHash key, uint64_t variant, const std::shared_ptr<DiskBody>& disk);
  void finish_load(const KeyHash& key, uint64_t variant, const std::shared_ptr<DiskBody>& disk,
                   std::shared_ptr<const StoredObject> object, bool damaged, const DiskPlace& place = {});
  void purge_key(const KeyHash& key, bool soft, uint64_t now_ms);

  mutable std::mutex purge_mutex_;  // guards last_purge_; held by nobody who waits
  PurgePosition last_purge_;        // applied to the index; the durable one is the writer's

  std::shared_ptr<Reclaim> reclaim_ = std::make_shared<Reclaim>();
  std::string disk_trouble_;  // why there is no disk tier though one is wanted; set at the start
  std::unique_ptr<Store> store_;
  std::unique_ptr<ReaderPool> readers_;
  std::unique_ptr<ResidentReader> residents_;
  std::unique_ptr<Writer> writer_;
  std::atomic<uint64_t> generation_{1};

  std::mutex loads_mutex_;
  std::unordered_map<uint64_t, std::vector<std::shared_ptr<Pending::Waiter>>> loads_;  // by disk generation

  // While the index is read: keys purged meanwhile, so that their records are not taken for alive.
  std::mutex loading_mutex_;
  std::condition_variable loaded_;
  bool loading_ = false;
  std::unordered_map<KeyHash, uint64_t> purged_while_loading_;
};

}  // namespace tidegate::cache
