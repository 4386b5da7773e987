// SPDX-License-Identifier: Apache-2.0
// EdgeMetrics: the state of the edge for an engineer on call: which backend, pool, VIP and site is up, since when, and
// when certificates end. The text is made at each scrape.
//
// Threads: the control's loop.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "conf/model.h"
#include "conf/snapshot.h"
#include "control/host_state.h"

namespace tidegate {

class EdgeMetrics {
 public:
  explicit EdgeMetrics(HostState& host_state);

  // Appends the families as Prometheus text.
  void append(std::string& out);

 private:
  // The state of one thing, and when this control first saw it (realtime). `key`: its name, or two names; views of the
  // model of `seen_`.
  using Key = std::pair<std::string_view, std::string_view>;
  struct State {
    Key key;
    bool up = false;
    uint64_t since_ns = 0;
  };
  struct Staple {
    int64_t until_s = 0;  // epoch; 0: no good answer
    uint32_t failures = 0;
    bool is_revoked = false;
  };
  using States = std::vector<State>;
  struct Series {
    std::string labels;
    bool up = false;
    uint64_t since_ns = 0;
  };
  class Noting;

  // Compares with the present snapshot and notes the time of each change. It makes no text, because it runs at each
  // change, and most things do not change.
  void look();
  void look_at_certificates(const Model& model);
  void look_at_ordered_certificates(const Snapshot& snapshot);
  void look_at_staples(const Snapshot& snapshot);
  void append_staples(std::string& out) const;
  std::vector<Series> backend_series() const;
  std::vector<Series> site_series() const;
  std::vector<Series> plane_series() const;
  static std::vector<Series> plain_series(const States& states, const char* label);
  static void append_family(std::string& out, const char* thing, const char* help, const std::vector<Series>& series);

  HostState& host_state_;
  std::shared_ptr<const Snapshot> seen_;
  States backends_, pools_, vips_, sites_, planes_;
  std::map<std::string, int64_t> certificates_;  // by rendered labels: when each one ends, in epoch seconds
  std::map<std::string, int64_t> ordered_;       // the same for certificates that come from an authority
  std::map<std::string, uint32_t> failures_;     // failed tries in a row for these
  std::map<std::string, Staple> staples_;        // of certificates with `ocsp`
  uint64_t certificates_version_ = UINT64_MAX;   // the version for which they were computed
};

}  // namespace tidegate
