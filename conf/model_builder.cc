// SPDX-License-Identifier: Apache-2.0
#include "conf/model_builder.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "conf/fault_list.h"
#include "conf/model/zone.h"
#include "conf/objects.h"
#include "conf/validate.h"

namespace tidegate {
namespace {

// Reads the files that a version names, each when it is asked for. The manifest and the store must outlive it.
FileReader files_of(const ObjectSource& store, const Manifest& manifest) {
  return [&store, &manifest](const std::string& path, std::string& error) -> std::shared_ptr<const std::string> {
    const ManifestEntry wanted{kFileKind, path, ""};
    const auto found = std::lower_bound(manifest.entries.begin(), manifest.entries.end(), wanted);
    if (found == manifest.entries.end() || found->kind != wanted.kind || found->name != path) {
      error = "it did not come with the version";
      return nullptr;
    }
    if (store.withholds(found->hash)) return withheld_file();
    Result<std::string> bytes = store.object(found->hash);
    if (bytes) return std::make_shared<const std::string>(*std::move(bytes));
    error = bytes.error().message;
    return nullptr;
  };
}

}  // namespace

Result<std::shared_ptr<const Model>> ModelBuilder::build(const ObjectSource& store, Manifest manifest) {
  const std::optional<std::vector<Changed>> changed = changed_elements(manifest);
  Result<std::shared_ptr<const Model>> model =
      changed ? build_over(store, manifest, *changed) : build_whole(store, manifest);
  model_ = model ? *model : nullptr;
  manifest_ = std::move(manifest);
  return model;
}

bool ModelBuilder::add_zones_of_file(const Manifest& manifest, const std::string& path,
                                     std::vector<Changed>& changed) const {
  const auto names = names_.find("zones");
  if (names == names_.end()) return false;
  const size_t before = changed.size();
  for (const auto& [name, index] : names->second) {
    if (model_->zones.at(index).file.name != path) continue;
    const ManifestEntry wanted{"zones", name, ""};
    const auto entry = std::lower_bound(manifest.entries.begin(), manifest.entries.end(), wanted);
    if (entry == manifest.entries.end() || entry->kind != wanted.kind || entry->name != name) return false;
    changed.push_back({root_section().find("zones"), &*entry, index});
  }
  // Nothing else reads the file of a zone: it is no certificate and no key.
  return changed.size() != before;
}

std::optional<std::vector<ModelBuilder::Changed>> ModelBuilder::changed_elements(const Manifest& manifest) const {
  const std::vector<ManifestEntry>& entries = manifest_.entries;
  if (model_ == nullptr || entries.size() != manifest.entries.size()) return std::nullopt;
  std::vector<Changed> changed;
  for (size_t i = 0; i < entries.size(); ++i) {
    const ManifestEntry &before = entries[i], &now = manifest.entries[i];
    if (before == now) continue;
    if (before.kind != now.kind || before.name != now.name) return std::nullopt;  // elements were added or removed
    if (now.kind == kFileKind) {
      if (!add_zones_of_file(manifest, now.name, changed)) return std::nullopt;
      continue;
    }
    const Field* list = root_section().find(now.kind);
    if (list == nullptr || !list->list) return std::nullopt;
    const auto names = names_.find(list->key);
    if (names == names_.end()) return std::nullopt;
    const auto place = names->second.find(now.name);
    if (place == names->second.end()) return std::nullopt;
    changed.push_back({list, &now, place->second});
  }
  return changed;
}

Result<std::shared_ptr<const Model>> ModelBuilder::build_whole(const ObjectSource& store, const Manifest& manifest) {
  const Result<std::vector<ConfigObject>> objects = store.objects(manifest);
  if (!objects) return objects.error();
  FileReader files;
  const std::unique_ptr<Document> document = assemble_document(*objects, files);
  if (!document) return fail("its objects make no document");
  std::vector<Fault> faults;
  std::shared_ptr<const Model> model = load_model(*document, files, faults);
  if (!model) return fail(render_faults(faults, "", false));
  names_ = index_names(document->root());
  return model;
}

Result<std::shared_ptr<const Model>> ModelBuilder::build_over(const ObjectSource& store, const Manifest& manifest,
                                                              const std::vector<Changed>& changed) const {
  auto model = std::make_shared<Model>(*model_);
  std::vector<Fault> faults;
  FaultList list(faults, "");
  const FileReader files = files_of(store, manifest);
  Loader loader(files, list, names_);
  for (const auto& [field, entry, index] : changed) {
    const Result<std::string> bytes = store.object(entry->hash);
    if (!bytes) return fail(fmt::format("{} '{}': {}", entry->kind, entry->name, bytes.error().message));
    const std::unique_ptr<Document> element = parse_object(*bytes);
    if (!element) return fail(fmt::format("{} '{}' is no JSON", entry->kind, entry->name));
    loader.load_element(*field, element->root(), *model, index);
  }
  if (!faults.empty()) return fail(render_faults(faults, "", false));
  return std::shared_ptr<const Model>(std::move(model));
}

}  // namespace tidegate
