// SPDX-License-Identifier: Apache-2.0
// Cross checks of nodes, VIPs, services and pools.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "conf/checks.h"
#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/probe.h"
#include "conf/model/route.h"
#include "conf/model/service.h"
#include "conf/model/site.h"
#include "conf/model/steer.h"
#include "conf/names.h"
#include "core/http1.h"

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

// The position of the first address whose family occurred before, or the size of the list.
size_t repeated_family(const std::vector<IpAddress>& addresses) {
  for (size_t i = 0; i < addresses.size(); ++i) {
    for (size_t k = 0; k < i; ++k) {
      if (addresses[k].family == addresses[i].family && addresses[k] != addresses[i]) return i;
    }
  }
  return addresses.size();
}

// The kernel decides the MTU of a kernel interface. IPv6 needs 1,280 (RFC 8200 §5).
void check_port_mtu(Checks& checks, size_t n, size_t p) {
  constexpr uint16_t kLeastMtu = 1'280;
  const L4Port& port = checks.model().nodes[n].l4.ports[p];
  if (port.mtu == 0 || !port.shares.empty() || !checks.sound({"nodes", n, "l4", "ports", p})) return;
  const auto refuse = [&](Complaint complaint) {
    checks.refuse({"nodes", n, "l4", "ports", p, "mtu"}, std::move(complaint));
  };
  // The name of an interface has no colon, and a PCI address has one.
  const std::string& device = port.members.empty() ? port.device : port.members.front();
  const bool by_kernel = port.driver == "af_xdp" || port.driver == "af_packet" ||
                         (port.driver == "auto" && device.find(':') == std::string::npos);
  if (by_kernel) {
    return refuse({"without_effect",
                   fmt::format("{} is an interface of the kernel, which has an MTU", device),
                   {},
                   fmt::format("ip link set {} mtu {}", device, port.mtu)});
  }
  if (port.mtu < kLeastMtu) {
    refuse({"out_of_range", fmt::format("mtu is {}", port.mtu), fmt::format("0, or {} to 9600", kLeastMtu), {}});
  }
}

// Checks a port that is a further VLAN of another port's device. Its tags must differ from those of all ports on the
// device.
void check_shared_device(Checks& checks, size_t n, size_t p) {
  const std::vector<L4Port>& ports = checks.model().nodes[n].l4.ports;
  const L4Port& port = ports[p];
  if (port.shares.empty() || !checks.sound({"nodes", n, "l4", "ports", p})) return;
  const auto refuse = [&](const char* key, Complaint complaint) {
    checks.refuse({"nodes", n, "l4", "ports", p, key}, std::move(complaint));
  };
  const auto end = ports.begin() + static_cast<std::ptrdiff_t>(p);
  const auto holder =
      std::find_if(ports.begin(), end, [&](const L4Port& other) { return other.device == port.shares; });
  if (holder == end || !holder->shares.empty()) {
    return refuse("shares", {"unknown_port",
                             fmt::format("no port before this one opens the device {}", in_quotes(port.shares)),
                             "the device of a port before it, which has no `shares` itself",
                             {}});
  }
  if (port.driver != "auto" || port.mtu != 0 || !port.members.empty()) {
    const char* key = port.mtu != 0 ? "mtu" : port.driver != "auto" ? "driver" : "members";
    return refuse(key, {"without_effect", fmt::format("{} is that of {}", key, port.shares), {}, {}});
  }
  for (auto other = ports.begin(); other != end; ++other) {
    const bool same_device = other == holder || other->shares == port.shares;
    if (!same_device || other->vlan != port.vlan || other->outer_vlan != port.outer_vlan) continue;
    return refuse("vlan", {"repeated_vlan",
                           fmt::format("{} has the same tags on {}", in_quotes(other->device), port.shares),
                           "tags that no other port of the device has",
                           {}});
  }
}

