// SPDX-License-Identifier: Apache-2.0
// NameIds: numbers for names. So a record of a request needs only four bytes for each name. A number means the same
// name until the process ends, even if the name leaves the configuration.
//
// Threads: the main thread. Workers only copy numbers.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>

namespace tidegate::l7 {

class NameIds {
 public:
  explicit NameIds(size_t most) : most_(most) {}
  // The number of this name. 0 if it has none, because `most` other names have one. Such names are counted.
  uint32_t id(std::string_view name) {
    if (const auto known = ids_.find(name); known != ids_.end()) return known->second;
    if (names_.size() >= most_) {
      ++refused_;
      return 0;
    }
    names_.emplace_back(name);
    return ids_.emplace(names_.back(), static_cast<uint32_t>(names_.size())).first->second;
  }
  // Empty if the number is 0.
  std::string_view name(uint32_t id) const {
    return id == 0 || id > names_.size() ? std::string_view() : std::string_view(names_[id - 1]);
  }
  uint64_t refused() const { return refused_; }

 private:
  const size_t most_;
  std::deque<std::string> names_;                       // index: number - 1; elements never move
  std::unordered_map<std::string_view, uint32_t> ids_;  // views of names_
  uint64_t refused_ = 0;
};

}  // namespace tidegate::l7
