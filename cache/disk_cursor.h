// SPDX-License-Identifier: Apache-2.0
// DiskCursor: reads one body's chunks ahead of one client, by the reader threads.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "cache/body.h"
#include "cache/loop_call.h"
#include "cache/object.h"
#include "cache/reader_pool.h"

namespace tidegate::cache {

class DiskCursor : public std::enable_shared_from_this<DiskCursor> {
 public:
  static constexpr uint32_t kReadAhead = 4;  // chunks a read: 256 KB

  DiskCursor(ReaderPool& readers, const DiskBody& body)
      : readers_(readers), key_(body.key), generation_(body.generation) {}

  // The chunk, if it was read; `wait`: it is being read, `call` will be notified; `error`: absent or damaged.
  BodyStep chunk(uint32_t index, const std::shared_ptr<LoopCall>& call, Slice& slice);

 private:
  void read(const lmdb::Txn* txn, const Store& store, uint32_t first);

  ReaderPool& readers_;
  const KeyHash key_;
  const uint64_t generation_;
  std::mutex mutex_;  // guards all below
  uint32_t first_ = 0;
  std::vector<Slice> chunks_;  // from first_
  bool reading_ = false;
  bool failed_ = false;
  std::shared_ptr<LoopCall> waiting_;
};

}  // namespace tidegate::cache
