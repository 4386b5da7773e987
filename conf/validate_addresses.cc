// SPDX-License-Identifier: Apache-2.0
// Cross checks of addresses to, from or through which packets are forwarded: addresses that no host on a network can
// have, and addresses that contradict each other.
#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "conf/checks.h"
#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/service.h"
#include "conf/model/site.h"

namespace tidegate {
namespace {

// The kind of an address at which no host on a network answers, or null. RFC 1122 §3.2.1.3, RFC 4291 §2.5 and §2.7.
const char* kind_without_host(const IpAddress& address) {
  const std::array<uint8_t, 16>& bytes = address.bytes;
  if (address.is_v4()) {
    if (bytes[0] == 0) return "an unspecified address";
    if (bytes[0] == 127) return "a loopback address";
    if (bytes[0] >= 240) return "a reserved address";
    return bytes[0] >= 224 ? "a multicast address" : nullptr;
  }
  if (bytes[0] == 0xff) return "a multicast address";
  if (address.unmapped().is_v4()) return "an IPv4 address in the form of IPv6, which is on no wire";
  const bool zeros = std::all_of(bytes.begin(), bytes.end() - 1, [](uint8_t byte) { return byte == 0; });
  if (zeros && bytes[15] == 0) return "an unspecified address";
  return zeros && bytes[15] == 1 ? "a loopback address" : nullptr;
}

using Networks = std::vector<std::pair<IpAddress, uint8_t>>;  // addresses of ports with their prefix lengths

// True for the first and last address of these IPv4 networks: no host has them (RFC 1122 §3.2.1.3). In a network of two
// addresses, both belong to hosts (RFC 3021).
bool is_of_network(const IpAddress& address, const Networks& networks) {
  if (!address.is_v4()) return false;
  return std::any_of(networks.begin(), networks.end(), [&](const auto& own) {
    const auto& [base, prefix] = own;
    if (!base.is_v4() || prefix == 0 || prefix > 30 || !Cidr::of(base, prefix).contains(address)) return false;
    const uint32_t host_bits = ntohl(address.v4_be()) & (UINT32_MAX >> prefix);
    return host_bits == 0 || host_bits == UINT32_MAX >> prefix;
  });
}

void check_not_of_network(Checks& checks, Way way, const IpAddress& address, const Networks& networks) {
  if (!is_of_network(address, networks)) return;
  checks.refuse(way, {"impossible_address",
                      fmt::format("{} is the network's own address or its broadcast address", address.to_string()),
                      "an address that a host on the network can have",
                      {}});
}

// Refuses an address that no host can have. Returns false if the address is refused, here or earlier.
bool check_host(Checks& checks, Way way, const IpAddress& address) {
  if (!checks.sound(way)) return false;
  const char* kind = kind_without_host(address);
  if (kind == nullptr) return true;
  checks.refuse(way, {"impossible_address",
                      fmt::format("{} is {}", address.to_string(), kind),
                      "an address that a host on the network can have",
                      {}});
  return false;
}

bool is_link_local(const IpAddress& address) {
  return address.is_v6() && address.bytes[0] == 0xfe && (address.bytes[1] & 0xc0) == 0x80;
}

bool has_family(const std::vector<IpAddress>& addresses, IpAddress::Family family) {
  return std::any_of(addresses.begin(), addresses.end(), [&](const IpAddress& a) { return a.family == family; });
}

// Sites may use the same private addresses.
bool are_one_site(uint32_t a, uint32_t b) { return a == b || a == kNone || b == kNone; }

std::set<IpAddress> vips_at(const Model& model, uint32_t site) {
  std::set<IpAddress> out;
  for (const Vip& vip : model.vips) {
    if (are_one_site(vip.site, site)) out.insert(vip.addresses.begin(), vip.addresses.end());
  }
  return out;
}

// The port asks for the gateway from an address of its own, so the gateway must be a different host, on the port's own
// network. A port whose address has no network around it (/32, /128) may have its gateway anywhere.
void check_gateway(Checks& checks, size_t n, size_t p, size_t g, const std::set<IpAddress>& vips) {
  const L4Port& port = checks.model().nodes[n].l4.ports[p];
  const IpAddress& gateway = port.gateways[g];
  const Way way{"nodes", n, "l4", "ports", p, "gateways", g};
  if (!check_host(checks, way, gateway) || !checks.sound({"nodes", n, "l4", "ports", p, "addresses"})) return;
  const auto same_family = [&](const auto& own) { return own.first.family == gateway.family; };
  const auto same = [&](const auto& own) { return own.first == gateway; };
  if (std::none_of(port.addresses.begin(), port.addresses.end(), same_family)) {
    checks.refuse(
        way, {"other_family",
              fmt::format("an {} gateway of a port without an {} address", family_name(gateway), family_name(gateway)),
              "a gateway of a family in which the port has an address",
              {}});
  } else if (std::any_of(port.addresses.begin(), port.addresses.end(), same)) {
    checks.refuse(way, {"impossible_address",
                        fmt::format("gateway {} is the port's own address", gateway.to_string()),
                        "a router's address",
                        {}});
  } else if (vips.contains(gateway)) {
    checks.refuse(way, {"impossible_address",
                        fmt::format("gateway {} is a VIP, which the forwarder itself holds", gateway.to_string()),
                        "a router's address",
                        {}});
  } else if (std::none_of(port.addresses.begin(), port.addresses.end(),
                          [&](const auto& own) {
                            const auto& [address, prefix] = own;
                            return same_family(own) &&
                                   (prefix == address.max_prefix() || Cidr::of(address, prefix).contains(gateway));
                          }) &&
             !is_link_local(gateway)) {
    checks.refuse(way, {"impossible_address",
                        fmt::format("gateway {} is in no network of this port", gateway.to_string()),
                        "a router's address in the network of one of the port's addresses",
                        {}});
  } else {
    check_not_of_network(checks, way, gateway, port.addresses);
  }
}

void check_ports(Checks& checks, size_t n) {
  const std::set<IpAddress> vips = vips_at(checks.model(), checks.model().nodes[n].site);
  const std::vector<L4Port>& ports = checks.model().nodes[n].l4.ports;
  for (size_t p = 0; p < ports.size(); ++p) {
    for (size_t a = 0; a < ports[p].addresses.size(); ++a) {
      const IpAddress& address = ports[p].addresses[a].first;
      const Way way{"nodes", n, "l4", "ports", p, "addresses", a};
      if (!check_host(checks, way, address)) continue;
      check_not_of_network(checks, way, address, ports[p].addresses);
      if (!vips.contains(address)) continue;
      checks.refuse(way, {"impossible_address",
                          fmt::format("{} is a VIP, and the port needs an address of its own", address.to_string()),
                          "the port's own address",
                          {}});
    }
    for (size_t g = 0; g < ports[p].gateways.size(); ++g) check_gateway(checks, n, p, g, vips);
  }
}

// The networks of the forwarders of a site.
Networks networks_at(const Model& model, uint32_t site) {
  Networks networks;
  for (const Node& node : model.nodes) {
    if (!are_one_site(node.site, site)) continue;
    for (const L4Port& port : node.l4.ports) {
      networks.insert(networks.end(), port.addresses.begin(), port.addresses.end());
    }
  }
  return networks;
}

// A backend that gets unchanged packets needs its own address besides the VIP, which all backends hold.
void check_backends_of_services(Checks& checks, size_t p, const std::set<IpAddress>& vips, const Networks& own) {
  const Pool& pool = checks.model().pools[p];
  for (size_t b = 0; b < pool.backends.size(); ++b) {
    for (size_t a = 0; a < pool.backends[b].addresses.size(); ++a) {
      const Way way{"pools", p, "backends", b, "addresses", a};
      const IpAddress& address = pool.backends[b].addresses[a];
      if (!check_host(checks, way, address)) continue;
      check_not_of_network(checks, way, address, own);
      if (std::any_of(own.begin(), own.end(), [&](const auto& port) { return port.first == address; })) {
        checks.refuse(way, {"impossible_address",
                            fmt::format("backend '{}' has the address of a forwarder's port, {}", pool.backends[b].name,
                                        address.to_string()),
                            "an address of another host", "a forwarder sends nothing to itself"});
      }
      if (!vips.contains(address)) continue;
      checks.refuse(
          way, {"impossible_address",
                fmt::format("backend '{}' has the address of a VIP, {}", pool.backends[b].name, address.to_string()),
                "the backend's own address", "it holds the VIP besides, and answers from it"});
    }
  }
}

void check_families(Checks& checks, size_t s) {
  const Service& service = checks.model().services[s];
  if (service.vip == kNone || service.pool == kNone) return;
  const Vip& vip = checks.model().vips[service.vip];
  const Pool& pool = checks.model().pools[service.pool];
  if (!checks.sound({"vips", service.vip}) || !checks.sound({"pools", service.pool})) return;
  if (vip.addresses.empty() || pool.backends.empty()) return;
  if (service.forwarding != Forwarding::l2dsr) return;  // a tunnel may have the other family
  for (const IpAddress& address : vip.addresses) {
    for (const Backend& backend : pool.backends) {
      const bool named = !backend.host.empty() || !backend.srv.empty();  // its addresses are not known here
      if (named || has_family(backend.addresses, address.family)) return;
    }
  }
  checks.refuse({"services", s, "pool"},
                {"other_family",
                 fmt::format("no backend of pool '{}' has an address of a family of vip '{}'", pool.name, vip.name),
                 {},
                 fmt::format("give a backend an {} address", family_name(vip.addresses.front()))});
}

}  // namespace

void check_addresses(Checks& checks) {
  const Model& model = checks.model();
  std::set<IpAddress> vips;
  std::set<std::pair<uint32_t, uint32_t>> served;  // pool and site
  for (size_t v = 0; v < model.vips.size() && !checks.full(); ++v) {
    for (size_t a = 0; a < model.vips[v].addresses.size(); ++a) {
      const IpAddress& address = model.vips[v].addresses[a];
      vips.insert(address);
      const Way way{"vips", v, "addresses", a};
      if (check_host(checks, way, address)) {
        check_not_of_network(checks, way, address, networks_at(model, model.vips[v].site));
      }
    }
  }
  for (size_t n = 0; n < model.nodes.size() && !checks.full(); ++n) check_ports(checks, n);
  for (size_t s = 0; s < model.services.size() && !checks.full(); ++s) {
    const Service& service = model.services[s];
    if (service.pool != kNone && service.vip != kNone) served.emplace(service.pool, model.vips[service.vip].site);
    check_families(checks, s);
  }
  for (const auto& [p, site] : served) {
    if (!checks.full()) check_backends_of_services(checks, p, vips, networks_at(model, site));
  }
}

}  // namespace tidegate
