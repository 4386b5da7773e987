// SPDX-License-Identifier: Apache-2.0
// Tables: the data from which this plane decides, derived from a Snapshot. Authority is the content of a version (zones
// and steers). The GeoMap is compiled from it and from a database on this host. Health depends on live state. New
// Tables share everything that did not change with the previous ones.
//
// Immutable once built: every worker reads the same one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "conf/model/node.h"
#include "conf/snapshot.h"
#include "core/result.h"
#include "core/token_bucket.h"
#include "dns/plan/authority.h"
#include "dns/query/acme_records.h"
#include "dns/steer/alias_book.h"
#include "dns/steer/choose.h"
#include "dns/steer/geo.h"
#include "dns/steer/ranking_map.h"

namespace tidegate::dns {

// A file's identity on disk, to notice that it was replaced.
struct FileStamp {
  uint64_t device = 0, inode = 0, bytes = 0;
  int64_t modified_ns = 0;
  bool operator==(const FileStamp&) const = default;
};

struct Tables {
  std::shared_ptr<const Snapshot> snapshot;
  std::shared_ptr<const Authority> authority;
  std::shared_ptr<const GeoMap> geo;
  std::vector<FileStamp> mmdb_stamps;
  Rankings rankings;  // rankings of the geography for the authority's steers
  // The rest of each HTTPDNS account's quota; parallel to Model::httpdns_accounts. Only this part changes while the
  // Tables are in force (TokenBucket: any thread). The account's id keeps its bucket from version to version.
  std::vector<std::shared_ptr<TokenBucket>> account_buckets;
  Health health;
  std::vector<SiteShare> shares;        // load shares of sites; empty: no site sheds
  std::vector<AliasAddresses> aliases;  // parallel to Authority::aliases
  AcmeRecords acme;                     // usually empty
  std::string nsid;
  std::string digest;  // digest of the authority, the geography and health
};

inline SteerContext steer_context(const Tables& tables) {
  return {tables.authority->steers, tables.rankings, tables.health, tables.aliases, tables.shares};
}

// Builds the Tables. Parts of `previous` (may be null) that still fit are used again. `planned` (may be null) is used
// if it was made from the same Model. The aliases are copied from `previous`. The Error names the fault in a zone, a
// steer or a geo database.
Result<std::shared_ptr<const Tables>> build_tables(std::shared_ptr<const Snapshot> snapshot, const Node& node,
                                                   const Tables* previous,
                                                   std::shared_ptr<const Authority> planned = nullptr);

// The same Tables with the present addresses of the aliases.
std::shared_ptr<const Tables> with_aliases(const Tables& tables, const AliasBook& aliases);

}  // namespace tidegate::dns
