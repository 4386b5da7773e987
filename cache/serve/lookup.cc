// SPDX-License-Identifier: Apache-2.0
// A lookup, step by step: read the index under one short lock; then serve, load from disk, attach to a fetch, or fetch.
#include "cache/policy/fields.h"
#include "cache/policy/validation.h"
#include "cache/serve/engine.h"
#include "cache/serve/flight.h"
#include "conf/model/route.h"
#include "core/assert.h"

namespace tidegate::cache {

// The content of the index for one request.
struct Engine::IndexView {
  std::shared_ptr<Entry> entry;                // the variant that the request selects, not purged
  std::shared_ptr<const StoredObject> object;  // its object; null: on disk only
  Freshness freshness;                         // freshness of the served response
  bool soft_purged = false;
  bool other_variants = false;
  UseDecision use;
};

namespace {

Lookup forwarded(LookupOutcome outcome, Forward why, const char* detail) {
  Lookup found;
  found.outcome = outcome;
  found.status.forward = why;
  found.status.detail = detail;
  return found;
}

bool is_servable(Use use) { return use != Use::validate; }

std::string& key_scratch() {
  thread_local std::string text;
  return text;
}
std::string& vary_scratch() {
  thread_local std::string text;
  return text;
}

bool asks_for_less(Fields fields) {
  for (const http1::Field& field : fields) {
    if (is_conditional_or_range(field.name)) return true;
  }
  return false;
}

}  // namespace

PurgeVerdict Engine::verdict(Entry& entry) {
  const uint64_t version = purges.version();
  if (entry.purges_seen == version) return PurgeVerdict::live;
  const PurgeVerdict verdict = purges.verdict(entry.tags, entry.generation);
  if (verdict == PurgeVerdict::live) entry.purges_seen = version;
  return verdict;
}

Lookup Engine::lookup(Asker& asker) {
  if (!asker.policy.enabled) return forwarded(LookupOutcome::bypass, Forward::bypass, nullptr);
  if (const char* reason = bypass_reason(asker.request)) {
    const Forward why = reason == std::string_view("method") ? Forward::method : Forward::request;
    counters.forwarded(why).add();
    return forwarded(LookupOutcome::bypass, why, reason);
  }
  const CacheControl control = request_control(asker.request.fields, asker.policy);
  std::string& text = key_scratch();
  make_key(asker.request, asker.policy, text);
  const KeyHash key = hash_key(keys, text);
  Shard& shard = index.shard(key);
  DeferredRelease deferred;
  Lookup found;
  IndexView view;
  {
    const MutexLock lock(shard.mutex);
    view_index(shard, key, asker, control, view, deferred);
    read_resident(asker, shard, key, control, view, deferred);
    const bool serves = view.entry != nullptr && is_servable(view.use.use);
    found = serves ? serve(asker, shard, key, view) : fetch(asker, shard, key, view, control);
  }
  if (found.status.hit)
    found.answer = make_answer(asker.request, view.freshness, view.object, asker.now_ms, asker.loop);
  release_deferred(deferred);
  return found;
}

// Finds the stored response for this request, and decides whether it may be used. Erases a dead entry. The caller holds
// the shard's mutex.
void Engine::view_index(Shard& shard, const KeyHash& key, const Asker& asker, const CacheControl& control,
                        IndexView& view, DeferredRelease& deferred) {
  Bucket* bucket = shard.find(key);
  if (bucket == nullptr) return;
  std::shared_ptr<Entry> entry = Shard::match(keys, *bucket, asker.request, vary_scratch());
  view.other_variants = entry == nullptr && !bucket->entries.empty();
  if (entry == nullptr) return;
  std::shared_ptr<const StoredObject> object = entry->readable();
  check_entry(shard, std::move(entry), std::move(object), asker, control, view, deferred);
}

// Checks the entry that the request selects, with its object if that is in memory.
void Engine::check_entry(Shard& shard, std::shared_ptr<Entry> entry, std::shared_ptr<const StoredObject> object,
                         const Asker& asker, const CacheControl& control, IndexView& view, DeferredRelease& deferred) {
  TIDEGATE_ASSERT(entry != nullptr, "there is an entry to check");
  const PurgeVerdict purged = verdict(*entry);
  const bool collision = object != nullptr && object->head->key != key_scratch();
  const bool unreachable = object == nullptr && entry->disk == nullptr;
  if (purged == PurgeVerdict::dead || collision || unreachable) {
    if (purged == PurgeVerdict::dead) counters.purged.add();
    shard.erase(*entry, deferred);
    return;
  }
  // The writer gave up the disk copy and has not told the index yet. So nothing can be read.
  if (object == nullptr && !entry->disk->committed.load(std::memory_order_acquire)) return;
  view.soft_purged = purged == PurgeVerdict::stale;
  view.use = decide_use(entry->freshness, control, view.soft_purged, asker.now_ms);
  // RFC 9110 §13.1.1: the origin decides about If-Match. A stored response may be used if it matches.
  if (object != nullptr && is_servable(view.use.use) && !asker.policy.ignore_reload &&
      !precondition_holds(asker.request, *object->head, asker.now_ms)) {
    view.use = {Use::validate, Forward::request};
  }
  view.entry = std::move(entry);
  view.object = std::move(object);
}

// Reads an object at once that is only on disk, but in the page cache. The shard is unlocked meanwhile and read again
// afterwards. Only for a caller on the loop's own thread, not for a waiter that is looked up again.
void Engine::read_resident(Asker& asker, Shard& shard, const KeyHash& key, const CacheControl& control, IndexView& view,
                           DeferredRelease& deferred) {
  if (view.entry == nullptr || view.object != nullptr || !is_servable(view.use.use)) return;
  if (asker.waiter != nullptr || !ResidentReader::may_read(view.entry->disk->place)) return;
  const std::shared_ptr<Entry> entry = std::move(view.entry);
  const std::shared_ptr<DiskBody> disk = entry->disk;
  DiskPlace place = disk->place;
  shard.mutex.unlock();
  auto object = residents_->read(key, entry->variant, disk->generation, place, asker.loop);
  shard.mutex.lock();
  view = {};
  if (object != nullptr) disk->place = place;
  // The entry keeps its disk body while it is in the index. If the entry left, or could not be read, start again.
  if (object == nullptr || entry->disk != disk) return view_index(shard, key, asker, control, view, deferred);
  asker.from_disk = true;
  if (entry->object == nullptr) shard.hold(*entry, object, deferred);
  check_entry(shard, entry, std::move(object), asker, control, view, deferred);
}

// The caller holds the shard's mutex. It makes the answer itself after it has unlocked the mutex.
Lookup Engine::serve(Asker& asker, Shard& shard, const KeyHash& key, IndexView& view) {
  TIDEGATE_ASSERT(view.entry != nullptr, "what is served stands in the index");
  Entry& entry = *view.entry;
  entry.touch();
  if (entry.disk != nullptr) entry.disk->touch();
  if (view.object == nullptr) {
    if (auto loading = load_from_disk(asker, shard, entry)) return std::move(*loading);
    return forwarded(LookupOutcome::bypass, Forward::bypass, "reader-queue-full");
  }
  view.freshness = entry.freshness;
  Lookup found;
  // A HEAD starts no revalidation: its answer cannot be stored, and would only replace the stored response.
  if (view.use.use == Use::stale_while_revalidate && asker.request.method != "HEAD") {
    const Bucket* bucket = shard.find(key);
    bool under_way = false;
    for (const auto& flight : bucket->flights) under_way |= flight->is_same_variant(asker.request);
    if (!under_way) found = start_flight(asker, shard, key, view, false);
  }
  found.status = {};
  found.status.hit = true;
  found.status.ttl_s = ttl_ms(view.freshness, asker.now_ms) / 1000;
  found.outcome = LookupOutcome::hit;
  if (view.use.use != Use::fresh) {
    found.outcome = LookupOutcome::stale;
    found.status.detail = view.use.use == Use::stale_while_revalidate ? "stale-while-revalidate" : "max-stale";
    counters.hits_stale.add();
  }
  (view.object->resident && !asker.from_disk ? counters.hits_memory : counters.hits_disk).add();
  return found;
}

// Called if no stored response may be served. Attaches to another fetch, or starts one. The caller holds the shard's
// mutex.
Lookup Engine::fetch(Asker& asker, Shard& shard, const KeyHash& key, IndexView& view, const CacheControl& control) {
  Forward why = view.other_variants ? Forward::vary_miss : Forward::uri_miss;
  if (view.entry != nullptr) why = view.use.why;
  if (control.only_if_cached) return forwarded(LookupOutcome::refuse, why, "only-if-cached");  // RFC 9111 §5.2.1.7
  counters.forwarded(why).add();
  if (asker.request.method == "HEAD") return forwarded(LookupOutcome::bypass, why, "head");
  if (control.no_store) return forwarded(LookupOutcome::bypass, Forward::request, "no-store");
  if (view.entry != nullptr && view.object == nullptr) {  // its head is needed for the validation
    if (auto loading = load_from_disk(asker, shard, *view.entry)) return std::move(*loading);
  }
  Lookup found;
  if (const char* vain = reason_not_to_wait(shard, key, key_scratch(), view.entry != nullptr || view.other_variants,
                                            asker.request.fields, asker.now_ms)) {
    // To wait would help nobody. If the answer has become cacheable, it is still stored.
    if (asks_for_less(asker.request.fields)) return forwarded(LookupOutcome::bypass, why, vain);
    found = start_flight(asker, shard, key, view, true);
  } else {
    if (Bucket* bucket = shard.find(key)) {
      if (auto attached = attach_to_flight(asker, *bucket, control)) return std::move(*attached);
    }
    found = start_flight(asker, shard, key, view, false);
  }
  found.outcome = LookupOutcome::fetch;
  found.status.forward = why;
  return found;
}

// A key with something stored (`is_known`) is decided by its own record; any other key by its place.
const char* Engine::reason_not_to_wait(const Shard& shard, const KeyHash& key, std::string_view key_text, bool is_known,
                                       Fields request_fields, uint64_t now_ms) const {
  const Credentials credentials = credentials_of(request_fields);
  if (shard.uncacheable.contains(key, credentials, now_ms)) return "uncacheable-before";
  if (!is_known && places.contains(place_hash(key_text), credentials, now_ms)) return "uncacheable-place";
  return nullptr;
}

std::optional<Lookup> Engine::attach_to_flight(Asker& asker, Bucket& bucket, const CacheControl& control) {
  for (const auto& flight : bucket.flights) {
    Lookup found;
    const Flight::Attached attached = flight->attach(asker, control, found);
    if (attached == Flight::Attached::no) continue;
    found.status.forward = Forward::miss;
    found.status.collapsed = true;
    if (attached == Flight::Attached::waits) {
      found.outcome = LookupOutcome::wait;
      found.pending = Pending(asker.waiter);
    } else {
      counters.attached.add();
    }
    return found;
  }
  return std::nullopt;
}

Lookup Engine::start_flight(Asker& asker, Shard& shard, const KeyHash& key, IndexView& view, bool solo) {
  TIDEGATE_ASSERT(!key_scratch().empty(), "a fetch has a key");
  Bucket& bucket = shard.buckets[key];
  Flight::Origin origin;
  origin.key = key;
  origin.key_text = key_scratch();
  origin.solo = solo;
  origin.background = view.entry != nullptr && is_servable(view.use.use);
  origin.vary = view.entry != nullptr ? view.entry->vary : bucket.last_vary;
  vary_values(origin.vary, asker.request, vary_scratch());
  origin.variant = variant_hash(keys, origin.vary, vary_scratch());
  if (view.entry != nullptr) {
    origin.validating = view.object;
    origin.validating_freshness = view.entry->freshness;
  }
  const auto flight = std::make_shared<Flight>(*this, std::move(origin), asker, take_generation());
  bucket.flights.push_back(flight);
  Lookup found;
  found.fill = Fill(flight);
  return found;
}

// The entry is only on disk. A reader thread loads it for all requests that come meanwhile. Returns nothing if too many
// reads wait already.
std::optional<Lookup> Engine::load_from_disk(Asker& asker, Shard&, const Entry& entry) {
  if (readers_ == nullptr) return std::nullopt;
  const std::shared_ptr<DiskBody> disk = entry.disk;
  TIDEGATE_ASSERT(disk != nullptr, "an entry without an object is on disk");
  const MutexLock lock(loads_mutex_);
  auto& waiters = loads_[disk->generation];
  if (waiters.empty()) {
    auto job = [this, key = entry.key, variant = entry.variant, disk](const lmdb::Txn* txn) {
      read_object(txn, key, variant, disk);
    };
    if (!readers_->submit(std::move(job))) {
      loads_.erase(disk->generation);
      return std::nullopt;
    }
  }
  waiters.push_back(asker.wait());
  asker.waiter->waited_for_disk = true;
  Lookup found;
  found.outcome = LookupOutcome::wait;
  found.pending = Pending(asker.waiter);
  return found;
}

void Engine::lookup_again(const std::shared_ptr<Pending::Waiter>& waiter) {
  EventLoop* loop = waiter->loop();
  if (loop == nullptr) return;
  Asker asker{waiter->request.view(), waiter->policy, waiter->now_ms(), *loop, nullptr, waiter,
              waiter->waited_for_disk};
  Lookup found = lookup(asker);
  if (found.outcome == LookupOutcome::wait) {
    // The waiter waits for something else now. Its Pending is still with the client.
    found.pending.release();
    return;
  }
  found.status.collapsed |= waiter->waited_for_flight;
  waiter->deliver(std::move(found));
}

Explanation Engine::explain(const RequestView& request, const RouteCache& policy, uint64_t now_ms) {
  Explanation out;
  out.status.forward = Forward::bypass;
  if (!policy.enabled) return out;
  make_key(request, policy, out.key);
  if (const char* reason = bypass_reason(request)) {
    out.status.forward = reason == std::string_view("method") ? Forward::method : Forward::request;
    out.status.detail = reason;
    return out;
  }
  const CacheControl control = request_control(request.fields, policy);
  const KeyHash key = hash_key(keys, out.key);
  Shard& shard = index.shard(key);
  const MutexLock lock(shard.mutex);
  const Bucket* bucket = shard.find(key);
  const auto entry = bucket != nullptr ? Shard::match(keys, *bucket, request, vary_scratch()) : nullptr;
  const PurgeVerdict purged = entry != nullptr ? purges.verdict(entry->tags, entry->generation) : PurgeVerdict::dead;
  UseDecision use;
  use.why = bucket != nullptr && !bucket->entries.empty() && entry == nullptr ? Forward::vary_miss : Forward::uri_miss;
  if (purged != PurgeVerdict::dead) {
    use = decide_use(entry->freshness, control, purged == PurgeVerdict::stale, now_ms);
    const auto object = entry->readable();
    if (object != nullptr && is_servable(use.use) && !policy.ignore_reload &&
        !precondition_holds(request, *object->head, now_ms)) {
      use = {Use::validate, Forward::request};
    }
    out.age_s = age_ms(entry->freshness, now_ms) / 1000;
    out.status.ttl_s = ttl_ms(entry->freshness, now_ms) / 1000;
  }
  out.status.hit = is_servable(use.use);
  out.status.forward = out.status.hit ? Forward::none : use.why;
  const bool is_known = bucket != nullptr && !bucket->entries.empty();
  const bool waits = bucket != nullptr && !bucket->flights.empty() &&
                     reason_not_to_wait(shard, key, out.key, is_known, request.fields, now_ms) == nullptr;
  out.outcome = use.use == Use::fresh ? LookupOutcome::hit
                : out.status.hit      ? LookupOutcome::stale
                : waits               ? LookupOutcome::attach
                                      : LookupOutcome::fetch;
  if (out.outcome != LookupOutcome::hit && out.outcome != LookupOutcome::stale && control.only_if_cached)
    out.outcome = LookupOutcome::refuse;
  return out;
}

}  // namespace tidegate::cache
