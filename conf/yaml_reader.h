// SPDX-License-Identifier: Apache-2.0
// YAML text -> DocumentNode, by yaml-cpp's events. Strict where YAML is loose: see read_yaml().
#pragma once

#include <memory>
#include <string>

#include "conf/document_node.h"
#include "conf/fault_list.h"

namespace tidegate {

// Null after the first syntax fault: bad bytes, bad YAML, several documents, unknown tags, nesting or size beyond
// bounds, aliases that multiply. Duplicate keys and numbers that only look decimal (010, 0x1f) are reported too, all of
// them, and leave a tree that may still be checked for other faults. Any bytes are safe to give.
std::unique_ptr<DocumentNode> read_yaml(const std::string& text, FaultList& faults);

}  // namespace tidegate
