// SPDX-License-Identifier: Apache-2.0
#include "dns/steer/geo.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numbers>
#include <unordered_map>

#include "conf/model/node.h"
#include "conf/model/steer.h"
#include "core/hash.h"

namespace tidegate::dns {

double distance_km(const Location& a, const Location& b) {
  constexpr double kEarthRadiusKm = 6371.0088;
  constexpr double kRadians = std::numbers::pi / 180;
  const double half_latitude = std::sin((b.latitude - a.latitude) * kRadians / 2);
  const double half_longitude = std::sin((b.longitude - a.longitude) * kRadians / 2);
  const double h = half_latitude * half_latitude +
                   std::cos(a.latitude * kRadians) * std::cos(b.latitude * kRadians) * half_longitude * half_longitude;
  return 2 * kEarthRadiusKm * std::asin(std::min(1.0, std::sqrt(h)));
}

const char* name(GeoExplanation::Source source) {
  switch (source) {
    case GeoExplanation::Source::networks:
      return "networks";
    case GeoExplanation::Source::mmdb:
      return "mmdb";
    case GeoExplanation::Source::default_site:
      return "default";
    case GeoExplanation::Source::none:
      return "none";
  }
  return "?";
}

double distance_to_site(const Location& from, const Site& site) {
  const double distance = distance_km(from, site.location);
  return site.bias >= 0 ? distance * (1 - site.bias / 100) : distance / (1 + site.bias / 100);
}

WantedFacts WantedFacts::of(const Model& model) {
  WantedFacts wanted;
  const auto take = [](auto& into, const auto& from) { into.insert(into.end(), from.begin(), from.end()); };
  for (const Steer& steer : model.steers) {
    for (const SteerTarget& target : steer.targets) {
      take(wanted.continents, target.clients.continents);
      take(wanted.countries, target.clients.countries);
      take(wanted.regions, target.clients.regions);
      take(wanted.asns, target.clients.asns);
    }
  }
  const auto settle = [](auto& list) {
    std::sort(list.begin(), list.end());
    list.erase(std::unique(list.begin(), list.end()), list.end());
    if (list.size() > UINT16_MAX) list.resize(UINT16_MAX);  // GeoCompiler refuses it
  };
  settle(wanted.continents);
  settle(wanted.countries);
  settle(wanted.regions);
  std::sort(wanted.asns.begin(), wanted.asns.end());
  wanted.asns.erase(std::unique(wanted.asns.begin(), wanted.asns.end()), wanted.asns.end());
  return wanted;
}

Cidr CarriedIpv4::prefix() const {
  IpAddress base = IpAddress::v6(std::array<uint8_t, 16>{}.data());
  std::copy_n(bytes.begin(), prefix_bytes, base.bytes.begin());
  return Cidr::of(base, static_cast<uint8_t>(prefix_bytes * 8));
}

std::span<const CarriedIpv4> carried_ipv4() {
  static constexpr CarriedIpv4 kCarriers[] = {
      {{0x20, 0x02}, 2},                                 // 6to4
      {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 12},  // v4-mapped
  };
  return kCarriers;
}

IpAddress GeoMap::located_as(const IpAddress& address) {
  if (address.is_v4()) return address;
  for (const CarriedIpv4& carried : carried_ipv4()) {
    if (!std::equal(carried.bytes.begin(), carried.bytes.begin() + carried.prefix_bytes, address.bytes.begin()))
      continue;
    IpAddress v4;
    std::copy_n(address.bytes.begin() + carried.prefix_bytes, v4.size(), v4.bytes.begin());
    return v4;
  }
  return address;
}

namespace {

// 1 + the value's index in the sorted list, or 0.
template <class Value>
size_t code_of(const std::vector<Value>& sorted, const Value& value) {
  const auto at = std::lower_bound(sorted.begin(), sorted.end(), value);
  return at != sorted.end() && *at == value ? static_cast<size_t>(at - sorted.begin()) + 1 : 0;
}

// The facts in one record of a database. Facts that no steer uses are here too, but are 0 in `place`.
struct Record {
  bool located = false;
  bool says_continent = false, says_country = false, says_region = false, says_asn = false;
  Place place;
};

// The parts of a place that are still open. The first database with an entry decides.
struct Open {
  bool continent = true, country = true, region = true, asn = true;

