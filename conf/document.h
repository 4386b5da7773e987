// SPDX-License-Identifier: Apache-2.0
// Document: a configuration as it comes in (YAML, or JSON as its subset), its files, and the Model made of it.
//
// text -> parse_document() -> Document (a tree with places) -> load_model() -> Model, or every fault.
// Document -> split_objects() -> canonical JSON objects by kind and name, the units that a version's manifest names;
// and back: assemble_document() from objects gives a Document whose canonical YAML/JSON is what GET returns.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "conf/fault.h"
#include "conf/model.h"
#include "core/result.h"

namespace tidegate {

struct DocumentNode;  // scalar, list or map, each with line and column; see document.cc

// A file named by the document, by the path it wrote. Nothing when it cannot be read (which is a fault at that place).
using FileReader = std::function<std::shared_ptr<const std::string>(const std::string& path, std::string& error)>;
// Reads relative to the document's directory.
FileReader files_beside(const std::string& document_path);
// Serves from memory: bundles over the API, objects of a version.
FileReader files_from(std::map<std::string, std::shared_ptr<const std::string>> files);

class Document {
 public:
  // Null after the first syntax fault. Duplicate keys and strange numbers are faults that leave a document to check.
  static std::unique_ptr<Document> parse(const std::string& file_name, std::string text, std::vector<Fault>& faults);
  static std::unique_ptr<Document> from_json(const std::string& file_name, const nlohmann::json& json);
  ~Document();

  const std::string& file_name() const;
  const std::string& text() const;  // empty for one from JSON
  const DocumentNode& root() const;
  // The element of a top-level list for what `element` is, and the other way round.
  void swap_element(std::string_view list, size_t index, Document& element);
  nlohmann::json to_json() const;  // only what was written, canonical scalars
  std::string to_yaml() const;     // canonical, commented with nothing, stable order

 private:
  Document();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Everything semantic: unknown keys with a hint, types, bounds, references, duplicates, overlapping VIPs, conflicting
// routes (each pair), unusable certificates and keys, zones that do not hold their steers. Null when there was any
// fault.
std::shared_ptr<const Model> load_model(const Document& document, const FileReader& files, std::vector<Fault>& faults);

// One call for `--config FILE` and `check`: reads, parses, loads.
struct LoadedFile {
  std::unique_ptr<Document> document;  // null after a syntax fault
  std::shared_ptr<const Model> model;  // null when there were faults
  std::string text;
  std::vector<Fault> faults;
};
LoadedFile load_file(const std::string& path);

// Markdown reference of every key, from the same table that the parser uses.
std::string key_reference();

// An object of a version: a list element ("pools", "origins"), a list's names in order ("order", "pools"), a single
// section ("geo", ""), or a file ("file", path).
struct ConfigObject {
  std::string kind, name, bytes;  // bytes: canonical JSON, or a file's content
};
std::vector<ConfigObject> split_objects(const Document& document, const FileReader& files);
// The inverse. Files among the objects become the FileReader that comes back in `files`.
std::unique_ptr<Document> assemble_document(const std::vector<ConfigObject>& objects, FileReader& files);

}  // namespace tidegate
