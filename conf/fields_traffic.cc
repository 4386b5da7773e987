// SPDX-License-Identifier: Apache-2.0
// The keys of VIPs, services, pools and probes: which traffic is balanced over which backends.
#include "conf/field_builders.h"

namespace tidegate {

using namespace fields;

namespace {

const Section& backend_section() {
  static const Section section{
      "backend",
      {
          name(&Backend::name, "Unlike the others of its pool; stands in logs, metrics and drains."),
          required(row("addresses", FieldType::address, &Backend::addresses, "At most one a family.")),
          integer("port", &Backend::port, {0, 65'535},
                  "Where the proxy connects. A pool of the forwarder needs none: under l2dsr the service's own port "
                  "stays."),
          integer("weight", &Backend::weight, {0, 65'535}, "Share of new work; 0: none, like draining."),
          reference("node", &Backend::node, "nodes",
                    "The node that this backend is, so that explanations can follow a request to it."),
      }};
  return section;
}

}  // namespace

const Section& vip_section() {
  static const Section section{
      "vip",
      {
          name(&Vip::name, "What services and steers refer to."),
          reference("site", &Vip::site, "sites", "Where the addresses lead."),
          required(row("addresses", FieldType::address, &Vip::addresses, "No address stands in two VIPs.")),
      }};
  return section;
}

const Section& service_section() {
  static const Section section{
      "service",
      {
          name(&Service::name, "Stands in metrics and explanations."),
          required(reference("vip", &Service::vip, "vips", "Whose addresses it takes.")),
          choice("protocol", &Service::protocol, {{"tcp", Protocol::tcp}, {"udp", Protocol::udp}},
                 "What it takes there."),
          required(integer("port", &Service::port, {1, 65'535}, "Of the VIP, and of the backends.")),
          required(reference("pool", &Service::pool, "pools", "Who gets the packets.")),
          choice(
              "forwarding", &Service::forwarding, {{"l2dsr", Forwarding::l2dsr}},
              "`l2dsr`: the destination MAC address is rewritten; backends hold the VIP and answer clients directly."),
          choice("flow_key", &Service::flow_key, {{"five_tuple", FlowKey::five_tuple}, {"client", FlowKey::client}},
                 "What is hashed to pick a backend; `client` keeps all of a client's flows on one backend."),
          boolean("tracking", &Service::tracking,
                  "Remember flows, so that they stay on their backend when the pool changes."),
          duration("tcp_syn_timeout", &Service::tcp_syn_timeout_ms, {kSecond, kHour},
                   "A TCP flow of which only the SYN was seen."),
          duration("tcp_idle_timeout", &Service::tcp_idle_timeout_ms, {kSecond, 7 * kDay},
                   "An open TCP flow without packets."),
          duration("tcp_closing_timeout", &Service::tcp_closing_timeout_ms, {kSecond, kHour},
                   "A TCP flow after FIN or RST."),
          duration("udp_idle_timeout", &Service::udp_idle_timeout_ms, {kSecond, kDay}, "A UDP flow without packets."),
      }};
  return section;
}

const Section& pool_section() {
  static const Section section{
      "pool",
      {
          name(&Pool::name, "What services, routes and steers refer to."),
          required(nested("backends", &Pool::backends, backend_section(), "Who does the work.")),
          reference("probe", &Pool::probe, "probes", "How their health is found out; without one they count as up."),
          choice("policy", &Pool::policy,
                 {{"weighted_round_robin", PoolPolicy::weighted_round_robin},
                  {"least_requests", PoolPolicy::least_requests},
                  {"consistent_hash", PoolPolicy::consistent_hash}},
                 "How the proxy picks. The forwarder always picks by weighted Maglev hashing."),
          text("hash_on", &Pool::hash_on, "For consistent_hash: `client`, `path`, or `header:` and a field's name.",
               128),
          number("load_bound", &Pool::load_bound, 1.0, 100.0,
                 "For consistent_hash: no backend gets more than this times the mean load."),
          number("up_threshold", &Pool::up_threshold, 0, 1,
                 "Fraction of weight that must be up for the pool to count as up; 0: any one backend."),
          choice("all_down", &Pool::all_down, {{"open", AllDown::open}, {"closed", AllDown::closed}},
                 "When none is usable: use every one that is not drained, or refuse."),
          boolean("tls", &Pool::tls, "Speak TLS to the backends."),
          boolean("tls_verify", &Pool::tls_verify, "Check their certificates: the authority and the name."),
          row("tls_ca_file", FieldType::file, &Pool::tls_ca,
              "Whose certificates are believed, PEM; without it the system's authorities."),
          text("tls_server_name", &Pool::tls_server_name,
               "The name to ask for and to check; without it none is asked for, and the backend's address is checked.",
               253),
          duration("connect_timeout", &Pool::connect_timeout_ms, {kMs, 5 * kMinute}, "To connect, TLS included."),
          duration("first_byte_timeout", &Pool::first_byte_timeout_ms, {kMs, kHour},
                   "From the request's end to the response's first byte."),
          duration("idle_timeout", &Pool::idle_timeout_ms, {kMs, kHour}, "Between two reads of a body."),
          duration("tunnel_timeout", &Pool::tunnel_timeout_ms, {kMs, 7 * kDay},
                   "Silence of a WebSocket; once one side has ended, idle_timeout."),
          duration("keepalive_timeout", &Pool::keepalive_timeout_ms, {0, kHour},
                   "How long an unused connection is kept."),
          integer("keepalive_connections", &Pool::keepalive_connections, {0, 65'536},
                  "Unused connections that a worker keeps."),
          integer("max_connections", &Pool::max_connections, {1, 1'000'000}, "Connections of a worker to one backend."),
          number("retry_budget", &Pool::retry_budget, 0, 1,
                 "Retries as a fraction of requests, so that they never multiply an outage."),
          integer("retry_attempts", &Pool::retry_attempts, {0, 16}, "Retries of one request, each on another backend."),
          integer("eject_after", &Pool::eject_after, {0, 1'000'000},
                  "Consecutive failures until a backend is left alone for a while; 0: never."),
          duration("eject", &Pool::eject_ms, {100 * kMs, kDay}, "How long it is left alone."),
      }};
  return section;
}

const Section& probe_section() {
  static const Section section{
      "probe",
      {
          name(&Probe::name, "What pools refer to."),
          choice("type", &Probe::type,
                 {{"tcp", ProbeType::tcp}, {"http", ProbeType::http}, {"https", ProbeType::https}},
                 "`tcp`: the connection opens. `http`, `https`: the response has the expected status."),
          integer("port", &Probe::port, {0, 65'535}, "0: the backend's own."),
          bounded("path", FieldType::text, &Probe::path, {1, 1'024}, "What http and https probes ask for."),
          text("host", &Probe::host,
               "Host field, and the name that https asks for and checks; without it the backend's address.", 253),
          boolean("tls_verify", &Probe::tls_verify,
                  "Check the certificate, authority and name: a backend whose certificate does not hold is down."),
          row("tls_ca_file", FieldType::file, &Probe::tls_ca,
              "Whose certificates are believed, PEM; without it the system's authorities."),
          integer("expect_status", &Probe::expect_status, {100, 599}, "Of the response."),
          duration("interval", &Probe::interval_ms, {10 * kMs, kHour}, "From one probe's start to the next's."),
          duration("timeout", &Probe::timeout_ms, {10 * kMs, 5 * kMinute},
                   "Until an unanswered probe counts as a failure."),
          integer("rise", &Probe::rise, {1, 100}, "Consecutive successes until a backend is up."),
          integer("fall", &Probe::fall, {1, 100}, "Consecutive failures until it is down."),
      }};
  return section;
}

}  // namespace tidegate
