// SPDX-License-Identifier: Apache-2.0
// The head of a flight: who may wait for it, what it decides, and who is told.
#include <algorithm>

#include "cache/serve/flight.h"
#include "core/assert.h"

namespace tidegate::cache {
namespace {

bool may_wait_for(const Freshness& freshness, const CacheControl& control, uint64_t now_ms) {
  const Use use = decide_use(freshness, control, false, now_ms).use;
  return use == Use::fresh || use == Use::stale_while_revalidate;
}

bool is_large(const ResponseView& response) { return response.content_length.value_or(UINT64_MAX) > kChunkBytes; }

// The directives of a waiting request that the arrived answer must still meet. A demand for an answer from the origin
// is met, because the answer comes from there.
CacheControl control_of_waiter(Fields request_fields) {
  CacheControl control = request_control(request_fields);
  control.no_cache = false;
  if (control.max_age == 0U) control.max_age.reset();
  return control;
}

// True if another request for this waiter could not bring a better answer: the leader asked for one that is at least as
// young and is fresh at least as long, and the origin has none. An origin behind another cache may send an Age above
// max-age.
bool asks_no_more_than(const CacheControl& waiter, const CacheControl& leader) {
  const uint64_t leaders_age = leader.no_cache ? 0 : leader.max_age.value_or(UINT64_MAX);
  return waiter.max_age.value_or(UINT64_MAX) >= leaders_age &&
         waiter.min_fresh.value_or(0) <= leader.min_fresh.value_or(0);
}

std::optional<int64_t> ttl_s(const Freshness& freshness, uint64_t now_ms) { return ttl_ms(freshness, now_ms) / 1000; }

}  // namespace

bool Flight::is_same_variant(const RequestView& request) const {
  const MutexLock lock(mutex_);
  std::string values;
  vary_values(vary_, request, values);
  return variant_hash(engine_.keys, vary_, values) == variant_;
}

Flight::Attached Flight::attach(Asker& asker, const CacheControl& control, Lookup& found) {
  if (solo_ || !is_same_variant(asker.request)) return Attached::no;
  {
    const MutexLock lock(mutex_);
    if (!attachable_) return Attached::no;
    if (state_ == State::head) {
      waiters_.push_back(asker.wait());
      Pending::Waiter& waiter = *waiters_.back();
      waiter.waited_for_flight = true;
      const MutexLock waiter_lock(waiter.mutex);
      waiter.flight = weak_from_this();
      return Attached::waits;
    }
    if (state_ != State::body && state_ != State::whole) return Attached::no;
    const PurgeVerdict verdict = engine_.purges.verdict(head_->tags, generation_);
    if (verdict != PurgeVerdict::live || !may_wait_for(head_->freshness, control, asker.now_ms)) return Attached::no;
  }
  found.outcome = LookupOutcome::attach;
  found.answer = answer(asker.request, asker.now_ms, asker.loop);
  return Attached::follows;
}

void Flight::on_waiter_left() {
  const MutexLock lock(mutex_);
  if (state_ != State::head) return;
  std::erase_if(waiters_, [](const auto& waiter) { return waiter->loop() == nullptr; });
  if (!is_awaited() && resume_ != nullptr) resume_->notify();
}

Answer Flight::answer(const RequestView& request, uint64_t now_ms, EventLoop& loop,
                      std::shared_ptr<const StoredHead> own) {
  Answer out;
  out.head = own != nullptr ? std::move(own) : head();
  const Selection selection = select(request, *out.head, now_ms);
  out.status = selection.status;
  out.range = selection.range;
  out.age_s = age_ms(out.head->freshness, now_ms) / 1000;
  if (out.range.length != UINT64_MAX) out.content_length = out.range.length;
  const bool is_bare = out.status == 412 || out.status == 416;
  if (is_bare) out.content_length = 0;
  if (request.method != "HEAD" && out.status != 304 && !is_bare)
    out.body = BodyReader(shared_from_this(), out.range, loop);
  return out;
}

FillDecision Flight::on_head(const ResponseView& response, uint64_t now_ms) {
  TIDEGATE_ASSERT(response.status >= 200, "an interim response is not a head");
  TIDEGATE_ASSERT(waiting_for_head(), "a flight has one head");
  {
    const MutexLock lock(mutex_);
    if (resume_ != nullptr) resume_->cancel();  // this leader waits for the head no longer, and may be the last
    resume_ = nullptr;
  }
  received_ms_ = response.response_ms;
  if (validating_ != nullptr && response.status == 304) return freshened(response, now_ms);
  const CacheControl control = request_control(request_.view().fields, policy_);
  const bool is_error = response.status >= 500 && response.status <= 504;
  if (is_error && validating_ != nullptr && may_serve_on_error(validating_freshness_, control, now_ms) &&
      precondition_holds(request_.view(), *validating_->head, now_ms)) {
    return serve_stale(now_ms, "stale-if-error");
  }
  StoreDecision decision = decide_store(request_.view(), response, policy_);
  if (response.content_length.value_or(0) > engine_.options.max_object_bytes) decision.refusal = Refusal::too_large;
  // The request itself may have caused an error that states no lifetime. Such an error does not replace a fresh
  // response.
  const bool is_passing = response.status >= 400 && !decision.explicit_lifetime;
  if (is_passing && validates_fresh(now_ms) && decision.refusal == Refusal::none) {
    decision.refusal = Refusal::not_cacheable;
  }
  if (decision.refusal == Refusal::none && fills_->is_spent() && is_large(response))
    decision.refusal = Refusal::no_memory;
  if (decision.refusal != Refusal::none) return refuse(decision.refusal, response.status, now_ms);
  std::vector<uint64_t> tags = response_tags(engine_.keys, response.fields);
  if (tags.size() > kMaxTags) return refuse(Refusal::too_many_tags, response.status, now_ms);
  return store(response, decision.freshness, std::move(tags), now_ms);
}

bool Flight::validates_fresh(uint64_t now_ms) const {
  return validating_ != nullptr && !validating_freshness_.no_cache && ttl_ms(validating_freshness_, now_ms) > 0;
}

// Only an answer that holds for the key is remembered for all requests and removes what is stored (§4.3.3). A 404 or
// 410 removes a stale response.
FillDecision Flight::refuse(Refusal refusal, uint16_t status, uint64_t now_ms) {
  engine_.counters.refused(refusal).add();
  const Scope scope = scope_of(refusal, status, request_.view().fields);
  remember_refusal(scope, now_ms);
  const Credentials credentials = credentials_of(request_.view().fields);
  const bool is_gone = (status == 404 || status == 410) && !credentials.authorization && !credentials.cookie;
  if (validating_ != nullptr && (scope == Scope::key || (is_gone && !validates_fresh(now_ms)))) {
    engine_.forget(key_, variant(), validating_->head->generation);
  }
  release_or_promote(refusal, scope);
  FillDecision decision;
  decision.reason = token(refusal);
  return decision;
}

// One answer to a client with a cookie says nothing about other cookies. So a refusal is remembered only after a second
// client got one.
void Flight::remember_refusal(Scope scope, uint64_t now_ms) {
  if (scope == Scope::request) return;
  engine_.places.refused(engine_.place_hash(key_text_), scope, now_ms);
  Shard& shard = engine_.index.shard(key_);
  const MutexLock lock(shard.mutex);
  const Credentials cookie{false, true};
  if (scope == Scope::cookie && refusals_ == 0 && !shard.uncacheable.contains(key_, cookie, now_ms)) return;
  shard.uncacheable.remember(key_, scope, now_ms);
}

// The answer was only for the asking client. If the others would get the same kind, each fetches for itself at once.
// Otherwise one waiter asks again for all, until kMaxRefusals leaders were refused.
void Flight::release_or_promote(Refusal refusal, Scope scope) {
  const char* const reason = token(refusal);
  ++refusals_;
  const bool is_the_same_for_all = scope == Scope::key || refusal == Refusal::no_memory;
  if (!is_the_same_for_all && refusals_ < kMaxRefusals) {
    if (scope == Scope::authorization) release_those_with_authorization(reason);
    promote_waiter(reason, State::passed);
    return;
  }
  leave_index();
  Waiters waiters = take_waiters(State::passed);
  release(waiters, reason);
}

void Flight::release_those_with_authorization(const char* reason) {
  Waiters alike;
  {
    const MutexLock lock(mutex_);
    const auto others = std::stable_partition(waiters_.begin(), waiters_.end(), [](const auto& waiter) {
      return credentials_of(waiter->request.view().fields).authorization;
    });
    alike.assign(std::make_move_iterator(waiters_.begin()), std::make_move_iterator(others));
    waiters_.erase(waiters_.begin(), others);
  }
  release(alike, reason);
}

// Lets each waiter fetch for itself.
void Flight::release(Waiters& waiters, const char* reason) {
  for (const auto& waiter : waiters) {
    Lookup found;
    found.outcome = LookupOutcome::bypass;
    found.status.forward = Forward::miss;
    found.status.collapsed = true;
    found.status.detail = reason;
    engine_.counters.forwarded(Forward::miss).add();
    waiter->deliver(std::move(found));
  }
  waiters.clear();
}

Flight::Waiters Flight::take_waiters(State next) {
  TIDEGATE_ASSERT(next != State::head && next != State::body, "nobody waits any more");
  const MutexLock lock(mutex_);
  state_ = next;
  return std::move(waiters_);
}

// The head says which request fields selected the answer. From now on they distinguish the variants of the key.
void Flight::set_variant(StoredHead& head) {
  vary_values(head.vary, request_.view(), head.vary_values);
  const uint64_t variant = variant_hash(engine_.keys, head.vary, head.vary_values);
  {
    const MutexLock lock(mutex_);
    vary_ = head.vary;
    variant_ = variant;
  }
  Shard& shard = engine_.index.shard(key_);
  const MutexLock lock(shard.mutex);
  shard.uncacheable.forget(key_);
  if (Bucket* bucket = shard.find(key_)) bucket->last_vary = head.vary;
}

FillDecision Flight::store(const ResponseView& response, const Freshness& freshness, std::vector<uint64_t> tags,
                           uint64_t now_ms) {
  const CacheControl control = response_control(response.fields);
  const auto head = make_head(response, control);
  head->freshness = freshness;
  head->key = key_text_;
  head->vary = canonical_vary(response.fields);
  head->tags = std::move(tags);
  head->generation = generation_;
  set_variant(*head);
  engine_.places.stored(engine_.place_hash(key_text_), now_ms);
  const bool shareable = may_wait_for(freshness, {}, now_ms);
  Waiters waiters;
  {
    const MutexLock lock(mutex_);
    state_ = State::body;
    head_ = head;
    attachable_ = attachable_ && shareable;
    to_disk_ = engine_.stores_on_disk() && !disowned_;
    if (to_disk_) disk_ = engine_.new_disk_body(key_, generation_);
    waiters = std::move(waiters_);
    waiters_.clear();
  }
  FillDecision decision;
  decision.kind = FillDecision::Kind::store;
  decision.ttl_s = ttl_s(freshness, now_ms);
  if (!background_) {
    // The client whose request fetched the response also gets the fields that are not stored (§5.2.2.4, §5.2.2.7).
    std::shared_ptr<StoredHead> own;
    if (control.withheld_count > 0) {
      own = make_head(response, {});
      own->freshness = freshness;
    }
    decision.answer = answer(request_.view(), now_ms, *loop_, std::move(own));
  }
  if (shareable) {
    attach_waiters(waiters, now_ms);
  } else {
    release(waiters, "must-revalidate");  // stored, but each use needs a validation
  }
  return decision;
}

// Waiters whose request selects this variant attach to it. The others are looked up again.
void Flight::attach_waiters(Waiters& waiters, uint64_t now_ms) {
  const Freshness freshness = head()->freshness;
  const CacheControl leader = background_ ? CacheControl() : request_control(request_.view().fields);
  Waiters unsatisfied;
  for (const auto& waiter : waiters) {
    EventLoop* loop = waiter->loop();
    if (loop == nullptr) continue;
    const RequestView& request = waiter->request.view();
    CacheControl control = control_of_waiter(request.fields);
    if (asks_no_more_than(control, leader)) control.max_age = control.min_fresh = std::nullopt;
    if (!is_same_variant(request)) {
      engine_.lookup_again(waiter);
      continue;
    }
    if (!may_wait_for(freshness, control, now_ms)) {
      // The waiter may become the leader, and other waiters with the same demands may attach to its fetch. But this
      // must not repeat for ever.
      if (++waiter->unsatisfied < kMaxRefusals) {
        engine_.lookup_again(waiter);
      } else {
        unsatisfied.push_back(waiter);
      }
      continue;
    }
    Lookup found;
    found.outcome = LookupOutcome::attach;
    found.status.collapsed = true;
    found.status.forward = Forward::miss;
    found.answer = answer(request, now_ms, *loop);
    engine_.counters.attached.add();
    waiter->deliver(std::move(found));
  }
  release(unsatisfied, "request-limits");
}

// RFC 9111 §4.3.4. The asking client gets the stored head with all fields of the 304 laid over it. The others get the
// part that may be stored by the rules of a 200, or ask again.
FillDecision Flight::freshened(const ResponseView& response, uint64_t now_ms) {
  FillDecision decision;
  decision.kind = FillDecision::Kind::freshened;
  const StoredHead& stored = *validating_->head;
  if (!confirms(stored, response)) return mismatched(now_ms);
  const auto whole = freshen_head(stored, response);
  StoreDecision fresh = decide_freshen(request_.view(), stored.status, whole->fields, response, policy_);
  // §4.1: under another Vary it would be another variant, and the request fields that select it are not known.
  if (fresh.refusal == Refusal::none && canonical_vary(whole->fields) != stored.vary) fresh.refusal = Refusal::vary;
  whole->freshness = fresh.freshness;
  whole->generation = generation_;
  whole->tags = response_tags(engine_.keys, whole->fields);
  if (fresh.refusal == Refusal::none && whole->tags.size() > kMaxTags) fresh.refusal = Refusal::too_many_tags;
  decision.ttl_s = ttl_s(fresh.freshness, now_ms);
  if (!background_) {
    decision.answer = engine_.make_answer(request_.view(), fresh.freshness, with_head(whole), now_ms, *loop_);
  }
  if (fresh.refusal != Refusal::none) {
    decision.reason = token(fresh.refusal);
    refuse_304(fresh.refusal, now_ms);
  } else {
    keep_freshened(storable_head(whole, response_control(whole->fields), response.response_ms), response, now_ms);
  }
  return decision;
}

std::shared_ptr<const StoredObject> Flight::with_head(std::shared_ptr<const StoredHead> head) const {
  return std::make_shared<StoredObject>(
      StoredObject{std::move(head), validating_->body, validating_->disk, validating_->resident});
}

void Flight::keep_freshened(std::shared_ptr<const StoredHead> head, const ResponseView& response, uint64_t now_ms) {
  const Freshness freshness = head->freshness;
  const auto object = with_head(std::move(head));
  engine_.freshen(key_, variant(), *validating_, object, response.response_ms);
  engine_.places.stored(engine_.place_hash(key_text_), now_ms);
  engine_.counters.revalidated.add();
  leave_index();
  Waiters waiters = take_waiters(State::passed);
  answer_all(waiters, object, freshness, false);
}

// The stored response stays as it was, fresh or stale, unless the refusal holds for the key. A Set-Cookie is no such
// refusal, because the 304 also confirmed the stored body. With a new Vary a stale response is removed, so that it is
// fetched and stored again.
void Flight::refuse_304(Refusal refusal, uint64_t now_ms) {
  engine_.counters.refused(refusal).add();
  Scope scope = scope_of(refusal, 304, request_.view().fields);
  if (refusal == Refusal::set_cookie && scope == Scope::key) scope = Scope::request;
  if (refusal == Refusal::vary && (scope == Scope::key || !validates_fresh(now_ms))) {
    engine_.forget(key_, variant(), validating_->head->generation);
    validating_ = nullptr;  // the next leader fetches the whole response
    conditional_ = {};
    scope = Scope::request;
  } else {
    remember_refusal(scope, now_ms);
    if (scope == Scope::key) engine_.forget(key_, variant(), validating_->head->generation);
  }
  release_or_promote(refusal, scope);
}

// The 304 is about another response than the stored one. It answers the waiting requests, and the stored response is
// removed.
FillDecision Flight::mismatched(uint64_t now_ms) {
  TIDEGATE_ASSERT(validating_ != nullptr, "only a validation is answered by a 304");
  FillDecision decision;
  decision.kind = FillDecision::Kind::freshened;
  decision.reason = "validator-mismatch";
  decision.ttl_s = ttl_s(validating_freshness_, now_ms);
  engine_.forget(key_, variant(), validating_->head->generation);
  if (!background_) {
    decision.answer = engine_.make_answer(request_.view(), validating_freshness_, validating_, now_ms, *loop_);
  }
  leave_index();
  Waiters waiters = take_waiters(State::passed);
  answer_all(waiters, validating_, validating_freshness_, false);
  return decision;
}

FillDecision Flight::serve_stale(uint64_t now_ms, const char* reason) {
  TIDEGATE_ASSERT(validating_ != nullptr, "there is a stored response to serve");
  FillDecision decision;
  decision.kind = FillDecision::Kind::serve_stale;
  decision.reason = reason;
  decision.ttl_s = ttl_s(validating_freshness_, now_ms);
  if (!background_) decision.answer = stale_answer(now_ms);
  leave_index();
  Waiters waiters = take_waiters(State::passed);
  answer_all(waiters, validating_, validating_freshness_, true);
  return decision;
}

void Flight::answer_all(Waiters& waiters, const std::shared_ptr<const StoredObject>& object, const Freshness& freshness,
                        bool stale) {
  for (const auto& waiter : waiters) {
    EventLoop* loop = waiter->loop();
    if (loop == nullptr) continue;
    const uint64_t now_ms = waiter->now_ms();
    const RequestView& request = waiter->request.view();
    if (stale && !(may_serve_on_error(freshness, request_control(request.fields), now_ms) &&
                   precondition_holds(request, *object->head, now_ms))) {
      engine_.lookup_again(waiter);  // it accepts only the origin's own answer
      continue;
    }
    Lookup found;
    found.outcome = stale ? LookupOutcome::stale : LookupOutcome::hit;
    found.status.hit = true;
    found.status.collapsed = true;
    found.status.ttl_s = ttl_s(freshness, now_ms);
    if (stale) found.status.detail = "stale-if-error";
    found.answer = engine_.make_answer(waiter->request.view(), freshness, object, now_ms, *loop);
    engine_.counters.attached.add();
    waiter->deliver(std::move(found));
  }
}

std::optional<Answer> Flight::stale_answer(const RequestView& request, uint64_t now_ms, EventLoop& loop) const {
  if (validating_ == nullptr) return std::nullopt;
  if (!may_serve_on_error(validating_freshness_, request_control(request.fields), now_ms)) return std::nullopt;
  if (!precondition_holds(request, *validating_->head, now_ms)) return std::nullopt;
  engine_.counters.hits_stale.add();
  return engine_.make_answer(request, validating_freshness_, validating_, now_ms, loop);
}

}  // namespace tidegate::cache