  template <class Value>
  static void take(bool& open, bool says, Value& into, Value value) {
    if (!open || !says) return;
    into = value;
    open = false;
  }
};

struct PlaceHash {
  size_t operator()(const Place& place) const {
    const uint64_t codes =
        uint64_t{place.order} << 48 | uint64_t{place.continent} << 32 | uint64_t{place.country} << 16 | place.region;
    return mix64(codes ^ mix64(place.asn));
  }
};

}  // namespace

// Fills a GeoMap: numbers orders and places, and walks the operator's networks and the databases' trees together.
class GeoCompiler {
 public:
  explicit GeoCompiler(GeoMap& map) : map_(map), wants_facts_(!map.wanted_.empty()), records_(map.mmdbs_.size()) {}

  Result<void> compile() {
    // Order 0 is for an address about which nothing is known.
    if (map_.geo_.default_site != kNone) {
      nowhere_ = order_from_site(map_.geo_.default_site);
    } else {
      nowhere_ = intern(map_.ranked_);
    }
    for (const CarriedIpv4& carried : carried_ipv4()) networks_[insert(carried.prefix())].carried = &carried;
    for (const GeoNetwork& network : map_.geo_.networks) {
      const uint16_t order = network.site != kNone ? order_from_site(network.site)
                             : network.location    ? order_from(*network.location, kNone)
                                                   : nowhere_;
      networks_[insert(network.network)].order = order;
    }
    map_.nowhere_ = nowhere_;
    intern(Place{nowhere_, 0, 0, 0, 0});  // place 0
    // IPv4 first, because IPv6 uses it where its addresses carry one.
    if (auto walked = walk_family<uint32_t>(map_.v4_, IpAddress::Family::v4); !walked) return walked;
    if (auto walked = walk_family<Uint128>(map_.v6_, IpAddress::Family::v6); !walked) return walked;
    if (places_overflowed_) {
      return fail("geo: more than 65,536 different places; fewer countries, regions or AS numbers in maps make fewer");
    }
    for (size_t db = 0; db < records_.size(); ++db) {
      if (auto useful = check_use(db); !useful) return useful;
    }
    return {};
  }

 private:
  using Cursor = Mmdb::Cursor;
  static constexpr size_t kMaxMmdbs = 4;
  static constexpr uint32_t kNoNode = 0;          // the roots are never children
  using Cursors = std::array<Cursor, kMaxMmdbs>;  // one for each database
  struct NetworkNode {
    uint32_t child[2] = {kNoNode, kNoNode};
    int32_t order = -1;  // order of a network that ends here, or none
    const CarriedIpv4* carried = nullptr;
  };
  // The records of one database that the walk has reached.
  struct Records {
    std::unordered_map<uint32_t, Record> by_offset;
    uint64_t nodes = 0;  // nodes of its tree that the walk has reached
    size_t located = 0;
    bool has_fact = false;  // some record has a fact of a wanted kind
  };

  uint16_t intern(const std::vector<uint32_t>& order) {
    const auto [at, added] = order_ids_.try_emplace(order, static_cast<uint16_t>(order_ids_.size()));
    if (added) map_.orders_.insert(map_.orders_.end(), order.begin(), order.end());
    return at->second;
  }

  uint16_t intern(const Place& place) {
    const auto known = place_ids_.find(place);
    if (known != place_ids_.end()) return known->second;
    if (map_.places_.size() > UINT16_MAX) {
      places_overflowed_ = wants_facts_;
      return 0;
    }
    map_.places_.push_back(place);
    return place_ids_.emplace(place, static_cast<uint16_t>(map_.places_.size() - 1)).first->second;
  }

