// SPDX-License-Identifier: Apache-2.0
#include "l4/plan/guard.h"

#include <algorithm>

#include "core/assert.h"

namespace tidegate::l4 {
namespace {

constexpr uint64_t kMostBurst = 4'000'000;

Rate guard_rate(uint64_t per_second, uint64_t burst) {
  if (per_second == 0) return {};
  const uint64_t tokens = burst != 0 ? burst : std::min(per_second, kMostBurst);
  return {static_cast<uint32_t>(per_second), static_cast<uint32_t>(std::min(tokens, kMostBurst))};
}

bool bounds_anything(const ServiceLimits& limits) {
  return (limits.packets | limits.flows | limits.source_packets | limits.source_flows) != 0;
}

}  // namespace

AddressWords prefix_mask(uint8_t family, uint8_t prefix) {
  IpAddress all;
  all.family = family == 4 ? IpAddress::Family::v4 : IpAddress::Family::v6;
  std::fill_n(all.bytes.begin(), all.size(), uint8_t{0xff});
  return words_of(Cidr::of(all, prefix).base);
}

ListDecision decide_by_lists(const std::vector<uint16_t>& lists_of_client, const std::vector<uint32_t>& deny,
                             const std::vector<uint32_t>& allow, const std::vector<AclId>& ids) {
  const auto has_client = [&](uint32_t list) {
    return std::binary_search(lists_of_client.begin(), lists_of_client.end(), static_cast<uint16_t>(list));
  };
  const auto denied = std::find_if(deny.begin(), deny.end(), has_client);
  if (denied != deny.end()) return {Admission::denied, ids[*denied]};
  const auto allowed = std::find_if(allow.begin(), allow.end(), has_client);
  if (allowed != allow.end()) return {Admission::allowed, ids[*allowed]};
  return {allow.empty() ? Admission::open : Admission::not_allowed, kNoAcl};
}

std::unique_ptr<Guard> make_guard(const Service& service, ServiceId id, const SourceLists* lists,
                                  const std::vector<AclId>& acl_ids) {
  const bool asks_lists = !service.allow.empty() || !service.deny.empty();
  if (!asks_lists && !bounds_anything(service.limits)) return nullptr;
  auto guard = std::make_unique<Guard>();
  guard->service = id;
  if (asks_lists) {
    TIDEGATE_ASSERT(lists != nullptr, "a service that asks lists has them");
    for (const std::vector<uint16_t>& set : lists->sets()) {
      guard->decisions.push_back(decide_by_lists(set, service.deny, service.allow, acl_ids));
    }
  }
  const ServiceLimits& limits = service.limits;
  guard->packets = guard_rate(limits.packets, limits.packets_burst);
  guard->flows = guard_rate(limits.flows, limits.flows_burst);
  guard->source_packets = guard_rate(limits.source_packets, limits.source_packets_burst);
  guard->source_flows = guard_rate(limits.source_flows, limits.source_flows_burst);
  guard->mask_v4 = prefix_mask(4, limits.source_prefix_v4);
  guard->mask_v6 = prefix_mask(6, limits.source_prefix_v6);
  return guard;
}

}  // namespace tidegate::l4
