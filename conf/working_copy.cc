// SPDX-License-Identifier: Apache-2.0
#include "conf/working_copy.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "conf/canonical.h"
#include "conf/fault_list.h"
#include "conf/model/zone.h"
#include "conf/objects.h"
#include "conf/validate.h"
#include "core/crypto.h"

namespace tidegate {
namespace {

// Whether the value of this section names a file.
bool names_files(const Section& section, const DocumentNode& node) {
  return std::any_of(section.fields.begin(), section.fields.end(), [&](const Field& field) {
    const DocumentNode* child = node.find(field.key);
    if (child == nullptr || field.type == FieldType::file) return child != nullptr;
    if (field.type != FieldType::section) return false;
    if (!child->is_list()) return names_files(*field.section, *child);
    return std::any_of(child->children.begin(), child->children.end(),
                       [&](const DocumentNode& item) { return names_files(*field.section, item); });
  });
}

}  // namespace

WorkingCopy::WorkingCopy(std::unique_ptr<Document> document, std::shared_ptr<const Model> model)
    : document_(std::move(document)), model_(std::move(model)), names_(index_names(document_->root())) {}

std::optional<WorkingCopy::Tried> WorkingCopy::try_element(const std::string& kind, const std::string& name,
                                                           std::unique_ptr<Document> element) {
  const Field* list = root_section().find(kind);
  if (list == nullptr || !list->list) return std::nullopt;
  const auto names = names_.find(list->key);
  if (names == names_.end()) return std::nullopt;
  const auto place = names->second.find(name);
  if (place == names->second.end()) return std::nullopt;

  const DocumentNode& old = document_->root().find(kind)->children.at(place->second);
  if (names_files(*list->section, old) || names_files(*list->section, element->root())) return std::nullopt;

  Tried tried;
  tried.index = place->second;
  auto model = std::make_shared<Model>(*model_);
  FaultList faults(tried.faults, element->file_name());
  const FileReader no_files = files_from({});
  Loader(no_files, faults, names_).load_element(*list, element->root(), *model, tried.index);
  tried.object = {kind, name, canonical_json(*list->section, element->root()).dump()};
  document_->swap_element(kind, tried.index, *element);
  validate(document_->root(), *model, faults, model_.get());
  document_->swap_element(kind, tried.index, *element);
  if (tried.faults.empty()) tried.model = std::move(model);
  tried.element = std::move(element);
  return tried;
}

WorkingCopy::Tried WorkingCopy::try_zone_file(uint32_t zone, std::shared_ptr<const std::string> bytes) {
  Tried tried;
  auto model = std::make_shared<Model>(*model_);
  Blob& file = model->zones.at(zone).file;
  file.hash = sha256_hex(*bytes);
  file.bytes = std::move(bytes);
  tried.object = {kFileKind, file.name, *file.bytes};
  FaultList faults(tried.faults, document_->file_name());
  validate(document_->root(), *model, faults, model_.get());
  if (tried.faults.empty()) tried.model = std::move(model);
  return tried;
}

void WorkingCopy::keep(Tried tried) {
  if (tried.element) document_->swap_element(tried.object.kind, tried.index, *tried.element);
  model_ = std::move(tried.model);
}

}  // namespace tidegate
