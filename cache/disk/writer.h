// SPDX-License-Identifier: Apache-2.0
// Writer: the one thread that writes LMDB. It reads the index at the start. Then it takes work from a bounded queue and
// commits it in batches. It also decides what is evicted from the disk.
//
// Work is applied in the order in which it was queued. A batch is one transaction: evictions and reclaimed chunks
// first, then the work. A transaction that fails (map full, disk full) is aborted, room is made, and it is written once
// more. If that fails too, its objects are given up and their listeners told. No request waits for any of this.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <unordered_map>
#include <variant>
#include <vector>

#include "cache/counters.h"
#include "cache/disk/store.h"
#include "cache/index/index.h"
#include "cache/index/object.h"
#include "cache/index/s3fifo.h"
#include "conf/state_store.h"
#include "core/mutex.h"

namespace tidegate::cache {

// Is told what happens to an object that it stores. Called on the writer's thread, without the writer's locks.
class StoreListener {
 public:
  virtual ~StoreListener() = default;
  virtual void on_chunks_committed(uint32_t chunks) = 0;  // the first `chunks` can be read from disk
  virtual void on_chunk_given_up() = 0;                   // a chunk could not be written: the object will not be stored
  virtual void on_stored(bool stored) = 0;                // the last call: the object is durable, or given up
};

// The functions of the index that the writer calls, on the writer's thread.
class WriterClient {
 public:
  virtual ~WriterClient() = default;
  // Called for a record found at the start. Returns false if a newer one is known, or if it was purged meanwhile. Then
  // the record is erased.
  virtual bool on_loaded(const MetaKey& key, const Meta& meta, std::shared_ptr<DiskBody> disk) = 0;
  virtual void on_all_loaded() = 0;
  virtual void on_evicted(const KeyHash& key, uint64_t variant, const DiskBody* disk) = 0;
  virtual uint64_t next_generation() const = 0;
  // From now on next_generation() returns at least this.
  virtual void raise_generation(uint64_t least) = 0;
};

struct PutChunk {
  std::shared_ptr<DiskBody> disk;
  uint32_t index = 0;
  Slice bytes;
  std::shared_ptr<StoreListener> listener;
  bool written = false;  // the current transaction wrote it
};
struct PutMeta {
  KeyHash key;
  uint64_t variant = 0;
  std::shared_ptr<const StoredHead> head;
  uint64_t received_ms = 0;
  std::shared_ptr<DiskBody> disk;
  std::shared_ptr<const StoredObject>
      object;  // keeps the object readable until it can be read from disk; null if large
  std::shared_ptr<StoreListener> listener;
  bool written = false;
};
// A freshened head, or a shorter freshness, for a body that stays. It has no effect if the record belongs to another
// body by then.
struct UpdateMeta {
  KeyHash key;
  uint64_t variant = 0;
  std::shared_ptr<const StoredHead> head;  // null: only the freshness changes, to `freshness`
  Freshness freshness;
  uint64_t received_ms = 0;
  std::shared_ptr<DiskBody> disk;
};
struct EraseMeta {
  Retired retired;
};
struct PurgeKey {  // every variant fetched up to `generation`
  KeyHash key;
  uint64_t generation = 0;
};
struct PurgeTag {
  uint64_t tag = 0, generation = 0;
  bool soft = false;
};
struct PurgeAll {
  uint64_t generation = 0;
  bool soft = false;
};
struct NotePurge {
  PurgePosition position;
  bool anew = false;  // true: this note replaces the earlier one
};
struct Flush {
  std::function<void()> done;
};
// The last work that is written. `done` is called when it is durable, or if it cannot be written. Nothing is written
// afterwards.
struct LetGo {
  std::function<void()> done;
  std::shared_ptr<std::atomic<bool>> wanted;  // false: it has no effect, and `done` is not called
};
// The other process does not come. Erasures and purges since LetGo are written, and all later work too.
struct TakeBack {
  std::function<void()> done;  // called when this process writes again; not called if it cannot
};
using Work = std::variant<PutChunk, PutMeta, UpdateMeta, EraseMeta, PurgeKey, PurgeTag, PurgeAll, NotePurge, Flush,
                          LetGo, TakeBack>;

struct WriterLimits {
  uint64_t queue_bytes = 0;
  uint64_t commit_bytes = 0;
  uint64_t commit_interval_ms = 0;
};

class Writer {
 public:
  Writer(Store& store, WriterClient& client, Counters& counters, const WriterLimits& limits,
         std::shared_ptr<Reclaim> reclaim);
  ~Writer() { stop(); }

  void start();
  void stop();  // commits what is queued, then ends the thread
  // Offers body bytes. Returns false if the queue is full, if the tier is frozen or nearly full, or if the writer was
  // stopped. Then give the object up.
  bool offer(PutChunk chunk);
  // Queues small work. It is never refused.
  void submit(Work work);

