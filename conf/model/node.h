// SPDX-License-Identifier: Apache-2.0
// Nodes: the hosts of the edge, with the settings and resources of each plane.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "conf/model/common.h"
#include "core/ip.h"

namespace tidegate {

// A port of the forwarder.
struct L4Port {
  std::string device;  // kernel interface name, PCI address, or for pcap "rx.pcap,tx.pcap"
  // auto (pci if it looks like one, else af_xdp, else af_packet), pci, af_xdp, af_packet, pcap
  std::string driver = "auto";
  // The forwarder's own addresses with prefix length: the source of ARP and ND.
  std::vector<std::pair<IpAddress, uint8_t>> addresses;
  std::vector<IpAddress> gateways;  // at most one per family
  uint16_t vlan = 0;                // tag of every frame on its link; 0: frames have no tag
  uint16_t outer_vlan = 0;          // with vlan: the tag before it (QinQ); 0: none
  uint16_t mtu = 0;  // of a port that is not a kernel interface (a kernel interface has its own); 0: 1,500
  // `device` of an earlier port. Then this port is a further VLAN of that device, and its own `device` is only a name.
  std::string shares;
  // The devices that the port bonds, each opened by `driver`; its own `device` is then only a name. Empty: no bond.
  std::vector<std::string> members;
  std::string bond = "active_backup";  // how it uses its members: active_backup, balance or lacp
};

struct L4Node {
  bool enabled = false;
  std::vector<L4Port> ports;
  uint32_t workers = 1;
  uint64_t flows = 262'144;          // entries in each worker's flow table; its memory is fixed at start
  std::string punt = "drop";         // drop | tap: the treatment of frames that are not ours
  uint32_t memory_mb = 128;          // EAL memory without hugepages
  uint32_t maglev_slots = 65'537;    // a prime number
  std::vector<Cidr> tunnel_sources;  // outer sources, varied by flow; at most one per family
  // The UDP address at which this host exchanges flows with the other forwarders of its site.
  std::optional<Endpoint> share_flows;
  uint64_t share_flows_rate = 50'000;  // most flows per second that it sends to each of them
  uint64_t flow_events = 0;            // one of this many new flows is reported as an event; 0: none
};

struct L7Node {
  bool enabled = false;
  uint32_t workers = 1;  // 0: auto (conf/worker_count.h)
  uint64_t max_connections = 16'000;
  uint64_t max_connections_per_client = 0;      // 0: a quarter of max_connections
  uint64_t connection_rate_per_client = 1'000;  // per second; 0: no limit
  uint64_t connection_burst_per_client = 10'000;
  uint64_t drain_timeout_ms = 30'000;                     // how long requests in progress may take after SIGTERM
  std::string access_log;                                 // a path, "-", or "syslog:..." (log_target.h); empty: none
  std::string access_log_format;                          // a template (log_template.h); empty: JSON
  std::string access_log_facility = "local7";             // of syslog
  std::string access_log_tag = "tidegate";                // of syslog: the name of the application
  uint64_t remember_requests_ms = 3'600'000;              // for explain of past requests; 0: none are remembered
  uint64_t remember_requests_bytes = uint64_t{32} << 20;  // of all workers together
};

struct CacheNode {
  bool enabled = false;
  std::string path;  // empty: <state>/cache
  uint64_t disk_bytes = uint64_t{1} << 30;
  uint64_t ram_bytes = uint64_t{64} << 20;
  uint64_t max_object_bytes = uint64_t{256} << 20;
};

struct DnsNode {
  bool enabled = false;
  std::vector<Endpoint> listen;          // UDP and TCP
  std::vector<Endpoint> httpdns_listen;  // plain HTTP/1 for HTTPDNS and DoH, behind our own proxy
  std::vector<Cidr> trusted_proxies;     // proxies whose X-Forwarded-For names the client
  uint32_t workers = 1;                  // 0: auto (conf/worker_count.h)
  std::vector<std::string> xdp;          // interfaces whose UDP queries come through AF_XDP
  std::string nsid;
  std::vector<Endpoint> resolvers;  // look up the targets of type alias; empty: those of /etc/resolv.conf
};

struct Node {
  std::string name;
  uint32_t site = kNone;
  std::optional<Endpoint> management;  // the address at which this host's control answers the others
  L4Node l4;
  L7Node l7;
  CacheNode cache;
  DnsNode dns;
};

}  // namespace tidegate
