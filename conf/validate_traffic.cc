// SPDX-License-Identifier: Apache-2.0
// Cross checks of nodes, VIPs, services and pools.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "conf/checks.h"
#include "conf/names.h"

namespace tidegate {
namespace {

constexpr std::string_view kHeaderPrefix = "header:";

bool is_prime(uint64_t number) {
  if (number < 2) return false;
  for (uint64_t factor = 2; factor * factor <= number; ++factor) {
    if (number % factor == 0) return false;
  }
  return true;
}

uint64_t next_prime(uint64_t number) {
  while (!is_prime(number)) ++number;
  return number;
}

const char* family_name(const IpAddress& address) { return address.is_v4() ? "IPv4" : "IPv6"; }

// The position of the first address whose family occurred before, or the size of the list.
size_t repeated_family(const std::vector<IpAddress>& addresses) {
  for (size_t i = 0; i < addresses.size(); ++i) {
    for (size_t k = 0; k < i; ++k) {
      if (addresses[k].family == addresses[i].family && addresses[k] != addresses[i]) return i;
    }
  }
  return addresses.size();
}

// With a slot count that is not prime, Maglev's permutations would be incomplete.
void check_l4(Checks& checks, size_t n) {
  const L4Node& l4 = checks.model().nodes[n].l4;
  if (checks.sound({"nodes", n, "l4", "maglev_slots"}) && !is_prime(l4.maglev_slots)) {
    checks.refuse({"nodes", n, "l4", "maglev_slots"},
                  {"not_prime", fmt::format("maglev_slots is {}", l4.maglev_slots), "a prime",
                   fmt::format("the next one is {}", next_prime(l4.maglev_slots))});
  }
  for (size_t p = 0; p < l4.ports.size(); ++p) {
    if (!checks.sound({"nodes", n, "l4", "ports", p, "gateways"})) continue;
    const std::vector<IpAddress>& gateways = l4.ports[p].gateways;
    const size_t second = repeated_family(gateways);
    if (second == gateways.size()) continue;
    checks.refuse({"nodes", n, "l4", "ports", p, "gateways", second},
                  {"too_many_addresses",
                   fmt::format("a second {} gateway", family_name(gateways[second])),
                   "at most one a family",
                   {}});
  }
}

void check_vips_overlap(Checks& checks) {
  std::map<IpAddress, std::pair<size_t, size_t>> holders;
  const std::vector<Vip>& vips = checks.model().vips;
  for (size_t v = 0; v < vips.size(); ++v) {
    for (size_t a = 0; a < vips[v].addresses.size(); ++a) {
      if (!checks.sound({"vips", v, "addresses", a})) continue;
      const auto [first, added] = holders.emplace(vips[v].addresses[a], std::pair(v, a));
      const auto [holder, position] = first->second;
      if (added || holder == v) continue;
      checks.refuse({"vips", v, "addresses", a},
                    {"overlapping_vips",
                     fmt::format("address {} stands in two VIPs", first->first.to_string()),
                     {},
                     fmt::format("vip '{}' holds it{}", vips[holder].name,
                                 checks.line_of({"vips", holder, "addresses", position}))});
    }
  }
}

void check_services_collide(Checks& checks) {
  std::map<std::tuple<uint32_t, uint16_t, Protocol>, size_t> taken;
  const std::vector<Service>& services = checks.model().services;
  for (size_t s = 0; s < services.size(); ++s) {
    const Service& service = services[s];
    const bool known = checks.sound({"services", s, "vip"}) && checks.sound({"services", s, "port"}) &&
                       checks.sound({"services", s, "protocol"}) && service.vip != kNone && service.port != 0;
    if (!known) continue;
    const auto [first, added] = taken.emplace(std::tuple(service.vip, service.port, service.protocol), s);
    if (added) continue;
    checks.refuse({"services", s, "port"}, {"colliding_services",
                                            fmt::format("{} port {} of vip '{}' is taken twice",
                                                        service.protocol == Protocol::tcp ? "tcp" : "udp", service.port,
                                                        checks.model().vips[service.vip].name),
                                            {},
                                            fmt::format("service '{}' has it{}", services[first->second].name,
                                                        checks.line_of({"services", first->second}))});
  }
}

// For each pool, the first route that sends requests to it, or kNone.
std::vector<uint32_t> routes_of_pools(const Model& model) {
  std::vector<uint32_t> routes(model.pools.size(), kNone);
  for (uint32_t r = 0; r < model.routes.size(); ++r) {
    const uint32_t pool = model.routes[r].pool;
    if (pool != kNone && routes[pool] == kNone) routes[pool] = r;
  }
  return routes;
}

void check_backend(Checks& checks, size_t p, size_t b, uint32_t route) {
  const Pool& pool = checks.model().pools[p];
  const Backend& backend = pool.backends[b];
  if (checks.sound({"pools", p, "backends", b, "addresses"})) {
    const size_t second = repeated_family(backend.addresses);
    if (second < backend.addresses.size()) {
      checks.refuse({"pools", p, "backends", b, "addresses", second},
                    {"too_many_addresses",
                     fmt::format("a second {} address of one backend", family_name(backend.addresses[second])),
                     "at most one a family", "list it as a backend of its own"});
    }
  }
  // A misspelt `port` was already reported as a fault of the backend.
  if (backend.port != 0 || !checks.sound({"pools", p, "backends", b})) return;
  if (route != kNone) {
    checks.refuse({"pools", p, "backends", b, "port"},
                  {"missing_port", fmt::format("backend '{}' has no port", backend.name), "1 to 65535",
                   fmt::format("route '{}' sends requests to its pool", checks.model().routes[route].name)});
  } else if (pool.probe != kNone && checks.model().probes[pool.probe].port == 0 &&
             checks.sound({"probes", pool.probe})) {
    checks.refuse({"pools", p, "backends", b, "port"},
                  {"missing_port",
                   fmt::format("backend '{}' has no port and its probe names none", backend.name),
                   {},
                   fmt::format("give probe '{}' a port{}", checks.model().probes[pool.probe].name,
                               checks.line_of({"probes", pool.probe}))});
  }
}

void check_hash_on(Checks& checks, size_t p) {
  const std::string_view hash_on = checks.model().pools[p].hash_on;
  if (!checks.sound({"pools", p, "hash_on"}) || hash_on == "client" || hash_on == "path") return;
  if (hash_on.substr(0, kHeaderPrefix.size()) == kHeaderPrefix && hash_on.size() > kHeaderPrefix.size() &&
      hash_on.find_first_of(" \t:", kHeaderPrefix.size()) == std::string_view::npos) {
    return;
  }
  checks.refuse({"pools", p, "hash_on"}, {"no_such_choice", fmt::format("hash_on is {}", in_quotes(hash_on)),
                                          "client, path or header:<name>", did_you_mean(hash_on, {"client", "path"})});
}

}  // namespace

void check_nodes(Checks& checks) {
  for (size_t n = 0; n < checks.model().nodes.size() && !checks.full(); ++n) check_l4(checks, n);
}

void check_traffic(Checks& checks) {
  check_vips_overlap(checks);
  check_services_collide(checks);
  const std::vector<uint32_t> routes = routes_of_pools(checks.model());
  for (size_t p = 0; p < checks.model().pools.size() && !checks.full(); ++p) {
    check_hash_on(checks, p);
    for (size_t b = 0; b < checks.model().pools[p].backends.size(); ++b) check_backend(checks, p, b, routes[p]);
  }
}

}  // namespace tidegate
