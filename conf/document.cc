// SPDX-License-Identifier: Apache-2.0
#include "conf/document.h"

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>

#include "conf/canonical.h"
#include "conf/document_node.h"
#include "conf/expansion.h"
#include "conf/fault_list.h"
#include "conf/fields.h"
#include "conf/loader.h"
#include "conf/sources.h"
#include "conf/text.h"
#include "conf/validate.h"
#include "conf/yaml_reader.h"
#include "conf/zone_includes.h"

namespace tidegate {
namespace {

// Enough for any reasonable certificate, key or zone. A larger file is a device or a mistake.
constexpr uintmax_t kMaxFileBytes = kMaxDocumentBytes;

std::optional<std::string> read_whole(const std::filesystem::path& path, std::string& error) {
  std::error_code failed;
  const auto status = std::filesystem::status(path, failed);
  if (failed && status.type() == std::filesystem::file_type::none) {
    error = failed.message();
    return {};
  }
  if (!std::filesystem::exists(status)) {
    error = "there is no such file";
    return {};
  }
  if (!std::filesystem::is_regular_file(status)) {
    error = "it is not a regular file";
    return {};
  }
  const uintmax_t bytes = std::filesystem::file_size(path, failed);
  if (!failed && bytes > kMaxFileBytes) {
    error = fmt::format("it is larger than {} bytes", kMaxFileBytes);
    return {};
  }
  errno = 0;
  std::ifstream stream(path, std::ios::binary);
  // At once, because a large document is read at every start.
  std::string content(failed ? 0 : static_cast<size_t>(bytes), '\0');
  stream.read(content.data(), static_cast<std::streamsize>(content.size()));
  content.resize(static_cast<size_t>(stream.gcount()));
  // The file may grow meanwhile, and a file of the kernel reports a size of 0.
  std::array<char, 4'096> more;
  while (stream.is_open() && !stream.bad()) {
    stream.clear();
    stream.read(more.data(), more.size());
    if (stream.gcount() == 0) break;
    content.append(more.data(), static_cast<size_t>(stream.gcount()));
    if (content.size() > kMaxFileBytes) {
      error = fmt::format("it is larger than {} bytes", kMaxFileBytes);
      return {};
    }
  }
  if (!stream.is_open() || stream.bad()) {
    error = errno != 0 ? std::strerror(errno) : "it cannot be read";
    return {};
  }
  return content;
}

// Values deeper than any key are cut off. Their outermost map is refused as an unknown key anyway.
DocumentNode node_of(const nlohmann::json& json, size_t depth) {
  DocumentNode node;
  if (depth > kMaxDocumentDepth || json.is_null()) return node;
  if (json.is_object() || json.is_array()) {
    node.kind = json.is_object() ? DocumentNode::Kind::map : DocumentNode::Kind::list;
    node.children.reserve(json.size());
    for (const auto& [key, value] : json.items()) {
      node.children.push_back(node_of(value, depth + 1));
      if (json.is_object()) node.children.back().key = key;
    }
    return node;
  }
  node.kind = DocumentNode::Kind::scalar;
  node.quoted = json.is_string();
  node.text = json.is_string() ? json.get<std::string>() : json.dump();
  return node;
}

}  // namespace

struct Document::Impl {
  std::string file_name;
  std::string text;  // without `sources`
  DocumentNode root;
  bool expanded = false;
  std::optional<Sources> sources;  // not set: the document is one file
};

Document::Document() : impl_(std::make_unique<Impl>()) {}
Document::~Document() = default;

const std::string& Document::file_name() const { return impl_->file_name; }
const std::string& Document::text() const { return impl_->sources ? impl_->sources->text() : impl_->text; }
const DocumentNode& Document::root() const { return impl_->root; }
bool Document::expanded() const { return impl_->expanded; }
void Document::place_in_sources(std::vector<Fault>& faults) const {
  if (impl_->sources) impl_->sources->place(faults);
}
void Document::swap_element(std::string_view list, size_t index, Document& element) {
  for (DocumentNode& child : impl_->root.children) {
    if (child.key == list) return std::swap(child.children.at(index), element.impl_->root);
  }
}

nlohmann::json Document::to_json() const { return canonical_json(root_section(), impl_->root); }
std::string Document::to_yaml() const { return canonical_yaml(root_section(), to_json()); }

std::unique_ptr<Document> Document::parse(const std::string& file_name, std::string text, std::vector<Fault>& faults) {
  FaultList list(faults, file_name);
  std::unique_ptr<DocumentNode> root = read_yaml(text, list);
  if (root == nullptr) return nullptr;
  std::unique_ptr<Document> document(new Document);
  document->impl_->file_name = file_name;
  document->impl_->text = std::move(text);
  document->impl_->root = std::move(*root);
  return document;
}

std::unique_ptr<Document> Document::of_tree(DocumentNode root, Sources sources, bool expanded) {
  std::unique_ptr<Document> document(new Document);
  document->impl_->file_name = sources.name();
  document->impl_->root = std::move(root);
  document->impl_->expanded = expanded;
  document->impl_->sources = std::move(sources);
  return document;
}

std::unique_ptr<Document> Document::from_json(const std::string& file_name, const nlohmann::json& json) {
  std::unique_ptr<Document> document(new Document);
  document->impl_->file_name = file_name;
  document->impl_->root = node_of(json, 0);
  return document;
}

FileReader plain_files_beside(const std::string& document_path) {
  return [directory = std::filesystem::path(document_path).parent_path()](const std::string& path, std::string& error) {
    std::optional<std::string> content = read_whole(directory / path, error);
    return content ? std::make_shared<const std::string>(*std::move(content)) : nullptr;
  };
}

FileReader files_below(const std::string& document_path) {
  return [folder = std::filesystem::path(document_path).parent_path()](const std::string& path, std::string& error) {
    std::error_code failed;
    const auto root = std::filesystem::canonical(folder.empty() ? "." : folder, failed);
    const auto real = failed ? folder / path : std::filesystem::canonical(root / path, failed);
    // Whatever cannot be resolved cannot be read either; that has its own reason.
    if (!failed && std::mismatch(root.begin(), root.end(), real.begin(), real.end()).first != root.end()) {
      error = kLeadsOut;
      return std::shared_ptr<const std::string>();
    }
    std::optional<std::string> content = read_whole(failed ? folder / path : real, error);
    return content ? std::make_shared<const std::string>(*std::move(content)) : nullptr;
  };
}

FileReader files_beside(const std::string& document_path) {
  return [read = plain_files_beside(document_path), below = files_below(document_path)](const std::string& path,
                                                                                        std::string& error) {
    std::shared_ptr<const std::string> bytes = read(path, error);
    if (bytes != nullptr && has_includes(*bytes)) return put_includes_in(path, *bytes, below, error);
    return bytes;
  };
}

FileReader files_from(std::map<std::string, std::shared_ptr<const std::string>> files) {
  return [files = std::move(files)](const std::string& path, std::string& error) -> std::shared_ptr<const std::string> {
    const auto found = files.find(path);
    if (found != files.end()) return found->second;
    error = "it did not come with the document";
    return nullptr;
  };
}

std::shared_ptr<const Model> load_model(const Document& document, const FileReader& files, std::vector<Fault>& faults) {
  FaultList list(faults, document.file_name());
  list.set_text(document.text());
  auto model = std::make_shared<Model>();
  const ElementNames names = index_names(document.root());
  Loader(files, list, names).load(document.root(), *model);
  validate(document.root(), *model, list);
  document.place_in_sources(faults);
  return faults.empty() ? model : nullptr;
}

void place_faults(const Document& document, std::vector<Fault>& faults) {
  std::vector<Fault> unused;
  FaultList places(unused, document.file_name());
  places.set_text(document.text());
  for (Fault& fault : faults) {
    if (!fault.file.empty()) continue;
    fault.file = document.file_name();
    const DocumentNode* node = &document.root();
    std::string_view rest = fault.pointer;
    while (const std::optional<std::string> step = take_pointer_step(rest)) {
      const DocumentNode* child = node->find(*step);
      const std::optional<uint64_t> index = node->is_list() ? parse_decimal(*step) : std::nullopt;
      if (index && *index < node->children.size()) child = &node->children[*index];
      if (child == nullptr) break;
      node = child;
    }
    fault.line = node->line;
    fault.column = places.shown_column(node->line, node->column);
  }
  document.place_in_sources(faults);
}

LoadedFile load_text_of(const std::string& path, std::string text) {
  LoadedFile loaded;
  ExpandedDocument read = expand_document(path, text, surroundings_of(path), loaded.faults);
  loaded.text = std::move(text);
  loaded.document = std::move(read.document);
  // A missing part would have faults that follow from it.
  if (read.complete) loaded.model = load_model(*loaded.document, files_beside(path), loaded.faults);
  return loaded;
}

LoadedFile load_file(const std::string& path) {
  LoadedFile loaded;
  std::string error;
  std::optional<std::string> text = read_whole(path, error);
  if (!text) {
    loaded.faults.push_back({"unreadable_file", {}, path, 0, 0, "cannot read it: " + error, {}, {}});
    return loaded;
  }
  return load_text_of(path, *std::move(text));
}

}  // namespace tidegate
