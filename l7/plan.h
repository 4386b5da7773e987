// SPDX-License-Identifier: Apache-2.0
// Plan: a Description (l7/plan/description.h) with the state of the process that serves it. Immutable and shared by all
// workers. Each worker wraps the one in force in its own LocalPlan, with the TLS contexts that threads must not share.
// A request pins the LocalPlan with which it began by a plain count. So no two workers write the same cache line.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "conf/live_state.h"
#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/pool.h"
#include "conf/model/route.h"
#include "core/tls.h"
#include "l7/backend/pool.h"
#include "l7/plan/description.h"
#include "l7/plan/tls_contexts.h"
#include "l7/policy/policy.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

struct Plan : Description {
  uint64_t sequence = 0;  // grows with every Plan of the process, so it identifies one
  // Parallel to Model::pools and to labelled_pools. The same object as in the previous Plan where its tables are the
  // same.
  std::vector<std::shared_ptr<const BackendPool>> pools, subsets;
  // backends taken down by an operator: their running work ends
  std::vector<std::shared_ptr<BackendRuntime>> taken_down;
  policy::Policies policies;
  // Of NameIds, for records of requests. Parallel to Model::routes and Model::listeners.
  std::vector<uint32_t> route_names, listener_names;

  // For a route that has a pool.
  const BackendPool& pool_of(uint32_t route) const {
    const uint32_t subset = subset_of_route[route];
    return subset == kNone ? *pools[model().routes[route].pool()] : *subsets[subset];
  }
  // Equal on two nodes exactly if their derived tables are equal.
  std::string digest() const;
};

// Call it when the Plan comes into force: the registries get its new entries. The caller trims them afterwards.
std::shared_ptr<const Plan> attach(Description description, const Plan* previous, RuntimeRegistry& registry,
                                   policy::Registry& policies);

// The hash by which consistent_hash picks a backend: the pool's `hash_on` of this request, keyed.
uint64_t hash_for_pool(const Plan& plan, const Pool& pool, const RequestHead& request, std::string_view client);

// One worker's reference to a Plan. Only that worker changes its count.
class LocalPlan {
 public:
  LocalPlan(std::shared_ptr<const Plan> plan, TlsContexts::Set tls)
      : version_(plan->snapshot->version),
        live_state_(plan->snapshot->live_state->sequence),
        plan_(std::move(plan)),
        tls_(std::move(tls)) {}
  const Plan& plan() const { return *plan_; }
  // Of its Snapshot; for records of requests.
  uint64_t version() const { return version_; }
  uint64_t live_state() const { return live_state_; }
  const std::shared_ptr<TlsContext>& listener_tls(uint32_t listener) const { return tls_.listeners[listener]; }
  const std::shared_ptr<TlsContext>& pool_tls(uint32_t pool) const { return tls_.pools[pool]; }
  // Takes what must be destroyed elsewhere, because freeing a large Model would delay a worker.
  std::shared_ptr<const Plan> release() { return std::move(plan_); }

 private:
  friend class PlanPin;
  const uint64_t version_, live_state_;
  std::shared_ptr<const Plan> plan_;
  TlsContexts::Set tls_;
  uint32_t pins_ = 0;
  std::function<void(LocalPlan*)> on_unpinned_;
};

// Keeps a LocalPlan while it lives.
class PlanPin {
 public:
  PlanPin() = default;
  explicit PlanPin(LocalPlan* local) : local_(local) {
    if (local_ != nullptr) ++local_->pins_;
  }
  PlanPin(const PlanPin& other) : PlanPin(other.local_) {}
  PlanPin(PlanPin&& other) noexcept : local_(std::exchange(other.local_, nullptr)) {}
  PlanPin& operator=(PlanPin other) noexcept {
    std::swap(local_, other.local_);
    return *this;
  }
  ~PlanPin() {
    if (local_ == nullptr || --local_->pins_ > 0 || !local_->on_unpinned_) return;
    const std::function<void(LocalPlan*)> on_unpinned = std::move(local_->on_unpinned_);  // it destroys its owner
    on_unpinned(local_);
  }
  // The first pin. `on_unpinned` is called when the last pin goes, and must destroy the LocalPlan.
  static PlanPin first(LocalPlan* local, std::function<void(LocalPlan*)> on_unpinned) {
    local->on_unpinned_ = std::move(on_unpinned);
    return PlanPin(local);
  }
  const LocalPlan* operator->() const { return local_; }
  explicit operator bool() const { return local_ != nullptr; }

 private:
  LocalPlan* local_ = nullptr;
};

}  // namespace tidegate::l7
