// SPDX-License-Identifier: Apache-2.0
// HostState: this host's state inside the control. It is the only writer of the StateStore. It keeps the manifest and
// the model of the version in force and the live state in memory. It notifies its listeners of each change: watchers,
// replicas, the prober.
//
// Threads: the control's loop only, except where a function says otherwise. Listeners run inside the call that writes,
// after the commit. A version is written outside of the loop (decide_version), because a large one takes long: also to
// try it before a journal decides, and to store it afterwards. No other write begins until it is finished: writes of
// decide() wait for their turn, and a write of another role blocks the loop until then.
#pragma once

#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "conf/model.h"
#include "conf/snapshot.h"
#include "conf/state_store.h"
#include "conf/working_copy.h"
#include "core/result.h"

namespace tidegate {

class Background;
class EventLoop;
class ModelBuilder;
struct Plans;

// The parts of the head that a write has changed.
struct HostStateChange {
  bool version = false, live_state = false, purge = false;
};

// Decides the writes of several hosts. The embedded state decides by itself and has no journal.
class WriteJournal {
 public:
  virtual ~WriteJournal() = default;
  // Lets the journal decide a write, after all earlier writes. Calls `done` once, from the loop, never before append()
  // returns. An Error begins with kNotDecided or kNotKnown.
  virtual void append(std::shared_ptr<const WriteSet> set, std::function<void(Result<JournalPosition>)> done) = 0;
  // The write was decided, but this host cannot store it.
  virtual void not_stored(const Error& why) = 0;
  // This host stored a write that was not decided. So its position has no digest any more.
  virtual void left_position() = 0;
};
// The beginning of an error: the write has changed nothing, and will change nothing.
inline constexpr std::string_view kNotDecided = "not decided: ";
// The beginning of an error: the answer was lost, and the write may have been decided. A client that repeats the
// request with the same Idempotency-Key learns the result.
inline constexpr std::string_view kNotKnown = "not known whether it is decided: ";

// The outcome of a failed write that returns an R.
template <class R>
struct FailedWrite {
  static R of(Error why) { return R(std::move(why)); }
};

class HostState {
 public:
  static Result<std::unique_ptr<HostState>> open(const std::string& state_dir,
                                                 size_t versions_kept = StateStore::kVersionsKept,
                                                 const std::string& secrets_group = {});

  ~HostState();

  // From now on decide_version() writes outside of `loop`, on a thread.
  void write_versions_beside(EventLoop& loop);

  const StateStore& store() const { return *store_; }
  const StateHead& head() const { return head_; }
  // version 0 and empty before the first version; valid until the next write
  const Manifest& manifest() const { return *manifest_; }
  const std::shared_ptr<const Manifest>& shared_manifest() const { return manifest_; }  // never null
  std::shared_ptr<const Model> model() const { return model_; }                         // null before the first
  std::shared_ptr<const LiveState> live_state() const { return live_state_; }           // never null
  // The plans of the last version that this control has checked; null before the first.
  const std::shared_ptr<const Plans>& plans() const { return plans_; }
  void keep_plans(std::shared_ptr<const Plans> plans) { plans_ = std::move(plans); }
  // Model and live state combined, as every plane combines them. Null before the first version.
  std::shared_ptr<const Snapshot> snapshot() const;
  // The model in force with the servers that were found by names (conf/found_backends.h). It is the same object as long
  // as neither changes.
  std::shared_ptr<const Model> model_with_servers() const;
  // Returns the document of a version and, in `files`, its files by their path in the document. Both are empty for
  // version 0. Any thread may call it, because it only reads the store.
  Result<std::unique_ptr<Document>> document(const Manifest& manifest, FileReader& files) const;

  // A working copy of the version in force, to try a change of one element. Null until keep_working_copy() was called
  // for that version.
  WorkingCopy* working_copy();
  void keep_working_copy(uint64_t version, std::unique_ptr<WorkingCopy> copy);
  // Gives the working copy away, for use on another thread. Null if there is none.
  std::unique_ptr<WorkingCopy> take_working_copy();

