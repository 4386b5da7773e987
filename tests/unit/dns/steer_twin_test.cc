// SPDX-License-Identifier: Apache-2.0
// Every policy and nesting against the naive twin of steer_twin.h, over random edges.
#include "tests/unit/dns/steer_twin.h"
#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/steer.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "dns/steer/choose.h"
#include "tests/unit/dns/mmdb_writer.h"
#include "tests/unit/dns/support.h"

namespace tidegate::dns::test::steer_twin_test {

using Dice = std::mt19937;

constexpr uint32_t kPolicies = 7;
constexpr const char* kContinents[] = {"EU", "NA", "AS"};
constexpr const char* kCountries[] = {"DE", "US", "CN", "FR"};
constexpr uint32_t kAsns[] = {64496, 64497, 64498};

// An edge of random sites, VIPs, pools, networks, databases and steers of every policy, nested up to five levels.
class RandomEdge {
 public:
  explicit RandomEdge(uint32_t seed) : dice_(seed) {
    edge_.add_zone("example.test.", kZone);
    for (int i = 0; i < 5; ++i) {
      const uint32_t site = edge_.add_site("s" + std::to_string(i), number(-80, 80), number(-179, 179));
      if (chance(3)) edge_.model().sites[site].bias = number(-60, 60);
      Node node;
      node.name = "n" + std::to_string(i);
      node.site = site;
      edge_.model().nodes.push_back(node);
    }
    add_vips_and_pools();
    add_geography();
    for (uint32_t i = 0; i < 24; ++i) add_steer(i);
    edge_.aliases()["cdn.elsewhere.test."] = {{true, 7, {{192, 0, 2, 7}, {192, 0, 2, 8}}}, {true, 9, {}}};
    edge_.aliases()["none.elsewhere.test."] = {{true, 60, {}}, {true, 60, {}}};
    shake();
  }

  // Changes health and overrides at random.
  void shake() {
    LiveState& state = edge_.live_state();
    state.health.clear();
    state.overrides.clear();
    const auto drain = [&](const std::string& key) { state.overrides[key] = {OverrideState::drained, "test", "", 0}; };
    const Model& model = edge_.model();
    for (const Pool& pool : model.pools) {
      for (const Backend& backend : pool.backends) {
        state.health[backend_key(pool.name, backend.name)] = {!chance(3), "", 0};
      }
    }
    for (const Vip& vip : model.vips) {
      if (chance(8)) drain(vip_key(vip.name));
    }
    for (const Site& site : model.sites) {
      if (chance(10)) drain(site_key(site.name));
    }
    for (const Steer& steer : model.steers) {
      for (const SteerTarget& target : steer.targets) {
        if (chance(12)) drain(target_key(steer.name, target_label(model, target)));
      }
    }
    state.loads.clear();
    for (const Site& site : model.sites) {
      if (!chance(3)) state.loads[site_key(site.name)] = {100, chance(5) ? 1'000 : below(1'000), 0};
    }
    edge_.changed();
  }

  Edge& edge() { return edge_; }
  const Tables& tables() { return edge_.tables(); }
  uint32_t below(uint32_t bound) { return static_cast<uint32_t>(dice_() % bound); }

  // The first addresses of all configured prefixes, in both families, and the IPv4 addresses that IPv6 carries.
  const std::vector<IpAddress>& borders() const { return borders_; }
  // An address near one about which the edge knows something.
  IpAddress client() {
    IpAddress address = borders_[below(static_cast<uint32_t>(borders_.size()))];
    const size_t from = below(2) == 0 ? address.size() - 1 : below(static_cast<uint32_t>(address.size()));
    for (size_t i = from; i < address.size(); ++i) address.bytes[i] = static_cast<uint8_t>(dice_());
    return address;
  }

 private:
  bool chance(uint32_t one_in) { return below(one_in) == 0; }
  double number(int low, int high) { return low + static_cast<int>(below(static_cast<uint32_t>(high - low))); }

