// SPDX-License-Identifier: Apache-2.0
// The model of an edge: the content of a configuration document as plain structs. One document describes every node of
// the edge; a daemon finds its own part by node name. Defaults are in the member initialisers here and nowhere else:
// the field table (conf/fields.cc) takes them from a default-constructed struct, and adds key, unit, bounds and a
// sentence to each.
//
// References by name in the document become indexes into the Model's vectors (kNone if absent). They are resolved and
// checked before anyone reads the Model, so no reader ever sees a dangling name.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "conf/elements.h"
#include "conf/policy_model.h"
#include "conf/pool_model.h"
#include "core/ip.h"

namespace tidegate {

constexpr uint32_t kNone = UINT32_MAX;

// Content of a file that the document names (certificate, key, zone). It is an object of the version, identified by its
// hash.
struct Blob {
  std::string name;  // the path in the document
  std::string hash;  // SHA-256, hex; equal hash means equal content, so nothing needs a rebuild
  std::shared_ptr<const std::string> bytes;
};

struct Location {
  double latitude = 0, longitude = 0;  // degrees
};

struct Site {
  std::string name;
  Location location;
  double bias = 0;  // in per cent: for `nearest`, distances to it count less (positive) or more (negative)
  // in per cent of load: above it, steers of the policy `shed` send some of its clients to other sites
  uint32_t shed_above = 80;
};

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
  // `device` of an earlier port: this one is a further VLAN of its device, and its own `device` is only a name.
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
  std::string punt = "drop";         // drop | tap: what happens to frames that are not ours
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
  uint32_t workers = 1;
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
  uint32_t workers = 1;
  std::vector<std::string> xdp;  // interfaces whose UDP queries come through AF_XDP
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

struct Vip {
  std::string name;
  uint32_t site = kNone;
  std::vector<IpAddress> addresses;
};

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

// How much clients may send to a service: tokens per second, and how many tokens can be saved up. A rate of 0 means no
// limit. A burst of 0 means as many tokens as one second brings.
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

enum class ProbeType : uint8_t { tcp, http, https, grpc, udp, dns, tls, command };

struct Probe {
  std::string name;
  ProbeType type = ProbeType::tcp;
  uint16_t port = 0;  // 0: the backend's port; with via_vip the port of each service
  // the site's forwarder sends the probe to the VIP of each service, with the backend's MAC address
  bool via_vip = false;
  std::string path = "/";
  std::string host;          // Host field and server name; empty: the backend's address
  bool tls_verify = true;    // https; grpc with tls
  Blob tls_ca;               // PEM; none: the system's authorities
  bool tls = false;          // grpc
  std::string grpc_service;  // grpc: what is asked for; empty: the server as a whole
  uint16_t expect_status = 200;
  std::string send;                   // tcp and udp: sent when the connection is open
  std::string expect;                 // tcp and udp: what the answer must contain
  std::string dns_name = ".";         // dns: what is asked
  std::string dns_type = "SOA";       // dns
  std::string dns_rcode = "NOERROR";  // dns: the code that the answer must have
  uint32_t tls_days = 14;             // tls: how many days the certificate must still be valid
  std::vector<std::string> command;   // command: a program by its path, and its arguments
  uint64_t hold_ms = 0;               // how long a verdict stays at least; 0: rise and fall alone decide
  uint64_t interval_ms = 1'000;
  uint64_t timeout_ms = 1'000;
  uint32_t rise = 2;  // consecutive successes until it is up
  uint32_t fall = 2;  // consecutive failures until it is down
};

struct Backend {
  std::string name;
  // Exactly one of addresses, host, srv and socket is written.
  std::vector<IpAddress> addresses;  // at most one per family
  std::string host;                  // a name that is looked up (A and AAAA)
  std::string srv;                   // a name that is looked up (SRV): its targets and ports
  std::string socket;                // the path of a unix socket on the proxy's host
  uint16_t port = 0;                 // for L7; an L4 service keeps its own port under l2dsr
  uint32_t weight = 100;             // 0: no new work, as if draining
  uint16_t mtu = 0;                  // of the path of a tunnel to it; 0: like the forwarder's link
  uint32_t node = kNone;             // the node that this backend is; used by explain
  uint32_t site = kNone;             // where it is, for prefer_site
  bool backup = false;               // used by the proxy when the others are not enough
  std::vector<std::string> labels;   // routes choose a subset by them
  // The backend of the document whose name led to this server. Empty: the backend is in the document itself.
  std::string found_by;
};

enum class PoolPolicy : uint8_t {
  weighted_round_robin,
  least_requests,
  consistent_hash,
  random_of_two,
  peak_ewma,
  ring_hash
};
enum class BackendProtocol : uint8_t { h1, h2, automatic };
// if no backend is usable: use every backend without an override, or refuse
enum class AllDown : uint8_t { open, closed };

struct Pool {
  std::string name;
  std::vector<Backend> backends;
  uint32_t probe = kNone;
  PoolPolicy policy = PoolPolicy::weighted_round_robin;  // for L7; L4 always uses weighted Maglev
  std::string hash_on = "client";                        // consistent_hash: client | path | header:<name>
  double load_bound = 1.25;   // consistent_hash: the highest load of a backend, as a multiple of the mean load
  double up_threshold = 0.0;  // the fraction of weight that must be up for the pool to count as up (0: any one backend)
  AllDown all_down = AllDown::open;
  bool tls = false;                                // to the backends
  BackendProtocol protocol = BackendProtocol::h1;  // automatic: what TLS chooses (ALPN)
  bool tls_verify = true;                          // with tls
  Blob tls_ca;                                     // PEM; none: the system's authorities
  std::string tls_server_name;                     // empty: the backend's address
  uint64_t connect_timeout_ms = 5'000;             // from a try's start to a usable connection, TLS included
  uint64_t first_byte_timeout_ms = 60'000;         // from the request's last byte to the response's head, one try
  uint64_t idle_timeout_ms = 300'000;              // between two pieces of a body, in either direction
  uint64_t tunnel_timeout_ms = 3'600'000;          // silence of a WebSocket
  uint64_t keepalive_timeout_ms = 30'000;          // an unused connection
  uint32_t keepalive_connections = 256;            // unused connections that a worker keeps
  uint32_t max_connections = 4'096;                // to one backend, per worker
  // how many requests of a worker may wait while all backends are at max_connections; 0: none
  uint32_t queue_size = 4'096;
  uint64_t queue_timeout_ms = 30'000;  // how long one of them waits
  double retry_budget = 0.2;           // retries as a fraction of requests
  uint32_t retry_attempts = 2;         // for one request, besides the first try
  uint32_t eject_after = 5;            // consecutive failures until passive ejection; 0: never
  uint64_t eject_ms = 10'000;
  double eject_max_share = 1.0;  // share of the pool's backends that may be ejected at once; one always may
  bool count_5xx = false;        // answers of 5xx count as failures, for ejection and breaker
  uint64_t slow_start_ms = 0;    // in this time a backend that comes into service reaches its full share; 0: at once
  double panic_threshold = 0.0;  // if less than this share of the weight is in service, health does not count; 0: never
  bool prefer_site = false;      // backends of the proxy's own site first
  double spare_capacity = 1.4;   // healthy backends can take this multiple of their share before others must help
  PoolBreaker breaker;
  PoolSticky sticky;
  uint64_t lookup_min_ms = 1'000;  // bounds of a looked-up name's TTL
  uint64_t lookup_max_ms = 300'000;
  ProxyProtocol proxy_protocol = ProxyProtocol::none;  // written to the backends
  uint32_t tls_certificate = kNone;                    // shown to the backends
  std::vector<IpAddress> local_addresses;              // source addresses of connections; at most one per family
  // bytes of a request's body that are collected before it is sent, or the whole body; 0: none
  uint64_t buffer_request_bytes = 0;
  // bytes of a response's body that may be read from the backend before the client takes them
  uint64_t buffer_response_bytes = 0;
  std::vector<std::string> upgrades;  // protocols besides websocket to which a connection may be upgraded
};

enum class AcmeChallenge : uint8_t { http01, tls_alpn01, dns01 };

// A certificate that control gets from the authority of the section `acme` (RFC 8555).
struct CertificateOrder {
  std::vector<std::string> names;  // lower case, without the final dot; "*.example.com" for all names below
  AcmeChallenge challenge = AcmeChallenge::http01;
};

// Whether the proxy staples the authority's OCSP answer to a certificate.
struct CertificateOcsp {
  bool enabled = false;
  std::string responder;  // its URL; empty: the one that the certificate names
};

struct Certificate {
  std::string name;
  Blob certificate;        // PEM chain; none if it comes from an authority
  Blob key;                // PEM
  CertificateOrder order;  // no names: it comes from files
  CertificateOcsp ocsp;

