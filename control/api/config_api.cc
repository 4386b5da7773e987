// SPDX-License-Identifier: Apache-2.0
#include "control/api/config_api.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "conf/fields.h"
#include "conf/names.h"
#include "conf/objects.h"
#include "control/api/bundle.h"
#include "control/api/diff.h"
#include "control/api/parameters.h"
#include "control/api/write_rules.h"

namespace tidegate {

namespace {

using nlohmann::json;
using Headers = std::vector<std::pair<std::string, std::string>>;
using Edit = std::function<std::optional<HttpResponse>(json& document)>;

constexpr const char* kYaml = "application/yaml";
constexpr const char* kJson = "application/json";
constexpr const char* kMergePatch = "application/merge-patch+json";

bool sent_as(const HttpRequest& request, std::string_view type) {
  const std::string_view field = request.header("content-type");
  return http1::equals_ignore_case(field.substr(0, field.find(';')), type);
}

HttpResponse not_configured() {
  return problem(404, "not_configured", "no configuration has been committed yet: PUT one with If-Match: *");
}

bool wants_json(const HttpRequest& request) { return request.header("accept").find("json") != std::string_view::npos; }

bool wants_bundle(const HttpRequest& request) {
  return request.header("accept").find(kBundleType) != std::string_view::npos;
}

std::string document_yaml(const json& document) { return Document::from_json("config", document)->to_yaml(); }

// A part of a configuration: how to select it in the document, and how to write it as YAML.
struct Part {
  std::function<json(json&)> select;  // returns null if there is no such part
  std::function<std::string(const json&)> to_yaml;
};

// Returns the element of a list by its name, or null.
json* find_object(json& document, const std::string& kind, const std::string& object_name) {
  const auto section = document.find(kind);
  if (section == document.end() || !section->is_array()) return nullptr;
  for (json& element : *section) {
    if (string_member(element, "name") == object_name) return &element;
  }
  return nullptr;
}

HttpResponse no_such_object(const WriteTarget& target, const json& document) {
  const std::string kind_hint = did_you_mean(target.kind, root_section().keys());
  if (target.name.empty() || (root_section().find(target.kind) == nullptr && !kind_hint.empty())) {
    return problem(
        404, "no_such_object",
        fmt::format("the configuration has no {}{}{}", target.kind, kind_hint.empty() ? "" : "; ", kind_hint));
  }
  std::vector<std::string> names;
  if (const auto section = document.find(target.kind); section != document.end() && section->is_array()) {
    for (const json& element : *section) names.push_back(string_member(element, "name"));
  }
  const std::string hint = did_you_mean(target.name, {names.begin(), names.end()});
  return problem(404, "no_such_object",
                 fmt::format("there is no {} in {}{}{}", target.name, target.kind, hint.empty() ? "" : "; ", hint));
}

// Returns {kind} and {name} of the path. Both may be empty.
WriteTarget target_of(const ApiCall& call) {
  const auto word = [&](const char* name) {
    const auto found = call.path.find(name);
    return found == call.path.end() ? std::string() : found->second;
  };
  return {word("kind"), word("name")};
}

class ConfigApi {
 public:
  ConfigApi(HostState& host_state, LongCalls& long_calls) : host_state_(host_state), long_calls_(long_calls) {}

  void get(const ApiCall& call) {
    if (wants_bundle(call.request())) return respond_with_bundle(call, host_state_.shared_manifest());
    respond_with_part(call, host_state_.shared_manifest(), {[](json& document) { return document; }, document_yaml});
  }

  void get_version(const ApiCall& call) {
    const std::optional<uint64_t> number = parse_number(call.path.at("version"));
    if (!number) {
      return call.respond(problem(400, "bad_version", call.path.at("version") + " is not the number of a version"));
    }
    long_calls_.with_version(call, *number, [this, call](const std::shared_ptr<const Manifest>& manifest) {
      if (wants_bundle(call.request())) return respond_with_bundle(call, manifest);
      respond_with_part(call, manifest, {[](json& document) { return document; }, document_yaml});
    });
  }

  // In YAML it is a fragment of the document: "pools:" and its content.
  void get_kind(const ApiCall& call) {
    const std::string& kind = call.path.at("kind");
    respond_with_part(call, host_state_.shared_manifest(),
                      {[kind](json& document) {
                         const auto section = document.find(kind);
                         return section == document.end() ? json() : *section;
                       },
                       [kind](const json& section) {
                         return document_yaml({{kind, section}});
                       }});
  }

  void get_object(const ApiCall& call) {
    const WriteTarget target = target_of(call);
    respond_with_part(call, host_state_.shared_manifest(),
                      {[target](json& document) {
                         json* object = find_object(document, target.kind, target.name);
                         return object ? *object : json();
                       },
                       [target](const json& object) { return element_yaml(target.kind, object); }});
  }

