// SPDX-License-Identifier: Apache-2.0
#include "control/api/openapi.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "control/api/json_bounds.h"
#include "core/metrics.h"
#include "core/process_metrics.h"

namespace tidegate {

namespace {

using nlohmann::json;

json response(const char* description) { return {{"description", description}}; }

json problem_response(const char* description) {
  return {{"description", description},
          {"content", {{"application/problem+json", {{"schema", {{"$ref", "#/components/schemas/Problem"}}}}}}}};
}

json path_parameters(const std::string& pattern) {
  json parameters = json::array();
  for (size_t open = pattern.find('{'); open != std::string::npos; open = pattern.find('{', open + 1)) {
    parameters.push_back({{"name", pattern.substr(open + 1, pattern.find('}', open) - open - 1)},
                          {"in", "path"},
                          {"required", true},
                          {"schema", {{"type", "string"}}}});
  }
  return parameters;
}

// Returns every status that this route may answer with. tests/unit/control/host.h checks all answers against it.
json responses(const ApiRoute& route) {
  const auto under = [&](std::string_view prefix) { return route.pattern.starts_with(prefix); };
  const bool of_configuration = under("/v1/config") || under("/v1/versions/{version}/config");
  const bool of_zones = under("/v1/zones");
  const bool writes = route.effect == Effect::writes;
  json result = {{"200", response("as asked")},
                 {"400", problem_response("the call is malformed: a parameter, a member of the body, the body itself")},
                 {"500", problem_response("the state cannot be read or written")},
                 {"503", problem_response("there are as many connections, or as many long calls, as there may be")}};
  if (route.role != Role::none) {
    result["401"] = problem_response("a token is needed");
    result["403"] = problem_response("the role does not suffice");
  }
  if (route.pattern.find('{') != std::string::npos || of_configuration || under("/v1/diff") || under("/v1/rollback") ||
      under("/v1/explain")) {
    result["404"] = problem_response("there is no such thing, or no configuration yet");
  }
  if ((of_configuration || under("/v1/zones/")) && route.method == "GET")
    result["304"] = response("If-None-Match holds its ETag");
  if (!route.accepts.empty()) {
    result["413"] = problem_response("the body is longer than a body may be");
    result["415"] = problem_response("the body's media type is not taken");
  }
  if (under("/v1/node/")) result["502"] = problem_response("the plane does not answer");
  if (under("/v1/node/explain/")) result["503"] = problem_response("the plane has no version yet");
  if (!writes) return result;
  result["421"] = problem_response("this control follows another one");
  result["507"] = problem_response("the disk that holds the state is full; nothing was changed");
  if (route.method == "POST") {
    result["409"] = problem_response("the first request with this Idempotency-Key is still under way");
    result["422"] = problem_response("this Idempotency-Key was used with another body");
  }
  if (under("/v1/config") || under("/v1/rollback") || of_zones) {
    result["412"] = problem_response("the configuration is not the one that If-Match or If-None-Match asks for");
    result["422"] = problem_response("the configuration is not valid: all its faults");
    result["409"] = problem_response(
        "planes cannot serve it, with the reason of each; as many changes wait for their vote as may; a version is "
        "provisional; or another zone has the same file");
  }
  if (under("/v1/confirm")) result["409"] = problem_response("that version is not provisional");
  if (under("/v1/config") || of_zones) result["428"] = problem_response("If-Match is missing");
  return result;
}

json schema_of(const QueryParameter& parameter) {
  switch (parameter.type) {
    case ParameterType::boolean:
      return {{"type", "boolean"}};
    case ParameterType::number: {
      json schema = {{"type", "integer"}, {"minimum", parameter.lowest}};
      if (parameter.highest != UINT64_MAX) schema["maximum"] = parameter.highest;
      return schema;
    }
    case ParameterType::address:
      return {{"type", "string"}, {"anyOf", json::array({{{"format", "ipv4"}}, {{"format", "ipv6"}}})}};
    case ParameterType::text:
      break;
  }
  return {{"type", "string"}};
}

json operation(const ApiRoute& route) {
  json parameters = path_parameters(route.pattern);
  for (const QueryParameter& parameter : route.query) {
    parameters.push_back({{"name", parameter.name},
                          {"in", "query"},
                          {"description", parameter.about},
                          {"schema", schema_of(parameter)}});
  }
  json result = {{"summary", route.summary}, {"responses", responses(route)}, {"x-tidegate-role", name(route.role)}};
  if (!parameters.empty()) result["parameters"] = std::move(parameters);
  if (!route.accepts.empty()) {
    json content = json::object();
    for (const std::string& type : route.accepts) content[type] = json::object();
    result["requestBody"] = {{"required", true}, {"content", std::move(content)}};
  }
  if (route.role == Role::none) result["security"] = json::array();
  return result;
}

json problem_schema() {
  json fault = {{"type", "object"}, {"properties", json::object()}};
  for (const char* member : {"pointer", "file", "code", "detail", "expected", "hint", "line_text"}) {
    fault["properties"][member] = {{"type", "string"}};
  }
  for (const char* member : {"line", "column"}) fault["properties"][member] = {{"type", "integer"}};
  json schema = {{"type", "object"}, {"properties", json::object()}};
  for (const char* member : {"type", "title", "code", "detail", "parameter", "given", "expected"})
    schema["properties"][member] = {{"type", "string"}};
  schema["properties"]["status"] = {{"type", "integer"}};
  schema["properties"]["candidate"] = {{"type", "integer"}};
  schema["properties"]["reasons"] = {{"type", "array"}, {"items", {{"type", "string"}}}};
  schema["properties"]["votes"] = {{"type", "array"}, {"items", {{"type", "object"}}}};
  schema["properties"]["faults"] = {{"type", "array"}, {"items", std::move(fault)}};
  return schema;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return text;
}

}  // namespace

json openapi_document(const RouteTable& table) {
  json paths = json::object();
  for (const ApiRoute& route : table.routes()) paths[route.pattern][lower(route.method)] = operation(route);
  return {{"openapi", "3.1.0"},
          {"info",
           {{"title", "Tidegate"},
            {"version", TIDEGATE_VERSION},
            {"description", "The control plane of an edge: one version, one decision, one explanation."}}},
          {"security", json::array({{{"bearer", json::array()}}})},
          {"paths", std::move(paths)},
          {"components",
           {{"securitySchemes", {{"bearer", {{"type", "http"}, {"scheme", "bearer"}}}}},
            {"schemas", {{"Problem", problem_schema()}}}}}};
}

void add_meta_routes(RouteTable& table, std::function<std::string()> health) {
  table.add(
      {"GET", "/v1/openapi.json", Role::none, Effect::reads, "This document", {}, {}, [&table](const ApiCall& call) {
         call.respond(HttpResponse::json(200, dump(openapi_document(table), 2) + "\n"));
       }});
  table.add({"GET",
             "/metrics",
             Role::viewer,
             Effect::reads,
             "This control's own metrics, for Prometheus",
             {},
             {},
             [](const ApiCall& call) {
               call.respond(HttpResponse::text(200,
                                               metrics().prometheus_text() + process_metrics_text("tidegate_control"),
                                               "text/plain; version=0.0.4; charset=utf-8"));
             }});
  table.add({"GET",
             "/healthz",
             Role::none,
             Effect::reads,
             "Whether this control answers",
             {},
             {},
             [health](const ApiCall& call) {
               call.respond(HttpResponse::text(200, "ok\n" + (health ? health() : std::string())));
             }});
}

}  // namespace tidegate
