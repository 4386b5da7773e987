// SPDX-License-Identifier: Apache-2.0
// Memory of streams. With many streams a worker allocates and frees more than the C library caches for a thread. Each
// worker keeps freed blocks here by their size, kKeptHttp2MemoryBytes at most, and uses them again.
//
// Threads: one at a time. It must outlive everything that was allocated from it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "l7/limits.h"

namespace tidegate::l7 {

// A block is aligned to 16 bytes.
class SessionBlocks {
 public:
  static constexpr size_t kMostBytes = 1'392;  // of a block that is kept

  SessionBlocks() = default;
  ~SessionBlocks() { clear(); }
  SessionBlocks(const SessionBlocks&) = delete;
  SessionBlocks& operator=(const SessionBlocks&) = delete;

  // Null if there is no memory.
  void* take(size_t bytes) {
    const size_t step = step_of(bytes + sizeof(Header));
    if (bytes > kMostBytes || kept_[step] == nullptr) return take_new(bytes);
    Header* const header = kept_[step];
    kept_[step] = header->next;
    kept_bytes_ -= header->bytes;
    header->owner = this;
    return header + 1;
  }
  // The block goes back to the SessionBlocks that it was taken from. `block` may be null.
  static void give_back(void* block) {
    if (block == nullptr) return;
    Header* const header = static_cast<Header*>(block) - 1;
    header->owner->keep(header);
  }
  size_t kept_bytes() const { return kept_bytes_; }
  void clear();

 private:
  struct Header {
    size_t bytes;  // size of the block, with this header
    union {
      Header* next;          // used while the block is kept
      SessionBlocks* owner;  // used while the block is in use
    };
  };
  static constexpr size_t kStepBytes = 32, kSteps = 44;
  static_assert(kMostBytes == kSteps * kStepBytes - sizeof(Header));
  static size_t step_of(size_t whole_bytes) { return (whole_bytes + kStepBytes - 1) / kStepBytes; }
  void* take_new(size_t bytes);
  void keep(Header* header) {
    const size_t step = header->bytes / kStepBytes;
    if (step > kSteps || kept_bytes_ + header->bytes > kKeptHttp2MemoryBytes) return drop(header);
    header->next = kept_[step];
    kept_[step] = header;
    kept_bytes_ += header->bytes;
  }
  static void drop(Header* header);

  Header* kept_[kSteps + 1] = {};  // by number of steps
  size_t kept_bytes_ = 0;
};

// Base of a class whose objects are allocated from such blocks: `new (blocks) T(...)`.
class InSessionBlocks {
 public:
  static void* operator new(size_t bytes, SessionBlocks& blocks);
  static void operator delete(void* object) noexcept;
  static void operator delete(void* object, SessionBlocks&) noexcept { operator delete(object); }
};

}  // namespace tidegate::l7
