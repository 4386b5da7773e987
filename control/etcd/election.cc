// SPDX-License-Identifier: Apache-2.0
#include "control/etcd/election.h"

#include <algorithm>

#include "core/assert.h"

namespace tidegate::etcd {

void Election::drop() { lease_ = lease_until_ns_ = create_revision_ = 0; }

void Election::expire(uint64_t now_ns) {
  if (lease_ != 0 && now_ns >= lease_until_ns_) drop();
}

Election::Ask Election::next(uint64_t now_ns) {
  expire(now_ns);
  if (asking_ || now_ns < not_before_ns_) return Ask::nothing;
  Ask ask = Ask::nothing;
  if (create_revision_ != 0) {
    if (now_ns + ttl_ns_ >= lease_until_ns_ + ttl_ns_ / kRenewalsPerLease) ask = Ask::renew;
  } else if (may_lead_ && seen_ == 0) {
    // A lease that ends soon could end before the key is useful.
    ask = lease_ != 0 && now_ns + ttl_ns_ / 2 < lease_until_ns_ ? Ask::campaign : Ask::grant;
  }
  asking_ = ask != Ask::nothing;
  return ask;
}

uint64_t Election::wake_ns() const {
  if (asking_) return lease_ == 0 ? UINT64_MAX : lease_until_ns_;
  if (create_revision_ != 0) {
    return std::max(not_before_ns_, lease_until_ns_ - ttl_ns_ + ttl_ns_ / kRenewalsPerLease);
  }
  return may_lead_ && seen_ == 0 ? not_before_ns_ : UINT64_MAX;
}

void Election::granted(uint64_t sent_ns, uint64_t lease, uint64_t ttl_ns) {
  TIDEGATE_ASSERT(asking_, "an answer has a question");
  asking_ = false;
  drop();
  lease_ = lease;
  ttl_ns_ = ttl_ns;
  lease_until_ns_ = sent_ns + ttl_ns;
}

void Election::campaigned(bool won, uint64_t create_revision) {
  TIDEGATE_ASSERT(asking_, "an answer has a question");
  TIDEGATE_ASSERT(create_revision != 0, "a key that exists has a create revision");
  asking_ = false;
  seen_ = create_revision;
  if (won && lease_ != 0) create_revision_ = create_revision;
}

void Election::renewed(uint64_t sent_ns, uint64_t ttl_ns) {
  TIDEGATE_ASSERT(asking_, "an answer has a question");
  asking_ = false;
  if (ttl_ns == 0) return drop();
  if (lease_ == 0) return;  // the lease was given up meanwhile
  ttl_ns_ = ttl_ns;
  lease_until_ns_ = std::max(lease_until_ns_, sent_ns + ttl_ns);
}

void Election::failed(uint64_t now_ns) {
  TIDEGATE_ASSERT(asking_, "a failure has a question");
  asking_ = false;
  not_before_ns_ = now_ns + kRetryNs;
}

void Election::key_seen(uint64_t create_revision) {
  seen_ = create_revision;
  if (create_revision_ != 0 && create_revision != create_revision_) drop();
}

uint64_t Election::resign(uint64_t not_before_ns) {
  const uint64_t lease = lease_;
  not_before_ns_ = std::max(not_before_ns_, not_before_ns);
  drop();
  return lease;
}

}  // namespace tidegate::etcd
