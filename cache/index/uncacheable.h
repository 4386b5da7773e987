// SPDX-License-Identifier: Apache-2.0
// Remembers keys whose recent answers could not be cached. It also remembers places: a place stands for all keys below
// it, also for keys without a request so far. Requests for such keys do not wait for each other. Both memories are
// bounded. They are read only on a miss.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <string_view>
#include <unordered_map>

#include "cache/policy/key.h"
#include "cache/policy/policy.h"
#include "core/assert.h"
#include "core/mutex.h"

namespace tidegate::cache {

// Until when a key is remembered, and for which requests. What was learned from a request with credentials holds only
// for requests with the same kind of credentials.
class UncacheableFor {
 public:
  void remember(Scope scope, uint64_t until_ms) {
    TIDEGATE_ASSERT(scope != Scope::request, "one request teaches nothing about others");
    until_ms_[static_cast<size_t>(scope)] = until_ms;
  }
  bool contains(const Credentials& credentials, uint64_t now_ms) const {
    return now_ms < until(Scope::key) || (credentials.authorization && now_ms < until(Scope::authorization)) ||
           (credentials.cookie && now_ms < until(Scope::cookie));
  }

 private:
  uint64_t until(Scope scope) const { return until_ms_[static_cast<size_t>(scope)]; }
  std::array<uint64_t, kScopes> until_ms_{};
};

// Keys whose answers proved uncacheable. The oldest key is forgotten first. Guarded by its shard's mutex.
class UncacheableKeys {
 public:
  static constexpr uint64_t kRememberMs = 30'000;
  void remember(const KeyHash& key, Scope scope, uint64_t now_ms);
  void forget(const KeyHash& key);
  bool contains(const KeyHash& key, const Credentials& credentials, uint64_t now_ms) const;

 private:
  std::unordered_map<KeyHash, UncacheableFor> keys_;
  std::deque<KeyHash> order_;  // each key once, oldest first
};

// The place of a key: scheme, host and path up to the last '/', without the query.
std::string_view place_of(std::string_view key_text);

// Places where every recent answer proved uncacheable. One stored answer makes its place forget this and be trusted.
// Trust lasts much longer than distrust, because the costs differ: a wait in vain costs one client one response time,
// while a herd that does not wait costs the origin one request for each client. The oldest place is forgotten first.
//
// Any thread. The mutex is a leaf: it may be taken under a shard's, and no other is taken under it.
class UncacheablePlaces {
 public:
  static constexpr uint64_t kRememberMs = 30'000;
  static constexpr uint64_t kTrustMs = 600'000;
  void refused(const KeyHash& place, Scope scope, uint64_t now_ms);
  void stored(const KeyHash& place, uint64_t now_ms);
  bool contains(const KeyHash& place, const Credentials& credentials, uint64_t now_ms) const;
  size_t size() const;

 private:
  struct Memory {
    UncacheableFor uncacheable;
    uint64_t trusted_until_ms = 0;
  };
  Memory& memory_of(const KeyHash& place) TIDEGATE_REQUIRES(mutex_);

  mutable Mutex mutex_;
  std::unordered_map<KeyHash, Memory> places_ TIDEGATE_GUARDED_BY(mutex_);
  std::deque<KeyHash> order_ TIDEGATE_GUARDED_BY(mutex_);  // each place once, oldest first
};

}  // namespace tidegate::cache
