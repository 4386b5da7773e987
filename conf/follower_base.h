// SPDX-License-Identifier: Apache-2.0
// Shared by both followers: the Snapshot in force, and the result of the newest one offered.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "conf/follower.h"
#include "core/clock.h"

namespace tidegate {

class FollowerBase : public Follower {
 public:
  std::shared_ptr<const Snapshot> current() const override { return current_; }
  StateHead applied() const override { return applied_; }
  uint64_t applied_at_ns() const override { return applied_at_ns_; }
  const std::string& refused() const override { return refused_; }

 protected:
  explicit FollowerBase(FollowerHooks hooks) : hooks_(std::move(hooks)) {}

  // Offers the Snapshot to the plane. It is in force unless the plane refuses it.
  Result<void> offer(std::shared_ptr<const Snapshot> snapshot) {
    if (Result<void> taken = hooks_.on_snapshot(snapshot); !taken) return taken;
    current_ = std::move(snapshot);
    applied_.version = current_->version;
    applied_.live_state = current_->live_state->sequence;
    applied_at_ns_ = realtime_ns();
    return {};
  }

  FollowerHooks hooks_;
  std::shared_ptr<const Snapshot> current_;
  StateHead applied_;
  uint64_t applied_at_ns_ = 0;
  std::string refused_;
};

}  // namespace tidegate
