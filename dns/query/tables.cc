// SPDX-License-Identifier: Apache-2.0
#include "dns/query/tables.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "conf/model.h"
#include "conf/model/httpdns.h"
#include "conf/model/zone.h"
#include "core/crypto.h"
#include "core/log.h"

namespace tidegate::dns {
namespace {

FileStamp stamp_of(const std::string& path) {
  struct stat status {};
  if (path.empty() || ::stat(path.c_str(), &status) != 0) return {};
  return {status.st_dev, status.st_ino, static_cast<uint64_t>(status.st_size),
          status.st_mtim.tv_sec * int64_t{1'000'000'000} + status.st_mtim.tv_nsec};
}

std::vector<FileStamp> stamps_of(const Geo& geo) {
  std::vector<FileStamp> stamps;
  for (const std::string& path : mmdb_paths(geo)) stamps.push_back(stamp_of(path));
  return stamps;
}

bool same_place(const std::optional<Location>& a, const std::optional<Location>& b) {
  if (a.has_value() != b.has_value()) return false;
  return !a || (a->latitude == b->latitude && a->longitude == b->longitude);
}

bool same_geography(const Model& a, const Model& b) {
  const auto same_network = [](const GeoNetwork& x, const GeoNetwork& y) {
    return x.network == y.network && x.site == y.site && same_place(x.location, y.location);
  };
  const auto same_site = [](const Site& x, const Site& y) {
    return x.name == y.name && same_place(x.location, y.location) && x.bias == y.bias;
  };
  return mmdb_paths(a.geo) == mmdb_paths(b.geo) && a.geo.default_site == b.geo.default_site &&
         std::equal(a.geo.networks.begin(), a.geo.networks.end(), b.geo.networks.begin(), b.geo.networks.end(),
                    same_network) &&
         std::equal(a.sites.begin(), a.sites.end(), b.sites.begin(), b.sites.end(), same_site) &&
         steered_sites(a) == steered_sites(b) && WantedFacts::of(a) == WantedFacts::of(b);
}

// Logs the unusual things in zones that `old` (may be null) does not have.
void log_warnings(const Authority& authority, const Authority* old) {
  std::unordered_set<const Zone*> known;
  if (old != nullptr) {
    for (const ServedZone& zone : old->zones) known.insert(zone.zone.get());
  }
  for (const ServedZone& zone : authority.zones) {
    if (known.contains(zone.zone.get())) continue;
    for (const std::string& warning : zone.zone->warnings()) log_warn("zone {}: {}", zone.name, warning);
  }
}

Result<void> load_geo(Tables& tables, const Tables* previous) {
  const Model& model = *tables.snapshot->model;
  tables.mmdb_stamps = stamps_of(model.geo);
  if (previous != nullptr && previous->mmdb_stamps == tables.mmdb_stamps &&
      (previous->snapshot->model.get() == &model || same_geography(*previous->snapshot->model, model))) {
    tables.geo = previous->geo;
    return {};
  }
  auto geo = GeoMap::build(model.geo, model.sites, steered_sites(model), WantedFacts::of(model));
  if (!geo) return geo.error();
  tables.geo = *geo;
  return {};
}

Result<void> load_rankings(Tables& tables, const Tables* previous) {
  auto rankings =
      build_rankings(tables.authority->rankings, tables.geo, previous == nullptr ? nullptr : &previous->rankings);
  if (!rankings) return rankings.error();
  tables.rankings = *std::move(rankings);
  return {};
}

// Copies the addresses of each alias from `previous`.
void take_over_aliases(Tables& tables, const Tables* previous) {
  for (const std::string& name : tables.authority->aliases) {
    AliasAddresses& known = tables.aliases.emplace_back();
    if (previous == nullptr) continue;
    const std::vector<std::string>& names = previous->authority->aliases;
    const auto at = std::lower_bound(names.begin(), names.end(), name);
    if (at != names.end() && *at == name) known = previous->aliases[static_cast<size_t>(at - names.begin())];
  }
}

void take_over_buckets(Tables& tables, const Tables* previous) {
  if (previous != nullptr && previous->snapshot->model == tables.snapshot->model) {
    tables.account_buckets = previous->account_buckets;
    return;
  }
  std::unordered_map<std::string_view, std::shared_ptr<TokenBucket>> known;  // by the account's id
  for (size_t i = 0; previous != nullptr && i < previous->account_buckets.size(); ++i) {
    known.emplace(previous->snapshot->model->httpdns_accounts[i].id, previous->account_buckets[i]);
  }
  for (const HttpDnsAccount& account : tables.snapshot->model->httpdns_accounts) {
    const auto bucket = known.find(account.id);
    tables.account_buckets.push_back(bucket != known.end() ? bucket->second : std::make_shared<TokenBucket>());
  }
}

}  // namespace

Result<std::shared_ptr<const Tables>> build_tables(std::shared_ptr<const Snapshot> snapshot, const Node& node,
                                                   const Tables* previous, std::shared_ptr<const Authority> planned) {
  auto tables = std::make_shared<Tables>();
  const Authority* old = previous == nullptr ? nullptr : previous->authority.get();
  tables->snapshot = snapshot;
  if (planned != nullptr && planned->model == snapshot->model) {
    tables->authority = std::move(planned);
  } else if (old != nullptr && old->model == snapshot->model) {
    tables->authority = previous->authority;
  } else {
    PlannedAuthority made = plan_authority(snapshot->model, old);
    if (!made.authority) return fail(summary_of(made.faults));
    tables->authority = std::move(made.authority);
  }
  if (tables->authority.get() != old) log_warnings(*tables->authority, old);
  if (const auto loaded = load_geo(*tables, previous); !loaded) return loaded.error();
  if (const auto loaded = load_rankings(*tables, previous); !loaded) return loaded.error();
  take_over_aliases(*tables, previous);
  take_over_buckets(*tables, previous);
  tables->health = compile_health(*snapshot);
  tables->shares = compile_shares(*snapshot);
  tables->acme = acme_records(*snapshot->live_state);
  tables->nsid = node.dns.nsid;
  std::string health(tables->health.begin(), tables->health.end());
  for (const SiteShare& share : tables->shares) health += fmt::format(" {}", share.kept_permille);
  for (const auto& [owner, texts] : tables->acme) health += fmt::format(" {} {}", hex_encode(owner), texts.size());
  tables->digest = sha256_hex(fmt::format("{} {} {}\n{}", tables->authority->digest, tables->geo->order_count(),
                                          tables->geo->prefix_count(), health));
  return std::shared_ptr<const Tables>(std::move(tables));
}

std::shared_ptr<const Tables> with_aliases(const Tables& tables, const AliasBook& aliases) {
  auto changed = std::make_shared<Tables>(tables);
  for (size_t i = 0; i < changed->aliases.size(); ++i) {
    const auto at = aliases.find(tables.authority->aliases[i]);
    changed->aliases[i] = at == aliases.end() ? AliasAddresses{} : at->second;
  }
  return changed;
}

}  // namespace tidegate::dns
