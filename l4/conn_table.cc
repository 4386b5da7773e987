// SPDX-License-Identifier: Apache-2.0
#include "l4/conn_table.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cassert>
#include <new>

#include "core/assert.h"

namespace tidegate::l4 {

const char* name(FlowState state) {
  switch (state) {
    case FlowState::empty:
      return "empty";
    case FlowState::embryonic:
      return "embryonic";
    case FlowState::stray:
      return "stray";
    case FlowState::established:
      return "established";
    case FlowState::closing:
      return "closing";
  }
  return "?";
}

void FlowEntry::change(FlowEvent event, const FlowTimeouts& timeouts, uint32_t now_ms) {
  if (assured() && (event == FlowEvent::open || event == FlowEvent::reset)) {
    if (event == FlowEvent::open) return;
    doubted = 1;
    expires_ms = now_ms + std::min(kDoubtMs, timeouts.established_ms);
    return;
  }
  if (event == FlowEvent::data) doubted = 0;
  if (event == FlowEvent::close || event == FlowEvent::reset) {
    if (state != FlowState::closing) seconds_seen = 0;
    state = FlowState::closing;
    count_second(now_ms);
  } else if (state == FlowState::closing) {
    if (event == FlowEvent::data) count_second(now_ms);
    if (seconds_seen > kAssuringSeconds) {
      seconds_seen = kAssuringSeconds;
      state = FlowState::established;
    }
  } else if (event == FlowEvent::data && seconds_seen < kAssuringSeconds) {
    count_second(now_ms);
    if (state == FlowState::embryonic || seconds_seen == kAssuringSeconds) state = FlowState::established;
  }
  expires_ms = now_ms + timeouts.of(state);
}

void FlowEntry::count_second(uint32_t now_ms) {
  const uint8_t second = now_ms >> 10 & 31;
  if (seconds_seen != 0 && second == last_second) return;
  seconds_seen = static_cast<uint8_t>(seconds_seen + 1) & 3;
  last_second = second & 31;
}

// The table is at most half full at the nominal size. With two choices of four places it then practically never
// overflows earlier.
uint64_t ConnTable::bytes_for(uint64_t flows) {
  return std::bit_ceil((flows * 2 + kWays - 1) / kWays) * sizeof(Bucket);
}

ConnTable::ConnTable(uint64_t flows, void* memory) {
  const size_t bytes = bytes_for(flows);
  bucket_count_ = bytes / sizeof(Bucket);
  mask_ = bucket_count_ - 1;
  if (memory != nullptr) {
    TIDEGATE_ASSERT(reinterpret_cast<uintptr_t>(memory) % alignof(Bucket) == 0, "a bucket is one cache line");
    buckets_ = static_cast<Bucket*>(memory);
    return;
  }
  owns_memory_ = true;
  memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  // only a request: huge pages mean fewer TLB misses for a table of many megabytes
  ::madvise(memory, bytes, MADV_HUGEPAGE);
  buckets_ = static_cast<Bucket*>(memory);  // zero bytes are empty entries: hash 0, state empty
}

ConnTable::~ConnTable() {
  if (owns_memory_) ::munmap(buckets_, bucket_count_ * sizeof(Bucket));
}

bool ConnTable::is_sound(const FlowEntry& entry, uint64_t bucket, const std::vector<bool>& known_ids,
                         uint32_t now_ms) const {
  const bool in_place = bucket == first_bucket(entry.hash) || bucket == second_bucket(entry.hash);
  const bool known = index_of(entry.backend) < known_ids.size() && known_ids[index_of(entry.backend)];
  const bool has_state = entry.state > FlowState::empty && entry.state <= FlowState::closing;
  return in_place && known && has_state && entry.expires_ms - now_ms <= kMaxFlowTimeoutMs;
}

ConnTable::Inherited ConnTable::take_over(const std::vector<bool>& known_ids, uint32_t now_ms) {
  Inherited found;
  for (uint64_t bucket = 0; bucket < bucket_count_; ++bucket) {
    for (FlowEntry& entry : buckets_[bucket].entries) {
      const bool live = entry.hash != 0 && !entry.expired(now_ms);
      if (live && is_sound(entry, bucket, known_ids, now_ms)) {
        ++found.flows;
        continue;
      }
      found.refused += size_t{live};
      entry = FlowEntry{};
    }
  }
  live_ = found.flows;
  return found;
}

namespace {

// The worth of a live flow. The flow with the smallest worth is evicted. An assured flow is never evicted.
constexpr uint32_t kAssuredWorth = UINT32_MAX;

inline uint32_t worth(const FlowEntry& entry, uint32_t now_ms) {
  constexpr uint32_t kBegan = kMaxFlowTimeoutMs + 1, kShookHands = kBegan * 2;  // greater than any time left
  constexpr uint32_t kShared = kBegan * 3;
  static_assert(kMaxFlowTimeoutMs / 2 < kAssuredWorth - kShared);
  const uint32_t left_ms = entry.expires_ms - now_ms;
  if (entry.state == FlowState::stray) return left_ms;
  if (entry.shared != 0) return kShared + left_ms / 2;
  if (entry.state != FlowState::established) return kBegan + left_ms;
  return entry.assured() ? kAssuredWorth : kShookHands + left_ms;
}

}  // namespace

// `first_place`: the number of the bucket's first place.
[[gnu::always_inline]] inline ConnTable::Offer ConnTable::offer_of(Bucket& bucket, unsigned first_place,
                                                                   uint32_t now_ms) {
  Offer offer;
  for (size_t way = 0; way < kWays; ++way) {
    FlowEntry& entry = bucket.entries[way];
    if (entry.hash != 0 && entry.expired(now_ms)) erase(entry);
    if (entry.hash == 0) {
      offer.place = &entry;
      ++offer.free;
      continue;
    }
    // The smallest is found without branches, because in a flood nobody could guess which one it is.
    offer.victim = std::min(offer.victim, uint64_t{worth(entry, now_ms)} << kPlaceBits | (first_place + way));
  }
  return offer;
}

ConnTable::Offer ConnTable::offer_for(uint64_t hash, uint32_t now_ms) {
  static_assert(2 * kWays == 1u << kPlaceBits);
  const Offer first = offer_of(buckets_[first_bucket(hash)], 0, now_ms);
  if (first.free >= 2) return first;
  // The last place of the first bucket stays free while the second bucket has more. This balance fills the table
  // evenly.
  Offer second = offer_of(buckets_[second_bucket(hash)], kWays, now_ms);
  second.victim = std::min(first.victim, second.victim);
  return second.free > first.free || first.free == 0 ? second : first;
}

FlowEntry* ConnTable::insert(uint64_t hash, BackendId backend, uint32_t timeout_ms, uint32_t now_ms,
                             FlowState begun_as) {
  assert(hash != 0);
  const Offer offer = offer_for(hash, now_ms);
  FlowEntry* place = offer.place;
  if (place == nullptr) {
    if (offer.victim >> kPlaceBits >= kAssuredWorth) return nullptr;
    const size_t number = offer.victim & (2 * kWays - 1);
    Bucket& bucket = buckets_[number < kWays ? first_bucket(hash) : second_bucket(hash)];
    place = &bucket.entries[number % kWays];
    erase(*place);
    ++evicted_;
  }
  FlowEntry& entry = *place;
  entry = FlowEntry{};
  std::atomic_signal_fence(std::memory_order_seq_cst);
  entry.hash = hash;
  entry.expires_ms = now_ms + timeout_ms;
  entry.backend = backend;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  entry.state = begun_as;
  if (begun_as == FlowState::stray) entry.count_second(now_ms);
  ++live_;
  return place;
}

Lesson ConnTable::learn(const LearnedFlow& flow, uint32_t now_ms) {
  TIDEGATE_ASSERT(flow.hash != 0 && flow.left_ms <= kMaxFlowTimeoutMs, "a flow that can be in a table");
  FlowEntry* entry = find(flow.hash, now_ms);
  if (entry != nullptr && entry->shared == 0) return Lesson::known;
  if (flow.left_ms == 0) {
    if (entry == nullptr) return Lesson::known;
    erase(*entry);
    return Lesson::ended;
  }
  const Lesson lesson = entry == nullptr ? Lesson::learned : Lesson::renewed;
  if (entry == nullptr) {
    entry = offer_for(flow.hash, now_ms).place;
    if (entry == nullptr) return Lesson::no_room;
    ++live_;
  }
  // In this order, because the process may end between any two writes.
  FlowEntry fresh;
  fresh.backend = flow.backend;
  fresh.expires_ms = now_ms + flow.left_ms;
  fresh.seconds_seen = FlowEntry::kAssuringSeconds;
  *entry = fresh;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  entry->hash = flow.hash;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  entry->shared = 1;
  entry->state = FlowState::established;
  return lesson;
}

void ConnTable::erase(FlowEntry& entry) {
  entry = FlowEntry{};
  --live_;
}

uint64_t ConnTable::list(uint64_t bucket, uint64_t buckets, std::optional<BackendId> backend, size_t most,
                         uint32_t now_ms, std::vector<FlowEntry>& out) const {
  const uint64_t end = bucket >= bucket_count_ ? bucket_count_ : bucket + std::min(buckets, bucket_count_ - bucket);
  const size_t enough = out.size() + most;
  for (bucket = std::min(bucket, end); bucket < end && out.size() < enough; ++bucket) {
    for (const FlowEntry& entry : buckets_[bucket].entries) {
      if (entry.hash == 0 || entry.expired(now_ms) || (backend && entry.backend != *backend)) continue;
      out.push_back(entry);
    }
  }
  return bucket;
}

void ConnTable::sweep(uint64_t buckets, uint32_t now_ms) {
  if (live_ == 0) return;
  for (uint64_t i = 0; i < std::min(buckets, bucket_count_); ++i) {
    for (FlowEntry& entry : buckets_[sweep_at_].entries) {
      if (entry.hash != 0 && entry.expired(now_ms)) erase(entry);
    }
    sweep_at_ = (sweep_at_ + 1) & mask_;
  }
}

}  // namespace tidegate::l4
