// SPDX-License-Identifier: Apache-2.0
// Authority: the zones of a version and the steers over them. It depends only on the Model, and not on the host. So
// control checks a version by the same function before the commit.
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
#include "conf/model/zone.h"
#include "dns/steer/steer.h"
#include "dns/steer/steer_names.h"
#include "dns/zone/zone.h"

namespace tidegate::dns {

struct ServedZone {
  std::string name;  // as in the configuration
  std::string hash;  // hash of the file's content
  std::shared_ptr<const Zone> zone;
  SteerNames steer_names;
};

struct Authority {
  std::shared_ptr<const Model> model;
  std::vector<ServedZone> zones;
  std::vector<CompiledSteer> steers;  // parallel to Model::steers
  RankingIndex rankings;              // the rankings that the steers need from the geography
  std::vector<std::string> aliases;   // alias_names() of the model
  std::string digest;                 // with an equal digest, equal geography and equal health, answers are equal

  // The zone with the longest apex that is a suffix of `name` and has at most `max_labels`. Null if there is none.
  const ServedZone* zone_for(const Name& name, size_t max_labels = Name::kMaxLabels) const;
  // Fills the index of zone_for(). Called once, when `zones` is complete.
  void index_apexes();

 private:
  bool has_apex(uint32_t zone, std::span<const uint8_t> lower_name) const;

  // By label count: the zone if only one apex has that count, kNone if none has, kMany if a hash must find it.
  static constexpr uint32_t kMany = kNone - 1;
  std::array<uint32_t, Name::kMaxLabels + 1> zone_by_labels_{};
  std::vector<uint32_t> apex_slots_;  // open addressing over zones, by the apex's hash
};

struct PlannedAuthority {
  std::shared_ptr<const Authority> authority;  // null if there is any fault
  std::vector<Fault> faults;                   // faults in zone files have their place; others only the pointer
};

// Pure: any thread. Uses each zone of `previous` (may be null) that has the same content. Finds every fault of every
// zone and steer.
PlannedAuthority plan_authority(std::shared_ptr<const Model> model, const Authority* previous);

}  // namespace tidegate::dns
