// SPDX-License-Identifier: Apache-2.0
#include "cache/disk/resident_reader.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "core/assert.h"
#include "core/clock.h"

namespace tidegate::cache {
namespace {

// LMDB keeps values up to about half a page on a leaf. Larger ones have pages of their own.
constexpr size_t kMaxLeafValueBytes = 2'000;

uintptr_t page_bytes() {
  static const auto bytes = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  return bytes;
}

uintptr_t page_of(const void* at) { return reinterpret_cast<uintptr_t>(at) / page_bytes(); }

bool is_on_leaf(std::string_view value) { return !value.empty() && value.size() <= kMaxLeafValueBytes; }

uint64_t next_id() {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

}  // namespace

bool is_in_page_cache(const void* at, size_t bytes) {
  std::array<unsigned char, kChunkValueBytes / 4096 + 2> pages;
  const auto first = reinterpret_cast<uintptr_t>(at) / page_bytes() * page_bytes();
  const uintptr_t length = reinterpret_cast<uintptr_t>(at) + std::max<size_t>(bytes, 1) - first;
  const size_t count = (length + page_bytes() - 1) / page_bytes();
  if (count > pages.size()) return false;
  if (::mincore(reinterpret_cast<void*>(first), length, pages.data()) != 0) return false;
  return std::all_of(pages.begin(), pages.begin() + static_cast<std::ptrdiff_t>(count),
                     [](unsigned char page) { return (page & 1) != 0; });
}

// Which of a group's pages are in memory, the lowest bit for the first. If the map has only a part of the group, each
// page is checked by itself.
uint32_t ResidentReader::pages_there(uintptr_t group) {
  const uintptr_t first = group * kGroupPages * page_bytes();
  std::array<unsigned char, kGroupPages> there{};
  uint32_t bits = 0;
  if (::mincore(reinterpret_cast<void*>(first), kGroupPages * page_bytes(), there.data()) == 0) {
    for (size_t i = 0; i < kGroupPages; ++i) bits |= (there[i] & 1u) << i;
    return bits;
  }
  for (size_t i = 0; i < kGroupPages; ++i) {
    const auto* const page = reinterpret_cast<const void*>(first + i * page_bytes());
    bits |= uint32_t{is_in_page_cache(page, 1)} << i;
  }
  return bits;
}

// A page that was in memory is trusted for a while. Other pages are checked each time.
bool ResidentReader::Reader::is_warm(const void* at, size_t bytes) {
  TIDEGATE_ASSERT(at != nullptr && bytes > 0, "a place has bytes");
  const uintptr_t end = page_of(static_cast<const char*>(at) + bytes - 1) + 1;
  for (uintptr_t page = page_of(at); page < end;) {
    const uintptr_t group = page / kGroupPages;
    const uintptr_t next = std::min(end, (group + 1) * kGroupPages);
    const uint32_t wanted = ((uint32_t{1} << (next - page)) - 1) << page % kGroupPages;
    Warm& known = warm[group % warm.size()];
    const bool is_known = known.group == group && turn_ns < known.until_ns && (known.pages & wanted) == wanted;
    if (!is_known) known = {group, pages_there(group), turn_ns + kTrustNs};
    if ((known.pages & wanted) != wanted) return false;
    page = next;
  }
  return true;
}

// Takes the latest snapshot, which is what the index describes. It is dropped when the turn ends.
bool ResidentReader::Reader::take_snapshot(EventLoop& loop, bool is_first_of_turn) {
  if (has_snapshot && txn->is_latest()) return true;
  drop_snapshot();
  if (is_first_of_turn ? !txn->renew() : !txn->renew_unlooked()) return false;
  has_snapshot = true;
  reading_since_ns.store(turn_ns, std::memory_order_relaxed);
  if (awaits_turn_end) return true;
  awaits_turn_end = true;
  loop.defer([self = shared_from_this()] {
    self->awaits_turn_end = false;
    self->drop_snapshot();
  });
  return true;
}

void ResidentReader::Reader::drop_snapshot() {
  if (!has_snapshot) return;
  has_snapshot = false;
  txn->reset();
  reading_since_ns.store(0, std::memory_order_relaxed);
}

ResidentReader::ResidentReader(const Store& store) : store_(store), id_(next_id()) {}

// A loop may still hold a Reader whose turn has not ended. Its transaction must go before the environment.
ResidentReader::~ResidentReader() {
  const MutexLock lock(mutex_);
  for (const auto& [thread, reader] : readers_) {
    reader->drop_snapshot();
    reader->txn.reset();
  }
}

ResidentReader::Reader* ResidentReader::reader_of_this_thread() {
  struct Last {
    uint64_t id = 0;  // an address could be that of another ResidentReader by now
    Reader* reader = nullptr;
  };
  thread_local Last last;
  if (last.id == id_) return last.reader;
  const MutexLock lock(mutex_);
  auto found = readers_.find(std::this_thread::get_id());
  if (found == readers_.end() && readers_.size() < kMaxThreads) {
    auto txn = lmdb::Txn::begin(store_.env(), lmdb::Access::read);
    auto reader = std::make_shared<Reader>();
    if (txn) {
      txn->reset();
      reader->txn.emplace(std::move(*txn));
    }
    found = readers_.emplace(std::this_thread::get_id(), std::move(reader)).first;
  }
  last = {id_, found == readers_.end() ? nullptr : found->second.get()};
  return last.reader;
}

std::shared_ptr<const StoredObject> ResidentReader::read(const KeyHash& key, uint64_t variant, uint64_t generation,
                                                         DiskPlace& place, EventLoop& loop) {
  Reader* const reader = reader_of_this_thread();
  if (reader == nullptr || !reader->txn) return nullptr;
  const uint64_t turn_ns = loop.now_ns();
  const bool is_first = reader->turn_bytes == 0 || reader->turn_ns != turn_ns;
  if (is_first) reader->turn_bytes = 0;
  reader->turn_ns = turn_ns;
  if (reader->turn_bytes >= kBytesPerTurn || !reader->is_warm(place.record.data(), 1)) return nullptr;
  if (is_on_leaf(place.chunk) && !reader->is_warm(place.chunk.data(), 1)) return nullptr;
  if (!reader->take_snapshot(loop, is_first)) return nullptr;
  if (place.snapshot != mdb_txn_id(reader->txn->get())) place = find(store_, *reader->txn, key, variant, generation);
  auto object = copy(*reader, key, variant, generation, place);
  if (object != nullptr) reader->turn_bytes += object->memory_bytes();
  return object;
}

DiskPlace ResidentReader::find(const Store& store, const lmdb::Txn& txn, const KeyHash& key, uint64_t variant,
                               uint64_t generation) {
  const auto record = txn.get(store.meta_db(), meta_key(key, variant));
  const auto chunk = txn.get(store.chunk_db(), chunk_key(generation, 0));
  return {mdb_txn_id(txn.get()), record.value_or(std::string_view()), chunk.value_or(std::string_view())};
}

// `place` belongs to the reader's snapshot.
std::shared_ptr<const StoredObject> ResidentReader::copy(Reader& reader, const KeyHash& key, uint64_t variant,
                                                         uint64_t generation, const DiskPlace& place) {
  if (place.record.empty() || !reader.is_warm(place.record.data(), place.record.size())) return nullptr;
  auto meta = Store::copy_meta(*reader.txn, meta_key(key, variant), place.record);
  if (!meta || meta->disk_generation != generation || meta->head_apart) return nullptr;
  const uint64_t body_bytes = meta->head->body_bytes;
  if (body_bytes > kMaxBodyBytes) return nullptr;
  auto object = std::make_shared<StoredObject>();
  if (body_bytes > 0) {
    if (place.chunk.empty() || !reader.is_warm(place.chunk.data(), place.chunk.size())) return nullptr;
    auto chunk = Store::copy_chunk(*reader.txn, {key, generation, 0}, place.chunk);
    if (!chunk || chunk->bytes.size() != body_bytes) return nullptr;
    object->body.push_back(std::move(*chunk));
  }
  object->head = std::move(meta->head);
  return object;
}

uint64_t ResidentReader::oldest_read_age_ns() const {
  const uint64_t now = monotonic_ns();
  uint64_t oldest = 0;
  const MutexLock lock(mutex_);
  for (const auto& [thread, reader] : readers_) {
    const uint64_t since = reader->reading_since_ns.load(std::memory_order_relaxed);
    if (since != 0 && since < now) oldest = std::max(oldest, now - since);
  }
  return oldest;
}

}  // namespace tidegate::cache
