// SPDX-License-Identifier: Apache-2.0
// RAII over LMDB. A process opens an environment once and never uses it across a fork. A transaction must be short:
// copy the data out, and end it before anything slow. A long reader prevents the reuse of pages, so the file grows.
#pragma once

#include <lmdb.h>
#include <time.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/result.h"

namespace tidegate::lmdb {

constexpr size_t kMaxKeyBytes = 511;  // LMDB's own limit

struct EnvOptions {
  size_t map_bytes = size_t{1} << 30;
  unsigned max_dbs = 16;
  unsigned max_readers = 126;
  unsigned flags = 0;  // MDB_RDONLY, MDB_NOMETASYNC, ... (MDB_NOTLS is always added)
  unsigned file_mode = 0640;
  // The process can do without this environment (a cache). Damage is an Error then and never ends the process. A writer
  // checks the file before it writes if anybody else changed it, or if a reader met damage (core/lmdb_check.h).
  bool expendable = false;
};

enum class Access { read, write };

class Env {
 public:
  // `directory` must exist. Readers of dead processes are cleared. Errors name the directory and the reason, also for a
  // damaged environment. core/lmdb_damage.h handles damage that happens later. If the file was cut off, every
  // transaction that would begin returns an Error.
  static Result<Env> open(const std::string& directory, const EnvOptions& options);
  Env(Env&&) noexcept = default;
  Env& operator=(Env&& other) noexcept {  // the old one is closed before its File goes
    std::swap(file_, other.file_);
    std::swap(env_, other.env_);
    return *this;
  }
  MDB_env* get() const { return env_.get(); }
  // Returns nothing if the file cannot be read.
  std::optional<MDB_envinfo> info() const;
  // From now on every transaction that would begin is an Error.
  void abandon();

 private:
  // LMDB's file only grows. A file that is shorter than before was cut off, and reading it would raise SIGBUS.
  struct File {
    std::string directory;
    std::atomic<uint64_t> bytes{0};  // at the last check
    bool expendable = false;
    std::atomic<bool> is_suspect{false};  // a reader met damage; the next writer checks the file
    timespec written_at{};                // the file's time after our last write; for the writer alone
  };
  struct Close {
    void operator()(MDB_env* env) const;
  };
  friend class Txn;
  static File& file_of(MDB_env* env) { return *static_cast<File*>(mdb_env_get_userctx(env)); }
  static Result<void> look_at_file(MDB_env* env);
  static Result<void> check_before_write(MDB_env* env);
  static void note_written(MDB_env* env);
  explicit Env(MDB_env* env) : env_(env) {}
  std::unique_ptr<File> file_ = std::make_unique<File>();  // outlives env_, because it is env_'s user context
  std::unique_ptr<MDB_env, Close> env_;
};

// Aborts unless committed. Use it from one thread at a time. A write transaction blocks until it is the only one.
class Txn {
 public:
  static Result<Txn> begin(const Env& env, Access access);
  Txn(Txn&& other) noexcept
      : txn_(std::exchange(other.txn_, nullptr)), access_(other.access_), damage_(other.damage_) {}
  Txn& operator=(Txn&& other) noexcept;
  ~Txn() { abort(); }

  Result<void> commit();  // MDB_MAP_FULL, ENOSPC, EIO and !sound() are returned as errors; then nothing was changed
  void abort();
  // For readers on hot paths: releases the snapshot and takes a new one later without allocation.
  void reset() { mdb_txn_reset(txn_); }
  Result<void> renew();
  Result<void> renew_unlooked();  // use it if the file's size was checked in the same turn of a loop

  Result<MDB_dbi> open_db(const char* name, unsigned flags = 0);  // MDB_CREATE, MDB_INTEGERKEY, ...
  // The view is valid until the next write in this transaction or until its end.
  std::optional<std::string_view> get(MDB_dbi db, std::string_view key) const;
  // A copy, as an expendable environment needs it. A value of more than `max_bytes` is damage.
  std::optional<std::string> get_copy(MDB_dbi db, std::string_view key, size_t max_bytes) const;
  Result<void> put(MDB_dbi db, std::string_view key, std::string_view value, unsigned flags = 0);
  // Reserves space. The caller must fill it before the next write.
  Result<char*> reserve(MDB_dbi db, std::string_view key, size_t bytes, unsigned flags = 0);
  Result<void> clear(MDB_dbi db);                        // erases all of its entries
  Result<bool> erase(MDB_dbi db, std::string_view key);  // false: there was no such key
  size_t entries(MDB_dbi db) const;
  // Copies bytes that get() or a cursor gave. False: they cannot be read, and sound() is an Error then. In an
  // expendable environment, read values in this way only: a plain read could fault.
  bool copy(std::string_view value, char* out) const;
  // True if nothing was committed after this snapshot.
  bool is_latest() const;
  // Returns an Error once get() or a cursor met damage: entries that they did not find may still exist.
  Result<void> sound() const;
  MDB_txn* get() const { return txn_; }

 private:
  friend class Cursor;
  Txn(MDB_txn* txn, Access access) : txn_(txn), access_(access) {}
  template <class Call>
  int run(Call&& call) const;
  std::optional<std::string> copy_of(std::string_view value, size_t max_bytes) const;
  void lose(int rc);
  bool found(int rc) const;  // remembers any return code other than found or absent
  MDB_txn* txn_ = nullptr;
  Access access_ = Access::read;
  mutable int damage_ = MDB_SUCCESS;
};

// Iterates in key order. It must not outlive its transaction, and the transaction must not move meanwhile. Damage ends
// the iteration; the transaction remembers it.
class Cursor {
 public:
  Cursor(const Txn& txn, MDB_dbi db);
  ~Cursor();
  Cursor(const Cursor&) = delete;
  Cursor& operator=(const Cursor&) = delete;

  bool first() { return move(MDB_FIRST); }
  bool last() { return move(MDB_LAST); }
  bool next() { return move(MDB_NEXT); }
  bool previous() { return move(MDB_PREV); }
  bool seek(std::string_view key);               // moves to the first entry at or after key
  std::string_view key() const { return key_; }  // a copy
  std::string_view value() const { return value_; }
  std::optional<std::string> value_copy(size_t max_bytes) const { return txn_.copy_of(value_, max_bytes); }

 private:
  bool move(MDB_cursor_op op, std::string_view from = {});
  const Txn& txn_;
  MDB_cursor* cursor_ = nullptr;
  static constexpr size_t kMaxKeyBytes = 511;  // LMDB's own bound
  std::array<char, kMaxKeyBytes> key_space_;
  std::string_view key_, value_;
};

// Big-endian, because then integer keys sort by value.
std::string be64(uint64_t value);
uint64_t be64(std::string_view eight_bytes);

}  // namespace tidegate::lmdb
