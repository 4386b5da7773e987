// SPDX-License-Identifier: Apache-2.0
// A small edge for tests: one VIP with both families, a TCP service and a UDP service, and a pool of weighted backends.
#pragma once

#include <memory>
#include <string>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/service.h"
#include "conf/model/site.h"
#include "conf/snapshot.h"
#include "l4/plan/forwarding.h"
#include "tests/unit/l4/frames.h"

namespace tidegate::l4::testing {

inline const HashKey kFlowKey = {1, 2};
inline const HashKey kTableKey = {3, 4};

struct Edge {
  Model model;
  LiveState live_state;
  ForwardingBuilder builder{kTableKey};
  std::shared_ptr<const CountryNetworks> countries;  // networks of the countries in client lists
  uint64_t now_ns = 1'000'000'000;

  Edge() {
    model.sites = {{"eu", {}}, {"us", {}}};
    model.vips = {{"vip", 0, {ip("10.0.0.100"), ip("fd00::100")}}, {"elsewhere", 1, {ip("10.9.0.100")}}};
    Pool pool;
    pool.name = "web";
    for (int i = 1; i <= 3; ++i) {
      Backend backend;
      backend.name = "web" + std::to_string(i);
      backend.addresses = {ip("10.0.0.1" + std::to_string(i)), ip("fd00::1" + std::to_string(i))};
      pool.backends.push_back(backend);
    }
    model.pools = {pool};
    model.services = {service("http", Protocol::tcp, 80), service("dns", Protocol::udp, 53)};
    Node node;
    node.name = "l4";
    node.site = 0;
    node.l4.enabled = true;
    L4Port port;
    port.device = "eth0";
    port.addresses = {{ip("10.0.0.2"), 24}, {ip("fd00::2"), 64}};
    node.l4.ports = {port};
    node.l4.maglev_slots = 5'003;
    node.l4.flows = 4'096;
    model.nodes = {node};
  }

  static Service service(const std::string& name, Protocol protocol, uint16_t port) {
    Service service;
    service.name = name;
    service.vip = 0;
    service.protocol = protocol;
    service.port = port;
    service.pool = 0;
    return service;
  }

  Backend& backend(size_t index) { return model.pools[0].backends[index]; }
  void say(size_t index, OverrideState state) {
    live_state.overrides[backend_key("web", backend(index).name)] = {state, "ops", "", 0};
  }

  // Built and adopted; null if the build was refused.
  std::shared_ptr<const ForwardingTables> tables(const Outages& outages = {}) {
    std::shared_ptr<const ForwardingTables> built = candidate(outages);
    if (built) builder.adopt(*built, now_ns);
    return built;
  }
  std::shared_ptr<const ForwardingTables> candidate(const Outages& outages = {}) {
    now_ns += 1'000'000;
    auto snapshot =
        make_snapshot(1, "digest", std::make_shared<const Model>(model), std::make_shared<const LiveState>(live_state));
    Result<std::shared_ptr<const ForwardingTables>> built =
        builder.build(std::move(snapshot), model.nodes[0], now_ns, outages, countries);
    return built ? *built : nullptr;
  }
  BackendId id(size_t index) { return *builder.backend_ids().find({"web", backend(index).name}); }
  std::string name_of(BackendId wanted) const {
    std::string found = "none";
    builder.backend_ids().for_each([&](const BackendKey& key, BackendId id) {
      if (id == wanted) found = key.second;
    });
    return found;
  }
};

}  // namespace tidegate::l4::testing
