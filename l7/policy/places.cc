// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/places.h"

#include <fmt/format.h>

#include "core/log.h"

namespace tidegate::l7::policy {
Place Places::of(const IpAddress& address) const {
  Place place;
  for (const std::shared_ptr<const Mmdb>& database : databases_) {
    const std::optional<uint32_t> record = database->record_of(address);
    if (!record) continue;
    Mmdb::Facts facts = database->facts(*record);
    if (place.country.empty()) place.country = std::move(facts.country);
    if (place.asn == 0) place.asn = facts.asn;
  }
  return place;
}

std::shared_ptr<const Places> PlaceFiles::read(const Geo& geo) {
  const std::string stamp = mmdb_stamp(geo);
  if (stamp == stamp_) return places_;
  stamp_ = stamp;
  trouble_.clear();
  std::vector<std::shared_ptr<const Mmdb>> databases;
  for (const std::string& path : mmdb_paths(geo)) {
    Result<std::shared_ptr<const Mmdb>> database = Mmdb::open(path);
    if (!database) {
      trouble_ = database.error().message;
      log_error("policies: {}; {}", trouble_,
                places_ ? "what was read before stays in force"
                        : "clients whose place decides are refused, and nobody's country is known");
      return places_;
    }
    databases.push_back(*std::move(database));
  }
  places_ = std::make_shared<const Places>(std::move(databases));
  return places_;
}

std::shared_ptr<PlaceFiles> place_files(const Geo& geo, Registry& registry) {
  return registry.get<PlaceFiles>(fmt::format("places/{}/{}", geo.mmdb, fmt::join(geo.other_mmdbs, "/")));
}

}  // namespace tidegate::l7::policy