  bool is_ordered() const { return !order.names.empty(); }
};

// The authority from which control gets certificates.
struct Acme {
  std::string directory;             // its URL; empty: no certificate is ordered
  std::vector<std::string> contact;  // "mailto:ops@example.com"
  bool terms_agreed = false;
  // PEM roots that must have signed the authority's own certificate; none: the system's
  Blob ca;
  std::string eab_key_id, eab_key;  // RFC 8555 §7.3.4; the key is base64url
};

// The certificates that a listener asks its clients for.
struct ListenerClients {
  bool enabled = false;
  Blob ca;                // PEM: each certificate in it is trusted
  Blob crl;               // PEM: revocation lists of these authorities; none: revocation is not checked
  bool optional = false;  // a client without a certificate may come
};

struct ListenerTls {
  bool enabled = false;
  std::vector<uint32_t> certificates;  // the first one is the default
  std::string min_version = "1.2";
  ListenerClients clients;
};

struct Listener {
  std::string name;
  std::vector<Endpoint> bind;
  uint32_t site = kNone;  // kNone: every site
  ListenerTls tls;
  bool http2 = true;                  // h2 by ALPN; over plain text with prior knowledge
  std::vector<Cidr> trusted_proxies;  // proxies whose forwarding fields are kept instead of replaced
  uint64_t header_timeout_ms = 10'000;
  uint64_t idle_timeout_ms = 60'000;  // keep-alive between requests
  uint64_t request_timeout_ms = 0;    // a whole exchange, bodies and tunnels included; 0: none
  uint64_t max_body_bytes = uint64_t{1} << 30;
  uint64_t max_header_bytes = 32 << 10;
  uint64_t minimum_rate_bytes = 256;  // per second, for a body that waits for its client; 0: any progress is enough
  bool merge_slashes = true;          // routes are matched with "//" treated as "/"
  // True: keeps fields that an application may confuse with fields that the proxy sets.
  bool underscores_in_headers = false;
  uint32_t max_fields = 200;              // of a request
  bool via = true;                        // adds Via to requests and answers
  std::vector<Cidr> proxy_protocol_from;  // peers that begin each connection with a PROXY header
  std::string server_name;  // replaces a missing Host in redirects; empty: the address that the client connected to
  std::vector<uint32_t> policies;
  bool default_deny = false;  // a request that no authorise policy allows is refused
};

// What a request must have in addition to host, path and method. All conditions must hold.
struct RouteConditions {
  using Pairs = std::vector<std::pair<std::string, std::string>>;  // the value "*": any
  Pairs headers, query, cookies;
  std::vector<Cidr> clients;  // the client's address is in one of them
  // Regular expressions (RE2). Each must match the whole path, or the whole value of a field or a parameter.
  std::string path_regex;  // empty: any path that the route's pattern takes
  Pairs headers_regex, query_regex;
  bool has_regex() const { return !path_regex.empty() || !headers_regex.empty() || !query_regex.empty(); }
  bool empty() const { return headers.empty() && query.empty() && cookies.empty() && clients.empty() && !has_regex(); }
};

struct RouteCache {
  bool enabled = false;
  uint64_t default_ttl_ms = 0;  // freshness if the response does not say it (0: heuristic, RFC 9111 §4.2.2)
  uint64_t max_ttl_ms = uint64_t{365} * 86'400'000;
  uint64_t stale_while_revalidate_ms = 0;  // used if the response does not say it
  uint64_t stale_if_error_ms = 0;
  std::vector<std::string> key_query;  // query parameters that are part of the key; empty: all, in the given order
  bool ignore_query = false;
  bool ignore_reload = false;       // true: this cache ignores a client's no-cache and max-age
  bool send_tags = false;           // true: clients get Cache-Tag and Surrogate-Key
  bool purge_both_schemes = false;  // true: a purge of an http URL also purges the https URL, and the reverse
};

// Among the requests that wait for room at a backend of one pool, in the order of rising priority.
enum class QueuePriority : uint8_t { low, normal, high };

// What happens to the requests of a route.
struct RouteToPool {
  uint32_t pool = kNone;
  bool operator==(const RouteToPool&) const = default;
};
struct RouteRedirect {
  std::string location;  // {host}, {authority}, {path}, {query} and path parameters are replaced
  uint16_t status = 302;
  bool operator==(const RouteRedirect&) const = default;
};
struct RouteAnswer {  // health checks, blocks
  uint16_t status = 0;
  std::string body;
  bool operator==(const RouteAnswer&) const = default;
};

struct Route {
  std::string name;
  std::vector<uint32_t> listeners;   // empty: all
  std::vector<std::string> hosts;    // "www.example.com", "*.example.com"; empty: any
  std::string path = "/*";           // "/exact", "/a/{id}/b", "/prefix/*"
  std::vector<std::string> methods;  // empty: any
  RouteConditions match;             // further conditions
  uint32_t priority = 0;             // among routes that match a request equally well, the highest wins
  std::variant<std::monostate, RouteToPool, RouteRedirect, RouteAnswer> what;
  std::vector<std::string> labels;  // the route uses only backends of the pool that have all of them
  bool labels_required = true;      // false: if no such backend is in service, any backend
  QueuePriority queue_priority = QueuePriority::normal;
  bool grpc_web = false;          // gRPC-Web is translated to gRPC
  uint64_t total_timeout_ms = 0;  // from the request's head to the response's head, all tries together; 0: no limit
  uint64_t try_timeout_ms = 0;    // from the request's last byte to the response's head, one try; 0: the pool's
  std::vector<uint32_t> retry_statuses;  // answers with these are tried again, where that is safe
  // Set on requests to the backend; an empty value removes the field.
  std::vector<std::pair<std::string, std::string>> request_headers;
  std::vector<std::pair<std::string, std::string>> response_headers;  // set on responses to the client
  RouteCache cache;
  std::vector<uint32_t> policies;  // in addition to those of the listener

