// SPDX-License-Identifier: Apache-2.0
#include "dns/query/tables.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>

#include "core/crypto.h"
#include "core/log.h"
#include "dns/query/lookup.h"

namespace tidegate::dns {
namespace {

FileStamp stamp_of(const std::string& path) {
  struct stat status {};
  if (path.empty() || ::stat(path.c_str(), &status) != 0) return {};
  return {status.st_dev, status.st_ino, static_cast<uint64_t>(status.st_size),
          status.st_mtim.tv_sec * int64_t{1'000'000'000} + status.st_mtim.tv_nsec};
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
    return x.name == y.name && same_place(x.location, y.location);
  };
  return a.geo.mmdb == b.geo.mmdb && a.geo.default_site == b.geo.default_site &&
         std::equal(a.geo.networks.begin(), a.geo.networks.end(), b.geo.networks.begin(), b.geo.networks.end(),
                    same_network) &&
         std::equal(a.sites.begin(), a.sites.end(), b.sites.begin(), b.sites.end(), same_site) &&
         steered_sites(a) == steered_sites(b);
}

Result<void> load_zones(Authority& authority, const Authority* previous) {
  for (const tidegate::Zone& configured : authority.model->zones) {
    ServedZone served;
    served.name = configured.name;
    served.hash = configured.file.hash;
    if (previous != nullptr) {
      for (const ServedZone& old : previous->zones) {
        if (old.name == served.name && old.hash == served.hash && !old.hash.empty()) served.zone = old.zone;
      }
    }
    if (!served.zone) {
      if (!configured.file.bytes) return fail(fmt::format("zone {}: its file was not loaded", configured.name));
      auto zone = Zone::parse(configured.name, configured.file.name, *configured.file.bytes);
      if (!zone) return zone.error();
      served.zone = *zone;
      for (const std::string& warning : served.zone->warnings()) log_warn("zone {}: {}", served.name, warning);
    }
    authority.zones.push_back(std::move(served));
  }
  authority.index_apexes();
  return {};
}

// A steer needs a name of our own to stand on: not one that the zone gives away or points elsewhere.
Result<void> lay_steer(Authority& authority, uint32_t index) {
  const Steer& steer = authority.model->steers[index];
  const auto name = Name::from_text(steer.name);
  if (!name) return fail(fmt::format("steer {}: the name is malformed", steer.name));
  const auto* found_zone = authority.zone_for(*name);
  if (found_zone == nullptr) return fail(fmt::format("steer {}: no zone holds the name", steer.name));
  ServedZone& served = authority.zones[static_cast<size_t>(found_zone - authority.zones.data())];
  const Found found = find_name(served, *name, rrtype::kA);
  if (found.kind == Found::Kind::referral || found.kind == Found::Kind::dname) {
    return fail(fmt::format("steer {}: the zone {} gives the name away at {}", steer.name, served.name,
                            name_to_text(found.node.name())));
  }
  if (found.kind == Found::Kind::exact && found.node && found.node.has_cname()) {
    return fail(fmt::format("steer {}: the name is a CNAME in the zone {}", steer.name, served.name));
  }
  served.steer_names.add(*name, served.zone->apex().labels(), index);
  return {};
}

Result<void> load_steers(Authority& authority) {
  const Model& model = *authority.model;
  const HealthLayout layout(model);
  authority.steers.reserve(model.steers.size());
  for (uint32_t i = 0; i < model.steers.size(); ++i) {
    if (auto laid = lay_steer(authority, i); !laid) return laid;
    authority.steers.push_back(compile_steer(model, i, layout));
  }
  return {};
}

Result<void> load_geo(Authority& authority, const Authority* previous) {
  const Model& model = *authority.model;
  authority.mmdb_stamp = stamp_of(model.geo.mmdb);
  if (previous != nullptr && previous->mmdb_stamp == authority.mmdb_stamp && same_geography(*previous->model, model)) {
    authority.geo = previous->geo;
    return {};
  }
  auto geo = GeoMap::build(model.geo, model.sites, steered_sites(model));
  if (!geo) return geo.error();
  authority.geo = *geo;
  return {};
}

void take_over_buckets(Authority& authority, const Authority* previous) {
  for (const HttpDnsAccount& account : authority.model->httpdns_accounts) {
    std::shared_ptr<TokenBucket>& bucket = authority.account_buckets.emplace_back();
    for (size_t i = 0; previous != nullptr && i < previous->account_buckets.size(); ++i) {
      if (previous->model->httpdns_accounts[i].id == account.id) bucket = previous->account_buckets[i];
    }
    if (!bucket) bucket = std::make_shared<TokenBucket>();
  }
}

// Equal digest, equal answers for equal health: over what was configured, not over addresses in memory.
std::string authority_digest(const Authority& authority) {
  std::string text;
  for (const ServedZone& zone : authority.zones) {
    text += fmt::format("zone {} {} {} {}\n", zone.name, zone.hash, zone.zone->names(), zone.zone->records());
  }
  for (const CompiledSteer& steer : authority.steers) {
    text +=
        fmt::format("steer {} {} {} {} {}\n", authority.model->steers[steer.model_index].name,
                    static_cast<int>(steer.policy), steer.ttl_s, steer.max_answers, static_cast<int>(steer.all_down));
    for (const HttpsService& service : steer.https) text += fmt::format(" https {} {}\n", service.port, service.http2);
    for (const auto* family : {&steer.v4, &steer.v6}) {
      for (const Candidate& c : *family) {
        text += fmt::format(" {} {} {} {} {}\n", hex_encode({reinterpret_cast<const char*>(c.address.data()), 16}),
                            c.site, c.target, c.weight, steer.target_weights[c.target]);
      }
    }
  }
  text += fmt::format("geo {} {}\n", authority.geo->order_count(), authority.geo->prefix_count());
  return sha256_hex(text);
}

}  // namespace

void Authority::index_apexes() {
  apex_slots_.assign(std::bit_ceil(zones.size() * 2 + 1), kNone);
  zone_by_labels_.fill(kNone);
  const size_t mask = apex_slots_.size() - 1;
  for (uint32_t z = 0; z < zones.size(); ++z) {
    const Name& apex = zones[z].zone->apex();
    uint32_t& by_labels = zone_by_labels_[apex.labels()];
    by_labels = by_labels == kNone ? z : kMany;
    size_t i = name_hash(apex.wire()) & mask;
    while (apex_slots_[i] != kNone) i = (i + 1) & mask;
    apex_slots_[i] = z;
  }
}

bool Authority::has_apex(uint32_t zone, std::span<const uint8_t> lower_name) const {
  const auto apex = zones[zone].zone->apex().wire();
  return apex.size() == lower_name.size() && std::memcmp(apex.data(), lower_name.data(), apex.size()) == 0;
}

const ServedZone* Authority::zone_for(const Name& name, size_t max_labels) const {
  const size_t mask = apex_slots_.size() - 1;
  for (size_t labels = std::min(name.labels(), max_labels) + 1; labels-- > 0;) {
    const uint32_t only = zone_by_labels_[labels];
    if (only == kNone) continue;
    const auto suffix = name.suffix(labels);
    if (only != kMany) {
      if (has_apex(only, suffix)) return &zones[only];
      continue;
    }
    for (size_t i = name_hash(suffix) & mask; apex_slots_[i] != kNone; i = (i + 1) & mask) {
      if (has_apex(apex_slots_[i], suffix)) return &zones[apex_slots_[i]];
    }
  }
  return nullptr;
}

Result<std::shared_ptr<const Tables>> build_tables(std::shared_ptr<const Snapshot> snapshot, const Node& node,
                                                   const Tables* previous) {
  auto tables = std::make_shared<Tables>();
  const Authority* old = previous == nullptr ? nullptr : previous->authority.get();
  if (old != nullptr && old->model == snapshot->model && old->mmdb_stamp == stamp_of(snapshot->model->geo.mmdb)) {
    tables->authority = previous->authority;
  } else {
    auto authority = std::make_shared<Authority>();
    authority->model = snapshot->model;
    if (const auto loaded = load_zones(*authority, old); !loaded) return loaded.error();
    if (const auto loaded = load_steers(*authority); !loaded) return loaded.error();
    if (const auto loaded = load_geo(*authority, old); !loaded) return loaded.error();
    authority->digest = authority_digest(*authority);
    take_over_buckets(*authority, old);
    tables->authority = std::move(authority);
  }
  tables->health = compile_health(*snapshot);
  tables->nsid = node.dns.nsid;
  const std::string health(tables->health.begin(), tables->health.end());
  tables->digest = sha256_hex(tables->authority->digest + health);
  tables->snapshot = std::move(snapshot);
  return std::shared_ptr<const Tables>(std::move(tables));
}

}  // namespace tidegate::dns
