// SPDX-License-Identifier: Apache-2.0
// Engine: what the parts of the cache share, and the work that needs several parts: lookup, publishing, purging,
// loading from disk. The facade (cache.h) only forwards to it.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "cache/cache.h"
#include "cache/counters.h"
#include "cache/disk/reader_pool.h"
#include "cache/disk/resident_reader.h"
#include "cache/disk/writer.h"
#include "cache/index/index.h"
#include "cache/index/purge_table.h"
#include "cache/policy/policy.h"
#include "cache/serve/fill_budget.h"
#include "cache/serve/owned_request.h"
#include "conf/model/route.h"
#include "core/mutex.h"

namespace tidegate::cache {

// A lookup that waits for a flight's head or for the disk. Two sides share it: its Pending (the client's side), and the
// flight or the read for which it waits.
struct Pending::Waiter : std::enable_shared_from_this<Pending::Waiter> {
  Waiter(const RequestView& request_, const RouteCache& policy_, uint64_t now_ms, EventLoop& loop, OnFound on_found_);

  // Any thread. Hands the result to the loop. If the client has gone, the result is dropped, and a Fill in it goes to
  // another waiter.
  void deliver(Lookup found);
  // The loop, or nullptr when the client has gone.
  EventLoop* loop();
  uint64_t now_ms() const;

  const OwnedRequest request;
  const RouteCache policy;
  const uint64_t asked_ms;  // realtime
  const uint64_t asked_ns;  // monotonic; with asked_ms it gives the realtime of a later moment
  std::weak_ptr<Flight> flight TIDEGATE_GUARDED_BY(mutex);  // the flight that it waits for, or waited for last
  bool waited_for_flight = false;
  bool waited_for_disk = false;
  uint32_t unsatisfied = 0;  // answers that were stored and did not meet this request's max-age or min-fresh

  Mutex mutex;
  EventLoop* alive_loop TIDEGATE_GUARDED_BY(mutex);  // null once the Pending is gone
  OnFound on_found;                                  // for the loop's thread
};

// The asking side: a caller of the facade, or a waiter that is looked up again.
struct Asker {
  const RequestView& request;
  const RouteCache& policy;
  uint64_t now_ms;
  EventLoop& loop;
  OnFound* on_found;                        // moved from when a waiter is made
  std::shared_ptr<Pending::Waiter> waiter;  // made when needed
  bool from_disk = false;                   // its object had to be read from disk

  std::shared_ptr<Pending::Waiter> wait();
};

class Engine final : public WriterClient {
 public:
  Engine(const Options& options, Metrics& metrics, UniqueFd lock);
  ~Engine() override;

  Lookup lookup(Asker& asker);
  // Looks a waiter up again and delivers the result. Any thread.
  void lookup_again(const std::shared_ptr<Pending::Waiter>& waiter);
  Explanation explain(const RequestView& request, const RouteCache& policy, uint64_t now_ms);
  void invalidate(const RequestView& request, const RouteCache& policy, const ResponseView& response);
  void purge(const Purge& purge, const std::vector<std::string>& keys);

  Answer make_answer(const RequestView& request, const Freshness& freshness, std::shared_ptr<const StoredObject> object,
                     uint64_t now_ms, EventLoop& loop);

  std::optional<CodedBody> find_coded(const StoredHead& head, Coding coding, EventLoop& loop);
  void store_coded(const StoredHead& head, Coding coding, std::string body);

  // --- for flights
  bool stores_on_disk() const { return writer_ != nullptr; }
  Writer& writer() { return *writer_; }
  ReaderPool* readers() { return readers_.get(); }
  std::shared_ptr<DiskBody> new_disk_body(const KeyHash& key, uint64_t generation) {
    return std::make_shared<DiskBody>(key, generation, reclaim_);
  }
  // Puts a whole object into the index, unless it was purged since its fetch began. `disk`: where it is, or will be.
  void publish(const Flight& flight, const KeyHash& key, uint64_t variant, std::shared_ptr<const StoredObject> object,
               std::shared_ptr<DiskBody> disk);
  // Tells that the disk copy of an object in memory was given up.
  void disk_copy_lost(const KeyHash& key, uint64_t variant, const DiskBody* disk);
  // Replaces the head of the stored object that a 304 confirmed. False when the object has gone meanwhile.
  bool freshen(const KeyHash& key, uint64_t variant, const StoredObject& confirmed,
               std::shared_ptr<const StoredObject> fresh, uint64_t received_ms);
  void forget(const KeyHash& key, uint64_t variant, uint64_t generation);
  void release_deferred(DeferredRelease& deferred);
  KeyHash place_hash(std::string_view key_text) const { return hash_key(keys, place_of(key_text)); }

