// SPDX-License-Identifier: Apache-2.0
// Diff: the changes between two versions, for each object as lines of YAML. Secrets are never shown.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "conf/state_store.h"
#include "control/apply.h"
#include "core/result.h"

namespace tidegate {

// Returns lines with the prefix " ", "- " or "+ ". Unchanged lines beyond two lines of context become "@@". The method
// is the longest common subsequence. If that needs more than kMaxDiffCells cells, the middle is shown as replaced.
constexpr size_t kMaxDiffCells = 4'000'000;
std::vector<std::string> diff_lines(std::string_view before, std::string_view after);

// Returns {"change","kind","name","lines":[...]} for each change. It reads the contents from the store.
nlohmann::json describe_changes(const StateStore& store, const std::vector<ObjectChange>& changes);

// Returns an object as text for people: YAML for parts of the document, text for zones, a sentence for keys and other
// bytes.
std::string readable(const std::string& kind, const std::string& name, std::string_view bytes);

// Returns one element of the list `kind` as YAML, with its keys in the order of the reference.
std::string element_yaml(const std::string& kind, const nlohmann::json& element);

// Replaces the values of secret keys (Field::secret) by "***", at any depth.
void redact(nlohmann::json& value);

}  // namespace tidegate
