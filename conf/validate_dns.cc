// SPDX-License-Identifier: Apache-2.0
// Cross checks of zones, steers and geo.
#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <unordered_set>

#include "conf/checks.h"
#include "conf/names.h"
#include "conf/secret_store.h"
#include "core/crypto.h"

namespace tidegate {
namespace {

// True if `name`, or a name above it, is one of the zones. All have the final dot and are in lower case.
bool is_within(std::string_view name, const std::unordered_set<std::string_view>& zones) {
  if (zones.contains(".")) return true;
  while (!name.empty()) {
    if (zones.contains(name)) return true;
    const size_t dot = name.find('.');
    name.remove_prefix(dot == std::string_view::npos ? name.size() : dot + 1);
  }
  return false;
}

void check_zone_file(Checks& checks, size_t z) {
  const Blob& file = checks.model().zones[z].file;
  if (file.name.empty()) return;  // reported already
  // tidegate-dns cannot read a file that holds a private key.
  if (file.bytes == nullptr || holds_private_key(*file.bytes)) {
    checks.refuse({"zones", z, "file"},
                  {"unusable_zone", fmt::format("file '{}' holds a private key", file.name), "a master file", {}});
    return;
  }
  const bool blank = file.bytes->find_first_not_of(" \t\r\n") == std::string::npos;
  if (!blank && file.bytes->find('\0') == std::string::npos) return;
  checks.refuse({"zones", z, "file"}, {"unusable_zone",
                                       fmt::format("file '{}' {}", file.name, blank ? "is empty" : "is not text"),
                                       "a master file (RFC 1035 §5)",
                                       {}});
}

void check_steer_is_in_a_zone(Checks& checks, size_t s, const std::unordered_set<std::string_view>& names) {
  const Model& model = checks.model();
  const std::string& name = model.steers[s].name;
  if (name.empty() || is_within(name, names)) return;
  // If the name of a zone is faulty, the author may have meant that zone.
  if (names.contains("") || !checks.sound({"zones"})) return;
  std::vector<std::string_view> zones;
  for (const Zone& zone : model.zones) zones.push_back(zone.name);
  checks.refuse({"steers", s, "name"}, {"outside_zones",
                                        fmt::format("{} is in none of the zones", in_quotes(name)),
                                        {},
                                        zones.empty() ? "there are no zones in this document"
                                                      : fmt::format("the zones are {}", fmt::join(zones, ", "))});
}

// `nearest` compares distances, so every target needs a location.
void check_target_has_place(Checks& checks, size_t s, size_t t) {
  const Model& model = checks.model();
  const SteerTarget& target = model.steers[s].targets[t];
  if (model.steers[s].policy != SteerPolicy::nearest || model.steers[s].targets.size() < 2 || target.vip == kNone)
    return;
  const Vip& vip = model.vips[target.vip];
  if (!checks.sound({"vips", target.vip})) return;
  const bool placed =
      vip.site != kNone && (checks.written({"sites", vip.site, "location"}) || !checks.sound({"sites", vip.site}));
  if (placed) return;
  checks.refuse({"steers", s, "targets", t, "vip"},
                {"missing_place",
                 fmt::format("vip '{}' has no place to measure the distance to", vip.name),
                 {},
                 vip.site == kNone ? fmt::format("give it a site{}", checks.line_of({"vips", target.vip}))
                                   : fmt::format("give site '{}' a location{}", model.sites[vip.site].name,
                                                 checks.line_of({"sites", vip.site}))});
}

void check_targets(Checks& checks, size_t s) {
  const std::vector<SteerTarget>& targets = checks.model().steers[s].targets;
  for (size_t t = 0; t < targets.size(); ++t) {
    if (!checks.sound({"steers", s, "targets", t})) continue;
    const bool vip = targets[t].vip != kNone, pool = targets[t].pool != kNone;
    if (vip == pool) {
      checks.refuse({"steers", s, "targets", t},
                    {"exactly_one",
                     vip ? "a target has both a vip and a pool" : "a target has neither a vip nor a pool",
                     "one of vip and pool",
                     {}});
      continue;
    }
    for (size_t other = 0; other < t; ++other) {
      if (targets[other].vip != targets[t].vip || targets[other].pool != targets[t].pool) continue;
      checks.refuse(
          {"steers", s, "targets", t, vip ? "vip" : "pool"},
          {"duplicate_name",
           fmt::format("{} is a target twice", vip ? "this vip" : "this pool"),
           {},
           fmt::format("the first is target {}{}", other + 1, checks.line_of({"steers", s, "targets", other}))});
      break;
    }
    check_target_has_place(checks, s, t);
  }
}

// A weight of 0 is never drawn. If all weights are 0, the name would have no address at all.
void check_some_weight(Checks& checks, size_t s) {
  const Steer& steer = checks.model().steers[s];
  if (steer.policy != SteerPolicy::weighted || steer.targets.empty()) return;
  if (!checks.sound({"steers", s, "targets"})) return;
  const bool all_zero =
      std::all_of(steer.targets.begin(), steer.targets.end(), [](const SteerTarget& t) { return t.weight == 0; });
  if (!all_zero) return;
  checks.refuse({"steers", s, "targets"}, {"without_effect", "every target has weight 0, so none is ever drawn",
                                           "a weight above 0", "to take all targets out, drain their sites or pools"});
}

void check_https_record(Checks& checks, size_t s) {
  const Model& model = checks.model();
  if (!model.steers[s].https_record || !checks.sound({"listeners"})) return;
  const bool any_tls = std::any_of(model.listeners.begin(), model.listeners.end(),
                                   [](const Listener& listener) { return listener.tls.enabled; });
  if (any_tls) return;
  checks.refuse({"steers", s, "https_record"},
                {"without_effect", "no listener of this document ends TLS, so there is nothing to tell", {}, {}});
}

// Clients in such a network are located by the IPv4 address that their IPv6 address contains.
void check_network_is_not_ipv4s(Checks& checks, size_t n) {
  static const Cidr kCarriers[] = {*Cidr::parse("2002::/16"), *Cidr::parse("::ffff:0:0/96")};
  const Cidr& network = checks.model().geo.networks[n].network;
  for (const Cidr& carrier : kCarriers) {
    if (network.prefix < carrier.prefix || !carrier.contains(network.base)) continue;
    checks.refuse({"geo", "networks", n, "network"},
                  {"without_effect",
                   fmt::format("{} is within {}, whose addresses carry an IPv4 address and are located by it",
                               network.to_string(), carrier.to_string()),
                   {},
                   "name the IPv4 network"});
  }
}

void check_geo(Checks& checks) {
  const std::vector<GeoNetwork>& networks = checks.model().geo.networks;
  for (size_t n = 0; n < networks.size() && !checks.full(); ++n) {
    if (checks.sound({"geo", "networks", n})) check_network_is_not_ipv4s(checks, n);
  }
  for (size_t n = 0; n < networks.size() && !checks.full(); ++n) {
    if (!checks.sound({"geo", "networks", n}) || (networks[n].site != kNone) != networks[n].location.has_value())
      continue;
    checks.refuse({"geo", "networks", n},
                  {"exactly_one",
                   fmt::format("network {} has {}", networks[n].network.to_string(),
                               networks[n].location ? "both a site and a location" : "neither a site nor a location"),
                   "one of site and location",
                   {}});
  }
}

// A token names its account.
void check_tokens(Checks& checks, size_t a) {
  const std::vector<HttpDnsAccount>& accounts = checks.model().httpdns_accounts;
  for (size_t t = 0; t < accounts[a].tokens.size(); ++t) {
    for (size_t other = 0; other < a; ++other) {
      const std::vector<std::string>& tokens = accounts[other].tokens;
      if (std::find(tokens.begin(), tokens.end(), accounts[a].tokens[t]) == tokens.end()) continue;
      checks.refuse({"httpdns", "accounts", a, "tokens", t},
                    {"duplicate_name",
                     fmt::format("account '{}' has this token already", accounts[other].id),
                     {},
                     "a token opens one account"});
    }
  }
}

void check_httpdns(Checks& checks) {
  const std::vector<HttpDnsAccount>& accounts = checks.model().httpdns_accounts;
  for (size_t a = 0; a < accounts.size() && !checks.full(); ++a) {
    check_tokens(checks, a);
    if (accounts[a].des_key.empty() || accounts[a].des_key.size() == 8) continue;
    checks.refuse({"httpdns", "accounts", a, "des_key"},
                  {"bad_value", "des_key is not a key of 8 bytes", "eight characters", {}});
  }
  for (size_t a = 0; a < accounts.size() && !checks.full(); ++a) {
    const std::string& key = accounts[a].aes_key;
    if (key.empty() || (key.size() == 32 && hex_decode(key))) continue;
    checks.refuse({"httpdns", "accounts", a, "aes_key"},
                  {"bad_value", "aes_key is not a key of 16 bytes", "32 hexadecimal digits", {}});
  }
}

}  // namespace

void check_dns(Checks& checks) {
  for (size_t z = 0; z < checks.model().zones.size(); ++z) check_zone_file(checks, z);
  std::unordered_set<std::string_view> names;
  for (const Zone& zone : checks.model().zones) names.insert(zone.name);
  for (size_t s = 0; s < checks.model().steers.size() && !checks.full(); ++s) {
    check_steer_is_in_a_zone(checks, s, names);
    check_targets(checks, s);
    check_some_weight(checks, s);
    check_https_record(checks, s);
  }
  check_geo(checks);
  check_httpdns(checks);
}

}  // namespace tidegate
