// SPDX-License-Identifier: Apache-2.0
// CountryReader: the networks of the countries in client lists, from the databases that DNS also uses (`geo.mmdb`). The
// databases are files of the host and not part of a version, so they are read again when they change. Main thread only.
#pragma once

#include <memory>
#include <set>
#include <string>

#include "conf/mmdb.h"
#include "conf/model.h"
#include "core/result.h"
#include "l4/plan/guard.h"

namespace tidegate::l4 {

// Every network of `countries`, of both families. The first database that has a country for an address decides. Returns
// an Error if a database cannot be read, or if there are more than kMaxCountryNetworks.
Result<std::shared_ptr<const CountryNetworks>> read_countries(const Geo& geo, const std::set<std::string>& countries);

class CountryReader {
 public:
  // The networks that the model's lists need; null if they name no country. An Error names the database that cannot be
  // read.
  Result<std::shared_ptr<const CountryNetworks>> read(const Model& model);
  // True if the lists named a country at the last read(), and the files have changed since.
  bool has_changed(const Model& model) const;

 private:
  std::string stamp_;
  std::set<std::string> countries_;
  std::shared_ptr<const CountryNetworks> read_;
};

}  // namespace tidegate::l4
