// SPDX-License-Identifier: Apache-2.0
// Objects of the Kubernetes Gateway API as an edge: a Gateway's listeners, and HTTPRoutes. A backend is a Service, so
// the file needs the EndpointSlices (or the Services with their cluster addresses) too.

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <tuple>

#include "conf/document_node.h"
#include "conf/limits.h"
#include "conf/yaml_reader.h"
#include "control/cli/import/imported.h"
#include "core/http1.h"
#include "core/regex.h"

namespace tidegate::cli {
namespace {

using nlohmann::json;

const DocumentNode* at(const DocumentNode* node, std::initializer_list<std::string_view> keys) {
  for (const std::string_view key : keys) {
    if (node != nullptr) node = node->find(key);
  }
  return node;
}
std::string text_at(const DocumentNode* node, std::initializer_list<std::string_view> keys) {
  const DocumentNode* found = at(node, keys);
  return found != nullptr && found->is_scalar() ? found->text : std::string();
}
const std::vector<DocumentNode>& items(const DocumentNode* node) {
  static const std::vector<DocumentNode> kNone;
  return node != nullptr && node->is_list() ? node->children : kNone;
}

void shift(DocumentNode& node, uint32_t lines) {
  node.line += lines;
  for (DocumentNode& child : node.children) shift(child, lines);
}

// The objects of a file with one or several documents, a List among them.
Result<std::vector<DocumentNode>> objects_of(std::string_view text) {
  std::vector<DocumentNode> objects;
  uint32_t line = 0;
  while (!text.empty()) {
    std::string part;
    const uint32_t before = line;
    while (!text.empty()) {
      const size_t end = std::min(text.find('\n'), text.size());
      const std::string_view row = text.substr(0, end);
      text.remove_prefix(std::min(end + 1, text.size()));
      ++line;
      if (row.starts_with("---")) break;
      part.append(row).push_back('\n');
    }
    std::vector<Fault> faults;
    FaultList list(faults, "");
    std::unique_ptr<DocumentNode> root = read_yaml(part, list);
    if (root == nullptr || !faults.empty()) {
      const Fault fault = faults.empty() ? Fault{} : faults.front();
      return fail(fmt::format("line {}: {}", before + fault.line, fault.detail));
    }
    shift(*root, before);
    if (text_at(root.get(), {"kind"}).ends_with("List")) {
      for (const DocumentNode& item : items(root->find("items"))) objects.push_back(item);
    } else if (root->is_map()) {
      objects.push_back(std::move(*root));
    }
  }
  return objects;
}

// A match and what stands beside it in its rule.
struct Rule {
  std::string name;
  std::vector<std::string> hosts, listeners;
  json request_headers = json::object(), response_headers = json::object();
  json redirect;  // its keys of the route; null: the rule leads to a pool
  std::string pool, timeout;
};

class GatewayImport {
 public:
  explicit GatewayImport(Imported& into) : into_(into) {}

  void run(const std::vector<DocumentNode>& objects) {
    for (const DocumentNode& object : objects) {
      const std::string kind = text_at(&object, {"kind"});
      if (kind == "EndpointSlice") endpoints(object);
      if (kind == "Service") service(object);
      if (kind == "Gateway") gateway(object);
    }
    if (listeners_.empty()) {
      into_.object("listeners", "http")["bind"] = json::array({"0.0.0.0:80"});
      listeners_.push_back({"http", "http", {}});
    }
    for (const DocumentNode& object : objects) {
      const std::string kind = text_at(&object, {"kind"});
      if (kind == "HTTPRoute") {
        route(object);
      } else if (kind != "EndpointSlice" && kind != "Service" && kind != "Gateway") {
        into_.leave(object.line, "kind: " + kind, "it has no counterpart");
      }
    }
    set_priorities();
  }

 private:
  struct Listener {
    std::string name, section, host;
  };

  void take_or_leave(const DocumentNode& node, const std::string& text, const Result<void>& outcome) {
    into_.judge(node.line, text, outcome);
  }

  // Services --------------------------------------------------------------------------------------------------------

  void endpoints(const DocumentNode& object) {
    const std::string name = text_at(&object, {"metadata", "labels", "kubernetes.io/service-name"});
    for (const DocumentNode& port : items(object.find("ports"))) {
      for (const DocumentNode& endpoint : items(object.find("endpoints"))) {
        for (const DocumentNode& address : items(endpoint.find("addresses")))
          endpoints_[name].push_back(address.text + " " + text_at(&port, {"port"}));
      }
    }
    into_.take();
  }

  void service(const DocumentNode& object) {
    const std::string address = text_at(&object, {"spec", "clusterIP"}), name = text_at(&object, {"metadata", "name"});
    if (address.empty() || address == "None") return into_.take();
    clusters_[name] = address;
    into_.take();
  }

