// SPDX-License-Identifier: Apache-2.0
// BodyBuffer: bytes of a body that wait in memory, in blocks of the worker's pool. All buffers of a worker and the
// grown windows of its HTTP/2 connections share one MemoryBudget.
//
// Call has_room() before append(). So it holds at most one piece more than its bound. A view of its bytes is valid
// until drop() or clear().
//
// Threads: the worker's.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "l7/wire/buffer.h"

namespace tidegate::l7 {

class Worker;

class BodyBuffer {
 public:
  explicit BodyBuffer(Worker& worker) : worker_(worker) {}
  ~BodyBuffer() { clear(); }
  BodyBuffer(const BodyBuffer&) = delete;
  BodyBuffer& operator=(const BodyBuffer&) = delete;

  size_t bytes() const { return bytes_; }
  // True if the buffer has fewer than `most` bytes, and the worker's budget had room for them.
  bool has_room(size_t most) const { return bytes_ < most && uncounted_bytes_ == 0; }
  void append(std::string_view data);
  // The bytes from `offset` to the end of their block; empty at the end of the body.
  std::string_view piece_at(size_t offset) const;
  // Removes the first bytes.
  void drop(size_t bytes);
  void clear() {
    if (!blocks_.empty()) give_back_all();
  }

 private:
  // A byte's place: the block, and the offset in it. `at` counts from the beginning of the first block.
  struct Place {
    size_t block;
    size_t offset;
    size_t room;  // from there to the end of the block
  };
  Place place_of(size_t at) const;
  size_t size() const { return blocks_.empty() ? 0 : first_size_ + (blocks_.size() - 1) * kBlockBytes; }
  void add_block(size_t size);
  void give_back_first();
  void give_back_all();

  Worker& worker_;
  std::vector<BlockPool::Block> blocks_;
  size_t first_size_ = 0;  // of the first block; the others have kBlockBytes
  size_t begin_ = 0;       // offset in the first block
  size_t bytes_ = 0;
  size_t uncounted_bytes_ = 0;  // of blocks, for which the budget had no room
};

}  // namespace tidegate::l7
