// SPDX-License-Identifier: Apache-2.0
// Snapshot: all data from which a plane decides. It is immutable and published through one pointer. A request, packet
// burst or query keeps one Snapshot until it is done and sees no other. A change of live state shares the old Model.
// Each plane keeps its own derived tables beside the Snapshot.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "conf/live_state.h"
#include "conf/model.h"

namespace tidegate {

// Which work a backend may get. Overrides and health together decide it.
enum class BackendState : uint8_t {
  up,        // new and old work
  draining,  // old work only
  down,      // nothing
};
const char* name(BackendState state);

struct BackendStatus {
  BackendState state = BackendState::up;
  bool admin = false;       // under an override of its own or of its pool: not used even when the pool fails open
  bool taken_down = false;  // an override of its own or of its pool says so: its running work is ended
  // "probe: connect: refused", "drained by ops: upgrade", "no verdict yet"; empty if it is up for no special reason.
  std::string why;
};

struct PoolStatus {
  std::vector<BackendStatus> backends;  // parallel to Pool::backends
  bool up = true;                       // the share of weight that is up reaches up_threshold
  // All backends with weight and without an override are used, because no backend is up and all_down is open, or
  // because less weight is up than panic_threshold says.
  bool fail_open = false;
};

// The planes of a node. The values are indexes into NodeStatus::planes.
enum class PlaneKind : uint8_t { l4, l7, dns };
constexpr std::array<PlaneKind, 3> kPlaneKinds = {PlaneKind::l4, PlaneKind::l7, PlaneKind::dns};
const char* name(PlaneKind kind);

struct NodeStatus {
  std::array<BackendStatus, kPlaneKinds.size()> planes;  // planes that the node does not run are up
};

struct Snapshot {
  uint64_t version = 0;        // version of the configuration; 0 if it came from a file
  std::string version_digest;  // digest of the manifest (or of the file's content)
  // The version's model. A backend with a name that control looks up is replaced by the servers that were found.
  std::shared_ptr<const Model> model;
  std::shared_ptr<const Model> configured;  // the version's model without this replacement; often the same object
  std::shared_ptr<const LiveState> live_state;
  std::vector<PoolStatus> pools;   // parallel to Model::pools
  std::vector<bool> vip_up;        // parallel to Model::vips: it is not drained and every service's pool is up
  std::vector<bool> vip_drained;   // parallel to Model::vips: true if an override of the VIP or of its site drains it
  std::vector<bool> site_drained;  // parallel to Model::sites
  std::vector<NodeStatus> nodes;   // parallel to Model::nodes; empty while no record says anything about a plane
  std::vector<SiteLoad> loads;     // parallel to Model::sites; empty while no site sheds anything

  // True if new work may go to the backend: it is up, or its pool fails open and it is not under an override. Never
  // with weight 0.
  bool usable(uint32_t pool, uint32_t backend) const;
  const BackendStatus& plane(uint32_t node, PlaneKind kind) const;
};

// clang-format off
// Combines live state and model. Pure. These rules apply:
// - The worst state that anyone gives a backend counts (down, then draining).
// - An override on a pool counts for each of its backends.
// - An override on a site drains its VIPs for DNS. The backends and the L4 services on those VIPs continue, for clients
//   that still have the old answer.
// - An override on a VIP does the same to it alone, and one on a target does so to that target of one steer, which only
//   DNS knows of.
// - A probe's verdict counts only while the pool has a probe. A backend with a probe counts as down until its first
//   verdict, because no answer may contain an address that nobody has seen up. There are two exceptions: no backend of
//   the pool has a verdict and all_down is open; or the version is 0, because nobody probes when a file is used.
// - What a record says about a plane (conf/plane_health.h) counts for the backends that this plane is, and for the VIPs
//   of which it is the forwarder.
// - A backend of weight 0 is draining.
// - A pool is up if some backend is up and the weight of the backends that are up reaches up_threshold, as a share of
//   all weight in the pool, drained or not.
// - A VIP is up if neither it nor its site is drained, the pool of each of its services is up, and one of its forwarders
//   is up, if it has any. So a VIP without services and forwarders is up if it is not drained.
// clang-format on
//
// `previous`: the model in which found servers stand is taken from it, if both have the same version and names.
std::shared_ptr<const Snapshot> make_snapshot(uint64_t version, std::string version_digest,
                                              std::shared_ptr<const Model> model,
                                              std::shared_ptr<const LiveState> live_state,
                                              const Snapshot* previous = nullptr);

}  // namespace tidegate
