// SPDX-License-Identifier: Apache-2.0
#include "control/apply.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "core/assert.h"
#include "core/crypto.h"

namespace tidegate {

const char* name(ChangeKind kind) {
  switch (kind) {
    case ChangeKind::added:
      return "added";
    case ChangeKind::changed:
      return "changed";
    case ChangeKind::removed:
      return "removed";
  }
  return "unknown";
}

Candidate examine(const Document& document, const FileReader& files, const Plans* known) {
  Candidate candidate;
  candidate.model = load_model(document, files, candidate.faults);
  if (candidate.model && candidate.faults.empty()) {
    PlannedVersion planned = plan_version(candidate.model, known);
    candidate.plans = std::move(planned.plans);
    candidate.faults = std::move(planned.faults);
    place_faults(document, candidate.faults);
  }
  if (!candidate.faults.empty()) candidate.model = nullptr;
  if (!candidate.model) return candidate;
  candidate.objects = split_objects(document, files);
  candidate.entries = entries_of(candidate.objects);
  return candidate;
}

Candidate examine_text(const std::string& file_name, std::string text, const FileReader& files, const Plans* known) {
  Candidate candidate;
  const std::unique_ptr<Document> document = Document::parse(file_name, std::move(text), candidate.faults);
  if (!document || !candidate.faults.empty()) return candidate;
  return examine(*document, files, known);
}

Manifest without_entries(const Manifest& manifest) {
  return {manifest.version,
          manifest.created_ns,
          manifest.author,
          manifest.comment,
          manifest.digest,
          manifest.rollback_of,
          {}};
}

std::vector<ManifestEntry> entries_of(const std::vector<ConfigObject>& objects) {
  std::vector<ManifestEntry> entries;
  entries.reserve(objects.size());
  for (const ConfigObject& object : objects) entries.push_back({object.kind, object.name, sha256_hex(object.bytes)});
  std::sort(entries.begin(), entries.end());
  return entries;
}

CandidateVersion as_sent(const Candidate& candidate, uint64_t id, const Manifest& base) {
  using Key = std::pair<std::string_view, std::string_view>;
  std::map<Key, const ConfigObject*> objects;
  for (const ConfigObject& object : candidate.objects) objects.emplace(Key(object.kind, object.name), &object);
  return candidate_between(id, base, candidate.entries, [&](const ManifestEntry& entry) {
    return std::make_shared<const std::string>(objects.at(Key(entry.kind, entry.name))->bytes);
  });
}

std::optional<CandidateVersion> as_sent(const Trial& trial, uint64_t id, const Manifest& base) {
  if (!trial.tried || !trial.tried->model) return std::nullopt;
  const ConfigObject& object = trial.tried->object;
  return candidate_with(
      id, base,
      {object.kind, object.name, sha256_hex(object.bytes), std::make_shared<const std::string>(object.bytes)});
}

std::vector<ObjectChange> compare(const std::vector<ManifestEntry>& from, const std::vector<ManifestEntry>& to) {
  const auto key = [](const ManifestEntry& entry) { return std::tie(entry.kind, entry.name); };
  std::vector<ObjectChange> changes;
  auto old_entry = from.begin();
  auto new_entry = to.begin();
  while (old_entry != from.end() || new_entry != to.end()) {
    if (new_entry == to.end() || (old_entry != from.end() && key(*old_entry) < key(*new_entry))) {
      changes.push_back({ChangeKind::removed, old_entry->kind, old_entry->name, old_entry->hash, ""});
      ++old_entry;
    } else if (old_entry == from.end() || key(*new_entry) < key(*old_entry)) {
      changes.push_back({ChangeKind::added, new_entry->kind, new_entry->name, "", new_entry->hash});
      ++new_entry;
    } else {
      if (old_entry->hash != new_entry->hash) {
        changes.push_back({ChangeKind::changed, new_entry->kind, new_entry->name, old_entry->hash, new_entry->hash});
      }
      ++old_entry;
      ++new_entry;
    }
  }
  return changes;
}

namespace {

ApplyOutcome as_committed(ApplyOutcome outcome, const Manifest& manifest) {
  outcome.status = ApplyOutcome::Status::committed;
  outcome.manifest = without_entries(manifest);
  return outcome;
}

ApplyOutcome with_version(ApplyOutcome outcome, const Result<Manifest>& manifest) {
  if (manifest) {
    outcome = as_committed(std::move(outcome), *manifest);
  } else {
    outcome.status = ApplyOutcome::Status::failed;
    outcome.error = manifest.error().message;
  }
  return outcome;
}

}  // namespace

ApplyOutcome preview(const Manifest& in_force, const Candidate& candidate) {
  ApplyOutcome outcome;
  outcome.manifest = without_entries(in_force);
  if (!candidate.model) {
    outcome.faults = candidate.faults;
    return outcome;
  }
  outcome.changes = compare(in_force.entries, candidate.entries);
  const bool unchanged = outcome.changes.empty() && in_force.version != 0;
  outcome.status = unchanged ? ApplyOutcome::Status::unchanged : ApplyOutcome::Status::dry_run;
  return outcome;
}

ApplyOutcome apply(HostState& host_state, const Candidate& candidate, const ApplyRequest& request) {
  ApplyOutcome outcome = preview(host_state.manifest(), candidate);
  if (request.dry_run || outcome.status != ApplyOutcome::Status::dry_run) return outcome;
  return commit(host_state, candidate, std::move(outcome), request, {});
}

ApplyOutcome commit(HostState& host_state, const Candidate& candidate, ApplyOutcome outcome,
                    const ApplyRequest& request, const Voting& voting) {
  TIDEGATE_ASSERT(outcome.status == ApplyOutcome::Status::dry_run, "only what would change something is committed");
  outcome.voting = voting;
  AnswerTo<Manifest> answer;
  if (request.answer) {
    answer = [&](const Manifest& committed) { return request.answer(as_committed(outcome, committed)); };
  }
  const Result<Manifest> manifest =
      host_state.commit(candidate.objects, {candidate.model, candidate.plans}, host_state.manifest().version,
                        request.who, request.comment, request.rollback_of, answer);
  return with_version(std::move(outcome), manifest);
}

namespace {

// Adds the planes' checks. Their faults get their place in `document`, unless that is null.
Trial planned(WorkingCopy::Tried tried, std::string_view kind, const Document* document, const Model& before,
              const std::shared_ptr<const Plans>& known) {
  Trial trial{std::move(tried), known};
  WorkingCopy::Tried& of = *trial.tried;
  if (!of.model) return trial;
  PlannedVersion version = plan_element(of.model, kind, before, known.get());
  if (!version.faults.empty()) of.model = nullptr;
  of.faults = std::move(version.faults);
  if (document != nullptr) place_faults(*document, of.faults);
  if (version.plans) trial.plans = std::move(version.plans);
  return trial;
}

}  // namespace

Trial try_element(WorkingCopy& copy, const std::string& kind, const std::string& name,
                  std::unique_ptr<Document> element, const std::shared_ptr<const Plans>& known) {
  std::optional<WorkingCopy::Tried> tried = copy.try_element(kind, name, std::move(element));
  if (!tried) return {std::nullopt, known};
  const Document* const document = tried->element.get();
  return planned(*std::move(tried), kind, document, copy.model(), known);
}

Trial try_zone_file(WorkingCopy& copy, uint32_t zone, std::shared_ptr<const std::string> bytes,
                    const std::shared_ptr<const Plans>& known) {
  return planned(copy.try_zone_file(zone, std::move(bytes)), "zones", nullptr, copy.model(), known);
}

std::optional<ApplyOutcome> preview(const Manifest& in_force, const Trial& trial) {
  if (!trial.tried) return std::nullopt;
  const WorkingCopy::Tried& tried = *trial.tried;
  ApplyOutcome outcome;
  outcome.manifest = without_entries(in_force);
  if (!tried.model) {
    outcome.faults = tried.faults;
    return outcome;
  }
  const std::string kind = tried.object.kind, name = tried.object.name;
  const std::vector<ManifestEntry>& entries = in_force.entries;
  const auto old_entry = std::lower_bound(entries.begin(), entries.end(), ManifestEntry{kind, name, ""});
  if (old_entry == entries.end() || old_entry->kind != kind || old_entry->name != name) return std::nullopt;
  const std::string hash = sha256_hex(tried.object.bytes);
  if (hash == old_entry->hash) {
    outcome.status = ApplyOutcome::Status::unchanged;
    return outcome;
  }
  outcome.changes = {{ChangeKind::changed, kind, name, old_entry->hash, hash}};
  outcome.status = ApplyOutcome::Status::dry_run;
  return outcome;
}

ApplyOutcome apply_trial(HostState& host_state, Trial trial, ApplyOutcome previewed, const ApplyRequest& request,
                         const Voting& voting) {
  TIDEGATE_ASSERT(trial.tried && trial.tried->model, "only a valid element is committed");
  previewed.voting = voting;
  const Result<Manifest> manifest = host_state.commit_tried(
      *std::move(trial.tried), std::move(trial.plans), host_state.manifest().version, request.who, request.comment);
  return with_version(std::move(previewed), manifest);
}

Result<Candidate> candidate_of(const HostState& host_state, const Manifest& to, const Plans* known) {
  FileReader files;
  const Result<std::unique_ptr<Document>> document = host_state.document(to, files);
  if (!document) return document.error();
  return examine(**document, files, known);
}

}  // namespace tidegate
