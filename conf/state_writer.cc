// SPDX-License-Identifier: Apache-2.0
// Writes the log of purges, and adopts writes that were decided elsewhere. Versions and live state have writers of
// their own.
#include <fmt/format.h>

#include <algorithm>

#include "conf/state_batch.h"
#include "conf/state_records.h"
#include "conf/state_store_impl.h"
#include "core/assert.h"
#include "core/clock.h"

namespace tidegate {
namespace {

constexpr uint64_t kPurgesKept = 10'000;

}  // namespace

bool is_damage(const Error& error) {
  return error.message.starts_with("the state in ") && error.message.find(" cannot be used: ") != std::string::npos;
}

bool is_disk_full(const Error& error) { return error.message.starts_with(kNoRoom); }

// --- logs

Result<uint64_t> StateStore::add_purge(PurgeKind kind, std::string_view value, bool soft, std::string_view who,
                                       const AnswerTo<uint64_t>& answer) {
  StateBatch batch(*impl_);
  Purge purge;
  purge.sequence = batch.number("purge") + 1;
  purge.kind = kind;
  purge.value = value;
  purge.soft = soft;
  purge.at_ns = realtime_ns();
  purge.by = who;
  batch.append(impl_->dbs.purge, purge.sequence, encode_purge(purge), kPurgesKept);
  batch.set_number("purge", purge.sequence);
  batch.audit(who, soft ? "soft purge" : "purge", value, "");
  put_answer_to(batch, impl_->dbs, answer, purge.sequence);
  if (Result<void> committed = batch.commit(); !committed) return committed.error();
  return purge.sequence;
}

Result<void> StateStore::replicate_purge(const Purge& purge) {
  StateBatch batch(*impl_);
  if (batch.sound() && purge.sequence <= batch.number("purge")) return {};  // it has this purge already
  batch.append(impl_->dbs.purge, purge.sequence, encode_purge(purge), kPurgesKept);
  batch.set_number("purge", purge.sequence);
  return batch.commit();
}

// --- writes that are decided elsewhere

void StateStore::begin_trial() {
  TIDEGATE_ASSERT(!impl_->trial, "one write is tried at a time");
  impl_->trial.emplace();
}

WriteSet StateStore::end_trial() {
  TIDEGATE_ASSERT(impl_->trial.has_value(), "a trial was begun");
  WriteSet set = *std::move(impl_->trial);
  impl_->trial.reset();
  return set;
}

// The trial may have put its entries into the cache, but its write was not decided.
void StateStore::forget_trial() {
  impl_->cached_version = 0;
  impl_->cached_entries.clear();
}

Result<void> StateStore::adopt(const WriteSet& set, const JournalPosition& position, bool own) {
  TIDEGATE_ASSERT(!impl_->trial, "a decided write is adopted outside of a trial");
  const StateDbs& dbs = impl_->dbs;
  if (!own) forget_trial();
  StateBatch batch(*impl_);
  if (set.whole) {
    const Result<std::vector<std::string>> kept = impl_->secrets->hashes();
    if (!kept) return kept.error();
    for (const std::string& raw_hash : *kept) batch.touch_secret(raw_hash);
    for (const auto& [name, db] : all_dbs(dbs)) batch.clear(db);
    batch.set_number(kFormatKey, kStateFormat);
  }
  for (const WriteSet::Change& change : set.changes) {
    const MDB_dbi* db = find_db(dbs, change.db);
    if (db == nullptr) return fail(fmt::format("state: there is no database {}", change.db));
    if (change.value) {
      batch.put(*db, change.key, *change.value);
    } else if (batch.erase(*db, change.key) && change.db == kSecretDb) {
      batch.touch_secret(change.key);
    }
  }
  batch.add_secrets(set.secrets);
  batch.set_number(kJournalKey, position.sequence);
  batch.put(dbs.sys, kJournalDigestKey, position.digest);
  Result<void> committed = batch.commit();
  if (!committed) forget_trial();
  return committed;
}

Result<void> StateStore::set_journal_position(const JournalPosition& position) {
  StateBatch batch(*impl_);
  batch.set_number(kJournalKey, position.sequence);
  batch.put(impl_->dbs.sys, kJournalDigestKey, position.digest);
  return batch.commit();
}

Result<void> StateStore::keep_answer(const KeptAnswer& kept) {
  StateBatch batch(*impl_);
  put_answer(batch, impl_->dbs, kept);
  return batch.commit();
}

}  // namespace tidegate
