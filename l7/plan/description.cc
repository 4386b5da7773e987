// SPDX-License-Identifier: Apache-2.0
#include "l7/plan/description.h"

#include <algorithm>
#include <map>
#include <utility>

namespace tidegate::l7 {
namespace {

// Routes with the same pool and labels share one subset.
void find_labelled_pools(Description& out) {
  const Model& model = out.model();
  std::map<std::pair<uint32_t, std::vector<std::string>>, uint32_t> known;
  out.subset_of_route.assign(model.routes.size(), kNone);
  for (size_t r = 0; r < model.routes.size(); ++r) {
    const Route& route = model.routes[r];
    if (route.pool() == kNone || route.labels.empty()) continue;
    std::vector<std::string> labels = route.labels;
    std::sort(labels.begin(), labels.end());
    const auto [entry, is_new] =
        known.emplace(std::pair(route.pool(), labels), static_cast<uint32_t>(out.labelled_pools.size()));
    out.subset_of_route[r] = entry->second;
    if (is_new) out.labelled_pools.push_back({route.pool(), std::move(labels)});
  }
}

}  // namespace

Result<Description> describe(const DescriptionInputs& inputs, const Description* previous) {
  Description out;
  out.snapshot = inputs.snapshot;
  out.node = inputs.node;
  out.hash_key = inputs.hash_key;
  out.names = inputs.names;
  const Model& model = out.model();
  const bool same_model = previous != nullptr && previous->snapshot->configured == inputs.snapshot->configured;
  out.router = same_model ? previous->router
                          : std::make_shared<const Router>(inputs.snapshot->configured, inputs.router_key,
                                                           previous == nullptr ? nullptr : previous->router.get());
  if (!out.router->fault().empty()) return fail(out.router->fault());
  find_labelled_pools(out);
  out.certificates = served_certificates(*out.snapshot, previous == nullptr ? nullptr : &previous->model(),
                                         previous == nullptr ? nullptr : &previous->certificates);
  out.acme_identities =
      acme_identities(*out.snapshot->live_state, previous == nullptr ? nullptr : &previous->acme_identities);
  out.acme_answers = acme_answers(*out.snapshot->live_state);
  const uint32_t site = out.this_node().site;
  for (uint32_t i = 0; i < model.listeners.size(); ++i) {
    if (model.listeners[i].site == kNone || model.listeners[i].site == site) out.listeners.push_back(i);
  }
  return out;
}

}  // namespace tidegate::l7
