// SPDX-License-Identifier: Apache-2.0
#include "dns/steer/geo.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numbers>
#include <unordered_map>
#include <unordered_set>

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

namespace {

// A part of IPv6 in which an address carries the IPv4 address of its host, right behind the prefix.
struct CarriedIpv4 {
  std::array<uint8_t, 12> bytes;
  uint8_t prefix_bytes;

  Cidr prefix() const {
    IpAddress base = IpAddress::v6(std::array<uint8_t, 16>{}.data());
    std::copy_n(bytes.begin(), prefix_bytes, base.bytes.begin());
    return Cidr::of(base, static_cast<uint8_t>(prefix_bytes * 8));
  }
};
constexpr CarriedIpv4 kCarriedIpv4[] = {
    {{0x20, 0x02}, 2},                                 // 6to4
    {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 12},  // v4-mapped
};

}  // namespace

IpAddress GeoMap::located_as(const IpAddress& address) {
  if (address.is_v4()) return address;
  for (const CarriedIpv4& carried : kCarriedIpv4) {
    if (!std::equal(carried.bytes.begin(), carried.bytes.begin() + carried.prefix_bytes, address.bytes.begin()))
      continue;
    IpAddress v4;
    std::copy_n(address.bytes.begin() + carried.prefix_bytes, v4.size(), v4.bytes.begin());
    return v4;
  }
  return address;
}

// Fills a GeoMap: interns orders, and walks the operator's networks and the database's tree side by side.
class GeoCompiler {
 public:
  explicit GeoCompiler(GeoMap& map) : map_(map) {}

  Result<void> compile() {
    // Order 0 is that of an address of which nothing is known.
    if (map_.geo_.default_site != kNone) {
      nowhere_ = order_from_site(map_.geo_.default_site);
    } else {
      nowhere_ = intern(map_.ranked_);
    }
    for (const CarriedIpv4& carried : kCarriedIpv4) networks_[insert(carried.prefix())].carried = &carried;
    for (const GeoNetwork& network : map_.geo_.networks) {
      const uint16_t order = network.site != kNone ? order_from_site(network.site)
                             : network.location    ? order_from(*network.location, kNone)
                                                   : nowhere_;
      networks_[insert(network.network)].order = order;
    }
    map_.nowhere_ = nowhere_;
    // IPv4 first: IPv6 takes it over where its addresses carry one.
    if (auto walked = walk_family<uint32_t>(map_.v4_, IpAddress::Family::v4); !walked) return walked;
    if (auto walked = walk_family<Uint128>(map_.v6_, IpAddress::Family::v6); !walked) return walked;
    if (!record_orders_.empty() && located_records_ == 0) {
      return fail(fmt::format("geo database {}: of type '{}', it holds no locations; one of cities does",
                              map_.geo_.mmdb, map_.mmdb_->type()));
    }
    return {};
  }

 private:
  using Cursor = Mmdb::Cursor;
  static constexpr uint32_t kNoNode = 0;  // the roots are never a child
  struct NetworkNode {
    uint32_t child[2] = {kNoNode, kNoNode};
    int32_t order = -1;  // of a network that ends here, or none
    const CarriedIpv4* carried = nullptr;
  };

  uint16_t intern(const std::vector<uint32_t>& order) {
    const auto [at, added] = order_ids_.try_emplace(order, static_cast<uint16_t>(order_ids_.size()));
    if (added) map_.orders_.insert(map_.orders_.end(), order.begin(), order.end());
    return at->second;
  }

  // Nearest first; equally near ones in the model's order. `first`, unless kNone, goes before all.
  uint16_t order_from(const Location& from, uint32_t first) {
    std::vector<std::pair<double, uint32_t>> by_distance;
    for (const uint32_t site : map_.ranked_) {
      by_distance.emplace_back(site == first ? -1.0 : distance_km(from, map_.sites_[site].location), site);
    }
    std::sort(by_distance.begin(), by_distance.end());
    std::vector<uint32_t> order;
    order.reserve(by_distance.size());
    for (const auto& [distance, site] : by_distance) order.push_back(site);
    // More distinct orders than fit cannot be told apart: what comes after is treated as nowhere.
    if (order_ids_.size() > UINT16_MAX && !order_ids_.contains(order)) return nowhere_;
    return intern(order);
  }
  uint16_t order_from_site(uint32_t site) { return order_from(map_.sites_[site].location, site); }

  uint16_t order_of_record(uint32_t data_offset) {
    const auto [at, added] = record_orders_.try_emplace(data_offset, nowhere_);
    if (added) {
      if (const auto location = map_.mmdb_->location(data_offset)) {
        at->second = order_from(*location, kNone);
        ++located_records_;
      } else {
        unlocated_records_.insert(data_offset);
      }
    }
    return at->second;
  }

  // The network's node.
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