  // Decides a write. `write` calls one of the writing functions below and returns its result. Without a journal `done`
  // is called at once. With one, it is called when the write is decided and stored here, or was refused.
  template <class R>
  void decide(std::function<R()> write, std::function<void(R)> done) {
    if (journal_ == nullptr && !deciding_) {
      end_work_beside();
      return done(write());
    }
    if (std::optional<Error> refused = refuse_waiting()) return done(FailedWrite<R>::of(*std::move(refused)));
    waiting_.push_back([this, write = std::move(write), done = std::move(done)] {
      if (journal_ == nullptr) {
        R result = write();
        deciding_ = false;
        done(std::move(result));
        return decide_next();
      }
      auto result = std::make_shared<R>(FailedWrite<R>::of(Error{}));
      try_write([&] { *result = write(); },
                [result, done](std::optional<Error> fault) {
                  if (fault) return done(FailedWrite<R>::of(*std::move(fault)));
                  done(std::move(*result));
                });
    });
    decide_next();
  }
  // Decides the write of a version. `write` is called outside of the loop. It must not touch what the loop changes,
  // except through the writing function that it calls. `refuse` is called first, on the loop. An Error of `refuse`
  // refuses the write.
  template <class R>
  void decide_version(
      std::function<R()> write, std::function<void(R)> done,
      std::function<std::optional<Error>()> refuse = [] { return std::optional<Error>(); }) {
    if (!writes_) {
      auto checked = [write = std::move(write), refuse = std::move(refuse)] {
        std::optional<Error> why = refuse();
        return why ? FailedWrite<R>::of(*std::move(why)) : write();
      };
      return decide<R>(std::move(checked), std::move(done));
    }
    if (std::optional<Error> refused = refuse_waiting()) return done(FailedWrite<R>::of(*std::move(refused)));
    waiting_.push_back([this, write = std::move(write), done = std::move(done), refuse = std::move(refuse)] {
      if (std::optional<Error> why = refuse()) {
        deciding_ = false;
        done(FailedWrite<R>::of(*std::move(why)));
        return decide_next();
      }
      auto result = std::make_shared<R>(FailedWrite<R>::of(fail("state: the write broke off; the log says why")));
      auto work = [write, result] { *result = write(); };
      auto then = [result, done](std::optional<Error> fault) {
        done(fault ? FailedWrite<R>::of(*std::move(fault)) : std::move(*result));
      };
      journal_ == nullptr ? write_beside(std::move(work), std::move(then))
                          : try_beside(std::move(work), std::move(then));
    });
    decide_next();
  }
  // Called before and after another host's write is adopted. If `before` returns an Error, the write is not adopted.
  struct AdoptionHooks {
    std::function<Result<void>(const WriteSet&)> before;
    std::function<void()> after;
  };
  void set_adoption_hooks(AdoptionHooks hooks) { adoption_hooks_ = std::move(hooks); }
  // From now on all writes go through decide(). The journal must outlive this object's last write.
  void set_journal(WriteJournal* journal) { journal_ = journal; }
  bool has_journal() const { return journal_ != nullptr; }
  // Call it at the end: waiting writes will not be decided, and their exchanges must be destroyed before their server.
  // A version that is being written is committed before this returns, but nobody is told.
  void forget_waiting();
  // Adopts another control's write. Called by the journal. A large one is stored and read outside of the loop. `done`
  // is called on the loop, now or later. One write at a time.
  using Adopted = std::function<void(Result<void>)>;
  void adopt(std::shared_ptr<const WriteSet> set, const JournalPosition& position, Adopted done);
  Result<void> set_journal_position(const JournalPosition& position) {
    end_work_beside();
    return recorded_void(store_->set_journal_position(position));
  }

  void subscribe(std::function<void(const HostStateChange&)> listener) { listeners_.push_back(std::move(listener)); }

  // The result of checking these objects.
  struct Judged {
    std::shared_ptr<const Model> model;
    std::shared_ptr<const Plans> plans;
  };
  // Writes a version, and returns its manifest without the entries. The same holds for commit_tried().
  Result<Manifest> commit(const std::vector<ConfigObject>& objects, Judged judged, uint64_t expected_head,
                          std::string_view who, std::string_view comment, uint64_t rollback_of,
                          const AnswerTo<Manifest>& answer);
  // Commits the object that working_copy() tried last.
  Result<Manifest> commit_tried(WorkingCopy::Tried tried, std::shared_ptr<const Plans> plans, uint64_t expected_head,
                                std::string_view who, std::string_view comment);
  // See StateStore::set_next_provisional.
  void set_next_provisional(std::string record) { store_->set_next_provisional(std::move(record)); }
  Result<void> end_provisional(uint64_t version, std::string_view who) {
    return recorded_void(store_->end_provisional(version, who));
  }
  Result<uint64_t> set_override(const std::string& key, const std::optional<Override>& record, std::string_view who);
  Result<uint64_t> set_verdicts(const std::vector<std::pair<std::string, std::optional<HealthVerdict>>>& verdicts);
  // Verdicts for this host only, while its leader is silent.
  Result<uint64_t> set_site_verdicts(const std::vector<std::pair<std::string, std::optional<HealthVerdict>>>& verdicts);
  Result<uint64_t> set_loads(const std::vector<std::pair<std::string, std::optional<SiteLoad>>>& loads);
  Result<uint64_t> set_names(const std::vector<std::pair<std::string, std::optional<FoundName>>>& names);
  Result<uint64_t> set_certificates(const CertificateChanges& changes);
  Result<uint64_t> add_purge(PurgeKind kind, std::string_view value, bool soft, std::string_view who,
                             const AnswerTo<uint64_t>& answer);
  // Stores the answer to a request that changed nothing, or replaces the one that was committed with the change.
  Result<void> keep_answer(const KeptAnswer& kept);
  // Stores the commit of another host's control. A version is stored and read outside of the loop: see adopt().
  using NewObjects = std::vector<std::pair<std::string, std::string>>;  // hash and bytes
  void replicate_version(Manifest manifest, NewObjects new_objects, Adopted done);
  // If something is being written outside of the loop, waits for it and takes it up.
  void settle() { end_work_beside(); }
  Result<void> replicate_live_state(const LiveState& live_state, const std::vector<std::string>& new_objects = {});
  Result<void> replicate_purge(const Purge& purge);

