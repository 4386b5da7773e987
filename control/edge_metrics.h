// SPDX-License-Identifier: Apache-2.0
// EdgeMetrics: what an on-call engineer asks of the edge's state: which backend, pool, VIP and site is up, since when,
// and when certificates end. One family a question, one series a thing; written when scraped.
//
// Threads: the control's loop.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "conf/snapshot.h"
#include "control/host_state.h"

namespace tidegate {

class EdgeMetrics {
 public:
  explicit EdgeMetrics(HostState& host_state);

  // Appends the families as Prometheus text.
  void append(std::string& out);

 private:
  // Of one thing: its state, and when it came to it (realtime).
  struct Seen {
    double value = 0;
    uint64_t since_ns = 0;
  };
  using Series = std::map<std::string, Seen>;  // by rendered labels

  // Takes the snapshot as it is now and notes the time of what has changed.
  void look();
  void look_at_certificates(const Model& model);
  static void append_family(std::string& out, const char* thing, const char* help, const Series& series);

  HostState& host_state_;
  Series backends_, pools_, vips_, sites_;
  std::map<std::string, int64_t> certificates_;  // the end of each, epoch seconds, by rendered labels
  uint64_t certificates_version_ = UINT64_MAX;   // which they are of
};

}  // namespace tidegate
