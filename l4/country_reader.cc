// SPDX-License-Identifier: Apache-2.0
#include "l4/country_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "conf/model/service.h"
#include "l4/limits.h"

namespace tidegate::l4 {
namespace {

// Walks the trees of all databases together, in address order.
class CountryWalk {
 public:
  CountryWalk(std::vector<std::shared_ptr<const Mmdb>> databases, const std::set<std::string>& countries)
      : databases_(std::move(databases)), countries_(countries), known_(databases_.size()) {
    for (const std::string& country : countries_) found_[country];
    for (const auto& database : databases_) most_nodes_ += 4 * uint64_t{database->node_count()} + 512;
  }

  Result<void> walk(IpAddress::Family family) {
    Cursors cursors;
    for (const auto& database : databases_) cursors.push_back(database->root(family));
    IpAddress first;
    first.family = family;
    return walk_below(first, 0, cursors);
  }

  CountryNetworks take() { return std::move(found_); }

 private:
  using Cursor = Mmdb::Cursor;
  using Cursors = std::vector<Cursor>;

  // `first`: the first address of the network at which the cursors are.
  Result<void> walk_below(const IpAddress& first, uint8_t length, const Cursors& cursors) {
    const bool leads_on = std::any_of(cursors.begin(), cursors.end(),
                                      [](const Cursor& cursor) { return cursor.kind == Cursor::Kind::node; });
    if (!leads_on || length == first.max_prefix()) return settle(first, length, cursors);
    if (++nodes_ > most_nodes_) return fail("geo database: the search tree has a cycle");
    for (const bool right : {false, true}) {
      Cursors below = cursors;
      for (size_t i = 0; i < databases_.size(); ++i) {
        if (cursors[i].kind != Cursor::Kind::node) continue;
        const Result<Cursor> next = databases_[i]->child(first.family, cursors[i].value, right);
        if (!next) return next.error();
        below[i] = *next;
      }
      IpAddress start = first;
      if (right) start.bytes[length / 8] |= static_cast<uint8_t>(0x80 >> length % 8);
      if (Result<void> walked = walk_below(start, static_cast<uint8_t>(length + 1), below); !walked) return walked;
    }
    return {};
  }

  Result<void> settle(const IpAddress& first, uint8_t length, const Cursors& cursors) {
    for (size_t i = 0; i < cursors.size(); ++i) {
      if (cursors[i].kind != Cursor::Kind::data) continue;
      const std::string& country = country_of(i, cursors[i].value);
      if (country.empty()) continue;
      const auto wanted = found_.find(country);
      if (wanted == found_.end()) return {};
      if (++networks_ > kMaxCountryNetworks) {
        return fail(fmt::format("the countries of lists have more than {} networks", kMaxCountryNetworks));
      }
      wanted->second.push_back({first, length});
      return {};
    }
    return {};
  }

  const std::string& country_of(size_t database, uint32_t data_offset) {
    const auto [known, is_new] = known_[database].try_emplace(data_offset);
    if (is_new) known->second = databases_[database]->facts(data_offset).country;
    return known->second;
  }

  const std::vector<std::shared_ptr<const Mmdb>> databases_;
  const std::set<std::string>& countries_;
  std::vector<std::unordered_map<uint32_t, std::string>> known_;  // countries of records that were read, by database
  CountryNetworks found_;
  uint64_t nodes_ = 0, most_nodes_ = 0;
  size_t networks_ = 0;
};

}  // namespace

Result<std::shared_ptr<const CountryNetworks>> read_countries(const Geo& geo, const std::set<std::string>& countries) {
  std::vector<std::shared_ptr<const Mmdb>> databases;
  for (const std::string& path : mmdb_paths(geo)) {
    Result<std::shared_ptr<const Mmdb>> database = Mmdb::open(path);
    if (!database) return database.error();
    databases.push_back(*std::move(database));
  }
  CountryWalk walk(std::move(databases), countries);
  for (const IpAddress::Family family : {IpAddress::Family::v4, IpAddress::Family::v6}) {
    if (Result<void> walked = walk.walk(family); !walked) return walked.error();
  }
  return std::shared_ptr<const CountryNetworks>(std::make_shared<CountryNetworks>(walk.take()));
}

namespace {

std::set<std::string> countries_of_lists(const Model& model) {
  std::set<std::string> countries;
  for (const Acl& acl : model.acls) countries.insert(acl.countries.begin(), acl.countries.end());
  return countries;
}

}  // namespace

Result<std::shared_ptr<const CountryNetworks>> CountryReader::read(const Model& model) {
  std::set<std::string> countries = countries_of_lists(model);
  if (countries.empty()) return std::shared_ptr<const CountryNetworks>();
  const std::string stamp = mmdb_stamp(model.geo);
  if (read_ && stamp == stamp_ && countries == countries_) return read_;
  Result<std::shared_ptr<const CountryNetworks>> read = read_countries(model.geo, countries);
  stamp_ = stamp;
  if (!read) return read;
  countries_ = std::move(countries);
  read_ = *read;
  return read;
}

bool CountryReader::has_changed(const Model& model) const {
  const bool names_any =
      std::any_of(model.acls.begin(), model.acls.end(), [](const Acl& acl) { return !acl.countries.empty(); });
  return names_any && mmdb_stamp(model.geo) != stamp_;
}

}  // namespace tidegate::l4
