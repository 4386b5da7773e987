// SPDX-License-Identifier: Apache-2.0
#include "conf/secret_store.h"

#include <fmt/format.h>
#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "conf/state_folder.h"
#include "core/assert.h"
#include "core/crypto.h"
#include "core/lmdb_check.h"

namespace tidegate {
namespace {

constexpr const char* kDbName = "secret";
constexpr size_t kMapBytes = size_t{1} << 30;  // of address space; a key is a few kilobytes
constexpr size_t kHashBytes = 32;
constexpr mode_t kOwnerAlone = 0700, kOwnerAndGroup = 02750;  // of the directory, which guards the files in it
constexpr mode_t kDataMode = 0640;

Result<gid_t> find_group(const std::string& name) {
  group entry{};
  group* found = nullptr;
  std::array<char, 65536> buffer;
  const int rc = ::getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (found != nullptr) return entry.gr_gid;
  return fail(fmt::format("there is no group '{}'{}", name, rc == 0 ? "" : std::string(": ") + std::strerror(rc)));
}

Result<void> make_directory(const std::string& path, const std::string& group) {
  std::optional<gid_t> gid;
  if (!group.empty()) {
    const Result<gid_t> found = find_group(group);
    if (!found) return found.error();
    gid = *found;
  }
  if (::mkdir(path.c_str(), kOwnerAlone) == 0) {
    ::chmod(path.c_str(), kOwnerAlone);  // without the parent's set-group-id bit
  } else if (errno != EEXIST) {
    return fail(fmt::format("cannot create {}: {}", path, std::strerror(errno)));
  }
  if (!gid) return {};
  if (::chown(path.c_str(), static_cast<uid_t>(-1), *gid) != 0 || ::chmod(path.c_str(), kOwnerAndGroup) != 0) {
    return fail(fmt::format("cannot give {} to the group '{}': {} (the user of tidegate-control must be in it)", path,
                            group, std::strerror(errno)));
  }
  return {};
}

// The environment's files, which LMDB made for its process's group.
void give_to_group_of(const std::string& directory) {
  struct stat owner {};
  if (::stat(directory.c_str(), &owner) != 0) return;
  for (const auto& [file, mode] : {std::pair("/lock.mdb", kStateLockMode), std::pair("/data.mdb", kDataMode)}) {
    const std::string path = directory + file;
    // Set before the mode. A user who may not give it away leaves it to the owner's group, and the directory keeps that
    // group out.
    if (::chown(path.c_str(), static_cast<uid_t>(-1), owner.st_gid) == 0) ::chmod(path.c_str(), mode);
  }
}

}  // namespace

// As OpenSSL reads PEM: a line that begins with "-----BEGIN " and ends with "PRIVATE KEY-----".
namespace {

// A JWK set with a secret of HMAC, or with the private part of a key (RFC 7518 §6).
bool is_secret_jwk_set(std::string_view bytes) {
  const size_t first = bytes.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos || bytes[first] != '{') return false;
  if (bytes.find("\"kty\"") == std::string_view::npos)
    return false;  // every secret JWK set has it; the objects of a version do not
  const nlohmann::json json = nlohmann::json::parse(bytes, nullptr, false);
  const auto keys = json.is_object() ? json.find("keys") : json.end();
  if (keys == json.end() || !keys->is_array()) return false;
  return std::any_of(keys->begin(), keys->end(), [](const nlohmann::json& key) {
    return key.is_object() && (key.contains("k") || key.contains("d"));
  });
}

}  // namespace

bool holds_private_key(std::string_view bytes) {
  if (is_secret_jwk_set(bytes)) return true;
  constexpr std::string_view kBegin = "-----BEGIN ", kEnd = "PRIVATE KEY-----";
  for (size_t at = bytes.find(kBegin); at != std::string_view::npos; at = bytes.find(kBegin, at + 1)) {
    if (at > 0 && bytes[at - 1] != '\n') continue;
    const std::string_view line = bytes.substr(at, bytes.substr(at).find('\n'));
    if (line.find(kEnd) != std::string_view::npos) return true;
  }
  return false;
}

