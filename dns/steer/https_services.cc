// SPDX-License-Identifier: Apache-2.0
#include "dns/steer/https_services.h"

#include <algorithm>

#include "conf/model/listener.h"
#include "conf/model/route.h"

namespace tidegate::dns {
namespace {

// Compares with a route's host, which may be a wildcard. `name` has no final dot. A wildcard name is served by its own
// wildcard, or one above it.
bool covers(std::string_view host, std::string_view name) {
  if (host == name) return true;
  if (host.substr(0, 2) != "*." || name.size() < host.size()) return false;
  return name.substr(name.size() - (host.size() - 1)) == host.substr(1);
}

bool serves(const Model& model, uint32_t listener, std::string_view name) {
  return std::any_of(model.routes.begin(), model.routes.end(), [&](const Route& route) {
    const bool heard = route.listeners.empty() ||
                       std::find(route.listeners.begin(), route.listeners.end(), listener) != route.listeners.end();
    return heard && (route.hosts.empty() || std::any_of(route.hosts.begin(), route.hosts.end(),
                                                        [&](const auto& host) { return covers(host, name); }));
  });
}

}  // namespace

std::vector<HttpsService> https_services(const Model& model, std::string_view name) {
  name = name.substr(0, name.find_last_not_of('.') + 1);
  std::vector<HttpsService> services;
  for (uint32_t l = 0; l < model.listeners.size(); ++l) {
    const Listener& listener = model.listeners[l];
    if (!listener.tls.enabled || !serves(model, l, name)) continue;
    for (const Endpoint& bind : listener.bind) {
      const auto known = std::find_if(services.begin(), services.end(),
                                      [&](const HttpsService& service) { return service.port == bind.port; });
      if (known != services.end()) {
        known->http2 = known->http2 && listener.http2;
      } else {
        services.push_back({bind.port, listener.http2});
      }
    }
  }
  // Clients ask at 443. Another port is listed only if nothing of ours answers there.
  const auto usual =
      std::find_if(services.begin(), services.end(), [](const HttpsService& service) { return service.port == 443; });
  if (usual != services.end()) services = {HttpsService(*usual)};
  return services;
}

}  // namespace tidegate::dns
