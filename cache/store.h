// SPDX-License-Identifier: Apache-2.0
// Store: the LMDB environment of the disk tier (layout: format.h). It opens, repairs and reads; writing is the Writer's
// alone.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cache/format.h"
#include "conf/state_store.h"
#include "core/fd.h"
#include "core/lmdb.h"
#include "core/result.h"

namespace tidegate::cache {

// What the sys records say at start.
struct StoreHeader {
  HashKeys keys;
  uint64_t generation = 1;  // every committed generation is smaller
  PurgePosition purge;      // the last one applied
  uint64_t all_hard = 0, all_soft = 0;
  std::vector<std::pair<uint64_t, std::pair<uint64_t, uint64_t>>> tags;  // hash -> hard, soft epoch
};

class Store {
 public:
  // Opens or creates, and keeps the directory locked: one process at a time uses it. An environment that cannot be used
  // (damaged, of another format, or the last starts died while reading it) is set aside in `<directory>/set-aside` and
  // a new one made, with a log line. That copy is the only one, and goes with the next start. Errors: another process
  // uses the directory; not even a new environment was possible.
  static Result<std::unique_ptr<Store>> open(const std::string& directory, uint64_t disk_bytes);
  ~Store();

  const StoreHeader& header() const { return header_; }
  const lmdb::Env& env() const { return env_; }
  uint64_t map_bytes() const { return map_bytes_; }
  // What the file may grow to: the map, or less where its file system has no more room but a reserve.
  uint64_t room_bytes() const;
  MDB_dbi meta_db() const { return meta_; }
  MDB_dbi chunk_db() const { return chunk_; }
  MDB_dbi tag_db() const { return tag_; }
  MDB_dbi sys_db() const { return sys_; }

  // What was erased or purged could not be noted: the next start sets the environment aside.
  void distrust() const;

  // The index has been read: from here on a crash is not the environment's fault.
  void mark_loaded();

  // The record with its head, whole. Nothing: absent, or damaged (`damaged` says which). Any thread with its own
  // transaction.
  std::optional<Meta> read_meta(const lmdb::Txn& txn, const KeyHash& key, uint64_t variant, bool& damaged) const;
  // A copy of a chunk value's body bytes; nothing: damaged.
  static std::optional<Slice> copy_chunk(const ChunkName& name, std::string_view value);
  // The same of one chunk by its name; nothing: absent or damaged.
  std::optional<Slice> read_chunk(const lmdb::Txn& txn, const ChunkName& name) const;

 private:
  Store(lmdb::Env env, std::string directory, uint64_t map_bytes);
  static Result<std::unique_ptr<Store>> open_locked(const std::string& directory, uint64_t disk_bytes);
  static Result<std::unique_ptr<Store>> try_open(const std::string& directory, uint64_t disk_bytes);
  Result<void> prepare();
  Result<void> read_header();

  UniqueFd lock_;  // of the directory; let go last
  lmdb::Env env_;
  std::string directory_;
  uint64_t map_bytes_;
  MDB_dbi meta_ = 0, chunk_ = 0, tag_ = 0, sys_ = 0;
  StoreHeader header_;
};

}  // namespace tidegate::cache
