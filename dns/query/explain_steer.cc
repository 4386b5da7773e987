// SPDX-License-Identifier: Apache-2.0
#include "dns/query/explain_steer.h"

#include <fmt/format.h>

#include <cmath>
#include <string>

#include "conf/found_backends.h"
#include "conf/model/pool.h"
#include "conf/model/service.h"
#include "conf/plane_health.h"
#include "core/assert.h"
#include "dns/wire/outcome.h"

namespace tidegate::dns {

const char* name_of(SteerPolicy policy) {
  switch (policy) {
    case SteerPolicy::nearest:
      return "nearest";
    case SteerPolicy::weighted:
      return "weighted";
    case SteerPolicy::failover:
      return "failover";
    case SteerPolicy::map:
      return "map";
    case SteerPolicy::sticky:
      return "sticky";
    case SteerPolicy::multivalue:
      return "multivalue";
    case SteerPolicy::shed:
      return "shed";
  }
  return "?";
}

const char* reason_of(SteerPolicy policy) {
  switch (policy) {
    case SteerPolicy::nearest:
      return "the nearest site that has a usable target";
    case SteerPolicy::weighted:
      return "a target drawn by weight for the client's network, until the next draw";
    case SteerPolicy::failover:
      return "the first target in order that is usable";
    case SteerPolicy::map:
      return "the closest target for the client's network that is usable";
    case SteerPolicy::sticky:
      return "the target that the client's network keeps while it is usable";
    case SteerPolicy::multivalue:
      return "every usable target, in an order drawn for the client's network";
    case SteerPolicy::shed:
      return "the nearest site that has a usable target and does not send the client's network on";
  }
  return "?";
}

nlohmann::json site_name(const Model& model, uint32_t site) {
  return site == kNone ? nlohmann::json() : nlohmann::json(model.sites[site].name);
}

namespace {

using Json = nlohmann::json;

// "sheds 30 % of its clients, decided at a load of 91 %". Empty if the site sheds nothing, or the steer does not use
// it.
std::string shed_text(uint32_t site, const CompiledSteer& steer, const Tables& tables) {
  if (steer.policy != SteerPolicy::shed || site == kNone || tables.shares.empty()) return {};
  if (tables.shares[site].below == 0) return {};
  return fmt::format("sheds {:.1f} % of its clients, decided at a load of {} %",
                     (1'000 - tables.shares[site].kept_permille) / 10.0, tables.snapshot->loads[site].load_percent);
}

// "steer/inner.example.test"
std::string label_of(const Model& model, const SteerTarget& target) {
  std::string label = target_label(model, target);
  label[label.find(':')] = '/';
  return label;
}

std::string vip_trouble(const Snapshot& snapshot, uint32_t vip) {
  const Model& model = *snapshot.model;
  const uint32_t site = model.vips[vip].site;
  if (site != kNone && snapshot.site_drained[site]) return "site " + model.sites[site].name + " is drained";
  if (const std::string trouble = forwarder_trouble(snapshot, Forwarders(model), vip); !trouble.empty()) return trouble;
  if (snapshot.vip_drained[vip]) return "the vip is drained";
  for (const Service& service : model.services) {
    if (service.vip == vip && !snapshot.pools[service.pool].up) {
      return fmt::format("service {}: pool {} is down", service.name, model.pools[service.pool].name);
    }
  }
  return {};
}

Json tell_candidate(const Candidate& candidate, IpAddress::Family family, const CompiledSteer& compiled,
                    const std::optional<Location>& from, const Tables& tables) {
  const Model& model = *tables.authority->model;
  const Snapshot& snapshot = *tables.snapshot;
  const SteerTarget& target = model.steers[compiled.model_index].targets[candidate.target];
  IpAddress address;
  address.family = family;
  address.bytes = candidate.address;
  const uint8_t of_target = tables.health[candidate.target_health];
  const uint8_t flags = tables.health[candidate.health] & of_target;
  Json told{{"target", label_of(model, target)},
            {"address", candidate.kind == Candidate::Kind::address ? Json(address.to_string()) : Json()},
            {"site", site_name(model, candidate.site)},
            {"distance_km", nullptr},
            {"weight", compiled.target_weights[candidate.target]},
            {"state", (flags & health::kUsable) != 0     ? "up"
                      : (flags & health::kFailOpen) != 0 ? "down"
                                                         : "drained"},
            {"why", ""}};
  if (from && candidate.site != kNone) {
    told["distance_km"] = std::round(distance_km(*from, model.sites[candidate.site].location));
  }
  if (of_target == 0) {
    told["why"] = "the target is drained";
    return told;
  }
  if (candidate.kind == Candidate::Kind::alias) {
    const AliasAddresses::Of& alias = tables.aliases[candidate.led_to].of(family);
    told["why"] = !alias.known ? "not looked up yet" : alias.addresses.empty() ? "the name has no addresses" : "";
    told["addresses"] = Json::array();
    for (const auto& bytes : alias.addresses) {
      address.bytes = bytes;
      told["addresses"].push_back(address.to_string());
    }
  }
  if (const std::string shed = shed_text(candidate.site, compiled, tables); !shed.empty()) told["why"] = shed;
  if (candidate.kind != Candidate::Kind::address) return told;
  if (target.vip() != kNone) {
    if (const std::string trouble = vip_trouble(snapshot, target.vip()); !trouble.empty()) told["why"] = trouble;
    return told;
  }
  const uint32_t pool = target.pool();
  const uint32_t backend = candidate.health - HealthLayout(model).of_backend(pool, 0);
  told["backend"] = model.pools[pool].backends[backend].name;
  const BackendStatus& status = snapshot.pools[pool].backends[backend];
  if (!status.why.empty()) told["why"] = status.why;
  if (status.why.empty() && is_on_standby(snapshot, pool, backend)) told["why"] = kStandbyWhy;
  if (status.why.empty() && !snapshot.pools[pool].up) told["why"] = "pool " + model.pools[pool].name + " is down";
  return told;
}

std::string name_without_dot(const Model& model, uint32_t steer) {
  const std::string& name = model.steers[steer].name;
  return name.substr(0, name.size() - 1);
}

}  // namespace

Json tell_candidates(const CompiledSteer& steer, IpAddress::Family family, const std::optional<Location>& from,
                     const Tables& tables) {
  Json told = Json::array();
  for (const Candidate& candidate : steer.of(family).candidates) {
    told.push_back(tell_candidate(candidate, family, steer, from, tables));
  }
  return told;
}

Json tell_steps(const std::vector<ChoiceStep>& steps, IpAddress::Family family, const std::optional<Location>& from,
                const Tables& tables) {
  const Model& model = *tables.authority->model;
  Json told = Json::array();
  std::vector<uint32_t> open;  // the steers to which the step belongs, outermost first
  bool anyway = false;
  for (const ChoiceStep& step : steps) {
    Json line{{"level", step.level}};
    std::string text;
    switch (step.kind) {
      case ChoiceStep::Kind::steer: {
        open.resize(step.level);
        open.push_back(step.steer);
        const CompiledSteer& steer = tables.authority->steers[step.steer];
        line["steer"] = model.steers[step.steer].name;
        line["policy"] = name_of(steer.policy);
        if (step.level != 0) line["candidates"] = tell_candidates(steer, family, from, tables);
        text = fmt::format("{} ({}): {}", name_without_dot(model, step.steer), name_of(steer.policy),
                           reason_of(steer.policy));
        if (step.anyway && !anyway) text += fmt::format("; {}", note::kFailedOpen);
        anyway = step.anyway;
        break;
      }
      case ChoiceStep::Kind::shed:
        line["site"] = model.sites[step.site].name;
        text = fmt::format("site {} {}; the client's network is among them", model.sites[step.site].name,
                           shed_text(step.site, tables.authority->steers[step.steer], tables));
        break;
      case ChoiceStep::Kind::nothing:
      case ChoiceStep::Kind::target: {
        TIDEGATE_ASSERT(step.level != 0 && step.level <= open.size(), "a target is drawn within a steer");
        const bool gave = step.kind == ChoiceStep::Kind::target;
        const std::string label = label_of(model, model.steers[open[step.level - 1U]].targets[step.target]);
        line["target"] = label;
        line["gave"] = gave;
        text = fmt::format("{} {}", label, gave ? "is taken" : "has no address to give");
        break;
      }
    }
    line["text"] = std::move(text);
    told.push_back(std::move(line));
  }
  return told;
}

}  // namespace tidegate::dns
