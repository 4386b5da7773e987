// SPDX-License-Identifier: Apache-2.0
// Bytes between sockets, in blocks from a worker's pool. An idle connection holds no block, a busy one a bounded
// number. The path of a request does not call the allocator.
//
// Blocks have two sizes. Each of many HTTP/2 streams holds its bytes for a moment, and most of them hold a short
// message. So a queue of a stream begins with a small block if its first bytes fit into one.
//
// Threads: everything here belongs to one worker.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "l7/limits.h"

namespace tidegate::l7 {

// One block is enough for the largest request head. It is also the size of one recv(2).
constexpr size_t kBlockBytes = 64 * 1024;
constexpr size_t kSmallBlockBytes = 4 * 1024;

class BlockPool {
 public:
  using Block = std::unique_ptr<char[]>;
  Block lease() { return lease(kBlockBytes); }
  void give_back(Block block) { give_back(std::move(block), kBlockBytes); }
  // `size`: kBlockBytes or kSmallBlockBytes.
  Block lease(size_t size);
  void give_back(Block block, size_t size);
  size_t kept_bytes() const { return free_.size() * kBlockBytes + free_small_.size() * kSmallBlockBytes; }

 private:
  static constexpr size_t kKeptBlocks =
      128;  // 8 MB; more than that goes back to the allocator, and its pages to the kernel
  static constexpr size_t kKeptSmallBlocks = 1'024;  // 4 MB
  std::vector<Block> free_;
  std::vector<Block> free_small_;
};

// The size of the block for the first bytes of a queue.
constexpr size_t block_size_for(size_t bytes) { return bytes <= kSmallBlockBytes ? kSmallBlockBytes : kBlockBytes; }

// Bytes of a queue that are in one block.
struct BlockPiece {
  BlockPool::Block block;  // null: the piece is not in use
  uint32_t size = 0;       // of the block
  uint32_t begin = 0, end = 0;

  std::string_view bytes() const { return {block.get() + begin, end - begin}; }  // null and 0 if it is not in use
  bool full() const { return end == size; }
  // Takes what fits, and removes it from `data`.
  void take(std::string_view& data);
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
  BlockPiece lease(size_t size);
  void give_back(BlockPiece& piece);

  BlockPool& pool_;
  BlockPiece first_;              // not in use: nothing waits
  std::vector<BlockPiece> more_;  // in order; none is empty
  size_t bytes_ = 0;
};

// Bytes that wait to be sent, at most kUnsentBlocks blocks. Check bytes() before adding, and wait unless it is 0.
class OutQueue {
 public:
  // `first`: the block for the first bytes, if they are few. What is gathered for one write stays in one block.
  enum class First : uint8_t { small, large };
  OutQueue(BlockPool& pool, First first) : pool_(pool), first_(first) {}
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
  BlockPool& pool_;
  const First first_;
  std::array<BlockPiece, kUnsentBlocks> pieces_;  // the first count_ are in use, in order
  size_t count_ = 0;
  size_t bytes_ = 0;
};

}  // namespace tidegate::l7
