// SPDX-License-Identifier: Apache-2.0
// The keys of authorise: who may do what.
#pragma once

#include <string>
#include <vector>

#include "conf/policy_model.h"
#include "core/ip.h"

namespace tidegate {

struct AuthoriseClaim {
  std::string name;                 // or a path into nested objects, with dots
  std::vector<std::string> values;  // one of them is enough
};

struct AuthoriseRule {
  std::vector<std::string> methods;    // empty: any
  std::vector<std::string> roles;      // one of them is enough; empty: everybody who is known
  std::vector<AuthoriseClaim> claims;  // of its token; all of them
};

// By what the databases of `geo` say.
struct AuthorisePlaces {
  bool enabled = false;
  std::vector<std::string> allow_countries, deny_countries;  // ISO 3166-1, "DE"
  std::vector<uint64_t> allow_asns, deny_asns;
  bool any() const {
    return enabled && !(allow_countries.empty() && deny_countries.empty() && allow_asns.empty() && deny_asns.empty());
  }
  // Whether it names clients that may come, not only some that may not.
  bool allows() const { return enabled && !(allow_countries.empty() && allow_asns.empty()); }
};

struct AuthorisePolicy final : PolicyPart {
  std::vector<Cidr> allow;  // empty: every address
  std::vector<Cidr> deny;
  AuthorisePlaces places;
  std::vector<AuthoriseRule> rules;  // the first whose methods have the request's decides; none: refused

  // Whether a request that passes is allowed thereby, where a listener denies by default.
  bool allows() const { return !allow.empty() || !rules.empty() || places.allows(); }
};

}  // namespace tidegate
