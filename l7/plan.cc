// SPDX-License-Identifier: Apache-2.0
#include "l7/plan.h"

#include <fmt/format.h>

#include "conf/model/policy.h"
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

}  // namespace

std::shared_ptr<const Plan> attach(Description description, const Plan* previous, RuntimeRegistry& registry,
                                   policy::Registry& policies) {
  auto plan = std::make_shared<Plan>();
  static_cast<Description&>(*plan) = std::move(description);
  plan->sequence = previous == nullptr ? 1 : previous->sequence + 1;
  const Model& model = plan->model();
  plan->pools.reserve(model.pools.size());
  for (uint32_t i = 0; i < model.pools.size(); ++i) {
    plan->pools.emplace_back(*plan->snapshot, i, plan->tables[i], registry, std::span<const std::string>());
    const PoolStatus& status = plan->snapshot->pools[i];
    for (const BackendPool::Server& server : plan->pools[i].servers()) {
      if (status.backends[server.index].taken_down) plan->taken_down.push_back(server.runtime);
    }
  }
  for (const LabelledPool& each : plan->labelled_pools) {
    plan->subsets.emplace_back(*plan->snapshot, each.pool, each.tables, registry, each.labels);
  }
  plan->policies = policy::Policies(
      {model, plan->policy_contents, plan->policy_bindings, *plan->snapshot->live_state, plan->hash_key}, policies,
      previous == nullptr ? nullptr : &previous->policies, previous == nullptr ? nullptr : &previous->model());
  number_names(*plan, previous, registry.names());
  return plan;
}

std::string Plan::digest() const {
  std::string text = snapshot->version_digest;
  for (const BackendPool& pool : pools) {
    text += fmt::format("\n{}", pool.config().name);
    for (const PoolMember& member : pool.members()) text += fmt::format(" {}={}", member.name, member.weight);
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
