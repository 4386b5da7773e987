// SPDX-License-Identifier: Apache-2.0
// Where clients come from, as the databases say that DNS uses too (`geo.mmdb`): their country and autonomous system.
//
// Threads: any may ask; a Places is never changed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "conf/mmdb.h"
#include "conf/model.h"
#include "l7/policy/policy.h"

namespace tidegate::l7::policy {

struct Place {
  std::string country;  // "DE"; empty: nobody knows
  uint32_t asn = 0;     // 0: nobody knows
};

class Places {
 public:
  // The databases in their order: each is asked for what the ones before do not say.
  explicit Places(std::vector<std::shared_ptr<const Mmdb>> databases) : databases_(std::move(databases)) {}
  Place of(const IpAddress& address) const;

 private:
  const std::vector<std::shared_ptr<const Mmdb>> databases_;
};

// The databases as they were when a Plan was last compiled. A file that cannot be read leaves the last good ones in
// force. Main thread.
class PlaceFiles final : public Runtime {
 public:
  // Null: none of them could be read so far. The files are read anew only when they have changed.
  std::shared_ptr<const Places> read(const Geo& geo);
  const std::string& trouble() const { return trouble_; }  // of the last read; empty: it was good

 private:
  std::string stamp_;
  std::string trouble_;
  std::shared_ptr<const Places> places_;
};

// Those of the document's `geo`.
std::shared_ptr<PlaceFiles> place_files(const Geo& geo, Registry& registry);

}  // namespace tidegate::l7::policy
