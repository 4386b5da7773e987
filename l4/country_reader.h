// SPDX-License-Identifier: Apache-2.0
// CountryReader: the networks of the countries that lists of clients name, from the databases that DNS uses too
// (`geo.mmdb`). The databases are files of the host and no part of a version, so they are read again when they change.
// Main thread only.
#pragma once

#include <memory>
#include <set>
#include <string>

#include "conf/mmdb.h"
#include "conf/model.h"
#include "core/result.h"
#include "l4/plan/guard.h"

namespace tidegate::l4 {

// Every network of `countries`, of both families. An address is in the country that the first database says which says
// any. Returns an Error if a database cannot be read, or if there are more than kMaxCountryNetworks.
Result<std::shared_ptr<const CountryNetworks>> read_countries(const Geo& geo, const std::set<std::string>& countries);

class CountryReader {
 public:
  // What the model's lists need; null if they name no country. An Error names the database that cannot be read.
  Result<std::shared_ptr<const CountryNetworks>> read(const Model& model);
  // True if the files have changed since the last read(), and that read named any.
  bool has_changed(const Model& model) const;

 private:
  std::string stamp_;
  std::set<std::string> countries_;
  std::shared_ptr<const CountryNetworks> read_;
};

}  // namespace tidegate::l4
