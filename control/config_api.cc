#include "control/config_api.h"

#include <fmt/format.h>

#include <algorithm>

#include "conf/names.h"
#include "control/bundle.h"
#include "control/diff.h"
#include "control/parameters.h"
#include "control/write_rules.h"

namespace tidegate {

namespace {

using nlohmann::json;

constexpr const char* kYaml = "application/yaml";
constexpr const char* kJson = "application/json";
constexpr const char* kMergePatch = "application/merge-patch+json";

bool sent_as(const HttpRequest& request, std::string_view type) {
  const std::string_view field = request.header("content-type");
  return http1::equals_ignore_case(field.substr(0, field.find(';')), type);
}

HttpResponse internal_error(const Error& error) { return problem(500, "store_failed", error.message); }

HttpResponse not_configured() {
  return problem(404, "not_configured", "no configuration has been committed yet: PUT one with If-Match: *");
}

bool wants_json(const HttpRequest& request) { return request.header("accept").find("json") != std::string_view::npos; }

std::string document_yaml(const json& document) { return Document::from_json("config", document)->to_yaml(); }

class ConfigApi {
 public:
  explicit ConfigApi(Ledger& ledger) : ledger_(ledger) {}

  void get(const ApiCall& call) {
    const Manifest& manifest = ledger_.manifest();
    if (manifest.version == 0) return call.respond(not_configured());
    const std::string tag = entity_tag(manifest);
    if (call.request().header("if-none-match") == tag) return call.respond({304, {{"ETag", tag}}, ""});
    respond_with_part(
        call, manifest, [](const json& document) { return document; }, document_yaml);
  }

  void get_version(const ApiCall& call) {
    const std::optional<uint64_t> number = parse_number(call.path.at("version"));
    if (!number) {
      return call.respond(problem(400, "bad_version", call.path.at("version") + " is not the number of a version"));
    }
    const Result<Manifest> manifest = ledger_.store().manifest(*number);
    if (!manifest) return call.respond(problem(404, "no_such_version", manifest.error().message));
    respond_with_part(
        call, *manifest, [](const json& document) { return document; }, document_yaml);
  }

  // As YAML, a fragment of the document: "pools:" and what stands under it.
  void get_kind(const ApiCall& call) {
    if (ledger_.manifest().version == 0) return call.respond(not_configured());
    const std::string& kind = call.path.at("kind");
    respond_with_part(
        call, ledger_.manifest(),
        [&](const json& document) {
          const auto section = document.find(kind);
          return section == document.end() ? json() : *section;
        },
        [&](const json& section) {
          return document_yaml({{kind, section}});
        });
  }

  void get_object(const ApiCall& call) {
    if (ledger_.manifest().version == 0) return call.respond(not_configured());
    const std::string& kind = call.path.at("kind");
    respond_with_part(
        call, ledger_.manifest(),
        [&](json document) {
          json* object = find_object(document, kind, call.path.at("name"));
          return object ? *object : json();
        },
        [&](const json& object) { return element_yaml(kind, object); });
  }

  void put(const ApiCall& call) {
    const HttpRequest& request = call.request();
    if (auto refusal = check_precondition(request, ledger_.manifest())) return call.respond(std::move(*refusal));
    if (sent_as(request, kBundleType)) {
      Result<Bundle> bundle = decode_bundle(request.body);
      if (!bundle) return call.respond(problem(400, "bad_bundle", bundle.error().message));
      return commit(call, examine_text(bundle->file, std::move(bundle->text), files_from(std::move(bundle->files))));
    }
    const Result<FileReader> files = ledger_.files();
    if (!files) return call.respond(internal_error(files.error()));
    const char* file_name = sent_as(request, kJson) ? "config.json" : "config.yaml";
    commit(call, examine_text(file_name, request.body, *files));
  }

  void patch(const ApiCall& call) {
    change_document(call, [&](json& document) -> std::optional<HttpResponse> {
      const Result<json> patch = parse_json(call.request().body);
      if (!patch) return problem(400, "bad_json", patch.error().message);
      if (!patch->is_object())
        return problem(400, "bad_patch", "a merge patch of a configuration is an object (RFC 7396)");
      document.merge_patch(*patch);
      return std::nullopt;
    });
  }

