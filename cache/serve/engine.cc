// SPDX-License-Identifier: Apache-2.0
// Joins the engine's parts: opening, publishing, loading from disk, shutting down.
#include "cache/serve/engine.h"

#include <algorithm>

#include "cache/limits.h"
#include "cache/serve/flight.h"
#include "core/assert.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "core/log.h"

namespace tidegate::cache {
namespace {

constexpr uint64_t kLittleRoomBytes = 4 << 20;  // a smaller disk tier counts as none

uint64_t stored_bytes(const StoredHead& head) { return head.body_bytes + head.field_text.size(); }

HashKeys random_hash_keys() {
  return {derive_hash_key(random_bytes(32), "cache high"), derive_hash_key(random_bytes(32), "cache low")};
}

// Freed pages serve later transactions only, so a batch must be a small part of the map.
WriterLimits writer_limits(const Options& options, uint64_t map_bytes) {
  const uint64_t largest_batch = std::max<uint64_t>(map_bytes / 32, 256 * 1024);
  return {options.writer_queue_bytes, std::min(options.commit_bytes, largest_batch), options.commit_interval_ms};
}

}  // namespace

Engine::Engine(const Options& options_, Metrics& metrics, UniqueFd lock)
    : options(options_),
      counters(metrics),
      keys(random_hash_keys()),
      fills(std::make_shared<FillBudget>(options_.ram_bytes)),
      index(options_.ram_bytes) {
  if (!options.directory.empty()) open_disk(std::move(lock));
  declare_gauges(metrics);
}

Engine::~Engine() {
  if (readers_ != nullptr) readers_->stop();
  if (writer_ != nullptr) writer_->stop();  // while the objects that it calls still exist
}

void Engine::open_disk(UniqueFd inherited) {
  auto store = Store::open(options.directory, options.disk_bytes, std::move(inherited));
  if (!store) {
    disk_trouble_ = "there is no disk tier: " + store.error().message;
    log_error("cache: {}; working from memory alone", disk_trouble_);
    return;
  }
  store_ = std::move(*store);
  const StoreHeader& header = store_->header();
  keys = header.keys;
  generation_ = header.generation;
  {
    const MutexLock lock(purge_mutex_);
    last_purge_ = header.purge;
  }
  purges.purge_all(header.all_hard, false);
  purges.purge_all(header.all_soft, true);
  for (const auto& [tag, epochs] : header.tags) {
    purges.purge_tag(tag, epochs.first, false);
    purges.purge_tag(tag, epochs.second, true);
  }
  {
    const MutexLock lock(loading_mutex_);
    loading_ = true;
  }
  readers_ = std::make_unique<ReaderPool>(*store_, options.reader_threads);
  residents_ = std::make_unique<ResidentReader>(*store_);
  writer_ = std::make_unique<Writer>(*store_, *this, counters, writer_limits(options, store_->room_bytes()), reclaim_);
  writer_->start();
}

void Engine::declare_gauges(Metrics& metrics) {
  const auto gauge = [&](const char* name, const char* help, auto read) {
    metrics.gauge(name, help, [this, read] { return static_cast<double>(read(*this)); });
  };
  gauge("tidegate_cache_objects", "Objects known", [](Engine& e) { return e.index.objects(); });
  gauge("tidegate_cache_coded_objects", "Bodies held in a content coding, beside the response that they were made of",
        [](Engine& e) { return e.index.coded(); });
  gauge("tidegate_cache_memory_bytes", "Bytes of the memory tier", [](Engine& e) { return e.index.ram_bytes(); });
  gauge("tidegate_cache_disk_bytes", "Bytes of the disk tier",
        [](Engine& e) { return e.writer_ ? e.writer_->disk_bytes() : 0; });
  gauge("tidegate_cache_disk_working", "1 while there is a disk tier; 0: none is wanted, or it cannot be used",
        [](Engine& e) { return e.store_ != nullptr ? 1 : 0; });
  gauge("tidegate_cache_disk_frozen", "1 while the disk tier takes nothing because writing fails",
        [](Engine& e) { return e.writer_ && !e.writer_->trouble().empty() ? 1 : 0; });
  gauge("tidegate_cache_disk_bound_bytes", "What the disk tier may take, as its file system has room",
        [](Engine& e) { return e.writer_ ? e.writer_->bound_bytes() : 0; });
  gauge("tidegate_cache_fill_bytes", "Bytes of bodies that arrive, held for those who read them and for the writer",
        [](Engine& e) { return e.fills->bytes(); });
  gauge("tidegate_cache_writer_queue_bytes", "Bytes that wait for the writer",
        [](Engine& e) { return e.writer_ ? e.writer_->queue_bytes() : 0; });
  gauge("tidegate_cache_oldest_read_seconds", "Age of the oldest disk read under way",
        [](Engine& e) { return static_cast<double>(e.oldest_read_age_ns()) / 1e9; });
}

uint64_t Engine::oldest_read_age_ns() const {
  if (store_ == nullptr) return 0;
  return std::max(readers_->oldest_read_age_ns(), residents_->oldest_read_age_ns());
}

Answer Engine::make_answer(const RequestView& request, const Freshness& freshness,
                           std::shared_ptr<const StoredObject> object, uint64_t now_ms, EventLoop& loop) {
  TIDEGATE_ASSERT(object != nullptr && object->head != nullptr, "an answer needs an object with a head");
  Answer answer;
  answer.head = object->head;
  const Selection selection = select(request, *object->head, now_ms);
  answer.status = selection.status;
  answer.range = selection.range;
  answer.age_s = age_ms(freshness, now_ms) / 1000;
  const bool is_bare = answer.status == 412 || answer.status == 416;
  answer.content_length = is_bare ? 0 : selection.range.length;
  if (request.method != "HEAD" && answer.status != 304 && !is_bare)
    answer.body = BodyReader(std::move(object), selection.range, readers_.get(), loop);
  return answer;
}

void Engine::publish(const Flight& flight, const KeyHash& key, uint64_t variant,
                     std::shared_ptr<const StoredObject> object, std::shared_ptr<DiskBody> disk) {
  TIDEGATE_ASSERT(object != nullptr, "an entry needs an object");
  TIDEGATE_ASSERT(object->head->body_bytes != UINT64_MAX, "a published body has a known length");
  auto entry = std::make_shared<Entry>();
  entry->key = key;
  entry->variant = variant;
  entry->vary = object->head->vary;
  entry->stored_bytes = stored_bytes(*object->head);
  entry->freshness = object->head->freshness;
  entry->generation = object->head->generation;
  entry->tags = object->head->tags;
  entry->disk = disk;
  DeferredRelease deferred;
  bool published = false;
  {
    Shard& shard = index.shard(key);
    const MutexLock lock(shard.mutex);
    const bool purged = flight.is_disowned() || purges.verdict(entry->tags, entry->generation) == PurgeVerdict::dead;
    published = !purged && shard.publish(entry, deferred);
    if (published) shard.hold(*entry, std::move(object), deferred);
  }
  if (!published && disk != nullptr) deferred.retired.push_back({key, variant, std::move(disk)});
  release_deferred(deferred);
}

// Objects that left the index also leave the disk: the writer's next transaction erases the record, and the chunks are
// erased when the last reader has released them.
void Engine::release_deferred(DeferredRelease& deferred) {
  counters.evicted_memory.add(deferred.evicted_from_ram);
  counters.evicted_variants.add(deferred.evicted_variants);
  for (Retired& retired : deferred.retired) {
    retired.disk->doomed.store(true, std::memory_order_release);
    if (writer_ != nullptr) writer_->submit(EraseMeta{std::move(retired)});
  }
  deferred = {};
}

void Engine::disk_copy_lost(const KeyHash& key, uint64_t variant, const DiskBody* disk) {
  DeferredRelease deferred;
  {
    Shard& shard = index.shard(key);
    const MutexLock lock(shard.mutex);
    Bucket* bucket = shard.find(key);
    if (bucket == nullptr) return;
    for (const auto& entry : std::vector(bucket->entries)) {
      if (entry->variant != variant || entry->disk.get() != disk) continue;
      entry->disk = nullptr;
      if (entry->object == nullptr) shard.erase(*entry, deferred);
    }
  }
  release_deferred(deferred);
}

bool Engine::freshen(const KeyHash& key, uint64_t variant, const StoredObject& confirmed,
                     std::shared_ptr<const StoredObject> fresh, uint64_t received_ms) {
  DeferredRelease deferred;
  std::shared_ptr<Entry> entry;
  UpdateMeta update;
  {
    Shard& shard = index.shard(key);
    const MutexLock lock(shard.mutex);
    Bucket* bucket = shard.find(key);
    if (bucket == nullptr) return false;
    for (const auto& candidate : bucket->entries) {
      if (candidate->variant == variant && candidate->generation == confirmed.head->generation) entry = candidate;
    }
    if (entry == nullptr) return false;
    entry->freshness = fresh->head->freshness;
    shard.move_coded(key, variant, entry->generation, fresh->head->generation);
    entry->generation = fresh->head->generation;
    entry->tags = fresh->head->tags;
    entry->purges_seen = 0;
    update = {key, variant, fresh->head, {}, received_ms, entry->disk};
    shard.hold(*entry, std::move(fresh), deferred);
  }
  release_deferred(deferred);
  if (update.disk != nullptr && writer_ != nullptr) writer_->submit(std::move(update));
  return true;
}

void Engine::forget(const KeyHash& key, uint64_t variant, uint64_t generation) {
  DeferredRelease deferred;
  {
    Shard& shard = index.shard(key);
    const MutexLock lock(shard.mutex);
    Bucket* bucket = shard.find(key);
    if (bucket == nullptr) return;
    for (const auto& entry : std::vector(bucket->entries)) {
      if (entry->variant == variant && entry->generation == generation) shard.erase(*entry, deferred);
    }
  }
  release_deferred(deferred);
}

// --- reading from disk

void Engine::read_object(const lmdb::Txn* txn, KeyHash key, uint64_t variant, const std::shared_ptr<DiskBody>& disk) {
  bool damaged = false;
  std::optional<Meta> meta;
  if (txn != nullptr) meta = store_->read_meta(*txn, key, variant, damaged);
  if (!meta || meta->disk_generation != disk->generation) return finish_load(key, variant, disk, nullptr, damaged);
  auto object = std::make_shared<StoredObject>();
  object->resident = meta->head->body_bytes <= kMaxResidentBytes;
  object->disk = object->resident ? nullptr : disk;
  uint64_t read_bytes = 0;
  for (uint32_t i = 0; object->resident && i < chunk_count(meta->head->body_bytes); ++i) {
    auto chunk = store_->read_chunk(*txn, {disk->key, disk->generation, i});
    if (!chunk) return finish_load(key, variant, disk, nullptr, true);
    read_bytes += chunk->bytes.size();
    object->body.push_back(std::move(*chunk));
  }
  if (object->resident && read_bytes != meta->head->body_bytes) return finish_load(key, variant, disk, nullptr, true);
  const bool small = object->resident && !meta->head_apart && read_bytes <= ResidentReader::kMaxBodyBytes;
  const DiskPlace place = small ? ResidentReader::find(*store_, *txn, key, variant, disk->generation) : DiskPlace{};
  object->head = std::move(meta->head);
  finish_load(key, variant, disk, std::move(object), false, place);
}

void Engine::finish_load(const KeyHash& key, uint64_t variant, const std::shared_ptr<DiskBody>& disk,
                         std::shared_ptr<const StoredObject> object, bool damaged, const DiskPlace& place) {
  if (damaged) counters.corrupt.add();
  DeferredRelease deferred;
  {
    Shard& shard = index.shard(key);
    const MutexLock lock(shard.mutex);
    Bucket* bucket = shard.find(key);
    for (const auto& entry : bucket != nullptr ? std::vector(bucket->entries) : std::vector<std::shared_ptr<Entry>>()) {
      if (entry->variant != variant || entry->disk != disk) continue;
      if (object == nullptr) {
        shard.erase(*entry, deferred);
        continue;
      }
      if (ResidentReader::may_read(place)) disk->place = place;
      if (entry->object == nullptr) shard.hold(*entry, object, deferred);
    }
  }
  release_deferred(deferred);
  std::vector<std::shared_ptr<Pending::Waiter>> waiters;
  {
    const MutexLock lock(loads_mutex_);
    const auto found = loads_.find(disk->generation);
    if (found != loads_.end()) {
      waiters = std::move(found->second);
      loads_.erase(found);
    }
  }
  for (const auto& waiter : waiters) lookup_again(waiter);
}

// --- WriterClient

void Engine::raise_generation(uint64_t least) {
  uint64_t now = generation_.load(std::memory_order_acquire);
  while (now < least && !generation_.compare_exchange_weak(now, least, std::memory_order_acq_rel)) {
  }
}

bool Engine::on_loaded(const MetaKey& key, const Meta& meta, std::shared_ptr<DiskBody> disk) {
  const StoredHead& head = *meta.head;
  if (purges.verdict(head.tags, head.generation) == PurgeVerdict::dead) return false;
  auto entry = std::make_shared<Entry>();
  entry->key = key.key;
  entry->variant = key.variant;
  entry->vary = head.vary;
  entry->stored_bytes = stored_bytes(head);
  entry->freshness = head.freshness;
  entry->generation = head.generation;
  entry->tags = head.tags;
  entry->disk = std::move(disk);
  DeferredRelease deferred;
  bool published = false;
  {
    Shard& shard = index.shard(key.key);
    const MutexLock lock(shard.mutex);
    // A purge first notes its key in purged_while_loading_, then looks through the shard. Both locks are held here, so
    // either this sees the note or the purge sees the entry.
    const MutexLock loading_lock(loading_mutex_);
    if (purged_while_loading_.count(key.key) != 0) return false;
    published = shard.publish(std::move(entry), deferred);
  }
  release_deferred(deferred);
  return published;
}

void Engine::on_all_loaded() {
  {
    const MutexLock lock(loading_mutex_);
    loading_ = false;
    purged_while_loading_.clear();
  }
  loaded_.notify_all();
}

void Engine::on_evicted(const KeyHash& key, uint64_t variant, const DiskBody* disk) {
  DeferredRelease deferred;
  {
    Shard& shard = index.shard(key);
    const MutexLock lock(shard.mutex);
    Bucket* bucket = shard.find(key);
    if (bucket == nullptr) return;
    for (const auto& entry : std::vector(bucket->entries)) {
      if (entry->variant != variant || entry->disk.get() != disk) continue;
      entry->disk = nullptr;  // the writer itself erases the record
      // The memory tier may be larger than the disk tier: an object in memory stays.
      const bool is_dead = purges.verdict(entry->tags, entry->generation) == PurgeVerdict::dead;
      if (entry->object == nullptr || !entry->object->resident || is_dead) shard.erase(*entry, deferred);
    }
  }
  release_deferred(deferred);
}

void Engine::wait_loaded() {
  MutexLock lock(loading_mutex_);
  while (loading_) loaded_.wait(lock);
}

void Engine::flush() {
  if (writer_ == nullptr) return;
  Mutex mutex;
  MutexCondition done;
  bool is_done = false;
  writer_->submit(Flush{[&] {
    const MutexLock lock(mutex);
    is_done = true;
    done.notify_all();
  }});
  MutexLock lock(mutex);
  while (!is_done) done.wait(lock);
}

// `done` is called on the writer's thread.
void Engine::let_go(std::function<void(UniqueFd lock)> done) {
  if (writer_ == nullptr) return done({});
  let_go_wanted_ = std::make_shared<std::atomic<bool>>(true);
  writer_->submit(LetGo{[this, done = std::move(done)] {
                          readers_->pin(kHandedOverSnapshotMs);
                          done(store_->let_go());
                        },
                        let_go_wanted_});
}

void Engine::take_back() {
  if (!let_go_wanted_) return;
  let_go_wanted_->store(false);
  writer_->submit(TakeBack{[this] { readers_->unpin(); }});
}

Cache::Totals Engine::totals() {
  Cache::Totals totals;
  totals.disk_trouble = disk_trouble_;
  totals.fill_bytes = fills->bytes();
  totals.objects = index.objects();
  totals.ram_bytes = index.ram_bytes();
  if (writer_ != nullptr) {
    totals.disk_bytes = writer_->disk_bytes();
    totals.writer_queue_bytes = writer_->queue_bytes();
    if (const std::string why = writer_->trouble(); !why.empty()) {
      totals.disk_trouble = "the disk tier is frozen, it takes nothing: " + why;
    } else if (writer_->bound_bytes() < kLittleRoomBytes) {
      totals.disk_trouble = "the disk tier has next to no room: its file system is full";
    }
  }
  const MutexLock lock(loading_mutex_);
  totals.loading = loading_;
  return totals;
}

}  // namespace tidegate::cache
