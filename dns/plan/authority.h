// SPDX-License-Identifier: Apache-2.0
// Authority: what this plane makes of a version's content: zones, and the steers laid over them. It depends on the
// Model alone, not on the host, so control judges a version by the same function before it is committed.
//
// Immutable once built: any thread may read it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "conf/fault.h"
#include "conf/model.h"
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

struct Authority {
  std::shared_ptr<const Model> model;
  std::vector<ServedZone> zones;
  std::vector<CompiledSteer> steers;  // parallel to Model::steers
  RankingIndex rankings;              // what the steers ask of the geography
  std::vector<std::string> aliases;   // alias_names() of the model
  std::string digest;                 // equal digest, equal answers for equal geography and health

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

struct PlannedAuthority {
  std::shared_ptr<const Authority> authority;  // null if there is any fault
  std::vector<Fault> faults;                   // in zone files with their place; others with the pointer alone
};

// Pure: any thread. Takes over every zone that `previous` (may be null) holds with the same content. Finds every fault
// of every zone and steer.
PlannedAuthority plan_authority(std::shared_ptr<const Model> model, const Authority* previous);

}  // namespace tidegate::dns
