// SPDX-License-Identifier: Apache-2.0
// ModelBuilder: builds the Model of one version after another, at a cost that depends on what changed between them.
//
// The first version is read, decoded and validated completely. So is a version in which elements were added, removed or
// moved, or in which a file or a single section changed. If only list elements or zone files changed, which is the
// common case, the previous Model is copied and only those elements are decoded over it: one change among 10,000
// objects costs every plane one walk over the manifest. The control that committed the version has already checked how
// keys relate to each other.
//
// Threads: one at a time. Models are immutable and outlive the builder.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "conf/candidate.h"
#include "conf/loader.h"
#include "conf/model.h"
#include "conf/state_store.h"
#include "core/result.h"

namespace tidegate {

class ModelBuilder {
 public:
  // An Error names the missing or damaged object, or every fault. After an Error the next call builds the Model
  // completely.
  Result<std::shared_ptr<const Model>> build(const ObjectSource& store, Manifest manifest);
  Result<std::shared_ptr<const Model>> build(const StateStore& store, Manifest manifest) {
    return build(ObjectSource(store), std::move(manifest));
  }
  // The manifest of the last call. Its version is the number that the caller gave.
  const Manifest& manifest() const { return manifest_; }

 private:
  struct Changed {
    const Field* list;
    const ManifestEntry* entry;
    uint32_t index;  // in the list
  };
  // Adds the zones whose file is `path`. Returns false if something else may name the file too.
  bool add_zones_of_file(const Manifest& manifest, const std::string& path, std::vector<Changed>& changed) const;
  // The elements to decode again. Returns nothing if more than single elements and zone files changed.
  std::optional<std::vector<Changed>> changed_elements(const Manifest& manifest) const;
  Result<std::shared_ptr<const Model>> build_whole(const ObjectSource& store, const Manifest& manifest);
  Result<std::shared_ptr<const Model>> build_over(const ObjectSource& store, const Manifest& manifest,
                                                  const std::vector<Changed>& changed) const;

  std::shared_ptr<const Model> model_;  // of the previous version; null: build completely
  Manifest manifest_;
  ElementNames names_;
};

}  // namespace tidegate