  void put(const ApiCall& call) {
    const HttpRequest& request = call.request();
    // Shared, because a Change is copied on the loop.
    const auto body = std::make_shared<const std::string>(call.exchange->take_body());
    if (sent_as(request, kBundleType)) {
      return long_calls_.change(call, {{}, false, true, [body](const Manifest&, const Plans* known) -> Examined {
                                         Result<Bundle> bundle = decode_bundle(*body);
                                         if (!bundle) return {problem(400, "bad_bundle", bundle.error().message), {}};
                                         return {{},
                                                 examine_text(bundle->file, std::move(bundle->text),
                                                              files_from(std::move(bundle->files)), known)};
                                       }});
    }
    const char* file_name = sent_as(request, kJson) ? "config.json" : "config.yaml";
    long_calls_.change(call,
                       {{}, true, true, [this, file_name, body](const Manifest& base, const Plans* known) -> Examined {
                          FileReader files;
                          const auto document = host_state_.document(base, files);
                          if (!document) return {store_failure(document.error()), {}};
                          return {{}, examine_text(file_name, *body, files, known)};
                        }});
  }

  void patch(const ApiCall& call) {
    const auto body = std::make_shared<const std::string>(call.exchange->take_body());
    change_document(call, [body](json& document) -> std::optional<HttpResponse> {
      const Result<json> patch = parse_json(*body);
      if (!patch) return problem(400, "bad_json", patch.error().message);
      if (!patch->is_object())
        return problem(400, "bad_patch", "a merge patch of a configuration is an object (RFC 7396)");
      document.merge_patch(*patch);
      return std::nullopt;
    });
  }

  void put_object(const ApiCall& call) {
    const WriteTarget target = target_of(call);
    if (auto refusal = check_precondition(call.request(), host_state_.manifest(), target)) {
      return call.respond(std::move(*refusal));
    }
    std::vector<Fault> faults;
    const auto parsed = Document::parse(target.kind + "/" + target.name, call.request().body, faults);
    if (!parsed || !faults.empty()) return call.respond(invalid_configuration(faults));
    json object = parsed->to_json();
    if (!object.is_object()) {
      return call.respond(problem(400, "bad_object", "an object's body is a map of its keys"));
    }
    if (string_member(object, "name", target.name) != target.name) {
      return call.respond(problem(400, "name_differs", "the name in the body is not the one in the path"));
    }
    object["name"] = target.name;
    // Changes only one element if possible, otherwise the whole document.
    std::function<void()> whole = [this, call, target, object] { put_into_document(call, target, object); };
    long_calls_.change_element(call, target, std::move(object), std::move(whole));
  }

  void delete_object(const ApiCall& call) {
    change_document(call, [target = target_of(call)](json& document) -> std::optional<HttpResponse> {
      json* object = find_object(document, target.kind, target.name);
      if (!object) return no_such_object(target, document);
      json& list = document[target.kind];
      list.erase(static_cast<size_t>(object - &list[0]));
      return std::nullopt;
    });
  }

 private:
  void put_into_document(const ApiCall& call, const WriteTarget& target, json object) {
    change_document(call, [target, object = std::move(object)](json& document) -> std::optional<HttpResponse> {
      if (json* existing = find_object(document, target.kind, target.name)) {
        *existing = object;
        return std::nullopt;
      }
      json& section = document[target.kind];
      if (!section.is_null() && !section.is_array()) {
        return problem(404, "no_such_object", fmt::format("{} is one section, not a list: PATCH it", target.kind));
      }
      section.push_back(object);
      return std::nullopt;
    });
  }

  // The document with its files and private keys, in the form that `tidegate apply` sends.
  void respond_with_bundle(const ApiCall& call, const std::shared_ptr<const Manifest>& manifest) {
    if (manifest->version == 0) return call.respond(not_configured());
    if (!allows(call.who.role, Role::publisher)) {
      return call.respond(problem(403, "forbidden", "a bundle holds private keys: it takes the role publisher"));
    }
    const Headers fields = {{"ETag", entity_tag(*manifest, "bundle", false)}, {"Vary", "Accept, Authorization"}};
    if (is_unchanged(call.request(), fields.front().second)) return call.respond({304, fields, ""});
    long_calls_.answer(call, [this, manifest, fields] {
      FileReader ignored;
      const Result<std::unique_ptr<Document>> document = host_state_.document(*manifest, ignored);
      if (!document) return store_failure(document.error());
      Bundle bundle;
      bundle.file = fmt::format("version-{}.yaml", manifest->version);
      bundle.text = (*document)->to_yaml();
      for (const ManifestEntry& entry : manifest->entries) {
        if (entry.kind != kFileKind) continue;
        Result<std::string> bytes = host_state_.store().object(entry.hash);
        if (!bytes) return store_failure(bytes.error());
        bundle.files[entry.name] = std::make_shared<const std::string>(*std::move(bytes));
      }
      HttpResponse response = HttpResponse::text(200, encode_bundle(bundle) + "\n", kBundleType);
      response.headers.insert(response.headers.end(), fields.begin(), fields.end());
      return response;
    });
  }

