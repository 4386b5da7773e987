// SPDX-License-Identifier: Apache-2.0
// SecretStore: the private keys of a host's state, in an LMDB environment of their own (<state>/secrets). The modes of
// its directory and files say who may read keys. The right to read the rest of the state does not include it.
//
// Access: the directory belongs to the user of tidegate-control. If a group is named, it may read (02750). Otherwise
// only the owner may (0700). Files inside take the directory's group.
//
// Threads: as core/lmdb.h. The one writer is the writer of the state.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/lmdb.h"
#include "core/result.h"

namespace tidegate {

// True if a file holds a private key in PEM, of any kind, or a secret JWK. The object of such a file is a secret.
bool holds_private_key(std::string_view bytes);

class SecretStore {
 public:
  static std::string directory(const std::string& state_dir) { return state_dir + "/secrets"; }

  // Creates the directory and the environment if they are missing. `group` may read in addition to the owner; if it is
  // empty, the directory stays as it is. Returns an Error if there is no such group, or if the process may not give the
  // directory to it.
  static Result<std::unique_ptr<SecretStore>> open_for_writing(const std::string& state_dir, const std::string& group);
  // Returns an Error if this process may not read keys. It names the directory and the option that allows reading.
  static Result<std::unique_ptr<SecretStore>> open_for_reading(const std::string& state_dir);

  // Returns the secret with this SHA-256 (32 bytes).
  Result<std::string> get(std::string_view raw_hash) const;
  Result<std::vector<std::string>> hashes() const;

  // Adds secrets, given as hash and bytes. They are on the disk when this returns.
  Result<void> add(const std::vector<std::pair<std::string, std::string>>& secrets);
  Result<void> erase(const std::vector<std::string>& raw_hashes);

  // Writes everything, compacted, to `directory`/data.mdb, which must not exist yet.
  Result<void> copy_to(const std::string& directory) const;

 private:
  SecretStore(lmdb::Env env, MDB_dbi db, std::string directory)
      : env_(std::move(env)), db_(db), directory_(std::move(directory)) {}
  static Result<std::unique_ptr<SecretStore>> open(const std::string& directory, bool writes);

  lmdb::Env env_;
  MDB_dbi db_;
  std::string directory_;
};

}  // namespace tidegate
