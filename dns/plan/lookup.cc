// SPDX-License-Identifier: Apache-2.0
#include "dns/plan/lookup.h"

#include "conf/model/zone.h"

namespace tidegate::dns {
namespace {

// A name as the zone knows it, and as the steers over it know it.
struct Both {
  NodeView node;
  const SteerNames::Entry* entry = nullptr;
  explicit operator bool() const { return static_cast<bool>(node) || entry != nullptr; }
};

Both find_both(const ServedZone& served, std::span<const uint8_t> lower_name) {
  const uint64_t hash = name_hash(lower_name);
  return {served.zone->find(hash, lower_name), served.steer_names.find(hash, lower_name)};
}

uint32_t steer_of(const SteerNames::Entry* entry) { return entry == nullptr ? kNone : entry->steer; }

// A name above it decides: a delegation (RFC 1034 §4.3.2 step 3b), or a DNAME (RFC 6672 §3.2).
Found occluded_by(NodeView occluder) {
  return {occluder.is_delegation() ? Found::Kind::referral : Found::Kind::dname, occluder, kNone};
}

}  // namespace

Found find_name(const ServedZone& served, const Name& name, uint16_t type) {
  const Zone& zone = *served.zone;
  const Both exact = find_both(served, name.wire());
  if (exact.node) {
    if (const NodeView occluder = zone.occluder_of(exact.node)) {
      // The delegation's own DS belongs to this side of the cut (RFC 4035 §3.1.4.1).
      const bool parent_side = type == rrtype::kDs && occluder.name().size() == name.bytes();
      if (!parent_side) return occluded_by(occluder);
    }
  }
  if (exact) return {Found::Kind::exact, exact.node, steer_of(exact.entry)};

  // Every name above an existing one exists. So the walk down from the apex ends at the closest encloser (RFC 4592
  // §3.3.1).
  Both encloser{zone.apex_node(), served.steer_names.apex()};
  for (size_t labels = zone.apex().labels(); labels < name.labels(); ++labels) {
    if (labels > zone.apex().labels()) {
      const Both next = find_both(served, name.suffix(labels));
      if (!next) break;
      encloser = next;
    }
    if (!encloser.node) continue;
    if (const NodeView occluder = zone.occluder_of(encloser.node)) return occluded_by(occluder);
    if (encloser.node.has_dname()) return occluded_by(encloser.node);
  }
  Both wildcard;
  if (encloser.node) wildcard.node = zone.wildcard_of(encloser.node);
  if (encloser.entry != nullptr) wildcard.entry = served.steer_names.wildcard_of(*encloser.entry);
  if (!wildcard) return {};
  return {Found::Kind::wildcard, wildcard.node, steer_of(wildcard.entry)};
}

}  // namespace tidegate::dns
