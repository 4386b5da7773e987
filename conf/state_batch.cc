// SPDX-License-Identifier: Apache-2.0
#include "conf/state_batch.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>

#include "conf/state_records.h"
#include "core/clock.h"
#include "core/fd.h"
#include "core/full_disk.h"
#include "core/log.h"

namespace tidegate {
namespace {

constexpr uint64_t kAuditsKept = 100'000;

void erase_answer(StateBatch& batch, const StateDbs& dbs, const std::string& request) {
  const std::optional<std::string> record = batch.get(dbs.answer, request);
  if (!record || record->size() < sizeof(uint64_t)) return;
  const uint64_t bytes = batch.number("answer_bytes");
  batch.set_number("answer_bytes", bytes - std::min<uint64_t>(bytes, record->size()));
  batch.erase(dbs.answered, record->substr(0, sizeof(uint64_t)));
  batch.erase(dbs.answer, request);
}

// The answer that was stored first, or nothing.
std::optional<std::pair<std::string, std::string>> oldest_answer(const StateBatch& batch, const StateDbs& dbs) {
  if (!batch.sound()) return std::nullopt;
  lmdb::Cursor cursor(batch.txn(), dbs.answered);
  if (!cursor.first()) return std::nullopt;
  return std::pair(std::string(cursor.key()), std::string(cursor.value()));
}

}  // namespace

StateBatch::StateBatch(const StateStore::Impl& impl) : impl_(impl) {
  if (impl.mode != StateStore::Mode::read_write) {
    refuse(fail("it was opened for reading only"));
    return;
  }
  mdb_reader_check(impl.env->get(), nullptr);  // otherwise a killed reader would prevent the reuse of old pages
  Result<lmdb::Txn> begun = lmdb::Txn::begin(*impl.env, lmdb::Access::write);
  if (begun) {
    txn_.emplace(*std::move(begun));
  } else {
    refuse(begun.error());
  }
}

std::optional<std::string> StateBatch::get(MDB_dbi db, std::string_view key) const {
  if (fault_) return std::nullopt;
  const std::optional<std::string_view> value = txn_->get(db, key);
  return value ? std::optional<std::string>(*value) : std::nullopt;
}

void StateBatch::put(MDB_dbi db, std::string_view key, std::string_view value) {
  if (fault_) return;
  if (Result<void> done = txn_->put(db, key, value); !done) return refuse(done.error());
  if (impl_.trial) tried_.push_back({std::string(name_of(impl_.dbs, db)), std::string(key), std::string(value)});
}

bool StateBatch::erase(MDB_dbi db, std::string_view key) {
  if (fault_) return false;
  const Result<bool> erased = txn_->erase(db, key);
  if (!erased) refuse(erased.error());
  if (impl_.trial && erased && *erased) {
    tried_.push_back({std::string(name_of(impl_.dbs, db)), std::string(key), std::nullopt});
  }
  return erased && *erased;
}

void StateBatch::clear(MDB_dbi db) {
  if (fault_) return;
  if (Result<void> done = txn_->clear(db); !done) refuse(done.error());
}

void StateBatch::put_object(const std::string& raw_hash, const std::string& bytes) {
  if (!holds_private_key(bytes)) return put(impl_.dbs.object, raw_hash, bytes);
  put(impl_.dbs.secret, raw_hash, "");
  if (!fault_) new_secrets_.emplace_back(raw_hash, bytes);
}

void StateBatch::erase_object(const std::string& raw_hash) {
  erase(impl_.dbs.object, raw_hash);
  if (erase(impl_.dbs.secret, raw_hash)) touched_secrets_.push_back(raw_hash);
}

void StateBatch::append(MDB_dbi log, uint64_t sequence, std::string_view record, uint64_t kept) {
  put(log, lmdb::be64(sequence), record);
  while (sound() && txn_->entries(log) > kept) {
    std::string oldest;
    {
      lmdb::Cursor cursor(*txn_, log);
      if (!cursor.first()) break;
      oldest = cursor.key();
    }
    erase(log, oldest);
  }
}

void StateBatch::audit(std::string_view who, std::string_view action, std::string_view target,
                       std::string_view detail) {
  const uint64_t sequence = number("audit") + 1;
  const AuditRecord record{
      sequence, realtime_ns(), std::string(who), std::string(action), std::string(target), std::string(detail)};
  append(impl_.dbs.audit, sequence, encode_audit(record), kAuditsKept);
  set_number("audit", sequence);
}

Result<void> StateBatch::commit() {
  if (impl_.trial && !fault_) {
    impl_.trial->changes = std::move(tried_);
    impl_.trial->secrets = std::move(new_secrets_);
    txn_.reset();
    return {};
  }
  if (!fault_ && !new_secrets_.empty()) {
    for (const auto& [raw_hash, bytes] : new_secrets_) touched_secrets_.push_back(raw_hash);
    if (Result<void> added = impl_.secrets->add(new_secrets_); !added) refuse(added.error());
  }
  if (!fault_) {
    if (Result<void> committed = txn_->commit(); !committed) refuse(committed.error());
  }
  txn_.reset();
  if (!touched_secrets_.empty()) impl_.forget_secrets(touched_secrets_);
  if (fault_ && disk_is_full(fault_->message, impl_.env_dir)) {
    return fail(fmt::format("{}the disk that holds {} is full ({}); nothing was changed", kNoRoom, impl_.env_dir,
                            fault_->message));
  }
  if (fault_) return fail("state: " + fault_->message);
  impl_.notify_followers();
  return {};
}

// Opened again each time, so that the notify file is created again if someone removed it.
void StateStore::Impl::notify_followers() const {
  const UniqueFd notify(::open(notify_path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0640));
  if (!notify || ::pwrite(notify.get(), "!", 1, 0) != 1) {
    log_warn("cannot touch {}; followers will find the change by polling", notify_path);
  }
}

void reference(StateBatch& batch, const StateDbs& dbs, const std::string& raw_hash) {
  const std::optional<std::string> count = batch.get(dbs.refs, raw_hash);
  batch.put(dbs.refs, raw_hash, lmdb::be64((count ? lmdb::be64(*count) : 0) + 1));
}

// Removing the last reference also removes the object.
void unreference(StateBatch& batch, const StateDbs& dbs, const std::string& raw_hash) {
  const std::optional<std::string> count = batch.get(dbs.refs, raw_hash);
  if (!count) return;
  if (lmdb::be64(*count) > 1) return batch.put(dbs.refs, raw_hash, lmdb::be64(lmdb::be64(*count) - 1));
  batch.erase(dbs.refs, raw_hash);
  batch.erase_object(raw_hash);
}

void put_answer(StateBatch& batch, const StateDbs& dbs, const KeptAnswer& kept) {
  const uint64_t sequence = batch.number("answer") + 1;
  const std::string record = lmdb::be64(sequence) + kept.answer;
  erase_answer(batch, dbs, kept.request);
  while (const auto oldest = oldest_answer(batch, dbs)) {
    const bool room = batch.txn().entries(dbs.answered) < StateStore::kAnswersKept &&
                      batch.number("answer_bytes") + record.size() <= StateStore::kAnswerBytesKept;
    if (room) break;
    erase_answer(batch, dbs, oldest->second);
    batch.erase(dbs.answered, oldest->first);
  }
  batch.put(dbs.answer, kept.request, record);
  batch.put(dbs.answered, lmdb::be64(sequence), kept.request);
  batch.set_number("answer", sequence);
  batch.set_number("answer_bytes", batch.number("answer_bytes") + record.size());
}

}  // namespace tidegate
