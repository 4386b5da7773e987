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
  static constexpr uint64_t kRememberMs = 30'000;
  // `until_ms`: at most kRememberMs from now.
  void remember(Scope scope, uint64_t until_ms) {
    TIDEGATE_ASSERT(scope != Scope::request, "one request teaches nothing about others");
    until_ms_[static_cast<size_t>(scope)] = until_ms;
  }
  bool contains(const Credentials& credentials, uint64_t now_ms) const {
    return holds(Scope::key, now_ms) || (credentials.authorization && holds(Scope::authorization, now_ms)) ||
           (credentials.cookie && holds(Scope::cookie, now_ms));
  }

 private:
  // What would hold for longer than anything is remembered is from before the clock was set back.
  bool holds(Scope scope, uint64_t now_ms) const {
    const uint64_t until_ms = until_ms_[static_cast<size_t>(scope)];
    return now_ms < until_ms && until_ms - now_ms <= kRememberMs;
  }
  std::array<uint64_t, kScopes> until_ms_{};
};

// Keys whose answers proved uncacheable. The oldest key is forgotten first. Guarded by its shard's mutex.
class UncacheableKeys {
 public:
  static constexpr uint64_t kRememberMs = UncacheableFor::kRememberMs;
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
// Trust lasts much longer than distrust, because the costs differ: a needless wait costs one client one response time,
// while a crowd that does not wait costs the origin one request for each client. The oldest place is forgotten first.
//
// Any thread. The mutex is a leaf: it may be taken under a shard's, and no other is taken under it.
class UncacheablePlaces {
 public:
  static constexpr uint64_t kRememberMs = UncacheableFor::kRememberMs;
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
