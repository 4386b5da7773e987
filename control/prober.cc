// SPDX-License-Identifier: Apache-2.0
#include "control/prober.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/assert.h"
#include "core/clock.h"
#include "core/log.h"

namespace tidegate {

namespace {

// The first probe of a backend waits at most this long, even if its interval is longer.
constexpr uint64_t kMaxFirstDelayMs = 1'000;
constexpr uint64_t kBlindLogPauseNs = 60 * kNsPerS;
constexpr uint64_t kFirstCommitPauseMs = 100;
constexpr uint64_t kLongestCommitPauseMs = 2'000;
constexpr const char* kProbesHelp = "Probes that came to an end, by result.";

}  // namespace

namespace {

// A backend's site is its own, or that of its node, or the only one.
std::string site_of(const Model& model, const Backend& backend) {
  if (backend.site != kNone) return model.sites[backend.site].name;
  if (backend.node != kNone && model.nodes[backend.node].site != kNone) {
    return model.sites[model.nodes[backend.node].site].name;
  }
  return model.sites.size() == 1 ? model.sites[0].name : std::string();
}

}  // namespace

Prober::Prober(EventLoop& loop, HostState& host_state, const HashKey& spread_key, std::string site)
    : loop_(loop),
      host_state_(host_state),
      spread_key_(spread_key),
      site_(std::move(site)),
      coalesce_(loop, [this] { commit(); }),
      jitter_(static_cast<std::minstd_rand::result_type>(spread_key.k0 ^ spread_key.k1)),
      successes_(metrics().counter("tidegate_control_probes_total", kProbesHelp, {{"result", "success"}})),
      failures_(metrics().counter("tidegate_control_probes_total", kProbesHelp, {{"result", "failure"}})),
      not_looked_(metrics().counter("tidegate_control_probes_total", kProbesHelp, {{"result", "own_limit"}})),
      unstored_(metrics().counter("tidegate_control_health_commit_failures_total",
                                  "Attempts to store health verdicts that failed.")) {}

Prober::~Prober() { *self_ = nullptr; }

Prober::Wanted Prober::wanted_targets() const {
  Wanted wanted;
  const std::shared_ptr<const Model> model = host_state_.model();
  if (!model) return wanted;
  for (const Pool& pool : model->pools) {
    if (pool.probe == kNone) continue;
    for (const Backend& backend : pool.backends) {
      if (!site_.empty() && site_of(*model, backend) != site_) continue;
      wanted[backend_key(pool.name, backend.name)] = probe_target(model->probes[pool.probe], backend);
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
  if (site_.empty()) remove_stale_verdicts(wanted);  // other verdicts are the leader's
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

// The verdict that waits to be stored, or the stored one. It is not removed, because its backend is back.
std::optional<bool> Prober::last_verdict(const std::string& key) {
  if (const auto pending = pending_.find(key); pending != pending_.end()) {
    if (pending->second) return pending->second->up;
    pending_.erase(pending);
  }
  const std::shared_ptr<const LiveState> live_state = host_state_.live_state();
  const auto record = live_state->health.find(key);
  return record == live_state->health.end() ? std::nullopt : std::optional(record->second.up);
}

void Prober::probe(const std::string& key, Watch& watch) {
  watch.next->arm_after_ms(with_jitter(watch.target.interval_ms));
  if (watch.under_way) return;  // the timeout is longer than the interval: that attempt decides
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
  if (!observe(watch.dampener, result.success, watch.target.rise, watch.target.fall)) return;
  log_info("{} is {}{}{}", key, result.success ? "up" : "down", result.success ? "" : ": ", result.reason);
  std::string reason = result.reason;
  if (!site_.empty())
    reason = "seen from site " + site_ + " alone, no leader is heard" + (reason.empty() ? "" : ": " + reason);
  note(key, HealthVerdict{result.success, std::move(reason), realtime_ns()});
}

void Prober::remove_stale_verdicts(const Wanted& wanted) {
  const std::shared_ptr<const LiveState> live_state = host_state_.live_state();
  for (const auto& [key, record] : live_state->health) {
    if (wanted.find(key) == wanted.end()) note(key, std::nullopt);
  }
  for (auto& [key, record] : pending_) {
    if (wanted.find(key) == wanted.end())
      record = std::nullopt;  // a verdict that came just before its backend was removed
  }
}

void Prober::note(const std::string& key, std::optional<HealthVerdict> record) {
  pending_[key] = std::move(record);
  if (!coalesce_.armed()) coalesce_.arm_after_ms(kCoalesceMs);
}

void Prober::commit() {
  if (committing_) return;  // on_commit() takes what came meanwhile
  committing_ = true;
  const std::vector<std::pair<std::string, std::optional<HealthVerdict>>> verdicts(pending_.begin(), pending_.end());
  if (!site_.empty()) return on_commit(pending_, host_state_.set_site_verdicts(verdicts));
  host_state_.decide<Result<uint64_t>>(
      [&host_state = host_state_, verdicts] { return host_state.set_verdicts(verdicts); },
      [self = self_, stored = pending_](const Result<uint64_t>& sequence) {
        if (*self != nullptr) (*self)->on_commit(stored, sequence);
      });
}

void Prober::on_commit(const std::map<std::string, std::optional<HealthVerdict>>& stored,
                       const Result<uint64_t>& sequence) {
  committing_ = false;
  if (sequence) {
    if (std::exchange(commit_pause_ms_, 0) != 0) log_info("health verdicts can be stored again");
    for (const auto& [key, record] : stored) {
      const auto pending = pending_.find(key);
      if (pending != pending_.end() && pending->second == record) pending_.erase(pending);
    }
    if (!pending_.empty() && !coalesce_.armed()) coalesce_.arm_after_ms(kCoalesceMs);
    return;
  }
  unstored_.add();
  if (commit_pause_ms_ == 0) {
    log_error("cannot store {} health verdicts, trying until it can be done: {}", stored.size(),
              sequence.error().message);
  }
  commit_pause_ms_ = std::clamp(2 * commit_pause_ms_, kFirstCommitPauseMs, kLongestCommitPauseMs);
  coalesce_.arm_after_ms(commit_pause_ms_);
}

uint64_t Prober::with_jitter(uint64_t interval_ms) {
  const uint64_t spread = interval_ms / 10;  // 95 % to 105 %
  return interval_ms - spread / 2 + (spread == 0 ? 0 : jitter_() % (spread + 1));
}

}  // namespace tidegate
