// SPDX-License-Identifier: Apache-2.0
// Memory of nghttp2's sessions. A request allocates and frees some twenty small blocks. With many streams that is more
// than the C library caches for a thread. Each thread keeps freed blocks here by their size, kKeptHttp2MemoryBytes at
// most, and uses them again.
//
// Threads: any. If another thread frees a block, that thread keeps it.
#pragma once

#include <nghttp2/nghttp2.h>

#include <cstddef>

namespace tidegate::l7 {

// The blocks of one thread. A block is aligned to 16 bytes.
class SessionBlocks {
 public:
  SessionBlocks() = default;
  ~SessionBlocks() { clear(); }
  SessionBlocks(const SessionBlocks&) = delete;
  SessionBlocks& operator=(const SessionBlocks&) = delete;

  // Null if there is no memory.
  void* take(size_t bytes);
  void* resize(void* block, size_t bytes);  // like realloc()
  void give_back(void* block);              // `block` may be null
  size_t kept_bytes() const { return kept_bytes_; }
  void clear();

 private:
  struct Header {
    size_t bytes;  // size of the block, with this header
    Header* next;  // used while the block is kept
  };
  static constexpr size_t kStepBytes = 32, kSteps = 40;  // blocks up to 1,264 bytes are kept
  static size_t step_of(size_t whole_bytes) { return (whole_bytes + kStepBytes - 1) / kStepBytes; }

  Header* kept_[kSteps + 1] = {};  // by number of steps
  size_t kept_bytes_ = 0;
};

// The allocator for a session. It is null, which means the C library's own, if a sanitizer watches the memory.
nghttp2_mem* session_memory();

}  // namespace tidegate::l7
