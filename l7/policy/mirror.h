// SPDX-License-Identifier: Apache-2.0
// The terms that a mirror policy (conf/policy/mirror.h) stores in an exchange, and the state that a request and its
// copy share.
//
// Threads: any thread may use MirrorRuntime. A MirrorPair belongs to the worker that serves both.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "core/metrics.h"
#include "l7/policy/policy.h"

namespace tidegate::l7::policy {

// The result of a request that should be copied.
enum class MirrorResult : uint8_t {
  alike,      // both answers have the same status
  different,  // the statuses differ
  failed,     // the copy got no answer
  unknown,    // the request itself got no answer, so there is nothing to compare
  body,       // not copied: it has a body, or opens a tunnel
  busy,       // not copied: too many copies are in progress
  count_,
};
const char* name(MirrorResult result);

struct MirrorRuntime final : Runtime {
  std::array<Counter, static_cast<size_t>(MirrorResult::count_)> results;
  std::atomic<uint64_t> in_flight{0};

  void count(MirrorResult result) { results[static_cast<size_t>(result)].add(); }
  bool enter(uint64_t most) {
    if (in_flight.fetch_add(1, std::memory_order_relaxed) < most) return true;
    leave();
    return false;
  }
  void leave() { in_flight.fetch_sub(1, std::memory_order_relaxed); }
};

// The terms of a copy. They are in the pinned plan.
struct MirrorTerms {
  uint32_t pool;
  uint64_t most, timeout_ns;
  std::shared_ptr<MirrorRuntime> runtime;
};

// Both exchanges report their ends here. The second report is counted.
class MirrorPair {
 public:
  explicit MirrorPair(std::shared_ptr<MirrorRuntime> runtime) : runtime_(std::move(runtime)) {}
  MirrorPair(const MirrorPair&) = delete;
  MirrorPair& operator=(const MirrorPair&) = delete;

  // `status`: of the answer; 0: there was none. Called once for each of the two.
  void end(bool copy, uint16_t status) {
    (copy ? copy_status_ : own_status_) = status;
    if (copy) runtime_->leave();
    if (++ended_ == 2) runtime_->count(result());
  }

 private:
  MirrorResult result() const {
    if (copy_status_ == 0) return MirrorResult::failed;
    if (own_status_ == 0) return MirrorResult::unknown;
    return copy_status_ == own_status_ ? MirrorResult::alike : MirrorResult::different;
  }

  const std::shared_ptr<MirrorRuntime> runtime_;
  uint16_t own_status_ = 0, copy_status_ = 0;
  int ended_ = 0;
};

}  // namespace tidegate::l7::policy