  // Nearest first; equally near sites in the model's order. `first`, unless kNone, comes before all.
  uint16_t order_from(const Location& from, uint32_t first) {
    std::vector<std::pair<double, uint32_t>> by_distance;
    for (const uint32_t site : map_.ranked_) {
      by_distance.emplace_back(site == first ? -1.0 : distance_to_site(from, map_.sites_[site]), site);
    }
    std::sort(by_distance.begin(), by_distance.end());
    std::vector<uint32_t> order;
    order.reserve(by_distance.size());
    for (const auto& [distance, site] : by_distance) order.push_back(site);
    // If there are too many distinct orders, later ones are treated as unknown.
    if (order_ids_.size() > UINT16_MAX && !order_ids_.contains(order)) return nowhere_;
    return intern(order);
  }
  uint16_t order_from_site(uint32_t site) {
    const auto [at, added] = site_orders_.try_emplace(site);
    if (added) at->second = order_from(map_.sites_[site].location, site);
    return at->second;
  }

  const Record& record(size_t db, uint32_t data_offset) {
    Records& records = records_[db];
    const auto [at, added] = records.by_offset.try_emplace(data_offset);
    Record& record = at->second;
    if (!added) return record;
    record.place.order = nowhere_;
    if (const auto location = map_.mmdbs_[db]->location(data_offset)) {
      record.place.order = order_from(*location, kNone);
      record.located = true;
      ++records.located;
    }
    if (!wants_facts_) return record;
    const WantedFacts& wanted = map_.wanted_;
    const Mmdb::Facts facts = map_.mmdbs_[db]->facts(data_offset);
    record.place.continent = static_cast<uint16_t>(code_of(wanted.continents, facts.continent));
    record.place.country = static_cast<uint16_t>(code_of(wanted.countries, facts.country));
    record.place.region = static_cast<uint16_t>(code_of(wanted.regions, facts.region));
    record.place.asn = static_cast<uint32_t>(code_of(wanted.asns, facts.asn));
    record.says_continent = !facts.continent.empty();
    record.says_country = !facts.country.empty();
    record.says_region = !facts.region.empty();
    record.says_asn = facts.asn != 0;
    records.has_fact = records.has_fact || (!wanted.continents.empty() && record.says_continent) ||
                       (!wanted.countries.empty() && record.says_country) ||
                       (!wanted.regions.empty() && record.says_region) || (!wanted.asns.empty() && record.says_asn);
    return record;
  }

  // A database of which no fact is used is a mistake.
  Result<void> check_use(size_t db) const {
    const Records& records = records_[db];
    if (records.by_offset.empty() || records.located != 0 || records.has_fact) return {};
    return fail(fmt::format("geo database {}: of type '{}', it holds no locations{}", mmdb_paths(map_.geo_)[db],
                            map_.mmdbs_[db]->type(),
                            wants_facts_ ? ", and nothing that the maps of steers ask for" : "; one of cities does"));
  }

  // The network's node, which is created if necessary.
  uint32_t insert(const Cidr& network) {
    uint32_t node = network.base.is_v4() ? 0 : 1;
    for (size_t i = 0; i < network.prefix; ++i) {
      const size_t bit = network.base.bytes[i / 8] >> (7 - i % 8) & 1;
      if (networks_[node].child[bit] == kNoNode) {
        networks_[node].child[bit] = static_cast<uint32_t>(networks_.size());
        networks_.emplace_back();
      }
      node = networks_[node].child[bit];
    }
    return node;
  }

  void append_carried(PrefixMap<uint32_t>&, uint32_t, const CarriedIpv4&) {}  // IPv4 addresses carry no other address
  void append_carried(PrefixMap<Uint128>& to, Uint128 start, const CarriedIpv4& carried) {
    map_.v4_.for_each([&](uint32_t v4_start, uint8_t length, uint16_t place) {
      const Uint128 offset = Uint128{v4_start} << (128 - 32 - carried.prefix_bytes * 8);
      to.append(start | offset, static_cast<uint8_t>(carried.prefix_bytes * 8 + length), place);
    });
    map_.known_v6_.append(start, false);
    map_.known_v4_.for_each([&](uint32_t v4_start, bool is_known) {
      map_.known_v6_.append(start | Uint128{v4_start} << (128 - 32 - carried.prefix_bytes * 8), is_known);
    });
  }

