// SPDX-License-Identifier: Apache-2.0
#include "conf/state_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "conf/state_folder.h"
#include "conf/state_records.h"
#include "conf/state_store_impl.h"
#include "core/assert.h"
#include "core/crypto.h"
#include "core/lmdb_check.h"
#include "core/sha256_stream.h"

namespace tidegate {
namespace {

constexpr uint64_t kFormatWithoutSecrets = 1;  // readable until the host's control migrates it

struct NamedDb {
  const char* name;
  MDB_dbi StateDbs::*handle;
  bool of_writer = false;  // a state may lack this one until its writer has opened it
};
// Databases that a state of an earlier release lacks until its writer has opened it.
struct LaterDb {
  const char* name;
  MDB_dbi StateDbs::*handle;
  bool StateDbs::*is_there;
};
constexpr LaterDb kLaterDbs[] = {{kLoadDb, &StateDbs::load, &StateDbs::has_load},
                                 {kIssuedDb, &StateDbs::issued, &StateDbs::has_issued},
                                 {kNameDb, &StateDbs::name, &StateDbs::has_name}};
constexpr NamedDb kDbs[] = {{kSysDb, &StateDbs::sys},
                            {"version", &StateDbs::version},
                            {"entry", &StateDbs::entry},
                            {kObjectDb, &StateDbs::object},
                            {"refs", &StateDbs::refs},
                            {"admin", &StateDbs::admin},
                            {"health", &StateDbs::health},
                            {"purge", &StateDbs::purge},
                            {"audit", &StateDbs::audit},
                            {"answer", &StateDbs::answer, true},
                            {"answered", &StateDbs::answered, true}};

}  // namespace

std::vector<std::pair<std::string_view, MDB_dbi>> all_dbs(const StateDbs& dbs) {
  std::vector<std::pair<std::string_view, MDB_dbi>> all;
  for (const NamedDb& db : kDbs) all.emplace_back(db.name, dbs.*db.handle);
  if (dbs.has_secret) all.emplace_back(kSecretDb, dbs.secret);
  if (dbs.has_load) all.emplace_back(kLoadDb, dbs.load);
  if (dbs.has_issued) all.emplace_back(kIssuedDb, dbs.issued);
  if (dbs.has_name) all.emplace_back(kNameDb, dbs.name);
  return all;
}

const MDB_dbi* find_db(const StateDbs& dbs, std::string_view name) {
  for (const NamedDb& db : kDbs) {
    if (name == db.name) return &(dbs.*db.handle);
  }
  if (name == kSecretDb && dbs.has_secret) return &dbs.secret;
  if (name == kIssuedDb && dbs.has_issued) return &dbs.issued;
  if (name == kNameDb && dbs.has_name) return &dbs.name;
  return name == kLoadDb && dbs.has_load ? &dbs.load : nullptr;
}

std::string_view name_of(const StateDbs& dbs, MDB_dbi db) {
  for (const auto& [name, handle] : all_dbs(dbs)) {
    if (handle == db) return name;
  }
  return {};
}

namespace {

// The handles are valid as long as the environment. A writer creates the missing ones in one transaction.
Result<StateDbs> open_dbs(const lmdb::Env& env, StateStore::Mode mode) {
  const bool writes = mode == StateStore::Mode::read_write;
  Result<lmdb::Txn> txn = lmdb::Txn::begin(env, writes ? lmdb::Access::write : lmdb::Access::read);
  if (!txn) return txn.error();
  StateDbs dbs;
  for (const NamedDb& db : kDbs) {
    if (db.of_writer && !writes) continue;
    const Result<MDB_dbi> handle = txn->open_db(db.name, writes ? MDB_CREATE : 0);
    if (!handle) return handle.error();
    dbs.*db.handle = *handle;
  }
  const std::optional<std::string_view> format = txn->get(dbs.sys, kFormatKey);
  if (!format && writes) {
    if (Result<void> put = txn->put(dbs.sys, kFormatKey, lmdb::be64(kStateFormat)); !put) return put.error();
  } else if (!format || (*format != lmdb::be64(kStateFormat) && *format != lmdb::be64(kFormatWithoutSecrets))) {
    return fail(fmt::format("it has another format than {} and {}, which this release reads", kFormatWithoutSecrets,
                            kStateFormat));
  }
  dbs.is_new = !format;
  dbs.has_secret = !format || *format == lmdb::be64(kStateFormat);
  if (dbs.has_secret) {
    const Result<MDB_dbi> handle = txn->open_db(kSecretDb, writes ? MDB_CREATE : 0);
    if (!handle) return handle.error();
    dbs.secret = *handle;
  }
  for (const LaterDb& db : kLaterDbs) {
    if (const Result<MDB_dbi> handle = txn->open_db(db.name, writes ? MDB_CREATE : 0)) {
      dbs.*db.handle = *handle;
      dbs.*db.is_there = true;
    } else if (writes) {
      return handle.error();
    }
  }
  if (Result<void> committed = txn->commit(); !committed) return committed.error();
  return dbs;
}

// A key that is not a number counts as 0. No writer makes such a key.
uint64_t number_of_key(std::string_view key) { return key.size() == sizeof(uint64_t) ? lmdb::be64(key) : 0; }

template <class Decoded, class Decode>
Result<void> decode_all(const lmdb::Txn& txn, MDB_dbi db, std::map<std::string, Decoded>& out, Decode&& decode) {
  lmdb::Cursor cursor(txn, db);
  for (bool more = cursor.first(); more; more = cursor.next()) {
    Result<Decoded> record = decode(cursor.value());
    if (!record) return record.error();
    out.emplace_hint(out.end(), std::string(cursor.key()), *std::move(record));
  }
  return {};
}

}  // namespace

std::optional<std::string> entry_prefix(std::string_view kind, std::string_view name) {
  if (kind.find('\0') != std::string_view::npos || name.find('\0') != std::string_view::npos) return std::nullopt;
  if (kind.size() + name.size() + 2 + sizeof(uint64_t) > lmdb::kMaxKeyBytes) return std::nullopt;
  std::string prefix;
  prefix.reserve(kind.size() + name.size() + 2 + sizeof(uint64_t));
  return prefix.append(kind).append(1, '\0').append(name).append(1, '\0');
}

std::optional<EntryKey> EntryKey::parse(std::string_view key) {
  const size_t kind_end = key.find('\0');
  if (kind_end == std::string_view::npos) return std::nullopt;
  const size_t name_end = key.find('\0', kind_end + 1);
  if (name_end == std::string_view::npos || key.size() - name_end - 1 != sizeof(uint64_t)) return std::nullopt;
  return EntryKey{key.substr(0, kind_end), key.substr(kind_end + 1, name_end - kind_end - 1),
                  lmdb::be64(key.substr(name_end + 1))};
}

std::string manifest_digest(const std::vector<ManifestEntry>& entries, const ManifestEntry* changed,
                            std::string_view hash) {
  constexpr std::string_view kNul("\0", 1);
  Sha256Stream digest;
  for (const ManifestEntry& entry : entries) {
    for (const std::string_view part : {std::string_view(entry.kind), kNul, std::string_view(entry.name), kNul,
                                        &entry == changed ? hash : entry.hash, std::string_view("\n")}) {
      digest.add(part);
    }
  }
  return digest.hex();
}

Error StateStore::Impl::damaged(const std::string& what) const {
  return fail(fmt::format(
      "the state in {} cannot be used: {}. Stop tidegate-control, move that directory away and start it again: it "
      "begins empty. Then apply the last known document, or put a copy of the directory back",
      env_dir, what));
}

uint64_t StateStore::Impl::number(const lmdb::Txn& txn, std::string_view key) const {
  const std::optional<std::string_view> value = txn.get(dbs.sys, key);
  return value ? number_of_key(*value) : 0;
}

Result<std::vector<ManifestEntry>> StateStore::Impl::entries(const lmdb::Txn& txn, uint64_t version) const {
  std::vector<ManifestEntry> out;
  lmdb::Cursor cursor(txn, dbs.entry);
  // The entries of one object are adjacent, oldest first. The last one that is not newer than the version counts.
  for (bool more = cursor.first(); more; more = cursor.next()) {
    const std::optional<EntryKey> key = EntryKey::parse(cursor.key());
    const std::string_view hash = cursor.value();
    if (!key || (hash.size() != 32 && !hash.empty())) return damaged("a damaged manifest entry");
    if (key->version > version) continue;
    const bool same = !out.empty() && out.back().kind == key->kind && out.back().name == key->name;
    if (!same) out.push_back({std::string(key->kind), std::string(key->name), {}});
    out.back().hash = hex_encode(hash);
  }
  if (Result<void> sound = txn.sound(); !sound) return damaged(sound.error().message);
  std::erase_if(out, [](const ManifestEntry& entry) { return entry.hash.empty(); });
  return out;
}

bool StateStore::Impl::is_secret(const lmdb::Txn& txn, std::string_view raw_hash) const {
  return dbs.has_secret && txn.get(dbs.secret, raw_hash).has_value();
}

Result<const SecretStore*> StateStore::Impl::open_secrets() const {
  TIDEGATE_ASSERT(mode != Mode::without_keys, "a reader without keys opens no keys");
  if (!secrets) {
    Result<std::unique_ptr<SecretStore>> opened = SecretStore::open_for_reading(state_dir);
    if (!opened) return opened.error();
    secrets = *std::move(opened);
  }
  return secrets.get();
}

Result<std::string> StateStore::Impl::object(const lmdb::Txn& txn, const std::string& hash) const {
  const std::string raw_hash = hex_decode(hash).value_or("");
  const std::optional<std::string_view> bytes = txn.get(dbs.object, raw_hash);
  if (Result<void> sound = txn.sound(); !sound) return damaged(sound.error().message);
  if (!bytes && is_secret(txn, raw_hash)) {
    if (mode == Mode::without_keys) return fail("object " + hash + " is a private key, and none are read here");
    const Result<const SecretStore*> keys = open_secrets();
    return keys ? (*keys)->get(raw_hash) : keys.error();
  }
  if (!bytes) return fail("there is no object " + hash);
  if (sha256_hex(*bytes) != hash) return damaged("object " + hash + " is not what its hash says");
  return std::string(*bytes);
}

StateStore::StateStore() : impl_(std::make_unique<Impl>()) {}
StateStore::~StateStore() = default;

const std::string& StateStore::notify_path() const { return impl_->notify_path; }

// Opens the environment and its databases. Closes it again if there is an Error.
Result<void> StateStore::Impl::open_environment() {
  const bool writes = mode == Mode::read_write;
  lmdb::EnvOptions options;
  options.map_bytes = kStateMapBytes;
  options.flags = writes ? 0 : MDB_RDONLY;
  options.file_mode = kStateDataMode;
  Result<lmdb::Env> opened = lmdb::Env::open(env_dir, options);
  if (!opened) return opened.error();
  env.emplace(*std::move(opened));
  if (writes) {
    ::chmod((env_dir + "/lock.mdb").c_str(), kStateLockMode);
    ::chmod((env_dir + "/data.mdb").c_str(), kStateDataMode);
  }
  // If a transaction cannot begin, the cause is the system or another process, and not damage.
  if (const Result<lmdb::Txn> probe = lmdb::Txn::begin(*env, lmdb::Access::read); !probe) {
    return fail("the state in " + env_dir + " cannot be read: " + probe.error().message);
  }
  const Result<StateDbs> opened_dbs = open_dbs(*env, mode);
  if (!opened_dbs) return damaged(opened_dbs.error().message);
  dbs = *opened_dbs;
  return {};
}

Result<std::unique_ptr<StateStore>> StateStore::open(const std::string& state_dir, Mode mode,
                                                     const std::string& secrets_group) {
  std::unique_ptr<StateStore> store(new StateStore());
  Impl& impl = *store->impl_;
  impl.mode = mode;
  impl.state_dir = state_dir;
  impl.env_dir = state_dir + "/state";
  impl.notify_path = state_dir + "/" + kNotifyFile;
  const bool writes = mode == Mode::read_write;
  if (writes) {
    for (const std::string& directory : {state_dir, impl.env_dir}) {
      if (Result<void> made = make_state_folder(directory); !made) return made.error();
    }
    Result<UniqueFd> lock = lock_state_writer(impl.env_dir);
    if (!lock) return lock.error();
    impl.writer_lock = *std::move(lock);
  }
  if (Result<void> sound = check(state_dir); !sound) return impl.damaged(sound.error().message);
  if (Result<void> opened = impl.open_environment(); !opened) return opened.error();
  if (!writes) return store;
  if (Result<void> opened = impl.open_secrets_for_writing(secrets_group); !opened) return opened.error();
  impl.notify_followers();  // the notify file tells followers that there is an environment to open
  return store;
}

Result<void> StateStore::check(const std::string& state_dir) {
  const std::string env_dir = state_dir + "/state";
  struct stat data {};
  const bool empty = ::stat((env_dir + "/data.mdb").c_str(), &data) == 0 && data.st_size == 0;
  if (empty && ::access((state_dir + "/" + kNotifyFile).c_str(), F_OK) == 0) {
    return fail("data.mdb is empty, though the state was in use");
  }
  return lmdb::check(env_dir);
}

Result<StateHead> StateStore::head() const {
  const Result<lmdb::Txn> txn = lmdb::Txn::begin(*impl_->env, lmdb::Access::read);
  if (!txn) return txn.error();
  const StateHead head{impl_->number(*txn, "head"), impl_->number(*txn, "words"), impl_->number(*txn, "purge")};
  if (Result<void> sound = txn->sound(); !sound) return impl_->damaged(sound.error().message);
  return head;
}

Result<Manifest> StateStore::Impl::version_record(const lmdb::Txn& txn, uint64_t version) const {
  const std::optional<std::string_view> record = txn.get(dbs.version, lmdb::be64(version));
  if (Result<void> sound = txn.sound(); !sound) return damaged(sound.error().message);
  if (!record) return fail(fmt::format("there is no version {} (any more)", version));
  return decode_version(version, *record);
}

Result<Manifest> StateStore::manifest_without_entries(uint64_t version) const {
  const Result<lmdb::Txn> txn = lmdb::Txn::begin(*impl_->env, lmdb::Access::read);
  if (!txn) return txn.error();
  return impl_->version_record(*txn, version);
}

Result<Manifest> StateStore::manifest(uint64_t version) const {
  const Result<lmdb::Txn> txn = lmdb::Txn::begin(*impl_->env, lmdb::Access::read);
  if (!txn) return txn.error();
  Result<Manifest> manifest = impl_->version_record(*txn, version);
  if (!manifest) return manifest;
  Result<std::vector<ManifestEntry>> entries = impl_->entries(*txn, version);
  if (!entries) return entries.error();
  manifest->entries = *std::move(entries);
  return manifest;
}

Result<std::vector<Manifest>> StateStore::list_versions(size_t newest) const {
  const Result<lmdb::Txn> txn = lmdb::Txn::begin(*impl_->env, lmdb::Access::read);
  if (!txn) return txn.error();
  std::vector<Manifest> out;
  lmdb::Cursor cursor(*txn, impl_->dbs.version);
  for (bool more = cursor.last(); more && out.size() < newest; more = cursor.previous()) {
    Result<Manifest> manifest = decode_version(number_of_key(cursor.key()), cursor.value());
    if (!manifest) return manifest.error();
    out.push_back(*std::move(manifest));
  }
  if (Result<void> sound = txn->sound(); !sound) return impl_->damaged(sound.error().message);
  return out;
}

bool StateStore::withholds(const std::string& hash) const {
  if (impl_->mode != Mode::without_keys) return false;
  const Result<lmdb::Txn> txn = lmdb::Txn::begin(*impl_->env, lmdb::Access::read);
  return txn && impl_->is_secret(*txn, hex_decode(hash).value_or(""));
}

Result<std::string> StateStore::object(const std::string& hash) const {
  const Result<lmdb::Txn> txn = lmdb::Txn::begin(*impl_->env, lmdb::Access::read);
  if (!txn) return txn.error();
  return impl_->object(*txn, hash);
}

bool StateStore::has_object(const std::string& hash) const {
  const Result<lmdb::Txn> txn = lmdb::Txn::begin(*impl_->env, lmdb::Access::read);
  return txn && txn->get(impl_->dbs.refs, hex_decode(hash).value_or("")).has_value();
}

Result<std::vector<ConfigObject>> StateStore::objects(const Manifest& manifest) const {
  const Result<lmdb::Txn> txn = lmdb::Txn::begin(*impl_->env, lmdb::Access::read);
  if (!txn) return txn.error();
  std::vector<ConfigObject> out;
  out.reserve(manifest.entries.size());
  for (const ManifestEntry& entry : manifest.entries) {
    if (impl_->mode == Mode::without_keys && impl_->is_secret(*txn, hex_decode(entry.hash).value_or(""))) {
      out.push_back({entry.kind, entry.name, {}, true});
      continue;
    }
    Result<std::string> bytes = impl_->object(*txn, entry.hash);
    if (!bytes) return fail(entry.kind + " '" + entry.name + "': " + bytes.error().message);
    out.push_back({entry.kind, entry.name, *std::move(bytes)});
  }
  return out;
}

void StateStore::Impl::find_later_dbs() {
  for (const LaterDb& db : kLaterDbs) {
    if (dbs.*db.is_there) continue;
    Result<lmdb::Txn> txn = lmdb::Txn::begin(*env, lmdb::Access::read);
    if (!txn) return;
    const Result<MDB_dbi> handle = txn->open_db(db.name, 0);
    if (!handle || !txn->commit()) continue;
    dbs.*db.handle = *handle;
    dbs.*db.is_there = true;
  }
}

Result<LiveState> StateStore::live_state() const {
  impl_->find_later_dbs();
  const Result<lmdb::Txn> txn = lmdb::Txn::begin(*impl_->env, lmdb::Access::read);
  if (!txn) return txn.error();
  LiveState live_state;
  live_state.sequence = impl_->number(*txn, "words");
  Result<void> read = decode_all(*txn, impl_->dbs.admin, live_state.overrides, &decode_override);
  if (read) read = decode_all(*txn, impl_->dbs.health, live_state.health, &decode_verdict);
  if (read && impl_->dbs.has_load) read = decode_all(*txn, impl_->dbs.load, live_state.loads, &decode_load);
  if (read && impl_->dbs.has_name) read = decode_all(*txn, impl_->dbs.name, live_state.names, &decode_found_name);
  if (read && impl_->dbs.has_issued) {
    IssuedRecords records;
    read = decode_all(*txn, impl_->dbs.issued, records,
                      [](std::string_view record) -> Result<std::string> { return std::string(record); });
    if (read) read = decode_issued(records, live_state);
  }
  if (read) read = txn->sound();
  if (!read) return impl_->damaged(read.error().message);
  return live_state;
}

Result<std::vector<Purge>> StateStore::purges_after(uint64_t sequence, size_t limit) const {
  const Result<lmdb::Txn> txn = lmdb::Txn::begin(*impl_->env, lmdb::Access::read);
  if (!txn) return txn.error();
  std::vector<Purge> out;
  lmdb::Cursor cursor(*txn, impl_->dbs.purge);
  for (bool more = cursor.seek(lmdb::be64(sequence + 1)); more && out.size() < limit; more = cursor.next()) {
    Result<Purge> purge = decode_purge(number_of_key(cursor.key()), cursor.value());
    if (!purge) return impl_->damaged(purge.error().message);
    out.push_back(*std::move(purge));
  }
  if (Result<void> sound = txn->sound(); !sound) return impl_->damaged(sound.error().message);
  return out;
}

Result<std::vector<AuditRecord>> StateStore::audit_newest(size_t count) const {
  const Result<lmdb::Txn> txn = lmdb::Txn::begin(*impl_->env, lmdb::Access::read);
  if (!txn) return txn.error();
  std::vector<AuditRecord> out;
  lmdb::Cursor cursor(*txn, impl_->dbs.audit);
  for (bool more = cursor.last(); more && out.size() < count; more = cursor.previous()) {
    Result<AuditRecord> record = decode_audit(number_of_key(cursor.key()), cursor.value());
    if (!record) return impl_->damaged(record.error().message);
    out.push_back(*std::move(record));
  }
  if (Result<void> sound = txn->sound(); !sound) return impl_->damaged(sound.error().message);
  return out;
}

Result<std::optional<std::string>> StateStore::kept_answer(std::string_view request) const {
  if (impl_->mode != Mode::read_write) return fail("state: answers are its writer's");
  const Result<lmdb::Txn> txn = lmdb::Txn::begin(*impl_->env, lmdb::Access::read);
  if (!txn) return txn.error();
  const std::optional<std::string_view> record = txn->get(impl_->dbs.answer, request);
  if (Result<void> sound = txn->sound(); !sound) return impl_->damaged(sound.error().message);
  if (!record) return std::optional<std::string>();
  if (record->size() < sizeof(uint64_t)) return impl_->damaged("a damaged answer record");
  return std::optional<std::string>(record->substr(sizeof(uint64_t)));
}

Result<JournalPosition> StateStore::journal_position() const {
  const Result<lmdb::Txn> txn = lmdb::Txn::begin(*impl_->env, lmdb::Access::read);
  if (!txn) return txn.error();
  const JournalPosition position{impl_->number(*txn, kJournalKey),
                                 std::string(txn->get(impl_->dbs.sys, kJournalDigestKey).value_or(""))};
  if (Result<void> sound = txn->sound(); !sound) return impl_->damaged(sound.error().message);
  return position;
}

Result<std::optional<std::string>> StateStore::provisional() const {
  const Result<lmdb::Txn> txn = lmdb::Txn::begin(*impl_->env, lmdb::Access::read);
  if (!txn) return txn.error();
  const std::optional<std::string_view> found = txn->get(impl_->dbs.sys, kProvisionalRecord);
  if (Result<void> sound = txn->sound(); !sound) return impl_->damaged(sound.error().message);
  return found ? std::optional<std::string>(*found) : std::nullopt;
}

Result<WriteSet> StateStore::everything(JournalPosition& position) const {
  const Result<const SecretStore*> keys = impl_->open_secrets();
  if (!keys) return keys.error();
  const Result<lmdb::Txn> txn = lmdb::Txn::begin(*impl_->env, lmdb::Access::read);
  if (!txn) return txn.error();
  WriteSet set;
  set.whole = true;
  for (const auto& [name, db] : all_dbs(impl_->dbs)) {
    lmdb::Cursor cursor(*txn, db);
    for (bool more = cursor.first(); more; more = cursor.next()) {
      const std::string_view key = cursor.key();
      const bool is_own = name == kSysDb && (key == kFormatKey || key == kJournalKey || key == kJournalDigestKey);
      if (!is_own) set.changes.push_back({std::string(name), std::string(key), std::string(cursor.value())});
      if (name != kSecretDb) continue;
      Result<std::string> bytes = (*keys)->get(key);
      if (!bytes) return bytes.error();
      set.secrets.emplace_back(key, *std::move(bytes));
    }
  }
  position = {impl_->number(*txn, kJournalKey), std::string(txn->get(impl_->dbs.sys, kJournalDigestKey).value_or(""))};
  if (Result<void> sound = txn->sound(); !sound) return impl_->damaged(sound.error().message);
  return set;
}

}  // namespace tidegate
