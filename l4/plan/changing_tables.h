// SPDX-License-Identifier: Apache-2.0
// ChangingTables: the inputs of Maglev tables, for the pools whose tables were built last. So the change of one backend
// in a large pool costs less than a whole build. It affects no result: a build gives the same tables with and without
// it, even after an abandoned candidate. Control thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "conf/maglev_change.h"
#include "l4/limits.h"

namespace tidegate::l4 {

class ChangingTables {
 public:
  std::vector<uint16_t> build(const std::string& pool, uint8_t family, const std::vector<MaglevMember>& members,
                              uint32_t slots, const HashKey& key) {
    // Small pools are always built as a whole. They must not displace the inputs of large pools.
    if (members.size() < ChangingMaglev::kFewestMembers) return build_maglev(members, slots, key);
    Entry& entry = entries_[{pool, family}];
    entry.used = ++uses_;
    if (entries_.size() > kMaxChangingTables) {
      entries_.erase(std::min_element(entries_.begin(), entries_.end(),
                                      [](const auto& a, const auto& b) { return a.second.used < b.second.used; }));
    }
    const uint64_t before = entry.maglev.derived();
    std::vector<uint16_t> table = entry.maglev.build(members, slots, key);
    derived_ += entry.maglev.derived() - before;
    return table;
  }
  uint64_t derived() const { return derived_; }

 private:
  struct Entry {
    ChangingMaglev maglev;
    uint64_t used = 0;
  };
  std::map<std::pair<std::string, uint8_t>, Entry> entries_;
  uint64_t uses_ = 0, derived_ = 0;
};

}  // namespace tidegate::l4