  template <class Bits>
  Result<void> walk_family(PrefixMap<Bits>& to, IpAddress::Family family) {
    const uint32_t root = family == IpAddress::Family::v4 ? 0 : 1;
    family_ = family;
    Cursors cursors;
    for (size_t db = 0; db < map_.mmdbs_.size(); ++db) cursors[db] = map_.mmdbs_[db]->root(family);
    if (auto walked = walk<Bits>(to, Bits{0}, 0, root, false, -1, cursors); !walked) return walked;
    to.finish();
    return {};
  }

  bool leads_on(const Cursors& cursors) const {
    return std::any_of(cursors.begin(), cursors.end(), [](const Cursor& c) { return c.kind == Cursor::Kind::node; });
  }

  // Goes down by one bit, in every database whose tree has a node here.
  Result<Cursors> step(const Cursors& from, size_t bit) {
    Cursors below = from;
    for (size_t db = 0; db < map_.mmdbs_.size(); ++db) {
      if (from[db].kind != Cursor::Kind::node) continue;
      const auto next = map_.mmdbs_[db]->child(family_, from[db].value, bit == 1);
      if (!next) return next.error();
      below[db] = *next;
    }
    return below;
  }

  Result<void> count_nodes(const Cursors& cursors) {
    for (size_t db = 0; db < map_.mmdbs_.size(); ++db) {
      if (cursors[db].kind != Cursor::Kind::node) continue;
      if (++records_[db].nodes > 2 * uint64_t{map_.mmdbs_[db]->node_count()} + 256) {
        return fail("geo database " + mmdb_paths(map_.geo_)[db] + ": the search tree has a cycle");
      }
    }
    return {};
  }

  // Handles one prefix. `network` is its node among the operator's networks, unless they have nothing below
  // (`no_network`). `covering` is the order of the longest network around it, or -1. `cursors` are its places in the
  // databases.
  template <class Bits>
  Result<void> walk(PrefixMap<Bits>& to, Bits start, uint8_t length, uint32_t network, bool no_network,
                    int32_t covering, Cursors cursors) {
    if (!no_network && networks_[network].carried != nullptr) {
      append_carried(to, start, *networks_[network].carried);
      return {};
    }
    if (!no_network && networks_[network].order >= 0) covering = networks_[network].order;
    if (covering >= 0 && !wants_facts_) cursors = {};  // a network has precedence over the databases
    const bool goes_on = leads_on(cursors) && length < PrefixMap<Bits>::kWidth;
    if ((no_network && !goes_on) || length == PrefixMap<Bits>::kWidth) {
      append_leaf(to, start, length, covering, cursors);
      return {};
    }
    if (goes_on) {
      if (auto counted = count_nodes(cursors); !counted) return counted;
    }
    for (size_t bit = 0; bit < 2; ++bit) {
      const uint32_t child = no_network ? kNoNode : networks_[network].child[bit];
      Cursors below = cursors;
      if (goes_on) {
        auto stepped = step(cursors, bit);
        if (!stepped) return stepped.error();
        below = *stepped;
      }
      const Bits half = bit == 0 ? start : static_cast<Bits>(start | Bits{1} << (PrefixMap<Bits>::kWidth - length - 1));
      auto walked = walk<Bits>(to, half, static_cast<uint8_t>(length + 1), child, child == kNoNode, covering, below);
      if (!walked) return walked;
    }
    return {};
  }

  template <class Bits>
  void append_leaf(PrefixMap<Bits>& to, Bits start, uint8_t length, int32_t covering, const Cursors& cursors) {
    Place place;
    place.order = covering >= 0 ? static_cast<uint16_t>(covering) : nowhere_;
    bool is_known = covering >= 0;
    Open open;
    for (size_t db = 0; db < map_.mmdbs_.size(); ++db) {
      if (cursors[db].kind != Cursor::Kind::data) continue;
      const Record& found = record(db, cursors[db].value);
      if (found.located && !is_known) {
        place.order = found.place.order;
        is_known = true;
      }
      Open::take(open.continent, found.says_continent, place.continent, found.place.continent);
      Open::take(open.country, found.says_country, place.country, found.place.country);
      Open::take(open.region, found.says_region, place.region, found.place.region);
      Open::take(open.asn, found.says_asn, place.asn, found.place.asn);
    }
    to.append(start, length, intern(place));
    if constexpr (sizeof(Bits) == sizeof(uint32_t)) {
      map_.known_v4_.append(start, is_known);
    } else {
      map_.known_v6_.append(start, is_known);
    }
  }

