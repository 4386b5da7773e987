// SPDX-License-Identifier: Apache-2.0
// Metrics: counters that cost a plain add on the counting thread. They are summed only when someone scrapes.
//
// Names: tidegate_<plane>_<what>_<unit>[_total]. Declare counters at start: that allocates and locks. Counting does
// neither and may happen anywhere. Each thread owns one cache line of each counter, so no two threads write the same
// line.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/mutex.h"

namespace tidegate {

constexpr size_t kMaxMetricThreads = 32;  // threads beyond this number share the last slot with atomic adds
size_t metric_thread_index();             // assigned on first use, for the life of the thread

// If only one thread writes a slot, the add needs no locked instruction.
inline void add_to_slot(std::atomic<uint64_t>& value, size_t thread_index, uint64_t n) {
  if (thread_index + 1 < kMaxMetricThreads) {
    value.store(value.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  } else {
    value.fetch_add(n, std::memory_order_relaxed);
  }
}

class Counter {
 public:
  void add(uint64_t n = 1) {
    const size_t index = metric_thread_index();
    add_to_slot(slots_[index].value, index, n);
  }
  uint64_t value() const {
    uint64_t sum = 0;
    for (const Slot& slot : slots_) sum += slot.value.load(std::memory_order_relaxed);
    return sum;
  }

 private:
  struct alignas(64) Slot {
    std::atomic<uint64_t> value{0};
  };
  std::array<Slot, kMaxMetricThreads> slots_;
};

// Log-linear buckets: four per power of two from 1 µs to ~134 s. Values are in nanoseconds; they are exported in
// seconds.
class LatencyHistogram {
 public:
  static constexpr size_t kBuckets = 4 * 26 + 1;
  void record_ns(uint64_t ns);
  static size_t bucket_of(uint64_t ns);
  static uint64_t upper_bound_ns(size_t bucket);
  uint64_t count_in(size_t bucket) const;
  uint64_t sum_ns() const;

 private:
  struct alignas(64) Slot {
    std::array<std::atomic<uint64_t>, kBuckets> counts{};
    std::atomic<uint64_t> sum_ns{0};
  };
  std::array<Slot, kMaxMetricThreads> slots_;
};

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

class Metrics {
 public:
  // The same name and labels return the same object. References are valid as long as the registry.
  Counter& counter(std::string_view name, std::string_view help, const MetricLabels& labels = {});
  LatencyHistogram& latency(std::string_view name, std::string_view help, const MetricLabels& labels = {});
  // Calls `read` on the scraping thread at each scrape.
  void gauge(std::string_view name, std::string_view help, std::function<double()> read,
             const MetricLabels& labels = {});
  // For families whose label sets change at run time: `append` writes them, on the scraping thread. Neither callback
  // may declare metrics.
  void collector(std::function<void(std::string& out)> append);

  // Prometheus text exposition format 0.0.4.
  std::string prometheus_text() const;

 private:
  struct Series {
    std::string labels;  // rendered: {a="b"}
    std::unique_ptr<Counter> counter;
    std::unique_ptr<LatencyHistogram> latency;
    std::function<double()> gauge;
  };
  struct Family {
    std::string name, help, type;
    std::vector<std::unique_ptr<Series>> series;
  };
  Series& series(std::string_view name, std::string_view help, std::string_view type, const MetricLabels& labels)
      TIDEGATE_REQUIRES(mutex_);

  mutable Mutex mutex_;
  std::vector<std::unique_ptr<Family>> families_ TIDEGATE_GUARDED_BY(mutex_);
  std::vector<std::function<void(std::string&)>> collectors_ TIDEGATE_GUARDED_BY(mutex_);
};

// The registry of the process.
Metrics& metrics();

// Returns {a="b",c="d"} with Prometheus escaping, or an empty string if there are no labels.
std::string render_labels(const MetricLabels& labels);

}  // namespace tidegate
