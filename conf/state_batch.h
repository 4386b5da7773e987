// SPDX-License-Identifier: Apache-2.0
// Helpers for the writers of the state: a transaction that remembers its first fault, the kept answers, and the
// replacement of whole sets of records. One write is one transaction with its audit record and its answer. Then the
// notify file is touched.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "conf/state_store_impl.h"

namespace tidegate {

inline constexpr std::string_view kNoRoom = "state: no room: ";  // how the error of a full disk begins

// A write transaction that remembers its first fault. After a fault, later steps do nothing and commit() returns the
// fault.
class StateBatch {
 public:
  explicit StateBatch(const StateStore::Impl& impl);

  bool sound() const { return !fault_; }
  const lmdb::Txn& txn() const { return *txn_; }  // use it only while sound() is true
  void refuse(Error fault) {
    if (!fault_) fault_ = std::move(fault);
  }

  std::optional<std::string> get(MDB_dbi db, std::string_view key) const;
  void put(MDB_dbi db, std::string_view key, std::string_view value);
  bool erase(MDB_dbi db, std::string_view key);
  void clear(MDB_dbi db);
  // Adds private keys that another host's write brings, or that it may have left without a name.
  void add_secrets(const std::vector<std::pair<std::string, std::string>>& secrets) {
    new_secrets_.insert(new_secrets_.end(), secrets.begin(), secrets.end());
  }
  void touch_secret(const std::string& raw_hash) { touched_secrets_.push_back(raw_hash); }

  // Stores an object. A private key goes into the SecretStore, and is on the disk before this transaction is.
  void put_object(const std::string& raw_hash, const std::string& bytes);
  void erase_object(const std::string& raw_hash);

  uint64_t number(std::string_view key) const { return fault_ ? 0 : impl_.number(*txn_, key); }
  void set_number(std::string_view key, uint64_t value) { put(impl_.dbs.sys, key, lmdb::be64(value)); }

  // Appends to a log. Its own writer numbers it without gaps; a log from another host may have gaps.
  void append(MDB_dbi log, uint64_t sequence, std::string_view record, uint64_t kept);
  void audit(std::string_view who, std::string_view action, std::string_view target, std::string_view detail);
  // If it fails, nothing was changed.
  Result<void> commit();

 private:
  const StateStore::Impl& impl_;
  std::optional<lmdb::Txn> txn_;
  std::optional<Error> fault_;
  std::vector<std::pair<std::string, std::string>> new_secrets_;  // hash and bytes
  std::vector<WriteSet::Change> tried_;                           // the changes of a trial
  // secrets to keep only if something names them afterwards
  std::vector<std::string> touched_secrets_;
};

// Counts the versions and records that name an object. The object is removed with the last of them.
void reference(StateBatch& batch, const StateDbs& dbs, const std::string& raw_hash);
void unreference(StateBatch& batch, const StateDbs& dbs, const std::string& raw_hash);

// Keeps the answer to a request, and removes the oldest ones beyond StateStore::kAnswersKept.
void put_answer(StateBatch& batch, const StateDbs& dbs, const KeptAnswer& kept);

template <class Written>
void put_answer_to(StateBatch& batch, const StateDbs& dbs, const AnswerTo<Written>& answer, const Written& written) {
  if (answer && batch.sound()) put_answer(batch, dbs, answer(written));
}

// Makes `db` contain exactly `records`. Writes only what differs.
template <class Record, class Encode>
void replace_records(StateBatch& batch, MDB_dbi db, const std::map<std::string, Record>& records, Encode&& encode) {
  std::map<std::string, std::string> left;
  for (const auto& [key, record] : records) left.emplace_hint(left.end(), key, encode(record));
  std::vector<std::string> gone;
  if (!batch.sound()) return;
  {
    lmdb::Cursor cursor(batch.txn(), db);
    for (bool more = cursor.first(); more; more = cursor.next()) {
      const auto found = left.find(std::string(cursor.key()));
      if (found == left.end()) {
        gone.emplace_back(cursor.key());
      } else if (found->second == cursor.value()) {
        left.erase(found);
      }
    }
  }
  for (const std::string& key : gone) batch.erase(db, key);
  for (const auto& [key, record] : left) batch.put(db, key, record);
}

}  // namespace tidegate
