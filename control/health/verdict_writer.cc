// SPDX-License-Identifier: Apache-2.0
#include "control/health/verdict_writer.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "control/limits.h"
#include "core/log.h"

namespace tidegate {

namespace {

constexpr uint64_t kFirstWritePauseMs = 100;
constexpr uint64_t kLongestWritePauseMs = 2'000;

}  // namespace

VerdictWriter::VerdictWriter(EventLoop& loop, HostState& host_state, Scope scope, std::function<bool()> counts)
    : loop_(loop),
      host_state_(host_state),
      scope_(scope),
      counts_(std::move(counts)),
      timer_(loop, [this] { commit(); }),
      stored_(metrics().counter("tidegate_control_health_commits_total", "Commits of health verdicts.")),
      unstored_(metrics().counter("tidegate_control_health_commit_failures_total",
                                  "Attempts to store health verdicts that failed.")) {}

VerdictWriter::~VerdictWriter() { *self_ = nullptr; }

void VerdictWriter::note(const std::string& key, std::optional<HealthVerdict> record) {
  pending_[key] = std::move(record);
  if (!timer_.armed()) timer_.arm_after_ms(kCoalesceMs);
}

std::optional<HealthVerdict> VerdictWriter::latest(const std::string& key) const {
  if (const auto pending = pending_.find(key); pending != pending_.end()) return pending->second;
  if (const auto storing = storing_.find(key); storing != storing_.end()) return storing->second;
  const std::shared_ptr<const LiveState> live_state = host_state_.live_state();
  const auto record = live_state->health.find(key);
  return record == live_state->health.end() ? std::nullopt : std::optional(record->second);
}

void VerdictWriter::commit() {
  if (pending_.empty() || committing_) return;  // on_commit() writes what came meanwhile
  const TokenRate rate = TokenRate::per_second(kVerdictCommitsPerS, kVerdictCommitBurst);
  if (!commits_.take(rate, 1, loop_.now_ns())) return timer_.arm_after_ms(1'000 / kVerdictCommitsPerS);
  if (counts_ && !counts_()) return pending_.clear();
  committing_ = true;
  // Listeners of the state may add more while this is stored.
  storing_ = std::exchange(pending_, {});
  const std::vector<std::pair<std::string, std::optional<HealthVerdict>>> verdicts(storing_.begin(), storing_.end());
  if (scope_ == Scope::site) return on_commit(host_state_.set_site_verdicts(verdicts));
  host_state_.decide<Result<uint64_t>>(
      [&host_state = host_state_, verdicts] { return host_state.set_verdicts(verdicts); },
      [self = self_](const Result<uint64_t>& sequence) {
        if (*self != nullptr) (*self)->on_commit(sequence);
      });
}

void VerdictWriter::on_commit(const Result<uint64_t>& sequence) {
  committing_ = false;
  Pending stored = std::exchange(storing_, {});
  if (sequence) {
    stored_.add();
    if (std::exchange(pause_ms_, 0) != 0) log_info("health verdicts can be stored again");
    if (!pending_.empty() && !timer_.armed()) timer_.arm_after_ms(kCoalesceMs);
    return;
  }
  pending_.insert(stored.begin(), stored.end());  // insert() keeps existing entries, because they are newer
  unstored_.add();
  if (pause_ms_ == 0) {
    log_error("cannot store {} health verdicts, trying until it can be done: {}", stored.size(),
              sequence.error().message);
  }
  pause_ms_ = std::clamp(2 * pause_ms_, kFirstWritePauseMs, kLongestWritePauseMs);
  timer_.arm_after_ms(pause_ms_);
}

}  // namespace tidegate