  // kNone if the route has no pool.
  uint32_t pool() const { return std::holds_alternative<RouteToPool>(what) ? std::get<RouteToPool>(what).pool : kNone; }
  // Null if the route is of another type.
  const RouteRedirect* redirect() const { return std::get_if<RouteRedirect>(&what); }
  const RouteAnswer* answer() const { return std::get_if<RouteAnswer>(&what); }
};

struct Zone {
  std::string name;  // apex, lower case, with the final dot
  Blob file;         // master file
};

enum class SteerPolicy : uint8_t { nearest, weighted, failover, map, sticky, multivalue, shed };

// What a steer's target can be.
struct TargetVip {
  uint32_t vip = kNone;
  bool operator==(const TargetVip&) const = default;
};
struct TargetPool {
  uint32_t pool = kNone;  // answers with the addresses of its usable backends
  bool operator==(const TargetPool&) const = default;
};
struct TargetSteer {
  uint32_t steer = kNone;  // answers as that steer does
  bool operator==(const TargetSteer&) const = default;
};
struct TargetAlias {
  std::string name;  // a name outside of our zones, lower case, with the final dot; answers with its addresses
  bool operator==(const TargetAlias&) const = default;
};

// The clients that a target of a `map` is for. If all lists are empty, it is for the clients that no other target
// names.
struct TargetClients {
  std::vector<Cidr> networks;
  std::vector<uint32_t> asns;
  std::vector<std::string> regions;    // ISO 3166-2: "US-CA"
  std::vector<std::string> countries;  // ISO 3166-1: "US"
  std::vector<std::string> continents;
  bool empty() const {
    return networks.empty() && asns.empty() && regions.empty() && countries.empty() && continents.empty();
  }
};

struct SteerTarget {
  std::variant<std::monostate, TargetVip, TargetPool, TargetSteer, TargetAlias> what;
  uint32_t weight = 100;
  uint32_t site = kNone;  // of a steer or an alias: where `nearest` assumes it to be
  TargetClients clients;

