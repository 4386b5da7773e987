// SPDX-License-Identifier: Apache-2.0
// ResidentReader: reads small objects on the event loop's own thread, when their pages are in the page cache. Such a
// read is a copy; a round trip to a ReaderPool thread would cost more than all the rest of the hit.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <unordered_map>

#include "cache/disk/store.h"
#include "cache/index/object.h"
#include "core/event_loop.h"
#include "core/mutex.h"

namespace tidegate::cache {

// True if all pages of [at, at + bytes) are in memory, by mincore(2). False if nothing is mapped there. Does not touch
// the pages. The kernel answers correctly only for files that the process may write. For other files it always says
// yes.
bool is_in_page_cache(const void* at, size_t bytes);

// The aim is that a loop does not wait for the disk. Pages are checked before they are touched:
//   - a value with pages of its own: all its pages, once its place is known;
//   - a value on a leaf page: the page where the last read found it (DiskPlace).
// While nothing is committed, that place is exact and no tree is searched. After a commit it is a hint: the writer
// moves a leaf when it changes a neighbour, and the new page is not checked. A page that was just written is nearly
// always in memory. The upper pages of the tree are not checked either, because every search uses them. The kernel's
// answer is trusted for kTrustNs, because asking costs half as much as a read. So a loop may touch a cold page in rare
// cases. It never reads a page that it knows to be cold.
//
// Threads: read() on any. Each thread has its own transaction (a slot in LMDB's reader table). It is held until the
// turn of the loop ends, because LMDB looks up its databases in each new transaction. It is replaced if something was
// committed meanwhile. Destroy the ResidentReader when no thread reads any more.
class ResidentReader {
 public:
  static constexpr uint64_t kMaxBodyBytes = kChunkBytes;  // one chunk
  static constexpr uint64_t kBytesPerTurn =
      4 * kChunkBytes;                       // for one thread in one turn of its loop; this takes tens of microseconds
  static constexpr size_t kMaxThreads = 64;  // of LMDB's 126 readers

  explicit ResidentReader(const Store& store);
  ~ResidentReader();

  // only under memory pressure does the kernel take a page back earlier
  static constexpr uint64_t kTrustNs = 100'000'000;

  // False if no earlier read stored a place. Then read() cannot succeed.
  static bool may_read(const DiskPlace& place) { return !place.record.empty(); }
  // Reads the whole object and updates `place`. Returns nothing if a part is not in memory, if this turn's bytes are
  // used up, or if the object is damaged. Then the ReaderPool must read it, and reports damage. `generation`: the
  // generation of the chunks. `loop`: the loop of this thread. Hold no lock during the call, because LMDB takes locks.
  std::shared_ptr<const StoredObject> read(const KeyHash& key, uint64_t variant, uint64_t generation, DiskPlace& place,
                                           EventLoop& loop);
  // Where a small object lies in this snapshot. Any thread.
  static DiskPlace find(const Store& store, const lmdb::Txn& txn, const KeyHash& key, uint64_t variant,
                        uint64_t generation);

  uint64_t oldest_read_age_ns() const;

 private:
  // Pages are checked in groups: one call for a group costs hardly more than for one page.
  static constexpr size_t kGroupPages = 16;
  struct Warm {
    uintptr_t group = 0;  // page number / kGroupPages
    uint32_t pages = 0;   // a bit for each page in memory
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
  const uint64_t id_;  // unique in the process, also after this one is destroyed
  mutable Mutex mutex_;
  // Each Reader belongs to its thread; the mutex guards the map.
  std::unordered_map<std::thread::id, std::shared_ptr<Reader>> readers_ TIDEGATE_GUARDED_BY(mutex_);
};

}  // namespace tidegate::cache
