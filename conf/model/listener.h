// SPDX-License-Identifier: Apache-2.0
// Listeners: the addresses and ports at which the proxy takes connections.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conf/model/common.h"
#include "core/ip.h"

namespace tidegate {

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
  // over HTTP/1: a client that has closed its sending side after a whole request gets its answer
  bool answer_half_closed = false;
  std::string server_name;  // replaces a missing Host in redirects; empty: the address that the client connected to
  std::vector<uint32_t> policies;
  bool default_deny = false;  // a request that no authorise policy allows is refused
};

}  // namespace tidegate
