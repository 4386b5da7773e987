// SPDX-License-Identifier: Apache-2.0
// Snapshot: everything a plane decides by, immutable, published by one pointer. A request, packet burst or query pins
// one and sees no other until it is done. A change of live state shares the old Model; a plane's own derived tables
// hang beside it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "conf/live_state.h"
#include "conf/model.h"

namespace tidegate {

// What may be sent to a backend, after overrides and health were weighed together.
enum class BackendState : uint8_t {
  up,        // new and old work
  draining,  // old work only
  down,      // nothing
};
const char* name(BackendState state);

struct BackendStatus {
  BackendState state = BackendState::up;
  bool admin = false;  // under an override, its own or its pool's: never used by failing open
  std::string why;     // "probe: connect: refused", "drained by ops: upgrade", "no verdict yet", empty when plainly up
};

struct PoolStatus {
  std::vector<BackendStatus> backends;  // parallel to Pool::backends
  bool up = true;                       // the share of weight that is up reaches up_threshold
  bool fail_open = false;               // none is up, all_down is open: each with weight and no override is used
};

struct Snapshot {
  uint64_t version = 0;        // of the configuration; 0 when it came from a file
  std::string version_digest;  // of the manifest (or of the file's content)
  std::shared_ptr<const Model> model;
  std::shared_ptr<const LiveState> live_state;
  std::vector<PoolStatus> pools;   // parallel to Model::pools
  std::vector<bool> vip_up;        // parallel to Model::vips: site not drained and every service's pool up
  std::vector<bool> site_drained;  // parallel to Model::sites

  // True when new work may go to the backend: up, or fail-open and not under an override; weight 0 never.
  bool usable(uint32_t pool, uint32_t backend) const;
};

// Weighs live state against the model: pure. The worst that is said of a backend holds (down, then draining).
// - An override on a pool counts for each of its backends. One on a site drains its VIPs, for DNS; backends and the
// L4
//   services on those VIPs go on, for clients that still hold the old answer.
// - A probe's verdict counts only while the pool has a probe. A backend with a probe and no verdict counts as down
// until
//   its first one (never answer with an address nobody has seen up), unless none in the pool has a verdict and all_down
//   is open; and but for version 0: beside a file there is nobody who probes.
// - A backend of weight 0 is draining. A pool is up when some backend is, and their part of all weight in it, drained
// or
//   not, reaches up_threshold. A VIP without services is up when its site is not drained.
std::shared_ptr<const Snapshot> make_snapshot(uint64_t version, std::string version_digest,
                                              std::shared_ptr<const Model> model,
                                              std::shared_ptr<const LiveState> live_state);

}  // namespace tidegate
