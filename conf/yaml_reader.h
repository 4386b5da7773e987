// SPDX-License-Identifier: Apache-2.0
// YAML text -> DocumentNode, from yaml-cpp's events. It is strict where YAML is loose: see read_yaml().
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "conf/document_node.h"
#include "conf/fault_list.h"

namespace tidegate {

// How a document is read. `any` tries the reader of plain documents first (conf/yaml_plain.h). `yaml_cpp` lets tests
// compare the two readers.
enum class YamlWay : uint8_t { any, yaml_cpp };

// Returns null after the first syntax fault: bad bytes, bad YAML, several documents, unknown tags, nesting or size
// beyond the limits, aliases that multiply. Duplicate keys and numbers that only look decimal (010, 0x1f) are all
// reported too, but leave a tree in which other faults can still be found. Any input bytes are safe.
std::unique_ptr<DocumentNode> read_yaml(const std::string& text, FaultList& faults, YamlWay way = YamlWay::any);

}  // namespace tidegate
