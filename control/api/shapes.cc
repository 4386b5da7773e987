// SPDX-License-Identifier: Apache-2.0
#include "control/api/shapes.h"

#include <fmt/format.h>

#include <algorithm>

#include "control/api/json_bounds.h"

namespace tidegate {

using nlohmann::json;

const char* name(OverrideState state) {
  switch (state) {
    case OverrideState::drained:
      return "drained";
    case OverrideState::down:
      return "down";
    case OverrideState::up:
      return "up";
    case OverrideState::quota:
      return "quota";
  }
  return "?";
}

std::optional<OverrideState> parse_override_state(std::string_view text) {
  if (text == "drained") return OverrideState::drained;
  if (text == "down") return OverrideState::down;
  if (text == "up") return OverrideState::up;
  if (text == "quota") return OverrideState::quota;
  return std::nullopt;
}

const char* name(PurgeKind kind) {
  switch (kind) {
    case PurgeKind::url:
      return "url";
    case PurgeKind::tag:
      return "tag";
    case PurgeKind::all:
      return "all";
  }
  return "unknown";
}

json to_json(const StateHead& head) {
  return {{"version", head.version}, {"words", head.live_state}, {"purge", head.purge}};
}

json to_json(const Manifest& manifest, bool with_entries) {
  json result = {{"version", manifest.version},
                 {"created_ns", manifest.created_ns},
                 {"author", manifest.author},
                 {"comment", manifest.comment},
                 {"digest", manifest.digest}};
  if (manifest.rollback_of != 0) result["rollback_of"] = manifest.rollback_of;
  if (with_entries) {
    json& entries = result["entries"] = json::array();
    for (const ManifestEntry& entry : manifest.entries) {
      entries.push_back({{"kind", entry.kind}, {"name", entry.name}, {"hash", entry.hash}});
    }
  }
  return result;
}

json to_json(const Override& record) {
  json told = {{"state", name(record.state)}, {"by", record.by}, {"note", record.note}, {"since_ns", record.since_ns}};
  if (record.state == OverrideState::quota) {
    told["requests"] = record.requests;
    told["burst"] = record.burst;
  }
  return told;
}

json to_json(const HealthVerdict& record) {
  json told = {{"up", record.up}, {"reason", record.reason}, {"since_ns", record.since_ns}};
  if (record.drains) told["drains"] = true;
  return told;
}

json to_json(const SiteLoad& record) {
  return {
      {"load_percent", record.load_percent}, {"shed_permille", record.shed_permille}, {"since_ns", record.since_ns}};
}

json to_json(const FoundName& record) {
  json endpoints = json::array();
  for (const NamedEndpoint& each : record.endpoints) {
    endpoints.push_back(
        {{"endpoint", each.endpoint.to_string()}, {"priority", each.priority}, {"weight", each.weight}});
    if (each.left_ns != 0) endpoints.back()["left_ns"] = each.left_ns;
  }
  return {{"endpoints", std::move(endpoints)}, {"trouble", record.trouble}};
}

json to_json(const LiveState& live_state) {
  json admin = json::object(), health = json::object(), loads = json::object(), names = json::object();
  for (const auto& [key, record] : live_state.names) names[key] = to_json(record);
  for (const auto& [key, record] : live_state.loads) loads[key] = to_json(record);
  for (const auto& [key, record] : live_state.overrides) admin[key] = to_json(record);
  for (const auto& [key, record] : live_state.health) health[key] = to_json(record);
  return {{"sequence", live_state.sequence},
          {"admin", std::move(admin)},
          {"health", std::move(health)},
          {"loads", std::move(loads)},
          {"names", std::move(names)}};
}

json to_json(const Purge& purge) {
  return {{"sequence", purge.sequence}, {"kind", name(purge.kind)}, {"value", purge.value},
          {"soft", purge.soft},         {"at_ns", purge.at_ns},     {"by", purge.by}};
}

json to_json(const AuditRecord& record) {
  return {{"sequence", record.sequence}, {"at_ns", record.at_ns},   {"who", record.who},
          {"action", record.action},     {"target", record.target}, {"detail", record.detail}};
}

json to_json(const Fault& fault) {
  json told = {{"pointer", fault.pointer},   {"file", fault.file}, {"line", fault.line},
               {"column", fault.column},     {"code", fault.code}, {"detail", fault.detail},
               {"expected", fault.expected}, {"hint", fault.hint}};
  if (fault.line_text) told["line_text"] = *fault.line_text;
  return told;
}

json to_json(const std::vector<Fault>& faults) {
  json result = json::array();
  for (const Fault& fault : faults) result.push_back(to_json(fault));
  return result;
}

namespace {

// Reads members and remembers the first one that is missing or has a wrong type.
class Reader {
 public:
  Reader(const json& object, const char* what) : object_(object), what_(what) {
    if (!object.is_object()) error_ = fmt::format("{} is not an object", what);
  }
  std::string text(const char* key) {
    const json* member = find(key);
    if (!member) return {};
    if (member->is_string()) return member->get<std::string>();
    return note(key, "a string"), std::string();
  }
  uint64_t number(const char* key) {
    const json* member = find(key);
    if (!member) return 0;
    if (member->is_number_unsigned()) return member->get<uint64_t>();
    return note(key, "a whole number"), 0;
  }
  bool boolean(const char* key) {
    const json* member = find(key);
    if (!member) return false;
    if (member->is_boolean()) return member->get<bool>();
    return note(key, "true or false"), false;
  }
  const json& child(const char* key, json::value_t type) {
    static const json kNothing;
    const json* member = find(key);
    if (member && member->type() == type) return *member;
    if (member) note(key, type == json::value_t::array ? "a list" : "an object");
    return kNothing;
  }
  const std::string& error() const { return error_; }