Result<std::unique_ptr<SecretStore>> SecretStore::open(const std::string& directory, bool writes) {
  if (Result<void> sound = lmdb::check(directory); !sound) return sound.error();
  lmdb::EnvOptions options;
  options.map_bytes = kMapBytes;
  options.flags = writes ? 0 : MDB_RDONLY;
  options.file_mode = kDataMode;
  Result<lmdb::Env> env = lmdb::Env::open(directory, options);
  if (!env) return env.error();
  if (writes) give_to_group_of(directory);
  Result<lmdb::Txn> txn = lmdb::Txn::begin(*env, writes ? lmdb::Access::write : lmdb::Access::read);
  if (!txn) return txn.error();
  const Result<MDB_dbi> db = txn->open_db(kDbName, writes ? MDB_CREATE : 0);
  if (!db) return db.error();
  if (Result<void> committed = txn->commit(); !committed) return committed.error();
  return std::unique_ptr<SecretStore>(new SecretStore(*std::move(env), *db, directory));
}

Result<std::unique_ptr<SecretStore>> SecretStore::open_for_writing(const std::string& state_dir,
                                                                   const std::string& group) {
  const std::string path = directory(state_dir);
  if (Result<void> made = make_directory(path, group); !made) return made.error();
  Result<std::unique_ptr<SecretStore>> store = open(path, true);
  if (!store) return fail(fmt::format("the private keys in {} cannot be used: {}", path, store.error().message));
  return store;
}

Result<std::unique_ptr<SecretStore>> SecretStore::open_for_reading(const std::string& state_dir) {
  const std::string path = directory(state_dir);
  // Checks the files, not the directory. LMDB opens both for writing: it registers readers in the lock file.
  for (const auto& [file, mode] : {std::pair("/data.mdb", R_OK), std::pair("/lock.mdb", R_OK | W_OK)}) {
    if (::access((path + file).c_str(), mode) == 0) continue;
    return fail(
        fmt::format("the private keys in {} cannot be read: {}: {} (tidegate-control --secrets-group names the "
                    "group that may read them)",
                    path, file + 1, std::strerror(errno)));
  }
  Result<std::unique_ptr<SecretStore>> store = open(path, false);
  if (!store) return fail(fmt::format("the private keys in {} cannot be read: {}", path, store.error().message));
  return store;
}

Result<std::string> SecretStore::get(std::string_view raw_hash) const {
  TIDEGATE_ASSERT(raw_hash.size() == kHashBytes, "a secret is found by its whole hash");
  const Result<lmdb::Txn> txn = lmdb::Txn::begin(env_, lmdb::Access::read);
  if (!txn) return txn.error();
  const std::optional<std::string_view> bytes = txn->get(db_, raw_hash);
  if (Result<void> sound = txn->sound(); !sound) return sound.error();
  if (!bytes) return fail(fmt::format("{} has no private key {}", directory_, hex_encode(raw_hash)));
  if (sha256_hex(*bytes) != hex_encode(raw_hash)) {
    return fail(fmt::format("private key {} in {} is not what its hash says", hex_encode(raw_hash), directory_));
  }
  return std::string(*bytes);
}

Result<std::vector<std::string>> SecretStore::hashes() const {
  const Result<lmdb::Txn> txn = lmdb::Txn::begin(env_, lmdb::Access::read);
  if (!txn) return txn.error();
  std::vector<std::string> out;
  lmdb::Cursor cursor(*txn, db_);
  for (bool more = cursor.first(); more; more = cursor.next()) out.emplace_back(cursor.key());
  if (Result<void> sound = txn->sound(); !sound) return sound.error();
  return out;
}

Result<void> SecretStore::add(const std::vector<std::pair<std::string, std::string>>& secrets) {
  mdb_reader_check(env_.get(), nullptr);  // a killed reader would keep old pages from being used again
  Result<lmdb::Txn> txn = lmdb::Txn::begin(env_, lmdb::Access::write);
  if (!txn) return txn.error();
  for (const auto& [raw_hash, bytes] : secrets) {
    TIDEGATE_ASSERT(raw_hash.size() == kHashBytes, "a secret is found by its whole hash");
    if (Result<void> put = txn->put(db_, raw_hash, bytes); !put) return put;
  }
  return txn->commit();
}

Result<void> SecretStore::erase(const std::vector<std::string>& raw_hashes) {
  Result<lmdb::Txn> txn = lmdb::Txn::begin(env_, lmdb::Access::write);
  if (!txn) return txn.error();
  for (const std::string& raw_hash : raw_hashes) {
    if (const Result<bool> erased = txn->erase(db_, raw_hash); !erased) return erased.error();
  }
  return txn->commit();
}

Result<void> SecretStore::copy_to(const std::string& directory) const {
  if (const int rc = mdb_env_copy2(env_.get(), directory.c_str(), MDB_CP_COMPACT); rc != 0) {
    return fail(fmt::format("cannot copy the private keys to {}: {}", directory, mdb_strerror(rc)));
  }
  return lmdb::check(directory);
}

}  // namespace tidegate
