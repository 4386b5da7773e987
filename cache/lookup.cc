// SPDX-License-Identifier: Apache-2.0
// A lookup, step by step: what the index shows under one short lock, then serve it, load it, follow another's fetch, or
// fetch.
#include "cache/engine.h"
#include "cache/fields.h"
#include "cache/flight.h"
#include "cache/validation.h"

namespace tidegate::cache {

// What the index showed of a key to one request.
struct Engine::Sight {
  std::shared_ptr<Entry> entry;                // the variant the request selects, alive
  std::shared_ptr<const StoredObject> object;  // what is stored under it; null: on disk only
  bool soft_purged = false;
  bool other_variants = false;
  UseDecision use;
};

namespace {

Lookup forwarded(Outcome outcome, Forward why, const char* detail) {
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
  if (!asker.policy.enabled) return forwarded(Outcome::bypass, Forward::bypass, nullptr);
  if (const char* reason = bypass_reason(asker.request)) {
    const Forward why = reason == std::string_view("method") ? Forward::method : Forward::request;
    counters.forwarded(why).add();
    return forwarded(Outcome::bypass, why, reason);
  }
  const CacheControl control = request_control(asker.request.fields, asker.policy);
  std::string& text = key_scratch();
  make_key(asker.request, asker.policy, text);
  const KeyHash key = hash_key(keys, text);
  Shard& shard = index.shard(key);
  Leftovers leftovers;
  Lookup found = [&] {
    std::unique_lock lock(shard.mutex);
    Sight sight;
    look(shard, key, asker, control, sight, leftovers);
    read_here(asker, shard, key, control, sight, lock, leftovers);
    return sight.entry != nullptr && is_servable(sight.use.use) ? serve(asker, shard, key, sight, lock)
                                                                : fetch(asker, shard, key, sight, control);
  }();
  clean_up(leftovers);
  return found;
}

// What is stored for this request and whether it may be used; drops what turns out dead. With the shard's mutex held.
void Engine::look(Shard& shard, const KeyHash& key, const Asker& asker, const CacheControl& control, Sight& sight,
                  Leftovers& leftovers) {
  Bucket* bucket = shard.find(key);
  if (bucket == nullptr) return;
  std::shared_ptr<Entry> entry = Shard::match(keys, *bucket, asker.request.fields, vary_scratch());
  sight.other_variants = entry == nullptr && !bucket->entries.empty();
  if (entry == nullptr) return;
  std::shared_ptr<const StoredObject> object = entry->readable();
  judge(shard, std::move(entry), std::move(object), asker, control, sight, leftovers);
}

// The entry that the request selects, with its object if that is in memory.
void Engine::judge(Shard& shard, std::shared_ptr<Entry> entry, std::shared_ptr<const StoredObject> object,
                   const Asker& asker, const CacheControl& control, Sight& sight, Leftovers& leftovers) {
  const PurgeVerdict purged = verdict(*entry);
  const bool collision = object != nullptr && object->head->key != key_scratch();
  const bool unreachable = object == nullptr && entry->disk == nullptr;
  if (purged == PurgeVerdict::dead || collision || unreachable) {
    if (purged == PurgeVerdict::dead) counters.purged.add();
    shard.erase(*entry, leftovers);
    return;
  }
  // Between the writer's letting go and its telling the index that the disk copy was given up: nothing can be read.
  if (object == nullptr && !entry->disk->committed.load(std::memory_order_acquire)) return;
  sight.soft_purged = purged == PurgeVerdict::stale;
  sight.use = decide_use(entry->freshness, control, sight.soft_purged, asker.now_ms);
  sight.entry = std::move(entry);
  sight.object = std::move(object);
}

// What is on disk alone, but in memory all the same as the kernel's cached pages, is read at once; the shard is let go
// meanwhile and looked at again. Only for whoever asks on the loop's own thread, not for waiters that are looked up
// again.
void Engine::read_here(Asker& asker, Shard& shard, const KeyHash& key, const CacheControl& control, Sight& sight,
                       std::unique_lock<std::mutex>& lock, Leftovers& leftovers) {
  if (sight.entry == nullptr || sight.object != nullptr || !is_servable(sight.use.use)) return;
  if (asker.waiter != nullptr || !ResidentReader::may_read(sight.entry->disk->place)) return;
  const std::shared_ptr<Entry> entry = std::move(sight.entry);
  const std::shared_ptr<DiskBody> disk = entry->disk;
  DiskPlace place = disk->place;
  lock.unlock();
  auto object = residents_->read(key, entry->variant, disk->generation, place, asker.loop);
  lock.lock();
  sight = {};
  if (object != nullptr) disk->place = place;
  // An entry keeps its disk body as long as it is in the index. One that left meanwhile, or could not be read: anew.
  if (object == nullptr || entry->disk != disk) return look(shard, key, asker, control, sight, leftovers);
  asker.from_disk = true;
  if (entry->object == nullptr) shard.hold(*entry, object, leftovers);
  judge(shard, entry, std::move(object), asker, control, sight, leftovers);
}

Lookup Engine::serve(Asker& asker, Shard& shard, const KeyHash& key, Sight& sight, std::unique_lock<std::mutex>& lock) {
  Entry& entry = *sight.entry;
  entry.touch();
  if (entry.disk != nullptr) entry.disk->touch();
  if (sight.object == nullptr) {
    if (auto loading = load_from_disk(asker, shard, entry)) return std::move(*loading);
    return forwarded(Outcome::bypass, Forward::bypass, "reader-queue-full");
  }
  const std::shared_ptr<const StoredObject> object = sight.object;
  const Freshness freshness = entry.freshness;
  Lookup found;
  // Not for a HEAD: what it brings is no response to store, and would only throw away the one that is.
  if (sight.use.use == Use::stale_while_revalidate && asker.request.method != "HEAD") {
    const Bucket* bucket = shard.find(key);
    bool under_way = false;
    for (const auto& flight : bucket->flights) under_way |= flight->is_same_variant(asker.request.fields);
    if (!under_way) found = start_flight(asker, shard, key, sight, false);
  }
  lock.unlock();
  found.status = {};
  found.status.hit = true;
  found.status.ttl_s = ttl_ms(freshness, asker.now_ms) / 1000;
  found.outcome = Outcome::hit;
  if (sight.use.use != Use::fresh) {
    found.outcome = Outcome::stale;
    found.status.detail = sight.use.use == Use::stale_while_revalidate ? "stale-while-revalidate" : "max-stale";
    counters.hits_stale.add();
  }
  (object->resident && !asker.from_disk ? counters.hits_memory : counters.hits_disk).add();
  found.answer = make_answer(asker.request, freshness, object, asker.now_ms, asker.loop);
  return found;
}

// Nothing that may be served as it is: validate, follow another's fetch, or lead one. With the shard's mutex held.
Lookup Engine::fetch(Asker& asker, Shard& shard, const KeyHash& key, Sight& sight, const CacheControl& control) {
  Forward why = sight.other_variants ? Forward::vary_miss : Forward::uri_miss;
  if (sight.entry != nullptr) why = sight.use.why;
  if (control.only_if_cached) return forwarded(Outcome::refuse, why, "only-if-cached");  // RFC 9111 §5.2.1.7
  counters.forwarded(why).add();
  if (asker.request.method == "HEAD") return forwarded(Outcome::bypass, why, "head");
  if (control.no_store) return forwarded(Outcome::bypass, Forward::request, "no-store");
  if (sight.entry != nullptr && sight.object == nullptr) {  // its head is needed to validate it
    if (auto loading = load_from_disk(asker, shard, *sight.entry)) return std::move(*loading);
  }
  Lookup found;
  if (const char* vain = waiting_is_vain(shard, key, key_scratch(), sight.entry != nullptr || sight.other_variants,
                                         asker.request.fields, asker.now_ms)) {
    // Waiting for each other would serve nobody; the answer is stored all the same should it have become cacheable.
    if (asks_for_less(asker.request.fields)) return forwarded(Outcome::bypass, why, vain);
    found = start_flight(asker, shard, key, sight, true);
  } else {
    if (Bucket* bucket = shard.find(key)) {
      if (auto joined = join_flight(asker, *bucket, control)) return std::move(*joined);
    }
    found = start_flight(asker, shard, key, sight, false);
  }
  found.outcome = Outcome::lead;
  found.status.forward = why;
  return found;
}

// A key of which anything is stored (`is_known`) is judged by itself; one that is not, by its place.
const char* Engine::waiting_is_vain(const Shard& shard, const KeyHash& key, std::string_view key_text, bool is_known,
                                    Fields request_fields, uint64_t now_ms) const {
  const Credentials credentials = credentials_of(request_fields);
  if (shard.uncacheable.contains(key, credentials, now_ms)) return "uncacheable-before";
  if (!is_known && places.contains(place_hash(key_text), credentials, now_ms)) return "uncacheable-place";
  return nullptr;
}

std::optional<Lookup> Engine::join_flight(Asker& asker, Bucket& bucket, const CacheControl& control) {
  for (const auto& flight : bucket.flights) {
    Lookup found;
    const Flight::Joined joined = flight->join(asker, control, found);
    if (joined == Flight::Joined::no) continue;
    found.status.forward = Forward::miss;
    found.status.collapsed = true;
    if (joined == Flight::Joined::waits) {
      found.outcome = Outcome::pending;
      found.pending = Pending(asker.waiter);
    } else {
      counters.joins.add();
    }
    return found;
  }
  return std::nullopt;
}

Lookup Engine::start_flight(Asker& asker, Shard& shard, const KeyHash& key, Sight& sight, bool solo) {
  Bucket& bucket = shard.buckets[key];
  Flight::Origin origin;
  origin.key = key;
  origin.key_text = key_scratch();
  origin.solo = solo;
  origin.background = sight.entry != nullptr && is_servable(sight.use.use);
  origin.vary = sight.entry != nullptr ? sight.entry->vary : bucket.last_vary;
  vary_values(origin.vary, asker.request.fields, vary_scratch());
  origin.variant = variant_hash(keys, origin.vary, vary_scratch());
  if (sight.entry != nullptr) {
    origin.validating = sight.object;
    origin.validating_freshness = sight.entry->freshness;
  }
  const auto flight = std::make_shared<Flight>(*this, std::move(origin), asker, take_generation());
  bucket.flights.push_back(flight);
  Lookup found;
  found.fill = Fill(flight);
  return found;
}

// The entry is on disk alone: a reader thread brings it, for all who ask meanwhile. Nothing: too many reads wait
// already.
std::optional<Lookup> Engine::load_from_disk(Asker& asker, Shard&, const Entry& entry) {
  if (readers_ == nullptr) return std::nullopt;
  const std::shared_ptr<DiskBody> disk = entry.disk;
  const std::lock_guard lock(loads_mutex_);
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
  found.outcome = Outcome::pending;
  found.pending = Pending(asker.waiter);
  return found;
}

void Engine::lookup_again(const std::shared_ptr<Pending::Waiter>& waiter) {
  EventLoop* loop = waiter->loop();
  if (loop == nullptr) return;
  Asker asker{waiter->request.view(), waiter->policy, waiter->now_ms(), *loop, nullptr, waiter,
              waiter->waited_for_disk};
  Lookup found = lookup(asker);
  if (found.outcome == Outcome::pending) {
    // The waiter waits elsewhere now; its Pending is with the client still.
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
  const std::lock_guard lock(shard.mutex);
  const Bucket* bucket = shard.find(key);
  const auto entry = bucket != nullptr ? Shard::match(keys, *bucket, request.fields, vary_scratch()) : nullptr;
  const PurgeVerdict purged = entry != nullptr ? purges.verdict(entry->tags, entry->generation) : PurgeVerdict::dead;
  UseDecision use;
  use.why = bucket != nullptr && !bucket->entries.empty() && entry == nullptr ? Forward::vary_miss : Forward::uri_miss;
  if (purged != PurgeVerdict::dead) {
    use = decide_use(entry->freshness, control, purged == PurgeVerdict::stale, now_ms);
    out.age_s = age_ms(entry->freshness, now_ms) / 1000;
    out.status.ttl_s = ttl_ms(entry->freshness, now_ms) / 1000;
  }
  out.status.hit = is_servable(use.use);
  out.status.forward = out.status.hit ? Forward::none : use.why;
  const bool is_known = bucket != nullptr && !bucket->entries.empty();
  const bool waits = bucket != nullptr && !bucket->flights.empty() &&
                     waiting_is_vain(shard, key, out.key, is_known, request.fields, now_ms) == nullptr;
  out.outcome = use.use == Use::fresh ? Outcome::hit
                : out.status.hit      ? Outcome::stale
                : waits               ? Outcome::join
                                      : Outcome::lead;
  if (out.outcome != Outcome::hit && out.outcome != Outcome::stale && control.only_if_cached)
    out.outcome = Outcome::refuse;
  return out;
}

}  // namespace tidegate::cache
