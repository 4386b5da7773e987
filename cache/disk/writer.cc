// SPDX-License-Identifier: Apache-2.0
#include "cache/disk/writer.h"

#include <algorithm>
#include <utility>

#include "cache/limits.h"
#include "core/assert.h"
#include "core/clock.h"
#include "core/full_disk.h"
#include "core/log.h"
#include "core/thread.h"

namespace tidegate::cache {
namespace {

constexpr uint64_t kHighWaterPercent = 85;  // eviction goes down to this: LMDB's free lists need the rest
constexpr uint64_t kEmergencyPercent = 90;  // above this no bodies are accepted
constexpr uint64_t kSmallWorkBytes = 256;   // size that counts in the queue for an item without a body
constexpr auto kReclaimPoll = std::chrono::seconds(1);

uint64_t bytes_of(const Work& work) {
  const auto* chunk = std::get_if<PutChunk>(&work);
  return kSmallWorkBytes + (chunk != nullptr ? chunk->bytes.bytes.size() : 0);
}

uint64_t incoming_bytes(const std::vector<Work>& batch) {
  uint64_t sum = 0;
  for (const Work& work : batch) {
    if (const auto* chunk = std::get_if<PutChunk>(&work)) sum += disk_footprint(chunk->bytes.bytes.size(), 0);
    if (const auto* meta = std::get_if<PutMeta>(&work)) sum += disk_footprint(0, meta->head->text_bytes() + 512);
  }
  return sum;
}

// Somebody waits for this work, so the batch is written at once.
bool is_waited_for(const Work& work) {
  return std::holds_alternative<Flush>(work) || std::holds_alternative<LetGo>(work) ||
         std::holds_alternative<TakeBack>(work);
}

}  // namespace

Writer::Writer(Store& store, WriterClient& client, Counters& counters, const WriterLimits& limits,
               std::shared_ptr<Reclaim> reclaim)
    : store_(store),
      client_(client),
      counters_(counters),
      limits_(limits),
      reclaim_(std::move(reclaim)),
      purged_to_(store.header().purge),
      eviction_(store.map_bytes() * kHighWaterPercent / 100),
      noted_(store.header().purge),
      bound_(store.room_bytes()) {}

// Called before each transaction, because other programs fill the file system too.
void Writer::check_space() { bound_.store(store_.room_bytes(), std::memory_order_relaxed); }
uint64_t Writer::limit_bytes() const { return bound_bytes() * kHighWaterPercent / 100; }

std::string Writer::trouble() const {
  const MutexLock lock(mutex_);
  if (!let_go_.load(std::memory_order_relaxed)) return trouble_;
  return lost_.empty() ? "it was handed over to another process" : "it cannot be taken back: " + lost_;
}

// Replaces LMDB's message by a clear one if the disk is full.
std::string Writer::named(const std::string& message) const {
  if (!disk_is_full(message, store_.directory())) return message;
  return fmt::format("the disk that holds {} is full ({})", store_.directory(), message);
}

// Logged when it changes: a disk that stays full gives one line.
void Writer::note_outcome(const Result<void>& written) {
  if (!written) counters_.commit_failures.add();
  const bool was_in_trouble = backing_off_.exchange(!written.has_value());
  if (!written && !was_in_trouble) {
    log_error("cache: {}; the disk tier takes nothing until a transaction succeeds", named(written.error().message));
  } else if (written && was_in_trouble) {
    log_info("cache: the disk tier takes responses again");
  }
  const MutexLock lock(mutex_);
  trouble_ = written ? std::string() : named(written.error().message);
}

PurgePosition Writer::purged_to() const {
  const MutexLock lock(mutex_);
  return purged_to_;
}

void Writer::stop() {
  {
    const MutexLock lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Writer::start() {
  thread_ = start_thread("cache-writer", [this] { run(); });
}

bool Writer::offer(PutChunk chunk) {
  TIDEGATE_ASSERT(chunk.disk != nullptr, "a chunk belongs to a body");
  TIDEGATE_ASSERT(!chunk.bytes.bytes.empty() && chunk.bytes.bytes.size() <= kChunkBytes, "a chunk has a bounded size");
  const uint64_t emergency = bound_bytes() / 100 * kEmergencyPercent;
  const MutexLock lock(mutex_);
  const uint64_t bytes = kSmallWorkBytes + chunk.bytes.bytes.size();
  if (stop_ || backing_off_.load(std::memory_order_relaxed) || let_go_.load(std::memory_order_relaxed) ||
      queue_bytes_ + bytes > limits_.queue_bytes || used_.load(std::memory_order_relaxed) > emergency ||
      chunk.disk->generation < first_generation_)
    return false;
  queue_bytes_ += bytes;
  queue_.push_back(std::move(chunk));
  wake_.notify_one();
  return true;
}

void Writer::submit(Work work) {
  const MutexLock lock(mutex_);
  queue_bytes_ += bytes_of(work);
  flush_wanted_ |= is_waited_for(work);
  queue_.push_back(std::move(work));
  wake_.notify_one();
}

uint64_t Writer::queue_bytes() const {
  const MutexLock lock(mutex_);
  return queue_bytes_;
}

void Writer::run() {
  load();
  std::vector<Work> batch;
  while (wait_for_work(batch)) {
    const uint64_t taken = batch_bytes_;
    commit_batch(batch);
    batch.clear();  // may destroy the last references to slices and bodies: the next batch reclaims them
    {
      const MutexLock lock(mutex_);
      TIDEGATE_ASSERT(queue_bytes_ >= taken, "a batch was counted in the queue");
      queue_bytes_ -= taken;
    }
    for (const auto& done : std::exchange(flushed_, {})) done();
  }
}

// Waits for a first item, then for more until the batch is large or old enough. False: stopped, and nothing is left.
bool Writer::wait_for_work(std::vector<Work>& batch) {
  const auto interval = std::chrono::milliseconds(limits_.commit_interval_ms);
  using Clock = std::chrono::steady_clock;
  MutexLock lock(mutex_);
  const auto poll_end = Clock::now() + kReclaimPoll;
  while (!stop_ && queue_.empty() && wake_.wait_until(lock, poll_end) == std::cv_status::no_timeout) {
  }
  const bool fails = backing_off_;
  const auto batch_end = Clock::now() + (fails || !queue_.empty() ? interval : std::chrono::milliseconds(0));
  const auto is_pressing = [&]() TIDEGATE_REQUIRES(mutex_) {
    return stop_ || (!fails && (flush_wanted_ || queue_bytes_ >= limits_.commit_bytes));
  };
  while (!is_pressing() && wake_.wait_until(lock, batch_end) == std::cv_status::no_timeout) {
  }
  batch_bytes_ = 0;
  while (!queue_.empty() && batch_bytes_ < limits_.commit_bytes) {
    batch_bytes_ += bytes_of(queue_.front());
    batch.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  if (queue_.empty()) flush_wanted_ = false;
  return !(stop_ && batch.empty());
}

void Writer::take_reclaimed() {
  for (const Reclaim::Chunks& chunks : reclaim_->take()) {
    reclaimed_.push_back(chunks);
    reclaimed_bytes_ += chunks.footprint;
  }
}

// Chunks that are reclaimed from now on stay as orphans. The other process sweeps them at its start.
bool Writer::take_let_go(LetGo& work) {
  if (!work.wanted->load(std::memory_order_relaxed)) return false;
  let_go_.store(true, std::memory_order_relaxed);
  flushed_.push_back(std::move(work.done));
  return true;
}

// The other process may have stored bodies. Its generations must not be given to other bodies.
void Writer::take_back(TakeBack& work) {
  if (!let_go_.load(std::memory_order_relaxed)) return;
  const Result<uint64_t> generation = store_.take_back();
  if (!generation) {
    log_error("cache: the disk tier is frozen: {}", generation.error().message);
    const MutexLock lock(mutex_);
    lost_ = generation.error().message;
    return;
  }
  client_.raise_generation(*generation);
  // Some purges that came meanwhile are lost, so the next start must not use the environment.
  if (std::exchange(postponed_too_much_, false)) store_.distrust();
  {
    const MutexLock lock(mutex_);
    first_generation_ = client_.next_generation();
  }
  queue_first(std::exchange(postponed_, {}));
  let_go_.store(false, std::memory_order_relaxed);
  log_info("cache: the disk tier is this process's again");
  if (work.done) flushed_.push_back(std::move(work.done));
}

void Writer::queue_first(std::deque<Work> works) {
  const MutexLock lock(mutex_);
  for (const Work& work : works) {
    queue_bytes_ += bytes_of(work);
    flush_wanted_ |= is_waited_for(work);
  }
  queue_.insert(queue_.begin(), std::make_move_iterator(works.begin()), std::make_move_iterator(works.end()));
}

// Work after a TakeBack goes to the next batch, after the work that waited for the TakeBack.
void Writer::give_up_to_take_back(std::vector<Work>& batch) {
  auto rest =
      std::find_if(batch.begin(), batch.end(), [](const Work& work) { return std::holds_alternative<TakeBack>(work); });
  if (rest != batch.end()) ++rest;
  queue_first({std::make_move_iterator(rest), std::make_move_iterator(batch.end())});
  batch.erase(rest, batch.end());
  give_up(batch);
}

void Writer::commit_batch(std::vector<Work>& batch) {
  take_reclaimed();
  if (let_go_) return give_up_to_take_back(batch);
  check_space();
  make_room(incoming_bytes(batch), limit_bytes());
  // While transactions fail, an empty one is tried, to find out when writing works again.
  if (batch.empty() && reclaimed_.empty() && victims_.empty() && !backing_off_) return;
  const uint64_t started = monotonic_ns();
  auto written = write(batch);
  if (!written) {
    counters_.commit_failures.add();
    if (!backing_off_) log_warn("cache: {}; making room and trying once more", named(written.error().message));
    // The previous process may have been killed while it had a snapshot. Its slot in the reader table would keep pages
    // from being reused, so it is cleared.
    mdb_reader_check(store_.env().get(), nullptr);
    // Pages that one transaction frees can be used only by the next one. So the first transaction only erases, and the
    // next one writes again.
    check_space();
    make_room(2 * incoming_bytes(batch), limit_bytes() * 9 / 10);
    std::vector<Work> nothing;
    if (auto erased = write(nothing); erased) erasures_committed();
    written = write(batch);
  }
  note_outcome(written);
  if (!written) return give_up(batch);
  erasures_committed();
  committed(batch);
  counters_.commits.add();
  counters_.commit_seconds.record_ns(monotonic_ns() - started);
}

void Writer::erasures_committed() {
  used_.fetch_sub(std::min(reclaimed_bytes_, used_.load(std::memory_order_relaxed)), std::memory_order_relaxed);
  reclaimed_bytes_ = 0;
  reclaimed_.clear();
  victims_.clear();
}

// Evicts until the used bytes, minus what the next transaction erases, leave room for `incoming` under the limit.
void Writer::make_room(uint64_t incoming, uint64_t limit_bytes) {
  while (used_.load(std::memory_order_relaxed) + incoming > limit_bytes + reclaimed_bytes_) {
    auto* victim = static_cast<DiskBody*>(eviction_.evict_one());
    if (victim == nullptr) return;
    counters_.evicted_disk.add();
    drop(victim->generation);
    take_reclaimed();
  }
}

// Removes one whole body: its meta record with the next transaction, its chunks when nobody reads them any more.
void Writer::drop(uint64_t disk_generation) {
  const auto found = residents_.find(disk_generation);
  if (found == residents_.end()) return;
  const Resident resident = std::move(found->second);
  residents_.erase(found);
  eviction_.erase(*resident.disk);
  resident.disk->doomed.store(true, std::memory_order_release);
  victims_.push_back({resident.key, resident.variant, disk_generation});
  client_.on_evicted(resident.key, resident.variant, resident.disk.get());
}

void Writer::admit(const KeyHash& key, uint64_t variant, const std::shared_ptr<DiskBody>& disk) {
  TIDEGATE_ASSERT(disk->committed.load(std::memory_order_relaxed), "only what is durable can be evicted");
  disk->bytes = disk->footprint.load(std::memory_order_relaxed);
  disk->identity = key.low ^ mix64(variant);
  eviction_.insert(*disk);
  residents_[disk->generation] = {key, variant, disk};
}

void Writer::account(DiskBody& disk, uint64_t bytes) {
  disk.footprint.fetch_add(bytes, std::memory_order_relaxed);
  used_.fetch_add(bytes, std::memory_order_relaxed);
}

void Writer::committed(std::vector<Work>& batch) {
  {
    const MutexLock lock(mutex_);
    purged_to_ = noted_;  // set before a flush reports that all is done
  }
  for (Work& work : batch) {
    if (auto* chunk = std::get_if<PutChunk>(&work)) {
      if (!chunk->written) continue;
      account(*chunk->disk, disk_footprint(chunk->bytes.bytes.size(), 0));
      counters_.stored_bytes.add(chunk->bytes.bytes.size());
      if (chunk->listener != nullptr) chunk->listener->on_chunks_committed(chunk->index + 1);
    } else if (auto* put = std::get_if<PutMeta>(&work)) {
      const bool stored = put->written;
      if (stored) {
        account(*put->disk, disk_footprint(0, put->head->text_bytes() + put->head->key.size() + 128));
        put->disk->committed.store(true, std::memory_order_release);
        admit(put->key, put->variant, put->disk);
        // Doomed since the transaction wrote it: the code that retired it has queued the erasure of its record.
        if (put->disk->doomed.load(std::memory_order_acquire)) drop(put->disk->generation);
        counters_.stored_disk.add();
      }
      if (put->listener != nullptr) put->listener->on_stored(stored);
    } else if (auto* erase = std::get_if<EraseMeta>(&work)) {
      drop(erase->retired.disk->generation);
    } else if (auto* flush = std::get_if<Flush>(&work)) {
      flushed_.push_back(std::move(flush->done));
    } else if (auto* last = std::get_if<LetGo>(&work)) {
      (void)take_let_go(*last);
    } else if (auto* back = std::get_if<TakeBack>(&work)) {
      take_back(*back);
    } else if (auto* purge = std::get_if<PurgeAll>(&work); purge != nullptr && !purge->soft) {
      drop_up_to(purge->generation);
    }
  }
}

void Writer::drop_up_to(uint64_t generation) {
  std::vector<uint64_t> dead;
  for (const auto& [disk_generation, resident] : residents_) {
    if (disk_generation <= generation) dead.push_back(disk_generation);
  }
  for (const uint64_t disk_generation : dead) drop(disk_generation);
}

// Bodies of a failed batch are not stored. Erasures and purges go back to the head of the queue. When too many wait,
// the next start does not use the environment.
void Writer::give_up(std::vector<Work>& batch) {
  std::deque<Work> again;
  uint64_t again_bytes = 0;
  bool may_not_be_trusted = false;  // the erasures or purges of this batch would be lost
  for (Work& work : batch) {
    if (auto* chunk = std::get_if<PutChunk>(&work)) {
      chunk->disk->doomed.store(true, std::memory_order_release);
      if (chunk->listener != nullptr) chunk->listener->on_chunk_given_up();
    } else if (auto* put = std::get_if<PutMeta>(&work)) {
      put->disk->doomed.store(true, std::memory_order_release);
      if (put->listener != nullptr) put->listener->on_stored(false);
    } else if (auto* flush = std::get_if<Flush>(&work)) {
      flushed_.push_back(std::move(flush->done));
    } else if (auto* last = std::get_if<LetGo>(&work)) {
      const bool was_let_go = let_go_;
      may_not_be_trusted |= take_let_go(*last) && !was_let_go;
    } else if (auto* back = std::get_if<TakeBack>(&work)) {
      take_back(*back);
    } else if (let_go_) {
      if (postponed_.size() < kMaxWaitingErasures) {
        postponed_.push_back(std::move(work));
      } else {
        postponed_too_much_ = true;
      }
    } else {
      again_bytes += bytes_of(work);
      again.push_back(std::move(work));
    }
  }
  if (may_not_be_trusted && !again.empty()) store_.distrust();
  const MutexLock lock(mutex_);
  if (stop_ || let_go_) return;
  if (queue_.size() + again.size() > kMaxWaitingErasures) return store_.distrust();
  queue_bytes_ += again_bytes;
  queue_.insert(queue_.begin(), std::make_move_iterator(again.begin()), std::make_move_iterator(again.end()));
}

}  // namespace tidegate::cache
