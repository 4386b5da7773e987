// SPDX-License-Identifier: Apache-2.0
// The writer's transactions: how each item of work becomes records. Nothing here changes the writer's own state. So a
// failed transaction can be written again.
#include <algorithm>
#include <cstring>

#include "cache/disk/writer.h"
#include "cache/policy/validation.h"

namespace tidegate::cache {
namespace {

constexpr size_t kMaxEpochBytes = 16;

template <class... Fns>
struct Overloaded : Fns... {
  using Fns::operator()...;
};
template <class... Fns>
Overloaded(Fns...) -> Overloaded<Fns...>;

Result<void> ignore_absence(const Result<bool>& erased) {
  if (!erased) return erased.error();
  return {};
}

Result<void> put_chunk_value(lmdb::Txn& txn, MDB_dbi db, const ChunkName& name, std::string_view bytes) {
  auto place = txn.reserve(db, chunk_key(name.generation, name.index), bytes.size() + sizeof(uint32_t));
  if (!place) return place.error();
  encode_chunk(*place, name, bytes);
  return {};
}

}  // namespace

Result<void> Writer::write(std::vector<Work>& batch) {
  auto txn = lmdb::Txn::begin(store_.env(), lmdb::Access::write);
  if (!txn) return txn.error();
  for (const Victim& victim : victims_) {
    if (auto done = erase_if_of(*txn, victim.key, victim.variant, victim.generation); !done) return done;
  }
  for (const Reclaim::Chunks& chunks : reclaimed_) {
    if (auto done = erase_chunks(*txn, chunks.generation); !done) return done;
  }
  for (Work& work : batch) {
    if (auto done = apply(*txn, work); !done) return done;
  }
  if (auto done = put_progress(*txn); !done) return done;
  return txn->commit();
}

Result<void> Writer::apply(lmdb::Txn& txn, Work& work) {
  return std::visit(Overloaded{
                        [&](PutChunk& put) { return put_chunk(txn, put); },
                        [&](PutMeta& put) { return put_meta(txn, put); },
                        [&](UpdateMeta& update) { return update_meta(txn, update); },
                        [&](EraseMeta& erase) {
                          return erase_if_of(txn, erase.retired.key, erase.retired.variant,
                                             erase.retired.disk->generation);
                        },
                        [&](PurgeKey& purge) { return purge_key(txn, purge); },
                        [&](PurgeTag& purge) { return purge_tag(txn, purge); },
                        [&](PurgeAll& purge) { return purge_all(txn, purge); },
                        [&](NotePurge& note) -> Result<void> {
                          if (note.anew || note.position.sequence > noted_.sequence) noted_ = note.position;
                          return {};
                        },
                        [](Flush&) -> Result<void> { return {}; },
                        [](LetGo&) -> Result<void> { return {}; },
                        [](TakeBack&) -> Result<void> { return {}; },
                    },
                    work);
}

Result<void> Writer::put_chunk(lmdb::Txn& txn, PutChunk& put) {
  put.written = !put.disk->doomed.load(std::memory_order_acquire);
  if (!put.written) return {};
  return put_chunk_value(txn, store_.chunk_db(), {put.disk->key, put.disk->generation, put.index}, put.bytes.bytes);
}

Result<void> Writer::put_meta(lmdb::Txn& txn, PutMeta& put) {
  put.written = !put.disk->doomed.load(std::memory_order_acquire);
  if (!put.written) return {};
  return put_record(txn, put.key, put.variant, *put.head, put.disk->generation, put.received_ms);
}

Result<void> Writer::put_record(lmdb::Txn& txn, const KeyHash& key, uint64_t variant, const StoredHead& head,
                                uint64_t disk_generation, uint64_t received_ms) {
  std::string apart;
  const std::string name = meta_key(key, variant);
  const std::string record = encode_meta(name, head, disk_generation, received_ms, apart);
  if (!apart.empty()) {
    const ChunkName chunk{key, disk_generation, kHeadChunk};
    if (auto done = put_chunk_value(txn, store_.chunk_db(), chunk, apart); !done) return done;
  }
  return txn.put(store_.meta_db(), name, record);
}

Result<void> Writer::update_meta(lmdb::Txn& txn, const UpdateMeta& update) {
  bool damaged = false;
  const auto meta = store_.read_meta(txn, update.key, update.variant, damaged);
  if (!meta || meta->disk_generation != update.disk->generation) return {};
  if (update.head != nullptr) {
    return put_record(txn, update.key, update.variant, *update.head, meta->disk_generation, update.received_ms);
  }
  meta->head->freshness = update.freshness;
  return put_record(txn, update.key, update.variant, *meta->head, meta->disk_generation, meta->received_ms);
}

// Another body may have taken the place meanwhile. Then its record stays.
Result<void> Writer::erase_if_of(lmdb::Txn& txn, const KeyHash& key, uint64_t variant, uint64_t disk_generation) {
  const std::string name = meta_key(key, variant);
  const auto record = txn.get(store_.meta_db(), name);
  if (!record) return {};
  const auto meta = Store::copy_meta(txn, name, *record);
  if (meta && meta->disk_generation != disk_generation) return {};
  return ignore_absence(txn.erase(store_.meta_db(), name));
}

Result<void> Writer::erase_chunks(lmdb::Txn& txn, uint64_t generation) {
  const std::string prefix = lmdb::be64(generation);
  std::vector<std::string> keys;
  {
    lmdb::Cursor cursor(txn, store_.chunk_db());
    for (bool more = cursor.seek(prefix); more && cursor.key().starts_with(prefix); more = cursor.next()) {
      keys.emplace_back(cursor.key());
    }
  }
  for (const std::string& key : keys) {
    if (auto done = ignore_absence(txn.erase(store_.chunk_db(), key)); !done) return done;
  }
  return {};
}

Result<void> Writer::purge_key(lmdb::Txn& txn, const PurgeKey& purge) {
  const std::string prefix = meta_key(purge.key, 0).substr(0, 16);
  std::vector<std::string> keys;
  {
    lmdb::Cursor cursor(txn, store_.meta_db());
    for (bool more = cursor.seek(prefix); more && cursor.key().starts_with(prefix); more = cursor.next()) {
      const auto meta = Store::copy_meta(txn, cursor.key(), cursor.value());
      if (!meta || meta->head->generation <= purge.generation) keys.emplace_back(cursor.key());
    }
  }
  for (const std::string& key : keys) {
    if (auto done = ignore_absence(txn.erase(store_.meta_db(), key)); !done) return done;
  }
  return {};
}

Result<void> Writer::purge_tag(lmdb::Txn& txn, const PurgeTag& purge) {
  const std::string name = lmdb::be64(purge.tag);
  const auto value = txn.get_copy(store_.tag_db(), name, kMaxEpochBytes);
  auto [hard, soft] =
      value ? decode_u64s(*value).value_or(std::pair<uint64_t, uint64_t>()) : std::pair<uint64_t, uint64_t>();
  uint64_t& epoch = purge.soft ? soft : hard;
  epoch = std::max(epoch, purge.generation);
  return txn.put(store_.tag_db(), name, encode_u64s(hard, soft));
}

Result<void> Writer::purge_all(lmdb::Txn& txn, const PurgeAll& purge) {
  const auto value = txn.get_copy(store_.sys_db(), "all", kMaxEpochBytes);
  auto [hard, soft] =
      value ? decode_u64s(*value).value_or(std::pair<uint64_t, uint64_t>()) : std::pair<uint64_t, uint64_t>();
  uint64_t& epoch = purge.soft ? soft : hard;
  epoch = std::max(epoch, purge.generation);
  if (!purge.soft) {
    if (auto cleared = txn.clear(store_.tag_db()); !cleared) return cleared;
  }
  return txn.put(store_.sys_db(), "all", encode_u64s(hard, soft));
}

Result<void> Writer::put_progress(lmdb::Txn& txn) {
  return store_.put_progress(txn, client_.next_generation(), noted_);
}

}  // namespace tidegate::cache
