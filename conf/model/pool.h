// SPDX-License-Identifier: Apache-2.0
// Pools of backends, which the forwarder, the proxy and DNS use alike.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conf/model/common.h"
#include "conf/model/pool_parts.h"
#include "core/ip.h"

namespace tidegate {

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

}  // namespace tidegate
