// SPDX-License-Identifier: Apache-2.0
// Peers: how this control reaches other controls over TCP (its leader, and the hosts that it asks), and how its own API
// listens there. Bearer tokens and, in the replica's stream, private keys take this way. So it uses TLS. Plain TCP is
// for this host only, unless the operator asks for it with --insecure.
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
  std::string token;   // presented to other controls; may be empty
  std::string ca_pem;  // if not empty: TLS, with certificates of these roots for the address
  bool insecure = false;

  // Gives an Error if it would be plain TCP beyond this host.
  Result<HttpTarget> target(const Endpoint& control) const;
  // Makes a request without target and body.
  HttpClientRequest request(const Endpoint& control) const;
};

bool is_loopback(const IpAddress& address);

// Reads the files of --peer-ca and of the other options. Errors name the option that helps.
Result<Peers> load_peers(const ControlOptions& options, std::string token);
// Returns the TLS context for options.listen. It is null for plain TCP where that is allowed.
Result<std::shared_ptr<TlsContext>> listener_tls(const ControlOptions& options);

}  // namespace tidegate
