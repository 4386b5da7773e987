// SPDX-License-Identifier: Apache-2.0
#include "l7/observe/request_records.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/clock.h"
#include "core/hash.h"
#include "l7/limits.h"

namespace tidegate::l7 {
namespace {

static_assert(RequestRing::kRecordBytes <= 200, "what a record may cost");
static_assert(RequestRing::kRecordBytes == 200, "the about text of l7.remember_requests_memory says so");
static_assert(std::is_trivially_destructible_v<RecordSlot>, "the ring unmaps its slots");
static_assert(std::atomic<uint64_t>::is_always_lock_free);
static_assert(std::has_unique_object_representations_v<RequestEnd> &&
                  std::has_unique_object_representations_v<cache::CacheFlags> &&
                  std::has_unique_object_representations_v<CacheAnswer> &&
                  std::has_unique_object_representations_v<RequestClient>,
              "groups of facts have no padding");

constexpr size_t kMadeIdBytes = 32;  // hexadecimal

// The bits of an id as RequestIds writes it.
bool read_made_id(std::string_view id, RequestKey& key) {
  if (id.size() != kMadeIdBytes) return false;
  key = {};
  for (size_t i = 0; i < id.size(); ++i) {
    const char digit = id[i];
    const bool decimal = digit >= '0' && digit <= '9';
    if (!decimal && (digit < 'a' || digit > 'f')) return false;
    uint64_t& word = key[i / 16];
    word = word << 4 | static_cast<uint64_t>(decimal ? digit - '0' : digit - 'a' + 10);
  }
  return true;
}

}  // namespace

RequestKey key_of_given_id(std::string_view id) {
  // Only proxies that the operator trusts choose ids, so the keys need not be secret.
  return {siphash13(HashKey{1, 2}, id), siphash13(HashKey{3, 4}, id)};
}

std::vector<RequestKey> keys_of_id(std::string_view id) {
  std::vector<RequestKey> keys = {key_of_given_id(id)};
  if (RequestKey made{}; read_made_id(id, made)) keys.push_back(made);
  return keys;
}

void RequestRing::Unmap::operator()(void* memory) const { ::munmap(memory, bytes); }

Result<std::unique_ptr<RequestRing>> RequestRing::make(size_t capacity) {
  const size_t bytes = capacity * kRecordBytes;
  void* const memory =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    return fail(fmt::format("l7.remember_requests_memory: cannot map {} bytes: {}", bytes, std::strerror(errno)));
  }
  return std::unique_ptr<RequestRing>(new RequestRing(capacity, {memory, Unmap{bytes}}));
}

// Fresh pages are zero, and zero bytes are valid zero atomics. So the slots need no construction, which would make the
// kernel provide all pages at once.
RequestRing::RequestRing(size_t capacity, std::unique_ptr<void, Unmap> memory)
    : capacity_(capacity),
      memory_(std::move(memory)),
      keys_(static_cast<std::atomic<uint64_t>*>(memory_.get())),
      slots_(reinterpret_cast<RecordSlot*>(keys_ + capacity)) {}

// Of `capacity_` slots, one may be half written. So one fewer is kept.
uint64_t RequestRing::size() const { return std::min<uint64_t>(written(), capacity_ - 1); }

bool RequestRing::read(uint64_t number, RequestRecord& out) const {
  out.fields() = const_cast<RecordSlot&>(slots_[number % capacity_]).fields();
  return written() - number < capacity_;
}

void RequestRing::find(const RequestKey& key, size_t most, std::vector<RequestRecord>& out) const {
  const uint64_t end = written();
  size_t at = end % capacity_;
  for (uint64_t left = std::min<uint64_t>(end, capacity_ - 1); left > 0 && out.size() < most; --left) {
    at = at == 0 ? capacity_ - 1 : at - 1;
    if (keys_[at].load(std::memory_order_acquire) != key[0]) continue;
    const uint64_t number = end - (std::min<uint64_t>(end, capacity_ - 1) - left) - 1;
    RequestRecord record;
    if (read(number, record) && record.key_low == key[1]) out.push_back(record);
  }
}

uint64_t RequestRing::oldest_ns() const {
  for (;;) {
    const uint64_t kept = size();
    if (kept == 0) return 0;
    RequestRecord record;
    if (read(written() - kept, record)) return record.ended_ns;
  }
}

Result<std::unique_ptr<RequestRecords>> RequestRecords::make(size_t workers, uint64_t bytes, uint64_t keep_ns) {
  std::unique_ptr<RequestRecords> records(new RequestRecords(keep_ns, monotonic_ns(), realtime_ns()));
  const size_t capacity = std::max<size_t>(2, bytes / workers / RequestRing::kRecordBytes);
  for (size_t i = 0; i < workers; ++i) {
    Result<std::unique_ptr<RequestRing>> ring = RequestRing::make(capacity);
    if (!ring) return ring.error();
    records->rings_.push_back(*std::move(ring));
  }
  return records;
}

std::vector<RequestRecord> RequestRecords::find(std::string_view id, size_t most, uint64_t now_ns) const {
  std::vector<RequestRecord> found;
  for (const RequestKey& key : keys_of_id(id)) {
    for (const std::unique_ptr<RequestRing>& ring : rings_) {
      std::vector<RequestRecord> of_ring;
      ring->find(key, most, of_ring);
      found.insert(found.end(), of_ring.begin(), of_ring.end());
    }
  }
  std::erase_if(found, [&](const RequestRecord& record) { return record.ended_ns + keep_ns_ < now_ns; });
  std::sort(found.begin(), found.end(),
            [](const RequestRecord& a, const RequestRecord& b) { return a.ended_ns > b.ended_ns; });
  if (found.size() > most) found.resize(most);
  return found;
}

uint64_t RequestRecords::size() const {
  uint64_t sum = 0;
  for (const std::unique_ptr<RequestRing>& ring : rings_) sum += ring->size();
  return sum;
}

uint64_t RequestRecords::complete_since_ns(uint64_t now_ns) const {
  uint64_t since_ns = std::max(started_ns_, now_ns - std::min(now_ns, keep_ns_));
  for (const std::unique_ptr<RequestRing>& ring : rings_) {
    if (ring->written() > ring->size()) since_ns = std::max(since_ns, ring->oldest_ns());
  }
  return since_ns;
}

}  // namespace tidegate::l7
