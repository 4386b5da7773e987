// SPDX-License-Identifier: Apache-2.0
// RequestRecords: what happened to each of the last requests, so that explain can describe a past request. They are in
// memory and not in a file, because a worker must never wait for a disk, and a full disk must not lose a record. So a
// restart forgets them, and the answer says so.
//
// Each worker has a ring of its own. It writes a record when a request ends: plain stores, no lock, no allocation, no
// waiting. When the ring is full, the oldest record is overwritten. The memory is mapped at the start; the kernel
// provides pages as they are used.
//
// Names are numbers of NameIds, times are monotonic.
//
// Threads: RequestRing::next and publish are for the one worker. find and the rest are for any thread. They leave out a
// record that the worker overwrites meanwhile.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>
#include <tuple>
#include <vector>

#include "cache/cache.h"
#include "cache/status.h"
#include "conf/model/pool.h"
#include "core/result.h"
#include "l7/exchange/failure.h"

namespace tidegate::l7 {

// 128 bits that identify a request: the bits of an id that a RequestIds made, or two hashes of any other text.
using RequestKey = std::array<uint64_t, 2>;
// The key of an id that came with the request.
RequestKey key_of_given_id(std::string_view id);
// Every key under which a request with this id may be recorded.
std::vector<RequestKey> keys_of_id(std::string_view id);

// Small facts of an exchange that stand together, aligned as a word. So its record copies each group by one load and
// one store.
struct alignas(4) RequestEnd {
  uint16_t status = 0;
  Failure failure = Failure::none;
  Failure gone_why = Failure::client_gone;
};
struct alignas(2) CacheAnswer {
  cache::LookupOutcome outcome = cache::LookupOutcome::bypass;
  bool asked = false;
};
struct alignas(2) RequestClient {
  bool client_gone = false;  // the client left, or there never was one
  bool background = false;   // the exchange revalidates for the cache, or is a copy
};

// Why this backend of the pool was chosen.
enum class ChosenBy : uint8_t {
  nobody,      // none was chosen
  policy,      // by the pool's policy
  sticky,      // by the client's token
  whole_pool,  // by the policy, but no backend with the route's labels could be used
};

constexpr size_t kRecordedTries = 3;
constexpr size_t kRecordedVerdicts = 16;  // four bits each

template <template <class> class Of>
struct RequestRecordOf {
  // Addresses are the bytes of an Endpoint (peer, destination) or an IpAddress (client): two words and the rest. Family
  // 0: there is none. `client` is there only if the peer is a trusted proxy.
  Of<uint64_t> key_low, started_ns, ended_ns, queued_ns, first_byte_ns, version, live_state, verdicts;
  std::array<Of<uint64_t>, 2> peer, destination, client;
  Of<const char*> cache_detail;  // static text, or null
  Of<uint32_t> peer_rest, destination_rest;
  Of<uint32_t> listener, route, policies, variant, pool, backend;
  std::array<Of<uint32_t>, kRecordedTries> failed_backends;
  Of<uint32_t> members;
  Of<RequestEnd> end;
  Of<cache::CacheFlags> cache_flags;  // these two and cache_detail: only if the cache was asked
  Of<uint16_t> tries, forward_status;
  Of<CacheAnswer> cache_answer;
  Of<RequestClient> whose;
  Of<uint8_t> client_rest, failed_tries;
  std::array<Of<Failure>, kRecordedTries> failures;
  Of<PoolPolicy> pool_policy;
  Of<ChosenBy> chosen_by;

  auto fields() {
    return std::tie(key_low, started_ns, ended_ns, queued_ns, first_byte_ns, version, live_state, verdicts, peer[0],
                    peer[1], destination[0], destination[1], client[0], client[1], cache_detail, peer_rest,
                    destination_rest, listener, route, policies, variant, pool, backend, failed_backends[0],
                    failed_backends[1], failed_backends[2], members, end, cache_flags, tries, forward_status,
                    cache_answer, whose, client_rest, failed_tries, failures[0], failures[1], failures[2], pool_policy,
                    chosen_by);
  }
};

template <class T>
using PlainField = T;
using RequestRecord = RequestRecordOf<PlainField>;

// One field in the ring. Release and acquire are plain moves on x86. They order the stores to a record's fields and to
// the count of records. After a reader has copied a record, it reads the count. The count shows whether the worker has
// overwritten the record meanwhile.
template <class T>
class SharedField {
 public:
  void operator=(T value) { value_.store(value, std::memory_order_release); }
  operator T() const { return value_.load(std::memory_order_acquire); }

 private:
  std::atomic<T> value_;
};
using RecordSlot = RequestRecordOf<SharedField>;

class RequestRing {
 public:
  static constexpr size_t kRecordBytes = sizeof(RecordSlot) + sizeof(uint64_t);
  static Result<std::unique_ptr<RequestRing>> make(size_t capacity);

  // --- the worker
  // The slot of the next record. All of its fields must be set, except those that its counts and flags leave out.
  RecordSlot& next(uint64_t key_high) {
    keys_[at_].store(key_high, std::memory_order_release);
    return slots_[at_];
  }
  void publish() {
    written_.store(written_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    if (++at_ == capacity_) at_ = 0;
  }

  // --- any thread
  // Appends the records with this key, the newest first, until `out` has `most`.
  void find(const RequestKey& key, size_t most, std::vector<RequestRecord>& out) const;
  uint64_t size() const;
  uint64_t written() const { return written_.load(std::memory_order_acquire); }
  // When the oldest kept record ended; 0: there is none.
  uint64_t oldest_ns() const;

 private:
  struct Unmap {
    size_t bytes;
    void operator()(void* memory) const;
  };
  RequestRing(size_t capacity, std::unique_ptr<void, Unmap> memory);
  // Returns false if the record is being overwritten.
  bool read(uint64_t number, RequestRecord& out) const;

  const size_t capacity_;
  std::unique_ptr<void, Unmap> memory_;
  std::atomic<uint64_t>* keys_;  // apart from the slots, because a search reads only these
  RecordSlot* slots_;
  size_t at_ = 0;
  alignas(64) std::atomic<uint64_t> written_{0};
};

class RequestRecords {
 public:
  // `bytes`: size of all rings together.
  static Result<std::unique_ptr<RequestRecords>> make(size_t workers, uint64_t bytes, uint64_t keep_ns);

  RequestRing& ring(size_t worker) { return *rings_[worker]; }
  // The newest records first, at most `most`. Records that ended more than `keep_ns` ago are left out.
  std::vector<RequestRecord> find(std::string_view id, size_t most, uint64_t now_ns) const;
  uint64_t keep_ns() const { return keep_ns_; }
  uint64_t started_ns() const { return started_ns_; }
  // Always returns the same for the same moment, because the clock is read only at the start.
  uint64_t realtime_of(uint64_t monotonic) const { return started_realtime_ns_ + (monotonic - started_ns_); }
  uint64_t size() const;
  // The time since which every request is remembered. It is the latest of: the start, the last time that a ring forgot
  // a record, and keep_ns ago.
  uint64_t complete_since_ns(uint64_t now_ns) const;

 private:
  RequestRecords(uint64_t keep_ns, uint64_t started_ns, uint64_t started_realtime_ns)
      : keep_ns_(keep_ns), started_ns_(started_ns), started_realtime_ns_(started_realtime_ns) {}
  const uint64_t keep_ns_, started_ns_, started_realtime_ns_;
  std::vector<std::unique_ptr<RequestRing>> rings_;
};

}  // namespace tidegate::l7
