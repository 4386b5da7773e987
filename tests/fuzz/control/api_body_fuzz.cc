// SPDX-License-Identifier: Apache-2.0
// Bodies of the API: a bundle, a merge patch over a configuration, a document. Nothing may crash. A decoded body must
// encode again.

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "conf/model.h"
#include "control/api/bundle.h"
#include "control/api/diff.h"
#include "control/api/json_bounds.h"
#include "control/apply.h"

namespace {

using namespace tidegate;

const nlohmann::json& base() {
  static const nlohmann::json kBase = {
      {"pools", {{{"name", "origins"}, {"backends", {{{"name", "a"}, {"addresses", {"192.0.2.1"}}, {"port", 80}}}}}}},
      {"routes", {{{"name", "all"}, {"path", "/*"}, {"pool", "origins"}}}}};
  return kBase;
}

void try_patch(std::string_view body) {
  const Result<nlohmann::json> patch = parse_json(body);
  if (!patch || !patch->is_object()) return;
  nlohmann::json document = base();
  document.merge_patch(*patch);
  redact(document);
  const Candidate candidate = examine(*Document::from_json("config", document), files_from({}), nullptr);
  if ((candidate.model == nullptr) == candidate.faults.empty()) std::abort();  // either a model or at least one fault
}

void try_bundle(std::string_view body) {
  Result<Bundle> bundle = decode_bundle(body);
  if (!bundle) return;
  const Result<Bundle> again = decode_bundle(encode_bundle(*bundle));
  if (!again || again->files.size() != bundle->files.size()) std::abort();
  examine_text(bundle->file, bundle->text, files_from(bundle->files), nullptr);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  try_patch(body);
  try_bundle(body);
  return 0;
}
