// SPDX-License-Identifier: Apache-2.0
// Diff: what changed between two versions, object by object, each as lines of its YAML. Secrets never show.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "conf/state_store.h"
#include "control/apply.h"
#include "core/result.h"

namespace tidegate {

// Lines prefixed "  ", "- " or "+ "; unchanged runs longer than two lines of context become "@@". Longest common
// subsequence; past kMaxDiffCells of work the middle is shown as replaced whole.
constexpr size_t kMaxDiffCells = 4'000'000;
std::vector<std::string> diff_lines(std::string_view before, std::string_view after);

// {"change","kind","name","lines":[...]} for each; the contents are read from the store.
nlohmann::json describe_changes(const StateStore& store, const std::vector<ObjectChange>& changes);

// An object as people read it: YAML for documents' parts, text for zones, a sentence for keys and other bytes.
std::string readable(const std::string& kind, const std::string& name, std::string_view bytes);

// One element of the list `kind`, with its keys in the order in which a document has them.
std::string element_yaml(const std::string& kind, const nlohmann::json& element);

// Values under a member named "secret" become "***", at any depth.
void redact(nlohmann::json& value);

}  // namespace tidegate
