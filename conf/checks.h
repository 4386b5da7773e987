// SPDX-License-Identifier: Apache-2.0
// Checks: what every cross check needs: the model, the document behind it, and where faults were found already.
#pragma once

#include <initializer_list>
#include <set>
#include <string>
#include <string_view>

#include "conf/document_node.h"
#include "conf/fault_list.h"
#include "conf/model.h"

namespace tidegate {

constexpr uint16_t kDefaultRedirect = 302;

// A step from the document's root: a key, or the index of an element (which is its index in the model too).
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
  Checks(const DocumentNode& root, Model& model, FaultList& faults);

  Model& model() { return model_; }
  bool full() const { return faults_.full(); }

  // The value, or null where nothing is written.
  const DocumentNode* find(Way way) const;
  bool written(Way way) const { return find(way) != nullptr; }
  // No fault was found there or below before the cross checks began: what the model holds there is what was meant.
  bool sound(Way way) const;
  // At the value; where it is not written, at the innermost one on the way that is.
  void refuse(Way way, Complaint complaint);
  // ", line 12" for sentences that name a second place; empty for documents without places.
  std::string line_of(Way way) const;

 private:
  const DocumentNode& root_;
  Model& model_;
  FaultList& faults_;
  std::set<std::string> faulty_;  // pointers
};

void check_nodes(Checks& checks);            // validate_traffic.cc
void check_traffic(Checks& checks);          // validate_traffic.cc: vips, services, pools
void check_addresses(Checks& checks);        // validate_addresses.cc: of VIPs, ports, backends
void check_http(Checks& checks);             // validate_http.cc: certificates, listeners, routes
void check_ports(Checks& checks);            // validate_ports.cc: what daemons of a node bind
void check_route_conflicts(Checks& checks);  // validate_routes.cc
void check_dns(Checks& checks);              // validate_dns.cc: zones, steers, geo

}  // namespace tidegate
