// SPDX-License-Identifier: Apache-2.0
#include "control/observe/applied_waits.h"

#include <algorithm>

#include "control/api/json_bounds.h"
#include "control/observe/convergence.h"
#include "core/clock.h"

namespace tidegate {

using nlohmann::json;

// One waiting call. It asks the fleet, pauses, and asks again.
class AppliedWaits::Wait : public std::enable_shared_from_this<AppliedWaits::Wait> {
 public:
  // A plane applies a change in about a millisecond. More frequent questions would only cost CPU.
  static constexpr uint64_t kFirstPauseMs = 2;
  static constexpr uint64_t kLongestPauseMs = 50;

  Wait(AppliedWaits& owner, ApiCall call, const StateHead& wanted, uint64_t timeout_ms, json answer)
      : owner_(owner),
        call_(std::move(call)),
        wanted_(wanted),
        started_ns_(monotonic_ns()),
        timeout_ms_(std::min(timeout_ms, kMaxWaitMs)),
        answer_(std::move(answer)),
        pause_(owner.loop_, [this] { ask(); }) {}

  void start() {
    call_.exchange->on_close([weak = weak_from_this()] {
      if (const auto alive = weak.lock()) alive->gone_ = true;
    });
    ask();
  }

 private:
  void ask() {
    owner_.fleet_.status([weak = weak_from_this()](const json& status) {
      if (const auto alive = weak.lock()) alive->check(status);
    });
  }

  void check(const json& status) {
    const Convergence convergence = check_convergence(status, wanted_);
    const uint64_t waited_ms = (monotonic_ns() - started_ns_) / kNsPerMs;
    if (!gone_ && !convergence.reached && !convergence.hopeless && waited_ms < timeout_ms_) {
      pause_.arm_after_ms(pause_ms_);
      pause_ms_ = std::min(pause_ms_ * 2, kLongestPauseMs);
      return;
    }
    if (!gone_) {
      answer_["converged"] = convergence.reached;
      answer_["waited_ms"] = waited_ms;
      answer_["missing"] = convergence.missing;
      answer_["unreachable"] = convergence.unreachable;
      call_.respond(HttpResponse::json(200, dump(answer_) + "\n"));
    }
    owner_.waits_.erase(shared_from_this());
  }

  AppliedWaits& owner_;
  ApiCall call_;
  StateHead wanted_;
  uint64_t started_ns_;
  uint64_t timeout_ms_;
  json answer_;
  Timer pause_;
  uint64_t pause_ms_ = kFirstPauseMs;
  bool gone_ = false;
};

AppliedWaits::AppliedWaits(EventLoop& loop, Fleet& fleet) : loop_(loop), fleet_(fleet) {}
AppliedWaits::~AppliedWaits() = default;

void AppliedWaits::answer_when_applied(const ApiCall& call, const StateHead& wanted, uint64_t timeout_ms, json answer) {
  const auto wait = std::make_shared<Wait>(*this, call, wanted, timeout_ms, std::move(answer));
  waits_.insert(wait);
  wait->start();
}

}  // namespace tidegate
