// SPDX-License-Identifier: Apache-2.0
#include "conf/state_migration.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>
#include <vector>

#include "conf/state_folder.h"
#include "conf/state_store_impl.h"
#include "core/lmdb.h"
#include "core/log.h"

namespace tidegate {
namespace {

namespace fs = std::filesystem;

Error system_error(const std::string& what) { return fail(fmt::format("{}: {}", what, std::strerror(errno))); }

// Makes a directory with the mode and the group of the old one.
Result<void> make_directory_like(const std::string& path, const std::string& old) {
  struct stat was {};
  if (::stat(old.c_str(), &was) != 0) return system_error("cannot read " + old);
  if (::mkdir(path.c_str(), 0700) != 0) return system_error("cannot create " + path);
  // A user who may not give it away keeps the group that the state directory gives it.
  [[maybe_unused]] const int ignored = ::chown(path.c_str(), static_cast<uid_t>(-1), was.st_gid);
  if (::chmod(path.c_str(), was.st_mode & 07777) != 0) return system_error("cannot change the mode of " + path);
  return {};
}

Result<std::vector<std::string>> database_names(const lmdb::Env& env) {
  Result<lmdb::Txn> txn = lmdb::Txn::begin(env, lmdb::Access::read);
  if (!txn) return txn.error();
  const Result<MDB_dbi> main = txn->open_db(nullptr);
  if (!main) return main.error();
  std::vector<std::string> names;
  lmdb::Cursor cursor(*txn, *main);
  for (bool more = cursor.first(); more; more = cursor.next()) names.emplace_back(cursor.key());
  if (Result<void> sound = txn->sound(); !sound) return sound.error();
  return names;
}

// One copy in progress: the source, the target, and the keys that were left out.
class StateCopy {
 public:
  StateCopy(lmdb::Txn from, lmdb::Txn to) : from_(std::move(from)), to_(std::move(to)) {}

  Result<void> copy(const std::string& name) {
    const Result<MDB_dbi> source = from_.open_db(name.c_str());
    if (!source) return source.error();
    const Result<MDB_dbi> target = to_.open_db(name.c_str(), MDB_CREATE);
    if (!target) return target.error();
    lmdb::Cursor cursor(from_, *source);
    for (bool more = cursor.first(); more; more = cursor.next()) {
      if (name == kObjectDb && holds_private_key(cursor.value())) {
        keys_.emplace_back(cursor.key(), cursor.value());
        continue;
      }
      if (Result<void> put = to_.put(*target, cursor.key(), cursor.value(), MDB_APPEND); !put) return put;
    }
    return from_.sound();
  }

  // Writes which objects are secrets, and the format.
  Result<void> finish(SecretStore& secrets) {
    const Result<MDB_dbi> marks = to_.open_db(kSecretDb, MDB_CREATE);
    if (!marks) return marks.error();
    for (const auto& [raw_hash, bytes] : keys_) {
      if (Result<void> put = to_.put(*marks, raw_hash, ""); !put) return put;
    }
    const Result<MDB_dbi> sys = to_.open_db(kSysDb, MDB_CREATE);
    if (!sys) return sys.error();
    if (Result<void> put = to_.put(*sys, kFormatKey, lmdb::be64(kStateFormat)); !put) return put;
    if (!keys_.empty()) {
      if (Result<void> added = secrets.add(keys_); !added) return added;
    }
    return to_.commit();
  }

  size_t keys() const { return keys_.size(); }

 private:
  lmdb::Txn from_, to_;
  std::vector<std::pair<std::string, std::string>> keys_;
};

Result<size_t> copy_without_keys(const std::string& from_dir, const std::string& to_dir, SecretStore& secrets) {
  lmdb::EnvOptions options;
  options.map_bytes = kStateMapBytes;
  options.file_mode = kStateDataMode;
  const Result<lmdb::Env> from = lmdb::Env::open(from_dir, options);
  if (!from) return from.error();
  const Result<std::vector<std::string>> names = database_names(*from);
  if (!names) return names.error();
  const Result<lmdb::Env> to = lmdb::Env::open(to_dir, options);
  if (!to) return to.error();
  Result<lmdb::Txn> read = lmdb::Txn::begin(*from, lmdb::Access::read);
  if (!read) return read.error();
  Result<lmdb::Txn> write = lmdb::Txn::begin(*to, lmdb::Access::write);
  if (!write) return write.error();
  StateCopy copy(*std::move(read), *std::move(write));
  for (const std::string& name : *names) {
    if (Result<void> copied = copy.copy(name); !copied) return copied.error();
  }
  if (Result<void> finished = copy.finish(secrets); !finished) return finished.error();
  return copy.keys();
}

// Earlier releases left such copies as readable as the state was: state.damaged, state.before-restore-*.
void close_copies_put_aside(const std::string& state_dir) {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(state_dir, error)) {
    const std::string name = entry.path().filename().string();
    if (name == "state.damaged" || name.starts_with("state.before-restore-")) ::chmod(entry.path().c_str(), 0700);
  }
}

std::string next_directory(const std::string& state_dir) { return state_dir + "/state.next"; }

}  // namespace

void remove_migration_leftovers(const std::string& state_dir) {
  std::error_code error;
  fs::remove_all(next_directory(state_dir), error);
}

Result<UniqueFd> migrate_state(const std::string& state_dir, SecretStore& secrets) {
  const std::string old = state_dir + "/state", next = next_directory(state_dir);
  remove_migration_leftovers(state_dir);
  if (Result<void> made = make_directory_like(next, old); !made) return made.error();
  const Result<size_t> keys = copy_without_keys(old, next, secrets);
  if (!keys) return fail(fmt::format("cannot copy the state to {}: {}", next, keys.error().message));
  Result<UniqueFd> lock = lock_state_writer(next);
  if (!lock) return lock;
  if (Result<void> synced = sync_folder(next); !synced) return synced.error();
  if (::renameat2(AT_FDCWD, next.c_str(), AT_FDCWD, old.c_str(), RENAME_EXCHANGE) != 0) {
    return system_error(fmt::format("cannot exchange {} and {}", old, next));
  }
  if (Result<void> synced = sync_folder(state_dir); !synced) return synced.error();
  remove_migration_leftovers(state_dir);
  close_copies_put_aside(state_dir);
  log_info("the state has format {} now: {} private keys are in {}", kStateFormat, *keys,
           SecretStore::directory(state_dir));
  return lock;
}

}  // namespace tidegate
