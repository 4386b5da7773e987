// SPDX-License-Identifier: Apache-2.0
// The writing half of StateStore. One write is one transaction with its audit record and the answer to it. Then the
// notify file is touched.
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>

#include "conf/served_version.h"
#include "conf/state_records.h"
#include "conf/state_store_impl.h"
#include "core/assert.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "core/fd.h"
#include "core/log.h"

namespace tidegate {
namespace {

// Limits of the histories. Versions are trimmed one in twenty at a time, because trimming looks at every entry.
constexpr size_t kVersionsSlackShare = 20;
constexpr uint64_t kPurgesKept = 10'000;
constexpr uint64_t kAuditsKept = 100'000;
constexpr uint64_t kScarceBytes = 1 << 20;  // with less free space than this, the disk counts as full

constexpr std::string_view kNoRoom = "state: no room: ";

// LMDB returns EIO for a write that was cut short, for example by a full disk.
bool has_no_room(const std::string& message, const std::string& directory) {
  for (const int number : {ENOSPC, EDQUOT, EFBIG, MDB_MAP_FULL}) {
    if (message.ends_with(mdb_strerror(number))) return true;
  }
  struct statvfs disk {};
  return message.ends_with(mdb_strerror(EIO)) && ::statvfs(directory.c_str(), &disk) == 0 &&
         disk.f_bavail * disk.f_frsize < kScarceBytes;
}

// A write transaction that remembers its first fault. After a fault, later steps do nothing and commit() returns the
// fault.
class Batch {
 public:
  explicit Batch(const StateStore::Impl& impl) : impl_(impl) {
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

  bool sound() const { return !fault_; }
  const lmdb::Txn& txn() const { return *txn_; }  // use it only while sound() is true
  void refuse(Error fault) {
    if (!fault_) fault_ = std::move(fault);
  }

  std::optional<std::string> get(MDB_dbi db, std::string_view key) const {
    if (fault_) return std::nullopt;
    const std::optional<std::string_view> value = txn_->get(db, key);
    return value ? std::optional<std::string>(*value) : std::nullopt;
  }
  void put(MDB_dbi db, std::string_view key, std::string_view value) {
    if (fault_) return;
    if (Result<void> done = txn_->put(db, key, value); !done) return refuse(done.error());
    if (impl_.trial) tried_.push_back({std::string(name_of(impl_.dbs, db)), std::string(key), std::string(value)});
  }
  bool erase(MDB_dbi db, std::string_view key) {
    if (fault_) return false;
    const Result<bool> erased = txn_->erase(db, key);
    if (!erased) refuse(erased.error());
    if (impl_.trial && erased && *erased) {
      tried_.push_back({std::string(name_of(impl_.dbs, db)), std::string(key), std::nullopt});
    }
    return erased && *erased;
  }

  void clear(MDB_dbi db) {
    if (fault_) return;
    if (Result<void> done = txn_->clear(db); !done) refuse(done.error());
  }
  // Private keys that another host's write brings, or may have left without a name.
  void add_secrets(const std::vector<std::pair<std::string, std::string>>& secrets) {
    new_secrets_.insert(new_secrets_.end(), secrets.begin(), secrets.end());
  }
  void touch_secret(const std::string& raw_hash) { touched_secrets_.push_back(raw_hash); }

  // A private key goes into the SecretStore, where it is on the disk before this transaction is.
  void put_object(const std::string& raw_hash, const std::string& bytes) {
    if (!holds_private_key(bytes)) return put(impl_.dbs.object, raw_hash, bytes);
    put(impl_.dbs.secret, raw_hash, "");
    if (!fault_) new_secrets_.emplace_back(raw_hash, bytes);
  }
  void erase_object(const std::string& raw_hash) {
    erase(impl_.dbs.object, raw_hash);
    if (erase(impl_.dbs.secret, raw_hash)) touched_secrets_.push_back(raw_hash);
  }

  uint64_t number(std::string_view key) const { return fault_ ? 0 : impl_.number(*txn_, key); }
  void set_number(std::string_view key, uint64_t value) { put(impl_.dbs.sys, key, lmdb::be64(value)); }

  // Appends to a log. Its own writer numbers it without gaps; a log from another host may have gaps.
  void append(MDB_dbi log, uint64_t sequence, std::string_view record, uint64_t kept) {
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

  void audit(std::string_view who, std::string_view action, std::string_view target, std::string_view detail) {
    const uint64_t sequence = number("audit") + 1;
    const AuditRecord record{
        sequence, realtime_ns(), std::string(who), std::string(action), std::string(target), std::string(detail)};
    append(impl_.dbs.audit, sequence, encode_audit(record), kAuditsKept);
    set_number("audit", sequence);
  }

  Result<void> commit() {
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
    if (fault_ && has_no_room(fault_->message, impl_.env_dir)) {
      return fail(fmt::format("{}the disk that holds {} is full ({}); nothing was changed", kNoRoom, impl_.env_dir,
                              fault_->message));
    }
    if (fault_) return fail("state: " + fault_->message);
    impl_.notify_followers();
    return {};
  }

 private:
  const StateStore::Impl& impl_;
  std::optional<lmdb::Txn> txn_;
  std::optional<Error> fault_;
  std::vector<std::pair<std::string, std::string>> new_secrets_;  // hash and bytes
  std::vector<WriteSet::Change> tried_;                           // in a trial
  std::vector<std::string> touched_secrets_;                      // what to keep only if it is named afterwards
};

// --- versions

// How one object changes from one version to the next.
struct EntryChange {
  const ManifestEntry* entry;  // the new entry; if the object is gone, the old one
  bool gone;
};

std::vector<EntryChange> changes_between(const std::vector<ManifestEntry>& from, const std::vector<ManifestEntry>& to) {
  std::vector<EntryChange> out;
  const auto less = [](const ManifestEntry& a, const ManifestEntry& b) {
    return a.kind != b.kind ? a.kind < b.kind : a.name < b.name;
  };
  auto old = from.begin();
  for (const ManifestEntry& entry : to) {
    for (; old != from.end() && less(*old, entry); ++old) out.push_back({&*old, true});
    const bool same_object = old != from.end() && !less(entry, *old);
    if (!same_object || old->hash != entry.hash) out.push_back({&entry, false});
    if (same_object) ++old;
  }
  for (; old != from.end(); ++old) out.push_back({&*old, true});
  return out;
}

// Refuses names that no manifest can hold. The entries must be sorted.
Result<void> check_names(const std::vector<ManifestEntry>& entries) {
  for (size_t i = 0; i < entries.size(); ++i) {
    const ManifestEntry& entry = entries[i];
    if (!entry_prefix(entry.kind, entry.name)) {
      return fail(fmt::format("{} '{:.40}...': a name has no NUL and 490 bytes at most", entry.kind, entry.name));
    }
    if (i > 0 && entry.kind == entries[i - 1].kind && entry.name == entries[i - 1].name) {
      return fail(fmt::format("{} '{}' is there twice", entry.kind, entry.name));
    }
  }
  return {};
}

void reference(Batch& batch, const StateDbs& dbs, const std::string& raw_hash) {
  const std::optional<std::string> count = batch.get(dbs.refs, raw_hash);
  batch.put(dbs.refs, raw_hash, lmdb::be64((count ? lmdb::be64(*count) : 0) + 1));
}

// Removing the last reference also removes the object.
void unreference(Batch& batch, const StateDbs& dbs, const std::string& raw_hash) {
  const std::optional<std::string> count = batch.get(dbs.refs, raw_hash);
  if (!count) return;
  if (lmdb::be64(*count) > 1) return batch.put(dbs.refs, raw_hash, lmdb::be64(lmdb::be64(*count) - 1));
  batch.erase(dbs.refs, raw_hash);
  batch.erase_object(raw_hash);
}

// The entries that neither a version from `oldest` on nor one of `served` (in order) can see: a newer entry replaces
// them, or they say that an object is gone and hide none that stays.
std::vector<std::pair<std::string, std::string>> unseen_entries(const Batch& batch, const StateDbs& dbs,
                                                                uint64_t oldest, const std::vector<uint64_t>& served) {
  std::vector<std::pair<std::string, std::string>> unseen;
  std::pair<std::string, std::string> previous;  // the newest entry of the same object at or below `oldest` so far
  uint64_t since = 0;                            // the version of that entry
  bool hides = false;                            // an older entry of the same object stays
  const auto same_object = [](std::string_view a, std::string_view b) {
    return a.size() == b.size() && a.substr(0, a.size() - 8) == b.substr(0, b.size() - 8);
  };
  const auto seen_before = [&](uint64_t until) {
    const auto first = std::lower_bound(served.begin(), served.end(), since);
    return first != served.end() && *first < until;
  };
  // No version from `until` on sees the previous entry.
  const auto leave = [&](uint64_t until) {
    if (previous.first.empty()) return;
    const bool gone = previous.second.empty();
    if (gone ? !hides : !seen_before(until)) {
      unseen.push_back(previous);
    } else {
      hides = true;
    }
  };
  lmdb::Cursor cursor(batch.txn(), dbs.entry);
  for (bool more = cursor.first(); more; more = cursor.next()) {
    const std::optional<EntryKey> key = EntryKey::parse(cursor.key());
    if (!key || key->version > oldest) continue;
    if (!previous.first.empty() && same_object(previous.first, cursor.key())) {
      leave(key->version);
    } else {
      if (previous.second.empty()) leave(UINT64_MAX);
      hides = false;
    }
    previous = {std::string(cursor.key()), std::string(cursor.value())};
    since = key->version;
  }
  if (previous.second.empty()) leave(UINT64_MAX);
  return unseen;
}

// Versions that planes of this host may go back to stay.
void trim_versions(Batch& batch, const StateDbs& dbs, size_t kept, const std::string& state_dir) {
  if (!batch.sound() || batch.txn().entries(dbs.version) <= kept + kept / kVersionsSlackShare) return;
  const std::vector<uint64_t> served = served_versions(state_dir);
  std::vector<std::string> too_old;
  uint64_t oldest_kept = 0;
  {
    const size_t excess = batch.txn().entries(dbs.version) - kept;
    lmdb::Cursor cursor(batch.txn(), dbs.version);
    bool more = cursor.first();
    for (size_t passed = 0; more && passed < excess; more = cursor.next(), ++passed) {
      const bool stays = std::binary_search(served.begin(), served.end(), lmdb::be64(cursor.key()));
      if (!stays) too_old.emplace_back(cursor.key());
    }
    if (more) oldest_kept = lmdb::be64(cursor.key());
  }
  for (const std::string& key : too_old) batch.erase(dbs.version, key);
  if (!batch.sound()) return;
  for (const auto& [key, raw_hash] : unseen_entries(batch, dbs, oldest_kept, served)) {
    batch.erase(dbs.entry, key);
    if (!raw_hash.empty()) unreference(batch, dbs, raw_hash);
  }
}

// Writes a version. `bytes_of(entry)` returns the bytes of a manifest entry that the store may lack, or null.
template <class BytesOf>
void write_version(Batch& batch, const StateStore::Impl& impl, const Manifest& manifest,
                   const std::vector<ManifestEntry>& from, BytesOf&& bytes_of) {
  const StateDbs& dbs = impl.dbs;
  for (const auto& [entry, gone] : changes_between(from, manifest.entries)) {
    const std::string raw_hash = gone ? "" : hex_decode(entry->hash).value_or("");
    batch.put(dbs.entry, *entry_prefix(entry->kind, entry->name) + lmdb::be64(manifest.version), raw_hash);
    if (gone) continue;
    if (!batch.get(dbs.refs, raw_hash)) {
      const std::string* bytes = bytes_of(*entry);
      if (bytes == nullptr) return batch.refuse(fail(fmt::format("object {} is missing", entry->hash)));
      batch.put_object(raw_hash, *bytes);
    }
    reference(batch, dbs, raw_hash);
  }
  batch.put(dbs.version, lmdb::be64(manifest.version), encode_version(manifest));
  batch.set_number("head", manifest.version);
  trim_versions(batch, dbs, impl.versions_kept, impl.state_dir);
}

// The entries of the head's manifest. They come from memory if this writer wrote the head last.
const std::vector<ManifestEntry>& head_entries(Batch& batch, StateStore::Impl& impl) {
  const uint64_t head = batch.number("head");
  if (!batch.sound() || impl.cached_version == head) return impl.cached_entries;
  Result<std::vector<ManifestEntry>> entries = impl.entries(batch.txn(), head);
  if (!entries) {
    batch.refuse(entries.error());
    return impl.cached_entries;
  }
  impl.cached_version = head;
  return impl.cached_entries = *std::move(entries);
}

void erase_answer(Batch& batch, const StateDbs& dbs, const std::string& request) {
  const std::optional<std::string> record = batch.get(dbs.answer, request);
  if (!record || record->size() < sizeof(uint64_t)) return;
  const uint64_t bytes = batch.number("answer_bytes");
  batch.set_number("answer_bytes", bytes - std::min<uint64_t>(bytes, record->size()));
  batch.erase(dbs.answered, record->substr(0, sizeof(uint64_t)));
  batch.erase(dbs.answer, request);
}

// The answer that was stored first, or nothing.
std::optional<std::pair<std::string, std::string>> oldest_answer(const Batch& batch, const StateDbs& dbs) {
  if (!batch.sound()) return std::nullopt;
  lmdb::Cursor cursor(batch.txn(), dbs.answered);
  if (!cursor.first()) return std::nullopt;
  return std::pair(std::string(cursor.key()), std::string(cursor.value()));
}

void put_answer(Batch& batch, const StateDbs& dbs, const KeptAnswer& kept) {
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

template <class Written>
void put_answer_to(Batch& batch, const StateDbs& dbs, const AnswerTo<Written>& answer, const Written& written) {
  if (answer && batch.sound()) put_answer(batch, dbs, answer(written));
}

// Writes the version after the head, with the entries, author and comment of `manifest`, and its audit record.
// `bytes_of(entry, index)` returns the bytes of an entry that the head lacks.
template <class BytesOf>
Result<Manifest> write_next(Batch& batch, StateStore::Impl& impl, Manifest manifest, uint64_t expected_head,
                            const AnswerTo<Manifest>& answer, BytesOf&& bytes_of) {
  const uint64_t head = batch.number("head");
  if (batch.sound() && head != expected_head) {
    return fail(
        fmt::format("conflict: the configuration is at version {}, the change was based on {}", head, expected_head));
  }
  manifest.version = head + 1;
  manifest.created_ns = realtime_ns();
  manifest.digest = manifest_digest(manifest.entries);
  write_version(batch, impl, manifest, head_entries(batch, impl), [&](const ManifestEntry& entry) {
    return bytes_of(entry, static_cast<size_t>(&entry - manifest.entries.data()));
  });
  batch.audit(manifest.author, manifest.rollback_of == 0 ? "commit" : "rollback",
              fmt::format("version {}", manifest.version), manifest.comment);
  put_answer_to(batch, impl.dbs, answer, manifest);
  if (Result<void> committed = batch.commit(); !committed) return committed.error();
  impl.cached_version = manifest.version;
  impl.cached_entries = manifest.entries;
  return manifest;
}

// Makes `db` contain exactly `records`. Writes only what differs.
template <class Record, class Encode>
void replace_records(Batch& batch, MDB_dbi db, const std::map<std::string, Record>& records, Encode&& encode) {
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

}  // namespace

void StateStore::keep_versions(size_t count) { impl_->versions_kept = std::max<size_t>(count, 1); }

bool is_damage(const Error& error) {
  return error.message.starts_with("the state in ") && error.message.find(" cannot be used: ") != std::string::npos;
}

bool is_disk_full(const Error& error) { return error.message.starts_with(kNoRoom); }

// Opened again each time, so that the notify file is created again if someone removed it.
void StateStore::Impl::notify_followers() const {
  const UniqueFd notify(::open(notify_path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0640));
  if (!notify || ::pwrite(notify.get(), "!", 1, 0) != 1) {
    log_warn("cannot touch {}; followers will find the change by polling", notify_path);
  }
}

Result<Manifest> StateStore::commit_version(const std::vector<ConfigObject>& objects, uint64_t expected_head,
                                            std::string_view author, std::string_view comment, uint64_t rollback_of,
                                            const AnswerTo<Manifest>& answer) {
  std::vector<const ConfigObject*> order;
  order.reserve(objects.size());
  for (const ConfigObject& object : objects) order.push_back(&object);
  std::sort(order.begin(), order.end(), [](const ConfigObject* a, const ConfigObject* b) {
    return a->kind != b->kind ? a->kind < b->kind : a->name < b->name;
  });
  Manifest manifest;
  manifest.entries.reserve(order.size());
  for (const ConfigObject* object : order) {
    manifest.entries.push_back({object->kind, object->name, sha256_hex(object->bytes)});
  }
  if (Result<void> sound = check_names(manifest.entries); !sound) return sound.error();
  manifest.author = author;
  manifest.comment = comment;
  manifest.rollback_of = rollback_of;

  Batch batch(*impl_);
  return write_next(batch, *impl_, std::move(manifest), expected_head, answer,
                    [&](const ManifestEntry&, size_t index) { return &order[index]->bytes; });
}

Result<Manifest> StateStore::commit_change(const ConfigObject& object, uint64_t expected_head, std::string_view author,
                                           std::string_view comment) {
  Batch batch(*impl_);
  Manifest manifest;
  manifest.author = author;
  manifest.comment = comment;
  manifest.entries = head_entries(batch, *impl_);
  const auto entry =
      std::lower_bound(manifest.entries.begin(), manifest.entries.end(), ManifestEntry{object.kind, object.name, ""});
  if (entry == manifest.entries.end() || entry->kind != object.kind || entry->name != object.name) {
    return fail(fmt::format("conflict: the configuration has no {} '{}' any more", object.kind, object.name));
  }
  entry->hash = sha256_hex(object.bytes);
  return write_next(batch, *impl_, std::move(manifest), expected_head, {},
                    [&](const ManifestEntry&, size_t) { return &object.bytes; });
}

Result<void> StateStore::replicate_version(const Manifest& manifest,
                                           const std::vector<std::pair<std::string, std::string>>& new_objects) {
  std::map<std::string_view, const std::string*> bytes_by_hash;
  for (const auto& [hash, bytes] : new_objects) {
    if (sha256_hex(bytes) != hash) return fail("object " + hash + " is not what its hash says");
    bytes_by_hash.emplace(hash, &bytes);
  }
  Manifest replicated = manifest;
  std::sort(replicated.entries.begin(), replicated.entries.end());
  if (Result<void> sound = check_names(replicated.entries); !sound) return sound;
  if (manifest_digest(replicated.entries) != replicated.digest) {
    return fail(fmt::format("version {}: the manifest is not what its digest says", replicated.version));
  }

  Batch batch(*impl_);
  const uint64_t head = batch.number("head");
  if (batch.sound() && replicated.version <= head) {
    return fail(fmt::format("conflict: version {} is offered, but {} is in force here", replicated.version, head));
  }
  write_version(batch, *impl_, replicated, head_entries(batch, *impl_), [&](const ManifestEntry& entry) {
    const auto found = bytes_by_hash.find(entry.hash);
    return found == bytes_by_hash.end() ? nullptr : found->second;
  });
  batch.audit(replicated.author, "adopt", fmt::format("version {}", replicated.version), replicated.comment);
  if (Result<void> committed = batch.commit(); !committed) return committed;
  impl_->cached_version = replicated.version;
  impl_->cached_entries = std::move(replicated.entries);
  return {};
}

// --- live state

Result<uint64_t> StateStore::set_override(const std::string& key, const std::optional<Override>& record,
                                          std::string_view who) {
  Batch batch(*impl_);
  const uint64_t sequence = batch.number("words") + 1;
  if (record) {
    batch.put(impl_->dbs.admin, key, encode_override(*record));
  } else {
    batch.erase(impl_->dbs.admin, key);
  }
  const char* action = !record                                ? "undrain"
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
  Batch batch(impl);
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

Result<uint64_t> StateStore::set_site_verdicts(
    const std::vector<std::pair<std::string, std::optional<HealthVerdict>>>& verdicts) {
  Batch batch(*impl_);
  for (const auto& [key, verdict] : verdicts) {
    if (verdict) {
      batch.put(impl_->dbs.health, key, encode_verdict(*verdict));
    } else {
      batch.erase(impl_->dbs.health, key);
    }
  }
  const uint64_t sequence = std::max(batch.number("words"), kSiteWords) + 1;
  batch.set_number("words", sequence);
  // Where writes are decided elsewhere, this state is no longer what was decided: it is to be fetched again.
  if (batch.number(kJournalKey) != 0) batch.put(impl_->dbs.sys, kJournalDigestKey, "");
  if (Result<void> committed = batch.commit(); !committed) return committed.error();
  return sequence;
}

namespace {

IssuedRecords issued_in(const Batch& batch, const StateDbs& dbs) {
  IssuedRecords records;
  if (!batch.sound()) return records;
  lmdb::Cursor cursor(batch.txn(), dbs.issued);
  for (bool more = cursor.first(); more; more = cursor.next()) records.emplace(cursor.key(), cursor.value());
  return records;
}

// Makes the database `issued` contain exactly `wanted`. Objects are counted as those of versions are: what a new record
// names is stored before what an old one names is let go. `new_objects` has the bytes of those that the store lacks.
void replace_issued(Batch& batch, const StateDbs& dbs, const IssuedRecords& before, const IssuedRecords& wanted,
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
  Batch batch(*impl_);
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
  Batch batch(*impl_);
  const uint64_t before = batch.number("words");
  if (batch.sound() && live_state.sequence == before) return {};
  if (live_state.sequence < before && before < kSiteWords) {
    return fail(
        fmt::format("conflict: live state {} is offered, but {} is in force here", live_state.sequence, before));
  }
  replace_records(batch, impl_->dbs.admin, live_state.overrides, &encode_override);
  replace_records(batch, impl_->dbs.health, live_state.health, &encode_verdict);
  replace_records(batch, impl_->dbs.load, live_state.loads, &encode_load);
  replace_issued(batch, impl_->dbs, issued_in(batch, impl_->dbs), encode_issued(live_state), new_objects);
  batch.set_number("words", live_state.sequence);
  return batch.commit();
}

// --- logs

Result<uint64_t> StateStore::add_purge(PurgeKind kind, std::string_view value, bool soft, std::string_view who,
                                       const AnswerTo<uint64_t>& answer) {
  Batch batch(*impl_);
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
  Batch batch(*impl_);
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

// The trial may have put its entries into the cache, and its write was not decided.
void StateStore::forget_trial() {
  impl_->cached_version = 0;
  impl_->cached_entries.clear();
}

Result<void> StateStore::adopt(const WriteSet& set, const JournalPosition& position, bool own) {
  TIDEGATE_ASSERT(!impl_->trial, "a decided write is adopted outside of a trial");
  const StateDbs& dbs = impl_->dbs;
  if (!own) forget_trial();
  Batch batch(*impl_);
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
  Batch batch(*impl_);
  batch.set_number(kJournalKey, position.sequence);
  batch.put(impl_->dbs.sys, kJournalDigestKey, position.digest);
  return batch.commit();
}

Result<void> StateStore::keep_answer(const KeptAnswer& kept) {
  Batch batch(*impl_);
  put_answer(batch, impl_->dbs, kept);
  return batch.commit();
}

}  // namespace tidegate
