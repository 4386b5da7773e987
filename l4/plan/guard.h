// SPDX-License-Identifier: Apache-2.0
// Guard: the checks of a service before a backend is chosen: lists of clients that may or may not come, and limits of
// what they send. A service without such keys has none. Immutable, part of ForwardingTables.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "conf/model/service.h"
#include "l4/ids.h"
#include "l4/plan/source_lists.h"
#include "l4/tokens.h"

namespace tidegate::l4 {

// The networks of each country that a list names. They come from databases on the host.
using CountryNetworks = std::map<std::string, std::vector<Cidr>>;

enum class Admission : uint8_t { open, allowed, denied, not_allowed };

struct ListDecision {
  Admission admission = Admission::open;
  AclId list = kNoAcl;  // the list that decided; none for `open` and `not_allowed`
};

struct Guard {
  ServiceId service = kNoService;
  // The decision about a client, by the set of lists that contain it. Empty: the service has no lists.
  std::vector<ListDecision> decisions;
  Rate packets, flows;                // limits for all clients together
  Rate source_packets, source_flows;  // limits for the clients of one network
  AddressWords mask_v4, mask_v6;      // masks for such a network

  bool bounds_sources() const { return source_packets.per_second != 0 || source_flows.per_second != 0; }
  const AddressWords& mask(uint8_t family) const { return family == 4 ? mask_v4 : mask_v6; }
};

// The mask for a network of this length.
AddressWords prefix_mask(uint8_t family, uint8_t prefix);

// The decision of the first list of `deny` that contains the client, otherwise of the first list of `allow`. Lists are
// given by their index in the model; `ids` are their ids.
ListDecision decide_by_lists(const std::vector<uint16_t>& lists_of_client, const std::vector<uint32_t>& deny,
                             const std::vector<uint32_t>& allow, const std::vector<AclId>& ids);

// Null if the service has no such keys.
std::unique_ptr<Guard> make_guard(const Service& service, ServiceId id, const SourceLists* lists,
                                  const std::vector<AclId>& acl_ids);

}  // namespace tidegate::l4