  Cidr network() {
    IpAddress address = *IpAddress::parse(chance(3) ? "2001:db8::" : "10.0.0.0");
    const size_t first = address.is_v4() ? 1 : 4;
    for (size_t i = first; i < first + 3; ++i) address.bytes[i] = static_cast<uint8_t>(below(4) * 64);
    const Cidr network = Cidr::of(address, static_cast<uint8_t>(first * 8 + below(20)));
    note_border(network);
    return network;
  }

  void note_border(const Cidr& network) {
    for (const IpAddress& base : {network.base, after(network)}) {
      borders_.push_back(base);
      if (!base.is_v4()) continue;
      for (const CarriedIpv4& each : carried_ipv4()) {
        IpAddress carrier = each.prefix().base;
        std::copy_n(base.bytes.begin(), 4, carrier.bytes.begin() + each.prefix_bytes);
        borders_.push_back(carrier);
      }
    }
  }
  // The first address after a network; the network's own if it is the last.
  static IpAddress after(const Cidr& network) {
    IpAddress address = network.base;
    for (size_t bit = network.prefix; bit-- > 0;) {
      const auto mask = static_cast<uint8_t>(0x80 >> bit % 8);
      address.bytes[bit / 8] ^= mask;
      if ((address.bytes[bit / 8] & mask) != 0) return address;
    }
    return network.base;
  }

  void add_vips_and_pools() {
    for (int i = 0; i < 8; ++i) {
      const std::string n = std::to_string(i);
      std::vector<std::string> addresses;
      if (i != 1) addresses.push_back("203.0.113." + n);
      if (i == 2) addresses.push_back("203.0.113.100");
      if (i % 3 != 0) addresses.push_back("2001:db8:ff::" + n);
      edge_.add_vip("v" + n, i == 7 ? kNone : below(5), addresses);
    }
    for (int p = 0; p < 3; ++p) {
      std::vector<std::pair<std::string, std::string>> backends;
      for (int b = 0; b < 3; ++b)
        backends.emplace_back("b" + std::to_string(b), "10.200." + std::to_string(p) + "." + std::to_string(b));
      const uint32_t pool = edge_.add_pool("p" + std::to_string(p), backends, true);
      for (Backend& backend : edge_.model().pools[pool].backends) {
        backend.weight = below(4) * 50;
        backend.node = chance(3) ? kNone : below(5);
      }
      edge_.add_service(static_cast<uint32_t>(p), pool);
    }
  }

  void add_geography() {
    MmdbWriter cities, systems;
    // Longer prefixes come later, so that they divide the shorter ones.
    std::set<std::pair<uint8_t, std::string>> sorted;
    for (int i = 0; i < 40; ++i) {
      const Cidr each = network();
      sorted.emplace(each.prefix, each.to_string());
    }
    for (const auto& [prefix, text] : sorted) {
      const std::string country = chance(4) ? "" : kCountries[below(4)];
      const MmdbWriter::Facts facts{chance(4) ? "" : kContinents[below(3)], country,
                                    country.empty() || chance(2) ? "" : "A" + std::to_string(below(2)), 0};
      cities.add(text, chance(5) ? std::nullopt : std::optional(Location{number(-80, 80), number(-179, 179)}), facts);
      if (chance(2)) systems.add(text, std::nullopt, {"", chance(3) ? kCountries[below(4)] : "", "", kAsns[below(3)]});
    }
    cities.add("198.51.100.0/24", Location{1, 1}, {"EU", "DE", "A0", 0});
    // A database is refused if no steer uses any of its facts. So this database also has a location.
    systems.add("198.51.100.0/24", Location{1, 1}, {"", "", "", kAsns[0]});
    note_border(*Cidr::parse("198.51.100.0/24"));
    cities_.emplace(cities.bytes());
    systems_.emplace(systems.bytes());
    Geo& geo = edge_.model().geo;
    geo.mmdb = cities_->path();
    geo.other_mmdbs = {systems_->path()};
    for (int i = 0; i < 8; ++i) {
      if (chance(2)) {
        edge_.add_network(network().to_string(), below(5));
      } else {
        edge_.add_network(network().to_string(), Location{number(-80, 80), number(-179, 179)});
      }
    }
    if (!chance(3)) geo.default_site = below(5);
  }