// A device belongs to one port, and a bond's members are of one kind.
void check_bond(Checks& checks, size_t n, size_t p) {
  const std::vector<L4Port>& ports = checks.model().nodes[n].l4.ports;
  const L4Port& port = ports[p];
  if (!checks.sound({"nodes", n, "l4", "ports", p})) return;
  if (port.members.empty()) {
    if (!checks.written({"nodes", n, "l4", "ports", p, "bond"})) return;
    return checks.refuse({"nodes", n, "l4", "ports", p, "bond"},
                         {"without_effect", fmt::format("{} has no members", in_quotes(port.device)), "members", {}});
  }
  if (port.bond != "lacp" && port.driver == "af_xdp") {
    checks.refuse({"nodes", n, "l4", "ports", p, "driver"},
                  {"unsuitable_driver",
                   "without LACP, members change their MAC address, and AF_XDP has no way to set it",
                   "auto or af_packet, or `bond: lacp`",
                   {}});
  }
  const auto is_pci = [](const std::string& device) { return device.find(':') != std::string::npos; };
  const auto taken = [&](const L4Port& other, size_t members) {
    return [&other, members](const std::string& device) {
      const auto end = other.members.begin() + static_cast<std::ptrdiff_t>(members);
      return (other.members.empty() && other.shares.empty() && other.device == device) ||
             std::find(other.members.begin(), end, device) != end;
    };
  };
  for (size_t m = 0; m < port.members.size(); ++m) {
    const std::string& member = port.members[m];
    bool repeated = taken(port, m)(member);
    for (size_t other = 0; other < ports.size(); ++other) {
      repeated = repeated || (other != p && taken(ports[other], other < p ? ports[other].members.size() : 0)(member));
    }
    if (repeated) {
      checks.refuse({"nodes", n, "l4", "ports", p, "members", m}, {"repeated_device",
                                                                   fmt::format("{} is named twice", in_quotes(member)),
                                                                   "devices that no other port has",
                                                                   {}});
    }
    if (port.driver == "auto" && is_pci(member) != is_pci(port.members.front())) {
      checks.refuse(
          {"nodes", n, "l4", "ports", p, "members", m},
          {"mixed_devices", "NICs of DPDK and interfaces of the kernel in one bond", "devices of one kind", {}});
    }
  }
}

