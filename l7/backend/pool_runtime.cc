// SPDX-License-Identifier: Apache-2.0
#include "l7/backend/pool_runtime.h"

#include <algorithm>
#include <cmath>

#include "conf/model/pool.h"

namespace tidegate::l7 {

void BackendRuntime::note_success() {
  // A store would take the cache line from the other workers. So the store is left out while the backend is healthy.
  if (consecutive_failures.load(std::memory_order_relaxed) != 0) {
    consecutive_failures.store(0, std::memory_order_relaxed);
    ejected_until_ns.store(0, std::memory_order_relaxed);
  }
}

bool BackendRuntime::note_failure(uint64_t now_ns, uint32_t eject_after) {
  failures.fetch_add(1, std::memory_order_relaxed);
  const uint32_t in_a_row = consecutive_failures.fetch_add(1, std::memory_order_relaxed) + 1;
  // Requests that were in progress when it was ejected fail too. They do not prolong the ejection.
  return eject_after != 0 && in_a_row >= eject_after && !ejected(now_ns);
}

bool BackendRuntime::was_silent(uint64_t began_ns, uint64_t now_ns, uint64_t longest_ns) {
  uint64_t since_ns = not_accepted_since_ns.load(std::memory_order_relaxed);
  if (since_ns == 0 || answered_ns.load(std::memory_order_relaxed) >= since_ns) {
    since_ns = began_ns;
    not_accepted_since_ns.store(since_ns, std::memory_order_relaxed);
  }
  return now_ns - since_ns >= longest_ns;
}

bool BackendRuntime::eject(uint64_t now_ns, uint64_t eject_ns) {
  uint64_t until = ejected_until_ns.load(std::memory_order_relaxed);
  if (until > now_ns) return false;
  if (!ejected_until_ns.compare_exchange_strong(until, now_ns + eject_ns, std::memory_order_relaxed)) return false;
  ejections.fetch_add(1, std::memory_order_relaxed);
  return true;
}

double BackendRuntime::share_of_weight(uint64_t now_ns, uint64_t slow_start_ns) const {
  if (slow_start_ns == 0) return 1;
  const uint64_t since =
      std::max(in_service_since_ns.load(std::memory_order_relaxed), ejected_until_ns.load(std::memory_order_relaxed));
  if (since == 0 || now_ns >= since + slow_start_ns) return 1;
  const double part = now_ns <= since ? 0 : static_cast<double>(now_ns - since) / static_cast<double>(slow_start_ns);
  return std::max(kSlowStartLeast, part);
}

void PeakEwma::observe(uint64_t sample_ns, uint64_t now_ns) {
  const double sample_us = static_cast<double>(std::min<uint64_t>(sample_ns / 1'000, UINT32_MAX));
  uint64_t seen = packed_.load(std::memory_order_relaxed);
  const auto now_ms = static_cast<uint32_t>(now_ns / 1'000'000);
  uint64_t wanted = 0;
  do {
    const auto old_us = static_cast<double>(static_cast<uint32_t>(seen));
    const uint32_t age_ms = now_ms - static_cast<uint32_t>(seen >> 32);
    const double kept = std::exp(-static_cast<double>(age_ms) / kDecayMs);
    const double next_us = sample_us >= old_us ? sample_us : old_us * kept + sample_us * (1 - kept);
    wanted = uint64_t{now_ms} << 32 | static_cast<uint32_t>(std::max(1.0, next_us));
  } while (!packed_.compare_exchange_weak(seen, wanted, std::memory_order_relaxed));
}

double PeakEwma::value_us(uint64_t now_ns) const {
  const uint64_t seen = packed_.load(std::memory_order_relaxed);
  const uint32_t age_ms = static_cast<uint32_t>(now_ns / 1'000'000) - static_cast<uint32_t>(seen >> 32);
  return static_cast<uint32_t>(seen) * std::exp(-static_cast<double>(age_ms) / kDecayMs);
}

void RetryBudget::deposit(double fraction) {
  if (saved_.load(std::memory_order_relaxed) >= kMostSaved) return;
  saved_.fetch_add(static_cast<int64_t>(fraction * kOne), std::memory_order_relaxed);
}

bool RetryBudget::withdraw(uint64_t now_ns) {
  int64_t saved = saved_.load(std::memory_order_relaxed);
  while (saved >= kOne) {
    if (saved_.compare_exchange_weak(saved, saved - kOne, std::memory_order_relaxed)) return true;
  }
  uint64_t due = floor_due_ns_.load(std::memory_order_relaxed);
  const uint64_t next = std::max(due, now_ns) + kFloorIntervalNs;
  return next <= now_ns + kFloorBurst * kFloorIntervalNs &&
         floor_due_ns_.compare_exchange_strong(due, next, std::memory_order_relaxed);
}

std::shared_ptr<PoolRuntime> RuntimeRegistry::pool(const std::string& name) {
  std::shared_ptr<PoolRuntime>& entry = pools_[name];
  if (!entry) entry = std::make_shared<PoolRuntime>(next_pool_++, names_.id(name));
  return entry;
}

std::shared_ptr<BackendRuntime> RuntimeRegistry::backend(const std::string& pool_name, const std::string& name) {
  std::shared_ptr<BackendRuntime>& entry = backends_[pool_name + "/" + name];
  if (!entry) entry = std::make_shared<BackendRuntime>(next_backend_++, pool(pool_name)->id, names_.id(name));
  return entry;
}

std::shared_ptr<TurnCounter> RuntimeRegistry::turns(const std::string& pool_name, const std::string& part) {
  std::shared_ptr<TurnCounter>& entry = turns_[pool_name + "/" + part];
  if (!entry) entry = std::make_shared<TurnCounter>(0);
  return entry;
}

void RuntimeRegistry::trim(const Model& model) {
  size_t named = 0;
  for (const Pool& pool : model.pools) named += pool.backends.size();
  if (backends_.size() <= 2 * named + 64) return;
  // A Plan that names an entry holds it, so use_count() shows whether one does.
  std::erase_if(turns_, [](const auto& entry) { return entry.second.use_count() == 1; });
  std::erase_if(backends_, [](const auto& entry) { return entry.second.use_count() == 1; });
  std::erase_if(pools_, [](const auto& entry) { return entry.second.use_count() == 1; });
}

}  // namespace tidegate::l7
