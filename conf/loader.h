// SPDX-License-Identifier: Apache-2.0
// Loader: Document -> Model by the field table. Knows no key by name: types, bounds, required keys, names that are
// taken and names that do not exist are all it sees. What keys mean to each other is validate()'s.
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

namespace tidegate {

// The elements of each top-level list, by the list's key: name -> index of the first that has it.
using ElementNames = std::map<std::string_view, std::unordered_map<std::string, uint32_t>>;
ElementNames index_names(const DocumentNode& root);

class Loader {
 public:
  // `names`: what references may name.
  Loader(const FileReader& files, FaultList& faults, const ElementNames& names)
      : files_(files), faults_(faults), names_(names) {}

  // Fills `model` as far as the document goes; elements keep their index even where they are faulty.
  void load(const DocumentNode& root, Model& model);
  // One element of a top-level list, in place of the one that `model` has at that index.
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
  std::map<std::string, Blob> read_;     // files, by path
  std::set<std::string_view> misspelt_;  // sections that an unknown key was probably meant to be
};

}  // namespace tidegate
