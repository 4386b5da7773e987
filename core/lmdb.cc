// SPDX-License-Identifier: Apache-2.0
#include "core/lmdb.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "core/lmdb_damage.h"

namespace tidegate::lmdb {
namespace {

MDB_val to_val(std::string_view text) { return {text.size(), const_cast<char*>(text.data())}; }
std::string_view to_view(const MDB_val& value) { return {static_cast<const char*>(value.mv_data), value.mv_size}; }

// Marks an environment as garbled. Every transaction that would begin in it fails (look_at_file).
constexpr uint64_t kGarbledFile = UINT64_MAX;
// An error code of our own, beside LMDB's: LMDB failed an assertion.
constexpr int kAssertionFailed = -30'000;

// Keeps environments in which LMDB failed an assertion. They are not closed, and stay reachable for leak checkers.
void keep(MDB_env* env) {
  static std::mutex mutex;
  static auto& kept = *new std::vector<MDB_env*>;  // never destroyed
  const std::lock_guard lock(mutex);
  kept.push_back(env);
}

// Calls LMDB so that a failed assertion becomes a return code.
template <class Call>
int survive(Call&& call) {
  try {
    const Survivor survivor;
    return call();
  } catch (const Garbled&) {
    return kAssertionFailed;
  }
}

Error describe(const char* what, int rc) {
  return fail(std::string("lmdb: ") + what + ": " + mdb_strerror(rc == kAssertionFailed ? MDB_CORRUPTED : rc));
}

}  // namespace

Result<Env> Env::open(const std::string& directory, const EnvOptions& options) {
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
  mdb_env_set_userctx(raw, env.file_.get());
  watch(raw, directory);
  if (Result<void> there = look_at_file(raw); !there) return there.error();
  return env;
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

Result<Txn> Txn::begin(const Env& env, Access access) {
  if (Result<void> whole = Env::look_at_file(env.get()); !whole) return whole.error();
  MDB_txn* txn = nullptr;
  const int rc = mdb_txn_begin(env.get(), nullptr, access == Access::read ? MDB_RDONLY : 0, &txn);
  // LMDB identifies readers by process id and locks one byte for each: EAGAIN means that another process has our id.
  if (rc == EAGAIN && access == Access::read) {
    return fail(
        fmt::format("lmdb: another process with the process id {} reads it: processes that share an environment "
                    "must share a PID namespace (containers: a common --pid)",
                    ::getpid()));
  }
  if (rc != 0) return describe("begin transaction", rc);
  return Txn(txn);
}

Txn& Txn::operator=(Txn&& other) noexcept {
  if (this != &other) {
    abort();
    txn_ = std::exchange(other.txn_, nullptr);
    damage_ = other.damage_;
  }
  return *this;
}

bool Txn::found(int rc) const {
  // A failed assertion: this environment is not used any more.
  if (rc == kAssertionFailed) static_cast<Env::File*>(mdb_env_get_userctx(mdb_txn_env(txn_)))->bytes = kGarbledFile;
  // MDB_BAD_VALSIZE: the key is not valid, so it cannot be present.
  const bool answered = rc == MDB_SUCCESS || rc == MDB_NOTFOUND || rc == MDB_BAD_VALSIZE;
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
  const int rc = survive([this] { return mdb_txn_commit(txn_); });
  (void)found(rc);
  txn_ = nullptr;
  if (rc != 0) return describe("commit", rc);
  return {};
}

void Txn::abort() {
  if (txn_ != nullptr) mdb_txn_abort(std::exchange(txn_, nullptr));
}

Result<void> Txn::renew() {
  if (Result<void> whole = Env::look_at_file(mdb_txn_env(txn_)); !whole) return whole;
  return renew_unlooked();
}

Result<void> Txn::renew_unlooked() {
  if (const int rc = mdb_txn_renew(txn_); rc != 0) return describe("renew", rc);
  damage_ = MDB_SUCCESS;
  return {};
}

Result<MDB_dbi> Txn::open_db(const char* name, unsigned flags) {
  MDB_dbi db = 0;
  if (const int rc = mdb_dbi_open(txn_, name, flags, &db); rc != 0)
    return describe(name != nullptr ? name : "open the main database", rc);
  return db;
}

std::optional<std::string_view> Txn::get(MDB_dbi db, std::string_view key) const {
  MDB_val k = to_val(key), v{};
  if (!found(survive([&] { return mdb_get(txn_, db, &k, &v); }))) return std::nullopt;
  return to_view(v);
}

Result<void> Txn::put(MDB_dbi db, std::string_view key, std::string_view value, unsigned flags) {
  MDB_val k = to_val(key), v = to_val(value);
  const int rc = survive([&] { return mdb_put(txn_, db, &k, &v, flags); });
  // The interrupted transaction is neither committed nor aborted.
  if (rc == kAssertionFailed && !found(rc)) txn_ = nullptr;
  if (rc != 0) return describe("put", rc);
  return {};
}

Result<char*> Txn::reserve(MDB_dbi db, std::string_view key, size_t bytes, unsigned flags) {
  MDB_val k = to_val(key), v{bytes, nullptr};
  const int rc = survive([&] { return mdb_put(txn_, db, &k, &v, flags | MDB_RESERVE); });
  // The interrupted transaction is neither committed nor aborted.
  if (rc == kAssertionFailed && !found(rc)) txn_ = nullptr;
  if (rc != 0) return describe("reserve", rc);
  return static_cast<char*>(v.mv_data);
}

Result<bool> Txn::erase(MDB_dbi db, std::string_view key) {
  MDB_val k = to_val(key);
  const int rc = survive([&] { return mdb_del(txn_, db, &k, nullptr); });
  // The interrupted transaction is neither committed nor aborted.
  if (rc == kAssertionFailed && !found(rc)) txn_ = nullptr;
  if (rc == MDB_NOTFOUND) return false;
  if (rc != 0) return describe("delete", rc);
  return true;
}

size_t Txn::entries(MDB_dbi db) const {
  MDB_stat stat{};
  mdb_stat(txn_, db, &stat);
  return stat.ms_entries;
}

// Without a cursor (the transaction met damage before) there is nothing to iterate over.
Cursor::Cursor(const Txn& txn, MDB_dbi db) : txn_(txn) {
  if (!txn_.found(mdb_cursor_open(txn.get(), db, &cursor_))) cursor_ = nullptr;
}

Cursor::~Cursor() {
  if (cursor_ != nullptr) mdb_cursor_close(cursor_);
}

bool Cursor::seek(std::string_view key) {
  MDB_val k = to_val(key), v{};
  if (cursor_ == nullptr || !txn_.found(survive([&] { return mdb_cursor_get(cursor_, &k, &v, MDB_SET_RANGE); })))
    return false;
  key_ = to_view(k);
  value_ = to_view(v);
  return true;
}

bool Cursor::move(MDB_cursor_op op) {
  MDB_val k{}, v{};
  if (cursor_ == nullptr || !txn_.found(survive([&] { return mdb_cursor_get(cursor_, &k, &v, op); }))) return false;
  key_ = to_view(k);
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
