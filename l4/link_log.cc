// SPDX-License-Identifier: Apache-2.0
#include "l4/link_log.h"

#include <fmt/format.h>

#include "core/clock.h"
#include "core/log.h"

namespace tidegate::l4 {

void LinkLog::say_conflicts(const std::vector<AddressConflict>& conflicts, const std::vector<Port>& ports,
                            uint64_t now_ns) {
  constexpr uint64_t kAgainNs = 60 * kNsPerS;
  constexpr size_t kMostRemembered = 1'024;
  for (const AddressConflict& conflict : conflicts) {
    if (said_conflicts_.size() > kMostRemembered) said_conflicts_.clear();
    const auto [said, is_new] = said_conflicts_.try_emplace(conflict.address, now_ns);
    if (!is_new && now_ns - said->second < kAgainNs) continue;
    said->second = now_ns;
    log_warn("port {}: {} claims our address {}: two hosts have it", ports[conflict.port].device(),
             conflict.claimed_by.to_string(), conflict.address.to_string());
  }
}

void LinkLog::say_who_is_cut_off(const ForwardingTables& tables, const BackendIds& backends) {
  constexpr size_t kMostLines = 16;
  std::set<std::string> now;
  backends.for_each([&](const BackendKey& key, BackendId id) {
    for (const uint8_t family : {uint8_t{4}, uint8_t{6}}) {
      if (tables.backend(id).is_cut_off(family)) {
        now.insert(fmt::format("{}/{} (IPv{})", key.first, key.second, family));
      }
    }
  });
  size_t lines = 0;
  for (const std::string& name : now) {
    if (cut_off_.contains(name) || lines++ >= kMostLines) continue;
    log_warn("backend {} cannot be reached: no answer by ARP or ND, or its port is down; it gets no new flows", name);
  }
  for (const std::string& name : cut_off_) {
    if (!now.contains(name) && lines++ < kMostLines) log_info("backend {} is no longer cut off", name);
  }
  if (lines > kMostLines) log_warn("{} further backends came or went", lines - kMostLines);
  cut_off_ = std::move(now);
}

}  // namespace tidegate::l4
