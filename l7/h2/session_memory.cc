// SPDX-License-Identifier: Apache-2.0
#include "l7/h2/session_memory.h"

#include <cstdlib>
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
