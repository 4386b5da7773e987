// SPDX-License-Identifier: Apache-2.0
#include "l7/plan/description.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "conf/model/certificate.h"
#include "conf/model/listener.h"
#include "conf/model/policy.h"
#include "conf/model/pool.h"
#include "conf/model/route.h"

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
    if (is_new) out.labelled_pools.push_back({route.pool(), std::move(labels), nullptr});
  }
}

// Whether the tables of a pool follow from the same facts in both. The hash key is the process's.
bool same_facts(const Description& a, const Description& b, uint32_t pool) {
  const Model &left = a.model(), &right = b.model();
  if (!left.pools.shares(pool, right.pools)) return false;
  const Pool& config = right.pools[pool];
  const bool has_names = std::any_of(config.backends.begin(), config.backends.end(),
                                     [](const Backend& each) { return !name_key(each).empty(); });
  if (has_names && a.names != b.names) return false;
  if (config.prefer_site && a.this_node().site != b.this_node().site) return false;
  for (uint32_t i = 0; i < config.backends.size(); ++i) {
    if (a.snapshot->usable(pool, i) != b.snapshot->usable(pool, i)) return false;
  }
  return true;
}

void make_pool_tables(Description& out, const Description* previous) {
  const uint32_t site = out.this_node().site;
  std::vector<bool> kept(out.model().pools.size());
  for (uint32_t p = 0; p < kept.size(); ++p) {
    kept[p] = previous != nullptr && same_facts(*previous, out, p);
    out.tables.push_back(kept[p] ? previous->tables[p]
                                 : std::make_shared<const PoolTables>(make_tables(
                                       *out.snapshot, p, out.hash_key, PoolShape{site, {}, out.names.get()})));
  }
  for (size_t i = 0; i < out.labelled_pools.size(); ++i) {
    LabelledPool& each = out.labelled_pools[i];
    const LabelledPool* const before =
        previous != nullptr && i < previous->labelled_pools.size() ? &previous->labelled_pools[i] : nullptr;
    const bool same =
        before != nullptr && kept[each.pool] && before->pool == each.pool && before->labels == each.labels;
    each.tables = same ? before->tables
                       : std::make_shared<const PoolTables>(make_tables(*out.snapshot, each.pool, out.hash_key,
                                                                        PoolShape{site, each.labels, out.names.get()}));
  }
}

Result<void> read_policies(Description& out, const Description* previous) {
  const Model& model = out.model();
  out.policy_contents.reserve(model.policies.size());
  for (size_t p = 0; p < model.policies.size(); ++p) {
    if (previous != nullptr && model.policies.shares(p, previous->model().policies)) {
      out.policy_contents.push_back(previous->policy_contents[p]);
      continue;
    }
    Result<std::shared_ptr<const PolicyContent>> content = read_content(model.policies[p]);
    if (!content) return fail(fmt::format("policy {}: {}", model.policies[p].name, content.error().message));
    out.policy_contents.push_back(*std::move(content));
  }
  return {};
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
  if (Result<void> read = read_policies(out, previous); !read) return read.error();
  out.policy_bindings = bind_policies(model, previous == nullptr ? nullptr : &previous->model(),
                                      previous == nullptr ? nullptr : previous->policy_bindings);
  find_labelled_pools(out);
  make_pool_tables(out, previous);
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
