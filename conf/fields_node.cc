// SPDX-License-Identifier: Apache-2.0
// The keys of nodes: what each host runs.
#include "conf/field_builders.h"
#include "conf/limits.h"
#include "conf/log_target.h"
#include "conf/model/node.h"
#include "conf/worker_count.h"

namespace tidegate {

using namespace fields;

namespace {

constexpr uint64_t kMaxInterfaceName = 15;  // IFNAMSIZ without the final NUL

const Section& l4_port_section() {
  static const Section section{
      "port",
      {
          identity(text("device", &L4Port::device,
                        "Kernel interface, PCI address (`0000:01:00.0`), or for pcap `received.pcap,sent.pcap`.")),
          word("driver", &L4Port::driver, {"auto", "pci", "af_xdp", "af_packet", "pcap"},
               "`auto`: pci if the device looks like one, else af_xdp, else af_packet."),
          row("addresses", FieldType::interface_address, &L4Port::addresses,
              "The forwarder's own addresses, with prefix length: the source of ARP and neighbour discovery."),
          row("gateways", FieldType::address, &L4Port::gateways,
              "Next hops for addresses that are not on the link; at most one for each address family."),
          integer("vlan", &L4Port::vlan, {0, 4'094},
                  "The VLAN of every frame that the port receives and sends. 0: frames without a tag."),
          integer("outer_vlan", &L4Port::outer_vlan, {0, 4'094},
                  "The outer tag before that of `vlan` (802.1ad, QinQ). 0: none."),
          integer(
              "mtu", &L4Port::mtu, {0, 9'600},
              "The longest packet on the link of a NIC that DPDK drives; 0: 1,500. Read at start. A kernel interface "
              "tells its own."),
          text("shares", &L4Port::shares,
               "The `device` of an earlier port: this one is a further VLAN of that device, and its own `device` is "
               "only its name."),
          within(row("members", FieldType::text, &L4Port::members,
                     "The devices that this port bonds, each opened by `driver`; its own `device` is then only its "
                     "name."),
                 {1, 64}),
          word("bond", &L4Port::bond, {"active_backup", "balance", "lacp"},
               "How the members are used. `active_backup`: one of them, and the next one when its link is down. "
               "`balance`: all, each flow by one of them. `lacp`: all for which the switch agrees by LACP (802.3ad)."),
      }};
  return section;
}

const Section& l4_section() {
  static const Section section{
      "l4 section",
      {
          enabled<L4Node>(),
          nested("ports", &L4Node::ports, l4_port_section(), "The network ports that the forwarder owns."),
          integer("workers", &L4Node::workers, {1, 128},
                  "Number of forwarding cores. Each has one queue of every port."),
          integer("flows", &L4Node::flows, {1'024, uint64_t{1} << 28},
                  "Entries in each worker's flow table; the memory is fixed at start."),
          word("punt", &L4Node::punt, {"drop", "tap"},
               "What happens to frames that are not for a VIP: they are dropped, or given to the kernel."),
          size("memory", &L4Node::memory_mb, {64 * kMB, 1 * kTB},
               "Memory for packet buffers and tables if there are no huge pages.", kMB),
          integer("maglev_slots", &L4Node::maglev_slots, {251, 16'777'213},
                  "Size of each service's lookup table: a prime, about 100 times the number of backends."),
          row("tunnel_sources", FieldType::cidr, &L4Node::tunnel_sources,
              "Prefixes of the outer source addresses of tunnels, at most one for each family. Each flow gets an "
              "address of its own, so that a backend spreads `ipip` over its queues. Without one: the port's address."),
          row("share_flows", FieldType::endpoint, &L4Node::share_flows,
              "UDP address of this host, not of a forwarding port, at which it shares its flows with the other "
              "forwarders of its site that have this key. All need the same `--secret`. Without it, no flow is "
              "shared."),
          integer("share_flows_rate", &L4Node::share_flows_rate, {100, 10'000'000},
                  "Most flows a second that each of them is told. A flow takes 20 bytes."),
          integer(
              "flow_events", &L4Node::flow_events, {0, uint64_t{1} << 32},
              "One of so many new flows is told as an event (`tidegate l4 events`), chosen by the keyed hash of its "
              "addresses and ports. 0: none."),
      }};
  return section;
}

const Section& l7_section() {
  static const Section section{
      "l7 section",
      {
          enabled<L7Node>(),
          integer_or("auto", "workers", &L7Node::workers, {1, kWorkersMost},
                     "Number of threads. Each has its own connections. `auto`: one for each core that the process may "
                     "use, by its affinity and the CPU time that its cgroups allow. Read at start."),
          integer("max_connections", &L7Node::max_connections, {1, 10'000'000},
                  "Most client connections at one time, of all workers together. At the bound, the one that is idle "
                  "longest is closed."),
          integer("max_connections_per_client", &L7Node::max_connections_per_client, {0, 10'000'000},
                  "How many of these one client address (IPv6: one /64) may have, unless it is a trusted proxy; 0: a "
                  "quarter."),
          integer(
              "connection_rate_per_client", &L7Node::connection_rate_per_client, {0, 1'000'000},
              "New connections a second from one such address. HTTP/2 streams that it resets count too. 0: no bound."),
          integer("connection_burst_per_client", &L7Node::connection_burst_per_client, {1, 10'000'000},
                  "How many new connections one such address may open at once."),
          duration("drain_timeout", &L7Node::drain_timeout_ms, {0, kDay},
                   "How long requests in progress may continue after SIGTERM, and after an upgrade."),
          text("access_log", &L7Node::access_log,
               "A path, `-` for standard output, or syslog: `syslog:/dev/log` for the socket of this host, "
               "`syslog:192.0.2.5:514` for UDP (RFC 5424). Without it, there is no access log. Read at start."),
          text("access_log_format", &L7Node::access_log_format,
               "The text of a line, with [variables](#variables-of-access_log_format) in braces: `{client} "
               "[{time_common}] \"{request}\" {status} {response_bytes}`. Without it, a line is JSON. Read at start.",
               kLogTemplateBytes),
          word("access_log_facility", &L7Node::access_log_facility, syslog_facility_words(),
               "The facility of lines for syslog. Their severity is `info`. Read at start."),
          text("access_log_tag", &L7Node::access_log_tag,
               "The name of the application in lines for syslog: printable ASCII without blanks. Read at start.", 48),
          duration("remember_requests", &L7Node::remember_requests_ms, {0, kDay},
                   "How long `tidegate explain --request` can tell what a request met. 0: no request is remembered. "
                   "Read at start."),
          size("remember_requests_memory", &L7Node::remember_requests_bytes, {64 * kKB, 64 * kGB},
               "Memory for that, of all workers together: 200 bytes a request. When it is used up, the oldest requests "
               "are forgotten first. Read at start."),
      }};
  return section;
}

const Section& cache_section() {
  static const Section section{
      "cache section",
      {
          enabled<CacheNode>(),
          text("path", &CacheNode::path,
               "Directory of the cache. Without it, `cache` in the state directory. All keys of the cache are read at "
               "start."),
          size("disk", &CacheNode::disk_bytes, {16 * kMB, 64 * kTB},
               "Space on disk. The least useful objects are evicted first."),
          size("ram", &CacheNode::ram_bytes, {0, 4 * kTB}, "Memory for the objects that are requested most."),
          size("max_object", &CacheNode::max_object_bytes, {1 * kKB, 1 * kTB}, "Larger responses are not stored."),
      }};
  return section;
}

const Section& dns_section() {
  static const Section section{
      "dns section",
      {
          enabled<DnsNode>(),
          row("listen", FieldType::endpoint, &DnsNode::listen, "Where DNS is answered over UDP and TCP."),
          row("httpdns_listen", FieldType::endpoint, &DnsNode::httpdns_listen,
              "Where HTTPDNS and DNS over HTTPS are answered, in plain HTTP/1, behind the proxy that terminates TLS."),
          row("trusted_proxies", FieldType::cidr, &DnsNode::trusted_proxies,
              "Proxies whose `X-Forwarded-For` names the client."),
          integer_or("auto", "workers", &DnsNode::workers, {1, kWorkersMost},
                     "Number of threads. Each has its own sockets. `auto`: as for l7."),
          bounded("xdp", FieldType::text, &DnsNode::xdp, {1, kMaxInterfaceName},
                  "Interfaces whose UDP queries are read and answered by AF_XDP, without the kernel's network stack "
                  "and its packet filter. If that is not possible, ordinary sockets answer."),
          text("nsid", &DnsNode::nsid, "The server's identifier for clients that ask for it (RFC 5001).", 128),
          row("resolvers", FieldType::endpoint, &DnsNode::resolvers,
              "Recursive resolvers that look up targets of type `alias` and names of backends. By default those of "
              "/etc/resolv.conf."),
      }};
  return section;
}

}  // namespace

const Section& node_section() {
  static const Section section{"node",
                               {
                                   name(&Node::name, "What `--node` selects; the host's own name by default."),
                                   reference("site", &Node::site, "sites", "The site where the host is."),
                                   row("management", FieldType::endpoint, &Node::management,
                                       "The address at which this host's control answers the other controls."),
                                   nested("l4", &Node::l4, l4_section(), "Runs the packet forwarder."),
                                   nested("l7", &Node::l7, l7_section(), "Runs the HTTP proxy."),
                                   nested("cache", &Node::cache, cache_section(), "Keeps responses for the proxy."),
                                   nested("dns", &Node::dns, dns_section(), "Answers DNS, HTTPDNS and DNS over HTTPS."),
                               }};
  return section;
}

}  // namespace tidegate