 private:
  const json* find(const char* key) {
    if (!object_.is_object()) return nullptr;
    const auto member = object_.find(key);
    if (member == object_.end()) {
      note(key, "present");
      return nullptr;
    }
    return &*member;
  }
  void note(const char* key, const char* expected) {
    if (error_.empty()) error_ = fmt::format("{}: {} is not {}", what_, key, expected);
  }
  const json& object_;
  const char* what_;
  std::string error_;
};

template <class T>
Result<T> checked(const Reader& reader, T value) {
  if (!reader.error().empty()) return fail(reader.error());
  return value;
}

}  // namespace

Result<StateHead> head_from_json(const json& object) {
  Reader reader(object, "head");
  return checked(reader, StateHead{reader.number("version"), reader.number("words"), reader.number("purge")});
}

Result<Manifest> manifest_from_json(const json& object) {
  Reader reader(object, "manifest");
  Manifest manifest;
  manifest.version = reader.number("version");
  manifest.created_ns = reader.number("created_ns");
  manifest.author = reader.text("author");
  manifest.comment = reader.text("comment");
  manifest.digest = reader.text("digest");
  if (object.is_object() && object.contains("rollback_of")) manifest.rollback_of = reader.number("rollback_of");
  for (const json& element : reader.child("entries", json::value_t::array)) {
    Reader entry(element, "manifest entry");
    manifest.entries.push_back({entry.text("kind"), entry.text("name"), entry.text("hash")});
    if (!entry.error().empty()) return fail(entry.error());
  }
  return checked(reader, std::move(manifest));
}

namespace {

Result<FoundName> found_name_from_json(const json& object) {
  Reader reader(object, "name");
  FoundName out;
  out.trouble = reader.text("trouble");
  for (const json& element : reader.child("endpoints", json::value_t::array)) {
    Reader each(element, "endpoint of a name");
    const std::optional<Endpoint> endpoint = Endpoint::parse(each.text("endpoint"));
    const uint64_t priority = each.number("priority"), weight = each.number("weight");
    if (!each.error().empty()) return fail(each.error());
    if (!endpoint || priority > UINT16_MAX || weight > UINT16_MAX) return fail("name: an endpoint cannot be read");
    out.endpoints.push_back(
        {*endpoint, static_cast<uint16_t>(priority), static_cast<uint16_t>(weight), number_member(element, "left_ns")});
  }
  if (!reader.error().empty()) return fail(reader.error());
  std::sort(out.endpoints.begin(), out.endpoints.end());
  return out;
}

// A control of an earlier release sends no names.
Result<void> read_names(Reader& reader, const json& object, NameBook& names) {
  if (!object.is_object() || !object.contains("names")) return {};
  for (const auto& [key, value] : reader.child("names", json::value_t::object).items()) {
    Result<FoundName> record = found_name_from_json(value);
    if (!record) return record.error();
    names[key] = *std::move(record);
  }
  return {};
}

}  // namespace

Result<LiveState> live_state_from_json(const json& object) {
  Reader reader(object, "words");
  LiveState live_state;
  live_state.sequence = reader.number("sequence");
  for (const auto& [key, value] : reader.child("admin", json::value_t::object).items()) {
    Reader record(value, "override");
    const std::optional<OverrideState> state = parse_override_state(record.text("state"));
    live_state.overrides[key] = {state.value_or(OverrideState::drained),
                                 record.text("by"),
                                 record.text("note"),
                                 record.number("since_ns"),
                                 number_member(value, "requests"),
                                 number_member(value, "burst")};
    if (!record.error().empty()) return fail(record.error());
    if (!state) return fail("override: state is none of drained, down, up, quota");
  }
  for (const auto& [key, value] : reader.child("health", json::value_t::object).items()) {
    Reader record(value, "health verdict");
    live_state.health[key] = {record.boolean("up"), record.text("reason"), record.number("since_ns"),
                              bool_member(value, "drains")};
    if (!record.error().empty()) return fail(record.error());
  }
  if (Result<void> read = read_names(reader, object, live_state.names); !read) return read.error();
  // A control of an earlier release sends no loads.
  if (!object.is_object() || !object.contains("loads")) return checked(reader, std::move(live_state));
  for (const auto& [key, value] : reader.child("loads", json::value_t::object).items()) {
    Reader record(value, "load");
    live_state.loads[key] = {static_cast<uint32_t>(std::min<uint64_t>(record.number("load_percent"), UINT32_MAX)),
                             static_cast<uint32_t>(std::min<uint64_t>(record.number("shed_permille"), UINT32_MAX)),
                             record.number("since_ns")};
    if (!record.error().empty()) return fail(record.error());
  }
  return checked(reader, std::move(live_state));
}

Result<Purge> purge_from_json(const json& object) {
  Reader reader(object, "purge");
  Purge purge;
  purge.sequence = reader.number("sequence");
  purge.value = reader.text("value");
  purge.soft = reader.boolean("soft");
  purge.at_ns = reader.number("at_ns");
  purge.by = reader.text("by");
  const std::string kind = reader.text("kind");
  if (!reader.error().empty()) return fail(reader.error());
  for (const PurgeKind known : {PurgeKind::url, PurgeKind::tag, PurgeKind::all}) {
    if (kind != name(known)) continue;
    purge.kind = known;
    return purge;
  }
  return fail("purge: kind is none of url, tag, all");
}

std::vector<Fault> faults_from_json(const json& list) {
  std::vector<Fault> faults;
  if (!list.is_array()) return faults;
  for (const json& element : list) {
    Fault fault;
    fault.code = string_member(element, "code");
    fault.pointer = string_member(element, "pointer");
    fault.file = string_member(element, "file");
    fault.line = static_cast<uint32_t>(number_member(element, "line"));
    fault.column = static_cast<uint32_t>(number_member(element, "column"));
    fault.detail = string_member(element, "detail");
    fault.expected = string_member(element, "expected");
    fault.hint = string_member(element, "hint");
    if (element.is_object() && element.contains("line_text")) fault.line_text = string_member(element, "line_text");
    faults.push_back(std::move(fault));
  }
  return faults;
}

}  // namespace tidegate
