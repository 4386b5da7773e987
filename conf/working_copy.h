// SPDX-License-Identifier: Apache-2.0
// WorkingCopy: the document in force, kept as a tree beside its Model. So a change of one element is validated together
// with everything else, but at the cost of that element.
//
// Threads: one.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "conf/document.h"
#include "conf/loader.h"
#include "conf/model.h"

namespace tidegate {

class WorkingCopy {
 public:
  // The result of trying an element in place of another. `model` is null if there is any fault.
  struct Tried {
    std::shared_ptr<const Model> model;
    std::vector<Fault> faults;
    ConfigObject object;                // the object of the element
    std::unique_ptr<Document> element;  // null: the object is a file
    size_t index = 0;                   // index in its list
  };

  // load_model() must have made `model` from `document`.
  WorkingCopy(std::unique_ptr<Document> document, std::shared_ptr<const Model> model);

  // Does not change the copy itself. Returns nothing if a single element is not enough: no element has that name yet,
  // or the element names files, before or after.
  std::optional<Tried> try_element(const std::string& kind, const std::string& name, std::unique_ptr<Document> element);
  // Tries other content of a zone's file. `zone` is the zone's index in the model. No other zone may name the file.
  // `element` is null in the result.
  Tried try_zone_file(uint32_t zone, std::shared_ptr<const std::string> bytes);
  const Model& model() const { return *model_; }
  // Call it when the tried change is in force.
  void keep(Tried tried);

 private:
  std::unique_ptr<Document> document_;
  std::shared_ptr<const Model> model_;
  ElementNames names_;
};

}  // namespace tidegate
