// SPDX-License-Identifier: Apache-2.0
#include "l7/plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "conf/model/policy.h"
#include "core/assert.h"
#include "core/crypto.h"

namespace tidegate::l7 {

namespace {

// The numbers of these names. If the previous plan has the same name at the same place, its number is used without a
// lookup.
template <class List>
std::vector<uint32_t> numbers_of_names(const List& elements, const List* before,
                                       const std::vector<uint32_t>& numbers_before, NameIds& names) {
  std::vector<uint32_t> numbers;
  numbers.reserve(elements.size());
  for (size_t i = 0; i < elements.size(); ++i) {
    const bool same = before != nullptr && i < before->size() && (*before)[i].name == elements[i].name;
    numbers.push_back(same ? numbers_before[i] : names.id(elements[i].name));
  }
  return numbers;
}

void number_names(Plan& plan, const Plan* previous, NameIds& names) {
  static const std::vector<uint32_t> kNothing;
  const Model* const before = previous == nullptr ? nullptr : &previous->model();
  const Model& model = plan.model();
  plan.route_names = numbers_of_names(model.routes, before == nullptr ? nullptr : &before->routes,
                                      before == nullptr ? kNothing : previous->route_names, names);
  plan.listener_names = numbers_of_names(model.listeners, before == nullptr ? nullptr : &before->listeners,
                                         before == nullptr ? kNothing : previous->listener_names, names);
  plan.policies.number_names(names);
}

// Tables are kept only together with their element of the Model and with the verdicts on its backends. So the pool that
// was made of them before is this pool.
void take_pools(Plan& plan, const Plan* previous, RuntimeRegistry& registry) {
  const Model& model = plan.model();
  plan.pools.reserve(model.pools.size());
  for (uint32_t p = 0; p < model.pools.size(); ++p) {
    const bool same = previous != nullptr && p < previous->tables.size() && previous->tables[p] == plan.tables[p];
    if (same) {
      TIDEGATE_ASSERT(&previous->pools[p]->config() == &model.pools[p], "tables belong to one element of the Model");
      plan.pools.push_back(previous->pools[p]);
    } else {
      plan.pools.push_back(std::make_shared<const BackendPool>(*plan.snapshot, p, plan.tables[p], registry,
                                                               std::span<const std::string>()));
    }
  }
  plan.subsets.reserve(plan.labelled_pools.size());
  for (size_t i = 0; i < plan.labelled_pools.size(); ++i) {
    const LabelledPool& each = plan.labelled_pools[i];
    const bool same =
        previous != nullptr && i < previous->labelled_pools.size() && previous->labelled_pools[i].tables == each.tables;
    plan.subsets.push_back(
        same ? previous->subsets[i]
             : std::make_shared<const BackendPool>(*plan.snapshot, each.pool, each.tables, registry, each.labels));
  }
}

void find_taken_down(Plan& plan) {
  for (size_t p = 0; p < plan.pools.size(); ++p) {
    const std::vector<BackendStatus>& backends = plan.snapshot->pools[p].backends;
    const auto taken_down = [](const BackendStatus& status) { return status.taken_down; };
    if (std::none_of(backends.begin(), backends.end(), taken_down)) continue;
    for (const BackendPool::Server& server : plan.pools[p]->servers()) {
      if (backends[server.index].taken_down) plan.taken_down.push_back(server.runtime);
    }
  }
}

}  // namespace

std::shared_ptr<const Plan> attach(Description description, const Plan* previous, RuntimeRegistry& registry,
                                   policy::Registry& policies) {
  auto plan = std::make_shared<Plan>();
  static_cast<Description&>(*plan) = std::move(description);
  plan->sequence = previous == nullptr ? 1 : previous->sequence + 1;
  const Model& model = plan->model();
  take_pools(*plan, previous, registry);
  find_taken_down(*plan);
  plan->policies = policy::Policies(
      {model, plan->policy_contents, plan->policy_bindings, *plan->snapshot->live_state, plan->hash_key}, policies,
      previous == nullptr ? nullptr : &previous->policies, previous == nullptr ? nullptr : &previous->model());
  number_names(*plan, previous, registry.names());
  return plan;
}

std::string Plan::digest() const {
  std::string text = snapshot->version_digest;
  for (const std::shared_ptr<const BackendPool>& pool : pools) {
    text += fmt::format("\n{}", pool->config().name);
    for (const PoolMember& member : pool->members()) text += fmt::format(" {}={}", member.name, member.weight);
  }
  return sha256_hex(text);
}

uint64_t hash_for_pool(const Plan& plan, const Pool& pool, const RequestHead& request, std::string_view client) {
  constexpr std::string_view kHeader = "header:";
  if (pool.hash_on == "path") return siphash13(plan.hash_key, request.path);
  if (pool.hash_on.starts_with(kHeader)) {
    const std::string_view wanted = std::string_view(pool.hash_on).substr(kHeader.size());
    for (const Field& field : request.fields) {
      if (http1::equals_ignore_case(field.name, wanted)) return siphash13(plan.hash_key, field.value);
    }
  }
  // Used also if the named field is absent: then requests of the same client stay together.
  return siphash13(plan.hash_key, client);
}

}  // namespace tidegate::l7
