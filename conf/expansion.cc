// SPDX-License-Identifier: Apache-2.0
#include "conf/expansion.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iterator>

#include "conf/document_node.h"
#include "conf/fault_list.h"
#include "conf/limits.h"
#include "conf/names.h"
#include "conf/sources.h"
#include "conf/text.h"
#include "conf/yaml_reader.h"

namespace tidegate {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kInclude = "include";
constexpr std::string_view kOpens = "${", kEscaped = "$${", kFile = "file:", kOtherwise = ":-";

bool is_variable_name(std::string_view name) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  return !name.empty() && letter(name.front()) &&
         std::all_of(name.begin(), name.end(), [&](char c) { return letter(c) || (c >= '0' && c <= '9'); });
}

bool stays_inside(const fs::path& normal) {
  return !normal.empty() && normal.is_relative() && *normal.begin() != ".." && normal != ".";
}

// A value's text is put together here. The first thing that is wrong ends it.
class Inserter {
 public:
  explicit Inserter(const Surroundings& surroundings) : surroundings_(surroundings) {}

  // Returns the fault, or nothing. A value that is only one insertion counts as unquoted, because in a flow list or map
  // it could not be written without quotes.
  std::optional<Complaint> insert_into(DocumentNode& node) {
    const std::string_view text = node.text;
    if (text.find(kOpens) == std::string_view::npos) return {};
    std::string out;
    size_t at = 0, pieces = 0;
    while (at < text.size()) {
      const std::string_view rest = text.substr(at);
      if (rest.starts_with(kEscaped)) {
        out += kOpens;
        at += kEscaped.size();
      } else if (rest.starts_with(kOpens)) {
        const size_t end = rest.find('}');
        if (end == std::string_view::npos) return unclosed();
        if (auto wrong = insert(rest.substr(kOpens.size(), end - kOpens.size()), out)) return wrong;
        at += end + 1;
      } else {
        out += rest.front();
        ++at;
      }
      ++pieces;
    }
    if (pieces == 1 && !text.starts_with(kEscaped)) node.quoted = false;
    node.text = std::move(out);
    return {};
  }

 private:
  static Complaint unclosed() {
    return {"bad_insertion", "a ${ is never closed", "${NAME}", "a } is missing; write $${ for the two characters ${"};
  }

  std::optional<Complaint> insert(std::string_view what, std::string& out) {
    if (what.starts_with(kFile)) return insert_file(std::string(what.substr(kFile.size())), out);
    const size_t otherwise = what.find(kOtherwise);
    const std::string name(what.substr(0, otherwise));
    if (!is_variable_name(name)) {
      return Complaint{"bad_insertion", fmt::format("{} is not the name of a variable", in_quotes(name)),
                       "${NAME}, ${NAME:-default} or ${file:PATH}", "write $${ for the two characters ${"};
    }
    std::optional<std::string> value = surroundings_.variable(name);
    const bool replaced = otherwise != std::string_view::npos && (!value || value->empty());
    if (replaced) value = std::string(what.substr(otherwise + kOtherwise.size()));
    if (!value) {
      return Complaint{"unset_variable",
                       fmt::format("the environment has no variable {}", name),
                       {},
                       fmt::format("set it, or write ${{{}:-default}}", name)};
    }
    return append(*value, "variable " + name, out);
  }

  std::optional<Complaint> insert_file(const std::string& path, std::string& out) {
    std::string error = "no file is named";
    const std::shared_ptr<const std::string> content = path.empty() ? nullptr : surroundings_.file(path, error);
    if (content == nullptr) {
      return Complaint{"unreadable_file",
                       fmt::format("cannot read {}: {}", in_quotes(path), error),
                       {},
                       "the path is relative to the document's folder"};
    }
    std::string_view value = *content;
    if (value.ends_with('\n')) value.remove_suffix(1);
    if (value.ends_with('\r')) value.remove_suffix(1);
    return append(value, "file " + in_quotes(path), out);
  }

