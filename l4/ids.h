// SPDX-License-Identifier: Apache-2.0
// Ids that outlive the tables that use them. A backend or neighbour keeps its id while it is in the configuration. So
// flows and resolved addresses survive every change of tables.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/assert.h"
#include "l4/limits.h"

namespace tidegate::l4 {

enum class BackendId : uint16_t {};
enum class NeighbourId : uint16_t {};
enum class ServiceId : uint16_t {};
enum class AclId : uint16_t {};

constexpr BackendId kNoBackend{UINT16_MAX};  // empty Maglev slots have this id too
constexpr NeighbourId kNoNeighbour{UINT16_MAX};
constexpr ServiceId kNoService{UINT16_MAX};
constexpr AclId kNoAcl{UINT16_MAX};

// A backend's key: the names of pool and backend.
using BackendKey = std::pair<std::string, std::string>;
struct BackendKeyHash {
  size_t operator()(const BackendKey& key) const {
    return std::hash<std::string>{}(key.first) * 31 + std::hash<std::string>{}(key.second);
  }
};

constexpr size_t index_of(BackendId id) { return static_cast<size_t>(id); }
constexpr size_t index_of(NeighbourId id) { return static_cast<size_t>(id); }
constexpr size_t index_of(ServiceId id) { return static_cast<size_t>(id); }
constexpr size_t index_of(AclId id) { return static_cast<size_t>(id); }

// Gives out small ids for keys, in rounds. One build of tables is one round, and it interns every key that it uses. A
// round has no effect until it is adopted: its ids are taken back when it is abandoned or another round begins. A key
// that the adopted round did not intern keeps its id for a quarantine time. So an id that a flow still has cannot get
// another backend. Control thread only.
template <class Id, class Key, class Hash = std::hash<Key>>
class StableIds {
 public:
  explicit StableIds(size_t capacity) : capacity_(capacity) {}

  void begin_round(uint64_t now_ns, uint64_t quarantine_ns) {
    abandon_round();
    ++round_;
    now_ns_ = now_ns;
    quarantine_ns_ = quarantine_ns;
  }

  // Returns nothing if every id is taken.
  std::optional<Id> intern(const Key& key) {
    const auto known = entries_.find(key);
    if (known != entries_.end()) {
      known->second.round = round_;
      return known->second.id;
    }
    if (next_ == capacity_ && free_.empty()) reclaim();
    Id id{};
    if (!free_.empty()) {
      id = free_.back();
      free_.pop_back();
    } else if (next_ < capacity_) {
      id = Id{static_cast<uint16_t>(next_++)};
    } else {
      return std::nullopt;
    }
    entries_.emplace(key, Entry{id, round_, std::nullopt});
    fresh_.push_back(key);
    return id;
  }

  // Puts the keys of the last round into use, and no others.
  void adopt_round(uint64_t now_ns) {
    fresh_.clear();
    for (auto& [key, entry] : entries_) {
      if (entry.round == round_) {
        entry.dropped_at_ns.reset();
      } else if (!entry.dropped_at_ns) {
        entry.dropped_at_ns = now_ns;
      }
    }
  }

  // Takes back the ids that only a round without adoption gave out.
  void abandon_round() {
    for (const Key& key : fresh_) {
      const auto entry = entries_.find(key);
      free_.push_back(entry->second.id);
      entries_.erase(entry);
    }
    fresh_.clear();
  }

  // Before the first round: an earlier process gave these ids to these keys. Their quarantine begins now. Neither ids
  // nor keys may repeat.
  void restore(const std::vector<std::pair<Key, Id>>& known, uint64_t now_ns) {
    TIDEGATE_ASSERT(round_ == 0 && entries_.empty(), "ids are restored before any is given out");
    std::vector<bool> taken(capacity_);
    for (const auto& [key, id] : known) {
      const auto index = static_cast<size_t>(id);
      TIDEGATE_ASSERT(index < capacity_ && !taken[index], "each restored id is a different one");
      taken[index] = true;
      next_ = std::max(next_, index + 1);
      const bool is_new = entries_.emplace(key, Entry{id, 0, now_ns}).second;
      TIDEGATE_ASSERT(is_new, "each restored key is a different one");
    }
    for (size_t index = 0; index < next_; ++index) {
      if (!taken[index]) free_.push_back(Id{static_cast<uint16_t>(index)});
    }
  }
  // True if the round gave out an id.
  bool has_fresh() const { return !fresh_.empty(); }

  std::optional<Id> find(const Key& key) const {
    const auto known = entries_.find(key);
    if (known == entries_.end()) return std::nullopt;
    return known->second.id;
  }

  template <class Fn>
  void for_each(Fn&& fn) const {
    for (const auto& [key, entry] : entries_) fn(key, entry.id);
  }

 private:
  struct Entry {
    Id id;
    uint64_t round;                         // the round in which it was last interned, adopted or not
    std::optional<uint64_t> dropped_at_ns;  // when a round without it was adopted
  };

  // After its quarantine an id is in no table and no flow. So it can be reclaimed without an adoption.
  void reclaim() {
    for (auto it = entries_.begin(); it != entries_.end();) {
      const std::optional<uint64_t>& dropped_at_ns = it->second.dropped_at_ns;
      if (it->second.round != round_ && dropped_at_ns && now_ns_ - *dropped_at_ns > quarantine_ns_) {
        free_.push_back(it->second.id);
        it = entries_.erase(it);
      } else {
        ++it;
      }
    }
  }

  size_t capacity_;
  size_t next_ = 0;
  uint64_t round_ = 0;
  uint64_t now_ns_ = 0, quarantine_ns_ = 0;
  std::unordered_map<Key, Entry, Hash> entries_;
  std::vector<Id> free_;
  std::vector<Key> fresh_;  // keys that got their ids in the round that is not adopted yet
};

using BackendIds = StableIds<BackendId, BackendKey, BackendKeyHash>;
using ServiceIds = StableIds<ServiceId, std::string>;  // by the name of the service
using AclIds = StableIds<AclId, std::string>;          // by the name of the list

}  // namespace tidegate::l4
