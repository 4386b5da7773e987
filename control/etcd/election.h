// SPDX-License-Identifier: Apache-2.0
// Election: who leads, by a key in etcd that lives as long as its lease. A state machine without sockets and without a
// clock: it says what to ask etcd next, and is told the answers.
//
// Invariants: at most one question is under way. This control counts itself as the leader only until the time at which
// etcd may end its lease, by its own monotonic clock: the time is measured from when the renewal was sent, so it ends
// here before it ends there. Two controls may still overlap (a process that was stopped); therefore every write
// compares create_revision() too, and of those only one is the key's.
#pragma once

#include <cstdint>
#include <optional>

namespace tidegate::etcd {

class Election {
 public:
  static constexpr uint64_t kRetryNs = 100'000'000;  // after a question without an answer
  // Renewals in one life of a lease. Several may be lost.
  static constexpr uint64_t kRenewalsPerLease = 6;

  enum class Ask : uint8_t {
    nothing,
    grant,     // a lease
    campaign,  // create the key with the lease, if it does not exist
    renew,     // the lease
  };

  // False: this control does not campaign (its state may not lead).
  void may_lead(bool may) { may_lead_ = may; }

  // What to ask now. Whatever is returned is under way until one of the answers below, or failed(), is called.
  Ask next(uint64_t now_ns);
  // When next() will have something to ask without other news. UINT64_MAX: never.
  uint64_t wake_ns() const;

  void granted(uint64_t sent_ns, uint64_t lease, uint64_t ttl_ns);
  // `won`: the key is ours, created at that revision. Otherwise somebody else's is there.
  void campaigned(bool won, uint64_t create_revision);
  void renewed(uint64_t sent_ns, uint64_t ttl_ns);  // 0: the lease has ended
  void failed(uint64_t now_ns);

  // The key as etcd has it, from a watch or a read. 0: it does not exist. News older than what is known must not come.
  void key_seen(uint64_t create_revision);

  bool leads(uint64_t now_ns) const { return create_revision_ != 0 && now_ns < lease_until_ns_; }
  uint64_t create_revision() const { return create_revision_; }  // of our key; 0: we have none
  uint64_t lease() const { return lease_; }                      // 0: none
  uint64_t lease_until_ns() const { return lease_until_ns_; }
  // Gives the lease up, and asks for none before `not_before_ns`. Returns it, to be revoked; 0: there was none.
  uint64_t resign(uint64_t not_before_ns);

 private:
  void expire(uint64_t now_ns);
  void drop();

  bool may_lead_ = true;
  bool asking_ = false;
  std::optional<uint64_t> seen_;  // create revision of the key; nothing: not known yet
  uint64_t lease_ = 0;
  uint64_t lease_until_ns_ = 0;
  uint64_t ttl_ns_ = 0;
  uint64_t create_revision_ = 0;
  uint64_t not_before_ns_ = 0;  // of the next question
};

}  // namespace tidegate::etcd
