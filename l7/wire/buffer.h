// SPDX-License-Identifier: Apache-2.0
// Bytes between sockets, in blocks of one size from a worker's pool. An idle connection holds no block, a busy one a
// bounded number. The path of a request does not call the allocator.
//
// Threads: everything here belongs to one worker.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "l7/limits.h"

namespace tidegate::l7 {

// One block is enough for the largest request head. It is also the size of one recv(2).
constexpr size_t kBlockBytes = 64 * 1024;

class BlockPool {
 public:
  using Block = std::unique_ptr<char[]>;
  Block lease();
  void give_back(Block block);

 private:
  static constexpr size_t kKeptBlocks =
      128;  // 8 MB; more than that goes back to the allocator, and its pages to the kernel
  std::vector<Block> free_;
};

// Bytes that were received and not consumed yet, contiguous, at most one block.
class InBuffer {
 public:
  explicit InBuffer(BlockPool& pool) : pool_(pool) {}
  ~InBuffer() { release(); }
  InBuffer(const InBuffer&) = delete;
  InBuffer& operator=(const InBuffer&) = delete;

  std::string_view bytes() const { return {block_.get() + begin_, end_ - begin_}; }
  bool empty() const { return begin_ == end_; }
  // The space where the next bytes may be written. If less than a quarter of the block is free at the end, moves the
  // held bytes to the front. Then views into bytes() are no longer valid.
  struct Space {
    char* data;
    size_t bytes;
  };
  Space space();
  void filled(size_t bytes) { end_ += bytes; }
  void consume(size_t bytes);
  // Gives the block back if nothing is held.
  void release_if_empty() {
    if (empty()) release();
  }

 private:
  void release();
  BlockPool& pool_;
  BlockPool::Block block_;
  size_t begin_ = 0, end_ = 0;
};

// Received bytes that wait to be taken. The sender's window bounds the number of blocks.
class BlockQueue {
 public:
  explicit BlockQueue(BlockPool& pool) : pool_(pool) {}
  ~BlockQueue() { clear(); }
  BlockQueue(const BlockQueue&) = delete;
  BlockQueue& operator=(const BlockQueue&) = delete;

  size_t bytes() const { return bytes_; }
  void append(std::string_view data);
  std::string_view front() const;  // empty if nothing waits
  void sent(size_t bytes);         // bytes of front()
  void clear();

 private:
  struct Piece {
    BlockPool::Block block;  // null: the piece is not in use
    size_t begin = 0, end = 0;
  };
  BlockPool& pool_;
  Piece first_;              // not in use: nothing waits
  std::vector<Piece> more_;  // in order; none is empty
  size_t bytes_ = 0;
};

// Bytes that wait to be sent, at most kUnsentBlocks blocks. Check bytes() before adding, and wait unless it is 0.
class OutQueue {
 public:
  explicit OutQueue(BlockPool& pool) : pool_(pool) {}
  ~OutQueue() { clear(); }
  OutQueue(const OutQueue&) = delete;
  OutQueue& operator=(const OutQueue&) = delete;

  size_t bytes() const { return bytes_; }
  // Returns false, and takes nothing, if `data` does not fit.
  [[nodiscard]] bool append(std::string_view data);
  size_t gather(iovec* out) const;  // at most kUnsentBlocks entries
  std::string_view front() const;   // empty if nothing waits
  void sent(size_t bytes);
  void clear();

 private:
  struct Piece {
    BlockPool::Block block;
    size_t begin = 0, end = 0;
  };
  BlockPool& pool_;
  std::array<Piece, kUnsentBlocks> pieces_;  // the first count_ are in use, in order
  size_t count_ = 0;
  size_t bytes_ = 0;
};

}  // namespace tidegate::l7
