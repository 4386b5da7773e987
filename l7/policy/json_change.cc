// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/json_change.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "conf/model/node.h"
#include "conf/policy/compress.h"
#include "conf/text.h"
#include "core/assert.h"
#include "l7/limits.h"
#include "l7/policy/claims.h"
#include "l7/policy/xml_json.h"

namespace tidegate::l7::policy {
namespace {

// The decoded name of a member. Nothing if it has half of a surrogate pair.
std::optional<std::string_view> member_name(std::string_view written, Arena& arena) {
  if (written.find('\\') == std::string_view::npos) return written;
  return json_text({JsonView::Kind::string, {written.data() - 1, written.size() + 2}}, arena);
}

bool is_container(const JsonView& view) {
  return view.kind == JsonView::Kind::object || view.kind == JsonView::Kind::array;
}

// `reading`: the text was XML. Otherwise it is JSON that becomes XML.
JsonFault fault_of_xml(XmlFault fault, bool reading) {
  switch (fault) {
    case XmlFault::none:
      return JsonFault::none;
    case XmlFault::malformed:
      return reading ? JsonFault::no_xml : JsonFault::not_as_xml;
    case XmlFault::not_taken:
      return JsonFault::xml_not_taken;
    case XmlFault::too_large:
      return JsonFault::body_too_large;
    case XmlFault::no_name:
    case XmlFault::no_element:
      return JsonFault::not_as_xml;
  }
  return JsonFault::no_xml;
}

}  // namespace

const char* name(JsonFault fault) {
  constexpr const char* kNames[] = {"none",       "no_json",     "body_coded",    "body_too_large",
                                    "body_cut",   "bad_text",    "no_xml",        "xml_not_taken",
                                    "not_as_xml", "no_protobuf", "not_as_message"};
  static_assert(std::size(kNames) == static_cast<size_t>(JsonFault::not_as_message) + 1);
  return kNames[static_cast<size_t>(fault)];
}

JsonChange::Node& JsonChange::at(Node& root, const std::string& path) {
  Node* node = &root;
  for (const std::string& each : json_path_of(path)) node = &node->below[each];
  return *node;
}

JsonChange::JsonChange(const TransformJson& json, const JsonContent& content)
    : picks_some_(!json.pick.empty()),
      makes_anew_(!json.body.empty()),
      body_(content.body),
      most_(json.most),
      from_(json.from),
      to_(json.to),
      root_(json.root),
      schema_(content.schema),
      message_(json.message) {
  TIDEGATE_ASSERT(json.edits.size() == content.values.size(), "the content is of another section");
  for (const std::string& path : json.pick) at(picks_, path).taken = true;
  for (size_t i = 0; i < json.edits.size(); ++i) {
    const TransformJsonEdit& edit = json.edits[i];
    Node& node = at(edits_, edit.path());
    switch (edit.action()) {
      case TransformJsonEdit::Action::set:
        node.set = true;
        node.value = content.values[i];
        break;
      case TransformJsonEdit::Action::remove:
        node.removed = true;
        break;
      case TransformJsonEdit::Action::rename:
        node.renamed = edit.to;
        break;
      case TransformJsonEdit::Action::redact:
        node.redacted = true;
        break;
    }
  }
}

// The change of one body. scan_json() bounds its depth, and `most` its size.
struct JsonChange::Run {
  const TemplateValues& values;
  std::string& out;
  Arena& arena;
  const uint64_t most;
  JsonFault fault = JsonFault::none;

  bool fits() {
    if (out.size() > most) fault = JsonFault::body_too_large;
    return fault == JsonFault::none;
  }
  static const Node* find(const Node* node, std::string_view name) {
    if (node == nullptr) return nullptr;
    const auto found = node->below.find(name);
    return found == node->below.end() ? nullptr : &found->second;
  }