  GeoMap& map_;
  bool wants_facts_;
  uint16_t nowhere_ = 0;
  std::map<std::vector<uint32_t>, uint16_t> order_ids_;
  // results of order_from_site(): most networks name one of few sites
  std::unordered_map<uint32_t, uint16_t> site_orders_;
  std::unordered_map<Place, uint16_t, PlaceHash> place_ids_;
  bool places_overflowed_ = false;
  std::vector<Records> records_;                                     // parallel to GeoMap::mmdbs_
  std::vector<NetworkNode> networks_ = std::vector<NetworkNode>(2);  // 0: IPv4's root, 1: IPv6's
  IpAddress::Family family_ = IpAddress::Family::v4;
};

Result<std::shared_ptr<const GeoMap>> GeoMap::build(const Geo& geo, const Elements<Site>& sites,
                                                    std::vector<uint32_t> ranked, WantedFacts wanted) {
  std::shared_ptr<GeoMap> map(new GeoMap());
  map->geo_ = geo;
  map->sites_ = sites;
  map->wanted_ = std::move(wanted);
  std::sort(ranked.begin(), ranked.end());
  map->ranked_ = std::move(ranked);
  for (const std::string& path : mmdb_paths(geo)) {
    auto mmdb = Mmdb::open(path);
    if (!mmdb) return mmdb.error();
    map->mmdbs_.push_back(*mmdb);
  }
  if (const auto compiled = GeoCompiler(*map).compile(); !compiled) return compiled.error();
  return std::shared_ptr<const GeoMap>(std::move(map));
}

Located GeoMap::locate(const IpAddress& address) const {
  if (address.is_v4()) {
    const auto entry = v4_.find(address_bits<uint32_t>(address));
    return {entry.value, entry.length};
  }
  const auto entry = v6_.find(address_bits<Uint128>(address));
  return {entry.value, entry.length};
}

bool GeoMap::is_unknown(const IpAddress& address) const {
  return address.is_v4() ? !known_v4_.contains(address_bits<uint32_t>(address))
                         : !known_v6_.contains(address_bits<Uint128>(address));
}

namespace {

void fill_in(Mmdb::Facts& facts, Mmdb::Facts&& more) {
  if (facts.continent.empty()) facts.continent = std::move(more.continent);
  if (facts.country.empty()) facts.country = std::move(more.country);
  if (facts.region.empty()) facts.region = std::move(more.region);
  if (facts.asn == 0) facts.asn = more.asn;
}

}  // namespace

GeoExplanation GeoMap::explanation(const IpAddress& client) const {
  const IpAddress address = located_as(client);
  Mmdb::Facts facts;
  std::optional<Location> location;
  for (const auto& mmdb : mmdbs_) {
    const auto record = mmdb->record_of(address);
    if (!record) continue;
    if (!location) location = mmdb->location(*record);
    fill_in(facts, mmdb->facts(*record));
  }
  const GeoNetwork* longest = nullptr;
  for (const GeoNetwork& network : geo_.networks) {
    if (!network.network.contains(address)) continue;
    if (longest == nullptr || network.network.prefix >= longest->network.prefix) longest = &network;
  }
  if (longest != nullptr) {
    const auto named = longest->site != kNone ? std::optional(sites_[longest->site].location) : longest->location;
    return {GeoExplanation::Source::networks, longest->site, named, facts};
  }
  if (location) return {GeoExplanation::Source::mmdb, kNone, location, facts};
  if (geo_.default_site != kNone) {
    return {GeoExplanation::Source::default_site, geo_.default_site, sites_[geo_.default_site].location, facts};
  }
  return {GeoExplanation::Source::none, kNone, std::nullopt, facts};
}

}  // namespace tidegate::dns
