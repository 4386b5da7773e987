// SPDX-License-Identifier: Apache-2.0
// Store: the LMDB environment of the disk tier (layout: format.h). It opens, repairs and reads. Only the Writer writes.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cache/disk/format.h"
#include "conf/state_store.h"
#include "core/fd.h"
#include "core/lmdb.h"
#include "core/result.h"

namespace tidegate::cache {

// Names the layout. An environment with another layout is set aside.
constexpr std::string_view kStoreFormat = "tidegate-cache 2";

// The content of the sys records at the start.
struct StoreHeader {
  HashKeys keys;
  uint64_t generation = 1;  // every committed generation is smaller
  PurgePosition purge;      // the last one applied
  uint64_t all_hard = 0, all_soft = 0;
  std::vector<std::pair<uint64_t, std::pair<uint64_t, uint64_t>>> tags;  // hash -> hard, soft epoch
};

class Store {
 public:
  // Opens or creates the environment and keeps the directory locked, so that one process at a time uses it. An
  // environment that cannot be used (damaged, of another format, or the last starts died while reading it) is moved to
  // `<directory>/set-aside`, and a new one is made; a log line says so. There is only one such copy, and the next start
  // removes it. The time of open() does not grow with the file. Errors: another process uses the directory; or a new
  // environment could not be made. `lock` is the directory's lock from the process that released it; if it is empty,
  // the lock is taken here.
  static Result<std::unique_ptr<Store>> open(const std::string& directory, uint64_t disk_bytes, UniqueFd lock = {});
  ~Store();

  const StoreHeader& header() const { return header_; }
  const lmdb::Env& env() const { return env_; }
  const std::string& directory() const { return directory_; }
  uint64_t map_bytes() const { return map_bytes_; }
  // The largest size of the file: the size of the map, or less if its file system has less room, minus a reserve.
  uint64_t room_bytes() const;
  MDB_dbi meta_db() const { return meta_; }
  MDB_dbi chunk_db() const { return chunk_; }
  MDB_dbi tag_db() const { return tag_; }
  MDB_dbi sys_db() const { return sys_; }

  // Called when erasures or purges could not be written. The next start sets the environment aside.
  void distrust() const;

  // Stops writing, because another process opens the directory. Returns the lock, which both processes hold then: the
  // kernel releases it when both have ended. Call it after the last transaction, on its thread.
  UniqueFd let_go();
  // Takes the environment back: the other process has ended without serving. The other process may have committed
  // generations, so returns a bound above every committed one. If the file at the path is no longer the file of this
  // environment, or cannot be read, returns an Error, and nothing is written. Call it on the thread of let_go().
  Result<uint64_t> take_back();

  // The last process did not end in order. Call check() before anything else is read or written.
  bool must_check() const { return must_check_; }
  // Reads the whole tree. After an Error, call start_anew().
  Result<void> check();
  // Sets the environment aside and makes an empty one with the same hash keys. Nobody else may use this store
  // meanwhile. After an Error there is no environment, and every transaction fails.
  Result<void> start_anew(const std::string& why, uint64_t generation, const PurgePosition& purge);
  Result<void> put_progress(lmdb::Txn& txn, uint64_t generation, const PurgePosition& purge) const;

  // The index has been read. A later crash does not make the environment suspect.
  void mark_loaded();

  // The record with its head. Nothing if it is absent, or damaged (then `damaged` is set). Any thread, with its own
  // transaction.
  std::optional<Meta> read_meta(const lmdb::Txn& txn, const KeyHash& key, uint64_t variant, bool& damaged) const;
  // A copy of the body bytes in a chunk value. Nothing if it is damaged or cannot be read.
  static std::optional<Slice> copy_chunk(const lmdb::Txn& txn, const ChunkName& name, std::string_view value);
  // The record that get() or a cursor gave, without a head that lies apart. Nothing if it is damaged or cannot be read.
  static std::optional<Meta> copy_meta(const lmdb::Txn& txn, std::string_view name, std::string_view record);
  // A copy of the body bytes of the named chunk. Nothing if it is absent or damaged.
  std::optional<Slice> read_chunk(const lmdb::Txn& txn, const ChunkName& name) const;

 private:
  Store(lmdb::Env env, std::string directory, uint64_t disk_bytes);
  static Result<std::unique_ptr<Store>> open_locked(const std::string& directory, uint64_t disk_bytes);
  static Result<std::unique_ptr<Store>> try_open(const std::string& directory, uint64_t disk_bytes);
  static Result<lmdb::Env> open_environment(const std::string& directory, uint64_t disk_bytes);
  Result<void> prepare();
  Result<void> create();
  void note_closed() const;
  Result<void> open_databases(lmdb::Txn& txn, unsigned flags);
  Result<bool> read_header();

  UniqueFd lock_;  // lock of the directory; released last
  lmdb::Env env_;
  std::string directory_;
  uint64_t disk_bytes_;  // the configured size
  uint64_t map_bytes_;   // the size that the environment has
  bool must_check_ = false;
  bool let_go_ = false;  // another process uses the directory
  MDB_dbi meta_ = 0, chunk_ = 0, tag_ = 0, sys_ = 0;
  StoreHeader header_;
};

}  // namespace tidegate::cache
