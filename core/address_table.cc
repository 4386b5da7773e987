// SPDX-License-Identifier: Apache-2.0
#include "core/address_table.h"

#include <bit>

namespace tidegate {

AddressTable::AddressTable(size_t addresses, const HashKey& key)
    : hash_key_(key),
      // Twice as many entries as addresses, because sets fill unevenly.
      sets_(std::bit_ceil(std::max<size_t>(1, (2 * addresses + kWays - 1) / kWays))),
      entries_(std::make_unique<Set[]>(sets_)) {}

// An IPv4 address gets the key of 0:1:a.b.c.d::/64, so that one word is the key for both families and 0 is never a key.
// That prefix is within ::/8, which belongs to nobody (RFC 4291 §2.4). ::/64 itself (loopback) shares the key of
// 0:1::/64.
uint64_t AddressTable::key_of(const IpAddress& address) {
  const IpAddress plain = address.unmapped();
  uint64_t key = 0;
  if (plain.is_v4()) {
    key = 1;
    for (size_t i = 0; i < 4; ++i) key = key << 8 | plain.bytes[i];
  } else {
    for (size_t i = 0; i < 8; ++i) key = key << 8 | plain.bytes[i];
  }
  return key == 0 ? uint64_t{1} << 32 : key;
}

std::string AddressTable::group_of(const IpAddress& address) {
  const IpAddress plain = address.unmapped();
  return plain.is_v4() ? plain.to_string() : Cidr::of(plain, 64).to_string();
}

AddressTable::Set& AddressTable::set_of(uint64_t key) const {
  const uint64_t words[] = {key};
  return entries_[siphash13_words(hash_key_, words) & (sets_ - 1)];
}

AddressTable::Entry* AddressTable::find(uint64_t key) const {
  for (Entry& entry : set_of(key)) {
    if (entry.key.load(std::memory_order_acquire) == key) return &entry;
  }
  return nullptr;
}

AddressTable::Entry* AddressTable::find_or_claim(uint64_t key, uint64_t now_ns) {
  if (Entry* entry = find(key)) return entry;
  return claim(set_of(key), key, now_ns);
}

// Gives the least useful entry of the set to `key`. Returns null if every entry holds something.
AddressTable::Entry* AddressTable::claim(Set& set, uint64_t key, uint64_t now_ns) {
  for (size_t tries = 0; tries < kWays; ++tries) {
    Entry* least = nullptr;
    uint64_t least_due_ns = UINT64_MAX;
    for (Entry& entry : set) {
      if (entry.held.load(std::memory_order_relaxed) != 0) continue;
      const uint64_t due_ns = entry.key.load(std::memory_order_relaxed) == 0 ? 0 : entry.bucket.full_at_ns();
      // Takes the first entry with a full bucket: it does not matter which.
      if (due_ns >= least_due_ns) continue;
      least = &entry;
      least_due_ns = due_ns;
      if (due_ns <= now_ns) break;
    }
    if (least == nullptr) break;
    uint32_t nothing = 0;
    if (!least->held.compare_exchange_strong(nothing, kClaimed, std::memory_order_acquire)) continue;
    least->bucket.fill();
    least->key.store(key, std::memory_order_release);
    least->held.fetch_and(~kClaimed, std::memory_order_release);
    return least;
  }
  untracked_.fetch_add(1, std::memory_order_relaxed);
  return nullptr;
}

std::optional<AddressTable::Hold> AddressTable::hold(const IpAddress& address, uint32_t at_most, uint64_t now_ns) {
  const uint64_t key = key_of(address);
  // An entry may get another key after it was found and before it is held. Then we search again.
  for (size_t tries = 0; tries < kWays; ++tries) {
    Entry* entry = find_or_claim(key, now_ns);
    if (entry == nullptr) return Hold();
    uint32_t held = entry->held.load(std::memory_order_relaxed);
    do {
      if ((held & kClaimed) == 0 && held >= at_most && entry->key.load(std::memory_order_acquire) == key) {
        return std::nullopt;
      }
    } while ((held & kClaimed) == 0 && !entry->held.compare_exchange_weak(held, held + 1, std::memory_order_acq_rel));
    if ((held & kClaimed) != 0) continue;
    if (entry->key.load(std::memory_order_acquire) == key) return Hold(&entry->held);
    entry->held.fetch_sub(1, std::memory_order_release);
  }
  untracked_.fetch_add(1, std::memory_order_relaxed);
  return Hold();
}

bool AddressTable::take(const IpAddress& address, const TokenRate& rate, uint64_t tokens, uint64_t now_ns) {
  if (rate.interval_ns == 0) return true;
  Entry* entry = find_or_claim(key_of(address), now_ns);
  return entry == nullptr || entry->bucket.take(rate, tokens, now_ns);
}

void AddressTable::charge(const IpAddress& address, const TokenRate& rate, uint64_t tokens, uint64_t now_ns) {
  if (rate.interval_ns == 0) return;
  if (Entry* entry = find_or_claim(key_of(address), now_ns)) entry->bucket.charge(rate, tokens, now_ns);
}

AddressTable::View AddressTable::look(const IpAddress& address, const TokenRate& rate, uint64_t now_ns) const {
  const Entry* entry = find(key_of(address));
  if (entry == nullptr) return {0, rate.burst};
  return {entry->held.load(std::memory_order_relaxed) & ~kClaimed, entry->bucket.tokens(rate, now_ns)};
}

}  // namespace tidegate
