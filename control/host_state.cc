// SPDX-License-Identifier: Apache-2.0
#include "control/host_state.h"

#include <fmt/format.h>

#include <utility>

#include "conf/model_builder.h"
#include "control/api/background.h"
#include "control/apply.h"
#include "control/limits.h"
#include "core/assert.h"
#include "core/log.h"
#include "core/metrics.h"

namespace tidegate {

namespace {

// A write of this host, and one of another control that comes before the loop has heard of its end.
constexpr size_t kWritesBeside = 2;
// A version of so many entries is stored, read and checked on the loop, which takes milliseconds. The same for a write
// of so many changes.
constexpr size_t kEntriesAdoptedAtOnce = 100;

}  // namespace

struct HostState::OtherWrite {
  std::shared_ptr<const WriteSet> set;  // null: a version
  bool whole = false;
  std::function<void()> after;
};

HostState::HostState(std::unique_ptr<StateStore> store) : store_(std::move(store)) {}
HostState::~HostState() = default;

void HostState::write_versions_beside(EventLoop& loop) {
  writes_ = std::make_unique<Background>(loop, "control-writes", kWritesBeside);
}

void HostState::forget_waiting() {
  waiting_.clear();
  writes_.reset();
  beside_.reset();
  take_up_ = nullptr;
  trying_ = false;
}

Result<std::unique_ptr<HostState>> HostState::open(const std::string& state_dir, size_t versions_kept,
                                                   const std::string& secrets_group) {
  Result<std::unique_ptr<StateStore>> store = StateStore::open(state_dir, StateStore::Mode::read_write, secrets_group);
  if (!store) return store.error();
  (*store)->keep_versions(versions_kept);
  std::unique_ptr<HostState> host_state(new HostState(std::move(*store)));
  const Result<StateHead> head = host_state->store_->head();
  if (!head) return head.error();
  host_state->head_ = *head;
  if (head->version != 0) {
    Result<InForce> in_force = host_state->read_version(head->version);
    if (!in_force) return in_force.error();
    host_state->take_read(*std::move(in_force));
  }
  if (Result<void> loaded = host_state->reload_live_state(); !loaded) return loaded.error();
  return host_state;
}

Result<HostState::InForce> HostState::read_version(uint64_t version) const {
  Result<Manifest> manifest = store_->manifest(version);
  if (!manifest) return manifest.error();
  FileReader files;
  Result<std::unique_ptr<Document>> assembled = document(*manifest, files);
  if (!assembled) return assembled.error();
  std::vector<Fault> faults;
  InForce in_force;
  in_force.model = load_model(**assembled, files, faults);
  in_force.manifest = std::make_shared<const Manifest>(*std::move(manifest));
  if (!in_force.model) {
    // Another release committed it with other rules. It stays in force. Each plane decides itself what to do with it.
    log_error("version {} does not pass this release's validation:\n{}", version, render_faults(faults, "", false));
  }
  return in_force;
}

Result<HostState::InForce> HostState::read_next_version(uint64_t version, ModelBuilder& models) const {
  Result<Manifest> manifest = store_->manifest(version);
  if (!manifest) return manifest.error();
  InForce in_force;
  in_force.manifest = std::make_shared<const Manifest>(*std::move(manifest));
  const Result<std::shared_ptr<const Model>> model = models.build(*store_, *in_force.manifest);
  if (!model) return read_version(version);  // which names the fault, also if there is no such version
  in_force.model = *model;
  return in_force;
}

void HostState::take_read(InForce in_force) {
  let_go(std::exchange(manifest_, std::move(in_force.manifest)));
  if (in_force.model) let_go(std::exchange(model_, std::move(in_force.model)));
}

Result<void> HostState::reload_live_state() {
  Result<LiveState> live_state = store_->live_state();
  if (!live_state) return live_state.error();
  live_state_ = std::make_shared<const LiveState>(std::move(*live_state));
  return {};
}

std::shared_ptr<const Snapshot> HostState::snapshot() const {
  if (!model_) return nullptr;
  const std::shared_ptr<const Snapshot> before = last_snapshot_;
  last_snapshot_ = make_snapshot(manifest_->version, manifest_->digest, model_, live_state_, before.get());
  if (before && before->configured != model_) let_go(before);
  return last_snapshot_;
}

std::shared_ptr<const Model> HostState::model_with_servers() const {
  if (!model_ || live_state_->names.empty()) return model_;
  const bool is_current =
      last_snapshot_ && last_snapshot_->configured == model_ && last_snapshot_->live_state->names == live_state_->names;
  return is_current ? last_snapshot_->model : snapshot()->model;
}

Result<std::unique_ptr<Document>> HostState::document(const Manifest& manifest, FileReader& files) const {
  files = files_from({});
  const Result<std::vector<ConfigObject>> objects = store_->objects(manifest);
  if (!objects) return objects.error();
  std::unique_ptr<Document> document = assemble_document(*objects, files);
  if (!document) return fail(fmt::format("the objects of version {} do not fit together", manifest.version));
  return document;
}

void HostState::notify(const HostStateChange& change) {
  const Result<StateHead> head = store_->head();
  if (head) {
    head_ = *head;
  } else {
    log_error("cannot read the head of the state after a commit: {}", head.error().message);
  }
  if (change.live_state) {
    if (Result<void> loaded = reload_live_state(); !loaded) {
      log_error("cannot read the live state after a commit: {}", loaded.error().message);
    }
  }
  for (const auto& listener : listeners_) listener(change);
}

void HostState::note(const Error* fault) {
  if (fault == nullptr) {
    if (std::exchange(last_write_failed_, false)) log_info("the state can be written again");
    return;
  }
  if (fault->message.starts_with("conflict")) return;  // the caller's fault, not the disk's
  metrics()
      .counter("tidegate_control_state_write_failures_total", "Writes of the state that failed, by reason.",
               {{"reason", is_disk_full(*fault) ? "disk_full" : "other"}})
      .add();
  if (!std::exchange(last_write_failed_, true)) log_error("cannot write the state: {}", fault->message);
}

template <class T>
Result<T> HostState::recorded(Result<T> written) {
  note(written ? nullptr : &written.error());
  return written;
}

Result<void> HostState::keep_answer(const KeptAnswer& kept) { return recorded(store_->keep_answer(kept)); }

Result<Manifest> HostState::commit(const std::vector<ConfigObject>& objects, Judged judged, uint64_t expected_head,
                                   std::string_view who, std::string_view comment, uint64_t rollback_of,
                                   const AnswerTo<Manifest>& answer) {
  TIDEGATE_ASSERT(judged.model != nullptr, "only a valid configuration is committed");
  Result<Manifest> manifest =
      recorded(store_->commit_version(objects, expected_head, who, comment, rollback_of, answer));
  if (!manifest) return manifest;
  const auto committed = std::make_shared<const Manifest>(*std::move(manifest));
  take_up([this, committed, judged = std::move(judged)] { take_version(committed, judged.model, judged.plans); });
  return without_entries(*committed);
}

void HostState::take_version(std::shared_ptr<const Manifest> manifest, std::shared_ptr<const Model> model,
                             std::shared_ptr<const Plans> plans) {
  let_go(std::exchange(manifest_, std::move(manifest)));
  let_go(std::exchange(model_, std::move(model)));
  let_go(std::exchange(plans_, std::move(plans)));
  let_go(std::exchange(models_, nullptr));
  notify({.version = true});
}

// Frees the last references to a large version outside of the loop.
void HostState::let_go(std::shared_ptr<const void> of_last_version) const {
  if (writes_ && of_last_version) {
    writes_->discard(std::make_shared<std::shared_ptr<const void>>(std::move(of_last_version)));
  }
}

WorkingCopy* HostState::working_copy() {
  return working_copy_ && working_copy_version_ == manifest_->version ? working_copy_.get() : nullptr;
}

void HostState::keep_working_copy(uint64_t version, std::unique_ptr<WorkingCopy> copy) {
  TIDEGATE_ASSERT(version <= manifest_->version, "a working copy is of a version that exists");
  working_copy_ = std::move(copy);
  working_copy_version_ = version;
}

std::unique_ptr<WorkingCopy> HostState::take_working_copy() {
  return working_copy() == nullptr ? nullptr : std::move(working_copy_);
}

Result<Manifest> HostState::commit_tried(WorkingCopy::Tried tried, std::shared_ptr<const Plans> plans,
                                         uint64_t expected_head, std::string_view who, std::string_view comment) {
  TIDEGATE_ASSERT(working_copy() != nullptr, "an element is tried on the version in force");
  TIDEGATE_ASSERT(tried.model != nullptr, "only a valid element is committed");
  Result<Manifest> manifest = recorded(store_->commit_change(tried.object, expected_head, who, comment));
  if (!manifest) return manifest;
  const auto committed = std::make_shared<const Manifest>(*std::move(manifest));
  const auto kept = std::make_shared<WorkingCopy::Tried>(std::move(tried));
  take_up([this, committed, kept, plans = std::move(plans)] {
    const std::shared_ptr<const Model> model = kept->model;
    working_copy_->keep(std::move(*kept));
    working_copy_version_ = committed->version;
    take_version(committed, model, plans);
  });
  return without_entries(*committed);
}

Result<uint64_t> HostState::set_override(const std::string& key, const std::optional<Override>& record,
                                         std::string_view who) {
  Result<uint64_t> sequence = recorded(store_->set_override(key, record, who));
  if (sequence) take_up([this] { notify({.live_state = true}); });
  return sequence;
}

Result<uint64_t> HostState::set_verdicts(
    const std::vector<std::pair<std::string, std::optional<HealthVerdict>>>& verdicts) {
  Result<uint64_t> sequence = recorded(store_->set_verdicts(verdicts));
  if (sequence) take_up([this] { notify({.live_state = true}); });
  return sequence;
}

Result<uint64_t> HostState::set_site_verdicts(
    const std::vector<std::pair<std::string, std::optional<HealthVerdict>>>& verdicts) {
  end_work_beside();
  ++writes_of_others_;
  Result<uint64_t> sequence = recorded(store_->set_site_verdicts(verdicts));
  if (!sequence) return sequence;
  if (journal_ != nullptr) journal_->left_position();
  notify({.live_state = true});
  return sequence;
}

Result<uint64_t> HostState::set_loads(const std::vector<std::pair<std::string, std::optional<SiteLoad>>>& loads) {
  Result<uint64_t> sequence = recorded(store_->set_loads(loads));
  if (sequence) take_up([this] { notify({.live_state = true}); });
  return sequence;
}

Result<uint64_t> HostState::set_names(const std::vector<std::pair<std::string, std::optional<FoundName>>>& names) {
  Result<uint64_t> sequence = recorded(store_->set_names(names));
  if (sequence) take_up([this] { notify({.live_state = true}); });
  return sequence;
}

Result<uint64_t> HostState::set_certificates(const CertificateChanges& changes) {
  Result<uint64_t> sequence = recorded(store_->set_certificates(changes));
  if (sequence) take_up([this] { notify({.live_state = true}); });
  return sequence;
}

Result<uint64_t> HostState::add_purge(PurgeKind kind, std::string_view value, bool soft, std::string_view who,
                                      const AnswerTo<uint64_t>& answer) {
  Result<uint64_t> sequence = recorded(store_->add_purge(kind, value, soft, who, answer));
  if (sequence) take_up([this] { notify({.purge = true}); });
  return sequence;
}

void HostState::replicate_version(Manifest manifest, NewObjects new_objects, Adopted done) {
  end_work_beside();
  const size_t entries = manifest.entries.size();
  auto store = [this, manifest = std::move(manifest), new_objects = std::move(new_objects)] {
    return store_->replicate_version(manifest, new_objects);
  };
  store_other(std::move(store), entries > kEntriesAdoptedAtOnce, {}, std::move(done));
}

Result<void> HostState::replicate_live_state(const LiveState& live_state, const std::vector<std::string>& new_objects) {
  end_work_beside();
  Result<void> replicated = recorded(store_->replicate_live_state(live_state, new_objects));
  if (replicated) notify({.live_state = true});
  return replicated;
}

Result<void> HostState::replicate_purge(const Purge& purge) {
  end_work_beside();
  Result<void> replicated = recorded(store_->replicate_purge(purge));
  if (replicated) notify({.purge = true});
  return replicated;
}

// --- writes that are decided elsewhere

Result<void> HostState::recorded_void(Result<void> written) { return recorded(std::move(written)); }

void HostState::take_up(std::function<void()> change) {
  TIDEGATE_ASSERT(journal_ == nullptr || trying_, "with a journal, writes are decided there");
  if (!trying_) return change();
  TIDEGATE_ASSERT(!take_up_, "one write is tried at a time");
  take_up_ = std::move(change);
}

std::optional<Error> HostState::refuse_waiting() const {
  if (waiting_.size() < kMaxWaitingWrites) return std::nullopt;
  metrics()
      .counter("tidegate_control_etcd_refused_writes_total", "Writes that were refused because as many wait as may.")
      .add();
  return fail(std::string(kNotDecided) + "as many writes wait as may; nothing was changed");
}

void HostState::decide_next() {
  if (deciding_ || waiting_.empty()) return;
  deciding_ = true;
  const std::function<void()> turn = std::move(waiting_.front());
  waiting_.pop_front();
  turn();
}

void HostState::finish_write(const Finished& done, std::optional<Error> fault) {
  deciding_ = false;
  done(std::move(fault));
  decide_next();
}

void HostState::run_beside(std::function<void()> work, std::function<void()> take_up, std::function<void()> then) {
  TIDEGATE_ASSERT(!beside_, "one write is made at a time");
  const auto written = std::make_shared<std::promise<void>>();
  const uint64_t id = next_beside_++;
  beside_.emplace(Beside{id, written->get_future(), std::move(take_up)});
  auto on_thread = [work = std::move(work), written] {
    const auto tell = [](std::promise<void>* promise) { promise->set_value(); };
    const std::unique_ptr<std::promise<void>, decltype(tell)> at_the_end(written.get(), tell);
    work();
    return true;
  };
  const bool taken = writes_->run(std::move(on_thread), [this, id, then = std::move(then)](const std::optional<bool>&) {
    if (beside_ && beside_->id == id) end_work_beside();
    then();
  });
  TIDEGATE_ASSERT(taken, "the thread has one write of this host, and one of another");
}

void HostState::end_work_beside() {
  if (!beside_) return;
  beside_->written.wait();
  const std::function<void()> take_up = std::move(std::exchange(beside_, std::nullopt)->take_up);
  take_up();
}

// Like a trial: the effects of the write wait until the loop takes it up.
void HostState::write_beside(std::function<void()> write, Finished done) {
  end_work_beside();
  TIDEGATE_ASSERT(!trying_, "one write is made at a time");
  trying_ = true;
  run_beside(
      std::move(write),
      [this] {
        trying_ = false;
        if (const std::function<void()> change = std::exchange(take_up_, nullptr)) change();
      },
      [this, done = std::move(done)] { finish_write(done, std::nullopt); });
}

void HostState::try_beside(std::function<void()> write, Finished done) {
  end_work_beside();
  TIDEGATE_ASSERT(!trying_, "one write is tried at a time");
  trying_ = true;
  const auto set = std::make_shared<WriteSet>();
  auto work = [this, write = std::move(write), set] {
    store_->begin_trial();
    try {
      write();
    } catch (...) {  // what it would have changed is not complete
      (void)store_->end_trial();
      store_->forget_trial();
      throw;
    }
    *set = store_->end_trial();
  };
  run_beside(
      std::move(work), [this] { trying_ = false; },
      [this, set, done = std::move(done), others = writes_of_others_] {
        if (others == writes_of_others_) return have_decided(set, true, done);
        take_up_ = nullptr;
        store_->forget_trial();
        finish_write(done, fail(std::string(kNotDecided) + "another write came first"));
      });
}

void HostState::try_write(const std::function<void()>& write, Finished done) {
  end_work_beside();
  store_->begin_trial();
  trying_ = true;
  write();
  trying_ = false;
  have_decided(std::make_shared<const WriteSet>(store_->end_trial()), false, std::move(done));
}

// Has the write decided that was tried last, and stores it.
void HostState::have_decided(std::shared_ptr<const WriteSet> set, bool beside, Finished done) {
  std::function<void()> change = std::exchange(take_up_, nullptr);
  if (set->empty()) {  // it was refused here, or changes nothing
    store_->forget_trial();
    return finish_write(done, std::nullopt);
  }
  journal_->append(set, [this, set, beside, change = std::move(change),
                         done = std::move(done)](const Result<JournalPosition>& position) {
    if (!position) {
      store_->forget_trial();
      return finish_write(done, position.error());
    }
    take_up_ = change;
    if (beside) return store_beside(set, *position, done);
    const Result<void> stored = recorded(store_->adopt(*set, *position, true));
    const std::function<void()> take_up = std::exchange(take_up_, nullptr);
    if (!stored) {
      journal_->not_stored(stored.error());
      return finish_write(done, stored.error());
    }
    if (take_up) take_up();
    finish_write(done, std::nullopt);
  });
}

void HostState::store_beside(std::shared_ptr<const WriteSet> set, const JournalPosition& position, Finished done) {
  const auto stored = std::make_shared<Result<void>>(fail("state: the write broke off; the log says why"));
  auto take_up = [this, stored] {
    *stored = recorded(*stored);
    const std::function<void()> change = std::exchange(take_up_, nullptr);
    if (!*stored) return journal_->not_stored(stored->error());
    if (change) change();
  };
  auto then = [this, stored, done = std::move(done)] {
    finish_write(done, *stored ? std::nullopt : std::optional(stored->error()));
  };
  auto work = [this, set, position, stored] { *stored = store_->adopt(*set, position, true); };
  run_beside(std::move(work), std::move(take_up), std::move(then));
  let_go(std::move(set));
}

// --- writes of other hosts

void HostState::store_other(std::function<Result<void>()> store, bool large, OtherWrite write, Adopted done) {
  struct Stored {
    Result<void> result = fail("state: the write broke off; the log says why");
    StateHead head;
    std::optional<InForce> in_force;  // set if the version changed
  };
  ++writes_of_others_;
  const auto stored = std::make_shared<Stored>();
  if (models_ == nullptr) models_ = std::make_shared<ModelBuilder>();
  auto work = [this, store = std::move(store), stored, models = models_, version = head_.version, whole = write.whole] {
    stored->result = store();
    if (!stored->result) return;
    const Result<StateHead> head = store_->head();
    if (!head) {
      stored->result = head.error();
      return;
    }
    stored->head = *head;
    if (head->version == 0 || (head->version == version && !whole)) return;
    Result<InForce> in_force = read_next_version(head->version, *models);
    if (in_force) {
      stored->in_force = *std::move(in_force);
    } else {
      stored->result = in_force.error();
    }
  };
  auto take_up = [this, stored, before = head_, write = std::move(write)]() mutable {
    stored->result = recorded(stored->result);
    if (write.set) let_go(std::exchange(write.set, nullptr));
    if (!stored->result) return;
    const HostStateChange change{stored->head.version != before.version || write.whole,
                                 stored->head.live_state != before.live_state || write.whole,
                                 stored->head.purge != before.purge || write.whole};
    if (stored->in_force) take_read(*std::exchange(stored->in_force, std::nullopt));
    if (change.version || change.live_state || change.purge) notify(change);
    if (write.after) write.after();
  };
  auto then = [stored, done = std::move(done)] { done(stored->result); };
  if (large && writes_) return run_beside(std::move(work), std::move(take_up), std::move(then));
  work();
  take_up();
  then();
}

void HostState::adopt(std::shared_ptr<const WriteSet> set, const JournalPosition& position, Adopted done) {
  end_work_beside();
  // A write of this host's own that could not be stored leaves the state behind what its journal says.
  const Result<JournalPosition> at = store_->journal_position();
  if (!at) return done(at.error());
  if (!set->whole && at->sequence + 1 != position.sequence) {
    return done(fail(fmt::format("write {} does not follow write {}", position.sequence, at->sequence)));
  }
  if (adoption_hooks_.before) {
    if (Result<void> prepared = adoption_hooks_.before(*set); !prepared) return done(prepared);
  }
  OtherWrite write;
  write.set = set;
  write.whole = set->whole;
  write.after = adoption_hooks_.after;
  auto store = [this, set = std::move(set), position] { return store_->adopt(*set, position, false); };
  const bool large = write.whole || manifest_->entries.size() > kEntriesAdoptedAtOnce ||
                     write.set->changes.size() > kEntriesAdoptedAtOnce;
  store_other(std::move(store), large, std::move(write), std::move(done));
}

}  // namespace tidegate
