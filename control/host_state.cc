// SPDX-License-Identifier: Apache-2.0
#include "control/host_state.h"

#include <fmt/format.h>

#include <utility>

#include "core/assert.h"
#include "core/log.h"
#include "core/metrics.h"

namespace tidegate {

Result<std::unique_ptr<HostState>> HostState::open(const std::string& state_dir, size_t versions_kept,
                                                   const std::string& secrets_group) {
  Result<std::unique_ptr<StateStore>> store = StateStore::open(state_dir, StateStore::Mode::read_write, secrets_group);
  if (!store) return store.error();
  (*store)->keep_versions(versions_kept);
  std::unique_ptr<HostState> host_state(new HostState(std::move(*store)));
  if (Result<void> loaded = host_state->reload_version(); !loaded) return loaded.error();
  if (Result<void> loaded = host_state->reload_live_state(); !loaded) return loaded.error();
  return host_state;
}

Result<void> HostState::reload_version() {
  const Result<StateHead> head = store_->head();
  if (!head) return head.error();
  head_ = *head;
  if (head_.version == 0) return {};
  Result<Manifest> manifest = store_->manifest(head_.version);
  if (!manifest) return manifest.error();
  FileReader files;
  Result<std::unique_ptr<Document>> assembled = document(*manifest, files);
  if (!assembled) return assembled.error();
  std::vector<Fault> faults;
  std::shared_ptr<const Model> model = load_model(**assembled, files, faults);
  manifest_ = std::move(*manifest);
  if (model) {
    model_ = std::move(model);
  } else {
    // Another release committed it by other rules. It stays in force. Each plane says itself what it does with it.
    log_error("version {} does not pass this release's validation:\n{}", head_.version,
              render_faults(faults, "", false));
  }
  return {};
}

Result<void> HostState::reload_live_state() {
  Result<LiveState> live_state = store_->live_state();
  if (!live_state) return live_state.error();
  live_state_ = std::make_shared<const LiveState>(std::move(*live_state));
  return {};
}

std::shared_ptr<const Snapshot> HostState::snapshot() const {
  if (!model_) return nullptr;
  return make_snapshot(manifest_.version, manifest_.digest, model_, live_state_);
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
  manifest_ = *manifest;
  model_ = std::move(judged.model);
  plans_ = std::move(judged.plans);
  notify({.version = true});
  return manifest;
}

WorkingCopy* HostState::working_copy() {
  return working_copy_ && working_copy_version_ == manifest_.version ? working_copy_.get() : nullptr;
}

void HostState::keep_working_copy(uint64_t version, std::unique_ptr<WorkingCopy> copy) {
  TIDEGATE_ASSERT(version <= manifest_.version, "a working copy is of a version that exists");
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
  manifest_ = *manifest;
  model_ = tried.model;
  plans_ = std::move(plans);
  working_copy_->keep(std::move(tried));
  working_copy_version_ = manifest_.version;
  notify({.version = true});
  return manifest;
}

Result<uint64_t> HostState::set_override(const std::string& key, const std::optional<Override>& record,
                                         std::string_view who) {
  Result<uint64_t> sequence = recorded(store_->set_override(key, record, who));
  if (sequence) notify({.live_state = true});
  return sequence;
}

Result<uint64_t> HostState::set_verdicts(
    const std::vector<std::pair<std::string, std::optional<HealthVerdict>>>& verdicts) {
  Result<uint64_t> sequence = recorded(store_->set_verdicts(verdicts));
  if (sequence) notify({.live_state = true});
  return sequence;
}

Result<uint64_t> HostState::set_loads(const std::vector<std::pair<std::string, std::optional<SiteLoad>>>& loads) {
  Result<uint64_t> sequence = recorded(store_->set_loads(loads));
  if (sequence) notify({.live_state = true});
  return sequence;
}

Result<uint64_t> HostState::add_purge(PurgeKind kind, std::string_view value, bool soft, std::string_view who,
                                      const AnswerTo<uint64_t>& answer) {
  Result<uint64_t> sequence = recorded(store_->add_purge(kind, value, soft, who, answer));
  if (sequence) notify({.purge = true});
  return sequence;
}

Result<void> HostState::replicate_version(const Manifest& manifest,
                                          const std::vector<std::pair<std::string, std::string>>& new_objects) {
  if (Result<void> replicated = recorded(store_->replicate_version(manifest, new_objects)); !replicated)
    return replicated;
  if (Result<void> loaded = reload_version(); !loaded) return loaded;
  TIDEGATE_ASSERT(manifest_.version == manifest.version, "a replicated version is the head");
  notify({.version = true});
  return {};
}

Result<void> HostState::replicate_live_state(const LiveState& live_state) {
  Result<void> replicated = recorded(store_->replicate_live_state(live_state));
  if (replicated) notify({.live_state = true});
  return replicated;
}

Result<void> HostState::replicate_purge(const Purge& purge) {
  Result<void> replicated = recorded(store_->replicate_purge(purge));
  if (replicated) notify({.purge = true});
  return replicated;
}

}  // namespace tidegate
