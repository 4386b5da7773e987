// SPDX-License-Identifier: Apache-2.0
// Apply: a document becomes a version, or every reason why not. examine() is pure and may run on any thread; a commit
// happens in apply() alone, on the control's loop.
//
//   text + files -> examine: Document::parse -> load_model -> split_objects -> Candidate -> Applier::apply ->
//   HostState::commit
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/document.h"
#include "conf/fault.h"
#include "conf/state_store.h"
#include "control/host_state.h"
#include "core/result.h"

namespace tidegate {

// A configuration that may become a version. `model` is null, and `objects` empty, when there is any fault.
struct Candidate {
  std::shared_ptr<const Model> model;
  std::vector<ConfigObject> objects;
  std::vector<ManifestEntry> entries;  // of the objects
  std::vector<Fault> faults;
};
Candidate examine(const Document& document, const FileReader& files);
Candidate examine_text(const std::string& file_name, std::string text, const FileReader& files);

// What a version does to an object of the one before.
enum class ChangeKind : uint8_t { added, changed, removed };
const char* name(ChangeKind kind);
struct ObjectChange {
  ChangeKind change = ChangeKind::added;
  std::string kind, name;
  std::string old_hash, new_hash;  // empty where there is none
};
// In order of kind and name. Both sides are ordered as a Manifest's entries are.
std::vector<ObjectChange> compare(const std::vector<ManifestEntry>& from, const std::vector<ManifestEntry>& to);
// The entries that a manifest of these objects has.
std::vector<ManifestEntry> entries_of(const std::vector<ConfigObject>& objects);

struct ApplyOutcome {
  enum class Status : uint8_t {
    committed,
    unchanged,  // the configuration is the one in force already: no new version
    dry_run,    // would be committed
    invalid,    // see faults
    failed,     // see error: the store refused; nothing changed
  };
  Status status = Status::invalid;
  Manifest manifest;  // in force after the call
  std::vector<ObjectChange> changes;
  std::vector<Fault> faults;
  std::string error;
};

struct ApplyRequest {
  std::string who;
  std::string comment;
  uint64_t rollback_of = 0;
  bool dry_run = false;
  AnswerTo<ApplyOutcome> answer = {};  // to be committed with the version
};

// Commits a candidate over the head in force. All or nothing.
ApplyOutcome apply(HostState& host_state, const Candidate& candidate, const ApplyRequest& request);

// One element of a list in place of the one of its name, at the cost of that element and of validating the whole.
// `element` is the document of it alone. Nothing when it takes more than that: an element that is new, or one whose
// files come and go with it.
std::optional<ApplyOutcome> apply_element(HostState& host_state, const std::string& kind, const std::string& name,
                                          std::unique_ptr<Document> element, const ApplyRequest& request);

// The content of version `to`, its certificates and zones included, to be applied as a new version.
Result<Candidate> candidate_of(const HostState& host_state, const Manifest& to);

}  // namespace tidegate
