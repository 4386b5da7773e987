// SPDX-License-Identifier: Apache-2.0
// Peers: how this control reaches others over TCP, the leader that it follows and the hosts that it asks, and on what
// terms its own API may be listened for there. Bearer tokens and, in the replica's stream, private keys go this way: by
// TLS, or in clear only on this host or where the operator asked for it by name.
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
  std::string token;   // presented to them; may be empty
  std::string ca_pem;  // not empty: TLS, with certificates of these roots that name the address
  bool insecure = false;

  // Error: it would be in clear beyond this host.
  Result<HttpTarget> target(const Endpoint& control) const;
  // Without target and body.
  HttpClientRequest request(const Endpoint& control) const;
};

bool is_loopback(const IpAddress& address);

// Reads the files of --peer-ca and the like. Errors name the option that would mend them.
Result<Peers> load_peers(const ControlOptions& options, std::string token);
// What options.listen serves with: null for plain text, where that is allowed.
Result<std::shared_ptr<TlsContext>> listener_tls(const ControlOptions& options);

}  // namespace tidegate
