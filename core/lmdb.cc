// SPDX-License-Identifier: Apache-2.0
#include "core/lmdb.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "core/fd.h"
#include "core/lmdb_check.h"
#include "core/lmdb_damage.h"
#include "core/mutex.h"

namespace tidegate::lmdb {
namespace {

MDB_val to_val(std::string_view text) { return {text.size(), const_cast<char*>(text.data())}; }
std::string_view to_view(const MDB_val& value) { return {static_cast<const char*>(value.mv_data), value.mv_size}; }

// Marks an environment as garbled. Every transaction that would begin in it fails (look_at_file).
constexpr uint64_t kGarbledFile = UINT64_MAX;

// Keeps environments in which LMDB failed an assertion. They are not closed, and stay reachable for leak checkers.
void keep(MDB_env* env) {
  static Mutex mutex;
  static auto& kept = *new std::vector<MDB_env*>;  // never destroyed
  const MutexLock lock(mutex);
  kept.push_back(env);
}

bool is_damage(int rc) { return rc == kAssertionFailed || rc == kFaulted; }

Error describe(const char* what, int rc) {
  return fail(std::string("lmdb: ") + what + ": " + mdb_strerror(is_damage(rc) ? MDB_CORRUPTED : rc));
}

// LMDB makes a lock file of holes and writes to it through a map: on a full disk that would be a SIGBUS. So the file
// has its room before. It is opened only if it lacks room, because to close it drops the locks of an environment of
// this process that has it open.
Result<void> reserve_lock_file(const std::string& directory, const EnvOptions& options) {
  if ((options.flags & (MDB_NOLOCK | MDB_RDONLY)) != 0) return {};
  constexpr uint64_t kHeadBytes = 4'096, kReaderBytes = 64, kBlockBytes = 512;
  const std::string path = directory + "/lock.mdb";
  const uint64_t bytes = kHeadBytes + kReaderBytes * options.max_readers;
  struct stat now {};
  if (::stat(path.c_str(), &now) == 0 && static_cast<uint64_t>(now.st_blocks) * kBlockBytes >= bytes) return {};
  const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, options.file_mode));
  if (!fd || ::fallocate(fd.get(), FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(bytes)) == 0) return {};
  // Only a full disk is an Error here. Some file systems have no fallocate(2). LMDB itself reports any other fault.
  if (errno != ENOSPC && errno != EDQUOT) return {};
  return fail("lmdb: " + path + ": " + std::strerror(errno));
}

}  // namespace

Result<Env> Env::open(const std::string& directory, const EnvOptions& options) {
  if (Result<void> reserved = reserve_lock_file(directory, options); !reserved) return reserved.error();
  MDB_env* raw = nullptr;
  if (const int rc = mdb_env_create(&raw); rc != 0) return describe("create environment", rc);
  Env env(raw);
  mdb_env_set_mapsize(raw, options.map_bytes);
  mdb_env_set_maxdbs(raw, options.max_dbs);
  mdb_env_set_maxreaders(raw, options.max_readers);
  const int rc = mdb_env_open(raw, directory.c_str(), options.flags | MDB_NOTLS, options.file_mode);
  if (rc != 0) return fail("lmdb: open " + directory + ": " + mdb_strerror(rc));
  int dead = 0;
  mdb_reader_check(raw, &dead);
  env.file_->directory = directory;
  env.file_->expendable = options.expendable;
  mdb_env_set_userctx(raw, env.file_.get());
  watch(raw, directory, options.expendable);
  if (Result<void> there = look_at_file(raw); !there) return there.error();
  note_written(raw);
  return env;
}

void Env::abandon() {
  file_->bytes = kGarbledFile;
  tell_abandoned(get());
}

std::optional<MDB_envinfo> Env::info() const {
  MDB_envinfo info{};
  File& file = file_of(get());
  const int rc = guarded(file.expendable ? get() : nullptr, true, [&] { return mdb_env_info(get(), &info); });
  if (is_damage(rc)) file.bytes = kGarbledFile;
  if (rc != 0) return std::nullopt;
  return info;
}

void Env::Close::operator()(MDB_env* env) const {
  unwatch(env);
  const auto* const file = static_cast<const File*>(mdb_env_get_userctx(env));
  if (file != nullptr && file->bytes.load(std::memory_order_relaxed) == kGarbledFile) return keep(env);
  mdb_env_close(env);
}

