// SPDX-License-Identifier: Apache-2.0
// The implementation of the state store, shared by its readers (state_store.cc) and its writers (state_writer.cc).
//
// <state>/state/data.mdb has these sub-databases and records. Numbers in keys are 8 bytes big-endian.
//  sys      "format" | "head" | "words" | "purge" | "audit" | "answer" | "answer_bytes" -> number (8 bytes big-endian)
//  version  version                     -> JSON: created_ns, author, comment, digest, rollback_of
//  entry    kind NUL name NUL version   -> SHA-256 (32 bytes) that the object has from this version on; empty: gone
//  object   SHA-256                     -> the object's bytes
//  refs     SHA-256                     -> number of entries that name it
//  admin    key of an override          -> JSON
//  health   key of a verdict            -> binary, see conf/state_records.h
//  purge    sequence                    -> JSON
//  audit    sequence                    -> JSON
//  answer   request                     -> sequence, then the answer; no reader opens these two
//  answered sequence                    -> request
//
// "words" is the sequence of the live state. A manifest is not stored whole. Version V's entry for an object is the
// newest one at or below V. So a change of one object in 10,000 writes one entry, and the manifests of 1,000 versions
// take little more room than one manifest.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/state_store.h"
#include "core/fd.h"

namespace tidegate {

struct StateDbs {
  MDB_dbi sys = 0, version = 0, entry = 0, object = 0, refs = 0, admin = 0, health = 0, purge = 0, audit = 0;
  MDB_dbi answer = 0, answered = 0;
};

struct StateStore::Impl {
  std::string state_dir, env_dir, notify_path;
  Mode mode = Mode::read_only;
  UniqueFd writer_lock;
  size_t versions_kept = kVersionsKept;
  std::optional<lmdb::Env> env;
  StateDbs dbs;
  // What the writer committed last, kept in memory so that a commit can compare without reading.
  uint64_t cached_version = 0;
  std::vector<ManifestEntry> cached_entries;

  void notify_followers() const;  // wakes the followers
  Error damaged(const std::string& what) const;
  uint64_t number(const lmdb::Txn& txn, std::string_view key) const;  // from `sys`; 0 if absent
  Result<std::vector<ManifestEntry>> entries(const lmdb::Txn& txn, uint64_t version) const;
  Result<std::string> object(const lmdb::Txn& txn, const std::string& hash) const;
};

// "kind NUL name NUL": the common prefix of all entries of one object. Returns nothing if LMDB does not accept such a
// key.
std::optional<std::string> entry_prefix(std::string_view kind, std::string_view name);

struct EntryKey {
  std::string_view kind, name;
  uint64_t version;
  // Returns nothing for a key that no writer made.
  static std::optional<EntryKey> parse(std::string_view key);
};

// SHA-256 over the entries, in their order.
std::string manifest_digest(const std::vector<ManifestEntry>& entries);

}  // namespace tidegate
