// SPDX-License-Identifier: Apache-2.0
// Checks: the common data of all cross checks: the model, its document, and the places where faults were already found.
#pragma once

#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "conf/document_node.h"
#include "conf/fault_list.h"
#include "conf/model.h"

namespace tidegate {

// A step from the document's root: a key, or the index of a list element. The index is the same in the model.
struct Step {
  Step(std::string_view name) : key(name), in_map(true) {}  // NOLINT(google-explicit-constructor)
  Step(const char* name) : key(name), in_map(true) {}       // NOLINT(google-explicit-constructor)
  Step(size_t position) : index(position) {}                // NOLINT(google-explicit-constructor)

  std::string_view key;
  size_t index = 0;
  bool in_map = false;
};
using Way = std::initializer_list<Step>;

class Checks {
 public:
  Checks(const DocumentNode& root, const Model& model, FaultList& faults);

  const Model& model() const { return model_; }
  bool full() const { return faults_.full(); }

  // The value, or null if nothing is written there.
  const DocumentNode* find(Way way) const;
  bool written(Way way) const { return find(way) != nullptr; }
  // True if no fault was found there or below before the cross checks began. Then the model holds what the author
  // meant.
  bool sound(Way way) const;
  // Reports the fault at the value. If the value is not written, reports it at the innermost written value on the way
  // to it.
  void refuse(Way way, Complaint complaint);
  // Reports the fault at the byte `offset` of the text that is written there.
  void refuse_within(Way way, size_t offset, Complaint complaint);
  // The indices of the routes that name the policy themselves, in order.
  const std::vector<uint32_t>& routes_that_name(size_t policy);
  // ", line 12" for sentences that name a second place. Empty if the document has no places.
  std::string line_of(Way way) const;

 private:
  const DocumentNode& root_;
  const Model& model_;
  FaultList& faults_;
  std::set<std::string> faulty_;                           // JSON pointers
  std::vector<std::vector<uint32_t>> routes_of_policies_;  // made at the first use
};

void check_nodes(Checks& checks);        // in validate_traffic.cc
void check_access_logs(Checks& checks);  // in validate_access_log.cc
void check_traffic(Checks& checks);      // in validate_traffic.cc: vips, services, pools
void check_acls(Checks& checks);         // in validate_acls.cc: lists of clients, limits of services
void check_addresses(Checks& checks);    // in validate_addresses.cc: addresses of VIPs, ports, backends
void check_acme(Checks& checks);         // in validate_acme.cc: the authority, ordered certificates
void check_ocsp(Checks& checks);         // in validate_ocsp.cc: the questions to authorities about certificates
void check_probes(Checks& checks);       // in validate_probes.cc
void check_ports(Checks& checks);        // in validate_ports.cc: ports that the daemons of a node bind
void check_dns(Checks& checks);          // in validate_dns.cc: zones, geo, httpdns
void check_steers(Checks& checks);       // in validate_steers.cc

// `before`: as for validate().
// Certificates, listeners, routes: in validate_http.cc.
void check_http(Checks& checks, const Model* before);
// Pairs of routes that tie: in validate_routes.cc.
void check_route_conflicts(Checks& checks, const Model* before);

inline const char* family_name(const IpAddress& address) { return address.is_v4() ? "IPv4" : "IPv6"; }

// Clients in such a network are located by the IPv4 address that their IPv6 address contains, so the network itself
// would have no effect. Returns nothing for any other network.
std::optional<Complaint> complaint_of_carried_ipv4(const Cidr& network);

}  // namespace tidegate
