// SPDX-License-Identifier: Apache-2.0
// Writes versions of the configuration, and trims old ones.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "conf/served_version.h"
#include "conf/state_batch.h"
#include "conf/state_records.h"
#include "conf/state_store_impl.h"
#include "core/assert.h"
#include "core/clock.h"
#include "core/crypto.h"

namespace tidegate {
namespace {

// Versions are trimmed one in twenty at a time, because trimming looks at every entry.
constexpr size_t kVersionsSlackShare = 20;

// The change of one object from one version to the next.
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

// The entries that neither a version from `oldest` on nor one of `served` (in order) can see: a newer entry replaces
// them, or they say that an object is gone and there is no older entry that they hide.
std::vector<std::pair<std::string, std::string>> unseen_entries(const StateBatch& batch, const StateDbs& dbs,
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
void trim_versions(StateBatch& batch, const StateDbs& dbs, size_t kept, const std::string& state_dir) {
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

// Writes a version with its `changes`. `bytes_of(entry)` returns the bytes of a manifest entry that the store may lack,
// or null.
template <class BytesOf>
void write_version(StateBatch& batch, const StateStore::Impl& impl, const Manifest& manifest,
                   const std::vector<EntryChange>& changes, BytesOf&& bytes_of) {
  const StateDbs& dbs = impl.dbs;
  for (const auto& [entry, gone] : changes) {
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
const std::vector<ManifestEntry>& head_entries(StateBatch& batch, StateStore::Impl& impl) {
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

// Writes the version after the head, with the entries, author and comment of `manifest`, and its audit record.
// `changed`: the only entry that is not as in the head; null: not known. `bytes_of(entry, index)` returns the bytes of
// an entry that the head lacks.
template <class BytesOf>
Result<Manifest> write_next(StateBatch& batch, StateStore::Impl& impl, Manifest manifest, uint64_t expected_head,
                            const AnswerTo<Manifest>& answer, const ManifestEntry* changed, BytesOf&& bytes_of) {
  const uint64_t head = batch.number("head");
  if (batch.sound() && head != expected_head) {
    return fail(
        fmt::format("conflict: the configuration is at version {}, the change was based on {}", head, expected_head));
  }
  manifest.version = head + 1;
  manifest.created_ns = realtime_ns();
  manifest.digest = manifest_digest(manifest.entries);
  const std::vector<EntryChange> changes = changed != nullptr
                                               ? std::vector<EntryChange>{{changed, false}}
                                               : changes_between(head_entries(batch, impl), manifest.entries);
  write_version(batch, impl, manifest, changes, [&](const ManifestEntry& entry) {
    return bytes_of(entry, static_cast<size_t>(&entry - manifest.entries.data()));
  });
  if (!impl.next_provisional.empty()) {
    batch.put(impl.dbs.sys, kProvisionalRecord, impl.next_provisional);
  } else {
    batch.erase(impl.dbs.sys, kProvisionalRecord);
  }
  batch.audit(manifest.author, manifest.rollback_of == 0 ? "commit" : "rollback",
              fmt::format("version {}", manifest.version), manifest.comment);
  put_answer_to(batch, impl.dbs, answer, manifest);
  if (Result<void> committed = batch.commit(); !committed) return committed.error();
  impl.cached_version = manifest.version;
  impl.cached_entries = manifest.entries;
  return manifest;
}

}  // namespace

void StateStore::keep_versions(size_t count) { impl_->versions_kept = std::max<size_t>(count, 1); }

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

  StateBatch batch(*impl_);
  return write_next(batch, *impl_, std::move(manifest), expected_head, answer, nullptr,
                    [&](const ManifestEntry&, size_t index) { return &order[index]->bytes; });
}

Result<Manifest> StateStore::commit_change(const ConfigObject& object, uint64_t expected_head, std::string_view author,
                                           std::string_view comment) {
  StateBatch batch(*impl_);
  Manifest manifest;
  manifest.author = author;
  manifest.comment = comment;
  const std::vector<ManifestEntry>& head = head_entries(batch, *impl_);
  const auto place = std::lower_bound(head.begin(), head.end(), ManifestEntry{object.kind, object.name, ""});
  if (place == head.end() || place->kind != object.kind || place->name != object.name) {
    return fail(fmt::format("conflict: the configuration has no {} '{}' any more", object.kind, object.name));
  }
  const auto index = static_cast<size_t>(place - head.begin());
  // Taken, because a copy of many entries takes long. After a failure the next write reads them again.
  impl_->cached_version = 0;
  manifest.entries = std::exchange(impl_->cached_entries, {});
  ManifestEntry& entry = manifest.entries[index];
  const std::string hash = sha256_hex(object.bytes);
  const bool changes = entry.hash != hash;
  entry.hash = hash;
  return write_next(batch, *impl_, std::move(manifest), expected_head, {}, changes ? &entry : nullptr,
                    [&](const ManifestEntry&, size_t) { return &object.bytes; });
}

void StateStore::set_next_provisional(std::string record) { impl_->next_provisional = std::move(record); }

Result<void> StateStore::end_provisional(uint64_t version, std::string_view who) {
  StateBatch batch(*impl_);
  const bool in_force = batch.number("head") == version;
  if (batch.sound() && (!in_force || !batch.erase(impl_->dbs.sys, kProvisionalRecord))) {
    return fail(fmt::format("not_provisional: version {}", version));
  }
  batch.audit(who, "confirm", fmt::format("version {}", version), {});
  return batch.commit();
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

  StateBatch batch(*impl_);
  const uint64_t head = batch.number("head");
  if (batch.sound() && replicated.version <= head) {
    return fail(fmt::format("conflict: version {} is offered, but {} is in force here", replicated.version, head));
  }
  const std::vector<EntryChange> changes = changes_between(head_entries(batch, *impl_), replicated.entries);
  write_version(batch, *impl_, replicated, changes, [&](const ManifestEntry& entry) {
    const auto found = bytes_by_hash.find(entry.hash);
    return found == bytes_by_hash.end() ? nullptr : found->second;
  });
  batch.audit(replicated.author, "adopt", fmt::format("version {}", replicated.version), replicated.comment);
  if (Result<void> committed = batch.commit(); !committed) return committed;
  impl_->cached_version = replicated.version;
  impl_->cached_entries = std::move(replicated.entries);
  return {};
}

}  // namespace tidegate
