// SPDX-License-Identifier: Apache-2.0
// Loader: makes a Model from a Document, with the field table. It knows no key by name: it checks only types, bounds,
// required keys, duplicate names and unknown names. validate() checks how keys relate to each other.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "conf/document.h"
#include "conf/document_node.h"
#include "conf/fault_list.h"
#include "conf/fields.h"
#include "conf/model.h"

namespace tidegate {

// For each top-level list, by its key: name -> index of the first element with that name.
using ElementNames = std::map<std::string_view, std::unordered_map<std::string, uint32_t>>;
ElementNames index_names(const DocumentNode& root);

class Loader {
 public:
  // `names`: the names that references may use.
  Loader(const FileReader& files, FaultList& faults, const ElementNames& names)
      : files_(files), faults_(faults), names_(names) {}

  // Fills `model` as far as the document allows. Elements keep their index even if they are faulty.
  void load(const DocumentNode& root, Model& model);
  // Loads one element of a top-level list in place of the element that `model` has at that index.
  void load_element(const Field& list, const DocumentNode& node, Model& model, size_t index);

 private:
  void note_misspelt_sections(const DocumentNode& root);
  void load_section(const Section& section, const DocumentNode& node, void* owner, const Pointer& here);
  void load_field(const Field& field, const DocumentNode& node, void* owner, const Pointer& here);
  void load_list(const Field& field, const DocumentNode& node, void* owner, const Pointer& here);
  void load_item(const Field& field, const DocumentNode& node, void* owner, size_t index, const Pointer& here);
  void load_text_map(const Field& field, const DocumentNode& node, void* owner, const Pointer& here);

  void refuse_unknown_key(const Section& section, const DocumentNode& child, const Pointer& here,
                          std::string_view meant);
  void refuse_repeated_elements(const Field& field, const DocumentNode& list, const Pointer& here);
  bool resolve(const Field& field, const DocumentNode& node, const Pointer& here, ScalarValue& value);
  bool read_file(const DocumentNode& node, const Pointer& here, ScalarValue& value);

  const FileReader& files_;
  FaultList& faults_;
  const ElementNames& names_;
  std::map<std::string, Blob> read_;     // file contents by path
  std::set<std::string_view> misspelt_;  // sections that the author probably meant by an unknown key
};

}  // namespace tidegate
