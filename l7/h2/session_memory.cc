// SPDX-License-Identifier: Apache-2.0
#include "l7/h2/session_memory.h"

#include <cstdlib>
#include <cstring>
#include <new>

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

SessionBlocks& blocks_of(void* user) { return *static_cast<SessionBlocks*>(user); }

void* session_take(size_t bytes, void* user) { return blocks_of(user).take(bytes); }

void session_free(void* block, void*) { SessionBlocks::give_back(block); }

void* session_take_zeroed(size_t count, size_t bytes, void* user) {
  if (bytes != 0 && count > SIZE_MAX / bytes) return nullptr;
  void* const block = blocks_of(user).take(count * bytes);
  if (block != nullptr) std::memset(block, 0, count * bytes);
  return block;
}

void* session_resize(void* block, size_t bytes, void* user) { return blocks_of(user).resize(block, bytes); }

void* watched_take(size_t bytes, void*) { return std::malloc(bytes); }
void watched_free(void* block, void*) { std::free(block); }
void* watched_take_zeroed(size_t count, size_t bytes, void*) { return std::calloc(count, bytes); }
void* watched_resize(void* block, size_t bytes, void*) { return std::realloc(block, bytes); }

}  // namespace

void* SessionBlocks::take_new(size_t bytes) {
  if (bytes > SIZE_MAX / 2) return nullptr;
  const size_t whole_bytes = step_of(bytes + sizeof(Header)) * kStepBytes;
  auto* const header = static_cast<Header*>(std::malloc(whole_bytes));
  if (header == nullptr) return nullptr;
  header->bytes = whole_bytes;
  header->owner = this;
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

void SessionBlocks::drop(Header* header) { std::free(header); }

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

nghttp2_mem session_memory(SessionBlocks& blocks) {
  if (kMemoryIsWatched) return {nullptr, &watched_take, &watched_free, &watched_take_zeroed, &watched_resize};
  return {&blocks, &session_take, &session_free, &session_take_zeroed, &session_resize};
}

void* InSessionBlocks::operator new(size_t bytes, SessionBlocks& blocks) {
  if (kMemoryIsWatched) return ::operator new(bytes);
  void* const block = blocks.take(bytes);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}

void InSessionBlocks::operator delete(void* object) noexcept {
  if (kMemoryIsWatched) return ::operator delete(object);
  SessionBlocks::give_back(object);
}

}  // namespace tidegate::l7
