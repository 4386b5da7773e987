// SPDX-License-Identifier: Apache-2.0
// Bodies in a content coding. They are only in the memory tier, in the same shard as the response that they were made
// from. When that response is replaced, purged or evicted, they are erased too (Shard::erase). A body of an older fetch
// is never found, because it has the response's generation.
#include "cache/limits.h"
#include "cache/serve/engine.h"
#include "core/assert.h"

namespace tidegate::cache {
namespace {

std::shared_ptr<const StoredObject> coded_object(const StoredHead& head, std::string bytes) {
  auto of_body = std::make_shared<StoredHead>();
  of_body->status = head.status;
  of_body->key = head.key;
  of_body->generation = head.generation;
  of_body->body_bytes = bytes.size();
  auto object = std::make_shared<StoredObject>();
  const auto owner = std::make_shared<const std::string>(std::move(bytes));
  for (size_t at = 0; at < owner->size(); at += kChunkBytes) {
    object->body.push_back({owner, std::string_view(*owner).substr(at, kChunkBytes)});
  }
  object->head = std::move(of_body);
  return object;
}

}  // namespace

std::optional<CodedBody> Engine::find_coded(const StoredHead& head, Coding coding, EventLoop& loop) {
  TIDEGATE_ASSERT(coding != Coding::identity, "a coded body has a coding");
  const KeyHash key = hash_key(keys, head.key);
  const uint64_t variant = variant_hash(keys, head.vary, head.vary_values);
  std::shared_ptr<const StoredObject> object;
  {
    Shard& shard = index.shard(key);
    const MutexLock lock(shard.mutex);
    object = shard.find_coded(key, variant, coding, head.generation);
  }
  if (object == nullptr || object->head->key != head.key) return std::nullopt;
  counters.coded_hits.add();
  const uint64_t bytes = object->head->body_bytes;
  return CodedBody{BodyReader(std::move(object), {0, bytes}, readers_.get(), loop), bytes};
}

void Engine::store_coded(const StoredHead& head, Coding coding, std::string body) {
  TIDEGATE_ASSERT(coding != Coding::identity, "a coded body has a coding");
  if (body.size() > kCodedBytes) return counters.coded_left.add();
  const KeyHash key = hash_key(keys, head.key);
  const uint64_t variant = variant_hash(keys, head.vary, head.vary_values);
  std::shared_ptr<const StoredObject> object = coded_object(head, std::move(body));
  DeferredRelease deferred;
  bool kept = false;
  {
    Shard& shard = index.shard(key);
    const MutexLock lock(shard.mutex);
    kept = shard.keep_coded(key, variant, coding, head.generation, std::move(object), deferred);
  }
  release_deferred(deferred);
  (kept ? counters.coded_stored : counters.coded_left).add();
}

}  // namespace tidegate::cache
