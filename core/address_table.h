// SPDX-License-Identifier: Apache-2.0
// AddressTable: what is counted by client address: how many of something it holds (connections), and a token bucket.
// IPv6 counts by /64, which is what one customer gets.
//
// Bounds: the memory is taken once, by the constructor. An address has one of kWays places of one set, which a keyed
// hash chooses: nobody who does not know the key can aim at the set of another. When a set is full, the entry that says
// least makes room: one that holds nothing, and of those the one whose bucket is full first. So nobody loses a debt by
// sending from many addresses, and who loses an entry gets a full bucket. When every entry of a set holds something,
// the address is not counted (`untracked()`): it takes tens of thousands of addresses to get there, against which a
// limit by address would not help.
//
// Threads: any, without locks. Counts of one thread are exact. Two threads that meet an address for the first time in
// the same moment may give it two entries for a while; a charge may fall on an entry's next owner when both come in the
// same moment. Neither loses a hold.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "core/hash.h"
#include "core/ip.h"
#include "core/token_bucket.h"

namespace tidegate {

class AddressTable {
 public:
  static constexpr size_t kWays = 8;
  static constexpr uint32_t kNoBound = UINT32_MAX >> 1;

  // Room for about `addresses` at once (24 bytes each). The key must be secret.
  AddressTable(size_t addresses, const HashKey& key);

  // One of what an address holds; gives it back when it dies. The table must outlive it. An empty one counts nothing.
  class Hold {
   public:
    Hold() = default;
    Hold(Hold&& other) noexcept : count_(std::exchange(other.count_, nullptr)) {}
    Hold& operator=(Hold&& other) noexcept {
      std::swap(count_, other.count_);
      return *this;
    }
    ~Hold() {
      if (count_ != nullptr) count_->fetch_sub(1, std::memory_order_release);
    }

   private:
    friend class AddressTable;
    explicit Hold(std::atomic<uint32_t>* count) : count_(count) {}
    std::atomic<uint32_t>* count_ = nullptr;
  };

  // One more for this address, or nothing when it holds `at_most` already.
  std::optional<Hold> hold(const IpAddress& address, uint32_t at_most, uint64_t now_ns);
  // Takes tokens of this address's bucket, or none of them and says false.
  bool take(const IpAddress& address, const TokenRate& rate, uint64_t tokens, uint64_t now_ns);
  // Takes them also where there are none (see TokenBucket).
  void charge(const IpAddress& address, const TokenRate& rate, uint64_t tokens, uint64_t now_ns);

  struct View {
    uint32_t held = 0;
    uint64_t tokens = 0;
  };
  View look(const IpAddress& address, const TokenRate& rate, uint64_t now_ns) const;

  // How often an address found every entry of its set holding something.
  uint64_t untracked() const { return untracked_.load(std::memory_order_relaxed); }
  size_t capacity() const { return sets_ * kWays; }
  // Whether the two are one address to the table.
  static bool same(const IpAddress& a, const IpAddress& b) { return key_of(a) == key_of(b); }
  // What is one address to the table, as text: "192.0.2.1", "2001:db8:1:2::/64".
  static std::string group_of(const IpAddress& address);

 private:
  static constexpr uint32_t kClaimed = 1u << 31;  // in `held`: the entry is changing hands
  struct Entry {
    std::atomic<uint64_t> key{0};  // 0: nobody's
    TokenBucket bucket;
    std::atomic<uint32_t> held{0};
  };
  using Set = std::array<Entry, kWays>;

  static uint64_t key_of(const IpAddress& address);
  Set& set_of(uint64_t key) const;
  Entry* find(uint64_t key) const;
  Entry* find_or_claim(uint64_t key, uint64_t now_ns);
  Entry* claim(Set& set, uint64_t key, uint64_t now_ns);

  const HashKey hash_key_;
  size_t sets_;  // a power of two
  std::unique_ptr<Set[]> entries_;
  std::atomic<uint64_t> untracked_{0};
};

}  // namespace tidegate
