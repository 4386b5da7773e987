// SPDX-License-Identifier: Apache-2.0
// FillBudget: the memory that the bodies of all fetches share while they arrive.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "cache/limits.h"
#include "core/assert.h"

namespace tidegate::cache {

// Flights count what they hold. Bytes that have arrived are never refused. While the budget is used up, new large
// answers are passed through without storing, and every fetch reads less ahead. Any thread.
class FillBudget {
 public:
  explicit FillBudget(uint64_t ram_bytes) : limit_(std::max(kFillFloorBytes, ram_bytes)) {}
  void add(uint64_t bytes) { held_.fetch_add(bytes, std::memory_order_relaxed); }
  void remove(uint64_t bytes) {
    const uint64_t before = held_.fetch_sub(bytes, std::memory_order_relaxed);
    TIDEGATE_ASSERT(before >= bytes, "bytes leave the budget that never entered it");
  }
  uint64_t bytes() const { return held_.load(std::memory_order_relaxed); }
  bool is_spent() const { return bytes() >= limit_; }
  // The bytes by which a fetch may be ahead of its slowest reader and of the writer.
  uint64_t window_bytes() const { return is_spent() ? kSmallWindowBytes : kWindowBytes; }

 private:
  const uint64_t limit_;
  std::atomic<uint64_t> held_{0};
};

}  // namespace tidegate::cache
