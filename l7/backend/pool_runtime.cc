// SPDX-License-Identifier: Apache-2.0
#include "l7/backend/pool_runtime.h"

#include <algorithm>

namespace tidegate::l7 {

void BackendRuntime::note_success() {
  // Read first: a healthy backend's line stays shared between the workers' caches.
  if (consecutive_failures.load(std::memory_order_relaxed) != 0) {
    consecutive_failures.store(0, std::memory_order_relaxed);
    ejected_until_ns.store(0, std::memory_order_relaxed);
  }
}

bool BackendRuntime::note_failure(uint64_t now_ns, uint32_t eject_after, uint64_t eject_ns) {
  failures.fetch_add(1, std::memory_order_relaxed);
  const uint32_t in_a_row = consecutive_failures.fetch_add(1, std::memory_order_relaxed) + 1;
  if (eject_after == 0 || in_a_row < eject_after) return false;
  uint64_t until = ejected_until_ns.load(std::memory_order_relaxed);
  // Requests that were under way when it was ejected fail too: they do not prolong it.
  if (until > now_ns) return false;
  if (!ejected_until_ns.compare_exchange_strong(until, now_ns + eject_ns, std::memory_order_relaxed)) return false;
  ejections.fetch_add(1, std::memory_order_relaxed);
  return true;
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
  if (!entry) entry = std::make_shared<PoolRuntime>(next_pool_++);
  return entry;
}

std::shared_ptr<BackendRuntime> RuntimeRegistry::backend(const std::string& pool_name, const std::string& name) {
  std::shared_ptr<BackendRuntime>& entry = backends_[pool_name + "/" + name];
  if (!entry) entry = std::make_shared<BackendRuntime>(next_backend_++, pool(pool_name)->id);
  return entry;
}

void RuntimeRegistry::trim(const Model& model) {
  size_t named = 0;
  for (const Pool& pool : model.pools) named += pool.backends.size();
  if (backends_.size() <= 2 * named + 64) return;
  // A Plan that names an entry holds it: use_count tells.
  std::erase_if(backends_, [](const auto& entry) { return entry.second.use_count() == 1; });
  std::erase_if(pools_, [](const auto& entry) { return entry.second.use_count() == 1; });
}

}  // namespace tidegate::l7
