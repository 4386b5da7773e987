// SPDX-License-Identifier: Apache-2.0
// Grants: recent answers of a service about clients, each kept until its time is over. The number of entries is
// bounded, and each entry by kGrantBytes. Only a yes is kept, so nobody without credentials can fill the memory.
//
// Entries are in sets of kWays; what the service is told about a client decides the set. In a full set, the entry that
// ends first is replaced. Two keyed hashes of the texts (128 bits) are compared, not the texts.
//
// Threads: any. Each shard has a lock, which is held only while texts are copied.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/hash.h"
#include "core/mutex.h"
#include "l7/policy/policy.h"
#include "l7/wire/arena.h"

namespace tidegate::l7::policy {

class Grants final : public Runtime {
 public:
  explicit Grants(size_t entries);
  // A copy, in the arena, of the entry for that client. Nothing if the service must be asked. Times are monotonic.
  std::optional<std::string_view> find(std::string_view told, uint64_t now_ns, Arena& arena) const;
  // Returns false if it is larger than kGrantBytes.
  bool add(std::string_view told, std::string_view grant, uint64_t until_ns);
  size_t entries() const { return shards_.size() * sets_ * kWays; }

 private:
  static constexpr size_t kWays = 4, kShards = 16;
  struct Entry {
    uint64_t first = 0, second = 0;  // the two hashes
    uint64_t until_ns = 0;           // 0: empty
    std::string grant;
  };
  struct alignas(64) Shard {
    mutable Mutex mutex;
    std::vector<Entry> entries TIDEGATE_GUARDED_BY(mutex);
  };
  struct Place {
    uint64_t first, second;
    size_t shard, begin;
  };
  Place place_of(std::string_view told) const;

  const HashKey first_key_, second_key_;
  const size_t sets_;  // sets of a shard
  std::array<Shard, kShards> shards_;
};

}  // namespace tidegate::l7::policy
