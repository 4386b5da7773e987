// SPDX-License-Identifier: Apache-2.0
// DiskCursor: lets the reader threads read one body ahead of one client.
#pragma once

#include <memory>
#include <vector>

#include "cache/body.h"
#include "cache/disk/reader_pool.h"
#include "cache/index/object.h"
#include "cache/serve/loop_call.h"
#include "core/mutex.h"

namespace tidegate::cache {

class DiskCursor : public std::enable_shared_from_this<DiskCursor> {
 public:
  DiskCursor(ReaderPool& readers, const DiskBody& body)
      : readers_(readers), key_(body.key), generation_(body.generation) {}

  // The chunk, if it was read. `wait`: it is being read, and `call` will be notified. `error`: absent or damaged.
  BodyStep chunk(uint32_t index, const std::shared_ptr<LoopCall>& call, Slice& slice);

 private:
  void read(const lmdb::Txn* txn, const Store& store, uint32_t first);

  ReaderPool& readers_;
  const KeyHash key_;
  const uint64_t generation_;
  Mutex mutex_;
  uint32_t first_ TIDEGATE_GUARDED_BY(mutex_) = 0;
  std::vector<Slice> chunks_ TIDEGATE_GUARDED_BY(mutex_);  // chunks from first_ on
  bool reading_ TIDEGATE_GUARDED_BY(mutex_) = false;
  bool failed_ TIDEGATE_GUARDED_BY(mutex_) = false;
  std::shared_ptr<LoopCall> waiting_ TIDEGATE_GUARDED_BY(mutex_);
};

}  // namespace tidegate::cache
