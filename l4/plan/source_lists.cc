// SPDX-License-Identifier: Apache-2.0
#include "l4/plan/source_lists.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

#include "core/assert.h"

namespace tidegate::l4 {

// Two networks are disjoint, or one contains the other. So a walk over all networks, ordered by first address, needs a
// stack of the networks that contain the present address. The sets of lists grow along the stack.
class SourceLists::Compiler {
 public:
  Compiler(const std::vector<std::vector<Cidr>>& lists, SourceLists& into) : lists_(lists), into_(into) {
    into_.sets_.emplace_back();
    by_content_.emplace(std::vector<uint16_t>{}, Set{0});
  }

  template <class Bits>
  bool compile(IpAddress::Family family, Ranges<Bits>& ranges) {
    std::vector<Network<Bits>> networks = networks_of_family<Bits>(family);
    std::vector<Holder<Bits>> holders;
    append(ranges, Bits{0}, Set{0});
    for (const Network<Bits>& network : networks) {
      leave(ranges, holders, std::optional<Bits>(network.first));
      const std::optional<Set> set = with(holders.empty() ? Set{0} : holders.back().set, network.list);
      if (!set) return false;
      holders.push_back({network.last, *set});
      append(ranges, network.first, *set);
    }
    leave(ranges, holders, std::optional<Bits>());
    ranges.finish();
    return true;
  }

 private:
  template <class Bits>
  struct Network {
    Bits first, last;
    uint16_t list;
  };
  template <class Bits>
  struct Holder {
    Bits last;
    Set set;
  };

  template <class Bits>
  std::vector<Network<Bits>> networks_of_family(IpAddress::Family family) const {
    std::vector<Network<Bits>> networks;
    for (size_t list = 0; list < lists_.size(); ++list) {
      for (const Cidr& each : lists_[list]) {
        if (each.base.family != family) continue;
        const auto first = address_bits<Bits>(each.base);
        const Bits hosts = each.prefix == 0 ? static_cast<Bits>(~Bits{0})
                                            : static_cast<Bits>(static_cast<Bits>(~Bits{0}) >> (each.prefix - 1) >> 1);
        networks.push_back({first, static_cast<Bits>(first | hosts), static_cast<uint16_t>(list)});
      }
    }
    // If networks have the same first address, the largest comes first, because it contains the others.
    std::sort(networks.begin(), networks.end(), [](const Network<Bits>& a, const Network<Bits>& b) {
      if (a.first != b.first) return a.first < b.first;
      return a.last != b.last ? a.last > b.last : a.list < b.list;
    });
    return networks;
  }

  // Leaves the networks that end before `next`, or all of them.
  template <class Bits>
  void leave(Ranges<Bits>& ranges, std::vector<Holder<Bits>>& holders, std::optional<Bits> next) const {
    while (!holders.empty() && (!next || holders.back().last < *next)) {
      const Bits last = holders.back().last;
      holders.pop_back();
      if (last == static_cast<Bits>(~Bits{0})) continue;
      append(ranges, static_cast<Bits>(last + 1), holders.empty() ? Set{0} : holders.back().set);
    }
  }

  // From `start` on, addresses belong to `set`.
  template <class Bits>
  void append(Ranges<Bits>& ranges, Bits start, Set set) const {
    std::vector<Range<Bits>>& all = ranges.starts();
    if (!all.empty() && all.back().start == start) all.pop_back();
    TIDEGATE_ASSERT(all.empty() || all.back().start < start, "ranges are appended in order");
    if (all.empty() || all.back().set != set) all.push_back({start, set});
  }

  std::optional<Set> with(Set set, uint16_t list) {
    const auto [known, is_new] = grown_.try_emplace({set, list});
    if (!is_new) return known->second;
    std::vector<uint16_t> lists = into_.sets_[set];
    const auto place = std::lower_bound(lists.begin(), lists.end(), list);
    if (place == lists.end() || *place != list) lists.insert(place, list);
    const auto [same, is_first] = by_content_.try_emplace(lists, static_cast<Set>(into_.sets_.size()));
    if (is_first) {
      if (into_.sets_.size() == SourceLists::kMostSets) return std::nullopt;
      into_.sets_.push_back(std::move(lists));
    }
    known->second = same->second;
    return known->second;
  }

  const std::vector<std::vector<Cidr>>& lists_;
  SourceLists& into_;
  std::map<std::vector<uint16_t>, Set> by_content_;
  std::map<std::pair<Set, uint16_t>, Set> grown_;
};

Result<std::shared_ptr<const SourceLists>> SourceLists::build(const std::vector<std::vector<Cidr>>& lists) {
  auto built = std::make_shared<SourceLists>();
  Compiler compiler(lists, *built);
  if (!compiler.compile(IpAddress::Family::v4, built->v4_) || !compiler.compile(IpAddress::Family::v6, built->v6_)) {
    return fail("the lists of clients overlap in more than 65,536 ways; fewer lists with countries make fewer");
  }
  return std::shared_ptr<const SourceLists>(std::move(built));
}

}  // namespace tidegate::l4
