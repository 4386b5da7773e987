// SPDX-License-Identifier: Apache-2.0
#include "control/health/load_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/site.h"
#include "conf/model/steer.h"
#include "control/api/json_bounds.h"
#include "core/clock.h"
#include "core/log.h"

namespace tidegate {

namespace {

using nlohmann::json;

constexpr const char* kReportsHelp = "Reports of proxies about their load, by whether they came.";
// Shorter or longer times between two reports count as these.
constexpr double kShortestGapS = 0.1, kLongestGapS = 60;

// Adds the sites of a target's addresses. The sites of a pool are those of its backends' nodes.
void add_sites(const Model& model, const SteerTarget& target, std::map<std::string, uint32_t>& sites) {
  const auto add = [&](uint32_t site) {
    if (site != kNone) sites[model.sites[site].name] = model.sites[site].shed_above;
  };
  add(target.site);
  if (target.vip() != kNone) add(model.vips[target.vip()].site);
  if (target.pool() == kNone) return;
  for (const Backend& backend : model.pools[target.pool()].backends) {
    if (backend.node != kNone) add(model.nodes[backend.node].site);
  }
}

}  // namespace

std::optional<ProxyCounters> ProxyCounters::from_json(const json& status) {
  const auto load = status.is_object() ? status.find("load") : status.end();
  if (load == status.end()) return std::nullopt;
  const ProxyCounters counters{number_member(*load, "at_ns"), number_member(*load, "cpu_ns"),
                               number_member(*load, "workers"), number_member(*load, "connections"),
                               number_member(*load, "max_connections")};
  if (counters.at_ns == 0 || counters.workers == 0 || counters.max_connections == 0) return std::nullopt;
  return counters;
}

std::optional<double> load_between(const ProxyCounters& before, const ProxyCounters& now) {
  if (now.at_ns <= before.at_ns || now.cpu_ns < before.cpu_ns) return std::nullopt;
  const double available_ns = static_cast<double>(now.at_ns - before.at_ns) * static_cast<double>(now.workers);
  const double cpu = static_cast<double>(now.cpu_ns - before.cpu_ns) / available_ns;
  const double connections = static_cast<double>(now.connections) / static_cast<double>(now.max_connections);
  return 100 * std::max(cpu, connections);
}

LoadWatch::LoadWatch(EventLoop& loop, HostState& host_state, Fleet& fleet, uint64_t period_ms)
    : host_state_(host_state),
      fleet_(fleet),
      period_ms_(period_ms),
      timer_(loop, [this] { tick(); }),
      reports_(metrics().counter("tidegate_control_load_reports_total", kReportsHelp, {{"result", "came"}})),
      missing_(metrics().counter("tidegate_control_load_reports_total", kReportsHelp, {{"result", "missing"}})) {}

LoadWatch::Wanted LoadWatch::wanted() const {
  Wanted wanted;
  const std::shared_ptr<const Model> model = host_state_.model();
  if (!model) return wanted;
  for (const Steer& steer : model->steers) {
    if (steer.policy != SteerPolicy::shed) continue;
    wanted.ttl_s = std::max(wanted.ttl_s, static_cast<double>(steer.ttl_s));
    for (const SteerTarget& target : steer.targets) add_sites(*model, target, wanted.sites);
  }
  return wanted;
}

void LoadWatch::update() {
  const Wanted wanted = this->wanted();
  std::erase_if(sites_, [&](const auto& known) { return wanted.sites.count(known.first) == 0; });
  const std::shared_ptr<const LiveState> live_state = host_state_.live_state();
  for (const auto& [site, above] : wanted.sites) {
    if (sites_.count(site) != 0) continue;
    const auto load = live_state->loads.find(site_key(site));
    sites_[site].controller = ShedController(load == live_state->loads.end() ? 0 : load->second.shed_permille);
  }
  commit(wanted);
  if (sites_.empty()) {
    last_.clear();
    timer_.cancel();
  } else if (!timer_.armed()) {
    timer_.arm_after_ms(period_ms_);
  }
}

void LoadWatch::tick() {
  look([weak = weak_from_this()] {
    const auto watch = weak.lock();
    if (watch && !watch->sites_.empty() && !watch->timer_.armed()) watch->timer_.arm_after_ms(watch->period_ms_);
  });
}

void LoadWatch::look(std::function<void()> done) {
  fleet_.status([weak = weak_from_this(), done = std::move(done)](const json& edge) {
    if (const auto watch = weak.lock()) watch->take(edge);
    done();
  });
}

// For each site: the mean over its proxies that have sent two reports.
std::map<std::string, LoadWatch::Measured> LoadWatch::measured_in(const json& edge) {
  std::map<std::string, ProxyCounters> came;
  for (const json& node : edge.value("nodes", json::array())) {
    for (const json& plane : node.value("planes", json::array())) {
      if (string_member(plane, "plane") != "l7") continue;
      if (const auto counters = ProxyCounters::from_json(plane)) came[string_member(node, "name")] = *counters;
    }
  }
  std::map<std::string, Measured> measured;
  const std::shared_ptr<const Model> model = host_state_.model();
  for (const Node& node : model->nodes) {
    if (!node.l7.enabled || node.site == kNone || sites_.count(model->sites[node.site].name) == 0) continue;
    const auto now = came.find(node.name);
    (now == came.end() ? missing_ : reports_).add();
    if (now == came.end()) continue;
    const auto before = last_.find(node.name);
    const std::optional<double> load = before == last_.end() ? std::nullopt : load_between(before->second, now->second);
    if (load) {
      Measured& of_site = measured[model->sites[node.site].name];
      of_site.load_sum += *load;
      of_site.seconds_sum += static_cast<double>(now->second.at_ns - before->second.at_ns) / 1e9;
      ++of_site.proxies;
    }
    last_[node.name] = now->second;
  }
  return measured;
}

void LoadWatch::take(const json& edge) {
  if (!host_state_.model() || sites_.empty()) return;
  const Wanted wanted = this->wanted();
  for (const auto& [site, measured] : measured_in(edge)) {
    const auto above = wanted.sites.find(site);
    if (above == wanted.sites.end()) continue;
    SiteState& state = sites_.at(site);
    state.load = measured.load_sum / measured.proxies;
    state.controller.observe(state.load, above->second,
                             std::clamp(measured.seconds_sum / measured.proxies, kShortestGapS, kLongestGapS),
                             wanted.ttl_s);
  }
  commit(wanted);
}

// Writes the differences from the state, in one commit. If that fails, the next look tries again.
void LoadWatch::commit(const Wanted& wanted) {
  const std::shared_ptr<const LiveState> live_state = host_state_.live_state();
  std::vector<std::pair<std::string, std::optional<SiteLoad>>> changes;
  for (const auto& [key, record] : live_state->loads) {
    if (wanted.sites.count(key.substr(site_key("").size())) == 0) changes.emplace_back(key, std::nullopt);
  }
  for (const auto& [site, state] : sites_) {
    const uint32_t permille = state.controller.permille();
    const auto stored = live_state->loads.find(site_key(site));
    if (permille == (stored == live_state->loads.end() ? 0 : stored->second.shed_permille)) continue;
    const auto load = static_cast<uint32_t>(std::lround(std::min(state.load, 1e6)));
    changes.emplace_back(site_key(site),
                         permille == 0 ? std::nullopt : std::optional(SiteLoad{load, permille, realtime_ns()}));
    log_info("site {}: load {} %, sheds {:.1f} % of its clients", site, load, permille / 10.0);
  }
  if (changes.empty() || committing_) return;
  committing_ = true;
  host_state_.decide<Result<uint64_t>>([&host_state = host_state_, changes] { return host_state.set_loads(changes); },
                                       [weak = weak_from_this()](const Result<uint64_t>&) {
                                         if (const auto watch = weak.lock()) watch->committing_ = false;
                                       });
}

void LoadWatch::append_metrics(std::string& out) const {
  const auto family = [&](const char* name, const char* help, auto&& value) {
    if (sites_.empty()) return;
    out += fmt::format("# HELP {0} {1}\n# TYPE {0} gauge\n", name, help);
    for (const auto& [site, state] : sites_) {
      out += fmt::format("{}{} {:.3f}\n", name, render_labels({{"site", site}}), value(state));
    }
  };
  family("tidegate_control_site_load_ratio",
         "Load of the site's proxies when they were last asked; 1 is all they have.",
         [](const SiteState& state) { return state.load / 100; });
  family("tidegate_control_site_shed_ratio", "Share of the site's clients that steers of the policy shed send on.",
         [](const SiteState& state) { return state.controller.permille() / 1'000.0; });
}

}  // namespace tidegate
