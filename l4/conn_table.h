// SPDX-License-Identifier: Apache-2.0
// ConnTable: which backend each flow is pinned to. Each worker has one table and no other thread touches it. Its memory
// is allocated once, in the constructor. Or the caller owns it, and it outlives the process (KeptState). A process may
// be killed between any two writes. So an entry gets its hash while it is empty, and its state last.
//
// A flow entry has 16 bytes; four entries make one bucket of 64 bytes. The flow's hash gives two buckets, and the flow
// may be in either of them (power of two choices). Mostly it is in the first. So a lookup touches one cache line or
// two, which prefetch() loads ahead, and the table fills to its nominal size before a bucket overflows. There is no
// chaining and no moving, so the cost of every call is bounded.
//
// Life of a flow: A flow is `embryonic` from its SYN until a packet other than a repeated SYN comes from the client.
// Then it is `established`. It is `closing` after a FIN or RST from the client. A flow is `stray` if we see it first in
// the middle, or if its protocol has no visible beginning (UDP). It stays `stray` until it has had packets in
// kAssuringSeconds different seconds. Every packet sets the time-out of the flow's new state. `stray` has the time-out
// of `established`: after a restart of the forwarder, a connection that sends once in minutes must be found again until
// it is assured. With direct return we see only the client's half. So a download after the client's FIN looks like a
// closing connection. A closing flow that has packets in kAssuringSeconds further seconds is established and assured
// again: it is such a download, or the FIN was forged. A connection that closes in order is silent by then.
//
// For the same reason a handshake can be forged: it takes two packets, and the second need not know the backend's
// sequence number. So an established flow is `assured` only when it too has had packets in kAssuringSeconds different
// seconds.
//
// One packet does not unpin an assured flow, because it may be forged. A SYN goes to the flow's backend, which knows
// the sequence numbers and answers it (RFC 9293 §3.10.7.4). An RST makes the flow doubted: it is kept for kDoubtMs. The
// next packet that closes nothing ends the doubt, because a client that sent the RST has no more to send. A SYN on a
// doubted flow is a new connection. A client whose host forgot the connection gets there too: it answers the backend by
// RST.
//
// A `shared` flow is one that another forwarder of the site has reported (learn()). It is assured there, and no packet
// of it has come here yet. It never takes the place of another flow. The first packet that neither opens nor closes
// makes it a flow of this table (take_over_shared). A packet that opens or closes may be forged. The next report of the
// flow corrects what it changed.
//
// When both buckets of a new flow are full, one entry is given up, in this order:
//  1. an expired flow;
//  2. the stray flow that is nearest to its end, which is the one seen longest ago;
//  3. the flow nearest to its end among the others that are not established;
//  4. the flow nearest to its end among those established but not assured, which is the one seen longest ago;
//  5. the shared flow that is nearest to its end.
// All but the first are counted as evicted. If all eight are assured, the new flow is not recorded: the hash table
// alone chooses its backend. The same happens to the next packet of a flow that was given up. So a flood of SYNs or
// stray packets evicts at most one established flow of a full bucket. A flood of whole handshakes evicts no assured
// flow, and new clients still find a place.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "l4/ids.h"

namespace tidegate::l4 {

enum class FlowState : uint8_t { empty, embryonic, stray, established, closing };
const char* name(FlowState state);

// What kind of packet a flow received.
enum class FlowEvent : uint8_t {
  open,   // SYN without ACK
  data,   // anything else, and all UDP packets
  close,  // FIN
  reset,  // RST
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
  FlowState state : 6 = FlowState::empty;
  uint8_t shared : 1 = 0;  // see above
  uint8_t unseen : 1 = 0;  // its beginning was not seen here; see Decider::second_chance
  // Counted until the flow is assured, and again from its FIN on: the number of seconds with packets, and the last such
  // second. A "second" is 1,024 ms; its number wraps after 32.
  uint8_t seconds_seen : 2 = 0;
  uint8_t doubted : 1 = 0;  // an RST came; see above
  uint8_t last_second : 5 = 0;

  bool expired(uint32_t now_ms) const { return static_cast<int32_t>(now_ms - expires_ms) >= 0; }
  // Updates the flow for one packet. Do not call it for `open` if begins_anew().
  void advance(FlowEvent event, const FlowTimeouts& timeouts, uint32_t now_ms) {
    if (event == FlowEvent::data && state == FlowState::established && seconds_seen == kAssuringSeconds &&
        doubted == 0) {
      expires_ms = now_ms + timeouts.established_ms;
    } else {
      change(event, timeouts, now_ms);
    }
  }
  // True if an `open` on this flow is a new connection from a reused port. On an embryonic flow it is the same SYN sent
  // again. On an assured flow it may be forged.
  bool begins_anew() const { return state != FlowState::embryonic && (!assured() || doubted != 0); }
  bool assured() const { return state == FlowState::established && seconds_seen >= kAssuringSeconds; }
  // Call for each packet until the flow is assured.
  void count_second(uint32_t now_ms);

  static constexpr unsigned kAssuringSeconds = 2;
  static constexpr uint32_t kDoubtMs = 60'000;  // clients that keep an idle connection open mostly send within a minute

