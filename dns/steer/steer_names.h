// SPDX-License-Identifier: Apache-2.0
// SteerNames: the steered names of one zone, laid over it. A steer makes its name exist, and every name above it up to
// the apex, even if the zone file does not have them. A new or changed steer does not change the zone.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "conf/model/common.h"
#include "dns/wire/wire.h"

namespace tidegate::dns {

class SteerNames {
 public:
  struct Entry {
    uint64_t hash = 0;
    uint32_t steer = kNone;     // index into Authority::steers; kNone: the name exists only because of one below it
    uint32_t wildcard = kNone;  // entry of the "*" child
    uint32_t name_at = 0;       // offset in the names' bytes
    uint8_t name_bytes = 0;
  };

  // `name` must be within the zone, whose apex has `apex_labels`.
  void add(const Name& name, size_t apex_labels, uint32_t steer);
  // Null if there is no such name. Borrowed until the next add().
  const Entry* find(uint64_t hash, std::span<const uint8_t> lower_name) const;
  const Entry* wildcard_of(const Entry& entry) const {
    return entry.wildcard == kNone ? nullptr : &entries_[entry.wildcard];
  }
  // Null if there is no steer at all.
  const Entry* apex() const { return apex_ == kNone ? nullptr : &entries_[apex_]; }
  bool empty() const { return entries_.empty(); }

 private:
  uint32_t find_or_add(std::span<const uint8_t> lower_name);

  std::vector<Entry> entries_;
  uint32_t apex_ = kNone;
  std::vector<uint8_t> names_;
  std::vector<uint32_t> slots_;  // open addressing over entries_, at most half full
};

}  // namespace tidegate::dns
