// SPDX-License-Identifier: Apache-2.0
// Geo: from a client's address to its place: the order in which sites are preferred there, and what the maps of steers
// ask for (country, region, continent, AS). It also tells how wide a network has that place.
//
// Everything known is compiled once: the operator's networks (the longest prefix first, and for the order of sites
// before the databases), the trees of the MMDBs, the default. Neighbouring networks with the same place are merged. A
// RankingMap (ranking_map.h) makes of it what one steer asks for.
//
// An IPv6 address that carries its host's IPv4 address, 6to4 (RFC 3056 §2) or v4-mapped (RFC 4291 §2.5.5.2), is located
// by that and by nothing else. Teredo's is not: its leading part is the address of a server.
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

// What the maps of steers ask for, each list sorted. What they do not ask for does not tell networks apart.
struct WantedFacts {
  std::vector<std::string> continents, countries, regions;
  std::vector<uint32_t> asns;

  static WantedFacts of(const Model& model);
  bool empty() const { return continents.empty() && countries.empty() && regions.empty() && asns.empty(); }
  bool operator==(const WantedFacts&) const = default;
};

// A fact is 1 + its index in WantedFacts, or 0 if nothing or something else is known.
struct Place {
  uint16_t order = 0;  // of sites: GeoMap::order()
  uint16_t continent = 0, country = 0, region = 0;
  uint32_t asn = 0;
  bool operator==(const Place&) const = default;
};

// What is known of an address, for explain and the status page: told from the sources, not from the compiled map.
struct GeoExplanation {
  enum class Source : uint8_t { networks, mmdb, default_site, none } source = Source::none;
  uint32_t site = kNone;  // where a site was named directly
  std::optional<Location> location;
  Mmdb::Facts facts;  // of all databases, whether a steer asks for them or not
};
const char* name(GeoExplanation::Source source);

// Kilometres along the great circle (haversine, mean Earth radius).
double distance_km(const Location& a, const Location& b);
// As `nearest` takes it: with the site's bias.
double distance_to_site(const Location& from, const Site& site);

// The prefixes of IPv6 whose addresses carry an IPv4 address right behind it.
struct CarriedIpv4 {
  std::array<uint8_t, 12> bytes;
  uint8_t prefix_bytes;
  Cidr prefix() const;
};
std::span<const CarriedIpv4> carried_ipv4();

class GeoMap {
 public:
  // `sites` is the model's. `ranked` are the sites to put in order (those that steers may send to), as indexes into it.
  // The Error says what is wrong with a database.
  static Result<std::shared_ptr<const GeoMap>> build(const Geo& geo, const std::vector<Site>& sites,
                                                     std::vector<uint32_t> ranked, WantedFacts wanted = {});

  // The address by which a client is located: the IPv4 address that it carries, or itself.
  static IpAddress located_as(const IpAddress& address);
  // The scope is in the family of `address`.
  Located locate(const IpAddress& address) const;
  // Indexes into the model's sites, the most preferred first; all of `ranked`.
  std::span<const uint32_t> order(const Located& located) const { return order(place(located.place)); }
  std::span<const uint32_t> order(const Place& place) const {
    return std::span(orders_).subspan(place.order * ranked_.size(), ranked_.size());
  }
  const Place& place(uint16_t id) const { return places_[id]; }
  size_t place_count() const { return places_.size(); }
  // Whether neither the networks nor a database say where the client is.
  bool is_unknown(const IpAddress& address) const;
  // The order of sites for clients of whom nothing is known.
  std::span<const uint32_t> order_of_unknown() const { return order(Place{nowhere_, 0, 0, 0, 0}); }
  const WantedFacts& wanted() const { return wanted_; }
  // Which networks have which place.
  const PrefixMap<uint32_t>& v4() const { return v4_; }
  const PrefixMap<Uint128>& v6() const { return v6_; }
  GeoExplanation explanation(const IpAddress& client) const;

  size_t order_count() const { return ranked_.empty() ? 1 : orders_.size() / ranked_.size(); }
  size_t prefix_count() const { return v4_.size() + v6_.size(); }

 private:
  friend class GeoCompiler;
  GeoMap() = default;

  Geo geo_;
  std::vector<Site> sites_;
  std::vector<uint32_t> ranked_;
  WantedFacts wanted_;
  std::vector<uint32_t> orders_;  // one after the other, each ranked_.size() long
  std::vector<Place> places_;
  std::vector<std::shared_ptr<const Mmdb>> mmdbs_;  // parallel to mmdb_paths()
  PrefixMap<uint32_t> v4_;
  PrefixMap<Uint128> v6_;
  uint16_t nowhere_ = 0;  // the order of clients of whom nothing is known
  AddressSet<uint32_t> known_v4_;
  AddressSet<Uint128> known_v6_;
};

}  // namespace tidegate::dns
