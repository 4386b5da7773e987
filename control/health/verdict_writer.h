// SPDX-License-Identifier: Apache-2.0
// VerdictWriter: writes verdicts into the live state. Verdicts that come together are one commit, kCoalesceMs after the
// first. On average there are at most kVerdictCommitsPerS commits per second. If many backends flap, their verdicts
// wait and are committed together, and only the last verdict on each backend is written. A failed commit is tried again
// with growing pauses, and logged once.
//
// Threads: the control's loop.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "control/host_state.h"
#include "core/event_loop.h"
#include "core/metrics.h"
#include "core/token_bucket.h"

namespace tidegate {

class VerdictWriter {
 public:
  static constexpr uint64_t kCoalesceMs = 2;
  using Pending = std::map<std::string, std::optional<HealthVerdict>>;

  // everywhere: the verdicts of the control that leads; they are decided and valid on all hosts. site: the verdicts of
  // a control that hears no leader; they are valid only on this host.
  enum class Scope : uint8_t { everywhere, site };
  // `counts` (may be empty) is asked right before a write; if it says no, the waiting verdicts are dropped.
  VerdictWriter(EventLoop& loop, HostState& host_state, Scope scope = Scope::everywhere,
                std::function<bool()> counts = {});
  ~VerdictWriter();

  // An empty `record` removes the record.
  void note(const std::string& key, std::optional<HealthVerdict> record);
  // Drops the waiting verdict for a key, for example a removal that is no longer wanted.
  void forget(const std::string& key) { pending_.erase(key); }
  Pending& pending() { return pending_; }
  // The stored or waiting verdict. Nothing if there is no record, or if it will be removed.
  std::optional<HealthVerdict> latest(const std::string& key) const;

 private:
  void commit();
  void on_commit(const Result<uint64_t>& sequence);

  EventLoop& loop_;
  HostState& host_state_;
  const Scope scope_;
  const std::function<bool()> counts_;
  Pending pending_;
  Pending storing_;  // verdicts that are being decided
  bool committing_ = false;
  std::shared_ptr<VerdictWriter*> self_ = std::make_shared<VerdictWriter*>(this);  // null once this object is destroyed
  Timer timer_;
  TokenBucket commits_;
  uint64_t pause_ms_ = 0;  // pause after a failed commit; 0: the last one succeeded
  Counter& stored_;
  Counter& unstored_;
};

}  // namespace tidegate
