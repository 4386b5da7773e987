// SPDX-License-Identifier: Apache-2.0
#include "conf/canonical.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <vector>

#include "conf/scalar.h"
#include "conf/text.h"

namespace tidegate {
namespace {

using Json = nlohmann::json;

// For keys that are not in the table: guesses the type like YAML's core schema.
Json raw_json(const DocumentNode& node) {
  Json json;
  switch (node.kind) {
    case DocumentNode::Kind::null:
      break;
    case DocumentNode::Kind::map:
      json = Json::object();
      for (const DocumentNode& child : node.children) json[child.key] = raw_json(child);
      break;
    case DocumentNode::Kind::list:
      json = Json::array();
      for (const DocumentNode& child : node.children) json.push_back(raw_json(child));
      break;
    case DocumentNode::Kind::scalar:
      if (!node.quoted && (node.text == "true" || node.text == "false")) {
        json = node.text == "true";
      } else if (!node.quoted && is_json_number(node.text)) {
        json = Json::parse(node.text, nullptr, false);
        if (json.is_discarded()) json = node.text;  // too large for a double
      } else {
        json = node.text;
      }
  }
  return json;
}

Json value_json(const Field& field, const DocumentNode& node) {
  if (field.type == FieldType::section) return node.is_map() ? canonical_json(*field.section, node) : raw_json(node);
  const Decoded decoded = decode_scalar(field, node);
  return decoded.value ? scalar_json(field, *decoded.value) : raw_json(node);
}

Json field_json(const Field& field, const DocumentNode& node) {
  if (field.type == FieldType::text_map && node.is_map()) {
    Json json = Json::object();
    for (const DocumentNode& child : node.children) json[child.key] = value_json(field, child);
    return json;
  }
  if (!field.list) return value_json(field, node);
  if (!node.is_list()) return raw_json(node);
  Json json = Json::array();
  for (const DocumentNode& child : node.children) json.push_back(value_json(field, child));
  return json;
}

// Writes YAML: flow style for what fits on one line, block style around it.
class YamlWriter {
 public:
  std::string document(const Section& section, const Json& json) {
    if (!json.is_object() || json.empty()) return flow(&section, json) + "\n";
    write_map(&section, json, 0);
    return std::move(out_);
  }

 private:
  static constexpr size_t kLine = 110;
  static constexpr size_t kStep = 2;

  struct Entry {
    const std::string* key;
    const Json* value;
    const Section* section;  // section of the value, if the table knows it
    size_t rank;             // position in the table; unknown keys are last
  };

  static std::vector<Entry> entries(const Section* section, const Json& map) {
    std::vector<Entry> entries;
    for (auto item = map.begin(); item != map.end(); ++item) {
      const Field* field = section == nullptr ? nullptr : section->find(item.key());
      entries.push_back({&item.key(), &item.value(), field == nullptr ? nullptr : field->section,
                         field == nullptr ? SIZE_MAX : static_cast<size_t>(field - section->fields.data())});
    }
    std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.rank < b.rank; });
    return entries;
  }

  // True if YAML reads the unquoted text back as the same text, in flow style too.
  static bool is_plain(std::string_view text) {
    constexpr std::string_view kAnywhere = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_/";
    constexpr std::string_view kNotFirst = ".-+@%*";
    constexpr std::array<std::string_view, 9> kWords = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"};
    const auto anywhere = [&](char c) { return kAnywhere.find(c) != std::string_view::npos; };
    const auto inside = [&](char c) { return anywhere(c) || kNotFirst.find(c) != std::string_view::npos; };
    if (text.empty() || !anywhere(text.front()) || !std::all_of(text.begin(), text.end(), inside)) return false;
    if (is_json_number(text) || looks_octal_or_hex(text)) return false;
    std::string folded(text);
    for (char& c : folded) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    return std::find(kWords.begin(), kWords.end(), folded) == kWords.end();
  }

  // JSON's escapes are also valid in double-quoted YAML.
  static std::string text_of(const std::string& text) {
    return is_plain(text) ? text : Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
  }

  static std::string scalar(const Json& json) {
    return json.is_string() ? text_of(json.get_ref<const std::string&>()) : json.dump();
  }

  std::string flow(const Section* section, const Json& json) const {
    std::string text;
    if (json.is_object()) {
      for (const Entry& entry : entries(section, json)) {
        text += (text.empty() ? "" : ", ") + text_of(*entry.key) + ": " + flow(entry.section, *entry.value);
      }
      return "{" + text + "}";
    }
    if (json.is_array()) {
      for (const Json& item : json) text += (text.empty() ? "" : ", ") + flow(section, item);
      return "[" + text + "]";
    }
    return scalar(json);
  }

  static bool is_block(const Json& json) { return json.is_structured() && !json.empty(); }

  void write_map(const Section* section, const Json& map, size_t indent) {
    for (const Entry& entry : entries(section, map)) {
      const std::string key = std::string(indent, ' ') + text_of(*entry.key) + ":";
      const bool top = indent == 0 && is_block(*entry.value);
      const std::string line = top ? std::string() : flow(entry.section, *entry.value);
      if (!top && (!is_block(*entry.value) || key.size() + 1 + line.size() <= kLine)) {
        out_ += key + " " + line + "\n";
        continue;
      }
      out_ += key + "\n";
      if (entry.value->is_object()) {
        write_map(entry.section, *entry.value, indent + kStep);
      } else {
        write_list(entry.section, *entry.value, indent + kStep);
      }
    }
  }

  void write_list(const Section* section, const Json& list, size_t indent) {
    const std::string dash = std::string(indent, ' ') + "- ";
    for (const Json& item : list) {
      const std::string line = flow(section, item);
      if (!item.is_object() || item.empty() || dash.size() + line.size() <= kLine) {
        out_ += dash + line + "\n";
        continue;
      }
      const size_t start = out_.size();
      write_map(section, item, indent + kStep);
      out_.replace(start, dash.size(), dash);
    }
  }

  std::string out_;
};

}  // namespace

Json canonical_json(const Section& section, const DocumentNode& node) {
  if (!node.is_map()) return raw_json(node);
  Json json = Json::object();
  for (const DocumentNode& child : node.children) {
    const Field* field = section.find(child.key);
    json[child.key] = field == nullptr ? raw_json(child) : field_json(*field, child);
  }
  return json;
}

std::string canonical_yaml(const Section& section, const Json& json) { return YamlWriter().document(section, json); }

}  // namespace tidegate