  std::optional<Complaint> append(std::string_view value, const std::string& whence, std::string& out) {
    inserted_ += value.size();
    if (value.size() > kMaxInsertedValueBytes || inserted_ > kMaxInsertedBytes) {
      return Complaint{"too_large",
                       whence + " has too many bytes",
                       fmt::format("at most {}, and {} in a document", kMaxInsertedValueBytes, kMaxInsertedBytes),
                       {}};
    }
    if (find_unreadable(value) != std::string_view::npos)
      return Complaint{"syntax", whence + " has bytes that no document may have", "UTF-8 text", {}};
    out += value;
    return {};
  }

  const Surroundings& surroundings_;
  size_t inserted_ = 0;
};

class Expander {
 public:
  Expander(const std::string& file_name, const Surroundings& surroundings, std::vector<Fault>& faults)
      : name_(file_name), surroundings_(surroundings), inserter_(surroundings), faults_(faults) {}

  ExpandedDocument expand(const std::string& text) {
    std::optional<DocumentNode> root = read(name_, text);
    sources_.place(faults_);
    if (!root) return {};
    return {Document::of_tree(std::move(*root), std::move(sources_), changed_), complete_};
  }

 private:
  // Faults of a file have its own line numbers. The tree has numbers that go through all files.
  std::optional<DocumentNode> read(const std::string& shown, const std::string& text) {
    const uint32_t before = sources_.add(shown, without_byte_order_mark(text));
    FaultList list(faults_, shown);
    const std::unique_ptr<DocumentNode> root = read_yaml(text, list);
    if (root == nullptr) {
      complete_ = false;
      return {};
    }
    // An escape may produce "${" in a value.
    if (text.find(kOpens) != std::string::npos || text.find('\\') != std::string::npos) insert(*root, Pointer{}, list);
    const std::optional<DocumentNode> asked = take_include(*root);
    if (before != 0) shift(*root, before);
    if (asked) include(*asked, *root, list);
    return std::move(*root);
  }

  static void shift(DocumentNode& node, uint32_t lines) {
    if (node.line != 0) node.line += lines;
    if (node.key_line != 0) node.key_line += lines;
    for (DocumentNode& child : node.children) shift(child, lines);
  }

  void refuse(FaultList& list, const DocumentNode& node, const Pointer& pointer, Complaint complaint) {
    complete_ = false;
    list.at_value(node, pointer, std::move(complaint));
  }

  void insert(DocumentNode& node, const Pointer& here, FaultList& list) {
    if (node.is_scalar()) {
      if (node.text.find(kOpens) == std::string::npos) return;
      changed_ = true;
      if (auto wrong = inserter_.insert_into(node)) refuse(list, node, here, *std::move(wrong));
      return;
    }
    for (size_t i = 0; i < node.children.size(); ++i) {
      DocumentNode& child = node.children[i];
      insert(child, node.is_map() ? here.at(child.key) : here.at(i), list);
    }
  }

  static std::optional<DocumentNode> take_include(DocumentNode& root) {
    if (!root.is_map()) return {};
    const auto found = std::find_if(root.children.begin(), root.children.end(),
                                    [](const DocumentNode& child) { return child.key == kInclude; });
    if (found == root.children.end()) return {};
    DocumentNode asked = std::move(*found);
    root.children.erase(found);
    return asked;
  }

  void include(const DocumentNode& asked, DocumentNode& root, FaultList& list) {
    changed_ = true;
    const Pointer top, here = top.at(kInclude);
    if (asked.is_scalar()) return include_one(asked, here, root, list);
    if (!asked.is_list())
      return refuse(list, asked, here, {"wrong_type", "include is no list", "a list of paths of documents", {}});
    for (size_t i = 0; i < asked.children.size(); ++i) include_one(asked.children[i], here.at(i), root, list);
  }

