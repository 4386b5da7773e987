// SPDX-License-Identifier: Apache-2.0
#include "core/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

namespace tidegate {

size_t metric_thread_index() {
  static std::atomic<size_t> next{0};
  thread_local const size_t index = std::min(next.fetch_add(1, std::memory_order_relaxed), kMaxMetricThreads - 1);
  return index;
}

size_t LatencyHistogram::bucket_of(uint64_t ns) {
  const uint64_t us = ns / 1000;
  if (us < 4) return us;
  const auto exponent = static_cast<size_t>(std::bit_width(us)) - 1;  // at least 2
  const size_t quarter = us >> (exponent - 2) & 3;
  return std::min((exponent - 1) * 4 + quarter, kBuckets - 1);
}

uint64_t LatencyHistogram::upper_bound_ns(size_t bucket) {
  if (bucket < 4) return (bucket + 1) * 1000;
  const size_t exponent = bucket / 4 + 1;
  return ((4 + bucket % 4 + 1) << (exponent - 2)) * 1000;
}

void LatencyHistogram::record_ns(uint64_t ns) {
  const size_t index = metric_thread_index();
  add_to_slot(slots_[index].counts[bucket_of(ns)], index, 1);
  add_to_slot(slots_[index].sum_ns, index, ns);
}

uint64_t LatencyHistogram::count_in(size_t bucket) const {
  uint64_t sum = 0;
  for (const Slot& slot : slots_) sum += slot.counts[bucket].load(std::memory_order_relaxed);
  return sum;
}

uint64_t LatencyHistogram::sum_ns() const {
  uint64_t sum = 0;
  for (const Slot& slot : slots_) sum += slot.sum_ns.load(std::memory_order_relaxed);
  return sum;
}

std::string render_labels(const MetricLabels& labels) {
  if (labels.empty()) return {};
  std::string out = "{";
  for (const auto& [name, value] : labels) {
    if (out.size() > 1) out += ',';
    out += name + "=\"";
    for (const char c : value) {
      if (c == '\\' || c == '"') out += '\\';
      if (c == '\n') {
        out += "\\n";
      } else {
        out += c;
      }
    }
    out += '"';
  }
  return out + "}";
}

Metrics::Series& Metrics::series(std::string_view name, std::string_view help, std::string_view type,
                                 const MetricLabels& labels) {
  Family* family = nullptr;
  for (const auto& candidate : families_) {
    if (candidate->name == name) family = candidate.get();
  }
  if (family == nullptr) {
    families_.push_back(std::make_unique<Family>());
    family = families_.back().get();
    family->name = name;
    family->help = help;
    family->type = type;
  }
  const std::string rendered = render_labels(labels);
  for (const auto& existing : family->series) {
    if (existing->labels == rendered) return *existing;
  }
  family->series.push_back(std::make_unique<Series>());
  family->series.back()->labels = rendered;
  return *family->series.back();
}

Counter& Metrics::counter(std::string_view name, std::string_view help, const MetricLabels& labels) {
  const MutexLock lock(mutex_);
  Series& s = series(name, help, "counter", labels);
  if (!s.counter) s.counter = std::make_unique<Counter>();
  return *s.counter;
}

LatencyHistogram& Metrics::latency(std::string_view name, std::string_view help, const MetricLabels& labels) {
  const MutexLock lock(mutex_);
  Series& s = series(name, help, "histogram", labels);
  if (!s.latency) s.latency = std::make_unique<LatencyHistogram>();
  return *s.latency;
}

void Metrics::gauge(std::string_view name, std::string_view help, std::function<double()> read,
                    const MetricLabels& labels) {
  const MutexLock lock(mutex_);
  series(name, help, "gauge", labels).gauge = std::move(read);
}

void Metrics::collector(std::function<void(std::string&)> append) {
  const MutexLock lock(mutex_);
  collectors_.push_back(std::move(append));
}

namespace {

void append_histogram(std::string& out, const std::string& name, const std::string& labels,
                      const LatencyHistogram& histogram) {
  const std::string inner = labels.empty() ? "" : labels.substr(1, labels.size() - 2) + ",";
  uint64_t cumulative = 0;
  for (size_t bucket = 0; bucket + 1 < LatencyHistogram::kBuckets; ++bucket) {
    cumulative += histogram.count_in(bucket);
    if (bucket % 2 == 0) continue;  // every second bound is enough, and keeps the page readable
    out += fmt::format("{}_bucket{{{}le=\"{:.9g}\"}} {}\n", name, inner,
                       static_cast<double>(LatencyHistogram::upper_bound_ns(bucket)) / 1e9, cumulative);
  }
  cumulative += histogram.count_in(LatencyHistogram::kBuckets - 1);
  out += fmt::format("{}_bucket{{{}le=\"+Inf\"}} {}\n", name, inner, cumulative);
  out += fmt::format("{}_sum{} {:.9g}\n", name, labels, static_cast<double>(histogram.sum_ns()) / 1e9);
  out += fmt::format("{}_count{} {}\n", name, labels, cumulative);
}

}  // namespace

std::string Metrics::prometheus_text() const {
  const MutexLock lock(mutex_);
  std::string out;
  for (const auto& family : families_) {
    out += fmt::format("# HELP {} {}\n# TYPE {} {}\n", family->name, family->help, family->name, family->type);
    for (const auto& s : family->series) {
      if (s->counter) out += fmt::format("{}{} {}\n", family->name, s->labels, s->counter->value());
      if (s->gauge) out += fmt::format("{}{} {:.9g}\n", family->name, s->labels, s->gauge());
      if (s->latency) append_histogram(out, family->name, s->labels, *s->latency);
    }
  }
  for (const auto& append : collectors_) append(out);
  return out;
}

Metrics& metrics() {
  static Metrics registry;
  return registry;
}

}  // namespace tidegate
