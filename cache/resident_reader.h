// SPDX-License-Identifier: Apache-2.0
// ResidentReader: reads small objects on the event loop's own thread where their pages are in the page cache already.
// Then a read is a copy, and a ReaderPool thread and back would cost more than all the rest of a hit.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>

#include "cache/object.h"
#include "cache/store.h"
#include "core/event_loop.h"

namespace tidegate::cache {

// Whether all pages of [at, at + bytes) are in memory, as mincore(2) says for a mapped file; false where nothing is
// mapped. Never touches them. The kernel tells this only of files that the process may write: of others it says yes.
bool is_in_page_cache(const void* at, size_t bytes);

// What it promises. The pages that hold the record and the body's bytes are asked about before they are touched: those
// of a value with pages of its own exactly, once it is known where it lies; those of a leaf at the place where the last
// read found it (DiskPlace). While nothing is committed that place is the place, and no tree is searched. After a
// commit it is a hint: the writer moves a leaf whenever it changes a neighbour, and then the leaf's new page is met
// unasked, though one just written is in memory nearly always. Nor are the tree's upper pages asked about, which every
// search passes. And a page that was there may be gone a moment later: the kernel's
// answer is kept for kTrustNs, since to ask costs as much as half of a read. So a loop may meet a cold page by chance,
// seldom and one at a time; it never goes for one known to be cold.
//
// Threads: read() on any, each with a transaction (a slot in LMDB's reader table) of its own. It is held until the turn
// of the loop ends, since LMDB looks its databases up anew in each, and changed for a new one when something was
// committed meanwhile. To be destroyed when no thread reads any more.
class ResidentReader {
 public:
  static constexpr uint64_t kMaxBodyBytes = kChunkBytes;      // one chunk
  static constexpr uint64_t kBytesPerTurn = 4 * kChunkBytes;  // for one thread in one turn of its loop: tens of us
  static constexpr size_t kMaxThreads = 64;                   // of LMDB's 126 readers

  explicit ResidentReader(const Store& store);
  ~ResidentReader();

  static constexpr uint64_t kTrustNs =
      100'000'000;  // what was met this lately the kernel takes back under great need only

  // Whether read() is worth calling: the last read left a place.
  static bool may_read(const DiskPlace& place) { return !place.record.empty(); }
  // The whole object, and in `place`, which held where it was, where it is. Nothing: not all of it is in memory, this
  // turn's bytes are used up, or it is not as it should be, which is for the pool to find out and to report.
  // `generation`: of the chunks. `loop`: this thread's. Call it without locks: LMDB takes some.
  std::shared_ptr<const StoredObject> read(const KeyHash& key, uint64_t variant, uint64_t generation, DiskPlace& place,
                                           EventLoop& loop);
  // Where a small object lies in this snapshot. Any thread.
  static DiskPlace find(const Store& store, const lmdb::Txn& txn, const KeyHash& key, uint64_t variant,
                        uint64_t generation);

  uint64_t oldest_read_age_ns() const;

 private:
  // Neighbours are asked about in one call: it costs hardly more than to ask about one of them.
  static constexpr size_t kGroupPages = 16;
  struct Warm {
    uintptr_t group = 0;  // of kGroupPages pages
    uint32_t pages = 0;   // a bit for each that the kernel said is there
    uint64_t until_ns = 0;
  };
  static uint32_t pages_there(uintptr_t group);
  struct Reader : std::enable_shared_from_this<Reader> {
    std::optional<lmdb::Txn> txn;  // reset between turns
    bool has_snapshot = false;
    bool awaits_turn_end = false;
    uint64_t turn_ns = 0;
    uint64_t turn_bytes = 0;
    std::array<Warm, 4096> warm;                // by group: 256 MB of the map
    std::atomic<uint64_t> reading_since_ns{0};  // 0: idle

    bool is_warm(const void* at, size_t bytes);
    bool take_snapshot(EventLoop& loop, bool is_first_of_turn);
    void drop_snapshot();
  };
  Reader* reader_of_this_thread();
  static std::shared_ptr<const StoredObject> copy(Reader& reader, const KeyHash& key, uint64_t variant,
                                                  uint64_t generation, const DiskPlace& place);

  const Store& store_;
  const uint64_t id_;         // no other ResidentReader of the process ever has it
  mutable std::mutex mutex_;  // guards the map; a Reader is its thread's own
  std::unordered_map<std::thread::id, std::shared_ptr<Reader>> readers_;
};

}  // namespace tidegate::cache
