// SPDX-License-Identifier: Apache-2.0
#include "cache/index/uncacheable.h"

#include "cache/limits.h"

namespace tidegate::cache {

void UncacheableKeys::remember(const KeyHash& key, Scope scope, uint64_t now_ms) {
  const auto [found, is_new] = keys_.try_emplace(key);
  found->second.remember(scope, now_ms + kRememberMs);
  if (is_new) order_.push_back(key);
  while (order_.size() > kUncacheableKeys) {
    keys_.erase(order_.front());
    order_.pop_front();
  }
}

void UncacheableKeys::forget(const KeyHash& key) {
  if (keys_.erase(key) != 0) std::erase(order_, key);
}

bool UncacheableKeys::contains(const KeyHash& key, const Credentials& credentials, uint64_t now_ms) const {
  const auto found = keys_.find(key);
  return found != keys_.end() && found->second.contains(credentials, now_ms);
}

std::string_view place_of(std::string_view key_text) {
  const std::string_view path = key_text.substr(0, key_text.find('?'));
  return path.substr(0, path.rfind('/') + 1);
}

UncacheablePlaces::Memory& UncacheablePlaces::memory_of(const KeyHash& place) {
  const auto [found, is_new] = places_.try_emplace(place);
  if (!is_new) return found->second;
  order_.push_back(place);
  if (order_.size() > kUncacheablePlaces) {
    places_.erase(order_.front());
    order_.pop_front();
  }
  return found->second;  // it is the newest, so it was not the one erased
}

void UncacheablePlaces::refused(const KeyHash& place, Scope scope, uint64_t now_ms) {
  const MutexLock lock(mutex_);
  memory_of(place).uncacheable.remember(scope, now_ms + kRememberMs);
}

void UncacheablePlaces::stored(const KeyHash& place, uint64_t now_ms) {
  const MutexLock lock(mutex_);
  memory_of(place) = {{}, now_ms + kTrustMs};
}

bool UncacheablePlaces::contains(const KeyHash& place, const Credentials& credentials, uint64_t now_ms) const {
  const MutexLock lock(mutex_);
  const auto found = places_.find(place);
  if (found == places_.end()) return false;
  const uint64_t trusted_until_ms = found->second.trusted_until_ms;
  const bool trusted = now_ms < trusted_until_ms && trusted_until_ms - now_ms <= kTrustMs;
  return !trusted && found->second.uncacheable.contains(credentials, now_ms);
}

size_t UncacheablePlaces::size() const {
  const MutexLock lock(mutex_);
  return places_.size();
}

}  // namespace tidegate::cache
