// SPDX-License-Identifier: Apache-2.0
// PlaneJudge: derives a verdict from the answers of one plane of control's own host. Pure: it has no socket and no
// clock.
//
// Rules:
// - A plane whose process is gone is down at once. One that does not answer is down after kPlaneSilentMs, because its
//   workers serve while its main thread builds tables.
// - A plane says itself that it is down (no version, no working port) or that it takes no new work (it is ending, or it
//   serves an older version because it refuses the one in force).
// - A plane that has not applied a commit of control after kPlaneLagMs takes no new work.
// - A plane that was never up gets no verdict for kPlaneStartMs, because a host that boots starts one process after
// another.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "conf/live_state.h"
#include "conf/state_store.h"

namespace tidegate {

// The result of one question.
struct PlaneAnswer {
  enum class Kind : uint8_t {
    up,        // it serves; `version` and `live_state` say which state it has
    draining,  // it takes no new work, because of `why`
    down,      // it cannot serve, because of `why`
    gone,      // nothing listens at its socket, or its process ended while it was asked
    silent,    // it has not answered for kPlaneSilentMs
    unknown,   // control could not ask, or the plane is of an earlier release: this has no effect
  };
  Kind kind = Kind::unknown;
  uint64_t version = 0, live_state = 0;
  std::string why;
};

class PlaneJudge {
 public:
  explicit PlaneJudge(uint64_t now_ns) : born_ns_(now_ns) {}

  // Returns true if the verdict changed. `head` is what this host's control has committed. Times are monotonic.
  bool observe(const PlaneAnswer& answer, const StateHead& head, uint64_t now_ns);
  // The present verdict; `since_ns` is not set. Nothing before the first judgement.
  const std::optional<HealthVerdict>& verdict() const { return verdict_; }

 private:
  // Why a plane that serves lags behind `head`. Empty if it does not.
  std::string lag(const PlaneAnswer& answer, const StateHead& head, uint64_t now_ns);
  bool decide(HealthVerdict verdict, uint64_t now_ns);

  uint64_t born_ns_;
  bool was_up_ = false;
  // The head that the plane must reach: the head at the time when the plane was last found to be behind.
  std::optional<StateHead> awaited_;
  uint64_t awaited_since_ns_ = 0;
  std::optional<HealthVerdict> verdict_;
};

// 0: up, 1: drains, 2: down.
inline int badness(const HealthVerdict& verdict) { return verdict.up ? 0 : verdict.drains ? 1 : 2; }

// A minimum time between changes. A worse verdict counts at once, because clients suffer. A better verdict counts after
// a wait. The wait doubles with each worse verdict, and is reset after kPlaneCalmMs without one. So a plane that flaps
// is written at most twice in each wait.
class ReturnGuard {
 public:
  void on_worse(uint64_t now_ns);
  bool may_return(uint64_t now_ns) const { return now_ns >= returns_ns_; }

 private:
  uint64_t worse_ns_ = 0;  // time of the last worse verdict; 0: none
  uint64_t wait_ns_ = 0;
  uint64_t returns_ns_ = 0;
};

// Decides whether a silent host is dead for its clients. While a host reports, its own reports about its planes count.
// While it is silent, the clients' path is probed: two failures in a row take a plane down, two successes keep it up.
class HostHearing {
 public:
  explicit HostHearing(uint64_t now_ns) : heard_ns_(now_ns) {}

  void on_heard(uint64_t now_ns);
  // This process was paused for this time. Silence of the host in this time does not count.
  void on_pause(uint64_t paused_ns) { heard_ns_ += paused_ns; }
  bool wants_probes(uint64_t now_ns) const;
  bool is_silent(uint64_t now_ns) const;
  void on_probe(const std::string& plane, bool success, const std::string& why);
  // The verdict of the probes on the plane of a silent host. Nothing: the last verdict stays.
  std::optional<HealthVerdict> verdict(const std::string& plane) const;
  // Whether a probe has succeeded since the host was last heard.
  bool any_success() const { return any_success_; }

 private:
  struct Row {
    int successes = 0, failures = 0;  // numbers in a row
    std::string why;
  };
  uint64_t heard_ns_;
  bool any_success_ = false;
  std::map<std::string, Row> rows_;
};

}  // namespace tidegate
