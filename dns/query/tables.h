// SPDX-License-Identifier: Apache-2.0
// Tables: what this plane decides by, derived from a Snapshot. Authority is the part that a version changes (zones,
// steers, geography) and Health the part that live state changes; a new Tables shares whatever did not change with the
// one before.
//
// Immutable once built: every worker reads the same one.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "conf/snapshot.h"
#include "core/result.h"
#include "core/token_bucket.h"
#include "dns/steer/geo.h"
#include "dns/steer/steer.h"
#include "dns/steer/steer_names.h"
#include "dns/zone/zone.h"

namespace tidegate::dns {

struct ServedZone {
  std::string name;  // as configured
  std::string hash;  // of the file's content
  std::shared_ptr<const Zone> zone;
  SteerNames steer_names;
};

// A file's identity on disk, to notice that it was replaced.
struct FileStamp {
  uint64_t device = 0, inode = 0, bytes = 0;
  int64_t modified_ns = 0;
  bool operator==(const FileStamp&) const = default;
};

struct Authority {
  std::shared_ptr<const Model> model;
  std::vector<ServedZone> zones;
  std::vector<CompiledSteer> steers;  // parallel to Model::steers
  std::shared_ptr<const GeoMap> geo;
  FileStamp mmdb_stamp;
  std::string digest;
  // What is left of each HTTPDNS account's quota; parallel to Model::httpdns_accounts. The only part that changes while
  // it is in force (TokenBucket: any thread). An account keeps its bucket from version to version, by its id.
  std::vector<std::shared_ptr<TokenBucket>> account_buckets;

  // The zone with the longest apex that `name` ends in and that has at most `max_labels`; null when there is none.
  const ServedZone* zone_for(const Name& name, size_t max_labels = Name::kMaxLabels) const;
  // Fills the index behind zone_for(); called once, when `zones` is complete.
  void index_apexes();

 private:
  bool has_apex(uint32_t zone, std::span<const uint8_t> lower_name) const;

  // By label count: the zone when only one apex has that count, kNone when none has, kMany when a hash must tell.
  static constexpr uint32_t kMany = kNone - 1;
  std::array<uint32_t, Name::kMaxLabels + 1> zone_by_labels_{};
  std::vector<uint32_t> apex_slots_;  // open addressing over zones, by the apex's hash
};

struct Tables {
  std::shared_ptr<const Snapshot> snapshot;
  std::shared_ptr<const Authority> authority;
  Health health;
  std::string nsid;
  std::string digest;  // of the authority and of health
};

// Builds what `previous` (may be null) does not already hold. The Error names the zone or steer at fault and why.
Result<std::shared_ptr<const Tables>> build_tables(std::shared_ptr<const Snapshot> snapshot, const Node& node,
                                                   const Tables* previous);

}  // namespace tidegate::dns
