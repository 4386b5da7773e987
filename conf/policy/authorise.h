// SPDX-License-Identifier: Apache-2.0
// The keys of authorise: who may do what.
#pragma once

#include <string>
#include <vector>

#include "conf/model/policy.h"
#include "core/ip.h"

namespace tidegate {

struct AuthoriseClaim {
  std::string name;                 // or a path into nested objects, with dots
  std::vector<std::string> values;  // one of them is enough
};

struct AuthoriseRule {
  std::vector<std::string> methods;    // empty: any
  std::vector<std::string> roles;      // one of them is enough; empty: every client that is known
  std::vector<AuthoriseClaim> claims;  // of its token; all of them must match
};

// Rules by what the databases of `geo` say about the client's address.
struct AuthorisePlaces {
  bool enabled = false;
  std::vector<std::string> allow_countries, deny_countries;  // ISO 3166-1, "DE"
  std::vector<uint64_t> allow_asns, deny_asns;
  bool any() const {
    return enabled && !(allow_countries.empty() && deny_countries.empty() && allow_asns.empty() && deny_asns.empty());
  }
  // True if the rule names clients that are allowed. A rule may also only name clients that are refused.
  bool allows() const { return enabled && !(allow_countries.empty() && allow_asns.empty()); }
};

struct AuthorisePolicy final : PolicyPart {
  std::vector<Cidr> allow;  // empty: every address
  std::vector<Cidr> deny;
  AuthorisePlaces places;
  // the first rule that has the request's method decides; without one the request is refused
  std::vector<AuthoriseRule> rules;

  // Whether a request that passes counts as allowed, where a listener denies by default.
  bool allows() const { return !allow.empty() || !rules.empty() || places.allows(); }
};

}  // namespace tidegate
