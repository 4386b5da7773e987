// SPDX-License-Identifier: Apache-2.0
#include "l7/plan/policy_bindings.h"

#include <algorithm>
#include <map>
#include <utility>

#include "conf/model/listener.h"
#include "conf/model/policy.h"
#include "conf/model/route.h"

namespace tidegate::l7 {
namespace {

using Policies = std::vector<uint32_t>;

// Gives equal lists equal numbers.
template <class Key>
class Numbering {
 public:
  uint32_t number(Key key) {
    const auto [entry, is_new] = known_.emplace(std::move(key), static_cast<uint32_t>(known_.size()));
    if (is_new) keys_.push_back(&entry->first);
    return entry->second;
  }
  const std::vector<const Key*>& keys() const { return keys_; }

 private:
  std::map<Key, uint32_t> known_;
  std::vector<const Key*> keys_;  // by number
};

bool binds_any(const Model& model) {
  const auto binds = [](const auto& element) { return !element.policies.empty(); };
  return std::any_of(model.policies.begin(), model.policies.end(),
                     [](const Policy& each) { return each.everywhere; }) ||
         std::any_of(model.listeners.begin(), model.listeners.end(),
                     [&](const Listener& each) { return each.default_deny || binds(each); }) ||
         std::any_of(model.routes.begin(), model.routes.end(), binds);
}

void add_new(Policies& to, const Policies& more) {
  for (const uint32_t policy : more) {
    if (std::find(to.begin(), to.end(), policy) == to.end()) to.push_back(policy);
  }
}

template <class List, class Same>
bool all_same(const List& a, const List& b, const Same& same) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!a.shares(i, b) && !same(a[i], b[i])) return false;
  }
  return true;
}

bool same_bindings(const Model& a, const Model& b) {
  return all_same(a.policies, b.policies,
                  [](const Policy& left, const Policy& right) { return left.everywhere == right.everywhere; }) &&
         all_same(a.listeners, b.listeners,
                  [](const Listener& left, const Listener& right) {
                    return left.default_deny == right.default_deny && left.policies == right.policies;
                  }) &&
         all_same(a.routes, b.routes,
                  [](const Route& left, const Route& right) { return left.policies == right.policies; });
}

}  // namespace

std::shared_ptr<const PolicyBindings> bind_policies(const Model& model, const Model* before,
                                                    const std::shared_ptr<const PolicyBindings>& previous) {
  if (before != nullptr && previous != nullptr && same_bindings(model, *before)) return previous;
  auto out = std::make_shared<PolicyBindings>();
  if (!binds_any(model)) return out;

  Numbering<std::pair<bool, Policies>> of_listeners;  // with default_deny
  Numbering<Policies> of_routes;
  for (const Listener& each : model.listeners) {
    out->set_of_listener.push_back(of_listeners.number({each.default_deny, each.policies}));
  }
  out->set_of_listener.push_back(of_listeners.number({false, {}}));
  out->set_of_route.reserve(model.routes.size() + 1);
  for (const Route& each : model.routes) out->set_of_route.push_back(of_routes.number(each.policies));
  out->set_of_route.push_back(of_routes.number({}));
  out->route_sets = of_routes.keys().size();

  Policies everywhere;
  for (uint32_t p = 0; p < model.policies.size(); ++p) {
    if (model.policies[p].everywhere) everywhere.push_back(p);
  }
  for (const auto* of_listener : of_listeners.keys()) {
    PolicyBindings::List on_every_route{everywhere, 0, of_listener->first};
    add_new(on_every_route.policies, of_listener->second);
    on_every_route.of_every_route = on_every_route.policies.size();
    for (const Policies* of_route : of_routes.keys()) {
      add_new(out->lists.emplace_back(on_every_route).policies, *of_route);
    }
  }
  return out;
}

}  // namespace tidegate::l7