  void append_carried(PrefixMap<uint32_t>&, uint32_t, const CarriedIpv4&) {}  // IPv4 carries no other
  void append_carried(PrefixMap<Uint128>& to, Uint128 start, const CarriedIpv4& carried) {
    map_.v4_.for_each([&](uint32_t v4_start, uint8_t length, uint16_t order) {
      const Uint128 offset = Uint128{v4_start} << (128 - 32 - carried.prefix_bytes * 8);
      to.append(start | offset, static_cast<uint8_t>(carried.prefix_bytes * 8 + length), order);
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
    const Cursor cursor = map_.mmdb_ ? map_.mmdb_->root(family) : Cursor{};
    if (auto walked = walk<Bits>(to, Bits{0}, 0, root, false, -1, cursor); !walked) return walked;
    to.finish();
    return {};
  }

  // One prefix: `network` is its node among the operator's networks unless they know nothing below (`no_network`),
  // `covering` the order of the longest network around it or -1, `cursor` its place in the database.
  template <class Bits>
  Result<void> walk(PrefixMap<Bits>& to, Bits start, uint8_t length, uint32_t network, bool no_network,
                    int32_t covering, Cursor cursor) {
    if (!no_network && networks_[network].carried != nullptr) {
      append_carried(to, start, *networks_[network].carried);
      return {};
    }
    if (!no_network && networks_[network].order >= 0) covering = networks_[network].order;
    if (covering >= 0) cursor = Cursor{};  // a network wins over the database
    const bool leads_on = cursor.kind == Cursor::Kind::node && length < PrefixMap<Bits>::kWidth;
    if (no_network && !leads_on) {
      append_leaf(to, start, length, covering, cursor);
      return {};
    }
    if (length == PrefixMap<Bits>::kWidth) {
      append_leaf(to, start, length, covering, cursor);
      return {};
    }
    if (leads_on && ++database_nodes_ > 2 * uint64_t{map_.mmdb_->node_count()} + 256) {
      return fail("geo database " + map_.geo_.mmdb + ": the search tree has a cycle");
    }
    for (size_t bit = 0; bit < 2; ++bit) {
      const uint32_t child = no_network ? kNoNode : networks_[network].child[bit];
      Cursor below = cursor;
      if (leads_on) {
        const auto next = map_.mmdb_->child(family_, cursor.value, bit == 1);
        if (!next) return next.error();
        below = *next;
      }
      const Bits half = bit == 0 ? start : static_cast<Bits>(start | Bits{1} << (PrefixMap<Bits>::kWidth - length - 1));
      auto walked = walk<Bits>(to, half, static_cast<uint8_t>(length + 1), child, child == kNoNode, covering, below);
      if (!walked) return walked;
    }
    return {};
  }

  template <class Bits>
  void append_leaf(PrefixMap<Bits>& to, Bits start, uint8_t length, int32_t covering, const Cursor& cursor) {
    to.append(start, length, leaf_order(covering, cursor));
    const bool is_known = covering >= 0 || (cursor.kind == Cursor::Kind::data && is_located(cursor.value));
    if constexpr (sizeof(Bits) == sizeof(uint32_t)) {
      map_.known_v4_.append(start, is_known);
    } else {
      map_.known_v6_.append(start, is_known);
    }
  }

  // Of a record that order_of_record() has read.
  bool is_located(uint32_t data_offset) const { return !unlocated_records_.contains(data_offset); }

  uint16_t leaf_order(int32_t covering, const Cursor& cursor) {
    if (covering >= 0) return static_cast<uint16_t>(covering);
    return cursor.kind == Cursor::Kind::data ? order_of_record(cursor.value) : nowhere_;
  }

  GeoMap& map_;
  uint16_t nowhere_ = 0;
  std::map<std::vector<uint32_t>, uint16_t> order_ids_;
  std::unordered_map<uint32_t, uint16_t> record_orders_;
  std::unordered_set<uint32_t> unlocated_records_;
  std::vector<NetworkNode> networks_ = std::vector<NetworkNode>(2);  // 0: IPv4's root, 1: IPv6's
  IpAddress::Family family_ = IpAddress::Family::v4;
  uint64_t database_nodes_ = 0;
  size_t located_records_ = 0;
};

Result<std::shared_ptr<const GeoMap>> GeoMap::build(const Geo& geo, const std::vector<Site>& sites,
                                                    std::vector<uint32_t> ranked) {
  std::shared_ptr<GeoMap> map(new GeoMap());
  map->geo_ = geo;
  map->sites_ = sites;
  std::sort(ranked.begin(), ranked.end());
  map->ranked_ = std::move(ranked);
  if (!geo.mmdb.empty()) {
    auto mmdb = Mmdb::open(geo.mmdb);
    if (!mmdb) return mmdb.error();
    map->mmdb_ = *mmdb;
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

bool GeoMap::is_unknown(const IpAddress& address, const Located& located) const {
  if (located.order != nowhere_) return false;
  return address.is_v4() ? !known_v4_.contains(address_bits<uint32_t>(address))
                         : !known_v6_.contains(address_bits<Uint128>(address));
}

GeoExplanation GeoMap::explanation(const IpAddress& client) const {
  const IpAddress address = located_as(client);
  const GeoNetwork* longest = nullptr;
  for (const GeoNetwork& network : geo_.networks) {
    if (!network.network.contains(address)) continue;
    if (longest == nullptr || network.network.prefix >= longest->network.prefix) longest = &network;
  }
  if (longest != nullptr) {
    const auto location = longest->site != kNone ? std::optional(sites_[longest->site].location) : longest->location;
    return {GeoExplanation::Source::networks, longest->site, location};
  }
  if (mmdb_) {
    if (const auto location = mmdb_->lookup(address)) return {GeoExplanation::Source::mmdb, kNone, location};
  }
  if (geo_.default_site != kNone) {
    return {GeoExplanation::Source::default_site, geo_.default_site, sites_[geo_.default_site].location};
  }
  return {};
}

}  // namespace tidegate::dns