 private:
  void change(FlowEvent event, const FlowTimeouts& timeouts, uint32_t now_ms);
};
static_assert(sizeof(FlowEntry) == 16);

// A flow of another forwarder. `left_ms` is at most kMaxFlowTimeoutMs; 0: the connection has ended there.
struct LearnedFlow {
  uint64_t hash = 0;
  BackendId backend = kNoBackend;
  uint32_t left_ms = 0;
};
// The result of learning one flow.
enum class Lesson : uint8_t {
  learned,
  renewed,
  ended,
  known,    // it is already a flow of this table, or it ended before it was known
  no_room,  // both of its buckets are full
  count_
};
struct LessonCounts {
  std::array<uint64_t, static_cast<size_t>(Lesson::count_)> counts{};
  uint64_t of(Lesson lesson) const { return counts[static_cast<size_t>(lesson)]; }
};

constexpr uint32_t kMaxFlowTimeoutMs = uint32_t{1} << 30;  // half of the range in which wrapped times can be compared

class ConnTable {
 public:
  // Makes room for at least `flows` flows.
  explicit ConnTable(uint64_t flows) : ConnTable(flows, nullptr) {}
  // Uses `memory` of bytes_for(flows) bytes (a multiple of 64), which must outlive the table. The memory is zeroed, or
  // has the entries of an earlier table: then call take_over() first. Null: the table allocates its own memory.
  ConnTable(uint64_t flows, void* memory);
  static uint64_t bytes_for(uint64_t flows);
  ~ConnTable();
  ConnTable(const ConnTable&) = delete;
  ConnTable& operator=(const ConnTable&) = delete;

  void prefetch(uint64_t hash) const {
    __builtin_prefetch(&buckets_[first_bucket(hash)], 1);
    __builtin_prefetch(&buckets_[second_bucket(hash)], 1);
  }
  // Returns the live flow, or null. Removes an expired one. The pointer is valid until the next insert or sweep.
  [[gnu::always_inline]] FlowEntry* find(uint64_t hash, uint32_t now_ms) {
    FlowEntry* entry = place_of(buckets_[first_bucket(hash)], hash);
    if (entry->hash != hash) entry = place_of(buckets_[second_bucket(hash)], hash);
    if (entry->hash != hash) return nullptr;
    if (!entry->expired(now_ms)) return entry;
    erase(*entry);
    return nullptr;
  }
  struct Inherited {
    uint64_t flows = 0;
    uint64_t refused = 0;  // live entries that were damaged, or whose backend is not known
  };
  // Checks each entry that the previous process left. Keeps live flows of known backends, and empties all other
  // entries. `known_ids[id]`: the backend with this BackendId is known.
  Inherited take_over(const std::vector<bool>& known_ids, uint32_t now_ms);
  // Call with a hash that find() did not find. `begun_as` is embryonic or stray. Returns null if assured flows hold
  // every place.
  FlowEntry* insert(uint64_t hash, BackendId backend, uint32_t timeout_ms, uint32_t now_ms,
                    FlowState begun_as = FlowState::embryonic);
  void erase(FlowEntry& entry);
  Lesson learn(const LearnedFlow& flow, uint32_t now_ms);
  // The number of the entry's place in this table, less than capacity(). It stays the same as long as the entry is
  // there.
  uint64_t place(const FlowEntry& entry) const {
    return static_cast<uint64_t>(&entry - reinterpret_cast<const FlowEntry*>(buckets_));
  }
  // Appends live flows of the next `buckets` buckets, from `bucket` on, to `out`. If a backend is given, only its
  // flows. Stops after the bucket that reaches `most`, so there may be up to three more than `most`. Returns the bucket
  // at which the next call continues, or bucket_count().
  uint64_t list(uint64_t bucket, uint64_t buckets, std::optional<BackendId> backend, size_t most, uint32_t now_ms,
                std::vector<FlowEntry>& out) const;
  // Removes expired flows from the next `buckets` buckets. After the last bucket it begins again.
  void sweep(uint64_t buckets, uint32_t now_ms);

  uint64_t live() const { return live_; }  // includes expired flows that are not swept yet
  uint64_t capacity() const { return bucket_count_ * kWays; }
  uint64_t bucket_count() const { return bucket_count_; }
  uint64_t evicted() const { return evicted_; }  // flows given up before their time-out, since the start

 private:
  static constexpr size_t kWays = 4;
  struct alignas(64) Bucket {
    std::array<FlowEntry, kWays> entries;
  };
  static_assert(sizeof(Bucket) == 64);

  size_t first_bucket(uint64_t hash) const { return hash & mask_; }
  size_t second_bucket(uint64_t hash) const { return (hash >> 24 ^ hash >> 41) & mask_; }
  // Returns the flow's entry if it is in this bucket. It compares all four, because no branch predictor can guess which
  // one matches.
  [[gnu::always_inline]] static FlowEntry* place_of(Bucket& bucket, uint64_t hash) {
    size_t way = 0;
    for (size_t each = 1; each < kWays; ++each) way |= size_t{bucket.entries[each].hash == hash} * each;
    return &bucket.entries[way];
  }
  bool is_sound(const FlowEntry& entry, uint64_t bucket, const std::vector<bool>& known_ids, uint32_t now_ms) const;
  // The places that a new flow could take.
  struct Offer {
    unsigned free = 0;           // how many are free
    FlowEntry* place = nullptr;  // one of these
    // The flow with the smallest worth: its worth, and in the lowest bits the number of its place.
    uint64_t victim = UINT64_MAX;
  };
  static constexpr unsigned kPlaceBits = 3;  // of the 2 * kWays places of a flow
  Offer offer_of(Bucket& bucket, unsigned first_place, uint32_t now_ms);
  // If a place is free, the flow's; otherwise the victim of both buckets.
  Offer offer_for(uint64_t hash, uint32_t now_ms);

  uint64_t bucket_count_ = 0;
  uint64_t mask_ = 0;
  uint64_t live_ = 0;
  uint64_t evicted_ = 0;
  uint64_t sweep_at_ = 0;
  bool owns_memory_ = false;
  Bucket* buckets_ = nullptr;  // on huge pages if the kernel has them
};

}  // namespace tidegate::l4
