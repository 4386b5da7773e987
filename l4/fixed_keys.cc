// SPDX-License-Identifier: Apache-2.0
#include "l4/fixed_keys.h"

#include <fmt/format.h>
#include <net/if.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <tuple>
#include <utility>

#include "l4/eal.h"

namespace tidegate::l4 {

std::vector<std::string> differences_fixed_at_start(const L4Node& running, const L4Node& wanted) {
  const auto device_and_driver = [](const L4Node& node) {
    using Kept = std::tuple<std::string, std::string, std::vector<std::string>, std::string, std::string, uint16_t,
                            uint16_t, uint16_t>;
    std::vector<Kept> out;
    for (const L4Port& port : node.ports) {
      out.emplace_back(port.device, port.shares, port.members, port.bond, port.driver, port.vlan, port.outer_vlan,
                       port.mtu);
    }
    return out;
  };
  const std::pair<const char*, bool> keys[] = {
      {"l4.ports", device_and_driver(running) != device_and_driver(wanted)},
      {"l4.workers", running.workers != wanted.workers},
      {"l4.flows", running.flows != wanted.flows},
      {"l4.punt", running.punt != wanted.punt},
      {"l4.memory", running.memory_mb != wanted.memory_mb},
  };
  std::vector<std::string> changed;
  for (const auto& [key, differs] : keys) {
    if (differs) changed.emplace_back(key);
  }
  return changed;
}

Result<void> check_devices(const L4Node& running, const L4Node& wanted) {
  for (const L4Port& port : wanted.ports) {
    const bool open = std::any_of(running.ports.begin(), running.ports.end(),
                                  [&](const L4Port& other) { return other.device == port.device; });
    if (open || port.driver == "pcap") continue;
    for (const std::string& device : devices_of(port)) {
      std::error_code ignored;
      const bool there = is_pci_port(port) ? std::filesystem::exists("/sys/bus/pci/devices/" + device, ignored)
                                           : ::if_nametoindex(device.c_str()) != 0;
      if (!there) return fail(fmt::format("l4.ports: this host has no device {}", device));
    }
  }
  return {};
}

}  // namespace tidegate::l4
