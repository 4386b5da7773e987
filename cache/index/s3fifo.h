// SPDX-License-Identifier: Apache-2.0
// S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023), byte-bounded and intrusive.
//
// The small queue takes new objects; an object that is not used leaves it after a tenth of the capacity. An object that
// was used twice there moves to the main queue, where each use gives it one more round. The ghost list remembers the
// keys that left the small queue; a key that comes back goes to the main queue at once.
//
// Threads: one at a time, except S3Node::touch(), which any thread may call. A hit takes no lock and moves nothing.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <unordered_map>

namespace tidegate::cache {

struct S3Node {
  enum class Queue : uint8_t { none, small, main };
  S3Node* previous = nullptr;
  S3Node* next = nullptr;
  uint64_t bytes = 0;
  uint64_t identity = 0;  // a hash of the key, for the ghost list
  std::atomic<uint8_t> uses{0};
  Queue queue = Queue::none;

  void touch() {
    const uint8_t now = uses.load(std::memory_order_relaxed);
    if (now < kMaxUses) uses.store(static_cast<uint8_t>(now + 1), std::memory_order_relaxed);
  }
  static constexpr uint8_t kMaxUses = 3;
};

class S3Fifo {
 public:
  explicit S3Fifo(uint64_t capacity_bytes) : capacity_(capacity_bytes) {}
  S3Fifo(const S3Fifo&) = delete;
  S3Fifo& operator=(const S3Fifo&) = delete;

  // The node is borrowed: erase() it before it dies. `bytes` and `identity` must be set and must not change.
  void insert(S3Node& node);
  void erase(S3Node& node);  // leaves no ghost; no effect if it is in no queue
  // Removes the next victim and returns it; nullptr when the queues are empty.
  S3Node* evict_one();
  bool over_capacity() const { return bytes() > capacity_; }

  uint64_t bytes() const { return small_.bytes + main_.bytes; }
  uint64_t capacity() const { return capacity_; }
  size_t size() const { return small_.count + main_.count; }

 private:
  struct List {
    S3Node* newest = nullptr;
    S3Node* oldest = nullptr;
    uint64_t bytes = 0;
    size_t count = 0;
    void push(S3Node& node);
    void unlink(S3Node& node);
  };
  List& list_of(const S3Node& node) { return node.queue == S3Node::Queue::small ? small_ : main_; }
  void push(S3Node& node, S3Node::Queue queue);
  void remember(uint64_t identity);

  uint64_t capacity_;
  List small_, main_;
  std::deque<uint64_t> ghost_order_;
  std::unordered_map<uint64_t, uint32_t> ghosts_;  // identity -> times in ghost_order_
};

}  // namespace tidegate::cache