  Result<void> add_backends(const DocumentNode& ref, json& backends) {
    const std::string name = text_at(&ref, {"name"}), port = text_at(&ref, {"port"}), kind = text_at(&ref, {"kind"});
    if (!kind.empty() && kind != "Service") return fail("a backend is a Service");
    const uint64_t weight = number_of(text_at(&ref, {"weight"})).value_or(1);
    std::vector<std::string> places;
    const auto known = endpoints_.find(name);
    if (known != endpoints_.end()) places = known->second;
    if (places.empty() && clusters_.count(name) != 0) places.push_back(clusters_[name] + " " + port);
    if (places.empty())
      return fail(fmt::format("the file has no address of Service '{}': add its EndpointSlices", name));
    for (const std::string& place : places) {
      const size_t blank = place.find(' ');
      const std::optional<uint64_t> number = number_of(place.substr(blank + 1));
      const Result<std::string> address = backend_address(place.substr(0, blank));
      if (!address) return address.error();
      if (!number || *number == 0 || *number > 65535) return fail("it has no port");
      const uint64_t share = weight == 0 ? 0 : std::clamp<uint64_t>(weight * 100 / places.size(), 1, 65535);
      backends.push_back({{"name", fmt::format("b{}", backends.size() + 1)},
                          {"addresses", json::array({*address})},
                          {"port", *number},
                          {"weight", share}});
    }
    return {};
  }

  // Gateways --------------------------------------------------------------------------------------------------------

  void gateway(const DocumentNode& object) {
    into_.take();
    for (const DocumentNode& listener : items(at(&object, {"spec", "listeners"}))) {
      const std::string name = text_at(&listener, {"name"});
      take_or_leave(listener, "listener " + name, add_listener(listener, name));
    }
  }

  Result<void> add_listener(const DocumentNode& node, const std::string& name) {
    const std::string protocol = text_at(&node, {"protocol"});
    const std::optional<uint64_t> port = number_of(text_at(&node, {"port"}));
    if (protocol != "HTTP" && protocol != "HTTPS") return fail("a listener speaks HTTP or HTTPS");
    if (!port || *port == 0 || *port > 65535) return fail("it has no port");
    const bool tls = protocol == "HTTPS";
    const DocumentNode* certificates = at(&node, {"tls", "certificateRefs"});
    if (tls && items(certificates).empty()) return fail("TLS needs certificateRefs");
    const std::string ours = fmt::format("{}-{}", tls ? "https" : "http", *port);
    if (into_.has("listeners", fmt::format("{}-{}", tls ? "http" : "https", *port)))
      return fail("another listener has this port with, or without, TLS");
    json& listener = into_.object("listeners", ours);
    listener["bind"] = json::array({fmt::format("0.0.0.0:{}", *port)});
    for (const DocumentNode& ref : items(certificates)) {
      const std::string certificate = name_of(text_at(&ref, {"name"}));
      json& object = into_.object("certificates", certificate);
      object["certificate_file"] = certificate + ".crt";
      object["key_file"] = certificate + ".key";
      json& list = listener["tls"]["certificates"];
      if (std::find(list.begin(), list.end(), certificate) == list.end()) list.push_back(certificate);
    }
    listeners_.push_back({ours, name, text_at(&node, {"hostname"})});
    return {};
  }

  // Routes ----------------------------------------------------------------------------------------------------------

  void route(const DocumentNode& object) {
    into_.take();
    Rule common;
    common.name = name_of(text_at(&object, {"metadata", "name"}));
    for (const DocumentNode& host : items(at(&object, {"spec", "hostnames"}))) {
      common.hosts.push_back(host.text);
      into_.take();
    }
    std::set<std::string> sections;
    for (const DocumentNode& parent : items(at(&object, {"spec", "parentRefs"}))) {
      if (const std::string section = text_at(&parent, {"sectionName"}); !section.empty()) sections.insert(section);
      into_.take();
    }
    for (const Listener& listener : listeners_) {
      if (!sections.empty() && sections.count(listener.section) == 0) continue;
      if (common.hosts.empty() && !listener.host.empty()) common.hosts.push_back(listener.host);
      if (std::find(common.listeners.begin(), common.listeners.end(), listener.name) == common.listeners.end())
        common.listeners.push_back(listener.name);
    }
    size_t number = 0;
    for (const DocumentNode& rule : items(at(&object, {"spec", "rules"}))) {
      const std::string name = fmt::format("{}-{}", common.name, ++number);
      if (common.listeners.empty()) {
        into_.leave(rule.line, "rule " + name, "none of its listeners is taken");
      } else {
        add_rule(rule, name, common);
      }
    }
  }

