// SPDX-License-Identifier: Apache-2.0
// PurgeTable: the purges by tag and the purges of everything. Each purge sets one epoch, which is compared when an
// object is used. So the cost of a purge does not depend on the number of objects. An object of generation g is dead
// when a hard purge of one of its tags, or of everything, has a generation >= g. A purge by URL is different: it
// changes the index at once.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <unordered_map>

namespace tidegate::cache {

struct PurgeEpoch {
  uint64_t hard = 0;  // generations up to this one are dead
  uint64_t soft = 0;  // generations up to this one are stale
};

enum class PurgeVerdict : uint8_t { live, stale, dead };

// Any thread.
class PurgeTable {
 public:
  static constexpr size_t kMaxTags = 65'536;  // one more tag turns the purge into a purge of everything

  void purge_tag(uint64_t tag, uint64_t generation, bool soft);
  void purge_all(uint64_t generation, bool soft);
  PurgeVerdict verdict(std::span<const uint64_t> tags, uint64_t generation) const;
  // Grows with every purge. An entry that remembers it beside a `live` verdict needs no new verdict until it grows.
  uint64_t version() const { return version_.load(std::memory_order_acquire); }
  PurgeEpoch all() const;

 private:
  static void raise(PurgeEpoch& epoch, uint64_t generation, bool soft);

  mutable std::shared_mutex mutex_;
  PurgeEpoch all_;
  std::unordered_map<uint64_t, PurgeEpoch> tags_;
  std::atomic<uint64_t> version_{1};
};

}  // namespace tidegate::cache
