// SPDX-License-Identifier: Apache-2.0
// Writes the live state: overrides, health, loads and certificates that were ordered.
#include <fmt/format.h>

#include "conf/state_batch.h"
#include "conf/state_records.h"
#include "conf/state_store_impl.h"
#include "core/assert.h"
#include "core/clock.h"
#include "core/crypto.h"

namespace tidegate {

Result<uint64_t> StateStore::set_override(const std::string& key, const std::optional<Override>& record,
                                          std::string_view who) {
  StateBatch batch(*impl_);
  const uint64_t sequence = batch.number("words") + 1;
  if (record) {
    batch.put(impl_->dbs.admin, key, encode_override(*record));
  } else {
    batch.erase(impl_->dbs.admin, key);
  }
  const bool of_limit = key.starts_with(limit_key(""));
  const char* action = !record                                ? of_limit ? "quota_as_configured" : "undrain"
                       : of_limit                             ? "quota"
                       : record->state == OverrideState::down ? "down"
                       : record->state == OverrideState::up   ? "keep_up"
                                                              : "drain";
  batch.audit(who, action, key, record ? record->note : "");
  batch.set_number("words", sequence);
  if (Result<void> committed = batch.commit(); !committed) return committed.error();
  return sequence;
}

namespace {

// Puts the records into `db`, and removes those without a value. One commit, if anything changes at all. Returns the
// sequence of the live state.
template <class Record, class Encode>
Result<uint64_t> set_records(const StateStore::Impl& impl, MDB_dbi db,
                             const std::vector<std::pair<std::string, std::optional<Record>>>& records,
                             Encode&& encode) {
  StateBatch batch(impl);
  const uint64_t before = batch.number("words");
  bool changed = false;
  for (const auto& [key, record] : records) {
    if (!record) {
      changed |= batch.erase(db, key);
      continue;
    }
    const std::string encoded = encode(*record);
    if (batch.get(db, key) == encoded) continue;
    batch.put(db, key, encoded);
    changed = true;
  }
  if (!changed && batch.sound()) return before;
  batch.set_number("words", before + 1);
  if (Result<void> committed = batch.commit(); !committed) return committed.error();
  return before + 1;
}

}  // namespace

Result<uint64_t> StateStore::set_verdicts(
    const std::vector<std::pair<std::string, std::optional<HealthVerdict>>>& verdicts) {
  return set_records(*impl_, impl_->dbs.health, verdicts, &encode_verdict);
}

Result<uint64_t> StateStore::set_loads(const std::vector<std::pair<std::string, std::optional<SiteLoad>>>& loads) {
  return set_records(*impl_, impl_->dbs.load, loads, &encode_load);
}

Result<uint64_t> StateStore::set_names(const std::vector<std::pair<std::string, std::optional<FoundName>>>& names) {
  return set_records(*impl_, impl_->dbs.name, names, &encode_found_name);
}

Result<uint64_t> StateStore::set_site_verdicts(
    const std::vector<std::pair<std::string, std::optional<HealthVerdict>>>& verdicts) {
  StateBatch batch(*impl_);
  for (const auto& [key, verdict] : verdicts) {
    if (verdict) {
      batch.put(impl_->dbs.health, key, encode_verdict(*verdict));
    } else {
      batch.erase(impl_->dbs.health, key);
    }
  }
  const uint64_t sequence = std::max(batch.number("words"), kSiteWords) + 1;
  batch.set_number("words", sequence);
  // Where writes are decided elsewhere, this state now differs from the decided one, so it must be fetched again.
  if (batch.number(kJournalKey) != 0) batch.put(impl_->dbs.sys, kJournalDigestKey, "");
  if (Result<void> committed = batch.commit(); !committed) return committed.error();
  return sequence;
}

namespace {

IssuedRecords issued_in(const StateBatch& batch, const StateDbs& dbs) {
  IssuedRecords records;
  if (!batch.sound()) return records;
  lmdb::Cursor cursor(batch.txn(), dbs.issued);
  for (bool more = cursor.first(); more; more = cursor.next()) records.emplace(cursor.key(), cursor.value());
  return records;
}

// Makes the database `issued` contain exactly `wanted`. Objects are counted like those of versions. The objects of new
// records are stored before the objects of old records are released. `new_objects` has the bytes of the objects that
// the store lacks.
void replace_issued(StateBatch& batch, const StateDbs& dbs, const IssuedRecords& before, const IssuedRecords& wanted,
                    const std::vector<std::string>& new_objects) {
  std::map<std::string, const std::string*> bytes_by_hash;  // by the raw hash
  for (const std::string& bytes : new_objects) {
    const Sha256 hash = sha256(bytes);
    bytes_by_hash.emplace(std::string(hash.begin(), hash.end()), &bytes);
  }
  for (const auto& [key, record] : wanted) {
    const auto old = before.find(key);
    if (old != before.end() && old->second == record) continue;
    for (const std::string& hash : objects_of_issued(key, record)) {
      const std::string raw_hash = hex_decode(hash).value_or("");
      if (!batch.get(dbs.refs, raw_hash)) {
        const auto bytes = bytes_by_hash.find(raw_hash);
        if (bytes == bytes_by_hash.end()) return batch.refuse(fail(fmt::format("object {} is missing", hash)));
        batch.put_object(raw_hash, *bytes->second);
      }
      reference(batch, dbs, raw_hash);
    }
    batch.put(dbs.issued, key, record);
  }
  for (const auto& [key, record] : before) {
    const auto now = wanted.find(key);
    if (now != wanted.end() && now->second == record) continue;
    for (const std::string& hash : objects_of_issued(key, record)) {
      unreference(batch, dbs, hex_decode(hash).value_or(""));
    }
    if (now == wanted.end()) batch.erase(dbs.issued, key);
  }
}

}  // namespace

Result<uint64_t> StateStore::set_certificates(const CertificateChanges& changes) {
  StateBatch batch(*impl_);
  const IssuedRecords before = issued_in(batch, impl_->dbs);
  LiveState issued;
  if (Result<void> decoded = decode_issued(before, issued); !decoded) return decoded.error();
  for (const auto& [name, record] : changes.certificates) {
    if (record && record->is_issued() && record->certificate_hash != issued.certificates[name].certificate_hash) {
      batch.audit("acme", "certificate", name, fmt::format("issued for {}", fmt::join(record->names, " ")));
    }
    if (record) {
      issued.certificates[name] = *record;
    } else {
      issued.certificates.erase(name);
    }
  }
  for (const auto& [name, record] : changes.staples) {
    if (record && record->status == RevocationStatus::revoked &&
        issued.staples[name].status != RevocationStatus::revoked) {
      batch.audit("ocsp", "revoked", name, record->error);
    }
    if (record) {
      issued.staples[name] = *record;
    } else {
      issued.staples.erase(name);
    }
  }
  if (changes.proofs) issued.proofs = *changes.proofs;
  for (const auto& [directory, hash] : changes.accounts) issued.accounts[directory] = hash;
  const IssuedRecords wanted = encode_issued(issued);
  const uint64_t sequence = batch.number("words");
  if (batch.sound() && wanted == before) return sequence;
  replace_issued(batch, impl_->dbs, before, wanted, changes.objects);
  batch.set_number("words", sequence + 1);
  if (Result<void> committed = batch.commit(); !committed) return committed.error();
  return sequence + 1;
}

Result<void> StateStore::replicate_live_state(const LiveState& live_state,
                                              const std::vector<std::string>& new_objects) {
  StateBatch batch(*impl_);
  const uint64_t before = batch.number("words");
  if (batch.sound() && live_state.sequence == before) return {};
  if (live_state.sequence < before && before < kSiteWords) {
    return fail(
        fmt::format("conflict: live state {} is offered, but {} is in force here", live_state.sequence, before));
  }
  replace_records(batch, impl_->dbs.admin, live_state.overrides, &encode_override);
  replace_records(batch, impl_->dbs.health, live_state.health, &encode_verdict);
  replace_records(batch, impl_->dbs.load, live_state.loads, &encode_load);
  replace_records(batch, impl_->dbs.name, live_state.names, &encode_found_name);
  replace_issued(batch, impl_->dbs, issued_in(batch, impl_->dbs), encode_issued(live_state), new_objects);
  batch.set_number("words", live_state.sequence);
  return batch.commit();
}

}  // namespace tidegate
