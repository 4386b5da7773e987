// SPDX-License-Identifier: Apache-2.0
// KnownClients: clients that a policy knows by a secret, as exchanges look them up.
//
// Threads: any; a table is never changed once it is made.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "conf/policy/authenticate.h"
#include "conf/policy/jwks.h"

namespace tidegate::l7 {

// A known client, and its roles in the form that an exchange holds.
struct Known {
  std::string name;
  std::string hash;
  std::vector<std::string> roles;
  std::vector<std::string_view> role_views;
};

// By name, or by the bytes of a hash. The views are of texts in the map's own nodes, which do not move.
using KnownClients = std::map<std::string, Known, std::less<>>;

// A client that signs its requests.
struct Signer {
  std::vector<std::string> secrets;  // several, while the client changes from one to another
  Known known;
};
using Signers = std::map<std::string, Signer, std::less<>>;  // by keyid

// By the SHA-256 of the key, as bytes.
std::shared_ptr<const KnownClients> known_by_key(const ApiKeys& keys);
std::shared_ptr<const KnownClients> known_by_name(const BasicUsers& users);
// `keys`: those of the rules' set. Only secrets count.
std::shared_ptr<const Signers> known_signers(const SignatureRules& rules, const std::vector<Jwk>& keys);

}  // namespace tidegate::l7
