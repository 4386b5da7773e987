// SPDX-License-Identifier: Apache-2.0
// Expansion: inserts parts from other files and from the environment into a document on disk, when the file is read. So
// a version is complete and means the same on every host.
//   include: [parts/app.yaml]   the sections of another document, below this document's folder
//   ${NAME}  ${NAME:-default}   a variable of the environment
//   ${file:PATH}                the content of a file, without the newline at its end
//   $${                         the two characters ${
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "conf/document.h"

namespace tidegate {

// Where the values come from. All are called on the caller's thread.
struct Surroundings {
  std::function<std::optional<std::string>(const std::string& name)> variable;
  FileReader file;  // by path, relative to the document's folder
  FileReader part;  // of documents that are included: below that folder
};
// The environment of this process, and the files beside the document.
Surroundings surroundings_of(const std::string& document_path);

struct ExpandedDocument {
  std::unique_ptr<Document> document;  // null after a syntax fault in the document itself
  // no file or variable is missing, so load_model() finds no faults that only follow from a missing one
  bool complete = false;
};
// Any input bytes are safe. Faults have their place in the file that has them.
ExpandedDocument expand_document(const std::string& file_name, const std::string& text,
                                 const Surroundings& surroundings, std::vector<Fault>& faults);

// The inverse, for values that must stay as they are: "${" becomes "$${".
std::string escape_expansions(std::string_view text);

}  // namespace tidegate