Result<void> Env::look_at_file(MDB_env* env) {
  File& known = *static_cast<File*>(mdb_env_get_userctx(env));
  mdb_filehandle_t fd = -1;
  mdb_env_get_fd(env, &fd);
  uint64_t before = known.bytes.load(std::memory_order_relaxed);  // loaded before fstat, because a writer may be adding
  if (is_lock_lost(env)) {
    return fail("lmdb: " + known.directory + "/lock.mdb was cut off; every process that uses it must close it");
  }
  if (before == kGarbledFile) return fail("lmdb: " + known.directory + "/data.mdb is garbled");
  struct stat now {};
  if (::fstat(fd, &now) != 0) return fail("lmdb: " + known.directory + "/data.mdb: " + std::strerror(errno));
  const auto bytes = static_cast<uint64_t>(now.st_size);
  if (bytes < before) {
    return fail(fmt::format("lmdb: {}/data.mdb was cut off from {} to {} bytes", known.directory, before, bytes));
  }
  while (bytes > before && !known.bytes.compare_exchange_weak(before, bytes, std::memory_order_relaxed)) {
  }
  return {};
}

// LMDB changes pages in memory while it writes, and a garbled page could make it write past them. So a file that
// somebody else changed, or in which damage was met, is checked as a whole first.
Result<void> Env::check_before_write(MDB_env* env) {
  File& file = file_of(env);
  if (!file.expendable) return {};
  struct stat now {};
  mdb_filehandle_t fd = -1;
  mdb_env_get_fd(env, &fd);
  if (::fstat(fd, &now) != 0) return fail("lmdb: " + file.directory + "/data.mdb: " + std::strerror(errno));
  const bool is_ours = now.st_mtim.tv_sec == file.written_at.tv_sec && now.st_mtim.tv_nsec == file.written_at.tv_nsec;
  if (!file.is_suspect.exchange(false) && is_ours) return {};
  if (Result<void> sound = check(file.directory); !sound) {
    file.bytes = kGarbledFile;
    tell_abandoned(env);
    return sound;
  }
  file.written_at = now.st_mtim;  // as it was before the check: a later change is checked again
  return {};
}

void Env::note_written(MDB_env* env) {
  struct stat now {};
  mdb_filehandle_t fd = -1;
  mdb_env_get_fd(env, &fd);
  if (::fstat(fd, &now) == 0) file_of(env).written_at = now.st_mtim;
}

// Runs a call of LMDB. In an expendable environment a fault is a return code.
template <class Call>
int Txn::run(Call&& call) const {
  if (txn_ == nullptr) return MDB_BAD_TXN;  // the transaction was lost
  MDB_env* const env = mdb_txn_env(txn_);
  const Env::File& file = Env::file_of(env);
  if (file.bytes.load(std::memory_order_relaxed) == kGarbledFile) return kFaulted;
  return guarded(file.expendable ? env : nullptr, access_ == Access::read, std::forward<Call>(call));
}

Result<Txn> Txn::begin(const Env& env, Access access) {
  if (Result<void> whole = Env::look_at_file(env.get()); !whole) return whole.error();
  if (access == Access::write) {
    if (Result<void> sound = Env::check_before_write(env.get()); !sound) return sound.error();
  }
  MDB_txn* txn = nullptr;
  Env::File& file = Env::file_of(env.get());
  const int rc = guarded(file.expendable ? env.get() : nullptr, access == Access::read, [&] {
    return mdb_txn_begin(env.get(), nullptr, access == Access::read ? MDB_RDONLY : 0, &txn);
  });
  if (is_damage(rc)) file.bytes = kGarbledFile;
  // LMDB identifies readers by process id and locks one byte for each: EAGAIN means that another process has our id.
  if (rc == EAGAIN && access == Access::read) {
    return fail(
        fmt::format("lmdb: another process with the process id {} reads it: processes that share an environment "
                    "must share a PID namespace (containers: a common --pid)",
                    ::getpid()));
  }
  if (rc != 0) return describe("begin transaction", rc);
  Txn begun(txn, access);
  if (is_lock_lost(env.get())) {
    if (Result<void> whole = Env::look_at_file(env.get()); !whole) return whole.error();
  }
  return begun;
}

