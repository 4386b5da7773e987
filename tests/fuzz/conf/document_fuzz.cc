// SPDX-License-Identifier: Apache-2.0
// Any bytes are read, loaded, validated and rendered without a crash. An accepted document must come back from its
// canonical form. The reader of plain YAML gives what yaml-cpp gives.
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "conf/document.h"
#include "tests/unit/conf/trees.h"

using namespace tidegate;

namespace {

void expect(bool held) {
  if (!held) std::abort();
}

void expect_round_trips(const Document& document, const FileReader& files) {
  const nlohmann::json json = document.to_json();
  std::vector<Fault> faults;
  const auto from_yaml = Document::parse("again", document.to_yaml(), faults);
  expect(from_yaml != nullptr && faults.empty() && from_yaml->to_json() == json);
  FileReader assembled_files;
  const auto assembled = assemble_document(split_objects(document, files), assembled_files);
  expect(assembled != nullptr && assembled->to_json() == json);
  expect(load_model(*assembled, assembled_files, faults) != nullptr);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const FileReader kFiles = files_from({{"z", std::make_shared<const std::string>("@ IN SOA a b 1 2 3 4 5\n")}});
  std::vector<Fault> faults;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const ReadTree any = read_tree(text, YamlWay::any), theirs = read_tree(text, YamlWay::yaml_cpp);
  expect(any.tree == theirs.tree && any.faults == theirs.faults);
  const auto document = Document::parse("fuzz.yaml", text, faults);
  if (document != nullptr && load_model(*document, kFiles, faults) != nullptr) expect_round_trips(*document, kFiles);
  render_faults(faults, text, true);
  return 0;
}
