// SPDX-License-Identifier: Apache-2.0
#include "control/cli/import/gateway_listeners.h"

#include <fmt/format.h>

#include <algorithm>

#include "control/cli/import/cases.h"

namespace tidegate::cli {

using namespace kube;  // NOLINT(google-build-using-namespace): the helpers of this folder
using nlohmann::json;
using Kind = DocumentNode::Kind;

void GatewayListeners::add_namespace(const DocumentNode& object) {
  into_.take();
  std::map<std::string, std::string>& labels = namespaces_[text_at(&object, {"metadata", "name"})];
  if (const DocumentNode* found = at(&object, {"metadata", "labels"}); found != nullptr && found->is_map()) {
    for (const DocumentNode& label : found->children) labels[label.key] = label.text;
  }
}

void GatewayListeners::add_gateway(const DocumentNode& object) {
  any_gateway_ = true;
  const DocumentNode* spec = object.find("spec");
  if (spec == nullptr || !spec->is_map()) return into_.leave(object.line, "kind: Gateway", "it has no spec");
  into_.take();
  read_only(into_, *spec, "spec", {{"gatewayClassName", Kind::scalar}, {"listeners", Kind::list}});
  for (const DocumentNode& node : items(spec->find("listeners"))) {
    GatewayListener listener;
    listener.gateway = text_at(&object, {"metadata", "name"});
    listener.space = namespace_of(object);
    listener.section = text_at(&node, {"name"});
    into_.judge(node.line, "listener " + listener.section, add_listener(node, listener));
  }
}

void GatewayListeners::add_only_listener() {
  into_.object("listeners", "http")["bind"] = json::array({"0.0.0.0:80"});
  listeners_.push_back({});
  listeners_.back().name = "http";
}

Result<void> GatewayListeners::add_listener(const DocumentNode& node, GatewayListener& here) {
  const std::string protocol = text_at(&node, {"protocol"}), mode = text_at(&node, {"tls", "mode"});
  const std::optional<uint64_t> port = number_of(text_at(&node, {"port"}));
  read_only(into_, node, "listener",
            {{"name", Kind::scalar},
             {"hostname", Kind::scalar},
             {"port", Kind::scalar},
             {"protocol", Kind::scalar},
             {"tls", Kind::map},
             {"allowedRoutes", Kind::map}});
  if (protocol != "HTTP" && protocol != "HTTPS") return fail("a listener speaks HTTP or HTTPS");
  if (!port || *port == 0 || *port > 65535) return fail("it has no port");
  here.port = static_cast<uint16_t>(*port);
  here.host = text_at(&node, {"hostname"});
  here.tls = protocol == "HTTPS";
  const std::vector<DocumentNode>& certificates = items(at(&node, {"tls", "certificateRefs"}));
  if (!mode.empty() && mode != "Terminate") return fail("TLS ends at the proxy");
  if (here.tls && certificates.empty()) return fail("TLS needs certificateRefs");
  if (const DocumentNode* tls = node.find("tls"); tls != nullptr && here.tls) {
    const bool whole = read_only(into_, *tls, "tls",
                                 {{"mode", Kind::scalar}, {"certificateRefs", Kind::list}, {"options", Kind::map}});
    if (!whole) return fail("what else its TLS asks of clients is not taken");
    if (const DocumentNode* options = tls->find("options")) into_.leave(options->line, "tls.options", "there are none");
  }
  if (Result<void> allowed = read_allowed(node, here); !allowed) return allowed;
  std::vector<std::string> names;
  for (const DocumentNode& ref : certificates) {
    const std::string name = text_at(&ref, {"name"}), kind = text_at(&ref, {"kind"});
    std::string space = text_at(&ref, {"namespace"});
    if (space.empty()) space = here.space;
    if (!kind.empty() && kind != "Secret") return fail("a certificate is a Secret");
    if (!services_.grants("Gateway", here.space, "Secret", space, name))
      return fail(fmt::format("no ReferenceGrant of namespace '{}' lets namespace '{}' in", space, here.space));
    names.push_back(certificate_of(space, name));
  }
  const std::string scheme = here.tls ? "https" : "http";
  here.name = fmt::format("{}-{}", scheme, *port);
  if (into_.has("listeners", fmt::format("{}-{}", here.tls ? "http" : "https", *port)))
    return fail("another listener has this port with, or without, TLS");
  json& listener = into_.object("listeners", here.name);
  listener["bind"] = json::array({fmt::format("0.0.0.0:{}", *port)});
  for (const std::string& name : names) {
    json& list = listener["tls"]["certificates"];
    if (std::find(list.begin(), list.end(), name) == list.end()) list.push_back(name);
  }
  listeners_.push_back(here);
  return {};
}

std::string GatewayListeners::certificate_of(const std::string& space, const std::string& name) {
  std::string& known = certificates_[space + "/" + name];
  if (!known.empty()) return known;
  known = into_.free_name("certificates", name);
  json& object = into_.object("certificates", known);
  object["certificate_file"] = known + ".crt";
  object["key_file"] = known + ".key";
  return known;
}

Result<void> GatewayListeners::read_allowed(const DocumentNode& node, GatewayListener& listener) {
  const DocumentNode* allowed = node.find("allowedRoutes");
  if (allowed == nullptr) return {};
  if (!read_only(into_, *allowed, "allowedRoutes", {{"namespaces", Kind::map}, {"kinds", Kind::list}}))
    return fail("whose routes may come is not known");
  const std::vector<DocumentNode>& kinds = items(allowed->find("kinds"));
  listener.http_routes = kinds.empty() || std::any_of(kinds.begin(), kinds.end(), [](const DocumentNode& kind) {
                           return text_at(&kind, {"kind"}) == "HTTPRoute";
                         });
  const std::string from = text_at(allowed, {"namespaces", "from"});
  if (from == "All" || from == "Same" || from.empty()) {
    listener.from = from.empty() ? "Same" : from;
    return {};
  }
  if (from != "Selector") return fail("whose routes may come is not known");
  listener.from.clear();
  const DocumentNode* selector = at(allowed, {"namespaces", "selector"});
  if (selector == nullptr) return fail("the selector is missing");
  if (!read_only(into_, *selector, "selector", {{"matchLabels", Kind::map}}))
    return fail("namespaces are chosen by matchLabels");
  const DocumentNode* wanted = selector->find("matchLabels");
  for (const auto& [name, labels] : namespaces_) {
    const bool has = wanted == nullptr || std::all_of(wanted->children.begin(), wanted->children.end(),
                                                      [&known = labels](const DocumentNode& label) {
                                                        const auto found = known.find(label.key);
                                                        return found != known.end() && found->second == label.text;
                                                      });
    if (has) listener.namespaces.insert(name);
  }
  return listener.namespaces.empty() ? fail("the file has no Namespace that is chosen: add them") : Result<void>();
}

Result<void> GatewayListeners::attach(const DocumentNode& parent, const std::string& space,
                                      std::set<const GatewayListener*>& attached) const {
  const std::string kind = text_at(&parent, {"kind"}), name = text_at(&parent, {"name"}),
                    section = text_at(&parent, {"sectionName"});
  std::string of = text_at(&parent, {"namespace"});
  if (of.empty()) of = space;
  read_only(into_, parent, "parentRef",
            {{"group", Kind::scalar},
             {"kind", Kind::scalar},
             {"namespace", Kind::scalar},
             {"name", Kind::scalar},
             {"sectionName", Kind::scalar},
             {"port", Kind::scalar}});
  if (!kind.empty() && kind != "Gateway") return fail("a route belongs to a Gateway");
  const DocumentNode* port = parent.find("port");
  Result<void> outcome = fail("the file has no such Gateway, or none of its listeners is taken");
  for (const GatewayListener& listener : listeners_) {
    if (any_gateway_) {
      if (listener.gateway != name || listener.space != of) continue;
      if (!section.empty() && section != listener.section) continue;
      if (port != nullptr && number_of(port->text) != listener.port) continue;
      const bool welcome =
          listener.http_routes && (listener.from == "All" || (listener.from == "Same" && listener.space == space) ||
                                   listener.namespaces.count(space) != 0);
      if (!welcome) {
        if (!outcome) outcome = fail("allowedRoutes of the listener keeps it out");
        continue;
      }
    }
    attached.insert(&listener);
    outcome = {};
  }
  return outcome;
}

std::vector<GatewayPlace> GatewayListeners::places_of(const std::vector<std::string>& hosts,
                                                      const std::set<const GatewayListener*>& attached) const {
  std::vector<GatewayPlace> places;
  for (const GatewayListener& listener : listeners_) {
    if (attached.count(&listener) == 0) continue;
    std::optional<std::vector<std::string>> shared = shared_hosts(hosts, listener);
    if (!shared) continue;
    const auto same =
        std::find_if(places.begin(), places.end(), [&](const GatewayPlace& place) { return place.hosts == *shared; });
    if (same != places.end()) {
      same->listeners.push_back(&listener);
    } else {
      places.push_back({*shared, {&listener}});
    }
  }
  return places;
}

// The hosts that a route and a listener have in common. Nothing: none. An empty list: any.
std::optional<std::vector<std::string>> GatewayListeners::shared_hosts(const std::vector<std::string>& hosts,
                                                                       const GatewayListener& listener) const {
  std::vector<std::string> out;
  for (const std::string& host : hosts.empty() ? std::vector<std::string>{""} : hosts) {
    const bool narrower = host_covers(listener.host, host);
    if (!narrower && !host_covers(host, listener.host)) continue;
    const std::string& both = narrower ? host : listener.host;
    // A request is for the listener whose name is the closest.
    const bool closer = std::any_of(listeners_.begin(), listeners_.end(), [&](const GatewayListener& other) {
      return other.name == listener.name && other.host != listener.host && host_covers(listener.host, other.host) &&
             !other.host.empty() && host_covers(other.host, both);
    });
    if (!closer && std::find(out.begin(), out.end(), both) == out.end()) out.push_back(both);
  }
  if (out.empty()) return std::nullopt;
  if (out.front().empty()) out.clear();
  return out;
}

}  // namespace tidegate::cli
