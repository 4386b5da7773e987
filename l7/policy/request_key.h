// SPDX-License-Identifier: Apache-2.0
// RequestKey: a number that identifies what a limit counts a request by: a keyed hash of the parts that `by` names
// (conf/policy/limit.h). Immutable; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/policy/limit.h"
#include "core/hash.h"
#include "core/ip.h"
#include "l7/policy/places.h"
#include "l7/policy/policy.h"

namespace tidegate::l7::policy {

class RequestKey {
 public:
  RequestKey(const std::vector<LimitBy>& by, uint8_t prefix_v4, uint8_t prefix_v6, const HashKey& key);
  // Of a policy that is compiled: it can have `country`.
  RequestKey(const std::vector<LimitBy>& by, uint8_t prefix_v4, uint8_t prefix_v6, Compiling& out);

  // `address`: the parsed form of subject.client. The arena is used during the call.
  uint64_t of(const Subject& subject, const std::optional<IpAddress>& address, Arena& arena) const;
  // True if the key depends only on the client's address. Then of_client() equals of() for every request of that
  // client.
  bool by_client_alone() const { return by_client_alone_; }
  uint64_t of_client(const IpAddress& address) const;

 private:
  std::string_view client_bytes(const IpAddress& address, char* out) const;

  const std::vector<LimitBy> by_;
  std::shared_ptr<PlaceFiles> place_files_;  // kept for the next plan; null: no country counts
  std::shared_ptr<const Places> places_;     // null: none could be read either
  const bool by_client_alone_;
  const uint32_t mask_v4_;  // in network byte order
  const uint8_t prefix_v6_;
  const HashKey key_;
};

// The request's value for one word of `by`. Empty if there is none. The view is of the subject or of the arena.
std::string_view value_of(const LimitBy& by, const Subject& subject, Arena& arena);

// The subject of an exchange, for its rules.
Subject subject_of(const Exchange& exchange);
bool is_in(const std::vector<Cidr>& networks, const std::optional<IpAddress>& address);

}  // namespace tidegate::l7::policy
