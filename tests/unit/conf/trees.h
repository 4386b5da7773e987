// SPDX-License-Identifier: Apache-2.0
// A document's tree as text, with every place, for comparisons.
#pragma once

#include <fmt/format.h>

#include <string>
#include <vector>

#include "conf/yaml_reader.h"

namespace tidegate {

inline void write_tree(const DocumentNode& node, std::string& out) {
  out += fmt::format("{} {} {}:{} {}:{} '{}' '{}' [", static_cast<int>(node.kind), node.quoted, node.line, node.column,
                     node.key_line, node.key_column, node.key, node.text);
  for (const DocumentNode& child : node.children) write_tree(child, out);
  out += "]\n";
}

struct ReadTree {
  std::string tree;                 // empty: refused
  std::vector<std::string> faults;  // faults with their places
};

inline ReadTree read_tree(const std::string& text, YamlWay way) {
  ReadTree read;
  std::vector<Fault> faults;
  FaultList list(faults, "edge.yaml");
  if (const auto root = read_yaml(text, list, way)) write_tree(*root, read.tree);
  for (const Fault& fault : faults) {
    read.faults.push_back(
        fmt::format("{}:{} {} {} {}", fault.line, fault.column, fault.pointer, fault.code, fault.detail));
  }
  return read;
}

}  // namespace tidegate
