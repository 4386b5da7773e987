// SPDX-License-Identifier: Apache-2.0
// Cross checks of zones, geo and httpdns.
#include <fmt/format.h>

#include <algorithm>

#include "conf/checks.h"
#include "conf/model.h"
#include "conf/model/httpdns.h"
#include "conf/model/zone.h"
#include "conf/names.h"
#include "conf/secret_store.h"
#include "core/crypto.h"

namespace tidegate {
namespace {

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

void check_network_is_not_ipv4s(Checks& checks, size_t n) {
  if (auto complaint = complaint_of_carried_ipv4(checks.model().geo.networks[n].network)) {
    checks.refuse({"geo", "networks", n, "network"}, *std::move(complaint));
  }
}

void check_geo(Checks& checks) {
  constexpr size_t kMaxOtherMmdbs = 3;
  const Geo& geo = checks.model().geo;
  if (geo.other_mmdbs.size() > kMaxOtherMmdbs || (!geo.other_mmdbs.empty() && geo.mmdb.empty())) {
    checks.refuse({"geo", "other_mmdbs"},
                  {"bad_value",
                   geo.mmdb.empty() ? "other_mmdbs are given without mmdb"
                                    : fmt::format("{} further databases", geo.other_mmdbs.size()),
                   "mmdb, and at most three others",
                   {}});
  }
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

// A token identifies its account.
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

std::optional<Complaint> complaint_of_carried_ipv4(const Cidr& network) {
  static const Cidr kCarriers[] = {*Cidr::parse("2002::/16"), *Cidr::parse("::ffff:0:0/96")};
  for (const Cidr& carrier : kCarriers) {
    if (network.prefix < carrier.prefix || !carrier.contains(network.base)) continue;
    return Complaint{"without_effect",
                     fmt::format("{} is within {}, whose addresses carry an IPv4 address and are located by it",
                                 network.to_string(), carrier.to_string()),
                     {},
                     "name the IPv4 network"};
  }
  return std::nullopt;
}

void check_dns(Checks& checks) {
  for (size_t z = 0; z < checks.model().zones.size(); ++z) check_zone_file(checks, z);
  check_steers(checks);
  check_geo(checks);
  check_httpdns(checks);
}

}  // namespace tidegate
