#include "control/openapi.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "control/json_bounds.h"
#include "core/metrics.h"

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

json responses(const ApiRoute& route) {
  json result = {{"200", response("as asked")}, {"400", problem_response("the call is malformed")}};
  if (route.role != Role::none) {
    result["401"] = problem_response("a token is needed");
    result["403"] = problem_response("the role does not suffice");
  }
  if (route.pattern.find('{') != std::string::npos) result["404"] = problem_response("there is no such thing");
  if (!route.accepts.empty()) result["415"] = problem_response("the body's media type is not taken");
  if (route.effect == Effect::writes) {
    result["421"] = problem_response("this control follows another one");
    if (route.pattern.rfind("/v1/config", 0) == 0) {
      result["412"] = problem_response("the configuration has changed since it was read");
      result["422"] = problem_response("the configuration is not valid: all its faults");
      result["428"] = problem_response("If-Match is missing");
    }
  }
  return result;
}

json operation(const ApiRoute& route) {
  json parameters = path_parameters(route.pattern);
  for (const QueryParameter& parameter : route.query) {
    parameters.push_back({{"name", parameter.name},
                          {"in", "query"},
                          {"description", parameter.about},
                          {"schema", {{"type", "string"}}}});
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
  for (const char* member : {"pointer", "file", "code", "detail", "expected", "hint"}) {
    fault["properties"][member] = {{"type", "string"}};
  }
  for (const char* member : {"line", "column"}) fault["properties"][member] = {{"type", "integer"}};
  json schema = {{"type", "object"}, {"properties", json::object()}};
  for (const char* member : {"type", "title", "code", "detail"}) schema["properties"][member] = {{"type", "string"}};
  schema["properties"]["status"] = {{"type", "integer"}};
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

void add_meta_routes(RouteTable& table) {
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
               call.respond(HttpResponse::text(200, metrics().prometheus_text(), "text/plain; version=0.0.4"));
             }});
  table.add(
      {"GET", "/healthz", Role::none, Effect::reads, "Whether this control answers", {}, {}, [](const ApiCall& call) {
         call.respond(HttpResponse::text(200, "ok\n"));
       }});
}

}  // namespace tidegate
