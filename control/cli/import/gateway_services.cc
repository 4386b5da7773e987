// SPDX-License-Identifier: Apache-2.0
#include "control/cli/import/gateway_services.h"

#include <fmt/format.h>

#include <algorithm>

namespace tidegate::cli {
namespace {

using nlohmann::json;
using namespace kube;  // NOLINT(google-build-using-namespace): the helpers of this folder
using Kind = DocumentNode::Kind;

constexpr const char* kGatewayGroup = "gateway.networking.k8s.io";

}  // namespace

bool GatewayServices::read(const DocumentNode& object, Imported& into) {
  const std::string kind = text_at(&object, {"kind"});
  if (kind == "EndpointSlice") return endpoints(object, into), true;
  if (kind == "Service") return service(object, into), true;
  if (kind == "ReferenceGrant") return grant(object, into), true;
  if (kind == "BackendTLSPolicy") return tls(object, into), true;
  return false;
}

void GatewayServices::endpoints(const DocumentNode& object, Imported& into) {
  const Key key{namespace_of(object), text_at(&object, {"metadata", "labels", "kubernetes.io/service-name"})};
  const std::string type = text_at(&object, {"addressType"});
  if (key.second.empty()) return into.leave(object.line, "kind: EndpointSlice", "it names no Service");
  if (type == "FQDN") return into.leave(object.line, "kind: EndpointSlice", "backends have addresses");
  sliced_.insert(key);
  std::vector<Endpoint>& known = endpoints_[key];
  for (const DocumentNode& port : items(object.find("ports"))) {
    const std::string protocol = text_at(&port, {"protocol"});
    const std::optional<uint64_t> number = number_of(text_at(&port, {"port"}));
    if ((!protocol.empty() && protocol != "TCP") || !number || *number == 0 || *number > 65535) continue;
    for (const DocumentNode& endpoint : items(object.find("endpoints"))) {
      // Not said means ready.
      if (text_at(&endpoint, {"conditions", "ready"}) == "false") continue;
      // Further addresses of one endpoint are the same container.
      const std::vector<DocumentNode>& addresses = items(endpoint.find("addresses"));
      if (addresses.empty()) continue;
      const Endpoint next{text_at(&port, {"name"}), addresses.front().text, *number};
      const bool twice = std::any_of(known.begin(), known.end(), [&](const Endpoint& each) {
        return each.port_name == next.port_name && each.address == next.address && each.port == next.port;
      });
      if (!twice) known.push_back(next);
    }
  }
  into.take();
}

void GatewayServices::service(const DocumentNode& object, Imported& into) {
  const DocumentNode* spec = object.find("spec");
  if (spec == nullptr || !spec->is_map()) return into.leave(object.line, "kind: Service", "it has no spec");
  Service& service = services_[{namespace_of(object), text_at(&object, {"metadata", "name"})}];
  const std::string address = text_at(spec, {"clusterIP"});
  if (address != "None") service.cluster_address = address;
  service.external = text_at(spec, {"type"}) == "ExternalName";
  for (const DocumentNode& port : items(spec->find("ports"))) {
    const std::string protocol = text_at(&port, {"protocol"});
    const std::optional<uint64_t> number = number_of(text_at(&port, {"port"}));
    if (number && (protocol.empty() || protocol == "TCP"))
      service.ports[*number] = {text_at(&port, {"name"}), text_at(&port, {"appProtocol"})};
  }
  into.take();
}

void GatewayServices::grant(const DocumentNode& object, Imported& into) {
  into.take();
  for (const DocumentNode& from : items(at(&object, {"spec", "from"}))) {
    if (text_at(&from, {"group"}) != kGatewayGroup) continue;
    for (const DocumentNode& to : items(at(&object, {"spec", "to"}))) {
      if (!text_at(&to, {"group"}).empty()) continue;
      grants_.push_back({text_at(&from, {"kind"}), text_at(&from, {"namespace"}), text_at(&to, {"kind"}),
                         namespace_of(object), text_at(&to, {"name"})});
    }
  }
}

bool GatewayServices::grants(const std::string& from_kind, const std::string& from, const std::string& to_kind,
                             const std::string& to, const std::string& name) const {
  return from == to || std::any_of(grants_.begin(), grants_.end(), [&](const Grant& each) {
           return each.from_kind == from_kind && each.from == from && each.to_kind == to_kind && each.to == to &&
                  (each.name.empty() || each.name == name);
         });
}

void GatewayServices::tls(const DocumentNode& object, Imported& into) {
  const DocumentNode* validation = at(&object, {"spec", "validation"});
  const std::string host = text_at(validation, {"hostname"});
  const std::vector<DocumentNode>& authorities = items(at(validation, {"caCertificateRefs"}));
  const bool system = text_at(validation, {"wellKnownCACertificates"}) == "System";
  json pool;
  const bool plain =
      at(validation, {"subjectAltNames"}) == nullptr && !host.empty() && (system || authorities.size() == 1);
  if (plain) {
    pool = {{"tls", true}, {"tls_server_name", host}};
    if (!system) pool["tls_ca_file"] = name_of(text_at(&authorities.front(), {"name"})) + ".crt";
  }
  into.judge(object.line, "kind: BackendTLSPolicy",
             plain ? Result<void>() : fail("a pool checks one name by one file; its Services get no requests"));
  for (const DocumentNode& target : items(at(&object, {"spec", "targetRefs"}))) {
    const bool whole = plain && target.find("sectionName") == nullptr;  // of one port: too much to say
    tls_[{namespace_of(object), text_at(&target, {"name"})}] = whole ? pool : json();
  }
}

Result<GatewayBackends> GatewayServices::find(const DocumentNode& ref, const std::string& from) const {
  const std::string name = text_at(&ref, {"name"}), kind = text_at(&ref, {"kind"}), group = text_at(&ref, {"group"});
  std::string space = text_at(&ref, {"namespace"});
  if (space.empty()) space = from;
  if ((!kind.empty() && kind != "Service") || !group.empty()) return fail("a backend is a Service");
  if (!grants("HTTPRoute", from, "Service", space, name))
    return fail(fmt::format("no ReferenceGrant of namespace '{}' lets namespace '{}' in", space, from));
  const std::optional<uint64_t> port = number_of(text_at(&ref, {"port"}));
  if (!port || *port == 0 || *port > 65535) return fail("it has no port");
  const Key key{space, name};
  GatewayBackends out;
  const auto service = services_.find(key);
  const auto known = endpoints_.find(key);
  if (service != services_.end()) {
    if (service->second.external) return fail("backends have addresses, and an ExternalName has none");
    const auto found = service->second.ports.find(*port);
    if (found == service->second.ports.end()) return fail(fmt::format("Service '{}' has no port {}", name, *port));
    if (found->second.protocol == "kubernetes.io/h2c") out.pool["protocol"] = "h2";
    if (sliced_.count(key) == 0) {
      const Result<std::string> address = backend_address(service->second.cluster_address);
      if (!address) return fail(fmt::format("the file has no address of Service '{}': add its EndpointSlices", name));
      out.places.push_back({{"addresses", json::array({*address})}, {"port", *port}});
    } else {
      for (const Endpoint& each : known->second) {
        if (each.port_name != found->second.name) continue;
        const Result<std::string> address = backend_address(each.address);
        if (!address) return address.error();
        out.places.push_back({{"addresses", json::array({*address})}, {"port", each.port}});
      }
    }
  } else {
    if (sliced_.count(key) == 0)
      return fail(fmt::format("the file has no address of Service '{}': add it and its EndpointSlices", name));
    // Without the Service nobody knows which of several ports is meant.
    std::set<std::string> names;
    for (const Endpoint& each : known->second) names.insert(each.port_name);
    if (names.size() > 1) return fail(fmt::format("Service '{}' has several ports: add it to the file", name));
    for (const Endpoint& each : known->second) {
      const Result<std::string> address = backend_address(each.address);
      if (!address) return address.error();
      out.places.push_back({{"addresses", json::array({*address})}, {"port", each.port}});
    }
  }
  if (const auto tls = tls_.find(key); tls != tls_.end()) {
    if (tls->second.is_null()) return fail("its BackendTLSPolicy is not taken");
    out.pool.update(tls->second);
  }
  return out;
}

}  // namespace tidegate::cli
