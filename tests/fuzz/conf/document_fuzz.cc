// SPDX-License-Identifier: Apache-2.0
// Any bytes are read, loaded, validated and rendered without a crash. An accepted document must come back from its
// canonical form. The reader of plain YAML gives what yaml-cpp gives. A document with includes, variables and inserted
// files must be read without a crash too. Without these, expansion must not change it.
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>

#include "conf/document.h"
#include "conf/expansion.h"
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

// A line "--- NAME" begins a further file, which the first one may include or insert.
void expand(const std::string& text) {
  constexpr std::string_view kDivider = "\n--- ";
  std::map<std::string, std::shared_ptr<const std::string>> parts;
  const std::string first = text.substr(0, text.find(kDivider));
  for (size_t at = text.find(kDivider); at != std::string::npos;) {
    const size_t name = at + kDivider.size();
    const size_t end = std::min(text.find('\n', name), text.size());
    at = text.find(kDivider, end);
    parts[text.substr(name, end - name)] =
        std::make_shared<const std::string>(text.substr(end, at == std::string::npos ? at : at - end));
  }
  const FileReader files = files_from(std::move(parts));
  const Surroundings surroundings{[](const std::string& name) -> std::optional<std::string> {
                                    if (name.size() > 2) return std::nullopt;
                                    return name == "S" ? "${S}" : "7";
                                  },
                                  files, files};
  std::vector<Fault> faults;
  const ExpandedDocument read = expand_document("folder/fuzz.yaml", first, surroundings, faults);
  expect(!read.complete || read.document != nullptr);
  if (read.document != nullptr && !read.document->expanded()) {
    std::vector<Fault> plain_faults;
    const auto plain = Document::parse("folder/fuzz.yaml", first, plain_faults);
    expect(plain != nullptr && plain->to_json() == read.document->to_json() && plain_faults.size() == faults.size());
  }
  if (read.complete && load_model(*read.document, files, faults) != nullptr && faults.empty())
    expect_round_trips(*read.document, files);
  for (const Fault& fault : faults) expect(fault.file.empty() || fault.file.starts_with("folder"));
  render_faults(faults, first, true);
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
  expand(text);
  return 0;
}
