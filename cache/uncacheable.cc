#include "cache/uncacheable.h"

namespace tidegate::cache {

void UncacheableKeys::remember(const KeyHash& key, uint64_t now_ms) {
  if (until_ms_.insert_or_assign(key, now_ms + kRememberMs).second) order_.push_back(key);
  while (order_.size() > kMaxKeys) {
    until_ms_.erase(order_.front());
    order_.pop_front();
  }
}

void UncacheableKeys::forget(const KeyHash& key) {
  if (until_ms_.erase(key) != 0) std::erase(order_, key);
}

bool UncacheableKeys::contains(const KeyHash& key, uint64_t now_ms) const {
  const auto found = until_ms_.find(key);
  return found != until_ms_.end() && now_ms < found->second;
}

std::string_view place_of(std::string_view key_text) {
  const std::string_view path = key_text.substr(0, key_text.find('?'));
  return path.substr(0, path.rfind('/') + 1);
}

UncacheablePlaces::Memory& UncacheablePlaces::memory_of(const KeyHash& place) {
  const auto [found, is_new] = places_.try_emplace(place);
  if (!is_new) return found->second;
  order_.push_back(place);
  if (order_.size() > kMaxPlaces) {
    places_.erase(order_.front());
    order_.pop_front();
  }
  return found->second;  // the newest: never the one that went
}

void UncacheablePlaces::refused(const KeyHash& place, uint64_t now_ms) {
  const std::lock_guard lock(mutex_);
  memory_of(place).uncacheable_until_ms = now_ms + kRememberMs;
}

void UncacheablePlaces::stored(const KeyHash& place, uint64_t now_ms) {
  const std::lock_guard lock(mutex_);
  memory_of(place) = {0, now_ms + kTrustMs};
}

bool UncacheablePlaces::contains(const KeyHash& place, uint64_t now_ms) const {
  const std::lock_guard lock(mutex_);
  const auto found = places_.find(place);
  if (found == places_.end()) return false;
  return now_ms < found->second.uncacheable_until_ms && now_ms >= found->second.trusted_until_ms;
}

size_t UncacheablePlaces::size() const {
  const std::lock_guard lock(mutex_);
  return places_.size();
}

}  // namespace tidegate::cache
