// SPDX-License-Identifier: Apache-2.0
#include "dns/steer/steer_names.h"

namespace tidegate::dns {

const SteerNames::Entry* SteerNames::find(uint64_t hash, std::span<const uint8_t> lower_name) const {
  if (slots_.empty()) return nullptr;
  const size_t mask = slots_.size() - 1;
  for (size_t i = hash & mask; slots_[i] != kNone; i = (i + 1) & mask) {
    const Entry& entry = entries_[slots_[i]];
    if (entry.hash == hash && entry.name_bytes == lower_name.size() &&
        std::memcmp(&names_[entry.name_at], lower_name.data(), lower_name.size()) == 0) {
      return &entry;
    }
  }
  return nullptr;
}

uint32_t SteerNames::find_or_add(std::span<const uint8_t> lower_name) {
  const uint64_t hash = name_hash(lower_name);
  if (const Entry* known = find(hash, lower_name)) return static_cast<uint32_t>(known - entries_.data());
  const auto index = static_cast<uint32_t>(entries_.size());
  entries_.push_back(
      {hash, kNone, kNone, static_cast<uint32_t>(names_.size()), static_cast<uint8_t>(lower_name.size())});
  names_.insert(names_.end(), lower_name.begin(), lower_name.end());
  uint32_t first_missing = index;
  if (entries_.size() * 2 > slots_.size()) {
    slots_.assign(std::max<size_t>(16, slots_.size() * 2), kNone);
    first_missing = 0;
  }
  const size_t mask = slots_.size() - 1;
  for (uint32_t entry = first_missing; entry <= index; ++entry) {
    size_t i = entries_[entry].hash & mask;
    while (slots_[i] != kNone) i = (i + 1) & mask;
    slots_[i] = entry;
  }
  return index;
}

void SteerNames::add(const Name& name, size_t apex_labels, uint32_t steer) {
  uint32_t below = find_or_add(name.wire());
  entries_[below].steer = steer;
  auto below_name = name.wire();
  for (size_t labels = name.labels(); labels > apex_labels; --labels) {
    const uint32_t parent = find_or_add(name.suffix(labels - 1));
    if (below_name[0] == 1 && below_name[1] == '*') entries_[parent].wildcard = below;
    below = parent;
    below_name = name.suffix(labels - 1);
  }
  apex_ = below;
}

}  // namespace tidegate::dns
