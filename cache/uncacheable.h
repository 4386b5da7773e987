// SPDX-License-Identifier: Apache-2.0
// What proved uncacheable a short while ago, so that requests for it do not wait for each other in vain: single keys,
// and places, for keys that nobody asked for before. Both are bounded and consulted on a miss only.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string_view>
#include <unordered_map>

#include "cache/key.h"
#include "cache/policy.h"

namespace tidegate::cache {

// Until when it is remembered, for whom. What was learned from a request with credentials counts for requests with
// credentials of that kind alone.
class UncacheableFor {
 public:
  void remember(Scope scope, uint64_t until_ms) { until_ms_[static_cast<size_t>(scope)] = until_ms; }
  bool contains(const Credentials& credentials, uint64_t now_ms) const {
    return now_ms < until(Scope::key) || (credentials.authorization && now_ms < until(Scope::authorization)) ||
           (credentials.cookie && now_ms < until(Scope::cookie));
  }

 private:
  uint64_t until(Scope scope) const { return until_ms_[static_cast<size_t>(scope)]; }
  std::array<uint64_t, kScopes> until_ms_{};
};

// Keys whose answers proved uncacheable. The oldest is forgotten. Guarded by its shard's mutex.
class UncacheableKeys {
 public:
  static constexpr uint64_t kRememberMs = 30'000;
  static constexpr size_t kMaxKeys = 1024;  // a shard
  void remember(const KeyHash& key, Scope scope, uint64_t now_ms);
  void forget(const KeyHash& key);
  bool contains(const KeyHash& key, const Credentials& credentials, uint64_t now_ms) const;

 private:
  std::unordered_map<KeyHash, UncacheableFor> keys_;
  std::deque<KeyHash> order_;  // each key once, oldest first
};

// The place of a key as make_key made it: scheme, host and path up to the last '/', without the query.
std::string_view place_of(std::string_view key_text);

// Places where every recent answer proved uncacheable. One answer that is stored makes its place forget that at once
// and be trusted for much longer than an uncacheable one is held against it: to wait in vain costs a client one answer
// time, a herd let loose on a cacheable key costs the origin one request a client. The oldest place is forgotten.
//
// Any thread. Its mutex is a leaf: it may be taken under a shard's, and nothing is taken under it.
class UncacheablePlaces {
 public:
  static constexpr uint64_t kRememberMs = 30'000;
  static constexpr uint64_t kTrustMs = 600'000;
  static constexpr size_t kMaxPlaces = 4096;
  void refused(const KeyHash& place, Scope scope, uint64_t now_ms);
  void stored(const KeyHash& place, uint64_t now_ms);
  bool contains(const KeyHash& place, const Credentials& credentials, uint64_t now_ms) const;
  size_t size() const;

 private:
  struct Memory {
    UncacheableFor uncacheable;
    uint64_t trusted_until_ms = 0;
  };
  Memory& memory_of(const KeyHash& place);

  mutable std::mutex mutex_;  // guards all below
  std::unordered_map<KeyHash, Memory> places_;
  std::deque<KeyHash> order_;  // each place once, oldest first
};

}  // namespace tidegate::cache
