// SPDX-License-Identifier: Apache-2.0
// Probation: the time in which a provisional version must be confirmed, as a state machine. It has no files and no
// clock of its own.
//
// The leader reverts a version that was not confirmed in time. Every other host waits five seconds longer. If such a
// host receives neither a confirmation nor a newer version, it goes back to the previous version by itself. It follows
// the leader again when it receives something from it.
#pragma once

#include <cstdint>
#include <optional>

#include "conf/provisional.h"

namespace tidegate {

class Probation {
 public:
  // The time that a host waits for the leader's message after the end of the provisional time.
  static constexpr uint64_t kPatienceNs = 5'000'000'000;

  enum class Due : uint8_t { nothing, revert, go_back };

  void begin(const ProvisionalVersion& provisional, bool leads, uint64_t now_ns) {
    provisional_ = provisional;
    end_ns_ = now_ns + provisional.confirm_ms * 1'000'000;
    set_leads(leads);
    told_ = provisional.went_back && !leads;
  }
  // The control that leads reverts, even if this host waited for another leader until now, or went back by itself.
  void set_leads(bool leads) {
    leads_ = leads;
    if (!provisional_) return;
    deadline_ns_ = end_ns_ + (leads ? 0 : kPatienceNs);
    told_ = provisional_->went_back && !leads;
  }
  // Somebody confirms the version. Returns false if it is another version, or if it is too late.
  bool confirm(uint64_t version, uint64_t now_ns) {
    if (!provisional_ || provisional_->version != version || (leads_ && now_ns >= end_ns_)) return false;
    provisional_.reset();
    return true;
  }
  // Another version came into force. Returns true if this ended a provisional version.
  bool on_version(uint64_t version) {
    if (!provisional_ || version == provisional_->version) return false;
    provisional_.reset();
    return true;
  }
  // Returns the step that is due. Each step is returned once.
  Due on_time(uint64_t now_ns) {
    if (!provisional_ || told_ || now_ns < deadline_ns_) return Due::nothing;
    told_ = true;
    if (leads_) return Due::revert;
    provisional_->went_back = true;
    return Due::go_back;
  }
  // The revert failed. It is due again at that time.
  void try_again_at(uint64_t deadline_ns) {
    deadline_ns_ = deadline_ns;
    told_ = false;
  }
  uint64_t deadline_ns() const { return provisional_ && !told_ ? deadline_ns_ : UINT64_MAX; }
  const std::optional<ProvisionalVersion>& provisional() const { return provisional_; }
  bool is_over(uint64_t now_ns) const { return provisional_ && now_ns >= deadline_ns_; }

 private:
  std::optional<ProvisionalVersion> provisional_;
  bool leads_ = false;
  bool told_ = false;         // the due action was returned
  uint64_t end_ns_ = 0;       // end of the time in which it must be confirmed
  uint64_t deadline_ns_ = 0;  // when something is due
};

}  // namespace tidegate
