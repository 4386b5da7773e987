// SPDX-License-Identifier: Apache-2.0
// ModelBuilder: the Model of one version after another, at the cost of what changed between them.
//
// The first version is read, decoded and validated whole. So is one in which elements were added, removed or moved, or
// a file or a single section changed. Where only elements of lists changed, which is what people and scripts do all
// day, the Model before is copied and those elements alone are decoded over it: one change among 10,000 objects costs
// every plane a walk over the manifest. What keys mean to each other was checked by the control that committed the
// version.
//
// Threads: one at a time. Models are immutable and outlive the builder.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "conf/loader.h"
#include "conf/model.h"
#include "conf/state_store.h"
#include "core/result.h"

namespace tidegate {

class ModelBuilder {
 public:
  // An Error names the object that is missing or damaged, or every fault. The next call builds whole after one.
  Result<std::shared_ptr<const Model>> build(const StateStore& store, const Manifest& manifest);

 private:
  struct Changed {
    const Field* list;
    const ManifestEntry* entry;
    uint32_t index;  // in the list
  };
  // What to decode anew; nothing where it takes more than single elements.
  std::optional<std::vector<Changed>> changed_elements(const Manifest& manifest) const;
  Result<std::shared_ptr<const Model>> build_whole(const StateStore& store, const Manifest& manifest);
  Result<std::shared_ptr<const Model>> build_over(const StateStore& store, const Manifest& manifest,
                                                  const std::vector<Changed>& changed) const;

  std::shared_ptr<const Model> model_;  // of the version before; null: build whole
  std::vector<ManifestEntry> entries_;
  ElementNames names_;
};

}  // namespace tidegate
