// SPDX-License-Identifier: Apache-2.0
#include "control/cli/import/gateway_filters.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "conf/route_checks.h"
#include "conf/text.h"
#include "core/http1.h"

namespace tidegate::cli {
namespace {

using nlohmann::json;
using namespace kube;  // NOLINT(google-build-using-namespace): the helpers of this folder
using Kind = DocumentNode::Kind;

Result<std::string> field_name(const std::string& text) {
  const std::string name = lower_case(text);
  if (!http1::is_token(name)) return fail(fmt::format("'{}' is no name of a field", text));
  if (is_framing_field(name) || name == "host")
    return fail(fmt::format("{}: the proxy frames each message itself", name));
  return name;
}

}  // namespace

Result<void> GatewayFilters::add(const DocumentNode& filter, const std::string& rule, bool& must) {
  const std::string type = text_at(&filter, {"type"});
  must = true;
  read_only(into_, filter, "filter",
            {{"type", Kind::scalar},
             {"requestHeaderModifier", Kind::map},
             {"responseHeaderModifier", Kind::map},
             {"requestRedirect", Kind::map},
             {"urlRewrite", Kind::map},
             {"requestMirror", Kind::map},
             {"cors", Kind::map},
             {"extensionRef", Kind::map}});
  if (type == "RequestHeaderModifier") return add_fields(filter.find("requestHeaderModifier"), true);
  if (type == "ResponseHeaderModifier") return add_fields(filter.find("responseHeaderModifier"), false);
  if (type == "RequestRedirect") {
    redirect_ = filter.find("requestRedirect");
    if (redirect_ == nullptr) return fail("it has no requestRedirect");
    read_only(into_, *redirect_, "requestRedirect",
              {{"scheme", Kind::scalar},
               {"hostname", Kind::scalar},
               {"port", Kind::scalar},
               {"path", Kind::map},
               {"statusCode", Kind::scalar}});
    return {};
  }
  if (type == "URLRewrite") {
    rewrite_ = filter.find("urlRewrite");
    if (rewrite_ == nullptr) return fail("it has no urlRewrite");
    read_only(into_, *rewrite_, "urlRewrite", {{"hostname", Kind::scalar}, {"path", Kind::map}});
    return {};
  }
  if (type == "CORS") return add_cors(filter.find("cors"));
  if (type == "RequestMirror") {
    must = false;  // clients do not see it
    return add_mirror(filter.find("requestMirror"), rule);
  }
  return fail("there is no such filter");
}

Result<void> GatewayFilters::edit_variant(const DocumentNode& backend, json& variant) {
  for (const DocumentNode& filter : items(backend.find("filters"))) {
    const std::string type = text_at(&filter, {"type"});
    if (type != "RequestHeaderModifier" && type != "ResponseHeaderModifier")
      return fail(fmt::format("filter {} is for all backends of a rule", type));
    bool must = true;
    if (Result<void> added = add(filter, {}, must); !added) return added;
  }
  if (!request_more_.empty() || !response_more_.empty())
    return fail("fields of one of several backends are set and removed, not added");
  if (!request_.empty()) variant["request_headers"] = request_;
  if (!response_.empty()) variant["response_headers"] = response_;
  return {};
}

Result<void> GatewayFilters::add_fields(const DocumentNode* node, bool request) {
  if (node == nullptr) return fail("it changes nothing");
  read_only(into_, *node, "header modifier", {{"set", Kind::list}, {"add", Kind::list}, {"remove", Kind::list}});
  json& edits = request ? request_ : response_;
  json& more = request ? request_more_ : response_more_;
  for (const DocumentNode& each : items(at(node, {"set"}))) {
    const Result<std::string> name = field_name(text_at(&each, {"name"}));
    if (!name) return name.error();
    if (!edits.contains(*name)) edits[*name] = text_at(&each, {"value"});  // the first of a name counts
  }
  for (const DocumentNode& each : items(at(node, {"remove"}))) {
    const Result<std::string> name = field_name(each.text);
    if (!name) return name.error();
    edits[*name] = "";
  }
  for (const DocumentNode& each : items(at(node, {"add"}))) {
    const Result<std::string> name = field_name(text_at(&each, {"name"}));
    if (!name) return name.error();
    more.push_back({{"add", *name}, {"value", literal_text(text_at(&each, {"value"}))}});
  }
  return {};
}

Result<void> GatewayFilters::add_mirror(const DocumentNode* node, const std::string& rule) {
  const DocumentNode* ref = at(node, {"backendRef"});
  if (ref == nullptr) return fail("it has no backendRef");
  read_only(into_, *node, "requestMirror",
            {{"backendRef", Kind::map}, {"percent", Kind::scalar}, {"fraction", Kind::map}});
  Result<GatewayBackends> found = services_.find(*ref, space_);
  if (!found) return found.error();
  if (found->places.empty()) return fail("its Service has no endpoint that is ready");
  json mirror;
  double percent = 100;
  if (const auto part = number_of(text_at(node, {"percent"}))) percent = static_cast<double>(*part);
  if (const auto numerator = number_of(text_at(node, {"fraction", "numerator"}))) {
    const uint64_t denominator = number_of(text_at(node, {"fraction", "denominator"})).value_or(100);
    if (denominator == 0) return fail("its fraction has no denominator");
    percent = 100 * static_cast<double>(*numerator) / static_cast<double>(denominator);
  }
  if (percent > 100) return fail("it copies more than there is");
  const std::string pool = into_.free_name("pools", rule + "-mirror");
  json& object = into_.object("pools", pool);
  object.update(found->pool);
  for (json place : found->places) {
    place["name"] = fmt::format("b{}", object.contains("backends") ? object["backends"].size() + 1 : 1);
    object["backends"].push_back(std::move(place));
  }
  mirror["pool"] = pool;
  if (percent < 100) mirror["percent"] = percent;
  policies_.push_back({{"mirror", mirror}});
  return {};
}

Result<void> GatewayFilters::add_cors(const DocumentNode* node) {
  if (node == nullptr) return fail("it allows nothing");
  json cors;
  const auto list = [&](const char* theirs, const char* ours) {
    for (const DocumentNode& each : items(at(node, {theirs}))) cors[ours].push_back(each.text);
  };
  list("allowOrigins", "origins");
  list("allowMethods", "methods");
  list("allowHeaders", "headers");
  list("exposeHeaders", "expose");
  if (!cors.contains("origins")) return fail("it names no origins");
  const json any = json::array({"*"});
  if (cors.value("methods", json()) == any || cors.value("expose", json()) == any)
    return fail("methods and exposed fields are named one by one");
  if (text_at(node, {"allowCredentials"}) == "true") cors["credentials"] = true;
  if (const auto age = number_of(text_at(node, {"maxAge"}))) cors["max_age"] = fmt::format("{}s", *age);
  policies_.push_back({{"respond", {{"cors", cors}}}});
  return {};
}

Result<void> GatewayFilters::apply(json& route, const std::string& prefix, bool tls, uint16_t port) const {
  json transform = json::object();
  if (!redirects()) {
    if (!request_.empty()) route["request_headers"] = request_;
    if (!request_more_.empty()) transform["request_headers"] = request_more_;
  }
  if (!response_.empty()) route["response_headers"] = response_;
  if (!response_more_.empty()) transform["response_headers"] = response_more_;
  if (rewrite_ != nullptr && !redirects()) {
    if (const std::string host = text_at(rewrite_, {"hostname"}); !host.empty()) transform["host"] = literal_text(host);
    if (const DocumentNode* path = at(rewrite_, {"path"})) {
      const std::string type = text_at(path, {"type"});
      const std::string full = text_at(path, {"replaceFullPath"}), part = text_at(path, {"replacePrefixMatch"});
      if (type == "ReplaceFullPath") {
        transform["path"] = {{"value", literal_text(full.empty() ? "/" : full)}};
      } else if (type == "ReplacePrefixMatch" && !prefix.empty()) {
        // An end slash counts neither here nor there.
        const std::string to = part.size() > 1 && part.ends_with('/') ? part.substr(0, part.size() - 1) : part;
        transform["path"] = {{"value", literal_text(to.empty() ? "/" : to)}};
        if (prefix != "/") transform["path"]["prefix"] = prefix;
        if (prefix == "/") transform["path"]["match"] = "^/";
        if (prefix == "/" && to != "/" && !to.empty()) transform["path"]["value"] = literal_text(to + "/");
      } else {
        return fail("the beginning of a path is replaced where the match is of a beginning");
      }
    }
  }
  if (!transform.empty()) route["policies"].push_back(into_.policy("changes", {{"transform", transform}}));
  for (const json& policy : policies_) {
    if (policy.contains("mirror") && redirects()) continue;
    route["policies"].push_back(into_.policy(policy.begin().key(), policy));
  }
  return redirects() ? apply_redirect(route, prefix, tls, port) : Result<void>();
}

Result<std::string> GatewayFilters::path_of_redirect(const std::string& prefix) const {
  if (at(redirect_, {"path"}) == nullptr) return std::string("{path}");
  const std::string type = text_at(redirect_, {"path", "type"});
  const bool full = type == "ReplaceFullPath";
  if (!full && type != "ReplacePrefixMatch") return fail("there is no such change of a path");
  const bool plain = prefix.starts_with('/') && prefix.find_first_of("*{}?#%\\ ") == std::string::npos;
  if (!full && !plain) return fail("the beginning of a path is replaced where the match is of a beginning");
  std::string path = text_at(redirect_, {"path", full ? "replaceFullPath" : "replacePrefixMatch"});
  if (path.empty()) path = "/";
  if (!path.starts_with('/') || path.find_first_of("{}") != std::string::npos)
    return fail("the path has characters that a redirect cannot have");
  if (!full) {
    if (path.find_first_of("?#") != std::string::npos) return fail("the beginning of a path has no query");
    while (path.ends_with('/')) path.pop_back();
    path += "{rest}";
  }
  if (path.find('?') == std::string::npos) path += "{query}";
  return path;
}

Result<void> GatewayFilters::apply_redirect(json& route, const std::string& prefix, bool tls, uint16_t port) const {
  const std::string asked = text_at(redirect_, {"scheme"}), host = text_at(redirect_, {"hostname"});
  const std::string scheme = !asked.empty() ? lower_case(asked) : tls ? "https" : "http";
  const uint16_t usual = scheme == "https" ? 443 : 80;
  // Without a port it is that of the scheme, if one is given, or the listener's.
  uint64_t to = asked.empty() ? port : usual;
  if (const auto given = number_of(text_at(redirect_, {"port"}))) to = *given;
  if (to == 0 || to > 65535) return fail("it has no port");
  if (host.find_first_of("{}/") != std::string::npos) return fail("the host has characters that no host has");
  const Result<std::string> path = path_of_redirect(prefix);
  if (!path) return path.error();
  route["redirect"] = fmt::format("{}://{}{}{}", scheme, host.empty() ? "{host}" : host,
                                  to == usual ? "" : fmt::format(":{}", to), *path);
  const uint64_t status = number_of(text_at(redirect_, {"statusCode"})).value_or(302);
  static const std::set<uint64_t> kStatuses = {301, 302, 303, 307, 308};
  if (kStatuses.count(status) == 0) return fail("no redirect has this status");
  if (status != 302) route["status"] = status;
  return {};
}

}  // namespace tidegate::cli
