// SPDX-License-Identifier: Apache-2.0
// Patience: how long a client may keep us waiting. Waiting for the client spends patience. Bytes that the client sends
// or takes restore patience in proportion. For a client that keeps the rate, patience never runs out. If the client
// moves nothing, it runs out after the whole time. If the client moves less than the rate, it runs out later. Waiting
// for somebody else spends nothing.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/clock.h"

namespace tidegate::l7 {

struct PatienceTerms {
  uint64_t whole_ns = 0;
  uint64_t bytes_per_s = 0;  // this many bytes restore one second of patience; 0: any byte restores all of it
};

class Patience {
 public:
  bool waiting() const { return waiting_; }

  // Call it while we wait for the client. Returns the time at which patience ends, unless the client moves bytes.
  uint64_t wait(const PatienceTerms& terms, uint64_t now_ns) {
    if (!waiting_) {
      waiting_ = true;
      since_ns_ = now_ns;
    }
    return since_ns_ + terms.whole_ns - std::min(spent_ns_, terms.whole_ns);
  }
  // Call it when we wait for somebody else.
  void pause(uint64_t now_ns) {
    spend(now_ns);
    waiting_ = false;
  }
  // Like wait(), but first restores patience for what the client has moved: `moved_bytes` in total so far.
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
  // True if bytes have moved since patience was last whole.
  bool trickles() const { return trickles_; }

 private:
  void spend(uint64_t now_ns) {
    if (!waiting_) return;
    spent_ns_ += now_ns - since_ns_;
    since_ns_ = now_ns;
  }

  uint64_t spent_ns_ = 0;
  uint64_t since_ns_ = 0;  // while waiting_: the time for which spent_ns_ is valid
  uint64_t moved_bytes_ = 0;
  bool waiting_ = false;
  bool trickles_ = false;
};

}  // namespace tidegate::l7
