// SPDX-License-Identifier: Apache-2.0
// Cross checks of addresses to, from or through which packets are forwarded: addresses that no host on a network can
// have, and addresses that contradict each other.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "conf/checks.h"

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
  const bool zeros = std::all_of(bytes.begin(), bytes.end() - 1, [](uint8_t byte) { return byte == 0; });
  if (zeros && bytes[15] == 0) return "an unspecified address";
  return zeros && bytes[15] == 1 ? "a loopback address" : nullptr;
}

// Returns false if there is a fault, this one or another.
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

bool has_family(const std::vector<IpAddress>& addresses, IpAddress::Family family) {
  return std::any_of(addresses.begin(), addresses.end(), [&](const IpAddress& a) { return a.family == family; });
}

// The port asks for the gateway from an address of its own, so the gateway must be a different host.
void check_gateway(Checks& checks, size_t n, size_t p, size_t g) {
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
  }
}

void check_ports(Checks& checks, size_t n) {
  const std::vector<L4Port>& ports = checks.model().nodes[n].l4.ports;
  for (size_t p = 0; p < ports.size(); ++p) {
    for (size_t a = 0; a < ports[p].addresses.size(); ++a) {
      check_host(checks, {"nodes", n, "l4", "ports", p, "addresses", a}, ports[p].addresses[a].first);
    }
    for (size_t g = 0; g < ports[p].gateways.size(); ++g) check_gateway(checks, n, p, g);
  }
}

// A backend that gets unchanged packets needs its own address besides the VIP, which all backends hold.
void check_backends_of_services(Checks& checks, size_t p, const std::set<IpAddress>& vips) {
  const Pool& pool = checks.model().pools[p];
  for (size_t b = 0; b < pool.backends.size(); ++b) {
    for (size_t a = 0; a < pool.backends[b].addresses.size(); ++a) {
      const Way way{"pools", p, "backends", b, "addresses", a};
      const IpAddress& address = pool.backends[b].addresses[a];
      if (!check_host(checks, way, address) || !vips.contains(address)) continue;
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
  if (service.forwarding != Forwarding::l2dsr) return;  // a tunnel may be of the other family
  for (const IpAddress& address : vip.addresses) {
    for (const Backend& backend : pool.backends) {
      const bool named = !backend.host.empty() || !backend.srv.empty();  // nobody knows what it leads to
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
  std::set<size_t> served;
  for (size_t v = 0; v < model.vips.size() && !checks.full(); ++v) {
    for (size_t a = 0; a < model.vips[v].addresses.size(); ++a) {
      check_host(checks, {"vips", v, "addresses", a}, model.vips[v].addresses[a]);
      vips.insert(model.vips[v].addresses[a]);
    }
  }
  for (size_t n = 0; n < model.nodes.size() && !checks.full(); ++n) check_ports(checks, n);
  for (size_t s = 0; s < model.services.size() && !checks.full(); ++s) {
    if (model.services[s].pool != kNone) served.insert(model.services[s].pool);
    check_families(checks, s);
  }
  for (const size_t p : served) {
    if (!checks.full()) check_backends_of_services(checks, p, vips);
  }
}

}  // namespace tidegate
