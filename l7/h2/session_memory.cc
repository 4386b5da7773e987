// SPDX-License-Identifier: Apache-2.0
#include "l7/h2/session_memory.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "l7/limits.h"

namespace tidegate::l7 {
namespace {

// A sanitizer sees memory faults only if each block comes from the C library.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kMemoryIsWatched = true;
#elif defined(__has_feature)
constexpr bool kMemoryIsWatched = __has_feature(address_sanitizer);
#else
constexpr bool kMemoryIsWatched = false;
#endif

}  // namespace

void* SessionBlocks::take(size_t bytes) {
  if (bytes > SIZE_MAX / 2) return nullptr;
  const size_t step = step_of(bytes + sizeof(Header));
  if (step <= kSteps && kept_[step] != nullptr) {
    Header* const header = kept_[step];
    kept_[step] = header->next;
    kept_bytes_ -= header->bytes;
    return header + 1;
  }
  const size_t whole_bytes = step * kStepBytes;
  auto* const header = static_cast<Header*>(std::malloc(whole_bytes));
  if (header == nullptr) return nullptr;
  header->bytes = whole_bytes;
  return header + 1;
}

void* SessionBlocks::resize(void* block, size_t bytes) {
  if (block == nullptr) return take(bytes);
  const size_t room = (static_cast<Header*>(block) - 1)->bytes - sizeof(Header);
  if (bytes <= room) return block;
  void* const larger = take(bytes);
  if (larger == nullptr) return nullptr;
  std::memcpy(larger, block, room);
  give_back(block);
  return larger;
}

void SessionBlocks::give_back(void* block) {
  if (block == nullptr) return;
  Header* const header = static_cast<Header*>(block) - 1;
  const size_t step = header->bytes / kStepBytes;
  if (step > kSteps || kept_bytes_ + header->bytes > kKeptHttp2MemoryBytes) return std::free(header);
  header->next = kept_[step];
  kept_[step] = header;
  kept_bytes_ += header->bytes;
}

void SessionBlocks::clear() {
  for (Header*& first : kept_) {
    while (first != nullptr) {
      Header* const next = first->next;
      std::free(first);
      first = next;
    }
  }
  kept_bytes_ = 0;
}

namespace {

// When a thread ends, its blocks are freed. A session that ends later, in another destructor, allocates and frees
// single blocks.
thread_local constinit bool thread_has_ended = false;
struct ThreadBlocks {
  SessionBlocks blocks;
  ~ThreadBlocks() { thread_has_ended = true; }
};
thread_local ThreadBlocks thread_blocks;

void* session_take(size_t bytes, void*) {
  if (thread_has_ended) return SessionBlocks().take(bytes);
  return thread_blocks.blocks.take(bytes);
}

void session_free(void* block, void*) {
  if (!thread_has_ended) return thread_blocks.blocks.give_back(block);
  SessionBlocks().give_back(block);
}

void* session_take_zeroed(size_t count, size_t bytes, void* user) {
  if (bytes != 0 && count > SIZE_MAX / bytes) return nullptr;
  void* const block = session_take(count * bytes, user);
  if (block != nullptr) std::memset(block, 0, count * bytes);
  return block;
}

void* session_resize(void* block, size_t bytes, void*) {
  if (thread_has_ended) return SessionBlocks().resize(block, bytes);
  return thread_blocks.blocks.resize(block, bytes);
}

}  // namespace

nghttp2_mem* session_memory() {
  static nghttp2_mem memory{nullptr, &session_take, &session_free, &session_take_zeroed, &session_resize};
  return kMemoryIsWatched ? nullptr : &memory;
}

}  // namespace tidegate::l7
