// SPDX-License-Identifier: Apache-2.0
// Peers: how this control reaches other controls over TCP (its leader, and the hosts that it asks), and how its own API
// listens there. These connections carry bearer tokens and, in the replica's stream, private keys. So they use TLS.
// Plain TCP is only for this host, unless the operator allows it with --insecure.
#pragma once

#include <memory>
#include <string>

#include "core/http_client.h"
#include "core/ip.h"
#include "core/result.h"
#include "core/tls.h"

namespace tidegate {

struct ControlOptions;

struct Peers {
  std::string token;  // presented to other controls; may be empty
  // if not empty: uses TLS; the peer's certificate must be for its address and signed by these roots
  std::string ca_pem;
  bool insecure = false;

  // Returns an Error if it would be plain TCP to another host.
  Result<HttpTarget> target(const Endpoint& control) const;
  // Makes a request without target and body.
  HttpClientRequest request(const Endpoint& control) const;
};

bool is_loopback(const IpAddress& address);

// Reads the file of --peer-ca and those of the other options. Errors name the option that helps.
Result<Peers> load_peers(const ControlOptions& options, std::string token);
// Returns the TLS context for options.listen. It is null for plain TCP, where that is allowed.
Result<std::shared_ptr<TlsContext>> listener_tls(const ControlOptions& options);

}  // namespace tidegate
