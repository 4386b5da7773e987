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
  bool has_room(size_t most) const { return bytes_ < most && uncounted_ == 0; }
  void append(std::string_view data);
  // The bytes from `offset` to the end of their block; empty at the end of the body.
  std::string_view piece_at(size_t offset) const;
  // Removes the first bytes.
  void drop(size_t bytes);
  void clear() {
    if (!blocks_.empty()) give_back_all();
  }

 private:
  void give_back_first();
  void give_back_all();

  Worker& worker_;
  std::vector<BlockPool::Block> blocks_;
  size_t begin_ = 0;  // offset in the first block
  size_t bytes_ = 0;
  size_t uncounted_ = 0;  // blocks for which the budget had no room
};

}  // namespace tidegate::l7
