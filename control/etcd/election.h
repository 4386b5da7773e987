// SPDX-License-Identifier: Apache-2.0
// Election: decides who leads, by a key in etcd that lives as long as its lease. It is a state machine without sockets
// and without a clock: it says what to ask etcd next, and gets the answers.
//
// Invariants: at most one question is in progress. This control counts itself as the leader only until etcd may end its
// lease, measured by its own monotonic clock. The time is measured from the sending of the renewal, so it ends here
// before it ends in etcd. Two controls may still overlap (if a process was stopped). So every write also compares
// create_revision(), and only one of the two revisions is the key's.
#pragma once

#include <cstdint>
#include <optional>

namespace tidegate::etcd {

class Election {
 public:
  static constexpr uint64_t kRetryNs = 100'000'000;  // pause after a question without an answer
  // Renewals in the lifetime of a lease. Several may be lost.
  static constexpr uint64_t kRenewalsPerLease = 6;

  enum class Ask : uint8_t {
    nothing,
    grant,     // get a lease
    campaign,  // create the key with the lease, if it does not exist
    renew,     // renew the lease
  };

  // If false, this control does not campaign, because its state must not lead.
  void may_lead(bool may) { may_lead_ = may; }

  // The question to send now. It is in progress until one of the answers below, or failed(), is called.
  Ask next(uint64_t now_ns);
  // The time at which next() will have a question if no other news come. UINT64_MAX: never.
  uint64_t wake_ns() const;

  void granted(uint64_t sent_ns, uint64_t lease, uint64_t ttl_ns);
  // `won`: the key is ours, and was created at that revision. Otherwise another control has it.
  void campaigned(bool won, uint64_t create_revision);
  void renewed(uint64_t sent_ns, uint64_t ttl_ns);  // 0: the lease has ended
  void failed(uint64_t now_ns);

  // The key in etcd, from a watch or a read. 0: it does not exist. Do not call it with news that are older than earlier
  // ones.
  void key_seen(uint64_t create_revision);

  bool leads(uint64_t now_ns) const { return create_revision_ != 0 && now_ns < lease_until_ns_; }
  uint64_t create_revision() const { return create_revision_; }  // create revision of our key; 0: we have none
  uint64_t lease() const { return lease_; }                      // 0: none
  uint64_t lease_until_ns() const { return lease_until_ns_; }
  // Gives up the lease, and does not ask for another one before `not_before_ns`. Returns the lease, which must be
  // revoked; 0: there was none.
  uint64_t resign(uint64_t not_before_ns);

 private:
  void expire(uint64_t now_ns);
  void drop();

  bool may_lead_ = true;
  bool asking_ = false;
  std::optional<uint64_t> seen_;  // create revision of the key; not set: not known yet
  uint64_t lease_ = 0;
  uint64_t lease_until_ns_ = 0;
  uint64_t ttl_ns_ = 0;
  uint64_t create_revision_ = 0;
  uint64_t not_before_ns_ = 0;  // time of the next question
};

}  // namespace tidegate::etcd
