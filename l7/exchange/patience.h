// SPDX-License-Identifier: Apache-2.0
// Patience: how long a client may keep us waiting. Waiting for it spends patience. Bytes that it moves restore
// patience, in proportion. A client that keeps the rate never runs out of it. One that moves nothing runs out after the
// whole time, and one that moves less than the rate runs out later. Waiting for somebody else spends nothing.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/clock.h"

namespace tidegate::l7 {

struct PatienceTerms {
  uint64_t whole_ns = 0;
  uint64_t bytes_per_s = 0;  // that restore as much as is spent; 0: any byte restores the whole
};

class Patience {
 public:
  bool waiting() const { return waiting_; }

  // The client is waited for from now on, or still is. When patience ends unless the client moves something.
  uint64_t wait(const PatienceTerms& terms, uint64_t now_ns) {
    if (!waiting_) {
      waiting_ = true;
      since_ns_ = now_ns;
    }
    return since_ns_ + terms.whole_ns - std::min(spent_ns_, terms.whole_ns);
  }
  // Somebody else is waited for.
  void pause(uint64_t now_ns) {
    spend(now_ns);
    waiting_ = false;
  }
  // wait(), after what the client has moved so far, `moved_bytes` in all, was made good.
  uint64_t renew(const PatienceTerms& terms, uint64_t moved_bytes, uint64_t now_ns) {
    const uint64_t gained = moved_bytes - moved_bytes_;
    moved_bytes_ = moved_bytes;
    spend(now_ns);
    const double restored_ns = terms.bytes_per_s == 0 ? (gained == 0 ? 0.0 : static_cast<double>(terms.whole_ns))
                                                      : static_cast<double>(gained) * static_cast<double>(kNsPerS) /
                                                            static_cast<double>(terms.bytes_per_s);
    if (restored_ns >= static_cast<double>(spent_ns_)) {
      spent_ns_ = 0;
      trickles_ = false;
    } else {
      spent_ns_ -= static_cast<uint64_t>(restored_ns);
      trickles_ = trickles_ || gained > 0;
    }
    return wait(terms, now_ns);
  }
  // Whether something came since it was whole last.
  bool trickles() const { return trickles_; }

 private:
  void spend(uint64_t now_ns) {
    if (!waiting_) return;
    spent_ns_ += now_ns - since_ns_;
    since_ns_ = now_ns;
  }

  uint64_t spent_ns_ = 0;
  uint64_t since_ns_ = 0;  // while waiting_, spent_ns_ is as of then
  uint64_t moved_bytes_ = 0;
  bool waiting_ = false;
  bool trickles_ = false;
};

}  // namespace tidegate::l7