  void add_rule(const DocumentNode& node, const std::string& name, Rule rule) {
    rule.name = name;
    bool same = true;  // nothing was left that changes where requests go
    for (const DocumentNode& filter : items(node.find("filters"))) {
      const Result<void> outcome = add_filter(filter, rule, same);
      take_or_leave(filter, "filter " + text_at(&filter, {"type"}), outcome);
    }
    if (const DocumentNode* timeouts = node.find("timeouts")) add_timeouts(*timeouts, rule);
    json backends = json::array();
    for (const DocumentNode& ref : items(node.find("backendRefs")))
      take_or_leave(ref, "backendRef " + text_at(&ref, {"name"}), add_backends(ref, backends));
    if (rule.redirect.is_null() && backends.empty()) same = false;
    if (rule.redirect.is_null() && same) {
      rule.pool = into_.free_name("pools", name);
      into_.object("pools", rule.pool)["backends"] = backends;
    }
    bool any = false;
    const std::vector<DocumentNode>& matches = items(node.find("matches"));
    for (const DocumentNode& match : matches) {
      const Result<void> outcome = same ? add_match(&match, rule) : fail("its rule is not taken");
      any = any || static_cast<bool>(outcome);
      take_or_leave(match, "match of " + name, outcome);
    }
    if (matches.empty()) {
      const Result<void> outcome = same ? add_match(nullptr, rule) : fail("it leads nowhere");
      any = static_cast<bool>(outcome);
      take_or_leave(node, "rule " + name, outcome);
    }
    if (!any && !rule.pool.empty()) into_.remove("pools", rule.pool);
  }

  void add_timeouts(const DocumentNode& timeouts, Rule& rule) {
    for (const DocumentNode& timeout : timeouts.children) {
      const std::optional<std::string> duration = duration_of(timeout.text, "s");
      const bool taken = timeout.key == "request" && duration;
      if (taken) rule.timeout = *duration;
      take_or_leave(timeout, "timeouts." + timeout.key,
                    taken ? Result<void>() : fail("a route has total_timeout; a try's are those of its pool"));
    }
  }

  Result<void> add_filter(const DocumentNode& filter, Rule& rule, bool& same) {
    const std::string type = text_at(&filter, {"type"});
    if (type == "RequestHeaderModifier") return add_headers(filter.find("requestHeaderModifier"), rule.request_headers);
    if (type == "ResponseHeaderModifier")
      return add_headers(filter.find("responseHeaderModifier"), rule.response_headers);
    if (type == "RequestRedirect") return add_redirect(filter.find("requestRedirect"), rule, same);
    if (type == "RequestMirror") return fail("requests are not mirrored");
    same = false;
    return fail(type == "URLRewrite" ? "paths are not rewritten" : "there is no such filter");
  }

  static Result<void> add_headers(const DocumentNode* node, json& headers) {
    Result<void> outcome;
    const auto lower = [](std::string name) {
      std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
      return name;
    };
    for (const DocumentNode& field : items(at(node, {"set"})))
      headers[lower(text_at(&field, {"name"}))] = text_at(&field, {"value"});
    for (const DocumentNode& field : items(at(node, {"remove"}))) headers[lower(field.text)] = "";
    if (!items(at(node, {"add"})).empty()) outcome = fail("fields are set or removed, not added to");
    return outcome;
  }

  static Result<void> add_redirect(const DocumentNode* node, Rule& rule, bool& same) {
    const std::string scheme = text_at(node, {"scheme"}), host = text_at(node, {"hostname"}),
                      port = text_at(node, {"port"}), path = text_at(node, {"path", "replaceFullPath"});
    if (at(node, {"path"}) != nullptr && path.empty()) {
      same = false;
      return fail("a prefix of the path is not replaced");
    }
    if (scheme.empty() && host.empty() && port.empty()) {
      rule.redirect = {{"redirect", path}};
    } else {
      rule.redirect = {
          {"redirect", fmt::format("{}://{}{}{}", scheme.empty() ? "http" : scheme, host.empty() ? "{host}" : host,
                                   port.empty() ? "" : ":" + port, path.empty() ? "{path}" : path)}};
    }
    if (const auto status = number_of(text_at(node, {"statusCode"}))) rule.redirect["status"] = *status;
    return {};
  }

  // Fields or parameters of a match: names with exact values, and names with regular expressions.
  struct Conditions {
    json exact = json::object(), regex = json::object();
    size_t count() const { return exact.size() + regex.size(); }
  };
  static Result<void> add_conditions(const DocumentNode* list, const char* what, Conditions& conditions) {
    for (const DocumentNode& each : items(list)) {
      const std::string type = text_at(&each, {"type"}), name = text_at(&each, {"name"}),
                        value = text_at(&each, {"value"});
      const bool is_regex = type == "RegularExpression";
      if (!type.empty() && type != "Exact" && !is_regex) return fail(fmt::format("{} match no {}", what, type));
      if (!http1::is_token(name) || value.empty() || (!is_regex && value == "*"))
        return fail(fmt::format("a route cannot ask for this name or value of {}", what));
      if (is_regex) {
        if (Result<void> checked = check_regex(value); !checked) return checked;
      }
      if (conditions.exact.contains(name) || conditions.regex.contains(name)) continue;  // the first of a name counts
      (is_regex ? conditions.regex : conditions.exact)[name] = value;
    }
    return {};
  }

