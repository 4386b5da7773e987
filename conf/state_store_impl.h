// SPDX-License-Identifier: Apache-2.0
// The implementation of the state store, shared by its readers (state_store.cc) and its writers
// (state_versions.cc, state_live_writer.cc, state_writer.cc).
//
// <state>/state/data.mdb has these sub-databases and records. Numbers in keys are 8 bytes big-endian.
//  sys      "format" | "head" | "words" | "purge" | "audit" | "answer" | "answer_bytes" -> number (8 bytes big-endian)
//           "journal" -> number, "journal_digest" -> text: see JournalPosition
//           "provisional" -> text: of the version in force, until it is confirmed; only where a journal decides
//  version  version                     -> JSON: created_ns, author, comment, digest, rollback_of
//  entry    kind NUL name NUL version   -> SHA-256 (32 bytes) that the object has from this version on; empty: gone
//  object   SHA-256                     -> the object's bytes, unless it is a private key
//  secret   SHA-256                     -> empty: a private key, whose bytes are in the SecretStore
//  refs     SHA-256                     -> number of entries that name it
//  admin    key of an override          -> JSON
//  health   key of a verdict            -> binary, see conf/state_records.h
//  load     key of a site               -> JSON; made by the first writer that knows it
//  name     "host NAME" or "srv NAME"   -> JSON: what it leads to; made by the first writer that knows it
//  issued   key of an ordered certificate's record -> JSON; see IssuedRecords; made by the first writer that knows it
//  purge    sequence                    -> JSON
//  audit    sequence                    -> JSON
//  answer   request                     -> sequence, then the answer; no reader opens these two
//  answered sequence                    -> request
//
// "words" is the sequence of the live state. A manifest is not stored whole. Version V's entry for an object is the
// newest one at or below V. So a change of one object in 10,000 writes one entry, and the manifests of 1,000 versions
// take little more room than one manifest.
//
// A private key is on the disk in the SecretStore before the transaction that names it. It leaves the SecretStore after
// the transaction that no longer names it. If a process ends in between, the next start of the writer removes the key.
//
// Format 2 has `secret`. Format 1 kept private keys among the objects (conf/state_migration.h).
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/secret_store.h"
#include "conf/state_store.h"
#include "core/fd.h"

namespace tidegate {

constexpr uint64_t kStateFormat = 2;
constexpr size_t kStateMapBytes = size_t{4} << 30;  // address space; the file is as large as its content
constexpr unsigned kStateDataMode = 0640;
constexpr const char *kSysDb = kSysDatabase, *kObjectDb = "object", *kSecretDb = "secret", *kLoadDb = "load",
                     *kIssuedDb = "issued", *kNameDb = "name";
constexpr const char* kFormatKey = "format";
constexpr const char *kJournalKey = "journal", *kJournalDigestKey = "journal_digest";

struct StateDbs {
  MDB_dbi sys = 0, version = 0, entry = 0, object = 0, refs = 0, admin = 0, health = 0, purge = 0, audit = 0;
  MDB_dbi answer = 0, answered = 0;
  MDB_dbi secret = 0;
  MDB_dbi load = 0;    // valid if has_load
  MDB_dbi issued = 0;  // valid if has_issued
  MDB_dbi name = 0;    // valid if has_name
  bool has_load = false;
  bool has_issued = false;
  bool has_name = false;
  bool has_secret = false;  // not in format 1
  bool is_new = false;      // the writer has just made them
};

struct StateStore::Impl {
  std::string state_dir, env_dir, notify_path;
  Mode mode = Mode::read_only;
  UniqueFd writer_lock;
  size_t versions_kept = kVersionsKept;
  std::optional<lmdb::Env> env;
  StateDbs dbs;
  // A writer always has it open. A reader opens it for the first private key, so a reader without the right to read
  // keys can still work.
  mutable std::unique_ptr<SecretStore> secrets;
  // The content of the last commit. It is kept in memory, so the next commit can compare without reading.
  uint64_t cached_version = 0;
  std::vector<ManifestEntry> cached_entries;

  // Set between begin_trial() and end_trial(): what the write would change. A write has only a const view of us.
  mutable std::optional<WriteSet> trial;
  std::string next_provisional;  // see set_next_provisional()

  Result<void> open_environment();
  // A state of an earlier release has no `load`, `issued` and `name` until a writer has opened it. Looks for what is
  // missing.
  void find_later_dbs();
  void notify_followers() const;  // wakes the followers
  Error damaged(const std::string& what) const;
  uint64_t number(const lmdb::Txn& txn, std::string_view key) const;              // from `sys`; 0 if absent
  Result<Manifest> version_record(const lmdb::Txn& txn, uint64_t version) const;  // without entries
  Result<std::vector<ManifestEntry>> entries(const lmdb::Txn& txn, uint64_t version) const;
  Result<std::string> object(const lmdb::Txn& txn, const std::string& hash) const;
  bool is_secret(const lmdb::Txn& txn, std::string_view raw_hash) const;
  Result<const SecretStore*> open_secrets() const;
  // For the writer: finishes what a process left undone when it ended (conf/state_secrets.cc).
  Result<void> open_secrets_for_writing(const std::string& group);
  Result<void> settle_secrets();
  void forget_secrets(const std::vector<std::string>& raw_hashes) const;
};

// The databases by their names in write sets. Null: no database has that name.
const MDB_dbi* find_db(const StateDbs& dbs, std::string_view name);
std::string_view name_of(const StateDbs& dbs, MDB_dbi db);
// Every database with its name, in the order of kDbs.
std::vector<std::pair<std::string_view, MDB_dbi>> all_dbs(const StateDbs& dbs);

// Held for the life of the process. Two writers would each trust their own memory of the head.
Result<UniqueFd> lock_state_writer(const std::string& env_dir);

// "kind NUL name NUL": the common prefix of all entries of one object. Returns nothing if LMDB does not accept such a
// key.
std::optional<std::string> entry_prefix(std::string_view kind, std::string_view name);

struct EntryKey {
  std::string_view kind, name;
  uint64_t version;
  // Returns nothing for a key that no writer made.
  static std::optional<EntryKey> parse(std::string_view key);
};

// SHA-256 over the entries, in their order. `changed`: the entry that has another hash in this place, or null.
std::string manifest_digest(const std::vector<ManifestEntry>& entries, const ManifestEntry* changed = nullptr,
                            std::string_view hash = {});

}  // namespace tidegate
