// SPDX-License-Identifier: Apache-2.0
// Geo: from a client's address to the order in which sites are preferred, and how wide a network that order holds for.
//
// Everything known is compiled once: the operator's networks (longest prefix first, and before the database), the
// MMDB's whole tree, the default. Neighbouring networks with the same order are merged, so that the prefix found for an
// address is the widest one around it in which every address gets the same order: exactly the SCOPE of RFC 7871.
//
// An IPv6 address that carries its host's IPv4 address, 6to4 (RFC 3056 §2) or v4-mapped (RFC 4291 §2.5.5.2), is located
// by that and by nothing else. Teredo's is not: its leading part is the address of a server.
//
// Immutable once built: any thread may ask.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "conf/model.h"
#include "core/ip.h"
#include "core/result.h"
#include "dns/steer/mmdb.h"
#include "dns/steer/prefix_map.h"

namespace tidegate::dns {

struct Located {
  uint16_t order = 0;  // for GeoMap::order()
  uint8_t scope = 0;   // prefix length, in the family of the address
};

// What is known of an address, for explain and the status page: told from the sources, not from the compiled map.
struct GeoExplanation {
  enum class Source : uint8_t { networks, mmdb, default_site, none } source = Source::none;
  uint32_t site = kNone;  // where a site was named directly
  std::optional<Location> location;
};
const char* name(GeoExplanation::Source source);

// Kilometres along the great circle (haversine, mean Earth radius).
double distance_km(const Location& a, const Location& b);

class GeoMap {
 public:
  // `sites` is the model's. `ranked` are the sites to put in order (those that steers may send to), as indexes into it.
  // The Error says what is wrong with the database.
  static Result<std::shared_ptr<const GeoMap>> build(const Geo& geo, const std::vector<Site>& sites,
                                                     std::vector<uint32_t> ranked);

  // The address by which a client is located: the IPv4 address that it carries, or itself.
  static IpAddress located_as(const IpAddress& address);
  // The scope is in the family of `address`.
  Located locate(const IpAddress& address) const;
  // Indexes into the model's sites, the most preferred first; all of `ranked`.
  std::span<const uint32_t> order(const Located& located) const {
    return std::span(orders_).subspan(located.order * ranked_.size(), ranked_.size());
  }
  // Whether neither the networks nor the database say where the client is. Cheap for one whose order is not that of
  // the default site.
  bool is_unknown(const IpAddress& address, const Located& located) const;
  GeoExplanation explanation(const IpAddress& client) const;

  size_t order_count() const { return ranked_.empty() ? 1 : orders_.size() / ranked_.size(); }
  size_t prefix_count() const { return v4_.size() + v6_.size(); }

 private:
  friend class GeoCompiler;
  GeoMap() = default;

  Geo geo_;
  std::vector<Site> sites_;
  std::vector<uint32_t> ranked_;
  std::vector<uint32_t> orders_;  // one after the other, each ranked_.size() long
  std::shared_ptr<const Mmdb> mmdb_;
  PrefixMap<uint32_t> v4_;
  PrefixMap<Uint128> v6_;
  uint16_t nowhere_ = 0;  // the order of clients of whom nothing is known
  AddressSet<uint32_t> known_v4_;
  AddressSet<Uint128> known_v6_;
};

}  // namespace tidegate::dns
