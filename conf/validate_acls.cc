// SPDX-License-Identifier: Apache-2.0
// Cross checks of client lists, and of the limits of services.
#include <fmt/format.h>

#include <algorithm>

#include "conf/acl.h"
#include "conf/checks.h"
#include "conf/limits.h"
#include "conf/model.h"
#include "conf/model/service.h"
#include "conf/names.h"

namespace tidegate {
namespace {

// Returns the number of networks that the list names.
size_t check_acl_networks(Checks& checks, size_t a) {
  const Acl& acl = checks.model().acls[a];
  std::shared_ptr<const AclFile> read;
  if (!acl.file.name.empty() && checks.sound({"acls", a, "file"})) {
    if (acl.file.bytes == nullptr) {
      checks.refuse({"acls", a, "file"},
                    {"unusable_file", fmt::format("file '{}' holds a private key", acl.file.name), "networks", {}});
    } else if (read = read_acl_file(acl.file); read->fault) {
      checks.refuse({"acls", a, "file"},
                    {"unusable_file",
                     fmt::format("{}:{}: {}", acl.file.name, read->fault->line, read->fault->detail),
                     "a network a line, such as 192.0.2.0/24",
                     {}});
    }
  }
  const size_t networks = acl.networks.size() + (read ? read->networks.size() : 0);
  if (networks > kMaxAclNetworks) {
    checks.refuse({"acls", a, "networks"}, {"too_many_networks", fmt::format("the list names {} networks", networks),
                                            fmt::format("at most {}", kMaxAclNetworks), "the rest into another list"});
  }
  return networks;
}

void check_acl(Checks& checks, size_t a) {
  const Acl& acl = checks.model().acls[a];
  if (acl.networks.empty() && acl.countries.empty() && !checks.written({"acls", a, "file"})) {
    checks.refuse(
        {"acls", a},
        {"missing_key", fmt::format("list '{}' names no clients", acl.name), "networks, file or countries", {}});
  }
  for (size_t i = 0; i < acl.countries.size(); ++i) {
    const std::string& each = acl.countries[i];
    if (each.size() == 2 && std::all_of(each.begin(), each.end(), [](char c) { return c >= 'A' && c <= 'Z'; }))
      continue;
    checks.refuse({"acls", a, "countries", i},
                  {"bad_value", fmt::format("{} is no country", in_quotes(each)), "two capitals, as 'DE'", {}});
  }
  if (acl.countries.empty() || !checks.model().geo.mmdb.empty()) return;
  checks.refuse({"acls", a, "countries"}, {"missing_key", "nothing tells where clients are", "'geo' with 'mmdb'", {}});
}

// After a minute without packets a bucket counts as full, so it must be full by then.
constexpr uint64_t kMostBurstSeconds = 60;

void check_burst(Checks& checks, size_t s, const char* rate_key, uint64_t rate, const char* burst_key, uint64_t burst) {
  if (burst == 0 || (rate != 0 && burst <= kMostBurstSeconds * rate)) return;
  checks.refuse({"services", s, "limits", burst_key},
                {"bad_value",
                 fmt::format("{} is {} and {} is {}", burst_key, burst, rate_key, rate),
                 fmt::format("at most {} times {}", kMostBurstSeconds, rate_key),
                 {}});
}

void check_service_limits(Checks& checks, size_t s) {
  const Service& service = checks.model().services[s];
  const ServiceLimits& limits = service.limits;
  check_burst(checks, s, "packets", limits.packets, "packets_burst", limits.packets_burst);
  check_burst(checks, s, "flows", limits.flows, "flows_burst", limits.flows_burst);
  check_burst(checks, s, "source_packets", limits.source_packets, "source_packets_burst", limits.source_packets_burst);
  check_burst(checks, s, "source_flows", limits.source_flows, "source_flows_burst", limits.source_flows_burst);
  if (service.tracking) return;
  for (const auto& [key, rate] : {std::pair("flows", limits.flows), std::pair("source_flows", limits.source_flows)}) {
    if (rate == 0) continue;
    checks.refuse({"services", s, "limits", key},
                  {"bad_value", "a service without tracking does not know which flows are new", "tracking", {}});
  }
}

void check_reset_unknown(Checks& checks, size_t s) {
  const Service& service = checks.model().services[s];
  if (!service.reset_unknown || (service.tracking && service.protocol == Protocol::tcp)) return;
  checks.refuse({"services", s, "reset_unknown"},
                {"bad_value",
                 service.tracking ? "UDP has no RST" : "a service without tracking knows no flows",
                 "a TCP service with tracking",
                 {}});
}

}  // namespace

void check_acls(Checks& checks) {
  const Model& model = checks.model();
  if (model.acls.size() > kMaxAcls) {
    checks.refuse({"acls"}, {"too_many_lists",
                             fmt::format("there are {} lists", model.acls.size()),
                             fmt::format("at most {}", kMaxAcls),
                             {}});
  }
  size_t networks = 0;
  for (size_t a = 0; a < model.acls.size() && !checks.full(); ++a) {
    check_acl(checks, a);
    networks += check_acl_networks(checks, a);
  }
  if (networks > kMaxNetworksOfAcls) {
    checks.refuse({"acls"}, {"too_many_networks",
                             fmt::format("all lists name {} networks", networks),
                             fmt::format("at most {}", kMaxNetworksOfAcls),
                             {}});
  }
  for (size_t s = 0; s < model.services.size() && !checks.full(); ++s) {
    if (!checks.sound({"services", s})) continue;
    check_service_limits(checks, s);
    check_reset_unknown(checks, s);
  }
}

}  // namespace tidegate
