// SPDX-License-Identifier: Apache-2.0
// The keys of VIPs, services, pools and probes: which traffic is balanced over which backends.
#include "conf/field_builders.h"
#include "conf/model/pool.h"
#include "conf/model/probe.h"
#include "conf/model/service.h"
#include "conf/model/site.h"

namespace tidegate {

using namespace fields;

namespace {

const Section& backend_section() {
  static const Section section{
      "backend",
      {
          name(&Backend::name, "Unique in its pool. Logs, metrics and drains use it."),
          row("addresses", FieldType::address, &Backend::addresses,
              "At most one for each address family. Exactly one of addresses, host, srv and socket is given."),
          row("host", FieldType::domain, &Backend::host,
              "A name that the proxy looks up (A, AAAA) at the node's `dns.resolvers`: each address is a server of its "
              "own. A change cuts no request; a failed lookup keeps the last addresses. If a probe, a "
              "service or a steer uses the pool, control looks it up for the whole edge, at the resolvers of its own "
              "node, and each server has its own verdict."),
          row("srv", FieldType::domain, &Backend::srv,
              "A name like `_http._tcp.app.internal` that is looked up (SRV) as `host` is: hosts, ports, weights; "
              "hosts of "
              "a later priority are used if the others are not enough."),
          text("socket", &Backend::socket, "The path of a unix socket on the proxy's host.", 107),
          integer("port", &Backend::port, {0, 65'535},
                  "The port to which the proxy connects. A pool of the forwarder needs none: with l2dsr packets keep "
                  "the service's port."),
          integer("weight", &Backend::weight, {0, 65'535}, "Share of new work. 0: none, as if it were drained."),
          integer("mtu", &Backend::mtu, {0, 65'535},
                  "The longest packet, with its outer header, that the path of a tunnel to it takes. 0: as the "
                  "forwarder's link."),
          reference("node", &Backend::node, "nodes",
                    "The node that this backend is, so that explanations can follow a request to it."),
          reference("site", &Backend::site, "sites", "Where it is, for a pool with `prefer_site`."),
          boolean("backup", &Backend::backup,
                  "The proxy uses it only for what the other backends of the pool cannot take."),
          row("labels", FieldType::name, &Backend::labels, "Words by which routes choose a part of the pool."),
      }};
  return section;
}

}  // namespace

const Section& vip_section() {
  static const Section section{
      "vip",
      {
          name(&Vip::name, "What services and steers refer to."),
          reference("site", &Vip::site, "sites", "The site of the addresses."),
          required(row(
              "addresses", FieldType::address, &Vip::addresses,
              "Each address belongs to one VIP only. If several forwarders of the site have a port in the network of "
              "the address, the first of them that is up, in the order of `nodes`, answers for it.")),
      }};
  return section;
}

const Section& acl_section() {
  static const Section section{
      "acl",
      {
          name(&Acl::name, "What services refer to. Counters and explanations use it."),
          row("networks", FieldType::cidr, &Acl::networks, "The clients' addresses."),
          row("file", FieldType::file, &Acl::file,
              "A file of further networks, one a line; comments begin with `#`. It is part of the version."),
          bounded("countries", FieldType::text, &Acl::countries, {2, 2},
                  "The clients' countries (ISO 3166-1), like `US`, as the mmdb files of `geo` say. The forwarder reads "
                  "them again when they change."),
      }};
  return section;
}

namespace {

constexpr uint64_t kMostRate = 100'000'000, kMostBurst = 4'000'000;

const Section& service_limits_section() {
  static const Section section{
      "limits section",
      {
          integer("packets", &ServiceLimits::packets, {0, kMostRate},
                  "Packets a second of all clients together. What is over it is dropped as `service_packets`. 0: no "
                  "bound."),
          integer("packets_burst", &ServiceLimits::packets_burst, {0, kMostBurst},
                  "How many may come at once. 0: as many as in a second."),
          integer("flows", &ServiceLimits::flows, {0, kMostRate},
                  "New flows a second of all clients together. What is over it is dropped as `service_flows`. 0: no "
                  "bound."),
          integer("flows_burst", &ServiceLimits::flows_burst, {0, kMostBurst}, "How many may begin at once."),
          integer("source_packets", &ServiceLimits::source_packets, {0, kMostRate},
                  "Packets a second of the clients of one network, dropped as `source_packets` above that. Each worker "
                  "counts for itself: a network whose flows are spread over several workers may send as many times "
                  "more. 0: no bound."),
          integer("source_packets_burst", &ServiceLimits::source_packets_burst, {0, kMostBurst},
                  "How many may come at once."),
          integer("source_flows", &ServiceLimits::source_flows, {0, kMostRate},
                  "New flows a second of the clients of one network, dropped as `source_flows` above that; each worker "
                  "counts for itself. 0: no bound."),
          integer("source_flows_burst", &ServiceLimits::source_flows_burst, {0, kMostBurst},
                  "How many may begin at once."),
          integer("source_prefix_v4", &ServiceLimits::source_prefix_v4, {1, 32},
                  "The prefix length of such a network of IPv4."),
          integer("source_prefix_v6", &ServiceLimits::source_prefix_v6, {1, 128},
                  "The prefix length of such a network of IPv6."),
      }};
  return section;
}

}  // namespace

const Section& service_section() {
  static const Section section{
      "service",
      {
          name(&Service::name, "Metrics and explanations use it."),
          required(reference("vip", &Service::vip, "vips", "The VIP whose addresses it serves.")),
          choice("protocol", &Service::protocol, {{"tcp", Protocol::tcp}, {"udp", Protocol::udp}},
                 "The protocol that it serves."),
          required(integer("port", &Service::port, {1, 65'535},
                           "The port of the VIP, and of the backends; with `last_port` the first of a range.")),
          integer("last_port", &Service::last_port, {0, 65'535},
                  "The last port of a range. A service of a single port within it goes first. 0: only `port`."),
          required(reference("pool", &Service::pool, "pools", "The pool that gets the packets.")),
          choice("forwarding", &Service::forwarding,
                 {{"l2dsr", Forwarding::l2dsr},
                  {"ipip", Forwarding::ipip},
                  {"gue", Forwarding::gue},
                  {"vxlan", Forwarding::vxlan}},
                 "How packets reach a backend, which holds the VIP and answers clients directly. `l2dsr`: with another "
                 "destination MAC address, on the same segment. The others: in a tunnel to the backend's address, "
                 "anywhere."),
          integer("vni", &Service::vni, {0, 16'777'215}, "The VXLAN network identifier; for `vxlan` only."),
          integer("tunnel_port", &Service::tunnel_port, {0, 65'535},
                  "The UDP port of `gue` and `vxlan` on the backend. 0: 6080 or 4789."),
          choice("flow_key", &Service::flow_key, {{"five_tuple", FlowKey::five_tuple}, {"client", FlowKey::client}},
                 "What is hashed to pick a backend; `client` keeps all of a client's flows on one backend."),
          boolean("tracking", &Service::tracking,
                  "Remember flows, so that they stay on their backend when the pool changes."),
          duration("tcp_syn_timeout", &Service::tcp_syn_timeout_ms, {kSecond, kHour},
                   "How long a TCP flow is kept of which only the SYN was seen."),
          duration("tcp_idle_timeout", &Service::tcp_idle_timeout_ms, {kSecond, 7 * kDay},
                   "How long an open TCP flow is kept without packets."),
          duration("tcp_closing_timeout", &Service::tcp_closing_timeout_ms, {kSecond, kHour},
                   "How long a TCP flow is kept after FIN or RST."),
          duration("udp_idle_timeout", &Service::udp_idle_timeout_ms, {kSecond, kDay},
                   "How long a UDP flow is kept without packets."),
          reference("allow", &Service::allow, "acls",
                    "Lists of clients that may come. If there are any, others are dropped as `acl_not_allowed`."),
          reference("deny", &Service::deny, "acls",
                    "Lists of clients that may not come, even if `allow` has them; dropped as `acl_denied`."),
          nested("limits", &Service::limits, service_limits_section(),
                 "Bounds of what clients send. Tokens are saved up to the burst; see l4/README.md for the error with "
                 "several workers."),
          boolean("reset_unknown", &Service::reset_unknown,
                  "Packets of TCP flows that the forwarder does not know are answered by RST from the VIP, at most "
                  "1,000 a second and worker, instead of being forwarded by the hash. Not where several forwarders "
                  "take a VIP's packets in turn: one would reset the flows of another."),
      }};
  return section;
}

namespace {

const Section& breaker_section() {
  static const Section section{
      "breaker",
      {
          enabled<PoolBreaker>(),
          choice("scope", &PoolBreaker::scope, {{"backend", BreakerScope::backend}, {"pool", BreakerScope::pool}},
                 "`backend`: each backend has its own, and requests go to the others. `pool`: one for all; while it is "
                 "open, requests get 503."),
          duration("window", &PoolBreaker::window_ms, {100 * kMs, kHour}, "The time over which rates are counted."),
          integer("minimum_requests", &PoolBreaker::minimum_requests, {1, 1'000'000},
                  "Requests that the window must have before a rate counts."),
          number("error_rate", &PoolBreaker::error_rate, 0, 1,
                 "It opens if at least this fraction of the requests fails. 0: it does not count."),
          duration("slow", &PoolBreaker::slow_ms, {0, kHour}, "An answer whose head takes longer is slow. 0: none is."),
          number("slow_rate", &PoolBreaker::slow_rate, 0, 1,
                 "It opens if at least this fraction of the answers is slow. 0: it does not count."),
          integer("consecutive_failures", &PoolBreaker::consecutive_failures, {0, 1'000'000},
                  "It opens after so many failures in a row. 0: they do not count."),
          duration("open", &PoolBreaker::open_ms, {10 * kMs, kDay}, "How long it lets no request through."),
          integer("trials", &PoolBreaker::trials, {1, 10'000},
                  "Requests that it lets through then, all workers together. It closes if all of them go well, and "
                  "opens again if one fails or is slow."),
      }};
  return section;
}

const Section& sticky_section() {
  static const Section section{
      "sticky",
      {
          choice("by", &PoolSticky::by,
                 {{"none", StickyBy::none}, {"cookie", StickyBy::cookie}, {"header", StickyBy::header}},
                 "What carries the token: a cookie, or a field of requests and answers."),
          bounded("name", FieldType::name, &PoolSticky::name, {1, 64}, "Of the cookie or the field."),
          duration("ttl", &PoolSticky::ttl_ms, {0, 365 * kDay},
                   "How long a token is good. 0: for the client's session, and at most a day."),
      }};
  return section;
}

}  // namespace

const Section& pool_section() {
  static const Section section{
      "pool",
      {
          name(&Pool::name, "What services, routes and steers refer to."),
          required(nested("backends", &Pool::backends, backend_section(), "The servers of the pool.")),
          reference("probe", &Pool::probe, "probes",
                    "The probe that checks the backends. Without one, they count as up."),
          choice("policy", &Pool::policy,
                 {{"weighted_round_robin", PoolPolicy::weighted_round_robin},
                  {"least_requests", PoolPolicy::least_requests},
                  {"random_of_two", PoolPolicy::random_of_two},
                  {"peak_ewma", PoolPolicy::peak_ewma},
                  {"consistent_hash", PoolPolicy::consistent_hash},
                  {"ring_hash", PoolPolicy::ring_hash}},
                 "How the proxy picks. `random_of_two`: the one of two random backends with fewer requests under way. "
                 "`peak_ewma`: the one of two whose answers take less time, counted for each request under way. "
                 "`consistent_hash`: Maglev. `ring_hash`: a ring of points. The forwarder always picks by weighted "
                 "Maglev hashing."),
          text("hash_on", &Pool::hash_on,
               "For consistent_hash and ring_hash: `client`, `path`, or `header:` and a field's name.", 128),
          number("load_bound", &Pool::load_bound, 1.0, 100.0,
                 "For consistent_hash and ring_hash: no backend gets more than this times the mean load."),
          duration("slow_start", &Pool::slow_start_ms, {0, kHour},
                   "A backend that comes into service gets a tenth of its share at first, and its whole share after "
                   "this time. 0: at once."),
          boolean("prefer_site", &Pool::prefer_site,
                  "Backends of the proxy's own `site` go first; others get what these cannot take."),
          number("spare_capacity", &Pool::spare_capacity, 1.0, 10.0,
                 "With `prefer_site` or backups: the healthy backends of a level can take so many times their share "
                 "before the next level must help."),
          number("panic_threshold", &Pool::panic_threshold, 0, 1,
                 "If less than this fraction of the pool's weight is in service, health no longer counts: all backends "
                 "that are not drained are used. 0: never."),
          number("up_threshold", &Pool::up_threshold, 0, 1,
                 "The pool counts as up if at least this fraction of its weight is up. 0: one backend is enough."),
          choice("all_down", &Pool::all_down, {{"open", AllDown::open}, {"closed", AllDown::closed}},
                 "If no backend is usable: `open` uses all that are not drained, `closed` refuses."),
          boolean("tls", &Pool::tls, "Speak TLS to the backends."),
          choice(
              "protocol", &Pool::protocol,
              {{"h1", BackendProtocol::h1}, {"h2", BackendProtocol::h2}, {"auto", BackendProtocol::automatic}},
              "HTTP/1.1, HTTP/2 (over TLS or by prior knowledge), or with `tls` what the backend chooses of both by "
              "ALPN. gRPC needs HTTP/2. A tunnel (WebSocket, `upgrades`) goes over HTTP/2 as an extended CONNECT (RFC "
              "8441), if the backend's SETTINGS allow that. If they do not, `auto` opens it over HTTP/1.1, and `h2` "
              "answers 501 to a WebSocket."),
          boolean("tls_verify", &Pool::tls_verify,
                  "Check their certificates: the authority and the name. `false` believes whoever answers."),
          row("tls_ca_file", FieldType::file, &Pool::tls_ca,
              "Whose certificates are believed, PEM; without it the system's authorities."),
          text("tls_server_name", &Pool::tls_server_name,
               "The name to ask for and to check; without it none is asked for, and the backend's address is checked.",
               253),
          reference("tls_certificate", &Pool::tls_certificate, "certificates",
                    "With `tls`: the certificate that the proxy shows to the backends."),
          choice("proxy_protocol", &Pool::proxy_protocol,
                 {{"none", ProxyProtocol::none}, {"v1", ProxyProtocol::v1}, {"v2", ProxyProtocol::v2}},
                 "Begin each connection with a PROXY header that names the client. Then connections are not shared "
                 "between clients."),
          row("local_addresses", FieldType::address, &Pool::local_addresses,
              "The proxy's own addresses from which it connects, at most one for each address family."),
          duration("lookup_min", &Pool::lookup_min_ms, {10 * kMs, kDay},
                   "For backends with host or srv: an answer is kept at least so long, whatever its TTL."),
          duration("lookup_max", &Pool::lookup_max_ms, {10 * kMs, kDay}, "And at most so long."),
          duration("connect_timeout", &Pool::connect_timeout_ms, {kMs, 5 * kMinute},
                   "From the start of a try to a usable connection, TLS included."),
          duration("first_byte_timeout", &Pool::first_byte_timeout_ms, {kMs, kHour},
                   "From the request's last byte to the response's head, for one try."),
          duration("idle_timeout", &Pool::idle_timeout_ms, {kMs, kHour},
                   "Between two moves of a body: bytes that come from the backend, or that it takes."),
          duration("tunnel_timeout", &Pool::tunnel_timeout_ms, {kMs, 7 * kDay},
                   "Silence of a tunnel (WebSocket, `upgrades`); once one side has ended, idle_timeout."),
          size(
              "buffer_request", &Pool::buffer_request_bytes, {0, 64 * kMB},
              "A request's body is kept until it is whole; only then a backend is asked, and gets its length. A larger "
              "body, or one for which there is no memory, passes as it comes. Calls of gRPC and tunnels are not kept. "
              "0: each passes as it comes."),
          size("buffer_response", &Pool::buffer_response_bytes, {0, 64 * kMB},
               "So much of a response is taken from the backend before its client has read it. 0: none."),
          row("upgrades", FieldType::text, &Pool::upgrades,
              "Protocols, as the field Upgrade names them, to which a connection may change besides `websocket`, which "
              "always may. What follows passes as it is, whatever routes and policies say."),
          duration("keepalive_timeout", &Pool::keepalive_timeout_ms, {0, kHour},
                   "How long an unused connection is kept."),
          integer("keepalive_connections", &Pool::keepalive_connections, {0, 65'536},
                  "Unused connections that a worker keeps."),
          integer("max_connections", &Pool::max_connections, {1, 1'000'000}, "Connections of a worker to one backend."),
          integer("queue_size", &Pool::queue_size, {0, 1'000'000},
                  "Requests of a worker that may wait while every backend has its max_connections; 0: none, they get "
                  "503 at once. A quarter of the places is a client's own. Its further requests use what nobody else "
                  "needs: they go last, and in a full queue they give way to those of other clients."),
          duration("queue_timeout", &Pool::queue_timeout_ms, {kMs, kHour}, "How long a request waits there; then 503."),
          number("retry_budget", &Pool::retry_budget, 0, 1,
                 "Most retries, as a fraction of requests, so that retries do not make an outage worse."),
          integer("retry_attempts", &Pool::retry_attempts, {0, 16}, "Retries of one request, each on another backend."),
          integer("eject_after", &Pool::eject_after, {0, 1'000'000},
                  "Consecutive failures after which a backend gets no requests for a while. 0: never."),
          duration("eject", &Pool::eject_ms, {100 * kMs, kDay}, "How long it gets no requests."),
          number("eject_max_share", &Pool::eject_max_share, 0, 1,
                 "The largest fraction of the pool's backends that may be ejected at one time; one always may."),
          boolean("count_5xx", &Pool::count_5xx,
                  "Answers with status 5xx count as failures, for `eject_after` and for the breaker."),
          nested("breaker", &Pool::breaker, breaker_section(),
                 "A circuit breaker: a backend, or the pool, that fails too often is left alone for a while."),
          nested("sticky", &Pool::sticky, sticky_section(),
                 "Keeps a client on its backend, while that may be used, by a token signed with the site's secret. "
                 "Answers that the cache stores or shares carry none."),
      }};
  return section;
}

constexpr uint64_t kMaxProbeText = 1'024;

const Section& probe_section() {
  static const Section section{
      "probe",
      {
          name(&Probe::name, "What pools refer to."),
          choice("type", &Probe::type,
                 {{"tcp", ProbeType::tcp},
                  {"http", ProbeType::http},
                  {"https", ProbeType::https},
                  {"udp", ProbeType::udp},
                  {"dns", ProbeType::dns},
                  {"tls", ProbeType::tls},
                  {"grpc", ProbeType::grpc},
                  {"command", ProbeType::command}},
                 "`tcp`: the connection opens, and with `expect` the backend sends that text. `http`, `https`: the "
                 "response has the expected status. `udp`: the backend answers `send`, with `expect` by that text. "
                 "`dns`: it answers a query, over UDP, with the expected code. `tls`: the handshake succeeds, and the "
                 "certificate is good for `tls_days` more. `grpc`: grpc.health.v1 says SERVING, over HTTP/2. "
                 "`command`: a program of control's host ends with status 0."),
          integer("port", &Probe::port, {0, 65'535},
                  "The port to probe. 0: the backend's own port; with `via: vip` the port of each service."),
          choice("via", &Probe::via_vip, {{"backend", false}, {"vip", true}},
                 "`backend`: control asks the backend at its own address. `vip`: the forwarder of the VIP's site asks "
                 "for the VIP of each service that uses the pool, by the backend's MAC address or through its tunnel, "
                 "as it "
                 "forwards. So a backend that answers at its own address and not for the VIP is found. With types "
                 "`tcp`, `udp` and `dns`; of an answer the first 512 bytes are read."),
          bounded("path", FieldType::text, &Probe::path, {1, 1'024}, "The path that http and https probes request."),
          text("host", &Probe::host,
               "The Host field, and the name that https, tls and grpc send and check. Without it, the backend's "
               "address.",
               253),
          boolean("tls_verify", &Probe::tls_verify,
                  "For https, tls, and grpc with TLS: check the certificate, authority and name; a backend whose "
                  "certificate does not hold is down. `false` believes whoever answers."),
          row("tls_ca_file", FieldType::file, &Probe::tls_ca,
              "Whose certificates are believed, PEM; without it the system's authorities."),
          integer("expect_status", &Probe::expect_status, {100, 599}, "The status that the response must have."),
          bounded("send", FieldType::lines, &Probe::send, {0, kMaxProbeText},
                  "For tcp and udp: what is sent, once the connection is there. udp needs it. `\\r`, `\\n`, `\\t`, "
                  "`\\0`, `\\\\` and `\\xHH` mean a byte each; in single quotes they need no further escape."),
          bounded("expect", FieldType::lines, &Probe::expect, {0, kMaxProbeText},
                  "For tcp and udp: the answer contains this, within its first 4 KB. Escapes as in `send`. Without it, "
                  "udp takes any answer."),
          text("dns_name", &Probe::dns_name, "For dns: the name that is asked for.", 253),
          word("dns_type", &Probe::dns_type, {"A", "AAAA", "NS", "SOA", "MX", "TXT", "CNAME", "HTTPS"},
               "For dns: the type that is asked for."),
          word("dns_rcode", &Probe::dns_rcode, {"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"},
               "For dns: the code that the answer must have."),
          integer(
              "tls_days", &Probe::tls_days, {0, 3'650},
              "For tls: a certificate that ends within so many days takes the backend down. 0: one that has ended."),
          boolean("tls", &Probe::tls, "For grpc: over TLS, where h2 is chosen by ALPN; `false` speaks HTTP/2 at once."),
          text("grpc_service", &Probe::grpc_service,
               "For grpc: the service whose health is asked for. Without it, the server as a whole."),
          bounded("command", FieldType::lines, &Probe::command, {0, kMaxProbeText},
                  "For command: a program in the directory that control was given by `--probe-commands`, and its "
                  "arguments. `{address}`, `{port}` and `{name}` in an argument stand for the backend's. There is no "
                  "shell. After `timeout` it is killed with all that it started."),
          duration("hold", &Probe::hold_ms, {0, kHour},
                   "The least time between two changes of a backend's verdict. So a backend that flaps is written "
                   "rarely. The first verdict is no change. 0: `rise` and `fall` alone decide."),
          duration("interval", &Probe::interval_ms, {10 * kMs, kHour}, "From one probe's start to the next's."),
          duration("timeout", &Probe::timeout_ms, {10 * kMs, 5 * kMinute},
                   "Until an unanswered probe counts as a failure."),
          integer("rise", &Probe::rise, {1, 100}, "Consecutive successes until a backend is up."),
          integer("fall", &Probe::fall, {1, 100}, "Consecutive failures until it is down."),
      }};
  return section;
}

}  // namespace tidegate
