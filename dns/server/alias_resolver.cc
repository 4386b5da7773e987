// SPDX-License-Identifier: Apache-2.0
#include "dns/server/alias_resolver.h"

#include <algorithm>

#include "core/clock.h"
#include "dns/limits.h"

namespace tidegate::dns {
namespace {

constexpr uint64_t kTogetherMs = 20;  // answers that come within this time count as one change
constexpr uint32_t kShortestS = 1, kLongestS = 3'600, kNegativeS = 30, kStaleTtlS = 30;
constexpr uint64_t kStaleNs = 24 * 3'600 * kNsPerS;
constexpr uint64_t kFirstRetryS = 1, kLastRetryS = 60;

}  // namespace

struct AliasResolver::Lookup {
  std::string name;
  IpAddress::Family family;
  uint64_t due_ns = 0;    // time of the next lookup; monotonic
  uint64_t fresh_ns = 0;  // time of the last successful lookup; 0: never
  uint64_t retry_s = kFirstRetryS;
  bool under_way = false;
  bool dropped = false;  // nobody follows it any more; it is removed when its answer comes
};

AliasResolver::AliasResolver(EventLoop& loop, std::function<void()> on_change)
    : loop_(loop),
      on_change_(std::move(on_change)),
      due_(loop, [this] { run_due(); }),
      changed_(loop, [this] { on_change_(); }) {}

AliasResolver::~AliasResolver() = default;

// Questions in progress get no answer. They are due again at once, with other resolvers.
void AliasResolver::stop_asking() {
  resolvers_now_.reset();
  under_way_ = 0;
  std::erase_if(lookups_, [](const auto& each) { return each.second->dropped; });
  for (const auto& [key, lookup] : lookups_) {
    if (std::exchange(lookup->under_way, false)) lookup->due_ns = 0;
  }
}

void AliasResolver::follow(const std::vector<std::string>& names, const std::vector<Endpoint>& resolvers) {
  if (resolvers != resolvers_) stop_asking();
  resolvers_ = resolvers;
  bool forgot = false;
  for (auto at = lookups_.begin(); at != lookups_.end();) {
    if (std::binary_search(names.begin(), names.end(), at->first.first)) {
      at->second->dropped = false;
      ++at;
      continue;
    }
    forgot |= book_.erase(at->first.first) != 0;
    if (at->second->under_way) {
      at->second->dropped = true;
      ++at;
    } else {
      at = lookups_.erase(at);
    }
  }
  for (const std::string& name : names) {
    for (const auto family : {IpAddress::Family::v4, IpAddress::Family::v6}) {
      auto& lookup = lookups_[{name, family}];
      if (!lookup) lookup.reset(new Lookup{name, family});
    }
  }
  if (names.empty()) stop_asking();
  if (!names.empty() && !resolvers_now_) resolvers_now_ = std::make_unique<NameLookup>(loop_, resolvers);
  if (forgot) changed_.arm_after_ms(0);
  run_due();
}

// Starts the lookups that are due, at most kMaxAliasLookups at one time. The one that has been due longest comes first.
void AliasResolver::run_due() {
  if (!resolvers_now_) return;
  const uint64_t now = monotonic_ns();
  std::vector<Lookup*> due;
  for (const auto& [key, lookup] : lookups_) {
    if (!lookup->under_way && lookup->due_ns <= now) due.push_back(lookup.get());
  }
  std::sort(due.begin(), due.end(), [](const Lookup* a, const Lookup* b) { return a->due_ns < b->due_ns; });
  for (Lookup* const lookup : due) {
    if (under_way_ >= kMaxAliasLookups) break;
    start(*lookup);
  }
  settle();
}

void AliasResolver::start(Lookup& lookup) {
  lookup.under_way = true;
  ++under_way_;
  const bool v4 = lookup.family == IpAddress::Family::v4;
  resolvers_now_->ask(lookup.name, v4 ? NameLookup::Type::a : NameLookup::Type::aaaa,
                      [this, &lookup](NameLookup::Answer&& answer) { answered(lookup, answer); });
}

void AliasResolver::answered(Lookup& lookup, const NameLookup::Answer& answer) {
  lookup.under_way = false;
  --under_way_;
  if (lookup.dropped) {
    lookups_.erase({lookup.name, lookup.family});
  } else if (answer.kind == NameLookup::Answer::Kind::failed) {
    failed(lookup);
  } else {
    answered_well(lookup, answer);
  }
  settle();
}

void AliasResolver::answered_well(Lookup& lookup, const NameLookup::Answer& answer) {
  const bool none = answer.kind == NameLookup::Answer::Kind::none;
  AliasAddresses::Of found{true, none ? kNegativeS : std::min(answer.ttl_s, kLongestS), {}};
  for (const IpAddress& address : answer.addresses) {
    if (found.addresses.size() < kMaxAliasAddresses) found.addresses.push_back(address.bytes);
  }
  ++(none ? counts_.empty : counts_.found);
  lookup.fresh_ns = monotonic_ns();
  lookup.retry_s = kFirstRetryS;
  lookup.due_ns = lookup.fresh_ns + std::max(found.ttl_s, kShortestS) * kNsPerS;
  store(lookup, std::move(found));
}

void AliasResolver::failed(Lookup& lookup) {
  ++counts_.failed;
  const uint64_t now = monotonic_ns();
  lookup.due_ns = now + lookup.retry_s * kNsPerS;
  lookup.retry_s = std::min(lookup.retry_s * 2, kLastRetryS);
  const auto known = book_.find(lookup.name);
  if (lookup.fresh_ns == 0 || known == book_.end()) return;
  if (now - lookup.fresh_ns > kStaleNs) {
    lookup.fresh_ns = 0;
    return store(lookup, {});
  }
  AliasAddresses::Of stale = known->second.of(lookup.family);
  stale.ttl_s = std::min(stale.ttl_s, kStaleTtlS);
  store(lookup, std::move(stale));
}

void AliasResolver::store(const Lookup& lookup, AliasAddresses::Of&& found) {
  AliasAddresses& all = book_[lookup.name];
  AliasAddresses::Of& mine = lookup.family == IpAddress::Family::v4 ? all.v4 : all.v6;
  if (mine == found) return;
  mine = std::move(found);
  if (!changed_.armed()) changed_.arm_after_ms(kTogetherMs);
}

void AliasResolver::settle() {
  uint64_t next = UINT64_MAX;
  for (const auto& [key, lookup] : lookups_) {
    if (!lookup->under_way && under_way_ < kMaxAliasLookups) next = std::min(next, lookup->due_ns);
  }
  due_.arm_at_ns(next);
}

}  // namespace tidegate::dns