  // A text with variables as a JSON string. If it is only one variable of the body, it is that value.
  void put_text(const TextTemplate& text) {
    const bool alone = text.parts.size() == 1 && text.parts[0].what == TemplatePart::What::json;
    const auto use = alone ? TemplateUse::json : TemplateUse::field;
    const std::optional<std::string_view> value = expand(text, values, nullptr, use, most, arena);
    if (!value) {
      fault = JsonFault::body_too_large;
    } else if (alone) {
      out += *value;
    } else {
      const size_t before = out.size();
      append_json_string(*value, out);
      if (find_unreadable(std::string_view(out).substr(before)) != std::string_view::npos) fault = JsonFault::bad_text;
    }
  }

  void put(const JsonView& view, const Node* edits, const Node* picks) {
    if (edits == nullptr && picks == nullptr) {
      out += view.text;
    } else if (view.kind == JsonView::Kind::object) {
      put_object(view, edits, picks);
    } else if (view.kind == JsonView::Kind::array) {
      out += '[';
      bool first = true;
      for (JsonWalk walk(view); walk.next() && fits(); first = false) {
        if (!first) out += ',';
        put(walk.value(), edits, picks);
      }
      out += ']';
    } else {
      out += view.text;
    }
  }

  // The new names of members of this object. A member that already has such a name is removed.
  std::vector<std::string_view> new_names(const JsonView& object, const Node* edits) {
    std::vector<std::string_view> names;
    const auto renames = [](const auto& each) { return !each.second.renamed.empty(); };
    if (edits == nullptr || std::none_of(edits->below.begin(), edits->below.end(), renames)) return names;
    for (JsonWalk walk(object); walk.next();) {
      const std::optional<std::string_view> name = member_name(walk.name(), arena);
      const Node* const edit = name ? find(edits, *name) : nullptr;
      if (edit == nullptr || edit->renamed.empty() || edit->renamed == *name) continue;
      if (std::find(names.begin(), names.end(), edit->renamed) == names.end()) names.emplace_back(edit->renamed);
    }
    return names;
  }

