// SPDX-License-Identifier: Apache-2.0
// Plan: a Snapshot compiled for the proxy. Immutable and shared by all workers. Each worker wraps the one in force in
// its own LocalPlan, with the TLS contexts that threads must not share. A request pins the LocalPlan with which it
// began by a plain count. So no two workers write the same cache line for it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "conf/snapshot.h"
#include "core/hash.h"
#include "core/result.h"
#include "core/tls.h"
#include "l7/backend/pool.h"
#include "l7/certificates.h"
#include "l7/policy/policy.h"
#include "l7/route/router.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

struct Plan {
  std::shared_ptr<const Snapshot> snapshot;
  uint64_t sequence = 0;  // grows with every Plan of the process, so it identifies one
  uint32_t node = kNone;
  // the same object as in the previous Plan if the Model is the same
  std::shared_ptr<const Router> router;
  std::vector<BackendPool> pools;         // parallel to Model::pools
  std::vector<BackendPool> subsets;       // subsets of the pools, for routes with labels
  std::vector<uint32_t> subset_of_route;  // parallel to Model::routes; kNone: the whole pool
  std::vector<uint32_t> listeners;        // listeners of this node's site
  // backends taken down by an operator: their running work ends
  std::vector<std::shared_ptr<BackendRuntime>> taken_down;
  std::shared_ptr<const NameBook> names;  // what the names of backends lead to
  policy::Policies policies;
  std::vector<ServedCertificate> certificates;  // parallel to Model::certificates
  AcmeAnswers acme_answers;                     // usually empty; the texts are the snapshot's
  std::vector<AcmeIdentity> acme_identities;    // usually empty
  // Of NameIds, for records of requests. Parallel to Model::routes and Model::listeners.
  std::vector<uint32_t> route_names, listener_names;
  HashKey hash_key;  // of consistent_hash; equal on every host of the site

  const Model& model() const { return *snapshot->model; }
  const Node& this_node() const { return model().nodes[node]; }
  // For a route that has a pool.
  const BackendPool& pool_of(uint32_t route) const {
    const uint32_t subset = subset_of_route[route];
    return subset == kNone ? pools[model().routes[route].pool()] : subsets[subset];
  }
  // Equal on two nodes exactly if their derived tables are equal.
  std::string digest() const;
};

struct PlanInputs {
  std::shared_ptr<const Snapshot> snapshot;
  uint32_t node = kNone;
  HashKey router_key, hash_key;
  std::shared_ptr<const NameBook> names = nullptr;  // null: none is known
  policy::Registry* policies = nullptr;             // null: what policies have learned begins anew
};
// The registry gets a runtime for each backend that it does not have; the caller trims it when the Plan is adopted.
std::shared_ptr<const Plan> make_plan(const PlanInputs& inputs, const Plan* previous, RuntimeRegistry& registry);

// The hash by which consistent_hash picks a backend: the pool's `hash_on` of this request, keyed.
uint64_t hash_for_pool(const Plan& plan, const Pool& pool, const RequestHead& request, std::string_view client);

// TLS contexts of one worker. They are kept as long as their content stays the same. Each worker has its own, because
// OpenSSL 3.0 scales badly when threads share one. If one certificate of a listener changes, its context is made again,
// with the other identities as they were read before.
class TlsContexts {
 public:
  explicit TlsContexts(std::shared_ptr<const TicketKeys> tickets) : tickets_(std::move(tickets)) {}
  struct Set {
    // parallel to Model::listeners; null: plain text, or not on this node
    std::vector<std::shared_ptr<TlsContext>> listeners;
    std::vector<std::shared_ptr<TlsContext>> pools;  // parallel to Model::pools; null: plain text
  };
  Result<Set> prepare(const Plan& plan);
  // The staples that the identities of the last prepare() show from now on; null: none any more. Identities that never
  // had a staple are left out. The worker sets them when it takes the plan.
  using Staples = std::vector<std::pair<std::shared_ptr<const ServerIdentity>, std::shared_ptr<const Staple>>>;
  Staples staples() const { return {known_.staples.begin(), known_.staples.end()}; }
  uint64_t identities_read() const { return identities_read_; }  // number of identities read since the start

 private:
  // Known objects, by what they are made from.
  struct Known {
    std::map<std::string, std::shared_ptr<TlsContext>> contexts;
    std::map<std::string, std::shared_ptr<const ServerIdentity>> identities;
    // Null if an identity has no staple any more. Whether a worker knows that already is not known here.
    std::map<std::shared_ptr<const ServerIdentity>, std::shared_ptr<const Staple>> staples;
  };
  static Result<std::shared_ptr<TlsContext>> for_authorities(const Plan& plan);
  Result<std::shared_ptr<TlsContext>> for_listener(const Plan& plan, const Listener& listener, Known& next);
  Result<std::shared_ptr<const ServerIdentity>> identity_of(const ServedCertificate& certificate, Known& next);
  void keep_staples(Known& next) const;
  Result<std::shared_ptr<TlsContext>> for_pool(const Plan& plan, const Pool& pool, Known& next);
  std::shared_ptr<const TicketKeys> tickets_;
  Known known_;
  uint64_t identities_read_ = 0;
};

// One worker's reference to a Plan. Only that worker changes its count.
class LocalPlan {
 public:
  LocalPlan(std::shared_ptr<const Plan> plan, TlsContexts::Set tls) : plan_(std::move(plan)), tls_(std::move(tls)) {}
  const Plan& plan() const { return *plan_; }
  const std::shared_ptr<TlsContext>& listener_tls(uint32_t listener) const { return tls_.listeners[listener]; }
  const std::shared_ptr<TlsContext>& pool_tls(uint32_t pool) const { return tls_.pools[pool]; }
  // Takes what must be destroyed elsewhere, because freeing a large Model would delay a worker.
  std::shared_ptr<const Plan> release() { return std::move(plan_); }

 private:
  friend class PlanPin;
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
