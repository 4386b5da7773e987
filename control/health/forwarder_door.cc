// SPDX-License-Identifier: Apache-2.0
#include "control/health/forwarder_door.h"

#include "conf/model.h"
#include "conf/model/node.h"

namespace tidegate {

namespace {

HttpClientRequest probe_order(const char* target, std::string order, uint64_t timeout_ms) {
  HttpClientRequest request;
  request.method = "POST";
  request.target = target;
  request.headers.emplace_back("Content-Type", "application/json");
  request.body = std::move(order);
  request.timeout_ms = timeout_ms;
  return request;
}

}  // namespace

void order_probe_here(Fleet& fleet, std::string order, uint64_t timeout_ms, ForwarderDoor::Answer answer) {
  fleet.send_to_plane("l4", probe_order("/probe", std::move(order), timeout_ms), std::move(answer));
}

std::shared_ptr<const ForwarderDoor> make_forwarder_door(Fleet& fleet, const HostState& host_state) {
  return std::make_shared<ForwarderDoor>(
      ForwarderDoor{[&fleet, &host_state](const std::string& name, std::string order, uint64_t timeout_ms,
                                          ForwarderDoor::Answer answer) {
        const std::shared_ptr<const Model> model = host_state.model();
        if (name == fleet.own_node()) return order_probe_here(fleet, std::move(order), timeout_ms, std::move(answer));
        const uint32_t node = model == nullptr ? kNone : model->node_index(name);
        if (node == kNone) return answer(fail("the configuration has no node " + name));
        fleet.send_to_node(model->nodes[node], probe_order("/v1/node/probe", std::move(order), timeout_ms),
                           std::move(answer));
      }});
}

}  // namespace tidegate
