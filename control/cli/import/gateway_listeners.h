// SPDX-License-Identifier: Apache-2.0
// Gateways of Kubernetes as listeners, and which routes hold at which of them.
#pragma once

#include <list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "control/cli/import/gateway_services.h"
#include "control/cli/import/kubernetes_objects.h"

namespace tidegate::cli {

struct GatewayListener {
  std::string name, gateway, space, section, host;  // name: ours
  uint16_t port = 80;
  bool tls = false;
  std::string from = "Same";  // whose routes may come: Same, All, or "" for `namespaces`
  std::set<std::string> namespaces;
  bool http_routes = true;
};

// Where a route holds. Listeners with the same hosts are together.
struct GatewayPlace {
  std::vector<std::string> hosts;  // empty: any
  std::vector<const GatewayListener*> listeners;
};

class GatewayListeners {
 public:
  GatewayListeners(Imported& into, const GatewayServices& services) : into_(into), services_(services) {}

  // First every Namespace, then every Gateway, then routes.
  void add_namespace(const DocumentNode& object);
  void add_gateway(const DocumentNode& object);
  // For a file without a Gateway: every route holds at this one.
  void add_only_listener();

  // Adds the listeners that take a route of the namespace `space` by this parentRef. Error: none does.
  Result<void> attach(const DocumentNode& parent, const std::string& space,
                      std::set<const GatewayListener*>& attached) const;
  // Where a route with these hostnames (empty: any) holds.
  std::vector<GatewayPlace> places_of(const std::vector<std::string>& hosts,
                                      const std::set<const GatewayListener*>& attached) const;

 private:
  Result<void> add_listener(const DocumentNode& node, GatewayListener& here);
  std::string certificate_of(const std::string& space, const std::string& name);
  Result<void> read_allowed(const DocumentNode& node, GatewayListener& listener);
  std::optional<std::vector<std::string>> shared_hosts(const std::vector<std::string>& hosts,
                                                       const GatewayListener& listener) const;

  Imported& into_;
  const GatewayServices& services_;
  std::map<std::string, std::map<std::string, std::string>> namespaces_;  // labels
  std::map<std::string, std::string> certificates_;                       // names of ours, by namespace/name
  std::list<GatewayListener> listeners_;
  bool any_gateway_ = false;
};

}  // namespace tidegate::cli
