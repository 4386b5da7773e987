// SPDX-License-Identifier: Apache-2.0
#include "conf/loader.h"

#include <fmt/format.h>

#include <algorithm>

#include "conf/names.h"
#include "conf/scalar.h"
#include "core/crypto.h"

namespace tidegate {
namespace {

// After this many faults no more names are compared, so the work stays bounded however many are wrong.
constexpr size_t kMaxHinted = 100;

std::string_view article(std::string_view noun) {
  return std::string_view("aeiou").find(noun.front()) == std::string_view::npos ? "a" : "an";
}

// The canonical value of the identity key; empty if the element has none.
std::string identity_of(const Field& identity, const DocumentNode& element) {
  const DocumentNode* node = element.find(identity.key);
  if (node == nullptr || !node->is_scalar()) return {};
  const Decoded decoded = decode_scalar(identity, *node);
  return decoded.value ? scalar_text(identity, *decoded.value) : node->text;
}

}  // namespace

void Loader::load(const DocumentNode& root, Model& model) {
  const Pointer here;
  if (!root.is_map()) {
    faults_.at_value(
        root, here,
        {"wrong_type",
         root.kind == DocumentNode::Kind::null ? "the document is empty" : "the document is " + described(root),
         "a map of sections like nodes, pools and routes",
         {}});
    return;
  }
  note_misspelt_sections(root);
  load_section(root_section(), root, &model, here);
}

// If the name of a section is misspelt, that is one fault. References into the section are not reported again.
void Loader::note_misspelt_sections(const DocumentNode& root) {
  for (const DocumentNode& child : root.children) {
    if (root_section().find(child.key) != nullptr) continue;
    std::vector<std::string_view> absent = root_section().keys();
    std::erase_if(absent, [&](std::string_view key) { return root.find(key) != nullptr; });
    const std::string_view meant = nearest_name(child.key, absent);
    if (!meant.empty()) misspelt_.insert(meant);
  }
}

void Loader::load_element(const Field& list, const DocumentNode& node, Model& model, size_t index) {
  list.clear(&model, index);
  const Pointer here;
  load_item(list, node, &model, index, here.at(list.key).at(index));
}

ElementNames index_names(const DocumentNode& root) {
  ElementNames out;
  for (const Field& field : root_section().fields) {
    if (!field.list || field.section->identity() == nullptr) continue;
    auto& names = out[field.key];
    const DocumentNode* list = root.find(field.key);
    if (list == nullptr || !list->is_list()) continue;
    for (uint32_t i = 0; i < list->children.size(); ++i) {
      const std::string name = identity_of(*field.section->identity(), list->children[i]);
      if (!name.empty()) names.emplace(name, i);
    }
  }
  return out;
}

void Loader::load_section(const Section& section, const DocumentNode& node, void* owner, const Pointer& here) {
  if (!node.is_map()) {
    faults_.at_value(
        node, here,
        {node.kind == DocumentNode::Kind::null ? "empty_value" : "wrong_type",
         fmt::format("{} {} is {}", article(section.noun), section.noun, described(node)), "a map of keys and values",
         node.kind == DocumentNode::Kind::null ? "write {} for one with nothing but defaults" : ""});
    return;
  }
  for (const Field& field : section.fields) {
    if (field.on_when_present) field.store(owner, 0, ScalarValue(true));
  }
  // Keys that the author probably meant by unknown ones; they are not reported as missing.
  std::vector<std::string_view> meant;
  for (const DocumentNode& child : node.children) {
    const Pointer there = here.at(child.key);
    if (const Field* field = section.find(child.key)) {
      // A duplicate key is a fault already. References use its first occurrence.
      if (node.find(child.key) == &child) load_field(*field, child, owner, there);
      continue;
    }
    std::vector<std::string_view> candidates = section.keys();
    std::erase_if(candidates, [&](std::string_view key) { return node.find(key) != nullptr; });
    meant.push_back(nearest_name(child.key, candidates));
    refuse_unknown_key(section, child, there, meant.back());
  }
  for (const Field& field : section.fields) {
    if (!field.required || node.find(field.key) != nullptr) continue;
    if (std::find(meant.begin(), meant.end(), field.key) != meant.end()) continue;
    faults_.at_value(
        node, here,
        {"missing_key",
         fmt::format("{} {} has no {}", article(section.noun), section.noun, field.key),
         field.list ? fmt::format("'{}', a list", field.key) : fmt::format("'{}', {}", field.key, expectation(field)),
         {}});
  }
}

void Loader::refuse_unknown_key(const Section& section, const DocumentNode& child, const Pointer& here,
                                std::string_view meant) {
  std::string hint;
  if (!meant.empty()) {
    hint = fmt::format("did you mean '{}'?", meant);
  } else if (child.key == "<<") {
    hint = "merge keys are not read: use an alias for a whole value, or write the keys out";
  } else {
    const std::vector<std::string_view> keys = section.keys();
    hint = fmt::format("the keys of {} {} are {}", article(section.noun), section.noun, fmt::join(keys, ", "));
  }
  faults_.at_key(child, here,
                 {"unknown_key",
                  fmt::format("{} {} has no key {}", article(section.noun), section.noun, in_quotes(child.key)),
                  {},
                  hint});
}

void Loader::load_field(const Field& field, const DocumentNode& node, void* owner, const Pointer& here) {
  if (field.type == FieldType::text_map) {
    load_text_map(field, node, owner, here);
  } else if (field.list) {
    load_list(field, node, owner, here);
  } else {
    load_item(field, node, owner, 0, here);
  }
}

void Loader::load_list(const Field& field, const DocumentNode& node, void* owner, const Pointer& here) {
  if (!node.is_list()) {
    const bool alone = node.is_scalar() && field.type != FieldType::section;
    faults_.at_value(node, here,
                     {node.kind == DocumentNode::Kind::null ? "empty_value" : "wrong_type",
                      fmt::format("{} is {}", field.key, described(node)), "a list",
                      alone ? fmt::format("write [{}]", node.text.size() < 64 ? node.text : "...") : ""});
    return;
  }
  if (field.required && node.children.empty()) {
    faults_.at_value(node, here, {"empty_value", fmt::format("{} has no items", field.key), "at least one", {}});
  }
  field.resize(owner, node.children.size());
  for (size_t i = 0; i < node.children.size(); ++i) load_item(field, node.children[i], owner, i, here.at(i));
  refuse_repeated_elements(field, node, here);
}

void Loader::load_item(const Field& field, const DocumentNode& node, void* owner, size_t index, const Pointer& here) {
  if (faults_.full()) return;
  if (field.type == FieldType::section) {
    load_section(*field.section, node, field.enter(owner, index), here);
    return;
  }
  Decoded decoded = decode_scalar(field, node);
  if (!decoded.value) {
    faults_.at_value(node, here, std::move(decoded.complaint));
    return;
  }
  if (field.type == FieldType::reference && !resolve(field, node, here, *decoded.value)) return;
  if (field.type == FieldType::file && !read_file(node, here, *decoded.value)) return;
  if (field.type == FieldType::domain) {
    std::string& domain = std::get<std::string>(*decoded.value);
    if (domain != ".") domain += '.';
  }
  field.store(owner, index, std::move(*decoded.value));
}

void Loader::load_text_map(const Field& field, const DocumentNode& node, void* owner, const Pointer& here) {
  if (!node.is_map()) {
    faults_.at_value(node, here,
                     {"wrong_type", fmt::format("{} is {}", field.key, described(node)), expectation(field), {}});
    return;
  }
  field.resize(owner, node.children.size());
  for (size_t i = 0; i < node.children.size(); ++i) {
    const DocumentNode& child = node.children[i];
    load_item(field, child, owner, i, here.at(child.key));
  }
}

// Refuses two elements of a list with the same name, or a plain value that occurs twice.
void Loader::refuse_repeated_elements(const Field& field, const DocumentNode& list, const Pointer& here) {
  const Field* identity = field.type == FieldType::section ? field.section->identity() : &field;
  if (identity == nullptr || field.type == FieldType::lines) return;  // a program's arguments may be alike
  std::unordered_map<std::string, const DocumentNode*> seen;
  for (size_t i = 0; i < list.children.size(); ++i) {
    const DocumentNode& element = list.children[i];
    const DocumentNode* node = field.type == FieldType::section ? element.find(identity->key) : &element;
    if (node == nullptr || !node->is_scalar()) continue;
    const Decoded decoded = decode_scalar(*identity, *node);
    const auto [first, added] = seen.emplace(decoded.value ? scalar_text(*identity, *decoded.value) : node->text, node);
    if (added) continue;
    const std::string_view noun = field.type == FieldType::section ? field.section->noun : field.key;
    const Pointer item = here.at(i);
    const bool at_item = field.type != FieldType::section;
    faults_.at_value(
        *node, at_item ? item : item.at(identity->key),
        {"duplicate_name",
         fmt::format("{} {} stands twice", noun, in_quotes(first->first)),
         {},
         first->second->line == 0 ? ""
                                  : fmt::format("the first is at line {}, column {}", first->second->line,
                                                faults_.shown_column(first->second->line, first->second->column))});
  }
}

bool Loader::resolve(const Field& field, const DocumentNode& node, const Pointer& here, ScalarValue& value) {
  const auto& names = names_.at(field.refers_to);
  std::string wanted = std::get<std::string>(value);
  if (root_section().find(field.refers_to)->section->identity()->type == FieldType::domain) {
    if (const auto domain = canonical_domain(wanted)) wanted = *domain;
  }
  if (const auto found = names.find(wanted); found != names.end()) {
    value = uint64_t{found->second};
    return true;
  }
  if (misspelt_.count(field.refers_to) != 0) {
    faults_.mark(here.to_string());
    return false;
  }
  std::string hint;
  if (names.empty()) {
    hint = fmt::format("there are no {} in this document", field.refers_to);
  } else if (faults_.faults().size() < kMaxHinted) {
    std::vector<std::string_view> candidates;
    for (const auto& [name, index] : names) candidates.push_back(name);
    std::sort(candidates.begin(), candidates.end());
    hint = did_you_mean(wanted, candidates);
    constexpr size_t kFew = 8;
    if (hint.empty() && candidates.size() <= kFew)
      hint = fmt::format("{} are {}", field.refers_to, fmt::join(candidates, ", "));
  }
  faults_.at_value(node, here,
                   {"no_such_name", fmt::format("{} is {}, which does not exist", field.key, in_quotes(wanted)),
                    expectation(field), hint});
  return false;
}

bool Loader::read_file(const DocumentNode& node, const Pointer& here, ScalarValue& value) {
  const std::string path = std::get<std::string>(value);
  auto known = read_.find(path);
  if (known == read_.end()) {
    std::string error;
    const std::shared_ptr<const std::string> bytes = files_(path, error);
    if (bytes == nullptr) {
      faults_.at_value(node, here, {"unreadable_file", fmt::format("file {}: {}", in_quotes(path), error), {}, {}});
      return false;
    }
    const bool withheld = bytes == withheld_file();
    known = read_.emplace(path, withheld ? Blob{path, {}, nullptr} : Blob{path, sha256_hex(*bytes), bytes}).first;
  }
  value = known->second;
  return true;
}

}  // namespace tidegate
