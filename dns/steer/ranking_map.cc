// SPDX-License-Identifier: Apache-2.0
#include "dns/steer/ranking_map.h"

#include <algorithm>
#include <functional>
#include <map>
#include <unordered_map>

namespace tidegate::dns {

// Fills a RankingMap from the places of a GeoMap, combined with the networks of one steer.
class RankingCompiler {
 public:
  // Computes the ranking of a place within the networks of the given owners, the longest network first.
  using Rank = std::function<std::vector<uint32_t>(const Place&, std::span<const uint32_t> owners)>;

  RankingCompiler(const GeoMap& geo, Rank rank) : geo_(geo), rank_(std::move(rank)), map_(new RankingMap()) {}

  // Target `owner` names the clients of `network`.
  void add_network(const Cidr& network, uint32_t owner) { nodes_[insert(network)].owners.push_back(owner); }

  Result<std::shared_ptr<const RankingMap>> build() {
    map_->unknown_ = ranking(0);  // GeoMap's place 0
    if (nodes_.size() > 2) {
      for (const CarriedIpv4& carried : carried_ipv4()) nodes_[insert(carried.prefix())].carried = &carried;
    }
    walk<uint32_t>(map_->v4_, geo_.v4(), 0, 0, 0);
    map_->v4_.finish();
    walk<Uint128>(map_->v6_, geo_.v6(), 0, 0, 1);
    map_->v6_.finish();
    map_->begins_.push_back(static_cast<uint32_t>(map_->items_.size()));
    if (overflowed_) return fail("geo: a steer tells more than 65,536 kinds of clients apart");
    return std::shared_ptr<const RankingMap>(std::move(map_));
  }

 private:
  static constexpr uint32_t kNoNode = 0;  // the roots are never children
  struct Node {
    uint32_t child[2] = {kNoNode, kNoNode};
    std::vector<uint32_t> owners;
    const CarriedIpv4* carried = nullptr;
  };

  uint32_t insert(const Cidr& network) {
    uint32_t node = network.base.is_v4() ? 0 : 1;
    for (size_t i = 0; i < network.prefix; ++i) {
      const size_t bit = network.base.bytes[i / 8] >> (7 - i % 8) & 1;
      if (nodes_[node].child[bit] == kNoNode) {
        nodes_[node].child[bit] = static_cast<uint32_t>(nodes_.size());
        nodes_.emplace_back();
      }
      node = nodes_[node].child[bit];
    }
    return node;
  }

  // The ranking of a place within the networks around the walk.
  uint16_t ranking(uint16_t place) {
    const uint64_t innermost = around_.empty() ? 0 : around_.back() + uint64_t{1};
    const auto [known, is_new] = known_.try_emplace(innermost << 16 | place);
    if (!is_new) return known->second;
    std::vector<uint32_t> owners;
    for (auto node = around_.rbegin(); node != around_.rend(); ++node) {
      if (!owners.empty()) owners.push_back(RankingMap::kNextGroup);
      owners.insert(owners.end(), nodes_[*node].owners.begin(), nodes_[*node].owners.end());
    }
    std::vector<uint32_t> ranked = rank_(geo_.place(place), owners);
    const auto [at, added] = ids_.try_emplace(std::move(ranked), static_cast<uint16_t>(ids_.size()));
    overflowed_ = overflowed_ || ids_.size() > size_t{UINT16_MAX} + 1;
    if (added) {
      map_->begins_.push_back(static_cast<uint32_t>(map_->items_.size()));
      map_->items_.insert(map_->items_.end(), at->first.begin(), at->first.end());
    }
    known->second = at->second;
    return at->second;
  }

  void append_carried(PrefixMap<uint32_t>&, uint32_t, const CarriedIpv4&) {}  // IPv4 addresses carry no other address
  void append_carried(PrefixMap<Uint128>& to, Uint128 start, const CarriedIpv4& carried) {
    map_->v4_.for_each([&](uint32_t v4_start, uint8_t length, uint16_t value) {
      const Uint128 offset = Uint128{v4_start} << (128 - 32 - carried.prefix_bytes * 8);
      to.append(start | offset, static_cast<uint8_t>(carried.prefix_bytes * 8 + length), value);
    });
  }

  template <class Bits>
  void walk(PrefixMap<Bits>& to, const PrefixMap<Bits>& places, Bits start, uint8_t length, uint32_t node) {
    const Node here = nodes_[node];
    if (here.carried != nullptr) return append_carried(to, start, *here.carried);
    if (!here.owners.empty()) around_.push_back(node);
    if (here.child[0] == kNoNode && here.child[1] == kNoNode) {
      append_places(to, places, start, length);
    } else {
      for (size_t bit = 0; bit < 2; ++bit) {
        const Bits half =
            bit == 0 ? start : static_cast<Bits>(start | Bits{1} << (PrefixMap<Bits>::kWidth - length - 1));
        const auto half_length = static_cast<uint8_t>(length + 1);
        if (here.child[bit] != kNoNode) {
          walk(to, places, half, half_length, here.child[bit]);
        } else {
          append_places(to, places, half, half_length);
        }
      }
    }
    if (!here.owners.empty()) around_.pop_back();
  }

