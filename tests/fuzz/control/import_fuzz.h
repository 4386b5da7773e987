// SPDX-License-Identifier: Apache-2.0
// Shared by the fuzzers of import: any bytes give a document that YAML reads back, or an error. Each directive is
// taken, or left out with a reason.
#pragma once

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "conf/document.h"
#include "control/cli/import/imported.h"

namespace tidegate::cli {

inline void fuzz_import(Result<void> (*import)(std::string_view, Imported&), const uint8_t* data, size_t size) {
  Imported imported;
  if (!import({reinterpret_cast<const char*>(data), size}, imported)) return;
  const auto document = Document::from_json("fuzz", imported.document());
  std::vector<Fault> faults;
  if (Document::parse("fuzz", document->to_yaml(), faults) == nullptr) std::abort();
  if (imported.left().size() + imported.taken() != imported.directives()) std::abort();
  for (const LeftDirective& left : imported.left()) {
    if (left.why.empty()) std::abort();
  }
}

}  // namespace tidegate::cli
