// SPDX-License-Identifier: Apache-2.0
// Shared by the document tests: a document from text, with every fault found in it.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "conf/document.h"
#include "conf/model.h"

namespace tidegate::testing {

struct Loaded {
  std::string text;
  std::unique_ptr<Document> document;
  std::shared_ptr<const Model> model;
  std::vector<Fault> faults;

  std::string rendered() const { return render_faults(faults, text, false); }
  // The codes of the faults, in the order of their positions.
  std::vector<std::string> codes() const {
    std::vector<std::string> codes;
    for (const Fault& fault : faults) codes.push_back(fault.code);
    return codes;
  }
};

inline Loaded load_text(std::string text, std::map<std::string, std::shared_ptr<const std::string>> files = {}) {
  Loaded loaded;
  loaded.text = text;
  loaded.document = Document::parse("edge.yaml", std::move(text), loaded.faults);
  if (loaded.document != nullptr)
    loaded.model = load_model(*loaded.document, files_from(std::move(files)), loaded.faults);
  return loaded;
}

inline std::shared_ptr<const std::string> content(std::string bytes) {
  return std::make_shared<const std::string>(std::move(bytes));
}

}  // namespace tidegate::testing
