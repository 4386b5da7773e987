// SPDX-License-Identifier: Apache-2.0
// AddressTable: for each client address, counts how many connections (or other things) it holds, and has a token
// bucket. IPv6 counts by /64, which is what one customer gets.
//
// Bounds: The constructor allocates all memory. An address can use one of kWays entries in one set. A keyed hash
// chooses the set, so nobody without the key can fill the set of another address. If a set is full, the least useful
// entry is reused: one that holds nothing, and among those the one whose bucket is full first. So nobody gets rid of a
// debt by sending from many addresses, and an address that loses its entry gets a full bucket. If every entry of a set
// holds something, the address is not counted (`untracked()`). That takes tens of thousands of addresses, and a limit
// per address would not help against so many.
//
// Threads: any, without locks. Counts of one thread are exact. If two threads see an address for the first time at the
// same moment, it may have two entries for a while. If an entry changes its owner at the same moment as a charge, the
// charge may go to the new owner. No hold is lost in either case.
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

  // Makes room for about `addresses` at once (24 bytes each). The key must be secret.
  AddressTable(size_t addresses, const HashKey& key);

  // Counts one thing that an address holds. Its destructor gives it back. The table must outlive it. An empty Hold
  // counts nothing.
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

  // Counts one more for this address. Returns nothing if the address already holds `at_most`.
  std::optional<Hold> hold(const IpAddress& address, uint32_t at_most, uint64_t now_ns);
  // Takes all `tokens` from this address's bucket; if there are too few, takes none and returns false.
  bool take(const IpAddress& address, const TokenRate& rate, uint64_t tokens, uint64_t now_ns);
  // Takes the tokens even if there are too few (see TokenBucket).
  void charge(const IpAddress& address, const TokenRate& rate, uint64_t tokens, uint64_t now_ns);

  struct View {
    uint32_t held = 0;
    uint64_t tokens = 0;
  };
  View look(const IpAddress& address, const TokenRate& rate, uint64_t now_ns) const;

  // The number of times that an address was not counted, because every entry of its set held something.
  uint64_t untracked() const { return untracked_.load(std::memory_order_relaxed); }
  size_t capacity() const { return sets_ * kWays; }
  // True if the table counts both as one address.
  static bool same(const IpAddress& a, const IpAddress& b) { return key_of(a) == key_of(b); }
  // The address or prefix that the table counts as one, as text: "192.0.2.1", "2001:db8:1:2::/64".
  static std::string group_of(const IpAddress& address);

 private:
  static constexpr uint32_t kClaimed = 1u << 31;  // this bit in `held`: the entry is getting a new key
  struct Entry {
    std::atomic<uint64_t> key{0};  // 0: free
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