Txn& Txn::operator=(Txn&& other) noexcept {
  if (this != &other) {
    abort();
    txn_ = std::exchange(other.txn_, nullptr);
    access_ = other.access_;
    damage_ = other.damage_;
  }
  return *this;
}

// LMDB was changing something, so its objects are left as they are.
void Txn::lose(int rc) {
  (void)found(rc);
  if (access_ == Access::write) txn_ = nullptr;
}

std::optional<std::string> Txn::copy_of(std::string_view value, size_t max_bytes) const {
  if (value.size() > max_bytes && !found(MDB_CORRUPTED)) return std::nullopt;
  std::string out(value.size(), '\0');
  if (!copy(value, out.data())) return std::nullopt;
  return out;
}

std::optional<std::string> Txn::get_copy(MDB_dbi db, std::string_view key, size_t max_bytes) const {
  const auto value = get(db, key);
  return value ? copy_of(*value, max_bytes) : std::nullopt;
}

Result<void> Txn::clear(MDB_dbi db) {
  const int rc = run([&] { return mdb_drop(txn_, db, 0); });
  if (is_damage(rc)) lose(rc);
  if (rc != 0) return describe("drop", rc);
  return {};
}

bool Txn::copy(std::string_view value, char* out) const {
  return found(run([&] {
    std::memcpy(out, value.data(), value.size());
    return MDB_SUCCESS;
  }));
}

bool Txn::is_latest() const {
  MDB_envinfo info{};
  const int rc = run([&] { return mdb_env_info(mdb_txn_env(txn_), &info); });
  return found(rc) && info.me_last_txnid == mdb_txn_id(txn_);
}

bool Txn::found(int rc) const {
  if (is_damage(rc)) Env::file_of(mdb_txn_env(txn_)).bytes = kGarbledFile;  // it is not used any more
  // MDB_BAD_VALSIZE: the key is not valid, so it cannot be present.
  const bool answered = rc == MDB_SUCCESS || rc == MDB_NOTFOUND || rc == MDB_BAD_VALSIZE;
  if (!answered && txn_ != nullptr) Env::file_of(mdb_txn_env(txn_)).is_suspect = true;
  if (!answered && damage_ == MDB_SUCCESS) damage_ = rc;
  return rc == MDB_SUCCESS;
}

Result<void> Txn::sound() const {
  return damage_ == MDB_SUCCESS ? Result<void>() : Result<void>(describe("damaged file", damage_));
}

Result<void> Txn::commit() {
  if (Result<void> met = sound(); !met) {
    abort();
    return met;
  }
  MDB_env* const env = mdb_txn_env(txn_);
  const int rc = run([this] { return mdb_txn_commit(txn_); });
  if (is_damage(rc)) Env::file_of(env).bytes = kGarbledFile;
  txn_ = nullptr;
  if (access_ == Access::write) Env::note_written(env);
  if (rc != 0) return describe("commit", rc);
  return {};
}

void Txn::abort() {
  if (txn_ == nullptr) return;
  MDB_env* const env = mdb_txn_env(txn_);
  mdb_txn_abort(std::exchange(txn_, nullptr));
  if (access_ == Access::write) Env::note_written(env);  // a large transaction writes pages before it ends
}

Result<void> Txn::renew() {
  if (Result<void> whole = Env::look_at_file(mdb_txn_env(txn_)); !whole) return whole;
  return renew_unlooked();
}

Result<void> Txn::renew_unlooked() {
  if (is_lock_lost(mdb_txn_env(txn_))) return Env::look_at_file(mdb_txn_env(txn_));
  const int rc = run([this] { return mdb_txn_renew(txn_); });
  if (is_damage(rc)) (void)found(rc);
  if (rc != 0) return describe("renew", rc);
  damage_ = MDB_SUCCESS;
  return {};
}

