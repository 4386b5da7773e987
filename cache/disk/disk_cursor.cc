// SPDX-License-Identifier: Apache-2.0
#include "cache/disk/disk_cursor.h"

#include "cache/limits.h"
#include "core/assert.h"

namespace tidegate::cache {

BodyStep DiskCursor::chunk(uint32_t index, const std::shared_ptr<LoopCall>& call, Slice& slice) {
  const MutexLock lock(mutex_);
  if (!reading_ && index >= first_ && index - first_ < chunks_.size()) {
    slice = chunks_[index - first_];
    return BodyStep::data;
  }
  if (failed_) return BodyStep::error;
  waiting_ = call;
  if (!reading_) {
    reading_ = true;
    chunks_.clear();
    first_ = index;
    auto job = [self = shared_from_this(), index](const lmdb::Txn* txn) {
      self->read(txn, self->readers_.store(), index);
    };
    if (!readers_.submit(std::move(job), true)) {
      failed_ = true;
      return BodyStep::error;
    }
  }
  return BodyStep::wait;
}

void DiskCursor::read(const lmdb::Txn* txn, const Store& store, uint32_t first) {
  std::vector<Slice> chunks;
  for (uint32_t i = 0; txn != nullptr && i < kDiskReadAheadChunks; ++i) {
    auto chunk = store.read_chunk(*txn, {key_, generation_, first + i});
    if (!chunk) break;  // the end of the body; an error if it is the first chunk
    const bool last = chunk->bytes.size() < kChunkBytes;
    chunks.push_back(std::move(*chunk));
    if (last) break;
  }
  const MutexLock lock(mutex_);
  TIDEGATE_ASSERT(reading_ && first_ == first, "one read at a time");
  failed_ = chunks.empty();
  chunks_ = std::move(chunks);
  reading_ = false;
  if (waiting_ != nullptr) waiting_->notify();
  waiting_ = nullptr;
}

}  // namespace tidegate::cache
