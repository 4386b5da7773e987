// SPDX-License-Identifier: Apache-2.0
// Geo: finds a client's place by its address. The place is the order in which sites are preferred there, and the facts
// that the maps of steers need (country, region, continent, AS). It also says how wide the network with that place is.
//
// Everything known is compiled once: the operator's networks (the longest prefix first, and for the order of sites
// before the databases), the trees of the MMDBs, the default. Neighbouring networks with the same place are merged. A
// RankingMap (ranking_map.h) derives from it what one steer needs.
//
// An IPv6 address that carries its host's IPv4 address, 6to4 (RFC 3056 §2) or v4-mapped (RFC 4291 §2.5.5.2), is located
// only by that IPv4 address. A Teredo address is not, because its leading part is the address of a server.
//
// Immutable once built: any thread may ask.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "conf/elements.h"
#include "conf/mmdb.h"
#include "conf/model.h"
#include "core/ip.h"
#include "core/result.h"
#include "dns/steer/prefix_map.h"

namespace tidegate::dns {

struct Located {
  uint16_t place = 0;  // for GeoMap::place()
  uint8_t scope = 0;   // prefix length, in the family of the address
};

// The facts that the maps of steers use, each list sorted. Other facts do not distinguish networks.
struct WantedFacts {
  std::vector<std::string> continents, countries, regions;
  std::vector<uint32_t> asns;

  static WantedFacts of(const Model& model);
  bool empty() const { return continents.empty() && countries.empty() && regions.empty() && asns.empty(); }
  bool operator==(const WantedFacts&) const = default;
};

// A fact is 1 + its index in WantedFacts, or 0 if it is not known or not wanted.
struct Place {
  uint16_t order = 0;  // order of sites: GeoMap::order()
  uint16_t continent = 0, country = 0, region = 0;
  uint32_t asn = 0;
  bool operator==(const Place&) const = default;
};

// The facts about an address, for explain and the status page. They come from the sources, and not from the compiled
// map.
struct GeoExplanation {
  enum class Source : uint8_t { networks, mmdb, default_site, none } source = Source::none;
  uint32_t site = kNone;  // set if a site was named directly
  std::optional<Location> location;
  Mmdb::Facts facts;  // from all databases, even if no steer needs them
};
const char* name(GeoExplanation::Source source);

// Kilometres along the great circle (haversine, mean Earth radius).
double distance_km(const Location& a, const Location& b);
// The distance that `nearest` uses, with the site's bias.
double distance_to_site(const Location& from, const Site& site);

// The IPv6 prefixes whose addresses carry an IPv4 address right after the prefix.
struct CarriedIpv4 {
  std::array<uint8_t, 12> bytes;
  uint8_t prefix_bytes;
  Cidr prefix() const;
};
std::span<const CarriedIpv4> carried_ipv4();

class GeoMap {
 public:
  // `sites` is the model's. `ranked` are the sites to put in order (to which steers may send clients), as indexes into
  // it. The Error names the fault in a database.
  static Result<std::shared_ptr<const GeoMap>> build(const Geo& geo, const Elements<Site>& sites,
                                                     std::vector<uint32_t> ranked, WantedFacts wanted = {});

  // The address by which a client is located: the IPv4 address that it carries, or itself.
  static IpAddress located_as(const IpAddress& address);
  // The scope is in the family of `address`.
  Located locate(const IpAddress& address) const;
  // Indexes into the model's sites, the most preferred first. Contains all of `ranked`.
  std::span<const uint32_t> order(const Located& located) const { return order(place(located.place)); }
  std::span<const uint32_t> order(const Place& place) const {
    return std::span(orders_).subspan(place.order * ranked_.size(), ranked_.size());
  }
  const Place& place(uint16_t id) const { return places_[id]; }
  size_t place_count() const { return places_.size(); }
  // True if the place of the client is in no network and in no database.
  bool is_unknown(const IpAddress& address) const;
  // The order of sites for clients about which nothing is known.
  std::span<const uint32_t> order_of_unknown() const { return order(Place{nowhere_, 0, 0, 0, 0}); }
  const WantedFacts& wanted() const { return wanted_; }
  // The networks and their places.
  const PrefixMap<uint32_t>& v4() const { return v4_; }
  const PrefixMap<Uint128>& v6() const { return v6_; }
  GeoExplanation explanation(const IpAddress& client) const;

  size_t order_count() const { return ranked_.empty() ? 1 : orders_.size() / ranked_.size(); }
  size_t prefix_count() const { return v4_.size() + v6_.size(); }

 private:
  friend class GeoCompiler;
  GeoMap() = default;

  Geo geo_;
  Elements<Site> sites_;
  std::vector<uint32_t> ranked_;
  WantedFacts wanted_;
  std::vector<uint32_t> orders_;  // one after the other, each with ranked_.size() elements
  std::vector<Place> places_;
  std::vector<std::shared_ptr<const Mmdb>> mmdbs_;  // parallel to mmdb_paths()
  PrefixMap<uint32_t> v4_;
  PrefixMap<Uint128> v6_;
  uint16_t nowhere_ = 0;  // the order for clients about which nothing is known
  AddressSet<uint32_t> known_v4_;
  AddressSet<Uint128> known_v6_;
};

}  // namespace tidegate::dns
