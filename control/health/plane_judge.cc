// SPDX-License-Identifier: Apache-2.0
#include "control/health/plane_judge.h"

#include <fmt/format.h>

#include <algorithm>

#include "control/limits.h"
#include "core/clock.h"

namespace tidegate {

namespace {

constexpr int kDecidingProbes = 2;

// The part of `wanted` that `applied` does not have: "version 7" or "words 12".
std::string missing(const PlaneAnswer& applied, const StateHead& wanted) {
  if (applied.version < wanted.version) return fmt::format("version {}", wanted.version);
  if (applied.live_state < wanted.live_state) return fmt::format("words {}", wanted.live_state);
  return {};
}

std::string shortened(std::string text) {
  if (text.size() > kPlaneReasonBytes) text.replace(kPlaneReasonBytes - 3, std::string::npos, "...");
  return text;
}

}  // namespace

bool PlaneJudge::observe(const PlaneAnswer& answer, const StateHead& head, uint64_t now_ns) {
  switch (answer.kind) {
    case PlaneAnswer::Kind::unknown:
      return false;
    case PlaneAnswer::Kind::up: {
      was_up_ = true;
      const std::string behind = lag(answer, head, now_ns);
      return decide({behind.empty(), behind, 0, !behind.empty()}, now_ns);
    }
    case PlaneAnswer::Kind::draining:
      return decide({false, answer.why, 0, true}, now_ns);
    case PlaneAnswer::Kind::down:
      return decide({false, answer.why, 0, false}, now_ns);
    case PlaneAnswer::Kind::gone:
      return decide({false, "its process is gone", 0, false}, now_ns);
    case PlaneAnswer::Kind::silent:
      return decide({false, fmt::format("it does not answer for {} ms", kPlaneSilentMs), 0, false}, now_ns);
  }
  return false;
}

std::string PlaneJudge::lag(const PlaneAnswer& answer, const StateHead& head, uint64_t now_ns) {
  // A plane that follows a busy state is always a little behind. So it is compared with one head until it has reached
  // that head.
  if (!awaited_ || missing(answer, *awaited_).empty()) {
    if (missing(answer, head).empty()) {
      awaited_.reset();
      return {};
    }
    awaited_ = head;
    awaited_since_ns_ = now_ns;
  }
  if (now_ns - awaited_since_ns_ < kPlaneLagMs * kNsPerMs) return {};
  return fmt::format("it has not applied {} for {} ms", missing(answer, *awaited_), kPlaneLagMs);
}

bool PlaneJudge::decide(HealthVerdict verdict, uint64_t now_ns) {
  if (!verdict.up && !was_up_ && now_ns - born_ns_ < kPlaneStartMs * kNsPerMs) return false;
  const bool same = verdict_ && verdict_->up == verdict.up && verdict_->drains == verdict.drains;
  if (same) return false;  // another reason for the same state does not count as a change
  verdict.reason = shortened(std::move(verdict.reason));
  verdict_ = std::move(verdict);
  return true;
}

void ReturnGuard::on_worse(uint64_t now_ns) {
  const bool calm = worse_ns_ == 0 || now_ns - worse_ns_ > wait_ns_ + kPlaneCalmMs * kNsPerMs;
  wait_ns_ = calm ? kPlaneFirstWaitMs * kNsPerMs : std::min(2 * wait_ns_, kPlaneLongestWaitMs * kNsPerMs);
  worse_ns_ = now_ns;
  returns_ns_ = now_ns + wait_ns_;
}

void HostHearing::on_heard(uint64_t now_ns) {
  heard_ns_ = now_ns;
  any_success_ = false;
  rows_.clear();
}

bool HostHearing::wants_probes(uint64_t now_ns) const { return now_ns > heard_ns_ + kHostProbedAfterMs * kNsPerMs; }

bool HostHearing::is_silent(uint64_t now_ns) const { return now_ns > heard_ns_ + kHostSilentMs * kNsPerMs; }

void HostHearing::on_probe(const std::string& plane, bool success, const std::string& why) {
  Row& row = rows_[plane];
  row.successes = success ? row.successes + 1 : 0;
  row.failures = success ? 0 : row.failures + 1;
  row.why = why;
  any_success_ |= success;
}

std::optional<HealthVerdict> HostHearing::verdict(const std::string& plane) const {
  const auto row = rows_.find(plane);
  if (row == rows_.end()) return std::nullopt;
  if (row->second.successes >= kDecidingProbes) return HealthVerdict{true, "", 0};
  if (row->second.failures < kDecidingProbes) return std::nullopt;
  return HealthVerdict{false, shortened("its host is silent, and clients get no answer: " + row->second.why), 0};
}

}  // namespace tidegate
