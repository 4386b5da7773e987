// SPDX-License-Identifier: Apache-2.0
// SeenSignatures: the signatures of earlier requests, each kept until it is too old to be accepted. Memory is fixed.
// Nothing is forgotten before its time: if there is no room, add() says so. Only good signatures are added, so nobody
// without a key can fill it.
//
// A signature has two places of eight entries. Both are in one shard, under one lock. So of two requests with the same
// signature exactly one is fresh. An entry is a keyed hash of 64 bits.
//
// The locks, the keys of the hashes and the entries lie in a TableMemory. So the next process continues with what was
// seen, and during an upgrade both processes refuse what the other one has seen. A process that ends while it adds a
// signature leaves at most that one unfinished: the entry is empty, or has the old hash until the new time.
//
// Threads: any, of each process that has the memory.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "core/hash.h"
#include "l7/policy/policy.h"
#include "l7/policy/shared_mutex.h"
#include "l7/policy/table_memory.h"

namespace tidegate::l7::policy {

class SeenSignatures final : public Runtime {
 public:
  enum class Answer : uint8_t { fresh, seen, full };
  explicit SeenSignatures(size_t room) : SeenSignatures(TableMemory::make({}, 0, bytes_for(room))) {}
  // Continues with what the previous process has seen, if it left that.
  SeenSignatures(TableMemories& memories, const std::string& key, size_t room)
      : SeenSignatures(memories.take(key, kFingerprint, bytes_for(room))) {}
  // Times are in seconds, of the same clock.
  Answer add(std::string_view signature, uint64_t until_s, uint64_t now_s);

 private:
  static constexpr size_t kWays = 8, kShards = 64;
  static constexpr uint64_t kFingerprint = 1;  // of the layout below; a change of it needs another number
  struct Entry {
    uint64_t hash;
    uint64_t until_s;  // in the past: empty
  };
  struct alignas(64) Lock {
    SharedMutex mutex;
  };
  struct Head {
    uint64_t made;  // 0: the memory is new
    HashKey key, place_key;
    std::array<Lock, kShards> locks;
  };
  explicit SeenSignatures(std::shared_ptr<TableMemory> memory);
  // Half more than asked for. Then both places of a signature are almost never full before the whole table is.
  static size_t sets_for(size_t room) { return room * 3 / 2 / (kShards * kWays) + 1; }
  static size_t bytes_for(size_t room) { return sizeof(Head) + sets_for(room) * kShards * kWays * sizeof(Entry); }

  const std::shared_ptr<TableMemory> memory_;
  Head& head_;
  Entry* const entries_;  // by shard, then by set; those of a shard are guarded by its lock
  const size_t sets_;     // sets of a shard
};

}  // namespace tidegate::l7::policy
