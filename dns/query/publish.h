// SPDX-License-Identifier: Apache-2.0
// Publishing Tables to workers by one pointer, without a reference count on any query's path.
//
// Each reader has a slot. The reader pins before a batch and unpins after it. While it is pinned, its Tables stay
// alive. The publisher (one thread) keeps each Tables object until no slot holds it (hazard pointers, Michael 2004).
#pragma once

#include <atomic>
#include <cassert>
#include <memory>
#include <vector>

#include "dns/query/tables.h"

namespace tidegate::dns {

class alignas(64) TablesSlot {
 public:
  // For the reader's thread. Null before the first publication.
  const Tables* pin() {
    const Tables* tables = current_.load(std::memory_order_acquire);
    for (;;) {
      pinned_.store(tables, std::memory_order_seq_cst);
      const Tables* again = current_.load(std::memory_order_seq_cst);
      if (again == tables) return tables;
      tables = again;
    }
  }
  void unpin() { pinned_.store(nullptr, std::memory_order_release); }

 private:
  friend class TablesPublisher;
  std::atomic<const Tables*> current_{nullptr};
  std::atomic<const Tables*> pinned_{nullptr};
};

// Pins for a scope.
class PinnedTables {
 public:
  explicit PinnedTables(TablesSlot& slot) : slot_(slot), tables_(slot.pin()) {}
  ~PinnedTables() { slot_.unpin(); }
  PinnedTables(const PinnedTables&) = delete;
  PinnedTables& operator=(const PinnedTables&) = delete;
  const Tables* get() const { return tables_; }

 private:
  TablesSlot& slot_;
  const Tables* tables_;
};

class TablesPublisher {
 public:
  // A slot for a new reader, with the Tables in force. It lives until remove_reader().
  TablesSlot& add_reader() {
    slots_.push_back(std::make_unique<TablesSlot>());
    slots_.back()->current_.store(in_force(), std::memory_order_seq_cst);
    return *slots_.back();
  }

  // Call it after the reader's thread has ended.
  void remove_reader(const TablesSlot& slot) {
    std::erase_if(slots_, [&](const auto& known) { return known.get() == &slot; });
  }

  void publish(std::shared_ptr<const Tables> tables) {
    alive_.push_back(std::move(tables));
    for (const auto& slot : slots_) slot->current_.store(alive_.back().get(), std::memory_order_seq_cst);
    collect();
  }

  // Releases old Tables that no reader has pinned. Returns true if no old ones are left.
  bool collect() {
    for (size_t i = 0; i + 1 < alive_.size();) {
      bool pinned = false;
      for (const auto& slot : slots_) {
        pinned = pinned || slot->pinned_.load(std::memory_order_seq_cst) == alive_[i].get();
      }
      if (pinned) {
        ++i;
      } else {
        alive_.erase(alive_.begin() + static_cast<ptrdiff_t>(i));
      }
    }
    return alive_.size() <= 1;
  }

  const Tables* in_force() const { return alive_.empty() ? nullptr : alive_.back().get(); }

 private:
  std::vector<std::unique_ptr<TablesSlot>> slots_;
  std::vector<std::shared_ptr<const Tables>> alive_;  // the last one is in force
};

}  // namespace tidegate::dns
