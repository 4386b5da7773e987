// SPDX-License-Identifier: Apache-2.0
// Document: a configuration as it was given (YAML, or JSON, which is a subset of YAML), its files, and the Model made
// from it.
//
//  text -> Document::parse() -> Document (a tree with places) -> load_model() -> Model, or every fault.
//  Document -> split_objects() -> canonical JSON objects by kind and name. A version's manifest lists these objects.
//  objects -> assemble_document() -> Document, whose canonical YAML or JSON is what GET returns.
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

class Sources;        // the files of a document; see sources.h
struct DocumentNode;  // scalar, list or map, each with line and column; see document_node.h

// Returns the content of a file that the document names, by the path in the document. Returns null and sets `error` if
// it cannot be read (a fault at that place).
using FileReader = std::function<std::shared_ptr<const std::string>(const std::string& path, std::string& error)>;
// Reads files relative to the document's directory.
FileReader files_beside(const std::string& document_path);
// Like files_beside(), without the files that a zone file includes.
FileReader plain_files_beside(const std::string& document_path);
// Reads included files. Such a file must be below the document's folder after all symbolic links are followed. Of
// another one the error is kLeadsOut.
FileReader files_below(const std::string& document_path);
constexpr const char* kLeadsOut = "a symbolic link leads out of the document's folder";
// The value that a FileReader returns for a private key that this process does not read. Compare its address to
// recognise it. The Blob of such a file has only a name.
const std::shared_ptr<const std::string>& withheld_file();
// Reads files from memory: for bundles of the API and objects of a version.
FileReader files_from(std::map<std::string, std::shared_ptr<const std::string>> files);

class Document {
 public:
  // Returns null after the first syntax fault. Duplicate keys and unusual numbers are faults too, but the document can
  // still be checked.
  static std::unique_ptr<Document> parse(const std::string& file_name, std::string text, std::vector<Fault>& faults);
  static std::unique_ptr<Document> from_json(const std::string& file_name, const nlohmann::json& json);
  // From a tree that was made from several files, or from a file and the environment if `expanded` (expansion.h).
  static std::unique_ptr<Document> of_tree(DocumentNode root, Sources sources, bool expanded);
  ~Document();

  const std::string& file_name() const;
  const std::string& text() const;  // empty if it came from JSON; the texts of all files if there are several
  bool expanded() const;            // true if text() does not contain everything (expansion.h)
  // Gives faults at this document's lines their place in the file that has the line. All functions below and
  // find_warnings() do so.
  void place_in_sources(std::vector<Fault>& faults) const;
  const DocumentNode& root() const;
  // Exchanges an element of a top-level list for the content of `element`.
  void swap_element(std::string_view list, size_t index, Document& element);
  nlohmann::json to_json() const;  // contains only the keys that were written, with canonical scalars
  std::string to_yaml() const;     // canonical, without comments, in stable order

 private:
  Document();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Does all semantic checks: unknown keys with a hint, types, bounds, references, duplicates, overlapping VIPs,
// conflicting routes (each pair), unusable certificates and keys, steers outside their zones. Returns null if there was
// any fault.
std::shared_ptr<const Model> load_model(const Document& document, const FileReader& files, std::vector<Fault>& faults);

// Completes faults that have a JSON pointer and no file: they get the place of that value in the document, or of the
// innermost value around it that is written.
void place_faults(const Document& document, std::vector<Fault>& faults);

// One call for `--config FILE` and `check`: reads, expands (expansion.h), parses and loads.
struct LoadedFile {
  std::unique_ptr<Document> document;  // null after a syntax fault
  std::shared_ptr<const Model> model;  // null if there were faults
  std::string text;                    // of the file itself
  std::vector<Fault> faults;
};
LoadedFile load_text_of(const std::string& path, std::string text);  // the same for a text of this name
LoadedFile load_file(const std::string& path);

// The Markdown reference of every key, from the table that the parser uses too.
std::string key_reference();

// An object of a version: a list element ("pools", "origins"), the order of a list's names ("order", "pools"), a single
// section ("geo", ""), or a file ("file", path).
struct ConfigObject {
  std::string kind, name, bytes;  // bytes: canonical JSON, or a file's content
  bool withheld = false;          // a private key that its reader may not see: no bytes
};
std::vector<ConfigObject> split_objects(const Document& document, const FileReader& files);
// The inverse of split_objects. Sets `files` to a reader of the files among the objects.
std::unique_ptr<Document> assemble_document(const std::vector<ConfigObject>& objects, FileReader& files);

}  // namespace tidegate
