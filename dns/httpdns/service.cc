// SPDX-License-Identifier: Apache-2.0
#include "dns/httpdns/service.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "conf/model.h"
#include "conf/model/site.h"

namespace tidegate::dns {
namespace {

// The addresses of a list of VIPs in the given order, of one family.
struct ServiceAddresses {
  std::string v4, v6;
  void add(const Vip& vip) {
    for (const IpAddress& address : vip.addresses) {
      std::string& list = address.is_v4() ? v4 : v6;
      list += fmt::format("{}\"{}\"", list.empty() ? "" : ",", address.to_string());
    }
  }
};

// The site that the client names as region comes first, then the sites in the order of the client's place.
size_t rank_of(const Vip& vip, std::string_view region, const Model& model, std::span<const uint32_t> order) {
  if (vip.site == kNone) return order.size() + 1;
  if (model.sites[vip.site].name == region) return 0;
  return 1 + static_cast<size_t>(std::find(order.begin(), order.end(), vip.site) - order.begin());
}

}  // namespace

HttpDnsAnswer answer_service(std::string_view region, const IpAddress& client, const Tables& tables) {
  const Authority& authority = *tables.authority;
  const Model& model = *authority.model;
  if (model.httpdns_service.empty()) return refuse_httpdns(HttpDnsError::service_not_configured);
  const auto order = tables.geo->order(tables.geo->locate(client));
  std::vector<uint32_t> vips = model.httpdns_service;
  std::stable_sort(vips.begin(), vips.end(), [&](uint32_t a, uint32_t b) {
    return rank_of(model.vips[a], region, model, order) < rank_of(model.vips[b], region, model, order);
  });
  ServiceAddresses addresses;
  for (const uint8_t needed : {health::kUsable, health::kFailOpen, uint8_t{0}}) {
    for (const uint32_t vip : vips) {
      if ((tables.health[vip] & needed) == needed) addresses.add(model.vips[vip]);  // HealthLayout: VIPs come first
    }
    if (!addresses.v4.empty() || !addresses.v6.empty()) break;
  }
  return {HttpDnsError::none, fmt::format("{{\"service_ip\":[{}],\"service_ipv6\":[{}]}}", addresses.v4, addresses.v6)};
}

}  // namespace tidegate::dns