  // --- WriterClient
  bool on_loaded(const MetaKey& key, const Meta& meta, std::shared_ptr<DiskBody> disk) override;
  void on_all_loaded() override;
  void on_evicted(const KeyHash& key, uint64_t variant, const DiskBody* disk) override;
  uint64_t next_generation() const override { return generation_.load(std::memory_order_acquire); }
  void raise_generation(uint64_t least) override;

  uint64_t take_generation() { return generation_.fetch_add(1, std::memory_order_acq_rel); }
  void wait_loaded();
  void flush();
  void let_go(std::function<void(UniqueFd lock)> done);
  void take_back();
  Cache::Totals totals();
  PurgePosition durable_purge() const;

  const Options options;
  Counters counters;
  HashKeys keys;
  PurgeTable purges;
  UncacheablePlaces places;
  const std::shared_ptr<FillBudget> fills;  // shared: readers of a flight may outlive the engine
  Index index;

 private:
  struct IndexView;  // what the index holds for a request; lookup.cc

  void open_disk(UniqueFd inherited);
  void declare_gauges(Metrics& metrics);
  uint64_t oldest_read_age_ns() const;
  PurgeVerdict verdict(Entry& entry);
  void view_index(Shard& shard, const KeyHash& key, const Asker& asker, const CacheControl& control, IndexView& view,
                  DeferredRelease& deferred) TIDEGATE_REQUIRES(shard.mutex);
  void check_entry(Shard& shard, std::shared_ptr<Entry> entry, std::shared_ptr<const StoredObject> object,
                   const Asker& asker, const CacheControl& control, IndexView& view, DeferredRelease& deferred)
      TIDEGATE_REQUIRES(shard.mutex);
  Lookup serve(Asker& asker, Shard& shard, const KeyHash& key, IndexView& view) TIDEGATE_REQUIRES(shard.mutex);
  Lookup fetch(Asker& asker, Shard& shard, const KeyHash& key, IndexView& view, const CacheControl& control)
      TIDEGATE_REQUIRES(shard.mutex);
  // Why requests for the key should not wait for each other, as a token. nullptr if they should wait.
  const char* reason_not_to_wait(const Shard& shard, const KeyHash& key, std::string_view key_text, bool is_known,
                                 Fields request_fields, uint64_t now_ms) const TIDEGATE_REQUIRES(shard.mutex);
  Lookup start_flight(Asker& asker, Shard& shard, const KeyHash& key, IndexView& view, bool solo)
      TIDEGATE_REQUIRES(shard.mutex);
  std::optional<Lookup> attach_to_flight(Asker& asker, Bucket& bucket, const CacheControl& control);
  void read_resident(Asker& asker, Shard& shard, const KeyHash& key, const CacheControl& control, IndexView& view,
                     DeferredRelease& deferred) TIDEGATE_REQUIRES(shard.mutex);
  std::optional<Lookup> load_from_disk(Asker& asker, Shard& shard, const Entry& entry) TIDEGATE_REQUIRES(shard.mutex);
  void read_object(const lmdb::Txn* txn, KeyHash key, uint64_t variant, const std::shared_ptr<DiskBody>& disk);
  void finish_load(const KeyHash& key, uint64_t variant, const std::shared_ptr<DiskBody>& disk,
                   std::shared_ptr<const StoredObject> object, bool damaged, const DiskPlace& place = {});
  void purge_key(const KeyHash& key, bool soft, uint64_t now_ms);
  void invalidate_key(const std::string& key, const RouteCache& policy, uint64_t now_ms);

  mutable Mutex purge_mutex_;
  PurgePosition last_purge_
      TIDEGATE_GUARDED_BY(purge_mutex_);  // the last purge applied to the index; the writer knows the durable one

  std::shared_ptr<Reclaim> reclaim_ = std::make_shared<Reclaim>();
  std::shared_ptr<std::atomic<bool>> let_go_wanted_;
  std::string disk_trouble_;  // why a configured disk tier is missing; set at the start
  std::unique_ptr<Store> store_;
  std::unique_ptr<ReaderPool> readers_;
  std::unique_ptr<ResidentReader> residents_;
  std::unique_ptr<Writer> writer_;
  std::atomic<uint64_t> generation_{1};

  Mutex loads_mutex_;
  using Loads = std::unordered_map<uint64_t, std::vector<std::shared_ptr<Pending::Waiter>>>;  // by disk generation
  Loads loads_ TIDEGATE_GUARDED_BY(loads_mutex_);

  // Keys that were purged while the index is read. Their records must not come back.
  Mutex loading_mutex_;
  MutexCondition loaded_;
  bool loading_ TIDEGATE_GUARDED_BY(loading_mutex_) = false;
  std::unordered_map<KeyHash, uint64_t> purged_while_loading_ TIDEGATE_GUARDED_BY(loading_mutex_);
};

}  // namespace tidegate::cache