  // The answer is JSON if Accept asks for it, otherwise YAML.
  void respond_with_part(const ApiCall& call, const std::shared_ptr<const Manifest>& manifest, Part part) {
    if (manifest->version == 0) return call.respond(not_configured());
    // Only callers who may write the configuration see its secrets.
    const bool redacted = !allows(call.who.role, Role::publisher);
    const bool as_json = wants_json(call.request());
    const Headers fields = {{"ETag", entity_tag(*manifest, as_json ? "json" : "yaml", redacted)},
                            {"Vary", "Accept, Authorization"}};
    const bool unchanged = is_unchanged(call.request(), fields.front().second);
    const WriteTarget target = target_of(call);
    if (unchanged && target.kind.empty()) return call.respond({304, fields, ""});
    long_calls_.answer(call, [this, manifest, part = std::move(part), redacted, as_json, fields, unchanged, target] {
      FileReader files;
      const Result<std::unique_ptr<Document>> document = host_state_.document(*manifest, files);
      if (!document) return store_failure(document.error());
      json whole = (*document)->to_json();
      json selected = part.select(whole);
      if (selected.is_null()) return no_such_object(target, whole);
      if (unchanged) return HttpResponse{304, fields, ""};
      if (redacted) redact(selected);
      HttpResponse response = as_json ? HttpResponse::json(200, dump(selected, 2) + "\n")
                                      : HttpResponse::text(200, part.to_yaml(selected), kYaml);
      response.headers.insert(response.headers.end(), fields.begin(), fields.end());
      return response;
    });
  }

  // Reads the document in force, lets `edit` change its JSON form, and commits the result.
  void change_document(const ApiCall& call, Edit edit) {
    long_calls_.change(call, {target_of(call), true, true,
                              [this, edit = std::move(edit)](const Manifest& base, const Plans* known) -> Examined {
                                json content = json::object();
                                FileReader files = files_from({});
                                if (base.version != 0) {
                                  const auto document = host_state_.document(base, files);
                                  if (!document) return {store_failure(document.error()), {}};
                                  content = (*document)->to_json();
                                }
                                if (auto refusal = edit(content)) return {std::move(refusal), {}};
                                return {{}, examine(*Document::from_json("config", content), files, known)};
                              }});
  }

  HostState& host_state_;
  LongCalls& long_calls_;
};

}  // namespace

void add_config_routes(RouteTable& table, HostState& host_state, LongCalls& long_calls) {
  const auto api = std::make_shared<ConfigApi>(host_state, long_calls);
  const auto handler = [api](void (ConfigApi::*member)(const ApiCall&)) {
    return [api, member](const ApiCall& call) { (api.get()->*member)(call); };
  };
  const std::vector<std::string> document_types = {kYaml, kJson, kBundleType};
  const std::vector<std::string> object_types = {kYaml, kJson};
  const std::vector<std::string> patch_types = {kMergePatch, kJson};

  table.add({"GET",
             "/v1/config",
             Role::viewer,
             Effect::reads,
             "The configuration in force, as YAML or (by Accept) JSON, or as a bundle with its files",
             {},
             {},
             handler(&ConfigApi::get)});
  table.add({"PUT", "/v1/config", Role::publisher, Effect::writes,
             "Replace the configuration: a document, or a bundle with the files it names", write_parameters(),
             document_types, handler(&ConfigApi::put)});
  table.add({"PATCH", "/v1/config", Role::publisher, Effect::writes,
             "Change the configuration by a merge patch (RFC 7396: lists are replaced whole)", write_parameters(),
             patch_types, handler(&ConfigApi::patch)});
  table.add({"GET",
             "/v1/config/{kind}",
             Role::viewer,
             Effect::reads,
             "One section, such as pools",
             {},
             {},
             handler(&ConfigApi::get_kind)});
  table.add({"GET",
             "/v1/config/{kind}/{name}",
             Role::viewer,
             Effect::reads,
             "One object",
             {},
             {},
             handler(&ConfigApi::get_object)});
  table.add({"PUT", "/v1/config/{kind}/{name}", Role::publisher, Effect::writes, "Add or replace one object",
             write_parameters(), object_types, handler(&ConfigApi::put_object)});
  table.add({"DELETE",
             "/v1/config/{kind}/{name}",
             Role::publisher,
             Effect::writes,
             "Remove one object",
             write_parameters(),
             {},
             handler(&ConfigApi::delete_object)});
  table.add({"GET",
             "/v1/versions/{version}/config",
             Role::viewer,
             Effect::reads,
             "The configuration of one version",
             {},
             {},
             handler(&ConfigApi::get_version)});
}

}  // namespace tidegate
