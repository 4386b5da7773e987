// SPDX-License-Identifier: Apache-2.0
// The keys of transform that are about JSON bodies.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "conf/checks.h"
#include "conf/field_builders.h"
#include "conf/limits.h"
#include "conf/names.h"
#include "conf/policy/template.h"
#include "conf/policy/transform.h"
#include "core/log.h"
#include "core/protobuf.h"

namespace tidegate {
namespace {

using namespace fields;
using JsonAction = TransformJsonEdit::Action;

constexpr std::array<const char*, 4> kJsonActionKeys = {"set", "remove", "rename", "redact"};
constexpr size_t kJsonPathBytes = 512, kJsonBodyBytes = 8'192;

const Section& transform_json_edit_section() {
  static const Section section{
      "edit",
      {
          text(
              "set", &TransformJsonEdit::set,
              "`a.b`: the member b of the object a, and of every object in the list a, becomes `value`; it is added if "
              "the object is there.",
              kJsonPathBytes),
          text("remove", &TransformJsonEdit::remove, "A path whose member is removed.", kJsonPathBytes),
          text("rename", &TransformJsonEdit::rename, "A path whose member is called `to` from then on.",
               kJsonPathBytes),
          text("redact", &TransformJsonEdit::redact, "A path whose value becomes `\"***\"`.", kJsonPathBytes),
          text("value", &TransformJsonEdit::value,
               "Of `set`: a text with variables, which becomes a string. `{json.PATH}` alone is a value of the body.",
               kJsonPathBytes),
          text("to", &TransformJsonEdit::to, "Of `rename`: the new name.", kJsonPathBytes),
      }};
  return section;
}

bool is_element_name(std::string_view name) {
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  const auto fits = [&](char c) { return is_letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '.'; };
  return !name.empty() && is_letter(name[0]) && std::all_of(name.begin(), name.end(), fits);
}

void check_json_path(Checks& checks, Way way, const std::string& path) {
  if (!json_path_of(path).empty()) return;
  checks.refuse(way, {"bad_value",
                      fmt::format("{} is no path", in_quotes(path)),
                      fmt::format("names with dots between them, at most {}", kJsonPathSegmentsMost),
                      {}});
}

void check_json_text(Checks& checks, Way way, const std::string& text, bool of_answer) {
  const Result<TextTemplate> parsed = parse_template(text);
  if (!parsed) return checks.refuse(way, {"bad_value", parsed.error().message, {}, {}});
  for (const TemplatePart& part : parsed->parts) {
    if (part.what == TemplatePart::What::group) {
      return checks.refuse(way, {"bad_value", "{match.N} is for a key with `match`", {}, {}});
    }
    if (part.what == TemplatePart::What::status && !of_answer) {
      return checks.refuse(way, {"bad_value", "{status} is known of answers alone", {}, {}});
    }
  }
}

void check_json_edit(Checks& checks, size_t p, const char* key, size_t i, const TransformJsonEdit& edit) {
  size_t actions = 0;
  for (const char* each : kJsonActionKeys) {
    actions += checks.written({"policies", p, "transform", key, "edits", i, each}) ? 1 : 0;
  }
  if (actions != 1) {
    return checks.refuse({"policies", p, "transform", key, "edits", i},
                         {"exactly_one",
                          actions == 0 ? "an edit that does nothing" : "an edit does one thing",
                          "one of set, remove, rename and redact",
                          {}});
  }
  const JsonAction action = edit.action();
  const char* const verb = kJsonActionKeys[static_cast<size_t>(action)];
  check_json_path(checks, {"policies", p, "transform", key, "edits", i, verb}, edit.path());
  const std::pair<const char*, bool> kKeys[] = {{"value", action == JsonAction::set},
                                                {"to", action == JsonAction::rename}};
  for (const auto& [other, belongs] : kKeys) {
    if (checks.written({"policies", p, "transform", key, "edits", i, other}) == belongs) continue;
    checks.refuse({"policies", p, "transform", key, "edits", i},
                  {belongs ? "missing_key" : "without_effect",
                   belongs ? fmt::format("`{}` needs `{}`", verb, other) : fmt::format("`{}` has no `{}`", verb, other),
                   {},
                   {}});
  }
  check_json_text(checks, {"policies", p, "transform", key, "edits", i, "value"}, edit.value,
                  std::string_view(key) == "response_json");
}

}  // namespace

const Section& transform_json_section() {
  static const Section section{
      "json section",
      {
          choice(
              "from", &TransformJson::from,
              {{"json", BodyForm::json}, {"xml", BodyForm::xml}, {"protobuf", BodyForm::protobuf}},
              "`xml`: the body that comes is XML, and is read as JSON: an attribute is a member `@name`, text beside "
              "attributes or children is `#text`, children of one name are a list. `protobuf`: it is a "
              "message of Protobuf, and is read as JSON by Protobuf's own rules. `pick`, `edits` and `body` are about "
              "that JSON."),
          choice("to", &TransformJson::to,
                 {{"json", BodyForm::json}, {"xml", BodyForm::xml}, {"protobuf", BodyForm::protobuf}},
                 "`xml`, `protobuf`: what goes out is written in this form by the same rules, backwards. A name that "
                 "the message does not have is refused."),
          row("schema_file", FieldType::file, &TransformJson::schema,
              "Of `protobuf`: the schema, as `protoc --include_imports --descriptor_set_out=FILE` writes it."),
          text("message", &TransformJson::message,
               "Of `protobuf`: the full name of the message's type, for example `shop.v1.Order`.", 512),
          text("root", &TransformJson::root,
               "Of `to: xml`: the name of the document's element, if the JSON is no object with one member.", 128),
          text("pick", &TransformJson::pick,
               "Paths: only these stay. `items.id`: of every object in the list items, the id. Without the key, all.",
               kJsonPathBytes),
          nested("edits", &TransformJson::edits, transform_json_edit_section(), "Changes of what was picked."),
          text(
              "body", &TransformJson::body,
              "The new body instead: JSON with variables. `{json.PATH}` is a value of the body that came (`null` if it "
              "is not there); others are written for between two quotes: `{{\"who\": \"{jwt.sub}\", \"what\": "
              "{json.item}}}`.",
              kJsonBodyBytes),
          size("most", &TransformJson::most, {64, 1 * kMB}, "A body may have so many bytes, before and after."),
      }};
  return section;
}

namespace {

void check_schema(Checks& checks, size_t p, const char* key, const TransformJson& json) {
  const bool of_protobuf = json.from == BodyForm::protobuf || json.to == BodyForm::protobuf;
  for (const char* each : {"schema_file", "message"}) {
    if (checks.written({"policies", p, "transform", key, each}) == of_protobuf) continue;
    if (of_protobuf) {
      checks.refuse({"policies", p, "transform", key},
                    {"missing_key", fmt::format("Protobuf needs `{}`", each), {}, {}});
    } else {
      checks.refuse({"policies", p, "transform", key, each},
                    {"without_effect", fmt::format("`{}` is for Protobuf", each), "from or to: protobuf", "remove it"});
    }
  }
  if (!of_protobuf || json.schema.bytes == nullptr || json.message.empty()) return;
  const Way at_file = {"policies", p, "transform", key, "schema_file"};
  if (json.schema.bytes->size() > kProtobufSchemaBytes) {
    return checks.refuse(at_file,
                         {"out_of_range",
                          fmt::format("file {} has {} bytes", in_quotes(json.schema.name), json.schema.bytes->size()),
                          fmt::format("at most {}", kProtobufSchemaBytes),
                          {}});
  }
  const Result<std::shared_ptr<const ProtobufSchema>> schema =
      ProtobufSchema::shared(json.schema.hash, *json.schema.bytes);
  if (!schema) {
    return checks.refuse(at_file, {"bad_value",
                                   fmt::format("file {} is no schema of Protobuf: {}", in_quotes(json.schema.name),
                                               printable(schema.error().message)),
                                   "what `protoc --include_imports --descriptor_set_out=FILE` writes",
                                   {}});
  }
  if ((*schema)->has(json.message)) return;
  const std::vector<std::string> messages = (*schema)->messages();
  const std::vector<std::string_view> names(messages.begin(), messages.end());
  checks.refuse({"policies", p, "transform", key, "message"},
                {"no_such_name",
                 fmt::format("file {} has no message {}", in_quotes(json.schema.name), in_quotes(json.message)),
                 {},
                 did_you_mean(json.message, names)});
}

}  // namespace

void check_transform_json(Checks& checks, size_t p, const char* key, const TransformJson& json) {
  const bool converts = json.from != json.to;
  if (json.pick.empty() && json.edits.empty() && json.body.empty() && !converts) {
    checks.refuse({"policies", p, "transform", key}, {"missing_key",
                                                      fmt::format("{} that changes nothing", key),
                                                      "pick, edits or body; or from and to that differ",
                                                      {}});
  }
  if (json.to != BodyForm::xml && checks.written({"policies", p, "transform", key, "root"})) {
    checks.refuse({"policies", p, "transform", key, "root"}, {"without_effect", "`root` is for `to: xml`", {}, {}});
  }
  check_schema(checks, p, key, json);
  if (!is_element_name(json.root)) {
    checks.refuse({"policies", p, "transform", key, "root"},
                  {"bad_value",
                   fmt::format("{} is no name of an element", in_quotes(json.root)),
                   "a letter or '_', then letters, digits, '-', '_' and '.'",
                   {}});
  }
  if (!json.body.empty() && (!json.pick.empty() || !json.edits.empty())) {
    checks.refuse(
        {"policies", p, "transform", key, "body"},
        {"exactly_one", "a body that is made anew has nothing to pick or to edit", "body, or the others", {}});
  }
  for (const auto& [list, count] : {std::pair("pick", json.pick.size()), std::pair("edits", json.edits.size())}) {
    if (count <= kTransformEdits) continue;
    checks.refuse(
        {"policies", p, "transform", key, list},
        {"out_of_range", fmt::format("{} has {} items", list, count), fmt::format("at most {}", kTransformEdits), {}});
    return;
  }
  for (size_t i = 0; i < json.pick.size(); ++i) {
    check_json_path(checks, {"policies", p, "transform", key, "pick", i}, json.pick[i]);
  }
  for (size_t i = 0; i < json.edits.size(); ++i) check_json_edit(checks, p, key, i, json.edits[i]);
  check_json_text(checks, {"policies", p, "transform", key, "body"}, json.body,
                  std::string_view(key) == "response_json");
}

TransformJsonEdit::Action TransformJsonEdit::action() const {
  const std::string* const paths[] = {&set, &remove, &rename, &redact};
  for (size_t i = 0; i < std::size(paths); ++i) {
    if (!paths[i]->empty()) return static_cast<Action>(i);
  }
  return Action::set;
}

const std::string& TransformJsonEdit::path() const {
  const std::string* const paths[] = {&set, &remove, &rename, &redact};
  return *paths[static_cast<size_t>(action())];
}

std::vector<std::string> json_path_of(std::string_view path) {
  std::vector<std::string> names;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    if (end == begin || names.size() == kJsonPathSegmentsMost) return {};
    names.emplace_back(path.substr(begin, end - begin));
    begin = end + 1;
  }
  return names;
}

}  // namespace tidegate