  uint64_t queue_bytes() const;
  uint64_t disk_bytes() const { return used_.load(std::memory_order_relaxed); }
  // The largest size of the file now: Options::disk_bytes, or less if its file system has no room.
  uint64_t bound_bytes() const { return bound_.load(std::memory_order_relaxed); }
  // Why the last transaction could not be written. Empty if it was written. Until one is written, no body is accepted.
  std::string trouble() const;
  PurgePosition purged_to() const;  // the last purge that is durable

 private:
  struct Resident {  // one whole body on disk
    KeyHash key;
    uint64_t variant = 0;
    std::shared_ptr<DiskBody> disk;
  };
  struct Victim {
    KeyHash key;
    uint64_t variant = 0;
    uint64_t generation = 0;
  };

  // writer.cc: the loop and the accounting
  void run();
  bool wait_for_work(std::vector<Work>& batch);
  void take_reclaimed();
  void commit_batch(std::vector<Work>& batch);
  bool take_let_go(LetGo& work);
  void take_back(TakeBack& work);
  void queue_first(std::deque<Work> works);
  void give_up_to_take_back(std::vector<Work>& batch);
  void committed(std::vector<Work>& batch);
  void erasures_committed();
  void give_up(std::vector<Work>& batch);
  void make_room(uint64_t incoming, uint64_t limit_bytes);
  void admit(const KeyHash& key, uint64_t variant, const std::shared_ptr<DiskBody>& disk);
  void drop(uint64_t disk_generation);
  void drop_up_to(uint64_t generation);
  void account(DiskBody& disk, uint64_t bytes);
  void check_space();
  uint64_t limit_bytes() const;
  std::string named(const std::string& message) const;
  void note_outcome(const Result<void>& written);

  // writer_load.cc: the start
  void load();
  void check_store();
  bool load_some(std::string& resume_after);
  void load_record(const lmdb::Txn& txn, std::string_view key_bytes, std::string_view record);
  void sweep_orphans();

  // writer_apply.cc: one transaction
  Result<void> write(std::vector<Work>& batch);
  Result<void> apply(lmdb::Txn& txn, Work& work);
  Result<void> put_chunk(lmdb::Txn& txn, PutChunk& put);
  Result<void> put_meta(lmdb::Txn& txn, PutMeta& put);
  Result<void> update_meta(lmdb::Txn& txn, const UpdateMeta& update);
  Result<void> put_record(lmdb::Txn& txn, const KeyHash& key, uint64_t variant, const StoredHead& head,
                          uint64_t disk_generation, uint64_t received_ms);
  Result<void> erase_if_of(lmdb::Txn& txn, const KeyHash& key, uint64_t variant, uint64_t disk_generation);
  Result<void> erase_chunks(lmdb::Txn& txn, uint64_t generation);
  Result<void> purge_key(lmdb::Txn& txn, const PurgeKey& purge);
  Result<void> purge_tag(lmdb::Txn& txn, const PurgeTag& purge);
  Result<void> purge_all(lmdb::Txn& txn, const PurgeAll& purge);
  Result<void> put_progress(lmdb::Txn& txn);

  Store& store_;
  WriterClient& client_;
  Counters& counters_;
  const WriterLimits limits_;
  const std::shared_ptr<Reclaim> reclaim_;

  mutable Mutex mutex_;
  MutexCondition wake_;
  std::deque<Work> queue_ TIDEGATE_GUARDED_BY(mutex_);
  uint64_t queue_bytes_ TIDEGATE_GUARDED_BY(mutex_) = 0;  // bytes of the queue and of the current batch
  bool flush_wanted_ TIDEGATE_GUARDED_BY(mutex_) = false;
  bool stop_ TIDEGATE_GUARDED_BY(mutex_) = false;
  PurgePosition purged_to_ TIDEGATE_GUARDED_BY(mutex_);        // durable
  std::string trouble_ TIDEGATE_GUARDED_BY(mutex_);            // why the last transaction failed
  std::string lost_ TIDEGATE_GUARDED_BY(mutex_);               // why the tier could not be taken back
  uint64_t first_generation_ TIDEGATE_GUARDED_BY(mutex_) = 0;  // smaller ones may belong to bodies of the other process

  // Used only by the writer's thread.
  std::unordered_map<uint64_t, Resident> residents_;  // by disk generation
  S3Fifo eviction_;
  std::vector<Victim> victims_;             // meta records to erase with the next transaction
  std::vector<Reclaim::Chunks> reclaimed_;  // chunks to erase with the next transaction
  uint64_t reclaimed_bytes_ = 0;
  uint64_t batch_bytes_ = 0;
  std::vector<std::function<void()>> flushed_;  // called after the batch was destroyed
  std::atomic<bool> let_go_{false};             // another process writes from now on
  std::deque<Work> postponed_;                  // erasures and purges since then, for the case that it does not come
  bool postponed_too_much_ = false;             // there were more than fit
  std::atomic<bool> backing_off_{false};        // the last transaction failed: wait between tries, take no bodies
  PurgePosition noted_;
  std::atomic<uint64_t> used_{0};
  std::atomic<uint64_t> bound_;
  std::thread thread_;
};

}  // namespace tidegate::cache