// With a slot count that is not prime, Maglev's permutations would be incomplete.
void check_l4(Checks& checks, size_t n) {
  const L4Node& l4 = checks.model().nodes[n].l4;
  if (checks.sound({"nodes", n, "l4", "maglev_slots"}) && !is_prime(l4.maglev_slots)) {
    checks.refuse({"nodes", n, "l4", "maglev_slots"},
                  {"not_prime", fmt::format("maglev_slots is {}", l4.maglev_slots), "a prime",
                   fmt::format("the next one is {}", next_prime(l4.maglev_slots))});
  }
  for (size_t i = 1; i < l4.tunnel_sources.size(); ++i) {
    if (l4.tunnel_sources[i].base.family != l4.tunnel_sources[0].base.family && i == 1) continue;
    checks.refuse({"nodes", n, "l4", "tunnel_sources", i},
                  {"too_many_addresses",
                   fmt::format("a second {} prefix", family_name(l4.tunnel_sources[i].base)),
                   "at most one a family",
                   {}});
  }
  for (size_t p = 0; p < l4.ports.size(); ++p) {
    if (l4.ports[p].outer_vlan != 0 && l4.ports[p].vlan == 0 && checks.sound({"nodes", n, "l4", "ports", p})) {
      checks.refuse({"nodes", n, "l4", "ports", p, "outer_vlan"},
                    {"missing_vlan", "an outer tag stands before another one", "outer_vlan together with vlan", {}});
    }
    check_port_mtu(checks, n, p);
    check_shared_device(checks, n, p);
    check_bond(checks, n, p);
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

// The other forwarders of the site send to the address, from their own addresses of the same family.
void check_shared_flows(Checks& checks, size_t n) {
  const Elements<Node>& nodes = checks.model().nodes;
  const std::optional<Endpoint>& own = nodes[n].l4.share_flows;
  if (!own || !checks.sound({"nodes", n, "l4", "share_flows"}) || !checks.sound({"nodes", n, "site"})) return;
  const auto refuse = [&](Complaint complaint) {
    checks.refuse({"nodes", n, "l4", "share_flows"}, std::move(complaint));
  };
  if (nodes[n].site == kNone) {
    return refuse({"missing_site",
                   fmt::format("node '{}' shares flows and has no site", nodes[n].name),
                   "a site, whose forwarders share flows",
                   {}});
  }
  if (own->address == IpAddress{own->address.family}) {
    return refuse({"no_such_address", "other forwarders cannot send to an unspecified address", "an address", {}});
  }
  for (size_t other = 0; other < n; ++other) {
    const std::optional<Endpoint>& theirs = nodes[other].l4.share_flows;
    if (nodes[other].site != nodes[n].site || !theirs) continue;
    const std::string line = checks.line_of({"nodes", other, "l4", "share_flows"});
    const std::string hint = fmt::format("node '{}' has {}{}", nodes[other].name, theirs->to_string(), line);
    if (theirs->address.family != own->address.family) {
      return refuse({"mixed_families", "the forwarders of a site share flows over one family",
                     fmt::format("an {} address", family_name(theirs->address)), hint});
    }
    if (*theirs == *own) {
      return refuse(
          {"duplicate_address", fmt::format("two nodes of the site share flows at {}", own->to_string()), {}, hint});
    }
  }
}

void check_vips_overlap(Checks& checks) {
  std::map<IpAddress, std::pair<size_t, size_t>> holders;
  const Elements<Vip>& vips = checks.model().vips;
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

const char* protocol_name(Protocol protocol) { return protocol == Protocol::tcp ? "tcp" : "udp"; }

// Two ranges must not share a port. A single port may lie within a range, because it has precedence.
void check_ranges_collide(Checks& checks) {
  std::map<std::tuple<uint32_t, Protocol>, std::map<uint16_t, size_t>> ranges;  // by first port
  const Elements<Service>& services = checks.model().services;
  for (size_t s = 0; s < services.size() && !checks.full(); ++s) {
    const Service& service = services[s];
    if (!checks.sound({"services", s}) || service.vip == kNone || service.last_port == 0) continue;
    if (service.last_port <= service.port) {
      checks.refuse({"services", s, "last_port"},
                    {"empty_range",
                     fmt::format("the range from {} to {} has no second port", service.port, service.last_port),
                     fmt::format("{} to 65535", service.port + 1),
                     {}});
      continue;
    }
    std::map<uint16_t, size_t>& others = ranges[{service.vip, service.protocol}];
    auto after = others.upper_bound(service.last_port);
    if (after != others.begin()) {
      const size_t other = std::prev(after)->second;
      if (services[other].last_port >= service.port) {
        checks.refuse(
            {"services", s, "port"},
            {"colliding_services",
             fmt::format("{} port {} of vip '{}' is in two ranges", protocol_name(service.protocol),
                         std::max(service.port, services[other].port), checks.model().vips[service.vip].name),
             {},
             fmt::format("service '{}' has it{}", services[other].name, checks.line_of({"services", other}))});
        continue;
      }
    }
    others.emplace(service.port, s);
  }
}

// The smallest path MTU with which the largest outer header leaves room for IPv6 (RFC 8200 §5: 1,280 bytes).
constexpr uint16_t kLeastTunnelMtu = 1'280 + 70;

// A flow and its backend know their pool, but not their service. So all services of a pool must forward in the same
// way.
void check_tunnels(Checks& checks) {
  const Model& model = checks.model();
  std::map<uint32_t, size_t> first_of_pool;
  for (size_t s = 0; s < model.services.size() && !checks.full(); ++s) {
    const Service& service = model.services[s];
    if (!checks.sound({"services", s}) || service.pool == kNone) continue;
    if (service.forwarding == Forwarding::vxlan && service.vni == 0) {
      checks.refuse({"services", s, "vni"}, {"missing_vni", "vxlan needs a network identifier", "1 to 16777215", {}});
    }
    const auto [first, added] = first_of_pool.emplace(service.pool, s);
    const Service& other = model.services[first->second];
    if (added || (other.forwarding == service.forwarding && other.vni == service.vni &&
                  other.tunnel_port == service.tunnel_port)) {
      continue;
    }
    checks.refuse({"services", s, "forwarding"},
                  {"mixed_forwarding",
                   fmt::format("pool '{}' is used with another way of forwarding", model.pools[service.pool].name),
                   "the same forwarding, vni and tunnel_port for all services of a pool",
                   fmt::format("service '{}' differs{}; give this one a pool of its own", other.name,
                               checks.line_of({"services", first->second}))});
  }
  for (const auto& [p, s] : first_of_pool) {
    if (model.services[s].forwarding == Forwarding::l2dsr) continue;
    for (size_t b = 0; b < model.pools[p].backends.size() && !checks.full(); ++b) {
      const uint16_t mtu = model.pools[p].backends[b].mtu;
      if (mtu == 0 || mtu >= kLeastTunnelMtu) continue;
      checks.refuse({"pools", p, "backends", b, "mtu"},
                    {"out_of_range", fmt::format("an MTU of {} leaves no room for IPv6 in a tunnel", mtu),
                     fmt::format("{} to 65535", kLeastTunnelMtu), "RFC 8200 section 5: IPv6 needs 1280 bytes"});
    }
  }
}

void check_services_collide(Checks& checks) {
  std::map<std::tuple<uint32_t, uint16_t, Protocol>, size_t> taken;
  const Elements<Service>& services = checks.model().services;
  for (size_t s = 0; s < services.size(); ++s) {
    const Service& service = services[s];
    const bool known = checks.sound({"services", s, "vip"}) && checks.sound({"services", s, "port"}) &&
                       checks.sound({"services", s, "protocol"}) && service.vip != kNone && service.port != 0;
    if (!known || service.last_port != 0) continue;
    const auto [first, added] = taken.emplace(std::tuple(service.vip, service.port, service.protocol), s);
    if (added) continue;
    checks.refuse({"services", s, "port"},
                  {"colliding_services",
                   fmt::format("{} port {} of vip '{}' is taken twice", protocol_name(service.protocol), service.port,
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
    const uint32_t pool = model.routes[r].pool();
    if (pool != kNone && routes[pool] == kNone) routes[pool] = r;
  }
  return routes;
}

bool has_a_lookup(const Backend& backend) { return !backend.host.empty() || !backend.srv.empty(); }
bool is_socket(const Backend& backend) { return !backend.socket.empty(); }

// There must be exactly one way to reach it, and no key of another way.
void check_reach(Checks& checks, size_t p, size_t b) {
  const Backend& backend = checks.model().pools[p].backends[b];
  if (!checks.sound({"pools", p, "backends", b})) return;
  const int ways = (backend.addresses.empty() ? 0 : 1) + (backend.host.empty() ? 0 : 1) +
                   (backend.srv.empty() ? 0 : 1) + (backend.socket.empty() ? 0 : 1);
  if (ways != 1) {
    checks.refuse(
        {"pools", p, "backends", b},
        {"exactly_one",
         fmt::format("backend '{}' {}", backend.name, ways == 0 ? "does not say where it is" : "is in several places"),
         "one of addresses, host, srv and socket",
         {}});
    return;
  }
  if (!backend.socket.empty() && backend.socket.front() != '/') {
    checks.refuse({"pools", p, "backends", b, "socket"},
                  {"bad_value", fmt::format("socket is {}", in_quotes(backend.socket)), "an absolute path", {}});
  }
  const bool has_no_port = !backend.srv.empty() || !backend.socket.empty();
  if (has_no_port && backend.port != 0) {
    checks.refuse(
        {"pools", p, "backends", b, "port"},
        {"without_effect", backend.srv.empty() ? "a unix socket has no port" : "an SRV record names the port", {}, {}});
  }
}

// Refuses every other use of a pool with a unix socket, at the key of that use.
void refuse_users_of_socket(Checks& checks, size_t p, const Backend& socket) {
  const Model& model = checks.model();
  const Pool& pool = model.pools[p];
  const auto refuse = [&](Way way, std::string_view who) {
    checks.refuse(way, {"no_address",
                        fmt::format("{} backend '{}' of pool '{}', which has no address", who, socket.name, pool.name),
                        "a pool whose backends have addresses or names",
                        "a unix socket is the proxy's alone; what fails there is for eject_after and breaker"});
  };
  if (pool.probe != kNone) {
    refuse({"pools", p, "probe"}, fmt::format("probe '{}' cannot check", model.probes[pool.probe].name));
  }
  for (size_t s = 0; s < model.services.size(); ++s) {
    if (model.services[s].pool != p) continue;
    refuse({"services", s, "pool"}, fmt::format("service '{}' cannot forward to", model.services[s].name));
  }
  for (size_t s = 0; s < model.steers.size(); ++s) {
    const Steer& steer = model.steers[s];
    for (size_t t = 0; t < steer.targets.size(); ++t) {
      if (steer.targets[t].pool() != p) continue;
      refuse({"steers", s, "targets", t, "pool"}, fmt::format("steer '{}' cannot lead to", steer.name));
    }
  }
}

// A backend that only the proxy can reach is not usable for the forwarder, for DNS or for probes.
void check_reach_of_pool(Checks& checks, size_t p) {
  const Pool& pool = checks.model().pools[p];
  if (!checks.sound({"pools", p})) return;
  const auto named = std::find_if(pool.backends.begin(), pool.backends.end(), has_a_lookup);
  const auto socket = std::find_if(pool.backends.begin(), pool.backends.end(), is_socket);
  if (socket != pool.backends.end()) refuse_users_of_socket(checks, p, *socket);
  if (named == pool.backends.end()) {
    for (const char* key : {"lookup_min", "lookup_max"}) {
      if (!checks.written({"pools", p, key})) continue;
      checks.refuse({"pools", p, key}, {"without_effect", fmt::format("{} where no backend has a name", key), {}, {}});
    }
  } else if (pool.lookup_min_ms > pool.lookup_max_ms) {
    checks.refuse({"pools", p, "lookup_min"}, {"out_of_range", "lookup_min is longer than lookup_max", {}, {}});
  }
}

// RFC 9110 §7.8: a token, possibly with a version.
bool is_protocol(std::string_view text) {
  const size_t slash = std::min(text.find('/'), text.size());
  const bool versioned = slash < text.size();
  return http1::is_token(text.substr(0, slash)) && (!versioned || http1::is_token(text.substr(slash + 1)));
}

// True for HTTP, in any version. A tunnel must not carry it: its requests would pass without a route and without
// policies.
bool is_http(std::string_view protocol) {
  const std::string_view token = protocol.substr(0, protocol.find('/'));
  return http1::equals_ignore_case(token, "http") || http1::equals_ignore_case(token, "h2c") ||
         http1::equals_ignore_case(token, "h2");
}

void check_upgrades(Checks& checks, size_t p) {
  const Pool& pool = checks.model().pools[p];
  for (size_t u = 0; u < pool.upgrades.size(); ++u) {
    if (!is_protocol(pool.upgrades[u])) {
      checks.refuse({"pools", p, "upgrades", u},
                    {"bad_value", "this names no protocol", "a token, maybe with a version: name or name/1.0", {}});
    } else if (is_http(pool.upgrades[u])) {
      checks.refuse({"pools", p, "upgrades", u}, {"bad_value", "HTTP in a tunnel would pass by routes and policies",
                                                  "another protocol", "protocol: h2 speaks HTTP/2 to the backends"});
    }
  }
}

void check_connecting(Checks& checks, size_t p) {
  const Pool& pool = checks.model().pools[p];
  check_upgrades(checks, p);
  if (pool.tls_certificate != kNone && !pool.tls) {
    checks.refuse({"pools", p, "tls_certificate"},
                  {"without_effect", "tls_certificate in a pool that does not speak TLS", {}, "add tls: true"});
  }
  const size_t second = repeated_family(pool.local_addresses);
  if (second == pool.local_addresses.size() || !checks.sound({"pools", p, "local_addresses"})) return;
  checks.refuse({"pools", p, "local_addresses", second},
                {"too_many_addresses",
                 fmt::format("a second {} address", family_name(pool.local_addresses[second])),
                 "at most one a family",
                 {}});
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
  if (!backend.srv.empty() || !backend.socket.empty()) return;
  // A misspelt `port` was already reported as a fault of the backend.
  if (backend.port != 0 || !checks.sound({"pools", p, "backends", b})) return;
  if (route != kNone) {
    checks.refuse({"pools", p, "backends", b, "port"},
                  {"missing_port", fmt::format("backend '{}' has no port", backend.name), "1 to 65535",
                   fmt::format("route '{}' sends requests to its pool", checks.model().routes[route].name)});
  } else if (pool.probe != kNone && checks.model().probes[pool.probe].port == 0 &&
             !checks.model().probes[pool.probe].via_vip && checks.sound({"probes", pool.probe})) {
    checks.refuse({"pools", p, "backends", b, "port"},
                  {"missing_port",
                   fmt::format("backend '{}' has no port and its probe names none", backend.name),
                   {},
                   fmt::format("give probe '{}' a port{}", checks.model().probes[pool.probe].name,
                               checks.line_of({"probes", pool.probe}))});
  }
}

// Refuses keys without effect, and a breaker that never opens.
void check_protection(Checks& checks, size_t p) {
  const Pool& pool = checks.model().pools[p];
  if (!checks.sound({"pools", p})) return;
  const PoolBreaker& breaker = pool.breaker;
  const bool slow_counts = breaker.slow_ms > 0 && breaker.slow_rate > 0;
  if (breaker.enabled && breaker.error_rate <= 0 && !slow_counts && breaker.consecutive_failures == 0) {
    checks.refuse({"pools", p, "breaker"},
                  {"without_effect", "this breaker never opens", "error_rate, slow or consecutive_failures", {}});
  }
  if (checks.written({"pools", p, "breaker", "slow_rate"}) && breaker.slow_ms == 0) {
    checks.refuse({"pools", p, "breaker", "slow_rate"},
                  {"without_effect", "slow_rate without slow: no answer is slow", "slow: a duration", {}});
  }
  if (checks.written({"pools", p, "sticky"}) && pool.sticky.by == StickyBy::none &&
      !checks.written({"pools", p, "sticky", "by"})) {
    checks.refuse({"pools", p, "sticky"}, {"without_effect", "sticky without by", "cookie or header", {}});
  }
  const auto is_backup = [](const Backend& backend) { return backend.backup; };
  if (!pool.backends.empty() && std::all_of(pool.backends.begin(), pool.backends.end(), is_backup)) {
    checks.refuse({"pools", p, "backends"}, {"without_effect",
                                             fmt::format("every backend of pool '{}' is a backup", pool.name),
                                             "at least one that is not",
                                             {}});
  }
  const bool sited = std::any_of(pool.backends.begin(), pool.backends.end(),
                                 [](const Backend& backend) { return backend.site != kNone; });
  if (pool.prefer_site && !sited) {
    checks.refuse({"pools", p, "prefer_site"},
                  {"without_effect", "prefer_site where no backend has a site", "backends with a site", {}});
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
  for (size_t n = 0; n < checks.model().nodes.size() && !checks.full(); ++n) {
    check_l4(checks, n);
    check_shared_flows(checks, n);
  }
}

void check_traffic(Checks& checks) {
  check_vips_overlap(checks);
  check_services_collide(checks);
  check_ranges_collide(checks);
  check_tunnels(checks);
  const std::vector<uint32_t> routes = routes_of_pools(checks.model());
  for (size_t p = 0; p < checks.model().pools.size() && !checks.full(); ++p) {
    check_hash_on(checks, p);
    check_protection(checks, p);
    check_connecting(checks, p);
    check_reach_of_pool(checks, p);
    for (size_t b = 0; b < checks.model().pools[p].backends.size(); ++b) {
      check_reach(checks, p, b);
      check_backend(checks, p, b, routes[p]);
    }
  }
}

}  // namespace tidegate