  template <class Bits>
  void append_places(PrefixMap<Bits>& to, const PrefixMap<Bits>& places, Bits start, uint8_t length) {
    places.for_each_within(start, length, [&](Bits place_start, uint8_t place_length, uint16_t place) {
      const bool whole = place_length <= length;
      to.append(whole ? start : place_start, whole ? length : place_length, ranking(place));
    });
  }

  const GeoMap& geo_;
  Rank rank_;
  std::shared_ptr<RankingMap> map_;
  std::vector<Node> nodes_ = std::vector<Node>(2);  // 0: IPv4's root, 1: IPv6's
  std::vector<uint32_t> around_;                    // nodes with owners on the way to this point
  std::unordered_map<uint64_t, uint16_t> known_;    // by the innermost node in around_, and the place
  std::map<std::vector<uint32_t>, uint16_t> ids_;
  bool overflowed_ = false;
};

Result<std::shared_ptr<const RankingMap>> RankingMap::of_sites(const GeoMap& geo, const std::vector<uint32_t>& sites) {
  return RankingCompiler(geo,
                         [&](const Place& place, std::span<const uint32_t>) {
                           std::vector<uint32_t> order;
                           for (const uint32_t site : geo.order(place)) {
                             if (std::binary_search(sites.begin(), sites.end(), site)) order.push_back(site);
                           }
                           return order;
                         })
      .build();
}

namespace {

// The codes of WantedFacts that a target names.
struct TargetCodes {
  std::vector<size_t> asns, regions, countries, continents;
};

template <class Value>
std::vector<size_t> codes_of(const std::vector<Value>& wanted, const std::vector<Value>& named) {
  std::vector<size_t> codes;
  for (const Value& value : named) {
    const auto at = std::lower_bound(wanted.begin(), wanted.end(), value);
    if (at != wanted.end() && *at == value) codes.push_back(static_cast<size_t>(at - wanted.begin()) + 1);
  }
  return codes;
}

bool holds(const std::vector<size_t>& codes, size_t code) {
  return code != 0 && std::find(codes.begin(), codes.end(), code) != codes.end();
}

// Adds a group of targets to a ranking, except those that it already has.
void add_group(std::vector<uint32_t>& ranking, const std::vector<uint32_t>& group) {
  bool first = true;
  for (const uint32_t target : group) {
    if (std::find(ranking.begin(), ranking.end(), target) != ranking.end()) continue;
    if (first && !ranking.empty()) ranking.push_back(RankingMap::kNextGroup);
    first = false;
    ranking.push_back(target);
  }
}

}  // namespace

Result<std::shared_ptr<const RankingMap>> RankingMap::of_clients(const GeoMap& geo,
                                                                 const std::vector<SteerTarget>& targets) {
  std::vector<TargetCodes> codes;
  const WantedFacts& wanted = geo.wanted();
  for (const SteerTarget& target : targets) {
    const TargetClients& clients = target.clients;
    codes.push_back({codes_of(wanted.asns, clients.asns), codes_of(wanted.regions, clients.regions),
                     codes_of(wanted.countries, clients.countries), codes_of(wanted.continents, clients.continents)});
  }
  const auto group_of = [&](auto&& is_member) {
    std::vector<uint32_t> group;
    for (uint32_t t = 0; t < targets.size(); ++t) {
      if (is_member(t)) group.push_back(t);
    }
    return group;
  };
  RankingCompiler compiler(geo, [&](const Place& place, std::span<const uint32_t> owners) {
    std::vector<uint32_t> ranking;
    for (auto at = owners.begin(); at != owners.end();) {
      const auto end = std::find(at, owners.end(), kNextGroup);
      add_group(ranking, {at, end});
      at = end == owners.end() ? end : end + 1;
    }
    add_group(ranking, group_of([&](uint32_t t) { return holds(codes[t].asns, place.asn); }));
    add_group(ranking, group_of([&](uint32_t t) { return holds(codes[t].regions, place.region); }));
    add_group(ranking, group_of([&](uint32_t t) { return holds(codes[t].countries, place.country); }));
    add_group(ranking, group_of([&](uint32_t t) { return holds(codes[t].continents, place.continent); }));
    add_group(ranking, group_of([&](uint32_t t) { return targets[t].clients.empty(); }));
    return ranking;
  });
  for (uint32_t t = 0; t < targets.size(); ++t) {
    for (const Cidr& network : targets[t].clients.networks) compiler.add_network(network, t);
  }
  return compiler.build();
}

Result<Rankings> build_rankings(const RankingIndex& index, std::shared_ptr<const GeoMap> geo,
                                const Rankings* previous) {
  Rankings rankings;
  const bool same_geo = previous != nullptr && previous->geo == geo;
  for (const RankingIndex::Question& question : index.questions()) {
    rankings.keys.push_back(question.key);
    if (same_geo) {
      const auto known = std::find(previous->keys.begin(), previous->keys.end(), question.key);
      if (known != previous->keys.end()) {
        rankings.maps.push_back(previous->maps[static_cast<size_t>(known - previous->keys.begin())]);
        continue;
      }
    }
    auto map =
        question.is_map ? RankingMap::of_clients(*geo, question.targets) : RankingMap::of_sites(*geo, question.sites);
    if (!map) return map.error();
    rankings.maps.push_back(*std::move(map));
  }
  rankings.geo = std::move(geo);
  return rankings;
}

}  // namespace tidegate::dns
