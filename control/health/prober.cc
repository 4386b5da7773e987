// SPDX-License-Identifier: Apache-2.0
#include "control/health/prober.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/probe.h"
#include "conf/model/site.h"
#include "core/assert.h"
#include "core/clock.h"
#include "core/log.h"

namespace tidegate {

namespace {

// The first probe of a backend waits at most this long, even if its interval is longer.
constexpr uint64_t kMaxFirstDelayMs = 1'000;
constexpr std::string_view kBackendPrefix = "backend/";
constexpr uint64_t kBlindLogPauseNs = 60 * kNsPerS;
constexpr const char* kEndedProbesHelp = "Probes that came to an end, by result.";

}  // namespace

namespace {

// A backend's site is its own, or that of its node, or the only site.
std::string site_of(const Model& model, const Backend& backend) {
  if (backend.site != kNone) return model.sites[backend.site].name;
  if (backend.node != kNone && model.nodes[backend.node].site != kNone) {
    return model.sites[model.nodes[backend.node].site].name;
  }
  return model.sites.size() == 1 ? model.sites[0].name : std::string();
}

}  // namespace

Prober::Prober(EventLoop& loop, HostState& host_state, VerdictWriter& writer, const HashKey& spread_key,
               std::string site)
    : loop_(loop),
      host_state_(host_state),
      writer_(writer),
      spread_key_(spread_key),
      site_(std::move(site)),
      jitter_(static_cast<std::minstd_rand::result_type>(spread_key.k0 ^ spread_key.k1)),
      successes_(metrics().counter("tidegate_control_probes_total", kEndedProbesHelp, {{"result", "success"}})),
      failures_(metrics().counter("tidegate_control_probes_total", kEndedProbesHelp, {{"result", "failure"}})),
      not_looked_(metrics().counter("tidegate_control_probes_total", kEndedProbesHelp, {{"result", "own_limit"}})),
      held_(metrics().counter("tidegate_control_probes_held_total",
                              "Probes that contradicted a verdict which stays for its hold.")) {
  for (size_t cause = 0; cause < kProbeCauses.size(); ++cause) {
    causes_[cause] = &metrics().counter("tidegate_control_probe_failures_total", "Probes that failed, by reason.",
                                        {{"reason", kProbeCauses[cause]}});
  }
}

Prober::~Prober() = default;

Prober::Wanted Prober::wanted_targets() const {
  Wanted wanted;
  const std::shared_ptr<const Model> model = host_state_.model_with_servers();
  if (!model) return wanted;
  for (uint32_t p = 0; p < model->pools.size(); ++p) {
    const Pool& pool = model->pools[p];
    if (pool.probe == kNone) continue;
    const Probe& probe = model->probes[pool.probe];
    for (const Backend& backend : pool.backends) {
      if (!site_.empty() && site_of(*model, backend) != site_) continue;
      if (backend.addresses.empty()) continue;  // no server was found by its name yet
      ProbeTarget target = probe_target(probe, backend, commands_);
      if (probe.via_vip) ask_for_vips(target, *model, p, backend, door_);
      wanted[backend_key(pool.name, backend.name)] = std::move(target);
    }
  }
  return wanted;
}

void Prober::update() {
  const Wanted wanted = wanted_targets();
  for (auto watch = watches_.begin(); watch != watches_.end();) {
    const auto still = wanted.find(watch->first);
    const bool unchanged = still != wanted.end() && still->second == watch->second->target;
    watch = unchanged ? std::next(watch) : watches_.erase(watch);
  }
  for (const auto& [key, target] : wanted) {
    if (watches_.find(key) == watches_.end()) begin(key, target);
  }
  if (site_.empty()) remove_stale_verdicts(wanted);  // other verdicts belong to the leader
}

void Prober::begin(const std::string& key, const ProbeTarget& target) {
  TIDEGATE_ASSERT(target.interval_ms > 0 && target.rise > 0 && target.fall > 0, "validation bounds a probe");
  auto owned = std::make_unique<Watch>();
  Watch& watch = *owned;
  watch.target = target;
  watch.dampener.up = last_verdict(key);
  watch.next = std::make_unique<Timer>(loop_, [this, key, &watch] { probe(key, watch); });
  const uint64_t window_ns = std::min(target.interval_ms, kMaxFirstDelayMs) * kNsPerMs;
  const uint64_t share = siphash13(spread_key_, key) >> 32;
  watch.next->arm_after_ns(window_ns * share >> 32);
  watches_[key] = std::move(owned);
}

// The verdict that waits to be stored, or the stored one. A pending removal is dropped, because its backend is back.
std::optional<bool> Prober::last_verdict(const std::string& key) {
  if (const auto pending = writer_.pending().find(key); pending != writer_.pending().end()) {
    if (pending->second) return pending->second->up;
    writer_.forget(key);
  }
  const std::optional<HealthVerdict> verdict = writer_.latest(key);
  return verdict ? std::optional(verdict->up) : std::nullopt;
}

void Prober::probe(const std::string& key, Watch& watch) {
  watch.next->arm_after_ms(with_jitter(watch.target.interval_ms));
  if (watch.under_way) return;  // the timeout is longer than the interval: the attempt in progress decides
  watch.under_way = true;
  watch.attempt = start_probe(loop_, watch.target, [this, key, &watch](const ProbeResult& result) {
    TIDEGATE_ASSERT(watch.under_way, "an attempt has one result");
    watch.under_way = false;
    on_result(key, watch, result);
  });
}

void Prober::on_result(const std::string& key, Watch& watch, const ProbeResult& result) {
  if (!result.looked) {
    not_looked_.add();
    if (told_blind_ns_ == 0 || loop_.now_ns() - told_blind_ns_ > kBlindLogPauseNs) {
      log_warn("probes cannot be made, verdicts stay: {}", result.reason);
      told_blind_ns_ = loop_.now_ns();
    }
    return;
  }
  (result.success ? successes_ : failures_).add();
  if (!result.success) causes_[static_cast<size_t>(result.cause)]->add();
  const bool is_first = !watch.dampener.up;
  const bool held = loop_.now_ns() < watch.holds_until_ns;
  if (held && result.success != *watch.dampener.up) held_.add();
  const bool changed = observe(watch.dampener, result.success, watch.target.rise, watch.target.fall, held);
  const bool is_first_told = !std::exchange(watch.told, true);
  if (told_ && (changed || is_first_told)) {
    told_(key, *watch.dampener.up, *watch.dampener.up ? "" : result.reason);
  }
  if (!changed) return;
  if (!is_first) watch.holds_until_ns = loop_.now_ns() + watch.target.hold_ms * kNsPerMs;
  if (told_) return;
  log_info("{} is {}{}{}", key, result.success ? "up" : "down", result.success ? "" : ": ", result.reason);
  writer_.note(key, HealthVerdict{result.success, result.reason, realtime_ns()});
}

void Prober::remove_stale_verdicts(const Wanted& wanted) {
  const auto is_stale = [&](const std::string& key) {
    return key.compare(0, kBackendPrefix.size(), kBackendPrefix) == 0 && wanted.find(key) == wanted.end();
  };
  const std::shared_ptr<const LiveState> live_state = host_state_.live_state();
  for (const auto& [key, record] : live_state->health) {
    if (is_stale(key)) writer_.note(key, std::nullopt);
  }
  for (auto& [key, record] : writer_.pending()) {
    if (is_stale(key)) record = std::nullopt;  // a verdict that came just before its backend was removed
  }
}

uint64_t Prober::with_jitter(uint64_t interval_ms) {
  const uint64_t spread = interval_ms / 10;  // 95 % to 105 %
  return interval_ms - spread / 2 + (spread == 0 ? 0 : jitter_() % (spread + 1));
}

}  // namespace tidegate
