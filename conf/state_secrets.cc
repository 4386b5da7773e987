// SPDX-License-Identifier: Apache-2.0
// How the state and its private keys stay consistent. The writer opens them together. If a process ended between the
// two transactions, the writer repairs the result at its start. A backup copies both together.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>

#include "conf/state_folder.h"
#include "conf/state_migration.h"
#include "conf/state_store_impl.h"
#include "core/assert.h"
#include "core/clock.h"
#include "core/lmdb_check.h"
#include "core/log.h"

namespace tidegate {
namespace {

namespace fs = std::filesystem;

constexpr mode_t kWriterLockMode = 0660;
constexpr int kCopyAttempts = 5;

Result<std::set<std::string>> keys_of(const lmdb::Env& env, const char* name) {
  Result<lmdb::Txn> txn = lmdb::Txn::begin(env, lmdb::Access::read);
  if (!txn) return txn.error();
  const Result<MDB_dbi> db = txn->open_db(name);
  if (!db) return db.error();
  std::set<std::string> keys;
  lmdb::Cursor cursor(*txn, *db);
  for (bool more = cursor.first(); more; more = cursor.next()) keys.emplace(cursor.key());
  if (Result<void> sound = txn->sound(); !sound) return sound.error();
  return keys;
}

std::vector<std::string> difference(const std::set<std::string>& from, const std::set<std::string>& without) {
  std::vector<std::string> out;
  std::set_difference(from.begin(), from.end(), without.begin(), without.end(), std::back_inserter(out));
  return out;
}

// The keys of a state that is gone belong to the person who puts that state back.
Result<void> put_keys_of_lost_state_aside(const std::string& state_dir) {
  const std::string from = SecretStore::directory(state_dir);
  const std::string to = fmt::format("{}.of-lost-state-{}", from, realtime_ns() / kNsPerS);
  if (::rename(from.c_str(), to.c_str()) != 0) {
    return fail(fmt::format("cannot move {} to {}: {}", from, to, std::strerror(errno)));
  }
  ::chmod(to.c_str(), 0700);
  log_warn("the state is new, but {} held private keys of an earlier one: they are in {} now", from, to);
  return {};
}

// True if a copy of the state has every private key that the copy names. No other process has the copy open.
Result<bool> is_whole(const std::string& directory) {
  lmdb::EnvOptions options;
  options.map_bytes = kStateMapBytes;
  options.flags = MDB_RDONLY | MDB_NOLOCK;
  const Result<lmdb::Env> state = lmdb::Env::open(directory + "/state", options);
  if (!state) return state.error();
  const Result<lmdb::Env> secrets = lmdb::Env::open(SecretStore::directory(directory), options);
  if (!secrets) return secrets.error();
  const Result<std::set<std::string>> named = keys_of(*state, kSecretDb), kept = keys_of(*secrets, kSecretDb);
  if (!named) return named.error();
  if (!kept) return kept.error();
  return difference(*named, *kept).empty();
}

}  // namespace

Result<UniqueFd> lock_state_writer(const std::string& env_dir) {
  const std::string path = env_dir + "/writer.lock";
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, kWriterLockMode));
  if (!fd) return fail("cannot open " + path + ": " + std::strerror(errno));
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) return fail("another tidegate-control writes the state in " + env_dir);
  return fd;
}

Result<void> StateStore::Impl::open_secrets_for_writing(const std::string& group) {
  TIDEGATE_ASSERT(mode == Mode::read_write, "private keys are written by the writer of the state");
  remove_migration_leftovers(state_dir);
  Result<std::unique_ptr<SecretStore>> opened = SecretStore::open_for_writing(state_dir, group);
  if (!opened) return opened.error();
  const Result<std::vector<std::string>> kept = (*opened)->hashes();
  if (!kept) return damaged(kept.error().message);
  if (dbs.is_new && !kept->empty()) {
    opened->reset();
    if (Result<void> aside = put_keys_of_lost_state_aside(state_dir); !aside) return aside;
    opened = SecretStore::open_for_writing(state_dir, group);
    if (!opened) return opened.error();
  }
  secrets = *std::move(opened);
  for (const std::string& directory : {SecretStore::directory(state_dir), state_dir}) {
    if (Result<void> synced = sync_folder(directory); !synced) return synced;
  }
  if (!dbs.has_secret) {
    env.reset();  // a process may open an environment only once
    Result<UniqueFd> lock = migrate_state(state_dir, *secrets);
    if (!lock) return lock.error();
    writer_lock = *std::move(lock);
    if (Result<void> again = open_environment(); !again) return again;
    TIDEGATE_ASSERT(dbs.has_secret, "a migrated state has the format of this release");
  }
  return settle_secrets();
}

// A process may have ended after it added or gave up a key, and before its next step. Removes keys that no version
// names.
Result<void> StateStore::Impl::settle_secrets() {
  const Result<std::set<std::string>> named = keys_of(*env, kSecretDb);
  if (!named) return damaged(named.error().message);
  const Result<std::vector<std::string>> listed = secrets->hashes();
  if (!listed) return damaged(listed.error().message);
  const std::set<std::string> kept(listed->begin(), listed->end());
  if (const size_t missing = difference(*named, kept).size(); missing > 0) {
    return damaged(fmt::format("{} private key{} that its versions name {} not in {}", missing, missing == 1 ? "" : "s",
                               missing == 1 ? "is" : "are", SecretStore::directory(state_dir)));
  }
  const std::vector<std::string> orphans = difference(kept, *named);
  if (orphans.empty()) return {};
  log_info("{} private keys that no version names are removed", orphans.size());
  return secrets->erase(orphans);
}

// Removes those that no version names.
void StateStore::Impl::forget_secrets(const std::vector<std::string>& raw_hashes) const {
  std::vector<std::string> unnamed;
  {
    const Result<lmdb::Txn> txn = lmdb::Txn::begin(*env, lmdb::Access::read);
    if (!txn) return;  // the next start does it
    for (const std::string& raw_hash : raw_hashes) {
      if (!is_secret(*txn, raw_hash)) unnamed.push_back(raw_hash);
    }
    if (!txn->sound()) return;
  }
  if (unnamed.empty()) return;
  if (Result<void> erased = secrets->erase(unnamed); !erased) {
    log_warn("private keys that no version names stay until the next start: {}", erased.error().message);
  }
}

Result<void> StateStore::copy_to(const std::string& directory) const {
  const std::string state = directory + "/state", secrets = SecretStore::directory(directory);
  const Result<const SecretStore*> keys = impl_->open_secrets();
  if (!keys) return keys.error();
  for (const std::string& path : {directory, state, secrets}) {
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
      return fail(fmt::format("cannot create {}: {}", path, std::strerror(errno)));
    }
  }
  // If the writer gives up a key between the two copies, the key is missing. Then both copies are made again.
  for (int attempt = 1;; ++attempt) {
    if (const int rc = mdb_env_copy2(impl_->env->get(), state.c_str(), MDB_CP_COMPACT); rc != 0) {
      return fail(fmt::format("cannot copy the state to {}: {}", state, mdb_strerror(rc)));
    }
    if (Result<void> sound = lmdb::check(state); !sound) return sound;
    if (Result<void> copied = (*keys)->copy_to(secrets); !copied) return copied;
    const Result<bool> whole = is_whole(directory);
    if (!whole) return whole.error();
    if (*whole) return {};
    if (attempt == kCopyAttempts) return fail("the state changes faster than it can be copied");
    std::error_code ignored;
    fs::remove(state + "/data.mdb", ignored);
    fs::remove(secrets + "/data.mdb", ignored);
  }
}

}  // namespace tidegate
