// SPDX-License-Identifier: Apache-2.0
// Rounds: announces the new items of an ordered list a few times, a second apart, with a limit of items per call. The
// list is ordered by the generation that brought each item. So the new items are one run at the end, found by binary
// search.
//
// New items that come while others are still being announced form their own run. There are at most kMaxRuns runs. If
// there are more, the last two become one, whose items may be announced too often, but never too rarely.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace tidegate::l4 {

// Compares times in milliseconds that wrap after 49 days. They must be less than half of that apart.
inline bool is_due(uint32_t due_ms, uint32_t now_ms) { return static_cast<int32_t>(now_ms - due_ms) >= 0; }

class Rounds {
 public:
  static constexpr size_t kMaxRuns = 8;
  static constexpr uint32_t kApartMs = 1'000;

  explicit Rounds(uint8_t times) : times_(times) { runs_.reserve(kMaxRuns + 1); }

  // Items of generations up to `newest` are new, except those that an earlier call named.
  void add(uint64_t newest, uint32_t now_ms) {
    if (newest <= newest_) return;
    runs_.push_back({newest_, newest, times_, now_ms, 0});
    newest_ = newest;
    if (runs_.size() <= kMaxRuns) return;
    Run& last = runs_[kMaxRuns - 1];
    last.upto = newest;
    last.left = times_;
    last.said = 0;
    last.due_ms = now_ms;
    runs_.pop_back();
  }
  // All items are new again.
  void restart(uint32_t now_ms) {
    runs_.clear();
    const uint64_t newest = newest_;
    newest_ = 0;
    add(newest, now_ms);
  }
  bool idle() const { return runs_.empty(); }

  // Calls say(item) for at most `most` due items. Returns how many.
  template <class Item, class Say>
  size_t say(const std::vector<Item>& items, uint32_t now_ms, size_t most, Say&& say) {
    size_t said = 0;
    for (Run& run : runs_) {
      if (!is_due(run.due_ms, now_ms)) continue;
      const size_t begin = first_after(items, run.after), end = first_after(items, run.upto);
      size_t at = std::min(begin + run.said, end);
      for (; at < end && said < most; ++at, ++said) say(items[at]);
      run.said = at - begin;
      if (at < end) break;  // the next call does the rest
      --run.left;
      run.said = 0;
      run.due_ms = now_ms + kApartMs;
    }
    std::erase_if(runs_, [](const Run& run) { return run.left == 0; });
    return said;
  }

 private:
  struct Run {
    uint64_t after, upto;  // generations: after < g <= upto
    uint8_t left;          // rounds still to do
    uint32_t due_ms;
    size_t said;  // items announced in the current round
  };

  template <class Item>
  static size_t first_after(const std::vector<Item>& items, uint64_t generation) {
    const auto found = std::upper_bound(items.begin(), items.end(), generation,
                                        [](uint64_t wanted, const Item& item) { return wanted < item.since; });
    return static_cast<size_t>(found - items.begin());
  }

  uint8_t times_;
  uint64_t newest_ = 0;
  std::vector<Run> runs_;
};

}  // namespace tidegate::l4
