// SPDX-License-Identifier: Apache-2.0
// Objects: the pieces of a document that a version's manifest lists, and the way back.
//
//    kind       name               bytes
//    "pools"    the element's      canonical JSON of one list element
//    "geo"      ""                 canonical JSON of a section that is a map
//    "order"    "pools"            JSON list of the elements' names, in the document's order
//    "file"     the path written   the file's content
//
// So a change of one element changes one object. Only adding, removing or moving an element also changes the list's
// order.
#include "conf/objects.h"

#include <nlohmann/json.hpp>
#include <set>

#include "conf/document_node.h"
#include "conf/fields.h"
#include "conf/scalar.h"

namespace tidegate {
namespace {

using Json = nlohmann::json;

void collect_files(const Section& section, const DocumentNode& node, std::set<std::string>& paths);

void collect_files(const Field& field, const DocumentNode& node, std::set<std::string>& paths) {
  if (field.list && node.is_list()) {
    for (const DocumentNode& item : node.children) {
      if (field.type == FieldType::section) collect_files(*field.section, item, paths);
    }
  } else if (field.type == FieldType::section) {
    collect_files(*field.section, node, paths);
  } else if (field.type == FieldType::file && node.is_scalar()) {
    paths.insert(node.text);
  }
}

void collect_files(const Section& section, const DocumentNode& node, std::set<std::string>& paths) {
  for (const DocumentNode& child : node.children) {
    if (const Field* field = section.find(child.key)) collect_files(*field, child, paths);
  }
}

// Empty if the element has no name, which cannot happen in a document without faults.
std::string name_of(const Json& element, const Field& list) {
  const std::string key(list.section->identity()->key);
  return element.is_object() && element.contains(key) && element[key].is_string() ? element[key].get<std::string>()
                                                                                  : "";
}

// Indexed by kind and name.
using ObjectBytes = std::map<std::pair<std::string, std::string>, const std::string*>;

Json parse_or_null(const ObjectBytes& objects, const std::string& kind, const std::string& name) {
  const auto found = objects.find({kind, name});
  if (found == objects.end()) return {};
  Json json = Json::parse(*found->second, nullptr, false);
  return json.is_discarded() ? Json() : json;
}

// The list of one top-level key. Null if an object is missing or damaged.
Json assemble_list(const ObjectBytes& objects, const std::string& kind) {
  const Json order = parse_or_null(objects, kOrderKind, kind);
  if (!order.is_array()) return {};
  Json list = Json::array();
  for (const Json& name : order) {
    Json element = name.is_string() ? parse_or_null(objects, kind, name.get<std::string>()) : Json();
    if (element.is_null()) return {};
    list.push_back(std::move(element));
  }
  return list;
}

}  // namespace

std::vector<ConfigObject> split_objects(const Document& document, const FileReader& files) {
  std::vector<ConfigObject> objects;
  const Json json = document.to_json();
  for (auto top = json.begin(); top != json.end(); ++top) {
    const Field* field = root_section().find(top.key());
    if (field == nullptr || !field->list || !top->is_array()) {
      objects.push_back({top.key(), "", top->dump()});
      continue;
    }
    Json order = Json::array();
    for (const Json& element : *top) {
      const std::string name = name_of(element, *field);
      objects.push_back({top.key(), name, element.dump()});
      order.push_back(name);
    }
    objects.push_back({kOrderKind, top.key(), order.dump()});
  }
  std::set<std::string> paths;
  collect_files(root_section(), document.root(), paths);
  for (const std::string& path : paths) {
    std::string error;
    if (const auto bytes = files(path, error)) objects.push_back({kFileKind, path, *bytes});
  }
  return objects;
}

const std::shared_ptr<const std::string>& withheld_file() {
  static const auto file = std::make_shared<const std::string>();
  return file;
}

std::unique_ptr<Document> parse_object(const std::string& bytes) {
  const Json json = Json::parse(bytes, nullptr, false);
  return json.is_discarded() ? nullptr : Document::from_json("", json);
}

std::unique_ptr<Document> assemble_document(const std::vector<ConfigObject>& objects, FileReader& files) {
  ObjectBytes by_name;
  std::map<std::string, std::shared_ptr<const std::string>> contents;
  for (const ConfigObject& object : objects) {
    if (object.kind == kFileKind) {
      contents.emplace(object.name,
                       object.withheld ? withheld_file() : std::make_shared<const std::string>(object.bytes));
    } else {
      by_name.emplace(std::pair(object.kind, object.name), &object.bytes);
    }
  }
  Json json = Json::object();
  for (const auto& [key, bytes] : by_name) {
    const auto& [kind, name] = key;
    const Field* field = root_section().find(kind);
    if (kind == kOrderKind) {
      json[name] = assemble_list(by_name, name);
      if (json[name].is_null()) return nullptr;
    } else if (field != nullptr && !field->list) {
      json[kind] = parse_or_null(by_name, kind, name);
      if (json[kind].is_null()) return nullptr;
    }
  }
  files = files_from(std::move(contents));
  return Document::from_json("", json);
}

}  // namespace tidegate
