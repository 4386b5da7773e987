// SPDX-License-Identifier: Apache-2.0
// LimitTable: the state of every key of one limit, in memory of a fixed size. All workers share it without a lock: a
// state is one word of 64 bits, changed by compare-and-swap.
//
// A key can be in two places, each a cache line of four slots. A slot is free if its state means nothing any more: its
// bucket is full again, or its windows are over. Then another key may take the slot, and the old state need not be
// cleared. If all eight slots are in use, the key that would be free first is forgotten. That key gets its whole quota
// again, so an overfull table errs in favour of the client. `keys` keys leave at least a fifth of the slots empty. Of a
// million keys, about ten find both places full by chance.
//
// Processes that share the memory count together, like threads, because a state is only one word.
//
// Two threads that add one key at the same moment get the same slot. A thread first claims a slot: it writes the key
// with its own mark. Then it looks at both places again. If the key has another slot, it gives its own back. If another
// thread has a claim for the key, it takes that claim away. Only then does it write the key without a mark, by
// compare-and-swap, which fails if its own claim was taken away. So of two claims the later one always sees the earlier
// one, and no thread waits for another. Others may also take the slot of a claim, as that of any state that is free.
//
// One race is left: a thread that takes a slot may miss a request that another counts there. It costs at most one
// request of a quota.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "core/assert.h"
#include "l7/policy/policy.h"
#include "l7/policy/table_memory.h"

namespace tidegate::l7::policy {

class LimitTable final : public Runtime {
 public:
  explicit LimitTable(size_t keys) : LimitTable(TableMemory::make({}, 0, bytes_for(keys))) {}
  // Continues with the states of the previous process, if it left them.
  LimitTable(TableMemories& memories, const std::string& key, uint64_t fingerprint, size_t keys)
      : LimitTable(memories.take(key, fingerprint, bytes_for(keys))) {}
  // Uses memory of bytes_for(keys), which is zeroed or has the states of another process.
  explicit LimitTable(std::shared_ptr<TableMemory> memory)
      : sets_(memory->bytes() / sizeof(Set)), set_(static_cast<Set*>(memory->data())), memory_(std::move(memory)) {
    TIDEGATE_ASSERT(std::has_single_bit(sets_), "a table has 2^n sets");
  }
  static size_t bytes_for(size_t keys) { return std::bit_ceil(keys * 5 / 4 / kSlots + 1) * sizeof(Set); }

  // The state of `key`. `free_at_ns(state)`: the time from which a state is equal to 0.
  template <class FreeAt>
  std::atomic<uint64_t>& find_or_add(uint64_t key, uint64_t now_ns, FreeAt free_at_ns) {
    if (std::atomic<uint64_t>* const known = find(key)) return *known;
    return add(stored(key), now_ns, free_at_ns);
  }
  // Has the memory fetched that find() and find_or_add() read. The first place is likely to be written.
  void foresee(uint64_t key) const {
    const std::array<size_t, 2> both = places(stored(key));
    __builtin_prefetch(&set_[both[0]], 1);
    __builtin_prefetch(&set_[both[1]]);
  }
  // The state of the key. Null: the table does not have the key.
  std::atomic<uint64_t>* find(uint64_t key) const {
    key = stored(key);
    const std::array<size_t, 2> both = places(key);
    foresee(key);  // so both cache misses overlap
    for (const size_t place : both) {
      if (Slot* const slot = slot_of(set_[place], key)) return &slot->state;
    }
    return nullptr;
  }
  // Keys that were forgotten before they were free.
  uint64_t forgotten() const { return forgotten_.load(std::memory_order_relaxed); }
  size_t bytes() const { return sets_ * sizeof(Set); }

