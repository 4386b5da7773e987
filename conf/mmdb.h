// SPDX-License-Identifier: Apache-2.0
// Mmdb: a MaxMind DB file, held in memory (libmaxminddb). Any thread may read.
#pragma once

#include <maxminddb.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "conf/model/geo.h"
#include "core/ip.h"
#include "core/result.h"

namespace tidegate {

// The databases of `geo`, in order. Each database is asked only for facts that earlier ones do not have.
std::vector<std::string> mmdb_paths(const Geo& geo);
// A text that changes if one of these files is replaced, changes, comes or goes.
std::string mmdb_stamp(const Geo& geo);

class Mmdb {
 public:
  static Result<std::shared_ptr<const Mmdb>> open(const std::string& path);
  ~Mmdb();
  Mmdb(const Mmdb&) = delete;
  Mmdb& operator=(const Mmdb&) = delete;

  // A place in the search tree. Its two children stand for the address's next bit.
  struct Cursor {
    enum class Kind : uint8_t { node, data, nothing } kind = Kind::nothing;
    uint32_t value = 0;  // node number, or offset of the data
  };
  // Where the tree of a family begins; nothing when the file does not hold the family.
  Cursor root(IpAddress::Family family) const;
  uint32_t node_count() const { return db_.metadata.node_count; }
  const char* type() const { return db_.metadata.database_type; }
  // One bit further in the family's tree. The tree of IPv6 contains the tree of IPv4, and also leads to it under other
  // prefixes (6to4, Teredo). A walk of IPv6 finds nothing there. The caller that locates a client decides what such an
  // address means.
  Result<Cursor> child(IpAddress::Family family, uint32_t node, bool right) const;
  // Latitude and longitude of a record; nothing when it has none.
  std::optional<Location> location(uint32_t data_offset) const;
  // The other facts of a record; empty or 0 if it has none.
  struct Facts {
    std::string continent, country;  // "EU", "DE"
    std::string region;              // "DE-BE" (ISO 3166-2)
    uint32_t asn = 0;
  };
  Facts facts(uint32_t data_offset) const;
  // The record of one address, found by the same steps as the walk. Nothing if there is none.
  std::optional<uint32_t> record_of(const IpAddress& address) const;
  std::optional<Location> lookup(const IpAddress& address) const;

 private:
  Mmdb() = default;
  MMDB_s db_{};  // over a copy in memory
  std::string path_;
  bool opened_ = false;
};

}  // namespace tidegate
