// SPDX-License-Identifier: Apache-2.0
// The canonical form of a document: equal configurations give equal bytes.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "conf/document_node.h"
#include "conf/fields.h"

namespace tidegate {

// Only what was written, scalars in their canonical spelling. What the table does not know or cannot read stays as it
// is.
nlohmann::json canonical_json(const Section& section, const DocumentNode& node);

// YAML of canonical JSON: keys in the table's order, one element a line where it fits. Reading it gives the same JSON.
std::string canonical_yaml(const Section& section, const nlohmann::json& json);

}  // namespace tidegate