  void add_clients(SteerTarget& target) {
    TargetClients& clients = target.clients;
    if (chance(4)) return;  // for everybody else
    if (chance(2)) clients.networks = {network(), network()};
    if (chance(3)) clients.asns = {kAsns[below(3)]};
    if (chance(3)) clients.regions = {std::string(kCountries[below(4)]) + "-A" + std::to_string(below(2))};
    if (chance(2)) clients.countries = {kCountries[below(4)]};
    if (chance(3)) clients.continents = {kContinents[below(3)]};
  }

  void add_steer(uint32_t index) {
    std::vector<SteerTarget> targets;
    uint32_t level = 1;
    const auto policy = static_cast<SteerPolicy>(index % kPolicies);
    const uint32_t count = 1 + below(5);
    std::set<std::string> labels;
    for (uint32_t i = 0; i < count; ++i) {
      const uint32_t kind = below(10);
      SteerTarget target;
      const uint32_t inner = index == 0 ? 0 : below(index);
      if (kind < 4 || (kind > 6 && index == 0)) {
        target = to_vip(below(8));
      } else if (kind < 6) {
        target = to_pool(below(3));
      } else if (kind == 6) {
        target = to_alias(chance(3)   ? "none.elsewhere.test."
                          : chance(2) ? "late.elsewhere.test."
                                      : "cdn.elsewhere.test.");
      } else if (levels_[inner] < 5) {
        target = to_steer(inner);
        level = std::max(level, levels_[inner] + 1);
      } else {
        target = to_vip(below(8));
      }
      target.weight = below(4) * 100;
      if (target.vip() == kNone && target.pool() == kNone && !chance(4)) target.site = below(5);
      if (policy == SteerPolicy::map) add_clients(target);
      if (labels.insert(target_label(edge_.model(), target)).second) targets.push_back(target);
    }
    levels_.push_back(level);
    targets[0].weight = 100;
    Steer& steer = edge_.add_steer("w" + std::to_string(index) + ".example.test.", policy, targets);
    steer.ttl_s = 5 + below(60);
    steer.max_answers = 1 + below(6);
    if (chance(3)) steer.all_down = AllDown::closed;
    if (chance(3)) steer.client_prefix_v4 = static_cast<uint8_t>(12 + below(16));
    if (chance(3)) steer.client_prefix_v6 = static_cast<uint8_t>(36 + below(24));
  }

  Dice dice_;
  Edge edge_;
  std::optional<TemporaryFile> cities_, systems_;
  std::vector<uint32_t> levels_;
  std::vector<IpAddress> borders_;
};

// The product's answer, in the twin's form.
struct OurAnswer {
  std::vector<std::string> addresses;
  Choice choice;
};

OurAnswer ask_ours(const Tables& tables, uint32_t steer, IpAddress::Family family, const IpAddress& client,
                   uint64_t now_s) {
  const auto name = Name::from_text(tables.authority->model->steers[steer].name);
  OurAnswer answer;
  answer.choice = choose(steer_context(tables), tables.authority->steers[steer], family, client,
                         DrawKey(name->wire(), client, now_s));
  for (uint32_t i = 0; i < answer.choice.count; ++i) {
    IpAddress address;
    address.family = family;
    std::copy_n(answer.choice.picks[i], address.size(), address.bytes.begin());
    answer.addresses.push_back(address.to_string());
  }
  return answer;
}

