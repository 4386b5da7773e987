// SPDX-License-Identifier: Apache-2.0
// Cross checks of steers and their targets.
#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "conf/checks.h"
#include "conf/limits.h"
#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/pool.h"
#include "conf/model/site.h"
#include "conf/model/steer.h"
#include "conf/model/zone.h"
#include "conf/names.h"
#include "core/assert.h"

namespace tidegate {
namespace {

// True if `name`, or a name above it, is one of the zones. All have the final dot and are in lower case.
bool is_within(std::string_view name, const std::unordered_set<std::string_view>& zones) {
  if (zones.contains(".")) return true;
  while (!name.empty()) {
    if (zones.contains(name)) return true;
    const size_t dot = name.find('.');
    name.remove_prefix(dot == std::string_view::npos ? name.size() : dot + 1);
  }
  return false;
}

void check_steer_is_in_a_zone(Checks& checks, size_t s, const std::unordered_set<std::string_view>& names) {
  const Model& model = checks.model();
  const std::string& name = model.steers[s].name;
  if (name.empty() || is_within(name, names)) return;
  // If the name of a zone is faulty, the author may have meant that zone.
  if (names.contains("") || !checks.sound({"zones"})) return;
  std::vector<std::string_view> zones;
  for (const Zone& zone : model.zones) zones.push_back(zone.name);
  checks.refuse({"steers", s, "name"}, {"outside_zones",
                                        fmt::format("{} is in none of the zones", in_quotes(name)),
                                        {},
                                        zones.empty() ? "there are no zones in this document"
                                                      : fmt::format("the zones are {}", fmt::join(zones, ", "))});
}

constexpr std::string_view kTargetTypes[] = {"vip", "pool", "steer", "alias"};

std::string_view key_of(const SteerTarget& target) {
  return target.what.index() == 0 ? std::string_view() : kTargetTypes[target.what.index() - 1];
}

// Which sites have a location, or would have one if they had no fault. They are computed once, because thousands of
// targets need them.
std::vector<bool> sites_with_location(Checks& checks) {
  std::vector<bool> out;
  for (size_t site = 0; site < checks.model().sites.size(); ++site) {
    out.push_back(checks.written({"sites", site, "location"}) || !checks.sound({"sites", site}));
  }
  return out;
}

// `nearest` and `shed` compare distances, so every target needs a location. A pool's backends have the locations of
// their nodes.
void check_target_has_place(Checks& checks, size_t s, size_t t, const std::vector<bool>& has_location) {
  const Model& model = checks.model();
  const Steer& steer = model.steers[s];
  const SteerTarget& target = steer.targets[t];
  if (target.site != kNone && (target.vip() != kNone || target.pool() != kNone)) {
    checks.refuse({"steers", s, "targets", t, "site"}, {"without_effect",
                                                        fmt::format("a {} has its site already", key_of(target)),
                                                        {},
                                                        "a target of type steer or alias has a site"});
    return;
  }
  if (!goes_by_distance(steer.policy) || steer.targets.size() < 2 || target.pool() != kNone) return;
  if (target.vip() != kNone && !checks.sound({"vips", target.vip()})) return;
  const uint32_t site = target.vip() != kNone ? model.vips[target.vip()].site : target.site;
  if (site != kNone && has_location[site]) return;
  const std::string label = target_label(model, target);
  const std::string hint =
      site != kNone
          ? fmt::format("give site '{}' a location{}", model.sites[site].name, checks.line_of({"sites", site}))
      : target.vip() != kNone ? fmt::format("give it a site{}", checks.line_of({"vips", target.vip()}))
                              : std::string("give it a site");
  checks.refuse({"steers", s, "targets", t, key_of(target)},
                {"missing_place",
                 fmt::format("{} '{}' has no place to measure the distance to", key_of(target),
                             label.substr(label.find(':') + 1)),
                 {},
                 hint});
}

bool is_upper_or_digit(char c) { return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }
bool is_country(std::string_view text) {
  return text.size() == 2 && text[0] >= 'A' && text[0] <= 'Z' && text[1] >= 'A' && text[1] <= 'Z';
}
bool is_region(std::string_view text) {
  return text.size() > 3 && is_country(text.substr(0, 2)) && text[2] == '-' &&
         std::all_of(text.begin() + 3, text.end(), is_upper_or_digit);
}
bool is_continent(std::string_view text) {
  constexpr std::string_view kContinents[] = {"AF", "AN", "AS", "EU", "NA", "OC", "SA"};
  return std::find(std::begin(kContinents), std::end(kContinents), text) != std::end(kContinents);
}

void check_codes(Checks& checks, size_t s, size_t t, std::string_view key, const std::vector<std::string>& codes,
                 bool (*is_code)(std::string_view), const char* expected) {
  for (size_t i = 0; i < codes.size(); ++i) {
    if (is_code(codes[i])) continue;
    checks.refuse({"steers", s, "targets", t, key, i},
                  {"bad_value", fmt::format("{} is not one of {}", in_quotes(codes[i]), key), expected, {}});
  }
}

void check_clients(Checks& checks, size_t s, size_t t) {
  const Steer& steer = checks.model().steers[s];
  const TargetClients& clients = steer.targets[t].clients;
  if (clients.empty()) return;
  if (steer.policy != SteerPolicy::map) {
    checks.refuse({"steers", s, "targets", t}, {"without_effect",
                                                "the target names clients, which only the policy 'map' looks at",
                                                {},
                                                "write 'policy: map', or nest a steer of that policy"});
    return;
  }
  check_codes(checks, s, t, "countries", clients.countries, is_country, "two capital letters (ISO 3166-1), like US");
  check_codes(checks, s, t, "regions", clients.regions, is_region, "a code of ISO 3166-2, like US-CA");
  check_codes(checks, s, t, "continents", clients.continents, is_continent, "one of AF, AN, AS, EU, NA, OC and SA");
  for (size_t n = 0; n < clients.networks.size(); ++n) {
    if (auto complaint = complaint_of_carried_ipv4(clients.networks[n])) {
      checks.refuse({"steers", s, "targets", t, "networks", n}, *std::move(complaint));
    }
  }
}

// Returns false if the target has no type, or several.
bool check_type(Checks& checks, const DocumentNode& target, size_t s, size_t t) {
  std::vector<std::string_view> written;
  for (const std::string_view key : kTargetTypes) {
    if (target.find(key) != nullptr) written.push_back(key);
  }
  if (written.size() == 1) return true;
  checks.refuse({"steers", s, "targets", t},
                {"exactly_one",
                 written.empty() ? "a target has neither a vip nor a pool, steer or alias"
                                 : fmt::format("a target has both a {} and a {}", written[0], written[1]),
                 "one of vip, pool, steer and alias",
                 {}});
  return false;
}

// A lookup of an alias within our own zones would come back to us.
void check_alias(Checks& checks, size_t s, size_t t) {
  const Model& model = checks.model();
  const auto* alias = std::get_if<TargetAlias>(&model.steers[s].targets[t].what);
  if (alias == nullptr) return;
  const bool ours = std::any_of(model.steers.begin(), model.steers.end(),
                                [&](const Steer& steer) { return steer.name == alias->name; });
  if (!ours) return;
  checks.refuse({"steers", s, "targets", t, "alias"},
                {"without_effect",
                 fmt::format("{} is a steer of this document", in_quotes(alias->name)),
                 {},
                 "write 'steer' instead of 'alias'"});
}

void check_targets(Checks& checks, size_t s, const std::vector<bool>& has_location) {
  const std::vector<SteerTarget>& targets = checks.model().steers[s].targets;
  const DocumentNode* const written = checks.find({"steers", s, "targets"});
  TIDEGATE_ASSERT(targets.empty() || (written != nullptr && written->children.size() == targets.size()),
                  "the model's targets are those of the document");
  for (size_t t = 0; t < targets.size(); ++t) {
    if (!checks.sound({"steers", s, "targets", t}) || !check_type(checks, written->children[t], s, t)) continue;
    for (size_t other = 0; other < t; ++other) {
      if (targets[other].what != targets[t].what) continue;
      const std::string_view key = key_of(targets[t]);
      checks.refuse({"steers", s, "targets", t, key}, {"duplicate_name",
                                                       fmt::format("this {} is a target twice", key),
                                                       {},
                                                       fmt::format("the first is target {}{}", other + 1,
                                                                   checks.line_of({"steers", s, "targets", other}))});
      break;
    }
    check_target_has_place(checks, s, t, has_location);
    check_clients(checks, s, t);
    check_alias(checks, s, t);
  }
}

// A weight of 0 is never drawn. If all weights are 0, the name would have no address at all.
void check_some_weight(Checks& checks, size_t s) {
  const Steer& steer = checks.model().steers[s];
  if ((steer.policy != SteerPolicy::weighted && steer.policy != SteerPolicy::sticky) || steer.targets.empty()) return;
  if (!checks.sound({"steers", s, "targets"})) return;
  const bool all_zero =
      std::all_of(steer.targets.begin(), steer.targets.end(), [](const SteerTarget& t) { return t.weight == 0; });
  if (!all_zero) return;
  checks.refuse({"steers", s, "targets"}, {"without_effect", "every target has weight 0, so none is ever drawn",
                                           "a weight above 0", "to take all targets out, drain their sites or pools"});
}

void check_https_record(Checks& checks, size_t s) {
  const Model& model = checks.model();
  if (!model.steers[s].https_record || !checks.sound({"listeners"})) return;
  const bool any_tls = std::any_of(model.listeners.begin(), model.listeners.end(),
                                   [](const Listener& listener) { return listener.tls.enabled; });
  if (any_tls) return;
  checks.refuse({"steers", s, "https_record"},
                {"without_effect", "no listener of this document ends TLS, so there is nothing to tell", {}, {}});
}

// The steers from the inside out: each one comes after all steers that it leads to. Steers in a cycle, or that lead to
// one, are left out.
std::vector<uint32_t> from_the_inside(const Model& model) {
  const size_t count = model.steers.size();
  std::vector<uint32_t> open(count, 0);  // targets that are not in the order yet
  std::vector<std::vector<uint32_t>> outer(count);
  for (uint32_t s = 0; s < count; ++s) {
    for (const SteerTarget& target : model.steers[s].targets) {
      if (target.steer() == kNone) continue;
      ++open[s];
      outer[target.steer()].push_back(s);
    }
  }
  std::vector<uint32_t> order;
  for (uint32_t s = 0; s < count; ++s) {
    if (open[s] == 0) order.push_back(s);
  }
  for (size_t i = 0; i < order.size(); ++i) {
    for (const uint32_t s : outer[order[i]]) {
      if (--open[s] == 0) order.push_back(s);
    }
  }
  return order;
}

// True if `from` leads to itself. The walk sees each steer once.
bool is_in_a_cycle(const Model& model, uint32_t from) {
  std::vector<bool> seen(model.steers.size(), false);
  std::vector<uint32_t> open{from};
  while (!open.empty()) {
    const uint32_t s = open.back();
    open.pop_back();
    for (const SteerTarget& target : model.steers[s].targets) {
      if (target.steer() == from) return true;
      if (target.steer() == kNone || seen[target.steer()]) continue;
      seen[target.steer()] = true;
      open.push_back(target.steer());
    }
  }
  return false;
}

void check_nesting(Checks& checks) {
  const Model& model = checks.model();
  if (!checks.sound({"steers"}) || !checks.sound({"pools"})) return;
  const std::vector<uint32_t> order = from_the_inside(model);
  std::vector<uint32_t> levels(model.steers.size(), 0);
  std::vector<uint64_t> reach(model.steers.size(), 0);
  for (const uint32_t s : order) {
    const Steer& steer = model.steers[s];
    levels[s] = 1;
    bool nested = false;
    for (const SteerTarget& target : steer.targets) {
      const bool leads_on = target.steer() != kNone;
      nested = nested || leads_on;
      levels[s] = std::max(levels[s], leads_on ? levels[target.steer()] + 1 : 1);
      reach[s] += leads_on                 ? reach[target.steer()]
                  : target.pool() != kNone ? model.pools[target.pool()].backends.size()
                                           : 1;
    }
    if (!nested || (levels[s] <= kMaxSteerLevels && reach[s] <= kMaxSteerReach)) continue;
    checks.refuse(
        {"steers", s, "targets"},
        {"too_many",
         levels[s] > kMaxSteerLevels ? fmt::format("steers stand {} levels deep in each other", levels[s])
                                     : fmt::format("{} addresses are reached through nested steers", reach[s]),
         fmt::format("at most {} levels and {} addresses", kMaxSteerLevels, kMaxSteerReach),
         {}});
    if (checks.full()) return;
    levels[s] = 1;  // one fault for the cycle, not one for each steer around it
    reach[s] = 1;
  }
  if (order.size() == model.steers.size()) return;
  std::vector<bool> settled(model.steers.size(), false);
  for (const uint32_t s : order) settled[s] = true;
  constexpr size_t kMaxReported = 16;
  size_t reported = 0;
  for (uint32_t s = 0; s < model.steers.size() && reported < kMaxReported; ++s) {
    if (settled[s] || !is_in_a_cycle(model, s)) continue;
    ++reported;
    for (size_t t = 0; t < model.steers[s].targets.size(); ++t) {
      const uint32_t next = model.steers[s].targets[t].steer();
      if (next == kNone || settled[next]) continue;
      checks.refuse(
          {"steers", s, "targets", t, "steer"},
          {"cycle",
           next == s ? "the steer is a target of itself"
                     : fmt::format("through {} the steer leads back to itself", in_quotes(model.steers[next].name)),
           {},
           {}});
      break;
    }
  }
}

}  // namespace

void check_steers(Checks& checks) {
  std::unordered_set<std::string_view> names;
  for (const Zone& zone : checks.model().zones) names.insert(zone.name);
  const std::vector<bool> has_location = sites_with_location(checks);
  for (size_t s = 0; s < checks.model().steers.size() && !checks.full(); ++s) {
    check_steer_is_in_a_zone(checks, s, names);
    check_targets(checks, s, has_location);
    check_some_weight(checks, s);
    check_https_record(checks, s);
  }
  check_nesting(checks);
}

}  // namespace tidegate
