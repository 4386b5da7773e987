// SPDX-License-Identifier: Apache-2.0
#include "dns/steer/steer.h"

#include <algorithm>

#include "dns/steer/https_services.h"

namespace tidegate::dns {
namespace {

using Candidates = std::span<const Candidate>;

void take_usable(Candidates from, const Health& health, uint8_t needed, uint32_t limit, Choice& choice) {
  for (const Candidate& candidate : from) {
    if (choice.count == limit) return;
    if ((health[candidate.health] & needed) != 0) choice.picks[choice.count++] = &candidate;
  }
}

// The run of candidates that share `key`; the input is sorted by it.
template <class Key>
Candidates run_of(Candidates candidates, uint32_t value, Key key) {
  const auto begin = std::lower_bound(candidates.begin(), candidates.end(), value,
                                      [&](const Candidate& c, uint32_t v) { return c.*key < v; });
  auto end = begin;
  while (end != candidates.end() && (*end).*key == value) ++end;
  return {begin, end};
}

// Of a class, candidates that are as good as each other (a site, a rank of failover): those that are usable, drawn by
// their shares without replacement, so that a crowd spreads over them. One whose share is 0 comes when no other is
// left.
[[gnu::noinline]] void draw_by_share(Candidates from, const Health& health, uint8_t needed, uint32_t limit,
                                     const DrawKey& key, Choice& choice) {
  constexpr size_t kMaxDrawn = 256;  // of a larger class the first 256: an answer holds 32 at most
  std::array<const Candidate*, kMaxDrawn> usable;
  size_t count = 0;
  uint64_t total = 0;
  for (const Candidate& candidate : from) {
    if ((health[candidate.health] & needed) == 0 || count == kMaxDrawn) continue;
    usable[count++] = &candidate;
    total += candidate.weight;
  }
  Random random(key.seed());
  while (count > 0 && choice.count < limit) {
    size_t drawn = 0;
    if (count > 1 && total > 0) {
      for (uint64_t draw = random.below_wide(total); draw >= usable[drawn]->weight; ++drawn)
        draw -= usable[drawn]->weight;
    }
    const Candidate* const pick = usable[drawn];
    choice.picks[choice.count++] = pick;
    total -= pick->weight;
    std::copy(usable.begin() + static_cast<ptrdiff_t>(drawn) + 1, usable.begin() + static_cast<ptrdiff_t>(count),
              usable.begin() + static_cast<ptrdiff_t>(drawn));
    --count;
  }
}

inline void take_by_share(Candidates from, const Health& health, uint8_t needed, uint32_t limit, const DrawKey& key,
                          Choice& choice) {
  if (from.size() > 1) return draw_by_share(from, health, needed, limit, key, choice);
  take_usable(from, health, needed, limit, choice);
}

void choose_nearest(Candidates candidates, std::span<const uint32_t> site_order, const Health& health, uint8_t needed,
                    uint32_t limit, const DrawKey& key, Choice& choice) {
  for (const uint32_t site : site_order) {
    take_by_share(run_of(candidates, site, &Candidate::site), health, needed, limit, key, choice);
    if (choice.count != 0) return;
  }
  take_by_share(run_of(candidates, kNone, &Candidate::site), health, needed, limit, key, choice);
}

void choose_failover(Candidates candidates, const Health& health, uint8_t needed, uint32_t limit, const DrawKey& key,
                     Choice& choice) {
  for (size_t i = 0; i < candidates.size() && choice.count == 0;) {
    const Candidates run = run_of(candidates.subspan(i), candidates[i].target, &Candidate::target);
    take_by_share(run, health, needed, limit, key, choice);
    i += run.size();
  }
}

bool any_usable(Candidates candidates, const Health& health, uint8_t needed) {
  return std::any_of(candidates.begin(), candidates.end(),
                     [&](const Candidate& c) { return (health[c.health] & needed) != 0; });
}

// Of the drawn target: one address drawn by the backends' weights (of a VIP the first), then those after it in turn.
void take_from_target(Candidates run, const Health& health, uint8_t needed, uint32_t limit, Random& random,
                      Choice& choice) {
  uint32_t total = 0;
  for (const Candidate& c : run) total += (health[c.health] & needed) != 0 ? c.weight : 0;
  size_t first = 0;
  if (total != 0) {
    uint32_t draw = random.below(total);
    for (first = 0; first < run.size(); ++first) {
      const uint32_t weight = (health[run[first].health] & needed) != 0 ? run[first].weight : 0;
      if (draw < weight) break;
      draw -= weight;
    }
  }
  take_usable(run.subspan(first), health, needed, limit, choice);
  take_usable(run.first(first), health, needed, limit, choice);
}

// One target is drawn by weight among those that have a usable address.
void choose_weighted(const CompiledSteer& steer, Candidates candidates, const Health& health, uint8_t needed,
                     uint32_t limit, const DrawKey& key, Choice& choice) {
  uint32_t total = 0;
  const auto for_each_target = [&](auto&& fn) {
    for (size_t i = 0; i < candidates.size();) {
      const Candidates run = run_of(candidates.subspan(i), candidates[i].target, &Candidate::target);
      if (any_usable(run, health, needed) && !fn(run, steer.target_weights[run.front().target])) return;
      i += run.size();
    }
  };
  for_each_target([&](Candidates, uint32_t weight) {
    total += weight;
    return true;
  });
  if (total == 0) return;
  Random random(key.seed());
  uint32_t draw = random.below(total);
  for_each_target([&](Candidates run, uint32_t weight) {
    if (draw >= weight) {
      draw -= weight;
      return true;
    }
    take_from_target(run, health, needed, limit, random, choice);
    return false;
  });
}

// False: the steer has nothing for this family, whatever health says. A weight of 0 is never drawn.
bool can_ever_answer(const CompiledSteer& steer, Candidates candidates) {
  if (steer.policy != SteerPolicy::weighted) return !candidates.empty();
  return std::any_of(candidates.begin(), candidates.end(),
                     [&](const Candidate& c) { return steer.target_weights[c.target] != 0; });
}

void add_candidates(CompiledSteer& steer, const std::vector<IpAddress>& addresses, const Candidate& shape) {
  for (const IpAddress& address : addresses) {
    Candidate candidate = shape;
    candidate.address = address.bytes;
    (address.is_v4() ? steer.v4 : steer.v6).push_back(candidate);
  }
}

// `candidates` are sorted by target.
void share_out(const std::vector<uint32_t>& target_weights, std::vector<Candidate>& candidates) {
  constexpr uint64_t kScale = 4'096;  // so that a thousandth of a target is told apart
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

uint32_t site_of_backend(const Model& model, const Backend& backend) {
  return backend.node == kNone ? kNone : model.nodes[backend.node].site;
}

}  // namespace

HealthLayout::HealthLayout(const Model& model) {
  auto next = static_cast<uint32_t>(model.vips.size());
  for (const Pool& pool : model.pools) {
    first_of_pool_.push_back(next);
    next += static_cast<uint32_t>(pool.backends.size());
  }
}

CompiledSteer compile_steer(const Model& model, uint32_t steer_index, const HealthLayout& layout) {
  const Steer& steer = model.steers[steer_index];
  CompiledSteer compiled;
  compiled.model_index = steer_index;
  compiled.policy = steer.policy;
  compiled.all_down = steer.all_down;
  compiled.ttl_s = static_cast<uint32_t>(std::min<uint64_t>(steer.ttl_s, INT32_MAX));
  if (steer.https_record) compiled.https = https_services(model, steer.name);
  compiled.max_answers = std::clamp<uint32_t>(steer.max_answers, 1, kMaxAnswers);
  for (uint32_t t = 0; t < steer.targets.size(); ++t) {
    const SteerTarget& target = steer.targets[t];
    compiled.target_weights.push_back(target.weight);
    if (target.vip != kNone) {
      const Vip& vip = model.vips[target.vip];
      add_candidates(compiled, vip.addresses, Candidate{{}, layout.of_vip(target.vip), vip.site, t, 0});
      continue;
    }
    const Pool& pool = model.pools[target.pool];
    for (uint32_t b = 0; b < pool.backends.size(); ++b) {
      const Backend& backend = pool.backends[b];
      const uint32_t health = layout.of_backend(target.pool, b);
      add_candidates(compiled, backend.addresses,
                     Candidate{{}, health, site_of_backend(model, backend), t, backend.weight});
    }
  }
  if (steer.policy != SteerPolicy::weighted) {
    for (auto* family : {&compiled.v4, &compiled.v6}) share_out(compiled.target_weights, *family);
  }
  if (steer.policy == SteerPolicy::nearest) {
    const auto by_site = [](const Candidate& a, const Candidate& b) { return a.site < b.site; };
    std::stable_sort(compiled.v4.begin(), compiled.v4.end(), by_site);
    std::stable_sort(compiled.v6.begin(), compiled.v6.end(), by_site);
    compiled.one_place_v4 = compiled.v4.empty() || compiled.v4.front().site == compiled.v4.back().site;
    compiled.one_place_v6 = compiled.v6.empty() || compiled.v6.front().site == compiled.v6.back().site;
  }
  return compiled;
}

Health compile_health(const Snapshot& snapshot) {
  const Model& model = *snapshot.model;
  Health flags;
  for (uint32_t v = 0; v < model.vips.size(); ++v) {
    const uint32_t site = model.vips[v].site;
    const bool drained = site != kNone && snapshot.site_drained[site];
    flags.push_back(static_cast<uint8_t>((snapshot.vip_up[v] && !drained ? health::kUsable : 0) |
                                         (drained ? 0 : health::kFailOpen)));
  }
  for (uint32_t p = 0; p < model.pools.size(); ++p) {
    const Pool& pool = model.pools[p];
    for (uint32_t b = 0; b < pool.backends.size(); ++b) {
      const Backend& backend = pool.backends[b];
      const uint32_t site = site_of_backend(model, backend);
      const BackendStatus& status = snapshot.pools[p].backends[b];
      const bool open = backend.weight > 0 && !status.admin && !(site != kNone && snapshot.site_drained[site]);
      const bool up = open && snapshot.pools[p].up && status.state == BackendState::up;
      flags.push_back(static_cast<uint8_t>((up ? health::kUsable : 0) | (open ? health::kFailOpen : 0)));
    }
  }
  return flags;
}

std::vector<uint32_t> steered_sites(const Model& model) {
  std::vector<bool> used(model.sites.size(), false);
  const auto use = [&](uint32_t site) {
    if (site != kNone) used[site] = true;
  };
  for (const Steer& steer : model.steers) {
    if (steer.policy != SteerPolicy::nearest) continue;
    for (const SteerTarget& target : steer.targets) {
      if (target.vip != kNone) {
        use(model.vips[target.vip].site);
        continue;
      }
      for (const Backend& backend : model.pools[target.pool].backends) use(site_of_backend(model, backend));
    }
  }
  for (const uint32_t vip : model.httpdns_service) use(model.vips[vip].site);
  std::vector<uint32_t> sites;
  for (uint32_t s = 0; s < used.size(); ++s) {
    if (used[s]) sites.push_back(s);
  }
  return sites;
}

Choice choose(const CompiledSteer& steer, IpAddress::Family family, std::span<const uint32_t> site_order,
              const Health& health, const DrawKey& key) {
  const Candidates candidates = steer.of(family);
  Choice choice;
  const auto attempt = [&](uint8_t needed) {
    switch (steer.policy) {
      case SteerPolicy::nearest:
        if (!steer.depends_on_place(family)) {
          take_by_share(candidates, health, needed, steer.max_answers, key, choice);
          break;
        }
        choose_nearest(candidates, site_order, health, needed, steer.max_answers, key, choice);
        break;
      case SteerPolicy::weighted:
        choose_weighted(steer, candidates, health, needed, steer.max_answers, key, choice);
        break;
      case SteerPolicy::failover:
        choose_failover(candidates, health, needed, steer.max_answers, key, choice);
        break;
    }
  };
  attempt(health::kUsable);
  if (choice.count == 0 && steer.all_down == AllDown::open) {
    attempt(health::kFailOpen);
    choice.failed_open = choice.count != 0;
  }
  choice.refused = choice.count == 0 && can_ever_answer(steer, candidates);
  return choice;
}

}  // namespace tidegate::dns