  void put_object(const JsonView& object, const Node* edits, const Node* picks) {
    out += '{';
    bool first = true;
    const std::vector<std::string_view> taken_names = new_names(object, edits);
    const auto begin_member = [&](std::string_view written) {
      if (!std::exchange(first, false)) out += ',';
      ((out += '"') += written) += "\":";
    };
    for (JsonWalk walk(object); walk.next() && fits();) {
      const std::optional<std::string_view> name = member_name(walk.name(), arena);
      if (!name) {
        fault = JsonFault::no_json;
        return;
      }
      const Node* const pick = find(picks, *name);
      const Node* const edit = find(edits, *name);
      if (picks != nullptr && (pick == nullptr || (!pick->taken && !is_container(walk.value())))) continue;
      if (edit != nullptr && (edit->removed || edit->set)) continue;
      const bool renamed = edit != nullptr && !edit->renamed.empty();
      if (!renamed && std::find(taken_names.begin(), taken_names.end(), *name) != taken_names.end()) continue;
      if (renamed) {
        if (!std::exchange(first, false)) out += ',';
        append_json_string(edit->renamed, out);
        out += ':';
      } else {
        begin_member(walk.name());
      }
      if (edit != nullptr && edit->redacted) {
        out += "\"***\"";
      } else {
        put(walk.value(), edit, pick != nullptr && pick->taken ? nullptr : pick);
      }
    }
    if (edits == nullptr) return void(out += '}');
    for (const auto& [name, node] : edits->below) {
      if (!node.set || node.removed || !fits()) continue;
      if (!std::exchange(first, false)) out += ',';
      append_json_string(name, out);
      out += ':';
      put_text(node.value);
    }
    out += '}';
  }
};

bool JsonChange::takes(std::string_view content_type) const {
  if (from_ == BodyForm::json) {
    return takes_type("application/json", content_type) || takes_type("application/*+json", content_type);
  }
  if (from_ == BodyForm::protobuf) {
    constexpr std::string_view kTypes[] = {"application/protobuf", "application/x-protobuf",
                                           "application/vnd.google.protobuf"};
    return std::any_of(std::begin(kTypes), std::end(kTypes),
                       [&](std::string_view type) { return takes_type(type, content_type); });
  }
  return takes_type("application/xml", content_type) || takes_type("text/xml", content_type) ||
         takes_type("application/*+xml", content_type);
}

std::string_view JsonChange::new_content_type() const {
  if (from_ == to_) return {};
  constexpr std::string_view kTypes[] = {"application/json", "application/xml", "application/protobuf"};
  return kTypes[static_cast<size_t>(to_)];
}

std::string JsonChange::conversion() const {
  constexpr const char* kForms[] = {"json", "xml", "protobuf"};
  if (from_ == BodyForm::json && to_ == BodyForm::json) return {};
  std::string words = std::string(kForms[static_cast<size_t>(from_)]) + " to " + kForms[static_cast<size_t>(to_)];
  if (schema_ != nullptr) ((words += " (") += message_) += ")";
  return words;
}

JsonFault JsonChange::read(std::string_view body, std::string& json) const {
  if (from_ == BodyForm::xml) return fault_of_xml(xml_to_json(body, most_, json), true);
  const ProtobufFault fault = schema_->to_json(message_, body, {most_, kProtobufValues}, json);
  if (fault == ProtobufFault::too_large) return JsonFault::body_too_large;
  // A message may be nested more deeply, and its strings need not be UTF-8.
  const bool reads = fault == ProtobufFault::none && scan_json(json) && find_unreadable(json) == std::string_view::npos;
  return reads ? JsonFault::none : JsonFault::no_protobuf;
}

JsonFault JsonChange::write(std::string_view json, std::string& out, Arena& arena) const {
  if (to_ == BodyForm::xml) return fault_of_xml(json_to_xml(json, root_, most_, out, arena), false);
  const ProtobufFault fault = schema_->from_json(message_, json, {most_, kProtobufValues}, out);
  if (fault == ProtobufFault::none) return JsonFault::none;
  return fault == ProtobufFault::too_large ? JsonFault::body_too_large : JsonFault::not_as_message;
}

JsonFault JsonChange::change(std::string_view body, const TemplateValues& values, std::string& out,
                             Arena& arena) const {
  if (body.size() > most_) return JsonFault::body_too_large;
  std::string as_json, changed;
  if (from_ != BodyForm::json) {
    if (const JsonFault fault = read(body, as_json); fault != JsonFault::none) return fault;
    body = as_json;
  }
  const bool passes = from_ != BodyForm::json && leaves_json();  // text that was made here need not be parsed again
  std::string& json = to_ == BodyForm::json ? out : changed;
  if (passes) {
    json = std::move(as_json);
  } else if (const JsonFault fault = change_json(body, values, json, arena); fault != JsonFault::none) {
    return fault;
  }
  return to_ == BodyForm::json ? JsonFault::none : write(json, out, arena);
}

JsonFault JsonChange::change_json(std::string_view body, const TemplateValues& values, std::string& out,
                                  Arena& arena) const {
  const std::optional<JsonView> view = scan_json(body);
  if (!view || find_unreadable(body) != std::string_view::npos) return JsonFault::no_json;
  TemplateValues with_body = values;
  with_body.json = view->text;
  Run run{with_body, out, arena, most_};
  if (makes_anew_) {
    const std::optional<std::string_view> made = expand(body_, with_body, nullptr, TemplateUse::json, most_, arena);
    if (!made) return JsonFault::body_too_large;
    if (!scan_json(*made) || find_unreadable(*made) != std::string_view::npos) return JsonFault::bad_text;
    out = *made;
    return JsonFault::none;
  }
  run.put(*view, edits_.below.empty() ? nullptr : &edits_, picks_some_ ? &picks_ : nullptr);
  return run.fits() ? JsonFault::none : run.fault;
}

}  // namespace tidegate::l7::policy
