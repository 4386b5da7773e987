// The head of a flight: who may wait for it, what is decided when it comes, and who is told what.
#include <algorithm>

#include "cache/flight.h"

namespace tidegate::cache {
namespace {

bool may_wait_for(const Freshness& freshness, const CacheControl& control, uint64_t now_ms) {
  const Use use = decide_use(freshness, control, false, now_ms).use;
  return use == Use::fresh || use == Use::stale_while_revalidate;
}

// Whether an answer that is not stored says something of keys beside its own: not when the request was the reason, and
// not when it is an error, which an outage, or anybody who asks for what is not there, can bring about.
bool speaks_of_its_place(Refusal refusal, uint16_t status) {
  const bool is_of_the_request =
      refusal == Refusal::request_no_store || refusal == Refusal::request_method || refusal == Refusal::authorization;
  return !is_of_the_request && status < 400;
}

std::optional<int64_t> ttl_s(const Freshness& freshness, uint64_t now_ms) { return ttl_ms(freshness, now_ms) / 1000; }

}  // namespace

bool Flight::is_same_variant(Fields request_fields) const {
  const std::lock_guard lock(mutex_);
  std::string values;
  vary_values(vary_, request_fields, values);
  return variant_hash(engine_.keys, vary_, values) == variant_;
}

Flight::Joined Flight::join(Asker& asker, const CacheControl& control, Lookup& found) {
  if (solo_ || !is_same_variant(asker.request.fields)) return Joined::no;
  {
    const std::lock_guard lock(mutex_);
    if (!joinable_) return Joined::no;
    if (state_ == State::head) {
      waiters_.push_back(asker.wait());
      waiters_.back()->waited_for_flight = true;
      return Joined::waits;
    }
    if (state_ != State::body && state_ != State::whole) return Joined::no;
    const PurgeVerdict verdict = engine_.purges.verdict(head_->tags, generation_);
    if (verdict != PurgeVerdict::live || !may_wait_for(head_->freshness, control, asker.now_ms)) return Joined::no;
  }
  found.outcome = Outcome::join;
  found.answer = answer(asker.request, asker.now_ms, asker.loop);
  return Joined::follows;
}

Answer Flight::answer(const RequestView& request, uint64_t now_ms, EventLoop& loop) {
  Answer out;
  {
    const std::lock_guard lock(mutex_);
    out.head = head_;
  }
  const Selection selection = select(request, *out.head, now_ms);
  out.status = selection.status;
  out.range = selection.range;
  out.age_s = age_ms(out.head->freshness, now_ms) / 1000;
  if (out.range.length != UINT64_MAX) out.content_length = out.range.length;
  const bool has_body = request.method != "HEAD" && out.status != 304 && out.status != 416;
  if (out.status == 416) out.content_length = 0;
  if (has_body) out.body = BodyReader(shared_from_this(), out.range, loop);
  return out;
}

FillDecision Flight::on_head(const ResponseView& response, uint64_t now_ms) {
  received_ms_ = response.response_ms;
  if (validating_ != nullptr && response.status == 304) return freshened(response, now_ms);
  const CacheControl control = request_control(request_.view().fields);
  const bool is_error = response.status >= 500 && response.status <= 504;
  if (is_error && validating_ != nullptr && may_serve_on_error(validating_freshness_, control, now_ms)) {
    return serve_stale(now_ms, "stale-if-error");
  }
  StoreDecision decision = decide_store(request_.view(), response, policy_);
  if (response.content_length.value_or(0) > engine_.options.max_object_bytes) decision.refusal = Refusal::too_large;
  if (decision.refusal != Refusal::none) return refuse(decision.refusal, response.status, now_ms);
  return store(response, decision.freshness, now_ms);
}

FillDecision Flight::refuse(Refusal refusal, uint16_t status, uint64_t now_ms) {
  engine_.counters.refused(refusal).add();
  if (refusal != Refusal::request_no_store && refusal != Refusal::request_method) {
    Shard& shard = engine_.index.shard(key_);
    const std::lock_guard lock(shard.mutex);
    shard.uncacheable.remember(key_, now_ms);
  }
  if (speaks_of_its_place(refusal, status)) engine_.places.refused(engine_.place_hash(key_text_), now_ms);
  // The origin answered with something else than what is stored (§4.3.3): what was validated no longer stands.
  if (validating_ != nullptr) engine_.forget(key_, variant_, validating_->head->generation);
  return pass(token(refusal));
}

// Everybody fetches alone, at once.
FillDecision Flight::pass(const char* reason) {
  leave_index();
  Waiters waiters = take_waiters(State::passed);
  release(waiters, reason);
  FillDecision decision;
  decision.reason = reason;
  return decision;
}

void Flight::release(Waiters& waiters, const char* reason) {
  for (const auto& waiter : waiters) {
    Lookup found;
    found.outcome = Outcome::bypass;
    found.status.forward = Forward::miss;
    found.status.collapsed = true;
    found.status.detail = reason;
    engine_.counters.forwarded(Forward::miss).add();
    waiter->deliver(std::move(found));
  }
  waiters.clear();
}

Flight::Waiters Flight::take_waiters(State next) {
  const std::lock_guard lock(mutex_);
  state_ = next;
  return std::move(waiters_);
}

// The head says by what the answer was selected; from now on that tells variants of the key apart.
void Flight::adopt_variant(StoredHead& head) {
  vary_values(head.vary, request_.view().fields, head.vary_values);
  const uint64_t variant = variant_hash(engine_.keys, head.vary, head.vary_values);
  {
    const std::lock_guard lock(mutex_);
    vary_ = head.vary;
    variant_ = variant;
  }
  Shard& shard = engine_.index.shard(key_);
  const std::lock_guard lock(shard.mutex);
  shard.uncacheable.forget(key_);
  if (Bucket* bucket = shard.find(key_)) bucket->last_vary = head.vary;
}

FillDecision Flight::store(const ResponseView& response, const Freshness& freshness, uint64_t now_ms) {
  auto targeted = parse_targeted_cache_control(response.fields);
  const auto head = make_head(response, targeted ? *targeted : parse_cache_control(response.fields));
  head->freshness = freshness;
  head->key = key_text_;
  head->vary = canonical_vary(response.fields);
  head->tags = response_tags(engine_.keys, response.fields);
  head->generation = generation_;
  adopt_variant(*head);
  engine_.places.stored(engine_.place_hash(key_text_), now_ms);
  const bool shareable = may_wait_for(freshness, {}, now_ms);
  Waiters waiters;
  {
    const std::lock_guard lock(mutex_);
    state_ = State::body;
    head_ = head;
    joinable_ = joinable_ && shareable;
    to_disk_ = engine_.stores_on_disk() && !disowned_;
    if (to_disk_) disk_ = engine_.new_disk_body(generation_);
    waiters = std::move(waiters_);
    waiters_.clear();
  }
  FillDecision decision;
  decision.kind = FillDecision::Kind::store;
  decision.ttl_s = ttl_s(freshness, now_ms);
  if (!background_) decision.answer = answer(request_.view(), now_ms, *loop_);
  if (shareable) {
    hand_out(waiters, now_ms);
  } else {
    release(waiters, "must-revalidate");  // stored, but each use has to be validated
  }
  return decision;
}

// Waiters whose request selects this variant follow it; the others are looked up again, each variant for itself.
void Flight::hand_out(Waiters& waiters, uint64_t now_ms) {
  for (const auto& waiter : waiters) {
    EventLoop* loop = waiter->loop();
    if (loop == nullptr) continue;
    const RequestView& request = waiter->request.view();
    const bool fits =
        is_same_variant(request.fields) && may_wait_for(head_->freshness, request_control(request.fields), now_ms);
    if (!fits) {
      engine_.lookup_again(waiter);
      continue;
    }
    Lookup found;
    found.outcome = Outcome::join;
    found.status.collapsed = true;
    found.status.forward = Forward::miss;
    found.answer = answer(request, now_ms, *loop);
    engine_.counters.joins.add();
    waiter->deliver(std::move(found));
  }
}

// RFC 9111 §4.3.4
FillDecision Flight::freshened(const ResponseView& response, uint64_t now_ms) {
  FillDecision decision;
  decision.kind = FillDecision::Kind::freshened;
  std::shared_ptr<const StoredObject> object = validating_;
  Freshness freshness = validating_freshness_;
  if (confirms(*validating_->head, response)) {
    auto head = freshen_head(*validating_->head, response);
    head->freshness = freshness_after_304(head->fields, response, policy_);
    head->generation = generation_;
    freshness = head->freshness;
    object = std::make_shared<StoredObject>(
        StoredObject{std::move(head), validating_->body, validating_->disk, validating_->resident});
    engine_.freshen(key_, variant_, *validating_, object, response.response_ms);
    engine_.places.stored(engine_.place_hash(key_text_), now_ms);
    engine_.counters.revalidated.add();
  } else {
    // "Not modified", but of something else than we asked about: good for this once, then gone.
    engine_.forget(key_, variant_, validating_->head->generation);
    decision.reason = "validator-mismatch";
  }
  leave_index();
  Waiters waiters = take_waiters(State::passed);
  answer_all(waiters, object, freshness, false);
  decision.ttl_s = ttl_s(freshness, now_ms);
  if (!background_) decision.answer = engine_.make_answer(request_.view(), freshness, object, now_ms, *loop_);
  return decision;
}

FillDecision Flight::serve_stale(uint64_t now_ms, const char* reason) {
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
    Lookup found;
    found.outcome = stale ? Outcome::stale : Outcome::hit;
    found.status.hit = true;
    found.status.collapsed = true;
    found.status.ttl_s = ttl_s(freshness, now_ms);
    if (stale) found.status.detail = "stale-if-error";
    found.answer = engine_.make_answer(waiter->request.view(), freshness, object, now_ms, *loop);
    engine_.counters.joins.add();
    waiter->deliver(std::move(found));
  }
}

std::optional<Answer> Flight::stale_answer(const RequestView& request, uint64_t now_ms, EventLoop& loop) const {
  if (validating_ == nullptr) return std::nullopt;
  if (!may_serve_on_error(validating_freshness_, request_control(request.fields), now_ms)) return std::nullopt;
  engine_.counters.hits_stale.add();
  return engine_.make_answer(request, validating_freshness_, validating_, now_ms, loop);
}

}  // namespace tidegate::cache