  void include_one(const DocumentNode& asked, const Pointer& here, DocumentNode& root, FaultList& list) {
    const auto wrong = [&](const char* code, std::string detail, std::string hint = {}) {
      refuse(list, asked, here, {code, std::move(detail), {}, std::move(hint)});
    };
    if (!asked.is_scalar()) return wrong("wrong_type", "this is no path", "write the path of a document");
    const fs::path normal = fs::path(asked.text).lexically_normal();
    const std::string path = normal.string(), quoted = in_quotes(asked.text);
    if (!stays_inside(normal)) {
      return wrong("outside_folder", fmt::format("{} is not below the document's folder", quoted),
                   "paths are relative to the folder of the first document");
    }
    if (path == fs::path(name_).filename() || std::find(open_.begin(), open_.end(), path) != open_.end())
      return wrong("include_cycle", fmt::format("{} includes itself", quoted));
    if (open_.size() >= kMaxIncludeDepth)
      return wrong("too_deep", fmt::format("documents include others more than {} levels deep", kMaxIncludeDepth));
    if (sources_.files() > kMaxIncludedFiles)
      return wrong("too_many", fmt::format("more than {} documents are included", kMaxIncludedFiles));
    std::string error;
    const std::shared_ptr<const std::string> text = surroundings_.part(path, error);
    if (text == nullptr && error == kLeadsOut) {
      return wrong("outside_folder", fmt::format("{} is not below the document's folder: {}", quoted, error),
                   "put the file itself there");
    }
    if (text == nullptr) return wrong("unreadable_file", fmt::format("cannot read {}: {}", quoted, error));
    if (sources_.text().size() + text->size() > kMaxDocumentBytes)
      return wrong("too_large", fmt::format("the documents have more than {} bytes together", kMaxDocumentBytes));
    open_.push_back(path);
    std::optional<DocumentNode> part = read((fs::path(name_).parent_path() / normal).string(), *text);
    open_.pop_back();
    if (!part || part->kind == DocumentNode::Kind::null) return;
    if (!part->is_map()) return wrong("wrong_type", quoted + " is no map of sections");
    if (root.kind == DocumentNode::Kind::null) root.kind = DocumentNode::Kind::map;
    merge(root, std::move(*part), Pointer{});
  }

  // Lists go on, maps are joined. Nothing else may be given twice.
  void merge(DocumentNode& into, DocumentNode from, const Pointer& here) {
    using Kind = DocumentNode::Kind;
    if (from.kind == Kind::null) return;
    if (into.is_list() && from.is_list()) {
      std::move(from.children.begin(), from.children.end(), std::back_inserter(into.children));
      return;
    }
    if (!into.is_map() || !from.is_map()) return refuse_twice(into, from, here);
    for (DocumentNode& child : from.children) {
      const auto same = std::find_if(into.children.begin(), into.children.end(),
                                     [&](const DocumentNode& other) { return other.key == child.key; });
      if (same == into.children.end()) {
        into.children.push_back(std::move(child));
      } else if (same->kind == Kind::null) {
        *same = std::move(child);
      } else {
        const Pointer below = here.at(same->key);
        merge(*same, std::move(child), below);
      }
    }
  }

  void refuse_twice(const DocumentNode& first, const DocumentNode& second, const Pointer& here) {
    complete_ = false;
    add_fault(faults_, {"duplicate_key",
                        here.to_string(),
                        name_,
                        second.key_line,
                        shown_column(sources_.line(second.key_line), second.key_column),
                        fmt::format("key {} is in two documents", in_quotes(second.key)),
                        {},
                        fmt::format("the first is at line {}", first.key_line)});
  }

  const std::string& name_;
  const Surroundings& surroundings_;
  Inserter inserter_;
  std::vector<Fault>& faults_;
  Sources sources_;
  std::vector<std::string> open_;  // the files that are read now, the outermost first
  bool changed_ = false, complete_ = true;
};

}  // namespace

Surroundings surroundings_of(const std::string& document_path) {
  return {[](const std::string& name) -> std::optional<std::string> {
            const char* value = std::getenv(name.c_str());
            return value == nullptr ? std::nullopt : std::optional<std::string>(value);
          },
          plain_files_beside(document_path), files_below(document_path)};
}

ExpandedDocument expand_document(const std::string& file_name, const std::string& text,
                                 const Surroundings& surroundings, std::vector<Fault>& faults) {
  return Expander(file_name, surroundings, faults).expand(text);
}

std::string escape_expansions(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size(); ++at) {
    if (text.substr(at).starts_with(kOpens)) out += '$';
    out += text[at];
  }
  return out;
}

}  // namespace tidegate