  static Result<void> check_regex(const std::string& pattern) {
    const Result<Regex> regex = Regex::compile(pattern, kRegexMemoryBytes);
    if (!regex) return fail("RE2 does not take the regular expression: " + regex.error().message);
    return {};
  }

  Result<void> add_match(const DocumentNode* match, const Rule& rule) {
    Conditions headers, query;
    if (Result<void> added = add_conditions(at(match, {"headers"}), "headers", headers); !added) return added;
    if (Result<void> added = add_conditions(at(match, {"queryParams"}), "query parameters", query); !added)
      return added;
    const std::string type = text_at(match, {"path", "type"}), method = text_at(match, {"method"});
    std::string path = text_at(match, {"path", "value"});
    if (path.empty()) path = "/";
    std::string path_regex;
    if (type == "RegularExpression") {
      if (Result<void> checked = check_regex(path); !checked) return checked;
      path_regex = std::exchange(path, "/*");
    } else if (path.front() != '/' || path.find_first_of("*{}?#%") != std::string::npos) {
      return fail("the path has characters that a route's path cannot have");
    } else if (type != "Exact") {
      path += path.ends_with('/') ? "*" : "/*";
    }
    const std::string place = fmt::format("{} {} {}", fmt::join(rule.listeners, ","), fmt::join(rule.hosts, ","), path);
    const std::string key = fmt::format("{} {} {} {} {} {} {}", place, method, headers.exact.dump(), query.exact.dump(),
                                        headers.regex.dump(), query.regex.dump(), path_regex);
    if (!taken_.insert(key).second) return fail("an earlier rule takes these requests");
    json& route = into_.object("routes", into_.free_name("routes", rule.name));
    ranked_[place].push_back(
        {&route, path_regex.empty() ? 0U : 1U, method.empty() ? 0U : 1U, headers.count(), query.count()});
    route["listeners"] = rule.listeners;
    if (!rule.hosts.empty()) route["hosts"] = rule.hosts;
    route["path"] = path;
    if (!method.empty()) route["methods"] = json::array({method});
    if (!headers.exact.empty()) route["match"]["headers"] = headers.exact;
    if (!query.exact.empty()) route["match"]["query"] = query.exact;
    if (!headers.regex.empty()) route["match"]["headers_regex"] = headers.regex;
    if (!query.regex.empty()) route["match"]["query_regex"] = query.regex;
    if (!path_regex.empty()) route["match"]["path_regex"] = path_regex;
    if (!rule.request_headers.empty() && rule.redirect.is_null()) route["request_headers"] = rule.request_headers;
    if (!rule.response_headers.empty()) route["response_headers"] = rule.response_headers;
    if (!rule.timeout.empty()) route["total_timeout"] = rule.timeout;
    if (rule.redirect.is_null()) {
      route["pool"] = rule.pool;
    } else {
      route.update(rule.redirect);
    }
    return {};
  }

  // The Gateway API's precedence of matches with one path: a method, then the most headers, then the most parameters,
  // then the first in the file. A regular expression of the path comes before the path that stands for all.
  void set_priorities() {
    for (auto& [place, routes] : ranked_) {
      const bool any = std::any_of(routes.begin(), routes.end(),
                                   [](const Ranked& r) { return r.path_regex + r.headers + r.query > 0; });
      if (!any) continue;
      std::stable_sort(routes.begin(), routes.end(), [](const Ranked& a, const Ranked& b) {
        return std::tie(a.path_regex, a.methods, a.headers, a.query) >
               std::tie(b.path_regex, b.methods, b.headers, b.query);
      });
      for (size_t i = 0; i + 1 < routes.size(); ++i) (*routes[i].route)["priority"] = routes.size() - 1 - i;
    }
  }

  struct Ranked {
    json* route;
    size_t path_regex, methods, headers, query;
  };
  std::map<std::string, std::vector<Ranked>> ranked_;  // by listeners, hosts and path
  Imported& into_;
  std::map<std::string, std::vector<std::string>> endpoints_;  // of a Service: "ADDRESS PORT"
  std::map<std::string, std::string> clusters_;
  std::vector<Listener> listeners_;
  std::set<std::string> taken_;  // what requests a route takes
};

}  // namespace

Result<void> import_httproute(std::string_view text, Imported& into) {
  const Result<std::vector<DocumentNode>> objects = objects_of(text);
  if (!objects) return objects.error();
  GatewayImport(into).run(*objects);
  return {};
}

}  // namespace tidegate::cli
