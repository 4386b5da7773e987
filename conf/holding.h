// SPDX-License-Identifier: Apache-2.0
// Holding: which candidate a plane holds, and until when. It is the plane's half of the two phases as a state machine:
// no sockets, no clock of its own. The caller does what a Step says.
//
// A plane holds at most one candidate. It releases the candidate when control says so, when it prepares a newer one,
// when the candidate came into force, or after kHeldNs without a message from control.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "conf/candidate.h"

namespace tidegate {

class Holding {
 public:
  static constexpr uint64_t kHeldNs = 30'000'000'000;

  struct Step {
    enum class Kind : uint8_t {
      prepare,  // prepare it, then call prepared()
      repeat,   // answer with last_vote(): this message came before
      refuse,   // answer with no, for `why`
    };
    Kind kind = Kind::prepare;
    bool release = false;  // first release what is held
    std::string why = {};
  };

  Step on_prepare(uint64_t id) {
    if (id == last_id_ && !released_) return {Step::Kind::repeat};
    if (id == last_id_) return {Step::Kind::refuse, false, "the candidate was released already"};
    // A late message about an old candidate must not displace a newer one.
    if (holds() && id < last_id_) return {Step::Kind::refuse, false, "a newer candidate is held"};
    return {Step::Kind::prepare, holds()};
  }
  void prepared(uint64_t id, std::string digest, Vote vote, uint64_t now_ns) {
    last_id_ = id;
    released_ = false;
    digest_ = vote.yes() ? std::move(digest) : std::string();
    vote_ = std::move(vote);
    until_ns_ = now_ns + kHeldNs;
  }
  // Control gave the candidate up. Returns true if the held things must be released. A repeated or late call changes
  // nothing.
  bool on_release(uint64_t id) { return id == last_id_ && let_go(); }
  // A version came into force. If it is another version than the held candidate, the candidate stays held, because it
  // may be the next version.
  bool on_version(const std::string& digest) { return holds(digest) && let_go(); }
  bool on_time(uint64_t now_ns) { return now_ns >= until_ns_ && let_go(); }

  bool holds() const { return !digest_.empty(); }
  bool holds(const std::string& digest) const { return holds() && digest_ == digest; }
  uint64_t id() const { return holds() ? last_id_ : 0; }  // 0: none is held
  uint64_t until_ns() const { return until_ns_; }
  const Vote& last_vote() const { return vote_; }

 private:
  bool let_go() {
    released_ = true;
    return !std::exchange(digest_, {}).empty();
  }

  uint64_t last_id_ = 0;   // of the last candidate that was prepared, held or not
  bool released_ = false;  // the candidate was released
  std::string digest_;     // of the held candidate; empty: none
  Vote vote_;
  uint64_t until_ns_ = 0;
};

}  // namespace tidegate
