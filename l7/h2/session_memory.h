// SPDX-License-Identifier: Apache-2.0
// Memory of nghttp2's sessions. A request makes and frees some twenty small blocks, many streams at a time, more than
// the C library keeps at hand for a thread. Each thread keeps freed blocks here by their size, kKeptHttp2MemoryBytes at
// most, and gives them out again.
//
// Threads: any. A block may be freed by another thread than the one that got it: that thread keeps it then.
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

  // Null: there is no memory.
  void* take(size_t bytes);
  void* resize(void* block, size_t bytes);  // as realloc()
  void give_back(void* block);              // null is allowed
  size_t kept_bytes() const { return kept_bytes_; }
  void clear();

 private:
  struct Header {
    size_t bytes;  // of the block, with this header
    Header* next;  // while it is kept
  };
  static constexpr size_t kStepBytes = 32, kSteps = 40;  // blocks up to 1,264 bytes are kept
  static size_t step_of(size_t whole_bytes) { return (whole_bytes + kStepBytes - 1) / kStepBytes; }

  Header* kept_[kSteps + 1] = {};  // by steps
  size_t kept_bytes_ = 0;
};

// What a session is made with. Null, for the C library's own, where a sanitizer watches the memory.
nghttp2_mem* session_memory();

}  // namespace tidegate::l7
