// SPDX-License-Identifier: Apache-2.0
#include "l4/left_vips.h"

#include <algorithm>

#include "core/clock.h"
#include "l4/vip_asker.h"

namespace tidegate::l4 {
namespace {

// As many as come in kClaimCountsNs, which is twenty looks at the board. Later ones displace nothing: their stations
// claim again.
constexpr size_t kMostClaims = 20 * kMaxConflicts;

}  // namespace

void LeftVips::on_control(bool hears_leader, uint64_t now_ns) {
  if (!hears_leader) {
    heard_since_ns_ = 0;
    return;
  }
  if (heard_since_ns_ == 0 || now_ns - heard_ns_ > kUnheardNs) heard_since_ns_ = now_ns;
  heard_ns_ = now_ns;
}

void LeftVips::on_claim(const AddressConflict& claim, uint64_t now_ns) {
  if (claims_.size() >= kMostClaims && !claims_.contains(claim.address)) return;
  claims_[claim.address] = {claim.claimed_by, now_ns};
}

bool LeftVips::settle_alone(uint64_t now_ns) {
  const bool unheard = now_ns - heard_ns_ > kUnheardNs;
  if (!alone_) return alone_ = unheard;
  if (unheard || heard_since_ns_ == 0 || now_ns - heard_since_ns_ < kHeardAgainNs) return false;
  alone_ = false;
  return true;
}

bool LeftVips::settle(const ForwarderOf& forwarder_of, uint32_t place, uint64_t now_ns) {
  bool changed = settle_alone(now_ns);
  std::erase_if(claims_, [&](const auto& claim) { return now_ns - claim.second.at_ns > kClaimCountsNs; });
  if (!alone_) {
    changed = changed || !left_.empty();
    left_.clear();
    answered_.clear();
    return changed;
  }
  for (auto claim = claims_.begin(); claim != claims_.end();) {
    const std::string node = forwarder_of(claim->second.by);
    // The forwarder's own MAC address may not be known yet. Then the claim is looked at again.
    if (node.empty()) {
      ++claim;
      continue;
    }
    std::string& by = left_[claim->first];
    changed = changed || by != node;
    by = node;
    uint64_t& answered_ns = answered_[claim->first];
    answered_ns = std::max(answered_ns, claim->second.at_ns);
    claim = claims_.erase(claim);
  }
  const uint64_t patience_ns = (kRounds * VipAsker::round_ms(left_.size()) + uint64_t{place} * 1'000) * kNsPerMs;
  const size_t before = left_.size();
  std::erase_if(left_, [&](const auto& left) {
    const bool taken_back = now_ns - answered_.at(left.first) > patience_ns;
    if (taken_back) answered_.erase(left.first);
    return taken_back;
  });
  return changed || left_.size() != before;
}

}  // namespace tidegate::l4
