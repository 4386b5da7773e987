// SPDX-License-Identifier: Apache-2.0
// RankingMap: a client's place as the ranking for one steer. For `nearest` it is the order of the steer's sites. For
// `map` it is the targets that name the client: groups of equal rank, the most specific first.
//
// Neighbouring networks with the same ranking are merged, even if they differ in other facts. So the prefix found for
// an address is the widest one around it in which every address gets the same ranking: the SCOPE of RFC 7871. Steers
// with the same question share a map.
//
// Immutable once built: any thread may ask.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "conf/model/steer.h"
#include "dns/steer/geo.h"
#include "dns/steer/ranking_index.h"

namespace tidegate::dns {

class RankingMap {
 public:
  static constexpr uint32_t kNextGroup = kNone;  // between two groups of a `map`

  struct Found {
    std::span<const uint32_t> ranking;  // sites of the model, or targets of the steer with kNextGroup between groups
    uint8_t scope = 0;                  // prefix length, in the family of the address
    bool as_unknown = false;            // it is the ranking for clients about which nothing is known
  };

  // `sites` are indexes into the model's sites, sorted. The Error says that there are too many rankings.
  static Result<std::shared_ptr<const RankingMap>> of_sites(const GeoMap& geo, const std::vector<uint32_t>& sites);
  static Result<std::shared_ptr<const RankingMap>> of_clients(const GeoMap& geo,
                                                              const std::vector<SteerTarget>& targets);

  // `address`: the client's own address. If it contains an IPv4 address (6to4, mapped), that address is used.
  Found find(const IpAddress& address) const {
    const auto found =
        address.is_v4() ? find_in(v4_, address_bits<uint32_t>(address)) : find_in(v6_, address_bits<Uint128>(address));
    return found;
  }
  size_t prefix_count() const { return v4_.size() + v6_.size(); }
  size_t ranking_count() const { return begins_.size() - 1; }

 private:
  friend class RankingCompiler;

  template <class Bits>
  Found find_in(const PrefixMap<Bits>& map, Bits address) const {
    const auto entry = map.find(address);
    return {std::span(items_).subspan(begins_[entry.value], begins_[entry.value + size_t{1}] - begins_[entry.value]),
            entry.length, entry.value == unknown_};
  }

  std::vector<uint32_t> items_;   // the rankings, one after the other
  std::vector<uint32_t> begins_;  // where each begins in items_, and the end
  uint16_t unknown_ = 0;
  PrefixMap<uint32_t> v4_;
  PrefixMap<Uint128> v6_;
};

// Parallel to the questions. Shares the maps of `previous` with the same keys, if its geography is the same object.
struct Rankings {
  std::shared_ptr<const GeoMap> geo;
  std::vector<std::string> keys;
  std::vector<std::shared_ptr<const RankingMap>> maps;
};
Result<Rankings> build_rankings(const RankingIndex& index, std::shared_ptr<const GeoMap> geo, const Rankings* previous);

}  // namespace tidegate::dns
