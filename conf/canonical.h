// SPDX-License-Identifier: Apache-2.0
// The canonical form of a document: equal configurations give equal bytes.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "conf/document_node.h"
#include "conf/fields.h"

namespace tidegate {

// Contains only the keys that were written, with scalars in canonical spelling. A value that the table does not know or
// cannot read stays as it is.
nlohmann::json canonical_json(const Section& section, const DocumentNode& node);

// Canonical JSON as YAML: keys in the table's order, one element per line if it fits. Reading it gives the same JSON.
std::string canonical_yaml(const Section& section, const nlohmann::json& json);

}  // namespace tidegate
