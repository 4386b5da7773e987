// SPDX-License-Identifier: Apache-2.0
// Arena: the strings of one transaction. It is reset between transactions and keeps its first block, so an ordinary
// request allocates nothing. `held` is the sum of the bytes of all arenas of a worker. Only the worker's thread writes
// it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "core/ascii_words.h"

namespace tidegate::l7 {

class Arena {
 public:
  explicit Arena(std::atomic<uint64_t>* held = nullptr) : held_(held) {}
  ~Arena() { account(-bytes_); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Bytes of all its blocks.
  size_t bytes() const { return bytes_; }
  char* allocate(size_t bytes) {
    if (bytes > static_cast<size_t>(end_ - next_)) grow(bytes);
    char* at = next_;
    next_ += bytes;
    return at;
  }
  // Aligned for any object.
  char* allocate_aligned(size_t bytes) {
    constexpr size_t kAlign = alignof(std::max_align_t);
    char* at = allocate(bytes + kAlign - 1);
    return at + (kAlign - reinterpret_cast<uintptr_t>(at) % kAlign) % kAlign;
  }
  std::string_view copy(std::string_view text) {
    char* at = allocate(text.size());
    if (!text.empty()) std::memcpy(at, text.data(), text.size());
    return {at, text.size()};
  }
  std::string_view copy_lower(std::string_view text) {
    char* at = allocate(text.size());
    ascii::copy_lower(text.data(), text.size(), at);
    return {at, text.size()};
  }
  // Gives the last `bytes` of the latest allocation back.
  void shrink(size_t bytes) { next_ -= bytes; }
  void reset() {
    if (blocks_.size() > 1) {
      blocks_.resize(1);
      account(kFirstBytes - bytes_);
    }
    next_ = blocks_.empty() ? nullptr : blocks_[0].get();
    end_ = blocks_.empty() ? nullptr : next_ + kFirstBytes;
  }

 private:
  static constexpr size_t kFirstBytes = 8 * 1024;
  void grow(size_t bytes) {
    const size_t size = blocks_.empty() && bytes <= kFirstBytes ? kFirstBytes : bytes + kFirstBytes;
    if (blocks_.empty() && size != kFirstBytes) {
      blocks_.push_back(std::make_unique<char[]>(kFirstBytes));
      account(kFirstBytes);
    }
    account(size);
    blocks_.push_back(std::make_unique<char[]>(size));
    next_ = blocks_.back().get();
    end_ = next_ + size;
  }
  // `change`: by how much it has grown. A negative number wraps around.
  void account(size_t change) {
    bytes_ += change;
    if (held_ != nullptr) held_->store(held_->load(std::memory_order_relaxed) + change, std::memory_order_relaxed);
  }

  std::atomic<uint64_t>* const held_;
  size_t bytes_ = 0;
  std::vector<std::unique_ptr<char[]>> blocks_;
  char* next_ = nullptr;
  char* end_ = nullptr;
};

}  // namespace tidegate::l7
