// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/places.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include "core/log.h"

namespace tidegate::l7::policy {
namespace {

// Another text where the file is another one.
std::string stamp_of(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return path + " is not there\n";
  return fmt::format("{} {} {} {} {}.{}\n", path, status.st_dev, status.st_ino, status.st_size, status.st_mtim.tv_sec,
                     status.st_mtim.tv_nsec);
}

}  // namespace

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
  std::vector<std::string> paths = {geo.mmdb};
  paths.insert(paths.end(), geo.other_mmdbs.begin(), geo.other_mmdbs.end());
  std::string stamp;
  for (const std::string& path : paths) stamp += stamp_of(path);
  if (stamp == stamp_) return places_;
  stamp_ = stamp;
  trouble_.clear();
  std::vector<std::shared_ptr<const Mmdb>> databases;
  for (const std::string& path : paths) {
    Result<std::shared_ptr<const Mmdb>> database = Mmdb::open(path);
    if (!database) {
      trouble_ = database.error().message;
      log_error("authorise: {}; {}", trouble_,
                places_ ? "what was read before stays in force" : "clients whose place decides are refused");
      return places_;
    }
    databases.push_back(*std::move(database));
  }
  places_ = std::make_shared<const Places>(std::move(databases));
  return places_;
}

}  // namespace tidegate::l7::policy