  void put_object(const ApiCall& call) {
    const std::string& kind = call.path.at("kind");
    const std::string& object_name = call.path.at("name");
    if (auto refusal = check_precondition(call.request(), ledger_.manifest())) return call.respond(std::move(*refusal));
    std::vector<Fault> faults;
    const auto parsed = Document::parse(kind + "/" + object_name, call.request().body, faults);
    if (!parsed || !faults.empty()) return call.respond(invalid_configuration(faults));
    json object = parsed->to_json();
    if (!object.is_object()) {
      return call.respond(problem(400, "bad_object", "an object's body is a map of its keys"));
    }
    if (string_member(object, "name", object_name) != object_name) {
      return call.respond(problem(400, "name_differs", "the name in the body is not the one in the path"));
    }
    object["name"] = object_name;
    if (const std::optional<ApplyOutcome> outcome =
            apply_element(ledger_, kind, object_name, Document::from_json("config", object), apply_request(call))) {
      return call.respond(answer_write(*outcome));
    }
    change_document(call, [&](json& document) -> std::optional<HttpResponse> {
      if (json* existing = find_object(document, kind, object_name)) {
        *existing = std::move(object);
        return std::nullopt;
      }
      json& section = document[kind];
      if (!section.is_null() && !section.is_array()) {
        return problem(404, "no_such_object", fmt::format("{} is one section, not a list: PATCH it", kind));
      }
      section.push_back(std::move(object));
      return std::nullopt;
    });
  }

  void delete_object(const ApiCall& call) {
    change_document(call, [&](json& document) -> std::optional<HttpResponse> {
      const std::string& kind = call.path.at("kind");
      json* object = find_object(document, kind, call.path.at("name"));
      if (!object) return no_such_object(call, document);
      json& list = document[kind];
      list.erase(static_cast<size_t>(object - &list[0]));
      return std::nullopt;
    });
  }

 private:
  static HttpResponse no_such_object(const ApiCall& call, const json& document) {
    const std::string& kind = call.path.at("kind");
    const auto named = call.path.find("name");
    if (named == call.path.end()) {
      return problem(404, "no_such_object", fmt::format("the configuration has no {}", kind));
    }
    std::vector<std::string> names;
    if (const auto section = document.find(kind); section != document.end() && section->is_array()) {
      for (const json& element : *section) names.push_back(string_member(element, "name"));
    }
    const std::string hint = did_you_mean(named->second, {names.begin(), names.end()});
    return problem(404, "no_such_object",
                   fmt::format("there is no {} in {}{}{}", named->second, kind, hint.empty() ? "" : "; ", hint));
  }

  // The element of a list by its name; null when there is none.
  static json* find_object(json& document, const std::string& kind, const std::string& object_name) {
    const auto section = document.find(kind);
    if (section == document.end() || !section->is_array()) return nullptr;
    for (json& element : *section) {
      if (string_member(element, "name") == object_name) return &element;
    }
    return nullptr;
  }

  // What `select` takes out of the document: as JSON when Accept asks for it, otherwise as `to_yaml` writes it.
  template <class Select, class ToYaml>
  void respond_with_part(const ApiCall& call, const Manifest& manifest, Select select, ToYaml to_yaml) {
    FileReader files;
    const Result<std::unique_ptr<Document>> document = ledger_.document(manifest, files);
    if (!document) return call.respond(internal_error(document.error()));
    json whole = (*document)->to_json();
    json part = select(whole);
    if (part.is_null()) return call.respond(no_such_object(call, whole));
    // Whoever cannot write the configuration has no use for the secrets in it.
    if (!allows(call.who.role, Role::publisher)) redact(part);
    HttpResponse response = wants_json(call.request()) ? HttpResponse::json(200, dump(part, 2) + "\n")
                                                       : HttpResponse::text(200, to_yaml(part), kYaml);
    response.headers.emplace_back("Vary", "Accept");
    response.headers.emplace_back("ETag", entity_tag(manifest));
    call.respond(std::move(response));
  }

  // Reads the document in force, lets `edit` change its JSON form, and commits what came of it.
  template <class Edit>
  void change_document(const ApiCall& call, Edit edit) {
    const Manifest& manifest = ledger_.manifest();
    if (auto refusal = check_precondition(call.request(), manifest)) return call.respond(std::move(*refusal));
    json content = json::object();
    FileReader files = files_from({});
    if (manifest.version != 0) {
      const Result<std::unique_ptr<Document>> document = ledger_.document(manifest, files);
      if (!document) return call.respond(internal_error(document.error()));
      content = (*document)->to_json();
    }
    if (std::optional<HttpResponse> refusal = edit(content)) return call.respond(std::move(*refusal));
    commit(call, examine(*Document::from_json("config", content), files));
  }

  void commit(const ApiCall& call, Candidate candidate) {
    call.respond(answer_write(apply(ledger_, std::move(candidate), apply_request(call))));
  }

  Ledger& ledger_;
};

}  // namespace

void add_config_routes(RouteTable& table, Ledger& ledger) {
  const auto api = std::make_shared<ConfigApi>(ledger);
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
             "The configuration in force, as YAML or (by Accept) JSON",
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
