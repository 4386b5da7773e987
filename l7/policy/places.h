// SPDX-License-Identifier: Apache-2.0
// Where clients come from: their country and autonomous system. The databases are those that DNS uses (`geo.mmdb`).
//
// Threads: any thread may ask. A Places object is never changed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "conf/mmdb.h"
#include "conf/model/geo.h"
#include "l7/policy/policy.h"

namespace tidegate::l7::policy {

struct Place {
  std::string country;  // "DE"; empty: not known
  uint32_t asn = 0;     // 0: not known
};

class Places {
 public:
  // The databases in order. Each database is asked only for facts that earlier ones do not have.
  explicit Places(std::vector<std::shared_ptr<const Mmdb>> databases) : databases_(std::move(databases)) {}
  Place of(const IpAddress& address) const;

 private:
  const std::vector<std::shared_ptr<const Mmdb>> databases_;
};

// The databases as they were when a Plan was last compiled. If a file cannot be read, the last good ones stay in force.
// Main thread.
class PlaceFiles final : public Runtime {
 public:
  // Null if none of them could be read so far. The files are read again only if they have changed.
  std::shared_ptr<const Places> read(const Geo& geo);
  const std::string& trouble() const { return trouble_; }  // why the last read failed; empty: it succeeded

 private:
  std::string stamp_;
  std::string trouble_;
  std::shared_ptr<const Places> places_;
};

// The databases of the document's `geo`.
std::shared_ptr<PlaceFiles> place_files(const Geo& geo, Registry& registry);

}  // namespace tidegate::l7::policy
