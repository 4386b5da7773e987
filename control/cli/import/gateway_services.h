// SPDX-License-Identifier: Apache-2.0
// Services of Kubernetes as backends: a Service's port has a name, and its EndpointSlices have the addresses and the
// port of the containers under that name.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "control/cli/import/kubernetes_objects.h"

namespace tidegate::cli {

struct GatewayBackends {
  std::vector<nlohmann::json> places;              // {addresses, port}; none: no endpoint is ready
  nlohmann::json pool = nlohmann::json::object();  // further keys of the pool
};

class GatewayServices {
 public:
  // Reads an object, if it is one of these kinds: EndpointSlice, Service, ReferenceGrant, BackendTLSPolicy.
  bool read(const DocumentNode& object, Imported& into);
  // The backends of a backendRef of an HTTPRoute in a namespace. Error: the reference is not valid.
  Result<GatewayBackends> find(const DocumentNode& ref, const std::string& from) const;
  // Whether an object of one namespace may refer to one of another.
  bool grants(const std::string& from_kind, const std::string& from, const std::string& to_kind, const std::string& to,
              const std::string& name) const;

 private:
  using Key = std::pair<std::string, std::string>;  // namespace and name
  struct Endpoint {
    std::string port_name, address;
    uint64_t port = 0;
  };
  struct Port {
    std::string name, protocol;  // of the application
  };
  struct Service {
    std::string cluster_address;
    bool external = false;
    std::map<uint64_t, Port> ports;
  };
  struct Grant {
    std::string from_kind, from, to_kind, to, name;  // name: empty is any
  };
  void endpoints(const DocumentNode& object, Imported& into);
  void service(const DocumentNode& object, Imported& into);
  void grant(const DocumentNode& object, Imported& into);
  void tls(const DocumentNode& object, Imported& into);

  std::map<Key, std::vector<Endpoint>> endpoints_;
  std::map<Key, Service> services_;
  std::set<Key> sliced_;               // have EndpointSlices, with ready endpoints or not
  std::map<Key, nlohmann::json> tls_;  // null: it has to be TLS, and cannot be said
  std::vector<Grant> grants_;
};

}  // namespace tidegate::cli
