// SPDX-License-Identifier: Apache-2.0
#include "dns/steer/steer.h"

#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/site.h"
#include "core/assert.h"
#include "core/hash.h"
#include "dns/limits.h"
#include "dns/steer/https_services.h"

namespace tidegate::dns {

uint64_t hash_of_text(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3ULL;
  return mix64(hash);
}

namespace {

uint32_t site_of_backend(const Model& model, const Backend& backend) {
  return backend.node == kNone ? kNone : model.nodes[backend.node].site;
}

void add_addresses(CompiledSteer& steer, const std::vector<IpAddress>& addresses, const Candidate& shape) {
  uint64_t seen_v4 = 0, seen_v6 = 0;
  for (const IpAddress& address : addresses) {
    Candidate candidate = shape;
    candidate.address = address.bytes;
    // The first address of each family has the identity of its owner.
    if (const uint64_t nth = address.is_v4() ? seen_v4++ : seen_v6++; nth != 0) candidate.identity ^= mix64(nth);
    (address.is_v4() ? steer.v4 : steer.v6).candidates.push_back(candidate);
  }
}

// Adds a target that is a steer or an alias. It may have addresses of both families.
void add_lead(CompiledSteer& steer, Candidate shape, Candidate::Kind kind, uint32_t led_to) {
  shape.kind = kind;
  shape.led_to = led_to;
  shape.health = shape.target_health;
  steer.leads_on = true;
  steer.v4.candidates.push_back(shape);
  steer.v6.candidates.push_back(shape);
}

// Divides each target's weight among its candidates, which are sorted by target.
void share_out(const std::vector<uint32_t>& target_weights, std::vector<Candidate>& candidates) {
  constexpr uint64_t kScale = 4'096;  // so that a thousandth of a target can be represented
  for (size_t i = 0; i < candidates.size();) {
    const size_t begin = i;
    uint64_t total = 0;
    for (; i < candidates.size() && candidates[i].target == candidates[begin].target; ++i)
      total += candidates[i].weight;
    const uint64_t whole = target_weights[candidates[begin].target] * kScale;
    for (size_t k = begin; k < i; ++k) {
      const uint64_t share = total == 0 ? whole / (i - begin) : whole * candidates[k].weight / total;
      candidates[k].weight = static_cast<uint32_t>(share);
    }
  }
}

void add_candidates(CompiledSteer& compiled, const Model& model, const HealthLayout& layout,
                    const std::vector<std::string>& aliases) {
  const Steer& steer = model.steers[compiled.model_index];
  for (uint32_t t = 0; t < steer.targets.size(); ++t) {
    const SteerTarget& target = steer.targets[t];
    const std::string label = target_label(model, target);
    Candidate shape;
    shape.target = t;
    shape.target_health = layout.of_target(compiled.model_index, t);
    shape.weight = 1;
    shape.identity = hash_of_text(label);
    shape.site = target.site;
    if (target.vip() != kNone) {
      const Vip& vip = model.vips[target.vip()];
      shape.health = layout.of_vip(target.vip());
      shape.site = vip.site;
      add_addresses(compiled, vip.addresses, shape);
    } else if (target.steer() != kNone) {
      add_lead(compiled, shape, Candidate::Kind::steer, target.steer());
    } else if (const auto* alias = std::get_if<TargetAlias>(&target.what)) {
      const auto at = std::lower_bound(aliases.begin(), aliases.end(), alias->name);
      TIDEGATE_ASSERT(at != aliases.end() && *at == alias->name, "the list holds every alias of the model");
      add_lead(compiled, shape, Candidate::Kind::alias, static_cast<uint32_t>(at - aliases.begin()));
    } else {
      const Pool& pool = model.pools[target.pool()];
      for (uint32_t b = 0; b < pool.backends.size(); ++b) {
        const Backend& backend = pool.backends[b];
        shape.health = layout.of_backend(target.pool(), b);
        shape.site = site_of_backend(model, backend);
        shape.weight = backend.weight;
        shape.identity = hash_of_text(label + "/" + backend.name);
        add_addresses(compiled, backend.addresses, shape);
      }
    }
  }
}

uint32_t class_of(SteerPolicy policy, const Candidate& candidate) {
  switch (policy) {
    case SteerPolicy::nearest:
    case SteerPolicy::shed:
      return candidate.site;
    case SteerPolicy::sticky:
    case SteerPolicy::multivalue:
      return 0;
    case SteerPolicy::weighted:
    case SteerPolicy::failover:
    case SteerPolicy::map:
      break;
  }
  return candidate.target;
}

void make_classes(SteerPolicy policy, CompiledSteer::Family& family) {
  std::vector<Candidate>& candidates = family.candidates;
  std::stable_sort(candidates.begin(), candidates.end(),
                   [&](const Candidate& a, const Candidate& b) { return class_of(policy, a) < class_of(policy, b); });
  for (uint32_t i = 0; i < candidates.size(); ++i) {
    const uint32_t key = class_of(policy, candidates[i]);
    if (family.classes.empty() || family.classes.back().key != key) family.classes.push_back({key, i, i});
    family.classes.back().end = i + 1;
  }
}

// Policies by distance need a ranking only if candidates are at several sites. Otherwise the client's place does not
// matter.
void ask_for_ranking(const Steer& steer, CompiledSteer::Family& family, RankingIndex& rankings) {
  if (steer.policy == SteerPolicy::map && !family.classes.empty()) family.ranking = rankings.of_clients(steer.targets);
  if (!goes_by_distance(steer.policy)) return;
  std::vector<uint32_t> sites;
  for (const CandidateClass& each : family.classes) {
    if (each.key != kNone) sites.push_back(each.key);
  }
  if (sites.size() > 1) family.ranking = rankings.of_sites(std::move(sites));
}

}  // namespace

std::vector<std::string> alias_names(const Model& model) {
  std::vector<std::string> names;
  for (const Steer& steer : model.steers) {
    for (const SteerTarget& target : steer.targets) {
      if (const auto* alias = std::get_if<TargetAlias>(&target.what)) names.push_back(alias->name);
    }
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

CompiledSteer compile_steer(const Model& model, uint32_t steer_index, const HealthLayout& layout,
                            const std::vector<std::string>& aliases, RankingIndex& rankings) {
  const Steer& steer = model.steers[steer_index];
  CompiledSteer compiled;
  compiled.model_index = steer_index;
  compiled.policy = steer.policy;
  compiled.all_down = steer.all_down;
  compiled.ttl_s = static_cast<uint32_t>(std::min<uint64_t>(steer.ttl_s, INT32_MAX));
  compiled.client_prefix_v4 = steer.client_prefix_v4;
  compiled.client_prefix_v6 = steer.client_prefix_v6;
  compiled.name_hash = hash_of_text(steer.name);
  if (steer.https_record) compiled.https = https_services(model, steer.name);
  compiled.max_answers = std::clamp<uint32_t>(steer.max_answers, 1, kMaxAnswers);
  for (const SteerTarget& target : steer.targets) compiled.target_weights.push_back(target.weight);
  add_candidates(compiled, model, layout, aliases);
  for (auto* family : {&compiled.v4, &compiled.v6}) {
    if (steer.policy != SteerPolicy::weighted) share_out(compiled.target_weights, family->candidates);
    make_classes(steer.policy, *family);
    ask_for_ranking(steer, *family, rankings);
  }
  return compiled;
}

std::vector<uint32_t> steered_sites(const Model& model) {
  std::vector<bool> used(model.sites.size(), false);
  const auto use = [&](uint32_t site) {
    if (site != kNone) used[site] = true;
  };
  for (const Steer& steer : model.steers) {
    if (!goes_by_distance(steer.policy)) continue;
    for (const SteerTarget& target : steer.targets) {
      use(target.site);
      if (target.vip() != kNone) use(model.vips[target.vip()].site);
      if (target.pool() == kNone) continue;
      for (const Backend& backend : model.pools[target.pool()].backends) use(site_of_backend(model, backend));
    }
  }
  for (const uint32_t vip : model.httpdns_service) use(model.vips[vip].site);
  std::vector<uint32_t> sites;
  for (uint32_t s = 0; s < used.size(); ++s) {
    if (used[s]) sites.push_back(s);
  }
  return sites;
}

}  // namespace tidegate::dns
