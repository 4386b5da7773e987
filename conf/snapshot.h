// Snapshot: everything a plane decides by, immutable, published by one pointer. A request, packet burst or query pins
// one and sees no other until it is done. A change of words shares the old Model; a plane's own derived tables hang
// beside it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "conf/model.h"
#include "conf/words.h"

namespace tidegate {

// What may be sent to a backend, after admin and health words were weighed together.
enum class BackendState : uint8_t {
  up,        // new and old work
  draining,  // old work only
  down,      // nothing
};
const char* name(BackendState state);

struct BackendStatus {
  BackendState state = BackendState::up;
  std::string why;  // "probe: connect refused", "drained by ops: upgrade", "no verdict yet", empty when plainly up
};

struct PoolStatus {
  std::vector<BackendStatus> backends;  // parallel to Pool::backends
  bool up = true;                       // the share of weight that is up reaches up_threshold
  bool fail_open = false;  // none is up and all_down is open: every backend not under an admin word is used
};

struct Snapshot {
  uint64_t version = 0;        // of the configuration; 0 when it came from a file
  std::string version_digest;  // of the manifest (or of the file's content)
  std::shared_ptr<const Model> model;
  std::shared_ptr<const Words> words;
  std::vector<PoolStatus> pools;   // parallel to Model::pools
  std::vector<bool> vip_up;        // parallel to Model::vips: site not drained and every service's pool up
  std::vector<bool> site_drained;  // parallel to Model::sites

  // True when new work may go to the backend: up, or fail-open and not under an admin word; weight 0 never.
  bool usable(uint32_t pool, uint32_t backend) const;
};

// Weighs words against the model: pure. A drained pool drains its backends; a drained site drains its VIPs for DNS and
// the L4 services on them go on. A backend whose pool has a probe and that has no verdict yet counts as down until its
// first one (never answer with an address nobody has seen up), unless none in the pool has a verdict and all_down is
// open.
std::shared_ptr<const Snapshot> make_snapshot(uint64_t version, std::string version_digest,
                                              std::shared_ptr<const Model> model, std::shared_ptr<const Words> words);

}  // namespace tidegate