  // kNone if the target is of another type.
  uint32_t vip() const { return std::holds_alternative<TargetVip>(what) ? std::get<TargetVip>(what).vip : kNone; }
  uint32_t pool() const { return std::holds_alternative<TargetPool>(what) ? std::get<TargetPool>(what).pool : kNone; }
  uint32_t steer() const {
    return std::holds_alternative<TargetSteer>(what) ? std::get<TargetSteer>(what).steer : kNone;
  }
};

struct Steer {
  std::string name;  // owner name in a zone, lower case, with the final dot
  SteerPolicy policy = SteerPolicy::nearest;
  uint64_t ttl_s = 30;
  std::vector<SteerTarget> targets;  // in failover order
  uint32_t max_answers = 4;
  AllDown all_down = AllDown::open;
  bool https_record = false;      // answers HTTPS (RFC 9460) from the listeners that serve the name
  uint8_t client_prefix_v4 = 24;  // of `sticky` and `shed`: clients in the same network get the same target
  uint8_t client_prefix_v6 = 56;
};

struct Model;

// "vip:eu", "pool:app", "steer:www.example.test", "alias:cdn.example.net": the name that identifies the target within
// its steer. Empty if the target is of no type.
std::string target_label(const Model& model, const SteerTarget& target);

// Where the clients of a network are: a site, or a location from which the nearest site is computed.
struct GeoNetwork {
  Cidr network;
  uint32_t site = kNone;
  std::optional<Location> location;
};

struct Geo {
  // Path on the host of a City-like database. It is not an object of the version, because licences forbid copying it.
  std::string mmdb;
  std::vector<std::string> other_mmdbs;  // used for what the earlier ones do not say
  std::vector<GeoNetwork> networks;      // the longest prefix wins, and has precedence over the mmdb
  uint32_t default_site = kNone;
};

struct HttpDnsAccount {
  std::string id;
  std::string secret;
  bool allow_unsigned = false;
  std::vector<std::string> other_secrets;  // accepted in addition to `secret`
  std::string aes_key;                     // hexadecimal; empty: no encrypted requests
  std::string des_key;                     // eight characters; empty: no requests sealed by DES
  std::vector<std::string> tokens;         // each alone gives access to /d
  uint64_t rate = 0;                       // host names per second on each name server; 0: no limit
  uint64_t burst = 10'000;
};

// Lists that may have thousands of elements share them with the Models of other versions.
struct Model {
  std::vector<Site> sites;
  std::vector<Node> nodes;
  Elements<Vip> vips;
  Elements<Acl> acls;
  Elements<Service> services;
  Elements<Pool> pools;
  Elements<Probe> probes;
  Elements<Certificate> certificates;
  Acme acme;
  std::vector<Listener> listeners;
  Elements<Route> routes;
  Elements<Policy> policies;
  Elements<Zone> zones;
  Elements<Steer> steers;
  Geo geo;
  std::vector<HttpDnsAccount> httpdns_accounts;
  std::vector<uint32_t> httpdns_service;  // VIPs at which clients reach HTTPDNS
  uint64_t httpdns_client_rate = 1'000;   // host names per second of one client address; 0: no limit
  uint64_t httpdns_client_burst = 10'000;

  // Index of the node, or kNone.
  uint32_t node_index(std::string_view name) const {
    for (uint32_t i = 0; i < nodes.size(); ++i) {
      if (nodes[i].name == name) return i;
    }
    return kNone;
  }
};

}  // namespace tidegate
