// SPDX-License-Identifier: Apache-2.0
#include "l4/vip_holdings.h"

#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/site.h"
#include "conf/vip_holder.h"
#include "core/log.h"

namespace tidegate::l4 {
namespace {

struct Holding {
  bool held = false;
  std::string holder;  // name of the node
};

// The addresses that this forwarder or another one holds, with their holders.
std::map<IpAddress, Holding> holdings_of(const ForwardingTables& tables, const std::string& node) {
  std::map<IpAddress, Holding> out;
  const Model& model = *tables.snapshot->model;
  const uint32_t own = model.node_index(node);
  const Forwarders forwarders(model);
  for (uint32_t vip = 0; own != kNone && vip < model.vips.size(); ++vip) {
    if (model.vips[vip].site != kNone && model.vips[vip].site != model.nodes[own].site) continue;
    for (const IpAddress& address : model.vips[vip].addresses) {
      const uint32_t holder = holder_of(forwarders, tables.snapshot->nodes, vip, address);
      const auto left = tables.left.find(address);
      if (left != tables.left.end()) {
        out[address] = {false, left->second};
      } else if (holder != kNone) {
        out[address] = {holder == own, model.nodes[holder].name};
      }
    }
  }
  return out;
}

struct Counts {
  size_t held = 0, standby = 0;
};

Counts count(const ForwardingTables& tables, const std::string& node) {
  Counts counts;
  for (const auto& [address, holding] : holdings_of(tables, node)) ++(holding.held ? counts.held : counts.standby);
  return counts;
}

}  // namespace

void say_what_changed_hands(const ForwardingTables& before, const ForwardingTables& after, const std::string& node) {
  const std::map<IpAddress, Holding> old = holdings_of(before, node);
  size_t taken = 0, left = 0;
  IpAddress first_taken, first_left;
  std::string to;
  for (const auto& [address, holding] : holdings_of(after, node)) {
    const auto known = old.find(address);
    if (known == old.end() || known->second.held == holding.held) continue;
    if (holding.held) {
      if (taken++ == 0) first_taken = address;
    } else if (left++ == 0) {
      first_left = address;
      to = holding.holder;
    }
  }
  if (taken > 0) log_warn("takes {} addresses of VIPs over, the first is {}", taken, first_taken.to_string());
  if (left > 0) {
    log_warn("leaves {} addresses of VIPs to others, the first is {}, to the forwarder of node {}", left,
             first_left.to_string(), to);
  }
}

nlohmann::json holdings_status(const ForwardingTables& tables, const std::string& node) {
  const Counts counts = count(tables, node);
  return {{"held", counts.held}, {"standby", counts.standby}, {"left", tables.left.size()}};
}

void append_holdings(std::string& out, const ForwardingTables& tables, const std::string& node) {
  const Counts counts = count(tables, node);
  out +=
      "# HELP tidegate_l4_shared_vip_addresses Addresses of VIPs that one of several forwarders holds, by its role\n";
  out += "# TYPE tidegate_l4_shared_vip_addresses gauge\n";
  out += fmt::format("tidegate_l4_shared_vip_addresses{{role=\"held\"}} {}\n", counts.held);
  out += fmt::format("tidegate_l4_shared_vip_addresses{{role=\"standby\"}} {}\n", counts.standby);
  out += fmt::format("tidegate_l4_shared_vip_addresses{{role=\"left\"}} {}\n", tables.left.size());
}

}  // namespace tidegate::l4
