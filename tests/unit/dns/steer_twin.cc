// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/dns/steer_twin.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "conf/model/node.h"
#include "conf/model/pool.h"

namespace tidegate::dns::test {
namespace {

uint64_t hash_of(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3ULL;
  return mix64(hash);
}

IpAddress carried(const IpAddress& address) {
  if (address.is_v4()) return address;
  size_t at = 0;
  if (address.bytes[0] == 0x20 && address.bytes[1] == 0x02) at = 2;
  if (Cidr::parse("::ffff:0:0/96")->contains(address)) at = 12;
  if (at == 0) return address;
  IpAddress v4 = *IpAddress::parse("0.0.0.0");
  std::copy_n(address.bytes.begin() + static_cast<ptrdiff_t>(at), 4, v4.bytes.begin());
  return v4;
}

template <class List, class Value>
bool has(const List& list, const Value& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

}  // namespace

// One question, and the answer so far.
struct SteerTwin::Call {
  IpAddress::Family family;
  IpAddress client;
  Facts facts;
  uint64_t seed;
  bool open;  // the second attempt: everything without an override counts
  std::vector<std::string> addresses;
  uint32_t ttl_s;

  uint64_t salted(uint64_t salt) const { return salt == 0 ? seed : mix64(seed ^ salt); }
};

SteerTwin::SteerTwin(const Snapshot& snapshot, const AliasBook& aliases)
    : snapshot_(snapshot), model_(*snapshot.model), aliases_(aliases) {
  for (const std::string& path : mmdb_paths(model_.geo)) mmdbs_.push_back(Mmdb::open(path).value());
}

SteerTwin::Facts SteerTwin::facts_of(const IpAddress& client) const {
  const IpAddress address = carried(client);
  Facts facts;
  for (const auto& mmdb : mmdbs_) {
    const auto record = mmdb->record_of(address);
    if (!record) continue;
    if (!facts.location) facts.location = mmdb->location(*record);
    const Mmdb::Facts more = mmdb->facts(*record);
    if (facts.facts.country.empty()) facts.facts.country = more.country;
    if (facts.facts.region.empty()) facts.facts.region = more.region;
    if (facts.facts.continent.empty()) facts.facts.continent = more.continent;
    if (facts.facts.asn == 0) facts.facts.asn = more.asn;
  }
  int longest = -1;
  for (const GeoNetwork& network : model_.geo.networks) {
    if (!network.network.contains(address) || network.network.prefix < longest) continue;
    longest = network.network.prefix;
    facts.site = network.site;
    facts.location = network.location;
  }
  if (longest < 0 && !facts.location) facts.site = model_.geo.default_site;
  return facts;
}

std::vector<uint32_t> SteerTwin::site_order(const Facts& facts, const std::vector<uint32_t>& sites) const {
  std::vector<std::pair<double, uint32_t>> by_distance;
  for (const uint32_t site : sites) {
    double distance = 0;  // if nothing is known: the model's order
    if (site == facts.site) {
      distance = -1;
    } else if (facts.site != kNone) {
      distance = distance_to_site(model_.sites[facts.site].location, model_.sites[site]);
    } else if (facts.location) {
      distance = distance_to_site(*facts.location, model_.sites[site]);
    }
    by_distance.emplace_back(distance, site);
  }
  std::sort(by_distance.begin(), by_distance.end());
  std::vector<uint32_t> order;
  for (const auto& [distance, site] : by_distance) order.push_back(site);
  return order;
}

std::vector<SteerTwin::Option> SteerTwin::options_of(uint32_t s, IpAddress::Family family) const {
  const Steer& steer = model_.steers[s];
  std::vector<Option> options;
  for (uint32_t t = 0; t < steer.targets.size(); ++t) {
    const SteerTarget& target = steer.targets[t];
    const std::string label = target_label(model_, target);
    const bool drained = snapshot_.live_state->overrides.count(target_key(steer.name, label)) != 0;
    std::vector<Option> mine;
    const auto add = [&](const std::vector<IpAddress>& addresses, Option shape) {
      for (const IpAddress& address : addresses) {
        if (address.family != family) continue;
        shape.address = address.to_string();
        mine.push_back(shape);
        ++shape.nth;
      }
    };
    Option shape{t, target.site, 1, !drained, !drained, label, 0, {}, target.steer(), nullptr};
    if (target.vip() != kNone) {
      const Vip& vip = model_.vips[target.vip()];
      shape.site = vip.site;
      shape.usable = shape.usable && snapshot_.vip_up[target.vip()];
      shape.open = shape.open && !snapshot_.vip_drained[target.vip()];
      add(vip.addresses, shape);
    } else if (target.pool() != kNone) {
      const Pool& pool = model_.pools[target.pool()];
      for (uint32_t b = 0; b < pool.backends.size(); ++b) {
        const Backend& backend = pool.backends[b];
        const BackendStatus& status = snapshot_.pools[target.pool()].backends[b];
        Option each = shape;
        each.site = backend.node == kNone ? kNone : model_.nodes[backend.node].site;
        each.weight = backend.weight;
        each.identity = label + "/" + backend.name;
        const bool site_drained = each.site != kNone && snapshot_.site_drained[each.site];
        each.open = each.open && !status.admin && !site_drained && backend.weight > 0;
        each.usable = each.open && snapshot_.pools[target.pool()].up && status.state == BackendState::up;
        add(backend.addresses, each);
      }
    } else {
      if (const auto* alias = std::get_if<TargetAlias>(&target.what)) {
        static const AliasAddresses kUnknown;
        const auto known = aliases_.find(alias->name);
        shape.alias = &(known == aliases_.end() ? kUnknown : known->second).of(family);
      }
      mine.push_back(shape);
    }
    // The target's weight is divided among its addresses by their backends' weights.
    if (steer.policy != SteerPolicy::weighted) {
      uint64_t total = 0;
      for (const Option& each : mine) total += each.weight;
      for (Option& each : mine) {
        const uint64_t whole = uint64_t{target.weight} * 4'096;
        each.weight = total == 0 ? whole / mine.size() : whole * each.weight / total;
      }
    }
    options.insert(options.end(), mine.begin(), mine.end());
  }
  return options;
}

// The classes in the order in which they are tried for this client.
std::vector<std::vector<SteerTwin::Option>> SteerTwin::classes_of(uint32_t s, Call& call, std::string& trace) const {
  const Steer& steer = model_.steers[s];
  const std::vector<Option> options = options_of(s, call.family);
  std::vector<std::vector<Option>> classes;
  const auto add_class = [&](auto&& is_member) {
    auto& members = classes.emplace_back();
    std::copy_if(options.begin(), options.end(), std::back_inserter(members), is_member);
    if (members.empty()) classes.pop_back();
  };
  const auto add_targets = [&](std::vector<uint32_t> targets, std::vector<uint32_t>& used) {
    std::vector<uint32_t> group;
    for (const uint32_t t : targets) {
      if (!has(used, t)) group.push_back(t);
    }
    if (group.empty()) return;
    std::sort(group.begin(), group.end());
    used.insert(used.end(), group.begin(), group.end());
    trace += fmt::format("[{}]", fmt::join(group, " "));
    add_class([&](const Option& o) { return has(group, o.target); });
  };
  std::vector<uint32_t> used;
  switch (steer.policy) {
    case SteerPolicy::nearest: {
      std::vector<uint32_t> sites;
      for (const Option& option : options) {
        if (option.site != kNone && !has(sites, option.site)) sites.push_back(option.site);
      }
      const auto order = site_order(call.facts, sites);
      if (order.size() > 1) trace += fmt::format("nearest {};", fmt::join(order, " "));
      for (const uint32_t site : order) add_class([&](const Option& o) { return o.site == site; });
      add_class([&](const Option& o) { return o.site == kNone; });
      break;
    }
    case SteerPolicy::shed: {
      std::vector<uint32_t> sites;
      for (const Option& option : options) {
        if (option.site != kNone && !has(sites, option.site)) sites.push_back(option.site);
      }
      const auto order = site_order(call.facts, sites);
      if (order.size() > 1) trace += fmt::format("nearest {};", fmt::join(order, " "));
      std::vector<std::pair<double, uint32_t>> sent_on;
      for (const uint32_t site : order) {
        const uint64_t hash = shed_hash(steer, site, call);
        const uint64_t permille = order.size() > 1 ? shed_permille(site) : 0;
        if (hash < UINT64_MAX / 1'000 * permille) {
          const double uniform = (static_cast<double>(mix64(hash) >> 11) + 0.5) * 0x1p-53;
          sent_on.emplace_back(-std::log(uniform) / static_cast<double>(1'000 - permille), site);
        } else {
          add_class([&](const Option& o) { return o.site == site; });
        }
      }
      add_class([&](const Option& o) { return o.site == kNone; });
      std::sort(sent_on.begin(), sent_on.end());
      for (const auto& each : sent_on) add_class([&](const Option& o) { return o.site == each.second; });
      break;
    }
    case SteerPolicy::failover:
      for (uint32_t t = 0; t < steer.targets.size(); ++t) add_class([&](const Option& o) { return o.target == t; });
      break;
    case SteerPolicy::map: {
      if (options.empty()) break;
      trace += "map ";
      const IpAddress address = carried(call.client);
      for (int prefix = 128; prefix >= 0; --prefix) {
        std::vector<uint32_t> group;
        for (uint32_t t = 0; t < steer.targets.size(); ++t) {
          for (const Cidr& network : steer.targets[t].clients.networks) {
            if (network.prefix == prefix && network.contains(address)) group.push_back(t);
          }
        }
        add_targets(group, used);
      }
      const Mmdb::Facts& facts = call.facts.facts;
      const auto matching = [&](auto&& matches) {
        std::vector<uint32_t> group;
        for (uint32_t t = 0; t < steer.targets.size(); ++t) {
          if (matches(steer.targets[t].clients)) group.push_back(t);
        }
        add_targets(group, used);
      };
      matching([&](const TargetClients& c) { return has(c.asns, facts.asn); });
      matching([&](const TargetClients& c) { return has(c.regions, facts.region); });
      matching([&](const TargetClients& c) { return has(c.countries, facts.country); });
      matching([&](const TargetClients& c) { return has(c.continents, facts.continent); });
      matching([&](const TargetClients& c) { return c.empty(); });
      trace += ";";
      break;
    }
    case SteerPolicy::weighted:
      for (uint32_t t = 0; t < steer.targets.size(); ++t) {
        if (steer.targets[t].weight != 0) add_class([&](const Option& o) { return o.target == t; });
      }
      break;
    case SteerPolicy::sticky:
    case SteerPolicy::multivalue:
      add_class([](const Option&) { return true; });
      break;
  }
  return classes;
}

uint64_t SteerTwin::shed_permille(uint32_t site) const {
  const auto load = snapshot_.live_state->loads.find(site_key(model_.sites[site].name));
  return load == snapshot_.live_state->loads.end() ? 0 : std::min<uint64_t>(load->second.shed_permille, 950);
}

uint64_t SteerTwin::shed_hash(const Steer& steer, uint32_t site, const Call& call) const {
  const uint8_t prefix = call.client.is_v4() ? steer.client_prefix_v4 : steer.client_prefix_v6;
  return mix64(DrawKey({}, call.client, 0).hash_of_network(prefix) ^ hash_of(steer.name) ^
               hash_of(model_.sites[site].name));
}

// How far the answer depends on the client's network: up to the site that answers.
bool SteerTwin::survey_shed(uint32_t s, Call& call, std::string& trace) const {
  const Steer& steer = model_.steers[s];
  const std::vector<std::vector<Option>> classes = classes_of(s, call, trace);
  std::vector<uint32_t> sites;
  for (const auto& each : classes) {
    if (each.front().site != kNone) sites.push_back(each.front().site);
  }
  const uint8_t prefix = call.client.is_v4() ? steer.client_prefix_v4 : steer.client_prefix_v6;
  const std::string by_network = "shed " + Cidr::of(call.client, prefix).to_string() + ";";
  std::string within;
  const auto answers = [&](const std::vector<Option>& from) {
    bool any = false;
    for (const Option& option : from) any |= has_something(option, call, within);
    return any;
  };
  const auto answering = std::find_if(classes.begin(), classes.end(), answers);
  trace += within;
  if (sites.size() < 2) return answering != classes.end();
  // A site with a share was checked before the answer, or gave it.
  for (const uint32_t site : site_order(call.facts, sites)) {
    if (shed_permille(site) != 0) {
      trace += by_network;
      break;
    }
    if (answering != classes.end() && answering->front().site == site) break;
  }
  return answering != classes.end();
}

bool SteerTwin::is_allowed(const Option& option, const Call& call) const {
  return call.open ? option.open : option.usable;
}

bool SteerTwin::has_something(const Option& option, Call& call, std::string& trace) const {
  if (!is_allowed(option, call)) return false;
  if (option.steer != kNone) return survey(option.steer, call, trace);
  return option.alias == nullptr || !option.alias->addresses.empty();
}

bool SteerTwin::survey(uint32_t s, Call& call, std::string& trace) const {
  const Steer& steer = model_.steers[s];
  if (steer.policy == SteerPolicy::sticky) {
    const auto options = by_network(s, call);
    if (options_of(s, call.family).size() > 1) {
      const uint8_t prefix = call.client.is_v4() ? steer.client_prefix_v4 : steer.client_prefix_v6;
      trace += "sticky " + Cidr::of(call.client, prefix).to_string() + ";";
    }
    return std::any_of(options.begin(), options.end(), [&](const Option& o) { return has_something(o, call, trace); });
  }
  if (steer.policy == SteerPolicy::shed) return survey_shed(s, call, trace);
  bool any = false;
  for (const auto& each : classes_of(s, call, trace)) {
    for (const Option& option : each) any |= has_something(option, call, trace);
    if (any && steer.policy != SteerPolicy::weighted) return true;
  }
  return any;
}

// The candidates of a sticky steer for the client's network, the first choice first.
std::vector<SteerTwin::Option> SteerTwin::by_network(uint32_t s, const Call& call) const {
  const Steer& steer = model_.steers[s];
  const uint8_t prefix = call.client.is_v4() ? steer.client_prefix_v4 : steer.client_prefix_v6;
  const uint64_t network = DrawKey({}, call.client, 0).hash_of_network(prefix) ^ hash_of(steer.name);
  std::vector<std::pair<double, Option>> scored;
  for (const Option& option : options_of(s, call.family)) {
    if (!is_allowed(option, call) || option.weight == 0) continue;
    const uint64_t identity = hash_of(option.identity) ^ (option.nth == 0 ? 0 : mix64(option.nth));
    const double uniform = (static_cast<double>(mix64(network ^ identity) >> 11) + 0.5) * 0x1p-53;
    scored.emplace_back(-std::log(uniform) / static_cast<double>(option.weight), option);
  }
  std::sort(scored.begin(), scored.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<Option> options;
  for (auto& [score, option] : scored) options.push_back(option);
  return options;
}

bool SteerTwin::add(const Option& option, Call& call, uint64_t salt, size_t end) const {
  if (option.steer != kNone)
    return take(option.steer, call, mix64(salt ^ hash_of(model_.steers[option.steer].name)), end);
  if (option.alias == nullptr) {
    if (has(call.addresses, option.address)) return false;
    call.addresses.push_back(option.address);
    return true;
  }
  const auto& list = option.alias->addresses;
  if (list.empty()) return false;
  const size_t first =
      Random(call.salted(mix64(salt ^ hash_of(option.identity)))).below(static_cast<uint32_t>(list.size()));
  bool added = false;
  for (size_t i = 0; i < list.size() && call.addresses.size() < end; ++i) {
    IpAddress address;
    address.family = call.family;
    address.bytes = list[(first + i) % list.size()];
    if (has(call.addresses, address.to_string())) continue;
    call.addresses.push_back(address.to_string());
    added = true;
  }
  if (added) call.ttl_s = std::min(call.ttl_s, option.alias->ttl_s);
  return added;
}

bool SteerTwin::draw(std::vector<Option> from, Call& call, uint64_t salt, size_t end) const {
  std::erase_if(from, [&](const Option& o) { return !is_allowed(o, call); });
  const size_t before = call.addresses.size();
  Random random(call.salted(salt));
  while (!from.empty() && call.addresses.size() < end) {
    uint64_t total = 0;
    for (const Option& option : from) total += option.weight;
    size_t pick = 0;
    if (from.size() > 1 && total > 0) {
      uint64_t at = random.below_wide(total);
      while (at >= from[pick].weight) at -= from[pick++].weight;
    }
    const Option option = from[pick];
    from.erase(from.begin() + static_cast<ptrdiff_t>(pick));
    add(option, call, salt, end);
  }
  return call.addresses.size() != before;
}

bool SteerTwin::take(uint32_t s, Call& call, uint64_t salt, size_t end) const {
  const Steer& steer = model_.steers[s];
  end = std::min<size_t>(end, call.addresses.size() + steer.max_answers);
  std::string unused;
  bool any = false;
  if (steer.policy == SteerPolicy::sticky) {
    for (const Option& option : by_network(s, call)) {
      const bool address = option.steer == kNone && option.alias == nullptr;
      any = add(option, call, salt, address ? call.addresses.size() + 1 : end);
      if (any) break;
    }
  } else if (steer.policy == SteerPolicy::weighted) {
    auto open = classes_of(s, call, unused);
    Random random(call.salted(salt));
    while (!open.empty() && !any) {
      uint64_t total = 0;
      for (const auto& each : open) total += steer.targets[each.front().target].weight;
      uint64_t at = random.below_wide(total);
      size_t pick = 0;
      while (at >= steer.targets[open[pick].front().target].weight)
        at -= steer.targets[open[pick++].front().target].weight;
      any = draw(open[pick], call, mix64(salt + 1), end);
      open[pick] = open.back();
      open.pop_back();
    }
  } else {
    for (const auto& each : classes_of(s, call, unused)) {
      any = draw(each, call, salt, end);
      if (any) break;
    }
  }
  if (any) call.ttl_s = std::min(call.ttl_s, static_cast<uint32_t>(steer.ttl_s));
  return any;
}

TwinAnswer SteerTwin::ask(uint32_t s, IpAddress::Family family, const IpAddress& client, uint64_t now_s) const {
  const Steer& steer = model_.steers[s];
  const auto name = Name::from_text(steer.name);
  Call call{family,
            client,
            facts_of(client),
            DrawKey(name->wire(), client, now_s).seed(),
            false,
            {},
            static_cast<uint32_t>(steer.ttl_s)};
  TwinAnswer answer;
  survey(s, call, answer.trace);
  if (!take(s, call, 0, 32) && steer.all_down == AllDown::open) {
    call.open = true;
    answer.trace += "open:";
    survey(s, call, answer.trace);
    answer.failed_open = take(s, call, 0, 32);
  }
  answer.addresses = call.addresses;
  answer.ttl_s = call.ttl_s;
  return answer;
}

}  // namespace tidegate::dns::test
