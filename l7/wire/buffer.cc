// SPDX-License-Identifier: Apache-2.0
#include "l7/wire/buffer.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <cstring>

#include "core/assert.h"

namespace tidegate::l7 {

BlockPool::Block BlockPool::lease(size_t size) {
  std::vector<Block>& free = size == kBlockBytes ? free_ : free_small_;
  if (free.empty()) return Block(new char[size]);
  Block block = std::move(free.back());
  free.pop_back();
  return block;
}

namespace {

// The allocator keeps what is freed between blocks that are in use. So after a flood of slow readers a process would
// stay as large as it was. The kernel takes the pages themselves; the next owner of the block gets fresh ones.
void release_pages(char* block) {
  static const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(block) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(block) + kBlockBytes) / page * page;
  if (begin < end) (void)::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace

void BlockPool::give_back(Block block, size_t size) {
  if (size == kSmallBlockBytes) {
    if (free_small_.size() < kKeptSmallBlocks) free_small_.push_back(std::move(block));
    return;
  }
  if (free_.size() < kKeptBlocks) return free_.push_back(std::move(block));
  release_pages(block.get());
}

void BlockPiece::take(std::string_view& data) {
  const size_t now = std::min<size_t>(data.size(), size - end);
  std::memcpy(block.get() + end, data.data(), now);
  end += static_cast<uint32_t>(now);
  data.remove_prefix(now);
}

InBuffer::Space InBuffer::space() {
  if (!block_) block_ = pool_.lease();
  if (begin_ > 0 && kBlockBytes - end_ < kBlockBytes / 4) {
    std::memmove(block_.get(), block_.get() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  return {block_.get() + end_, kBlockBytes - end_};
}

void InBuffer::consume(size_t bytes) {
  assert(bytes <= end_ - begin_);
  begin_ += bytes;
  if (begin_ == end_) begin_ = end_ = 0;
}

void InBuffer::release() {
  if (block_) pool_.give_back(std::move(block_));
  begin_ = end_ = 0;
}

BlockPiece BlockQueue::lease(size_t size) { return {pool_.lease(size), static_cast<uint32_t>(size), 0, 0}; }

void BlockQueue::give_back(BlockPiece& piece) { pool_.give_back(std::move(piece.block), piece.size); }

void BlockQueue::append(std::string_view data) {
  bytes_ += data.size();
  while (!data.empty()) {
    BlockPiece* last = more_.empty() ? &first_ : &more_.back();
    if (last->block == nullptr) {
      *last = lease(block_size_for(data.size()));
    } else if (last->full()) {
      last = &more_.emplace_back(lease(kBlockBytes));
    }
    last->take(data);
  }
}

std::string_view BlockQueue::front() const { return first_.bytes(); }

void BlockQueue::sent(size_t bytes) {
  TIDEGATE_ASSERT(bytes <= front().size(), "no more is taken than was handed out");
  if (bytes == 0) return;
  bytes_ -= bytes;
  first_.begin += static_cast<uint32_t>(bytes);
  if (first_.begin < first_.end) return;
  give_back(first_);
  first_ = {};
  if (more_.empty()) return;
  first_ = std::move(more_.front());
  more_.erase(more_.begin());
}

void BlockQueue::clear() {
  if (first_.block != nullptr) give_back(first_);
  first_ = {};
  for (BlockPiece& piece : more_) give_back(piece);
  more_.clear();
  bytes_ = 0;
}

bool OutQueue::append(std::string_view data) {
  const size_t tail = count_ == 0 ? 0 : pieces_[count_ - 1].size - pieces_[count_ - 1].end;
  if (data.size() > tail + (kUnsentBlocks - count_) * kBlockBytes) return false;
  bytes_ += data.size();
  while (!data.empty()) {
    if (count_ == 0 || pieces_[count_ - 1].full()) {
      const size_t size = count_ == 0 && first_ == First::small ? block_size_for(data.size()) : kBlockBytes;
      pieces_[count_++] = {pool_.lease(size), static_cast<uint32_t>(size), 0, 0};
    }
    pieces_[count_ - 1].take(data);
  }
  return true;
}

size_t OutQueue::gather(iovec* out) const {
  for (size_t i = 0; i < count_; ++i) {
    out[i] = {pieces_[i].block.get() + pieces_[i].begin, pieces_[i].end - pieces_[i].begin};
  }
  return count_;
}

std::string_view OutQueue::front() const {
  if (count_ == 0) return {};
  return pieces_[0].bytes();
}

void OutQueue::sent(size_t bytes) {
  assert(bytes <= bytes_);
  bytes_ -= bytes;
  while (bytes > 0) {
    BlockPiece& first = pieces_[0];
    const size_t now = std::min<size_t>(bytes, first.end - first.begin);
    first.begin += static_cast<uint32_t>(now);
    bytes -= now;
    if (first.begin < first.end) return;
    pool_.give_back(std::move(first.block), first.size);
    std::move(pieces_.begin() + 1, pieces_.begin() + static_cast<ptrdiff_t>(count_), pieces_.begin());
    --count_;
  }
}

void OutQueue::clear() {
  for (size_t i = 0; i < count_; ++i) pool_.give_back(std::move(pieces_[i].block), pieces_[i].size);
  count_ = 0;
  bytes_ = 0;
}

}  // namespace tidegate::l7
