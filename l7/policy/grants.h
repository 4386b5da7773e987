// SPDX-License-Identifier: Apache-2.0
// Grants: what a service has said of clients lately, each until its time is over. Memory is bounded by a number of
// entries, and each entry by kGrantBytes. Only a yes is kept, so nobody without credentials can fill it.
//
// Entries lie in sets of kWays; what is told of a client decides its set. In a full set the one that ends first makes
// room. The texts themselves are not compared, but two keyed hashes of them, 128 bits.
//
// Threads: any. Each shard has a lock, held for some copies.
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
  // A copy in the arena of what is kept for that client; nothing: the service is to be asked. Moments are monotonic.
  std::optional<std::string_view> find(std::string_view told, uint64_t now_ns, Arena& arena) const;
  // False: it is larger than kGrantBytes.
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
  const size_t sets_;  // of a shard
  std::array<Shard, kShards> shards_;
};

}  // namespace tidegate::l7::policy