  // Frees it outside of the loop, if this is the last reference: a large version or message.
  void let_go(std::shared_ptr<const void> of_last_version) const;

 private:
  explicit HostState(std::unique_ptr<StateStore> store);
  // The version in force as it is read from the store.
  struct InForce {
    std::shared_ptr<const Manifest> manifest;
    std::shared_ptr<const Model> model;  // null if this release cannot read it
  };
  Result<InForce> read_version(uint64_t version) const;  // any thread
  // Reads another host's version. `models` has the model of the previous version: if no element came or went since
  // then, only the changed elements are read. The control that committed the version has judged the whole.
  Result<InForce> read_next_version(uint64_t version, ModelBuilder& models) const;
  void take_read(InForce in_force);
  Result<void> reload_live_state();
  void notify(const HostStateChange& change);
  // Records the outcome of a write: it counts failures, logs the first one of a series, and logs the end of the series.
  template <class T>
  Result<T> recorded(Result<T> written);
  void note(const Error* fault);
  Result<void> recorded_void(Result<void> written);
  // Work that follows the commit of a write. In a trial it waits for the decision.
  void take_up(std::function<void()> change);
  std::optional<Error> refuse_waiting() const;
  void decide_next();
  using Finished = std::function<void(std::optional<Error>)>;
  void write_beside(std::function<void()> write, Finished done);
  void try_beside(std::function<void()> write, Finished done);
  void store_beside(std::shared_ptr<const WriteSet> set, const JournalPosition& position, Finished done);
  // Runs `work` outside of the loop. Then, on the loop, calls `take_up` and `then`. end_work_beside() calls `take_up`
  // earlier.
  void run_beside(std::function<void()> work, std::function<void()> take_up, std::function<void()> then);
  // Stores another host's write with `store`, outside of the loop if it is large. Then takes up the changes.
  struct OtherWrite;
  void store_other(std::function<Result<void>()> store, bool large, OtherWrite write, Adopted done);
  // If something is being written outside of the loop, waits for it and takes it up.
  void end_work_beside();
  void take_version(std::shared_ptr<const Manifest> manifest, std::shared_ptr<const Model> model,
                    std::shared_ptr<const Plans> plans);
  void try_write(const std::function<void()>& write, Finished done);
  void have_decided(std::shared_ptr<const WriteSet> set, bool beside, Finished done);
  void finish_write(const Finished& done, std::optional<Error> fault);

  std::unique_ptr<StateStore> store_;
  StateHead head_;
  std::shared_ptr<const Manifest> manifest_ = std::make_shared<Manifest>();
  std::shared_ptr<const Model> model_;
  // The model in force, if another host committed it. Otherwise empty: a second model would cost memory. Only the
  // thread that stores another host's write uses it.
  std::shared_ptr<ModelBuilder> models_;
  std::shared_ptr<const Plans> plans_;
  std::shared_ptr<const LiveState> live_state_ = std::make_shared<LiveState>();
  mutable std::shared_ptr<const Snapshot> last_snapshot_;
  std::unique_ptr<WorkingCopy> working_copy_;  // a copy of the version in force
  uint64_t working_copy_version_ = 0;
  std::vector<std::function<void(const HostStateChange&)>> listeners_;
  bool last_write_failed_ = false;
  WriteJournal* journal_ = nullptr;
  AdoptionHooks adoption_hooks_;
  std::deque<std::function<void()>> waiting_;  // writes that wait for the one in progress
  bool deciding_ = false, trying_ = false;
  // follow-up of the write that is tried, or that is made outside of the loop
  std::function<void()> take_up_;
  uint64_t writes_of_others_ = 0;  // writes that were not decided for this host; a trial from before one is void
  struct Beside {
    uint64_t id;
    std::future<void> written;
    std::function<void()> take_up;
  };
  uint64_t next_beside_ = 1;
  std::optional<Beside> beside_;        // set while something is written outside of the loop
  std::unique_ptr<Background> writes_;  // null: everything is written on the loop
};

}  // namespace tidegate
