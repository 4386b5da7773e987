// SPDX-License-Identifier: Apache-2.0
// ConnTable: which backend each flow is pinned to. One table a worker, touched by that worker alone; memory is fixed
// when it is made.
//
// A flow is 16 bytes, four of them one 64-byte bucket. A flow may live in either of two buckets given by its hash
// (power of two choices), mostly in the first: a lookup touches one cache line or two, which prefetch() brings in
// ahead, and the table fills to its nominal size before a bucket overflows. There is no chaining and no moving, so
// every call is bounded.
//
// Life of a flow. `embryonic` from its SYN until another packet (than that SYN repeated) shows that the client means
// it; then `established`; `closing` after a FIN or RST from the client. A flow that begins in the middle, or that has
// no beginning to be seen (UDP), is `stray` until it has had packets in kAssuringSeconds different seconds. Every
// packet renews the time-out of the state it leads to; `stray` has that of `established`, because after a restart of
// the forwarder a connection that speaks once in minutes must be found again until it is assured. Under direct return
// only the client's half is seen, so a half-closed download stays `closing` and is kept alive by the client's
// acknowledgements.
//
// That also means that a handshake can be forged: two packets, of which the second need not know the backend's number.
// So an established flow is `assured` only when it too has had packets in kAssuringSeconds different seconds.
//
// A full pair of buckets gives up, in this order: an expired flow; of the stray ones the one nearest to its end, which
// is the one seen longest ago; of the others not established the one nearest to its end;
// of those established but not assured the one nearest to its end, which is the one seen longest ago (both counted as
// evicted). Where all eight are assured, the new flow is not recorded: it goes by the hash table alone, as does the
// next packet of a flow that was given up. So a flood of SYNs or stray packets pushes out no established flow but at
// most one of a full bucket, and a flood of whole handshakes neither pushes out an assured flow nor keeps new clients
// from a place.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "l4/ids.h"

namespace tidegate::l4 {

enum class FlowState : uint8_t { empty, embryonic, stray, established, closing };
const char* name(FlowState state);

// What a packet says of its flow.
enum class FlowEvent : uint8_t {
  open,   // SYN without ACK
  data,   // anything else, and all of UDP
  close,  // FIN or RST
};

struct FlowTimeouts {
  uint32_t embryonic_ms = 0, established_ms = 0, closing_ms = 0;
  uint32_t of(FlowState state) const {
    return state == FlowState::embryonic ? embryonic_ms : state == FlowState::closing ? closing_ms : established_ms;
  }
};

struct FlowEntry {
  uint64_t hash = 0;        // FlowHasher; 0: empty
  uint32_t expires_ms = 0;  // on the table's own clock, which wraps after 49 days; compared by difference
  BackendId backend = kNoBackend;
  FlowState state = FlowState::empty;
  // Until it is assured: in how many seconds packets came, and the last of them. A "second" is 1,024 ms; there are 32.
  uint8_t seconds_seen : 3 = 0;
  uint8_t last_second : 5 = 0;

  bool expired(uint32_t now_ms) const { return static_cast<int32_t>(now_ms - expires_ms) >= 0; }
  // Follows one packet. Not for an `open` on a flow that is past embryonic: that begins a new flow.
  void advance(FlowEvent event, const FlowTimeouts& timeouts, uint32_t now_ms) {
    if (event == FlowEvent::data && assured()) {
      expires_ms = now_ms + timeouts.established_ms;
    } else {
      change(event, timeouts, now_ms);
    }
  }
  bool assured() const { return state == FlowState::established && seconds_seen >= kAssuringSeconds; }
  // For each packet until it is assured.
  void count_second(uint32_t now_ms);

  static constexpr unsigned kAssuringSeconds = 4;

 private:
  void change(FlowEvent event, const FlowTimeouts& timeouts, uint32_t now_ms);
};
static_assert(sizeof(FlowEntry) == 16);

constexpr uint32_t kMaxFlowTimeoutMs = uint32_t{1} << 30;  // half of what a difference of wrapped times can tell apart

class ConnTable {
 public:
  // Room for `flows` at least.
  explicit ConnTable(uint64_t flows);
  ~ConnTable();
  ConnTable(const ConnTable&) = delete;
  ConnTable& operator=(const ConnTable&) = delete;

  void prefetch(uint64_t hash) const {
    __builtin_prefetch(&buckets_[first_bucket(hash)], 1);
    __builtin_prefetch(&buckets_[second_bucket(hash)], 1);
  }
  // The live flow, or null. An expired one is removed on the way. Valid until the next insert or sweep.
  [[gnu::always_inline]] FlowEntry* find(uint64_t hash, uint32_t now_ms) {
    FlowEntry* entry = place_of(buckets_[first_bucket(hash)], hash);
    if (entry->hash != hash) entry = place_of(buckets_[second_bucket(hash)], hash);
    if (entry->hash != hash) return nullptr;
    if (!entry->expired(now_ms)) return entry;
    erase(*entry);
    return nullptr;
  }
  // For a hash that find() did not find; `begun_as` embryonic or stray. Null where every place is held by an
  // assured flow.
  FlowEntry* insert(uint64_t hash, BackendId backend, uint32_t timeout_ms, uint32_t now_ms,
                    FlowState begun_as = FlowState::embryonic);
  void erase(FlowEntry& entry);
  // Removes expired flows from the next `buckets` buckets, round and round.
  void sweep(uint64_t buckets, uint32_t now_ms);

  uint64_t live() const { return live_; }  // not yet swept ones included
  uint64_t capacity() const { return bucket_count_ * kWays; }
  uint64_t bucket_count() const { return bucket_count_; }
  uint64_t evicted() const { return evicted_; }  // pushed out before their time, ever

 private:
  static constexpr size_t kWays = 4;
  struct alignas(64) Bucket {
    std::array<FlowEntry, kWays> entries;
  };
  static_assert(sizeof(Bucket) == 64);

  size_t first_bucket(uint64_t hash) const { return hash & mask_; }
  size_t second_bucket(uint64_t hash) const { return (hash >> 24 ^ hash >> 41) & mask_; }
  // Where the flow is, if it is in this bucket. All four are compared, because which of them it is nobody can predict.
  [[gnu::always_inline]] static FlowEntry* place_of(Bucket& bucket, uint64_t hash) {
    size_t way = 0;
    for (size_t each = 1; each < kWays; ++each) way |= size_t{bucket.entries[each].hash == hash} * each;
    return &bucket.entries[way];
  }
  struct Offer {
    unsigned free = 0;
    FlowEntry* place = nullptr;
  };
  static constexpr uint32_t kAssuredWorth = UINT32_MAX;
  struct Victim {
    FlowEntry* entry = nullptr;
    uint32_t worth = kAssuredWorth;
  };
  static uint32_t worth(const FlowEntry& entry, uint32_t now_ms);
  Offer offer_of(Bucket& bucket, uint32_t now_ms, Victim& victim);

  uint64_t bucket_count_ = 0;
  uint64_t mask_ = 0;
  uint64_t live_ = 0;
  uint64_t evicted_ = 0;
  uint64_t sweep_at_ = 0;
  Bucket* buckets_ = nullptr;  // mapped, zeroed, on huge pages where the kernel has them
};

}  // namespace tidegate::l4
