// SPDX-License-Identifier: Apache-2.0
// WorkingCopy: the document in force, kept as a tree beside its Model, so that a change of one element is validated
// with all the rest at the cost of that element.
//
// Threads: one.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "conf/document.h"
#include "conf/loader.h"

namespace tidegate {

class WorkingCopy {
 public:
  // What came of one element in place of another. `model` is null when there is any fault.
  struct Tried {
    std::shared_ptr<const Model> model;
    std::vector<Fault> faults;
    ConfigObject object;  // the element's
    std::unique_ptr<Document> element;
    size_t index = 0;  // in its list
  };

  // `model` is what load_model() made of `document`.
  WorkingCopy(std::unique_ptr<Document> document, std::shared_ptr<const Model> model);

  // The copy itself stays as it is. Nothing when it takes more than this element: there is none of that name yet, or
  // elements of its kind name files.
  std::optional<Tried> try_element(const std::string& kind, const std::string& name, std::unique_ptr<Document> element);
  // What was tried is in force now.
  void keep(Tried tried);

 private:
  std::unique_ptr<Document> document_;
  std::shared_ptr<const Model> model_;
  ElementNames names_;
};

}  // namespace tidegate
