// SPDX-License-Identifier: Apache-2.0
#include "cache/index/purge_table.h"

#include <algorithm>

namespace tidegate::cache {

void PurgeTable::raise(PurgeEpoch& epoch, uint64_t generation, bool soft) {
  uint64_t& limit = soft ? epoch.soft : epoch.hard;
  limit = std::max(limit, generation);
}

void PurgeTable::purge_tag(uint64_t tag, uint64_t generation, bool soft) {
  const std::unique_lock lock(mutex_);
  if (tags_.size() >= kMaxTags && tags_.count(tag) == 0) {
    // The table is full. If a hard purge were forgotten, purged objects would be served. So everything up to now is
    // purged.
    raise(all_, generation, false);
    tags_.clear();
  } else {
    raise(tags_[tag], generation, soft);
  }
  version_.fetch_add(1, std::memory_order_release);
}

void PurgeTable::purge_all(uint64_t generation, bool soft) {
  const std::unique_lock lock(mutex_);
  raise(all_, generation, soft);
  if (!soft) tags_.clear();  // all tags are older than the purge of everything
  version_.fetch_add(1, std::memory_order_release);
}

PurgeVerdict PurgeTable::verdict(std::span<const uint64_t> tags, uint64_t generation) const {
  const std::shared_lock lock(mutex_);
  if (generation <= all_.hard) return PurgeVerdict::dead;
  bool stale = generation <= all_.soft;
  for (const uint64_t tag : tags) {
    const auto found = tags_.find(tag);
    if (found == tags_.end()) continue;
    if (generation <= found->second.hard) return PurgeVerdict::dead;
    stale |= generation <= found->second.soft;
  }
  return stale ? PurgeVerdict::stale : PurgeVerdict::live;
}

PurgeEpoch PurgeTable::all() const {
  const std::shared_lock lock(mutex_);
  return all_;
}

}  // namespace tidegate::cache
