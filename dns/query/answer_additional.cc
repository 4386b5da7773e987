// SPDX-License-Identifier: Apache-2.0
// The additional section: addresses of the names that an answer's records lead to, and the glue of referrals.
#include <algorithm>
#include <array>
#include <cstring>

#include "conf/model/zone.h"
#include "dns/limits.h"
#include "dns/query/answer_builder.h"

namespace tidegate::dns {
namespace {

// The offset of the name in the data of a type that leads to one.
size_t name_offset(uint16_t type) {
  switch (type) {
    case rrtype::kMx:
    case rrtype::kSvcb:
    case rrtype::kHttps:
      return 2;  // after a preference or priority
    case rrtype::kSrv:
      return 6;  // after priority, weight and port
    default:
      return 0;
  }
}

bool is_root(const Name& name) { return name.labels() == 0; }

// The names that were handled already. The addresses of each name are added once.
class SeenNames {
 public:
  // Returns false if this name was handled already, or if there are as many as allowed.
  bool add(const Name& name) {
    const uint64_t hash = name_hash(name.wire());
    const auto end = hashes_.begin() + static_cast<ptrdiff_t>(count_);
    if (count_ == hashes_.size() || std::find(hashes_.begin(), end, hash) != end) return false;
    hashes_[count_++] = hash;
    return true;
  }

 private:
  std::array<uint64_t, kMaxAdditionalNames> hashes_;
  size_t count_ = 0;
};

}  // namespace

// Reads a name of the reply. It may end in the pointer to the apex, and in no other pointer.
bool AnswerBuilder::read_target(size_t at, Name& target) const {
  const auto message = reply_.written();
  std::array<uint8_t, Name::kMaxBytes> whole;
  size_t bytes = 0;
  while (at < message.size() && message[at] != 0 && (message[at] & 0xc0) != 0xc0) {
    const size_t label = size_t{1} + message[at];
    if (at + label > message.size() || bytes + label >= whole.size()) return false;
    std::memcpy(&whole[bytes], &message[at], label);
    at += label;
    bytes += label;
  }
  if (at >= message.size()) return false;
  const auto apex = zone_->zone->apex().wire();
  const bool ends_in_apex = message[at] != 0;
  const std::span<const uint8_t> end = ends_in_apex ? apex : apex.last(1);
  if (bytes + end.size() > whole.size()) return false;
  std::copy(end.begin(), end.end(), &whole[bytes]);
  return target.parse({whole.data(), bytes + end.size()});
}

void AnswerBuilder::add_addresses_of_targets(const RrsetView& rrset, size_t at) {
  SeenNames seen;
  for (uint16_t i = 0; i < rrset.records; ++i) {
    const size_t rdata_at = at + 12;
    size_t target_at = rdata_at + name_offset(rrset.type);
    at = rdata_at + load_u16(&reply_.written()[at + 10]);
    Name target;
    if (target_at > kMaxPointerTarget || !read_target(target_at, target)) continue;
    // "." means the owner itself for SVCB and HTTPS (RFC 9460 §2.5). For other types it means no name.
    if (is_root(target)) {
      if (rrset.type != rrtype::kSvcb && rrset.type != rrtype::kHttps) continue;
      target = *name_;
      target_at = name_at_;
    }
    if (!seen.add(target)) continue;
    const ServedZone* zone = tables_.authority->zone_for(target);
    if (zone == nullptr) continue;
    const Found found = find_name(*zone, target, rrtype::kA);
    if (found.kind == Found::Kind::exact || found.kind == Found::Kind::wildcard) {
      add_addresses(target, target_at, *zone, found);
    }
  }
}

void AnswerBuilder::add_addresses(const Name& target, size_t target_at, const ServedZone& zone, const Found& found) {
  const size_t apex_at = target_at + target.bytes() - zone.zone->apex().bytes();  // addresses have no pointer to it
  for (const uint16_t type : {rrtype::kA, rrtype::kAaaa}) {
    RrsetView rrset;
    if (found.steer != kNone) {
      const CompiledSteer& steer = tables_.authority->steers[found.steer];
      const bool v4 = type == rrtype::kA;
      const Choice choice = choose_for_client(steer, v4 ? IpAddress::Family::v4 : IpAddress::Family::v6, target);
      const size_t address_bytes = v4 ? 4 : 16;
      if (!reply_.fits(choice.count * (12 + address_bytes))) continue;
      for (uint32_t i = 0; i < choice.count; ++i) {
        reply_.add_record(Section::additional, target_at, type, choice.ttl_s,
                          std::span(choice.picks[i], address_bytes));
      }
    } else if (found.node && !found.node.has_cname() && found.node.find(type, rrset) &&
               reply_.fits(rrset.wire.size())) {
      reply_.add_rrset(Section::additional, rrset, target_at, apex_at);
    }
  }
}

// If the zone has steers, these may give addresses to a delegation's servers. The zone's own glue does not contain
// them.
void AnswerBuilder::add_glue(const RrsetView& servers, size_t at) {
  SeenNames seen;
  const Zone& zone = *zone_->zone;
  for (uint16_t i = 0; i < servers.records; ++i) {
    const size_t target_at = at + 12;
    at = target_at + load_u16(&reply_.written()[at + 10]);
    Name target;
    if (target_at > kMaxPointerTarget || !read_target(target_at, target) || !seen.add(target)) continue;
    if (tables_.authority->zone_for(target) != zone_) continue;
    Found found = find_name(*zone_, target, rrtype::kA);
    // A name below the cut is not answered from here, but its addresses are glue (RFC 1034 §4.2.1).
    if (found.kind == Found::Kind::referral) {
      found = {Found::Kind::exact, zone.find(name_hash(target.wire()), target.wire()), kNone};
      if (!found.node) continue;
    }
    if (found.kind == Found::Kind::exact || found.kind == Found::Kind::wildcard) {
      add_addresses(target, target_at, *zone_, found);
    }
  }
}

}  // namespace tidegate::dns
