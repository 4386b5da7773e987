// SPDX-License-Identifier: Apache-2.0
// Removal: purges by URL, by tag and of everything, and the invalidation after unsafe requests.
#include "cache/policy/fields.h"
#include "cache/serve/engine.h"
#include "cache/serve/flight.h"
#include "conf/model/route.h"
#include "core/clock.h"
#include "core/log.h"

namespace tidegate::cache {
namespace {

std::string_view origin_of(std::string_view key) {  // "https://host" of "https://host/path"
  const size_t host = key.find("://");
  return host == std::string_view::npos ? std::string_view() : key.substr(0, key.find('/', host + 3));
}

}  // namespace

void Engine::purge(const Purge& purge, const std::vector<std::string>& keys_of_url) {
  // Each sequence is applied once. A purge with sequence 0 has no number and is always applied.
  const bool counts = purge.sequence != 0 || purge.anew;
  if (counts) {
    const MutexLock lock(purge_mutex_);
    if (purge.sequence <= last_purge_.sequence && !purge.anew) return;
    last_purge_ = {purge.sequence, purge.at_ns};
  }

  if (purge.kind == PurgeKind::url) {
    const uint64_t now_ms = realtime_ns() / kNsPerMs;
    const auto as_said = make_key(purge.value, RouteCache{});
    if (as_said) purge_key(hash_key(keys, *as_said), purge.soft, now_ms);
    for (const std::string& key : keys_of_url) {
      if (key != as_said) purge_key(hash_key(keys, key), purge.soft, now_ms);
    }
    if (!as_said && keys_of_url.empty()) {
      log_warn("cache: purge {}: not an absolute http or https URL: {}", purge.sequence, purge.value);
    }
  } else {
    const uint64_t generation = take_generation();
    if (purge.kind == PurgeKind::tag) {
      const uint64_t tag = tag_hash(keys, purge.value);
      purges.purge_tag(tag, generation, purge.soft);
      if (writer_ != nullptr) writer_->submit(PurgeTag{tag, generation, purge.soft});
    } else {
      purges.purge_all(generation, purge.soft);
      if (writer_ != nullptr) writer_->submit(PurgeAll{generation, purge.soft});
    }
  }
  if (counts && writer_ != nullptr) writer_->submit(NotePurge{{purge.sequence, purge.at_ns}, purge.anew});
}

PurgePosition Engine::durable_purge() const {
  if (writer_ != nullptr) return writer_->purged_to();
  const MutexLock lock(purge_mutex_);
  return last_purge_;
}

// Removes all variants and disowns flights. A soft purge makes them stale, so that stale-while-revalidate and
// validation still work. The writer is told only if something was stored, or may be on disk without having been read.
// So unsafe requests for URLs that are not stored cost it nothing.
void Engine::purge_key(const KeyHash& key, bool soft, uint64_t now_ms) {
  const uint64_t generation = take_generation();
  bool matters = false;
  {
    const MutexLock lock(loading_mutex_);
    if (loading_) {
      matters = purged_while_loading_.insert_or_assign(key, generation).second;
      soft = false;  // records that are not read yet cannot be made stale
    }
  }
  DeferredRelease deferred;
  std::vector<UpdateMeta> updates;
  {
    Shard& shard = index.shard(key);
    const MutexLock lock(shard.mutex);
    if (Bucket* bucket = shard.find(key)) {
      for (const auto& flight : bucket->flights) matters |= flight->disown();
      for (const auto& entry : std::vector(bucket->entries)) {
        counters.purged.add();
        matters = true;
        if (!soft) {
          shard.erase(*entry, deferred);
          continue;
        }
        const uint64_t born_ms = entry->freshness.born_ms;
        const uint64_t lived_ms = now_ms > born_ms ? now_ms - born_ms : 0;  // also if the clock was set back
        entry->freshness.lifetime_ms = std::min(entry->freshness.lifetime_ms, lived_ms);
        if (entry->disk != nullptr)
          updates.push_back({key, entry->variant, nullptr, entry->freshness, now_ms, entry->disk});
      }
    }
  }
  release_deferred(deferred);
  if (writer_ == nullptr) return;
  for (UpdateMeta& update : updates) writer_->submit(std::move(update));
  if (!soft && matters) writer_->submit(PurgeKey{key, generation});
}

void Engine::invalidate_key(const std::string& key, const RouteCache& policy, uint64_t now_ms) {
  purge_key(hash_key(keys, key), false, now_ms);
  if (policy.purge_both_schemes) purge_key(hash_key(keys, other_scheme_key(key)), false, now_ms);
}

// RFC 9111 §4.4: the target and, on the same origin, the URLs in Location and Content-Location.
void Engine::invalidate(const RequestView& request, const RouteCache& policy, const ResponseView& response) {
  if (!policy.enabled || !invalidates(request.method, response.status)) return;
  std::string target;
  make_key(request, policy, target);
  const uint64_t now_ms = response.response_ms;
  invalidate_key(target, policy, now_ms);
  for (const http1::Field& field : response.fields) {
    if (!same_name(field.name, "location") && !same_name(field.name, "content-location")) continue;
    const std::string_view origin = origin_of(target);
    const bool relative = field.value.starts_with('/') && !field.value.starts_with("//");
    const auto named =
        make_key(relative ? std::string(origin) + std::string(field.value) : std::string(field.value), policy);
    if (named && origin_of(*named) == origin) invalidate_key(*named, policy, now_ms);
  }
}

}  // namespace tidegate::cache