Result<MDB_dbi> Txn::open_db(const char* name, unsigned flags) {
  MDB_dbi db = 0;
  // Reads the database's record first: mdb_dbi_open() holds allocated memory while it reads the record, and a fault
  // would leak it.
  const int rc = run([&] {
    if (name != nullptr && Env::file_of(mdb_txn_env(txn_)).expendable) {
      MDB_val k = to_val(name), v{};
      std::array<char, 256> record;
      MDB_dbi all = 0;
      int read = mdb_dbi_open(txn_, nullptr, 0, &all);
      if (read == MDB_SUCCESS) read = mdb_get(txn_, all, &k, &v);
      if (read != MDB_SUCCESS && read != MDB_NOTFOUND) return read;
      if (read == MDB_SUCCESS) std::memcpy(record.data(), v.mv_data, std::min(v.mv_size, record.size()));
    }
    return mdb_dbi_open(txn_, name, flags, &db);
  });
  if (is_damage(rc)) lose(rc);
  if (rc != 0) return describe(name != nullptr ? name : "open the main database", rc);
  return db;
}

std::optional<std::string_view> Txn::get(MDB_dbi db, std::string_view key) const {
  MDB_val k = to_val(key), v{};
  if (!found(run([&] { return mdb_get(txn_, db, &k, &v); }))) return std::nullopt;
  return to_view(v);
}

Result<void> Txn::put(MDB_dbi db, std::string_view key, std::string_view value, unsigned flags) {
  MDB_val k = to_val(key), v = to_val(value);
  const int rc = run([&] { return mdb_put(txn_, db, &k, &v, flags); });
  // The interrupted transaction is neither committed nor aborted.
  if (is_damage(rc)) lose(rc);
  if (rc != 0) return describe("put", rc);
  return {};
}

Result<char*> Txn::reserve(MDB_dbi db, std::string_view key, size_t bytes, unsigned flags) {
  MDB_val k = to_val(key), v{bytes, nullptr};
  const int rc = run([&] { return mdb_put(txn_, db, &k, &v, flags | MDB_RESERVE); });
  // The interrupted transaction is neither committed nor aborted.
  if (is_damage(rc)) lose(rc);
  if (rc != 0) return describe("reserve", rc);
  return static_cast<char*>(v.mv_data);
}

Result<bool> Txn::erase(MDB_dbi db, std::string_view key) {
  MDB_val k = to_val(key);
  const int rc = run([&] { return mdb_del(txn_, db, &k, nullptr); });
  // The interrupted transaction is neither committed nor aborted.
  if (is_damage(rc)) lose(rc);
  if (rc == MDB_NOTFOUND) return false;
  if (rc != 0) return describe("delete", rc);
  return true;
}

size_t Txn::entries(MDB_dbi db) const {
  MDB_stat stat{};
  return found(run([&] { return mdb_stat(txn_, db, &stat); })) ? stat.ms_entries : 0;
}

// Without a cursor (the transaction met damage before) there is nothing to iterate over.
Cursor::Cursor(const Txn& txn, MDB_dbi db) : txn_(txn) {
  if (!txn_.found(txn_.run([&] { return mdb_cursor_open(txn.get(), db, &cursor_); }))) cursor_ = nullptr;
}

Cursor::~Cursor() {
  if (cursor_ != nullptr) mdb_cursor_close(cursor_);
}

bool Cursor::seek(std::string_view key) { return move(MDB_SET_RANGE, key); }

// The key is copied while a fault is still an Error.
bool Cursor::move(MDB_cursor_op op, std::string_view from) {
  MDB_val k = to_val(from), v{};
  if (cursor_ == nullptr) return false;
  const int rc = txn_.run([&] {
    const int moved = mdb_cursor_get(cursor_, &k, &v, op);
    if (moved != MDB_SUCCESS) return moved;
    if (k.mv_size > kMaxKeyBytes) return MDB_CORRUPTED;
    std::memcpy(key_space_.data(), k.mv_data, k.mv_size);
    return MDB_SUCCESS;
  });
  if (!txn_.found(rc)) return false;
  key_ = {key_space_.data(), k.mv_size};
  value_ = to_view(v);
  return true;
}

std::string be64(uint64_t value) {
  std::string out(8, '\0');
  for (int i = 7; i >= 0; --i, value >>= 8) out[static_cast<size_t>(i)] = static_cast<char>(value & 0xff);
  return out;
}

uint64_t be64(std::string_view eight_bytes) {
  assert(eight_bytes.size() == 8);
  uint64_t value = 0;
  for (const char c : eight_bytes) value = value << 8 | static_cast<uint8_t>(c);
  return value;
}

}  // namespace tidegate::lmdb
