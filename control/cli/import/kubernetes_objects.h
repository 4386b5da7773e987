// SPDX-License-Identifier: Apache-2.0
// Objects of Kubernetes in YAML, and who may refer to whom. Pure; one thread.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "conf/document_node.h"
#include "control/cli/import/imported.h"

namespace tidegate::cli::kube {

// The objects of a file with one or several documents, a List among them. Error: it is no YAML, with the line.
Result<std::vector<DocumentNode>> objects_of(std::string_view text);

// Below `node`, by keys; null if there is none.
const DocumentNode* at(const DocumentNode* node, std::initializer_list<std::string_view> keys);
std::string text_at(const DocumentNode* node, std::initializer_list<std::string_view> keys);
const std::vector<DocumentNode>& items(const DocumentNode* node);  // of a list; none of anything else
std::string namespace_of(const DocumentNode& object);              // "default" if it says none

// A field that is read: a key and what it holds.
struct Known {
  const char* key;
  DocumentNode::Kind kind;
};
// Leaves every other field of a map, and what holds something else. Returns whether there was nothing such.
bool read_only(Imported& into, const DocumentNode& map, const std::string& what, std::initializer_list<Known> known);

// Durations of the Gateway API: "1h30m", "500ms", in milliseconds.
std::optional<uint64_t> milliseconds_of(std::string_view text);

// A text as one of policies.transform, in which braces are variables.
std::string literal_text(const std::string& text);

}  // namespace tidegate::cli::kube
