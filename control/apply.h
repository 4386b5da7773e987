// SPDX-License-Identifier: Apache-2.0
// Apply: makes a version from a document, or reports all faults of the document. examine() is pure and may run on any
// thread. Only apply() commits, on the control's loop.
//
//   text + files -> examine: Document::parse -> load_model -> plan_version -> split_objects -> Candidate -> apply ->
//   HostState::commit
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/candidate.h"
#include "conf/document.h"
#include "conf/fault.h"
#include "conf/model.h"
#include "conf/state_store.h"
#include "control/host_state.h"
#include "control/vote/plans.h"
#include "control/vote/voting.h"
#include "core/result.h"

namespace tidegate {

// A configuration that may become a version. If there is any fault, `model` is null and `objects` is empty.
struct Candidate {
  std::shared_ptr<const Model> model;
  std::vector<ConfigObject> objects;
  std::vector<ManifestEntry> entries;  // entries for the objects
  std::vector<Fault> faults;
  std::shared_ptr<const Plans> plans;  // plans of every plane, for every node
};
// The form for planes: the changes that lead from `base` to it.
CandidateVersion as_sent(const Candidate& candidate, uint64_t id, const Manifest& base);
// `known` are the plans of an earlier version, from which unchanged parts are taken; null: there are none.
Candidate examine(const Document& document, const FileReader& files, const Plans* known);
Candidate examine_text(const std::string& file_name, std::string text, const FileReader& files, const Plans* known);

// The change of one object between two versions.
enum class ChangeKind : uint8_t { added, changed, removed };
const char* name(ChangeKind kind);
struct ObjectChange {
  ChangeKind change = ChangeKind::added;
  std::string kind, name;
  std::string old_hash, new_hash;  // empty if the object does not exist there
};
// Returns the changes in order of kind and name. Both inputs have the order of a Manifest's entries.
std::vector<ObjectChange> compare(const std::vector<ManifestEntry>& from, const std::vector<ManifestEntry>& to);
// The manifest without its entries, because a large one has a hundred thousand.
Manifest without_entries(const Manifest& manifest);
// Returns the manifest entries for these objects.
std::vector<ManifestEntry> entries_of(const std::vector<ConfigObject>& objects);

struct ApplyOutcome {
  enum class Status : uint8_t {
    committed,
    unchanged,  // the configuration is already in force, so there is no new version
    dry_run,    // would be committed
    invalid,    // see faults
    refused,    // a plane cannot serve it (see voting); nothing changed
    failed,     // the store refused it (see error); nothing changed
  };
  Status status = Status::invalid;
  Manifest manifest;  // in force after the call; without its entries
  std::vector<ObjectChange> changes;
  std::vector<Fault> faults;
  std::string error;
  Voting voting;  // set for a version that was voted on
};

template <>
struct FailedWrite<ApplyOutcome> {
  static ApplyOutcome of(Error why) {
    ApplyOutcome outcome;
    outcome.status = ApplyOutcome::Status::failed;
    outcome.error = std::move(why.message);
    return outcome;
  }
};

struct ApplyRequest {
  std::string who;
  std::string comment;
  uint64_t rollback_of = 0;
  bool dry_run = false;
  bool allow_restart = false, require_all = false;  // see BallotRules
  // the version is provisional for this time; 0: it is not provisional
  uint64_t confirm_ms = 0;
  AnswerTo<ApplyOutcome> answer = {};  // is committed with the version
};

// The outcome that applying a candidate would have: its faults, or the changes from the version in force. Pure: any
// thread.
ApplyOutcome preview(const Manifest& in_force, const Candidate& candidate);

// Commits a candidate after the version in force, as a whole or not at all. `voting`: the vote of the planes.
ApplyOutcome apply(HostState& host_state, const Candidate& candidate, const ApplyRequest& request);
// Commits a candidate that was voted on. preview() must have returned dry_run for it.
ApplyOutcome commit(HostState& host_state, const Candidate& candidate, ApplyOutcome previewed,
                    const ApplyRequest& request, const Voting& voting);

// A new content of one element, tried on a working copy together with everything else. The cost is the decoding of one
// element, a validation of the whole document, and the checks of the planes that it concerns.
struct Trial {
  // Not set if it is not enough to replace one element: the element is new, or it names files.
  std::optional<WorkingCopy::Tried> tried;
  std::shared_ptr<const Plans> plans;  // the plans with the new element
};
// Pure except for its use of the copy: one thread at a time. `known`: the plans for the version of the copy; may be
// null.
Trial try_element(WorkingCopy& copy, const std::string& kind, const std::string& name,
                  std::unique_ptr<Document> element, const std::shared_ptr<const Plans>& known);
// Tries other content of a zone's file.
Trial try_zone_file(WorkingCopy& copy, uint32_t zone, std::shared_ptr<const std::string> bytes,
                    const std::shared_ptr<const Plans>& known);
// The form for planes. Nothing if nothing valid was tried.
std::optional<CandidateVersion> as_sent(const Trial& trial, uint64_t id, const Manifest& base);
// The outcome that committing a trial would have, as preview() returns it. Nothing if nothing was tried.
std::optional<ApplyOutcome> preview(const Manifest& in_force, const Trial& trial);
// Commits the change that was tried on the working copy of `host_state`. preview() must have returned dry_run for it.
ApplyOutcome apply_trial(HostState& host_state, Trial trial, ApplyOutcome previewed, const ApplyRequest& request,
                         const Voting& voting);

// Returns the content of version `to`, with its certificates and zones, to be applied as a new version.
Result<Candidate> candidate_of(const HostState& host_state, const Manifest& to, const Plans* known);

}  // namespace tidegate
