// SPDX-License-Identifier: Apache-2.0
// SeenSignatures: the signatures of earlier requests, each kept until it is too old to be accepted. Memory is fixed.
// Nothing is forgotten before its time: if there is no room, add() says so. Only good signatures are added, so nobody
// without a key can fill it.
//
// A signature has two places of eight entries. Both are in one shard, under one lock. So of two requests with the same
// signature exactly one is fresh. An entry is a keyed hash of 64 bits.
//
// Threads: any.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/hash.h"
#include "core/mutex.h"
#include "l7/policy/policy.h"

namespace tidegate::l7::policy {

class SeenSignatures final : public Runtime {
 public:
  enum class Answer : uint8_t { fresh, seen, full };
  explicit SeenSignatures(size_t room);
  // Times are in seconds, of the same clock.
  Answer add(std::string_view signature, uint64_t until_s, uint64_t now_s);

 private:
  static constexpr size_t kWays = 8, kShards = 64;
  struct Entry {
    uint64_t hash = 0;
    uint64_t until_s = 0;  // in the past: empty
  };
  struct alignas(64) Shard {
    Mutex mutex;
    std::vector<Entry> entries TIDEGATE_GUARDED_BY(mutex);
  };
  const HashKey key_, place_key_;
  const size_t sets_;  // sets of a shard
  std::array<Shard, kShards> shards_;
};

}  // namespace tidegate::l7::policy
