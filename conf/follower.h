// SPDX-License-Identifier: Apache-2.0
// Follower: turns this host's state, or one YAML file, into Snapshots for one plane. It wakes by inotify on the notify
// file, with a slow poll as fallback; loads only objects it has not seen; calls back on its loop's thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "conf/snapshot.h"
#include "conf/state_store.h"
#include "core/event_loop.h"
#include "core/result.h"

namespace tidegate {

struct FollowerHooks {
  // A new Snapshot: publish it, then return; its time of application is reported as now. An Error refuses it: the old
  // Model stays in force, with new words as they come, until another version appears or this one, offered again after
  // a second and then ever more seldom, is taken.
  std::function<Result<void>(std::shared_ptr<const Snapshot>)> on_snapshot;
  // Purges in order, each exactly once while a Snapshot is in force; none before `prepare`. Where the log no longer
  // reaches back far enough, is another one, or cannot be read, one Purge of kind `all` stands for what is missing. May
  // be empty.
  std::function<void(const Purge&)> on_purge;
  // Before on_snapshot, until the first Snapshot is in force: opens what purges act on and returns the last one that it
  // has durably applied. Those after it are told next, and only then on_snapshot: nothing that was purged is served. An
  // Error refuses the Snapshot. May be empty: there is nothing to purge. Not called by of_file, which has no purges.
  std::function<Result<PurgePosition>(const std::shared_ptr<const Snapshot>&)> prepare;
};

class Follower {
 public:
  // A host's state. Waits (without failing) while there is no state or no version yet: control may start later. What is
  // there already is delivered before this returns. Another environment in the place of the one that is open is noticed
  // within a second, and followed.
  static Result<std::unique_ptr<Follower>> of_state(EventLoop& loop, const std::string& state_dir, FollowerHooks hooks);
  // One file, no control plane: everything up, reload() reads it again and keeps the old Snapshot when it is faulty.
  // The first Snapshot is delivered before this returns; an Error holds every fault, rendered.
  static Result<std::unique_ptr<Follower>> of_file(EventLoop& loop, const std::string& path, FollowerHooks hooks);
  virtual ~Follower() = default;

  virtual std::shared_ptr<const Snapshot> current() const = 0;  // null before the first
  virtual StateHead applied() const = 0;
  virtual uint64_t applied_at_ns() const = 0;  // realtime of the last on_snapshot's return
  // "version 8: why it is not in force"; empty when the newest one is.
  virtual const std::string& refused() const = 0;
  // Looks again at once. A file's faults come back as an Error; a state's refusals show in refused().
  virtual Result<void> reload() = 0;
};

}  // namespace tidegate