 private:
  static constexpr size_t kSlots = 4;
  static constexpr int kKeyBits = 56;
  static constexpr uint64_t kKeyMask = (uint64_t{1} << kKeyBits) - 1;
  struct Slot {
    std::atomic<uint64_t> key{0};  // 0: empty; with a mark above kKeyBits: a thread's claim
    std::atomic<uint64_t> state{0};
  };
  struct alignas(64) Set {
    std::array<Slot, kSlots> slots;
  };
  // Null if the set does not have the key. There is no branch for each slot, because it could not be predicted.
  static Slot* slot_of(Set& set, uint64_t key) {
    unsigned found = 0;
    for (unsigned i = 0; i < kSlots; ++i) {
      found |= static_cast<unsigned>(set.slots[i].key.load(std::memory_order_acquire) == key) << i;
    }
    return found == 0 ? nullptr : &set.slots[std::countr_zero(found)];
  }
  // The slot of a set that is free first.
  struct Choice {
    Slot* slot = nullptr;
    uint64_t key = 0;               // the key that it has now
    uint64_t free_ns = UINT64_MAX;  // when it is free
    size_t free = 0;                // slots of the set that are free now
  };
  template <class FreeAt>
  static Choice choose(Set& set, uint64_t now_ns, FreeAt free_at_ns) {
    Choice choice;
    for (Slot& slot : set.slots) {
      const uint64_t key = slot.key.load(std::memory_order_relaxed);
      // An empty slot comes first: in one with a free state, another thread may be about to count.
      const uint64_t free_ns =
          key == 0 ? 0 : std::max<uint64_t>(1, free_at_ns(slot.state.load(std::memory_order_relaxed)));
      choice.free += free_ns <= now_ns ? 1 : 0;
      if (choice.slot != nullptr && free_ns >= choice.free_ns) continue;
      choice.slot = &slot;
      choice.key = key;
      choice.free_ns = free_ns;
    }
    return choice;
  }
  // Gives a key that find() did not find a slot.
  template <class FreeAt>
  std::atomic<uint64_t>& add(uint64_t key, uint64_t now_ns, FreeAt free_at_ns) {
    const std::array<size_t, 2> place = places(key);
    const uint64_t claim = key | mark_of_this_thread();
    for (;;) {
      Choice choice = choose(set_[place[0]], now_ns, free_at_ns);
      const Choice other = choose(set_[place[1]], now_ns, free_at_ns);
      // Takes the emptier place, so that both fill evenly. If neither has room, takes the slot that is free earlier.
      if (other.free > choice.free || (choice.free == 0 && other.free_ns < choice.free_ns)) choice = other;
      if (choice.key != key && choice.slot->key.compare_exchange_strong(choice.key, claim)) {
        if (choice.free_ns > now_ns) {
          choice.slot->state.store(0, std::memory_order_relaxed);
          forgotten_.fetch_add(1, std::memory_order_relaxed);
        }
        uint64_t mine = claim;
        if (withdraw_others(place, key, *choice.slot) && choice.slot->key.compare_exchange_strong(mine, key)) {
          return choice.slot->state;
        }
        mine = claim;
        choice.slot->key.compare_exchange_strong(mine, 0);
      }
      if (std::atomic<uint64_t>* const known = find(key)) return *known;
    }
  }
  // Takes away the claims for `key` in all slots but `own`. False: the key has another slot.
  bool withdraw_others(const std::array<size_t, 2>& place, uint64_t key, const Slot& own) {
    for (const size_t set : place) {
      for (Slot& slot : set_[set].slots) {
        uint64_t there = slot.key.load();
        while (&slot != &own && (there & kKeyMask) == key) {
          if (there == key) return false;
          if (slot.key.compare_exchange_strong(there, 0)) break;
        }
      }
    }
    return true;
  }
  // In the bits above a key's; never 0. Up to 255 threads of a process have different marks. With two equal marks, a
  // thread could take another's claim of the same slot for its own, and the key could get two slots.
  static uint64_t mark_of_this_thread() {
    static std::atomic<uint64_t> threads{0};
    static thread_local const uint64_t mark = (threads.fetch_add(1, std::memory_order_relaxed) % 255 + 1) << kKeyBits;
    return mark;
  }
  static uint64_t stored(uint64_t key) {
    key &= kKeyMask;
    return key == 0 ? 1 : key;
  }
  // The keys are keyed hashes, so any of their bits can be used.
  std::array<size_t, 2> places(uint64_t key) const {
    return {static_cast<size_t>(key & (sets_ - 1)), static_cast<size_t>((key >> 32 ^ key << 32) & (sets_ - 1))};
  }

  const size_t sets_;  // a power of two
  Set* const set_;
  const std::shared_ptr<TableMemory> memory_;
  alignas(64) std::atomic<uint64_t> forgotten_{0};
};

}  // namespace tidegate::l7::policy