void compare_pairs(uint32_t edges, uint32_t states, uint32_t pairs) {
  std::map<SteerPolicy, uint32_t> answered;
  for (uint32_t e = 0; e < edges; ++e) {
    RandomEdge random(100 + e);
    for (uint32_t state = 0; state < states; ++state) {
      random.shake();
      const Tables& tables = random.tables();
      const SteerTwin twin(*tables.snapshot, random.edge().aliases());
      for (uint32_t i = 0; i < pairs; ++i) {
        const uint32_t steer = random.below(static_cast<uint32_t>(tables.authority->steers.size()));
        const auto family = i % 3 == 0 ? IpAddress::Family::v6 : IpAddress::Family::v4;
        const IpAddress client = random.client();
        const uint64_t now_s = 1'700'000'000 + random.below(1'000);
        const OurAnswer ours = ask_ours(tables, steer, family, client, now_s);
        const TwinAnswer theirs = twin.ask(steer, family, client, now_s);
        ASSERT_EQ(ours.addresses, theirs.addresses)
            << "edge " << e << ", steer " << steer << ", client " << client.to_string() << "; " << theirs.trace;
        ASSERT_EQ(ours.choice.failed_open, theirs.failed_open);
        if (theirs.addresses.empty()) continue;
        ASSERT_EQ(ours.choice.ttl_s, theirs.ttl_s);
        ++answered[tables.authority->steers[steer].policy];
      }
    }
  }
  for (uint32_t policy = 0; policy < kPolicies; ++policy)
    EXPECT_GT(answered[static_cast<SteerPolicy>(policy)], edges * states * pairs / 20) << policy;
}

TEST(SteerTwin, AgreesOnTwoThousandPairs) { compare_pairs(5, 4, 100); }
TEST(LongSteerTwin, AgreesOnAMillionPairs) { compare_pairs(50, 20, 1'000); }

// The scope is the widest prefix around the client in which the decision is the same everywhere. Decisions change only
// at the borders of configured networks, and for sticky at the client's own network. So the decision is computed at
// each border within the prefix, and at the first address of each half.
void prove_scopes(uint32_t seed, uint32_t clients) {
  RandomEdge random(seed);
  const Tables& tables = random.tables();
  const SteerTwin twin(*tables.snapshot, random.edge().aliases());
  std::map<std::tuple<uint32_t, IpAddress::Family, std::string>, std::string> traces;
  for (uint32_t i = 0; i < clients; ++i) {
    const uint32_t steer = random.below(static_cast<uint32_t>(tables.authority->steers.size()));
    const auto family = i % 3 == 0 ? IpAddress::Family::v6 : IpAddress::Family::v4;
    const IpAddress client = random.client();
    const auto trace_at = [&](const IpAddress& address) {
      const auto [at, added] = traces.try_emplace({steer, family, address.to_string()});
      if (added) at->second = twin.ask(steer, family, address, 1'700'000'000).trace;
      return at->second;
    };
    const OurAnswer ours = ask_ours(tables, steer, family, client, 1'700'000'000);
    const std::string trace = trace_at(client);
    // Where in the prefix around the client the trace differs, or nothing.
    const auto other_within = [&](uint8_t prefix) -> std::string {
      const Cidr around = Cidr::of(client, prefix);
      std::vector<IpAddress> points{around.base};
      for (const IpAddress& border : random.borders()) {
        if (border.family == client.family && around.contains(border)) points.push_back(border);
      }
      // The first address of that half of the prefix in which the client is not.
      if (prefix < client.size() * 8) {
        IpAddress other = Cidr::of(client, static_cast<uint8_t>(prefix + 1)).base;
        other.bytes[prefix / 8] ^= static_cast<uint8_t>(0x80 >> prefix % 8);
        points.push_back(other);
      }
      for (const IpAddress& point : points) {
        if (trace_at(point) != trace) return point.to_string() + " " + trace_at(point);
      }
      return {};
    };
    const uint8_t scope = ours.choice.scope;
    ASSERT_EQ(other_within(scope), "") << "too wide: " << client.to_string() << "/" << int{scope} << " steer " << steer
                                       << " " << trace;
    if (scope == 0) continue;
    ASSERT_NE(other_within(static_cast<uint8_t>(scope - 1)), "")
        << "too narrow: " << client.to_string() << "/" << int{scope} << " steer " << steer << " " << trace;
  }
}

TEST(SteerTwin, ScopesAreTheWidestThatAreRightForEveryPolicy) {
  for (const uint32_t seed : {1, 2, 3}) prove_scopes(seed, 50);
}
TEST(LongSteerTwin, ScopesAreTheWidestThatAreRightOnManyEdges) {
  for (uint32_t seed = 10; seed < 60; ++seed) prove_scopes(seed, 3'000);
}

}  // namespace tidegate::dns::test::steer_twin_test
