// SPDX-License-Identifier: Apache-2.0
// The configuration of the forwarder: services on VIPs, and the lists of clients that they allow or deny.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conf/model/common.h"
#include "core/ip.h"

namespace tidegate {

enum class Protocol : uint8_t { tcp = 6, udp = 17 };
enum class Forwarding : uint8_t { l2dsr, ipip, gue, vxlan };
enum class FlowKey : uint8_t { five_tuple, client };

// A list of networks by name. Services allow or deny the clients in it.
struct Acl {
  std::string name;
  std::vector<Cidr> networks;
  Blob file;                           // further networks, one a line
  std::vector<std::string> countries;  // ISO 3166-1: "US"; their networks come from the databases of `geo`
};

// The bounds of what clients may send to a service: tokens per second, and the number of tokens that can be saved up. A
// rate of 0 means no limit. A burst of 0 means as many tokens as one second brings.
struct ServiceLimits {
  uint64_t packets = 0, packets_burst = 0;                // of all clients together
  uint64_t flows = 0, flows_burst = 0;                    // new ones
  uint64_t source_packets = 0, source_packets_burst = 0;  // of all clients in one network
  uint64_t source_flows = 0, source_flows_burst = 0;
  uint8_t source_prefix_v4 = 32, source_prefix_v6 = 64;  // prefix lengths of such a network
};

struct Service {
  std::string name;
  uint32_t vip = kNone;
  Protocol protocol = Protocol::tcp;
  uint16_t port = 0;
  uint16_t last_port = 0;  // of a range that begins at `port`; 0: only `port`
  uint32_t pool = kNone;
  Forwarding forwarding = Forwarding::l2dsr;
  uint32_t vni = 0;          // vxlan
  uint16_t tunnel_port = 0;  // gue and vxlan, UDP; 0: the mode's own
  FlowKey flow_key = FlowKey::five_tuple;
  bool tracking = true;
  uint64_t tcp_syn_timeout_ms = 30'000;
  uint64_t tcp_idle_timeout_ms = 900'000;
  uint64_t tcp_closing_timeout_ms = 10'000;
  uint64_t udp_idle_timeout_ms = 30'000;
  std::vector<uint32_t> allow, deny;  // lists of clients (Model::acls); a client in both is denied
  ServiceLimits limits;
  bool reset_unknown = false;  // TCP packets of unknown flows are answered by RST
};

}  // namespace tidegate
