// SPDX-License-Identifier: Apache-2.0
// The writer's start. The index is read from disk in short transactions while requests are served. Chunks without a
// record, left by a fill that a crash cut off, are swept.
#include "cache/disk/writer.h"
#include "core/log.h"

namespace tidegate::cache {
namespace {

constexpr size_t kRecordsPerTransaction = 2048;  // a few milliseconds: a long read transaction stops page reuse
constexpr size_t kChunksPerTransaction = 65'536;

}  // namespace

void Writer::load() {
  check_store();
  std::string resume_after;
  while (load_some(resume_after)) {
  }
  sweep_orphans();
  store_.mark_loaded();
  log_info("cache: {} objects on disk, {} bytes, {} leftovers to erase", residents_.size(), disk_bytes(),
           victims_.size() + reclaimed_.size());
  client_.on_all_loaded();
}

// A file that a killed process left is checked here, while requests are served. Until then nothing in it is read or
// written.
void Writer::check_store() {
  if (!store_.must_check()) return;
  const Result<void> sound = store_.check();
  if (sound) return;
  if (auto anew = store_.start_anew(sound.error().message, client_.next_generation(), noted_); !anew)
    log_error("cache: {}; the disk tier takes nothing", anew.error().message);
}

// Returns false after the last record.
bool Writer::load_some(std::string& resume_after) {
  auto txn = lmdb::Txn::begin(store_.env(), lmdb::Access::read);
  if (!txn) return false;
  lmdb::Cursor cursor(*txn, store_.meta_db());
  bool more = resume_after.empty() ? cursor.first() : cursor.seek(resume_after);
  if (more && !resume_after.empty() && cursor.key() == resume_after) more = cursor.next();
  for (size_t count = 0; more && count < kRecordsPerTransaction; ++count, more = cursor.next()) {
    if (cursor.key() <= resume_after) return false;  // the tree is garbled, and the loop would never end
    resume_after = cursor.key();
    load_record(*txn, cursor.key(), cursor.value());
  }
  return more;
}

void Writer::load_record(const lmdb::Txn& txn, std::string_view key_bytes, std::string_view record) {
  const auto key = decode_meta_key(key_bytes);
  if (!key) return;
  const auto meta = Store::copy_meta(txn, key_bytes, record);
  if (!meta) {
    counters_.corrupt.add();
    victims_.push_back({key->key, key->variant, 0});
    return;
  }
  auto disk = std::make_shared<DiskBody>(key->key, meta->disk_generation, reclaim_);
  account(*disk, disk_footprint(meta->head->body_bytes, record.size()));
  disk->committed.store(true, std::memory_order_release);
  admit(key->key, key->variant, disk);
  if (!client_.on_loaded(*key, *meta, disk)) drop(meta->disk_generation);
}

void Writer::sweep_orphans() {
  const uint64_t first_of_this_run = store_.header().generation;
  std::string resume = lmdb::be64(0);
  for (bool more = true; more;) {
    auto txn = lmdb::Txn::begin(store_.env(), lmdb::Access::read);
    if (!txn) return;
    lmdb::Cursor cursor(*txn, store_.chunk_db());
    more = cursor.seek(resume);
    for (size_t count = 0; more && count < kChunksPerTransaction; ++count, more = cursor.seek(resume)) {
      if (cursor.key().size() != 12) return;
      const uint64_t generation = lmdb::be64(cursor.key().substr(0, 8));
      if (generation >= first_of_this_run) return;
      if (residents_.count(generation) == 0) reclaimed_.push_back({generation, 0});
      resume = lmdb::be64(generation + 1);
    }
  }
}

}  // namespace tidegate::cache
