// SPDX-License-Identifier: Apache-2.0
// Follower: turns this host's state, or one YAML file, into Snapshots for one plane. inotify on the notify file wakes
// it, with a slow poll as fallback. It loads only objects that it has not seen, and calls back on its loop's thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "conf/candidate.h"
#include "conf/fault.h"
#include "conf/model.h"
#include "conf/snapshot.h"
#include "conf/state_store.h"
#include "core/event_loop.h"
#include "core/result.h"

namespace tidegate {

struct FollowerHooks {
  // A new Snapshot: publish it, then return. The time of the return is reported as the time of application. An Error
  // refuses the Snapshot. Then the old Model stays in force until another version is accepted, and still gets new live
  // state. The refused version is offered again after one second, then at growing intervals.
  std::function<Result<void>(std::shared_ptr<const Snapshot>)> on_snapshot;
  // Purges in order, each exactly once while a Snapshot is in force, and none before `prepare`. If the log does not
  // reach back far enough, is another log, or cannot be read, one Purge of kind `all` replaces the missing ones. May be
  // empty.
  std::function<void(const Purge&)> on_purge;
  // Called before on_snapshot until the first Snapshot is in force. It opens the store to which purges apply (the
  // cache), and returns the last purge that this store has durably applied. The follower then delivers the purges after
  // that one, and only then calls on_snapshot, so nothing that was purged is served. An Error refuses the Snapshot. May
  // be empty if there is nothing to purge. of_file does not call it, because a file has no purges.
  std::function<Result<PurgePosition>(const std::shared_ptr<const Snapshot>&)> prepare;
  // Returns the faults in a file's content that only the plane can find, with their place or with the pointer alone.
  // Any fault refuses the file. It is not called for versions of a state, because they were judged before the commit.
  // May be empty.
  std::function<std::vector<Fault>(const std::shared_ptr<const Model>&)> judge;
  // Prepares a candidate: acquires all that the Snapshot needs and this process does not have yet (ports, certificates,
  // databases), without any effect on what is served. The plane holds the candidate only if the vote is yes. The next
  // on_snapshot of the same Model uses what is held. May be empty: then the vote is yes.
  std::function<Vote(const std::shared_ptr<const Snapshot>&)> hold;
  // Releases what is still held. It may be called when nothing is held. May be empty.
  std::function<void()> release;
  // The name of the plane. If it is set, of_state() remembers the last served version (conf/served_version.h). If the
  // plane refuses the first version that the follower finds, the remembered one is put in force, and the newest is
  // offered again as always. If it is empty, nothing is remembered.
  std::string plane;
  // True if the plane uses the private keys of certificates. If it is false, the plane's Models have no keys, and the
  // plane opens no file that contains one.
  bool private_keys = false;
};

class Follower {
 public:
  // Follows a host's state. While there is no state or no version yet, it waits without failing: control may start
  // later. A version that exists already is delivered before this returns. If another environment replaces the open
  // one, the follower notices within a second and follows the new one.
  static Result<std::unique_ptr<Follower>> of_state(EventLoop& loop, const std::string& state_dir, FollowerHooks hooks);
  // Follows one file without a control plane: everything counts as up. reload() reads the file again, and keeps the old
  // Snapshot if the file is faulty. The first Snapshot is delivered before this returns. An Error contains every fault,
  // formatted.
  static Result<std::unique_ptr<Follower>> of_file(EventLoop& loop, const std::string& path, FollowerHooks hooks);
  virtual ~Follower() = default;

  virtual std::shared_ptr<const Snapshot> current() const = 0;  // null before the first
  virtual StateHead applied() const = 0;
  virtual uint64_t applied_at_ns() const = 0;  // realtime at which the last on_snapshot returned
  // "version 8: why it is not in force", or why the state cannot be read. Empty if the newest version is in force and
  // the state can be read.
  virtual const std::string& refused() const = 0;
  // The newest version that was found. It differs from applied().version while that version is refused.
  virtual uint64_t newest() const { return applied().version; }
  // Prepares a candidate, and holds it until release(), a newer candidate, the version that it becomes, or
  // Holding::kHeldNs.
  virtual Vote hold(const CandidateVersion&) { return Vote::behind("it serves a file and follows no state"); }
  virtual void release(uint64_t /*candidate*/) {}
  virtual uint64_t held() const { return 0; }  // the id of the held candidate; 0: none
  // Checks again at once. Faults of a file are returned as an Error; refusals of a state appear in refused().
  virtual Result<void> reload() = 0;
};

}  // namespace tidegate
