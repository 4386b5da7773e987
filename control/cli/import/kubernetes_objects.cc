// SPDX-License-Identifier: Apache-2.0
#include "control/cli/import/kubernetes_objects.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "conf/fault_list.h"
#include "conf/yaml_reader.h"

namespace tidegate::cli::kube {
namespace {

void shift(DocumentNode& node, uint32_t lines) {
  node.line += lines;
  node.key_line += lines;
  for (DocumentNode& child : node.children) shift(child, lines);
}

}  // namespace

const DocumentNode* at(const DocumentNode* node, std::initializer_list<std::string_view> keys) {
  for (const std::string_view key : keys) {
    if (node != nullptr) node = node->find(key);
  }
  return node;
}
std::string text_at(const DocumentNode* node, std::initializer_list<std::string_view> keys) {
  const DocumentNode* found = at(node, keys);
  return found != nullptr && found->is_scalar() ? found->text : std::string();
}
const std::vector<DocumentNode>& items(const DocumentNode* node) {
  static const std::vector<DocumentNode> kNone;
  return node != nullptr && node->is_list() ? node->children : kNone;
}

std::string namespace_of(const DocumentNode& object) {
  const std::string name = text_at(&object, {"metadata", "namespace"});
  return name.empty() ? "default" : name;
}

bool read_only(Imported& into, const DocumentNode& map, const std::string& what, std::initializer_list<Known> known) {
  if (!map.is_map()) {
    into.leave(map.line, what, "it is no map");
    return false;
  }
  bool all = true;
  for (const DocumentNode& child : map.children) {
    const auto field =
        std::find_if(known.begin(), known.end(), [&](const Known& each) { return child.key == each.key; });
    if (field != known.end() && (field->kind == child.kind || child.kind == DocumentNode::Kind::null)) continue;
    into.leave(child.key_line, what + "." + child.key,
               field == known.end() ? "there is no counterpart of this field" : "the field holds something else");
    all = false;
  }
  return all;
}

std::optional<uint64_t> milliseconds_of(std::string_view text) {
  uint64_t sum = 0;
  if (text.empty() || text.size() > 24) return std::nullopt;
  while (!text.empty()) {
    const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
    const std::optional<uint64_t> number = number_of(text.substr(0, digits));
    text.remove_prefix(digits);
    const size_t letters = std::min(text.find_first_of("0123456789"), text.size());
    const std::string_view unit = text.substr(0, letters);
    text.remove_prefix(letters);
    const uint64_t factor = unit == "ms" ? 1 : unit == "s" ? 1'000 : unit == "m" ? 60'000 : unit == "h" ? 3'600'000 : 0;
    if (!number || *number > 99'999 || factor == 0) return std::nullopt;
    sum += *number * factor;
  }
  return sum;
}

std::string literal_text(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '{' || c == '}') out += c;
    out += c;
  }
  return out;
}

// The objects of a file with one or several documents, a List among them.
Result<std::vector<DocumentNode>> objects_of(std::string_view text) {
  std::vector<DocumentNode> objects;
  uint32_t line = 0;
  while (!text.empty()) {
    std::string part;
    const uint32_t before = line;
    while (!text.empty()) {
      const size_t end = std::min(text.find('\n'), text.size());
      const std::string_view row = text.substr(0, end);
      text.remove_prefix(std::min(end + 1, text.size()));
      ++line;
      if (row.starts_with("---")) break;
      part.append(row).push_back('\n');
    }
    std::vector<Fault> faults;
    FaultList list(faults, "");
    std::unique_ptr<DocumentNode> root = read_yaml(part, list);
    if (root == nullptr || !faults.empty()) {
      const Fault fault = faults.empty() ? Fault{} : faults.front();
      return fail(fmt::format("line {}: {}", before + fault.line, fault.detail));
    }
    shift(*root, before);
    if (text_at(root.get(), {"kind"}).ends_with("List")) {
      for (const DocumentNode& item : items(root->find("items"))) objects.push_back(item);
    } else if (root->is_map()) {
      objects.push_back(std::move(*root));
    }
  }
  return objects;
}

}  // namespace tidegate::cli::kube
