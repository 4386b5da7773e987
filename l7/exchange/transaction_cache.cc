// SPDX-License-Identifier: Apache-2.0
// The steps of a transaction that use the cache: look up; serve a body that is stored or arriving; fill as the leader.
#include <algorithm>

#include "cache/policy/validation.h"
#include "core/clock.h"
#include "l7/exchange/forwarding.h"
#include "l7/exchange/transaction.h"
#include "l7/worker.h"

namespace tidegate::l7 {
namespace {

constexpr int kSlicesPerRound = 16;  // at most 1 MB for one client before others have their turn

uint64_t realtime_ms() { return realtime_ns() / kNsPerMs; }

bool is_safe(std::string_view method) {
  return method == "GET" || method == "HEAD" || method == "OPTIONS" || method == "TRACE";
}

}  // namespace

// The request as the cache sees it. The views live in the arena.
cache::RequestView Transaction::request_view() {
  const size_t count = exchange_.request.fields.size();
  auto* fields = reinterpret_cast<http1::Field*>(arena_.allocate_aligned(count * sizeof(http1::Field)));
  size_t i = 0;
  for (const Field& field : exchange_.request.fields) new (&fields[i++]) http1::Field{field.name, field.value};
  return {exchange_.request.method,
          client_scheme(exchange_.request, exchange_.facts),
          exchange_.request.authority,
          exchange_.request.path,
          exchange_.request.query,
          cache::Fields(fields, count),
          exchange_.branch};
}

cache::ResponseView Transaction::response_view() {
  const size_t count = exchange_.response.fields.size();
  auto* fields = reinterpret_cast<http1::Field*>(arena_.allocate_aligned(count * sizeof(http1::Field)));
  size_t i = 0;
  for (const Field& field : exchange_.response.fields)
    new (&fields[i++]) http1::Field{field.written_name(), field.value};
  const uint64_t now_ms = realtime_ms();
  cache::ResponseView view;
  view.status = exchange_.response.status;
  view.reason = exchange_.response.reason;
  view.fields = cache::Fields(fields, count);
  view.request_ms = now_ms - (worker_.loop().now_ns() - exchange_.timing.sent_ns) / kNsPerMs;
  view.response_ms = now_ms;
  if (exchange_.response.has_content_length) view.content_length = exchange_.response.content_length;
  return view;
}

Step Transaction::lookup() {
  if (exchange_.client_gone) return fail(Failure::client_gone);
  if (exchange_.cache.found) {
    cache::Lookup found = std::move(*exchange_.cache.found);
    exchange_.cache.found.reset();
    return follow(std::move(found));
  }
  if (exchange_.cache.pending) return expired() ? fail(own_time_over()) : Step::suspend;
  if (worker_.cache() == nullptr || !exchange_.route->cache.enabled || !exchange_.request.upgrade.empty())
    return Step::choose;
  if (exchange_.request.body != BodyKind::none && is_safe(exchange_.request.method)) {
    // RFC 9110 §9.3.1: content of a GET has no defined meaning, but an origin may use it. Then the answer does not
    // depend on the URL alone. Also, nobody else should wait for a body that this client has not sent yet.
    exchange_.cache.asked = true;
    exchange_.cache.status.forward = cache::Forward::request;
    exchange_.cache.status.detail = "content";
    return Step::choose;
  }
  cache::Lookup found = worker_.cache()->lookup(request_view(), exchange_.route->cache, realtime_ms(), worker_.loop(),
                                                [this](cache::Lookup late) {
                                                  exchange_.cache.pending = cache::Pending();
                                                  exchange_.cache.found = std::move(late);
                                                  resume();
                                                });
  if (found.outcome == cache::LookupOutcome::wait) {
    exchange_.cache.outcome = cache::LookupOutcome::wait;
    exchange_.cache.pending = std::move(found.pending);
    wait_for_nothing();
    return Step::suspend;
  }
  return follow(std::move(found));
}

Step Transaction::follow(cache::Lookup found) {
  exchange_.cache.asked = true;
  exchange_.cache.outcome = found.outcome;
  exchange_.cache.status = found.status;
  switch (found.outcome) {
    case cache::LookupOutcome::hit:
    case cache::LookupOutcome::attach:
      return serve_stored(std::move(found.answer));
    case cache::LookupOutcome::stale:
      if (found.fill) revalidate_in_background(std::move(found.fill));
      return serve_stored(std::move(found.answer));
    case cache::LookupOutcome::fetch:
      exchange_.cache.fill = std::move(found.fill);
      return Step::choose;
    case cache::LookupOutcome::refuse:
      return fail(Failure::only_if_cached);
    case cache::LookupOutcome::failed:
      return fail(Failure::shared_fetch_failed);
    case cache::LookupOutcome::bypass:
    case cache::LookupOutcome::wait:
      break;
  }
  return Step::choose;
}

Step Transaction::serve_stored(cache::Answer answer) {
  exchange_.cache.stored = std::move(answer);
  exchange_.cache.stored->body.on_ready([this] { resume(); });
  return Step::serve;
}

// Copies what an exchange without a client needs from the exchange that begins it. The copy may outlive the connection
// of the first exchange, so it keeps no view of that connection.
void Transaction::begin_without_client(const Exchange& from) {
  Exchange& to = exchange_;
  to.plan = from.plan;
  to.route = from.route;
  to.route_number = from.route_number;
  to.facts = from.facts;
  to.facts.peer_text = arena_.copy(from.facts.peer_text);
  to.facts.listener_name = {};
  to.facts.certificate = nullptr;
  to.facts.destination = nullptr;
  to.deadline = from.deadline;
  to.timing.started_ns = worker_.loop().now_ns();
  to.client_gone = to.background = true;
  to.request_id = arena_.copy(from.request_id);
  to.request_key = from.request_key;
  to.named_client = from.named_client;
  to.client_address = arena_.copy(from.client_address);
}

// An exchange without a client fetches for the cache, with this request except the parts that belong only to this
// client.
void Transaction::revalidate_in_background(cache::Fill fill) {
  Transaction& other = worker_.take_transaction();
  other.begin_without_client(exchange_);
  Arena& arena = other.arena_;
  Exchange& to = other.exchange_;
  to.pool = exchange_.pool;
  to.split_pool = exchange_.split_pool;  // these texts belong to the pinned plan
  to.variant = exchange_.variant;
  to.variant_number = exchange_.variant_number;
  to.branch = exchange_.branch;
  to.forwarding = exchange_.forwarding;
  to.parameters.count = exchange_.parameters.count;
  for (size_t i = 0; i < to.parameters.count; ++i) {
    const auto& [parameter, value] = exchange_.parameters.items[i];
    to.parameters.items[i] = {parameter, arena.copy(value)};
  }
  other.begin_head_deadline();
  to.cache.asked = true;
  to.cache.outcome = cache::LookupOutcome::fetch;
  copy_head(exchange_.request, arena, to.request);
  to.cache.fill = std::move(fill);
  other.step_ = Step::choose;
  // The other transaction runs in its own turn, because this one has a client to serve first.
  worker_.resume_later(other);
}

// --- serve: send a stored body, or one that is arriving for another transaction

Step Transaction::serve() {
  if (exchange_.client_gone) return fail(Failure::client_gone);
  if (!exchange_.head_sent) send_stored_head();
  switch (pump_stored()) {
    case cache::BodyStep::end:
      end_content();
      return Step::log;
    case cache::BodyStep::error:
      return fail(Failure::backend_truncated);
    case cache::BodyStep::data:
    case cache::BodyStep::wait:
      break;
  }
  if (expired()) return fail(own_time_over());
  wait_for_nothing();
  return Step::suspend;
}

void Transaction::send_stored_head() {
  end_head_deadline();
  exchange_.outcome.status = exchange_.cache.stored->status;
  exchange_.response.status = exchange_.outcome.status;
  exchange_.response.fields.clear();
  cache::for_each_field(
      *exchange_.cache.stored, [this](std::string_view name, std::string_view value, std::string_view spelt) {
        if (name == "content-length") return;
        const bool made = name == "age" || name == "content-range";  // the other fields belong to the stored head
        exchange_.response.fields.add({name, made ? arena_.copy(value) : value, classify_field(name), false, spelt});
      });
  const bool bodiless =
      exchange_.request.is_head() || exchange_.outcome.status == 304 || exchange_.outcome.status == 204;
  const bool known = exchange_.cache.stored->content_length.has_value();
  const uint64_t length = exchange_.cache.stored->content_length.value_or(0);
  const BodyKind body = bodiless || (known && length == 0) ? BodyKind::none
                        : known                            ? BodyKind::known
                                                           : BodyKind::unknown;
  offer_content(body, exchange_.cache.stored->content_length);
  compose_answer_fields();
  const bool coded = take_stored_coding();
  const bool stored_status = exchange_.outcome.status == exchange_.cache.stored->head->status;
  send_answer_head(stored_status ? exchange_.cache.stored->head->reason : std::string_view(),
                   coded && body != BodyKind::none ? BodyKind::known : body,
                   coded ? *exchange_.cache.stored->content_length : length,
                   (known || coded) && exchange_.outcome.status != 304);
}

// From the cache to the client. data: more can follow at once; wait: the reader or the client will wake this
// transaction.
cache::BodyStep Transaction::pump_stored() {
  cache::Slice slice;
  for (int slices = 0; client_->ready_for_piece(); ++slices) {
    if (slices == kSlicesPerRound) {
      worker_.resume_later(*this);
      return cache::BodyStep::data;
    }
    const cache::BodyStep step = exchange_.cache.stored->body.next(slice);
    if (step == cache::BodyStep::wait) flush_content();
    if (step != cache::BodyStep::data) return step;
    send_content(slice.bytes);
    if (exchange_.cache.stored->body.ended())
      return cache::BodyStep::end;  // the end is sent with the last piece: one frame, one write
  }
  return cache::BodyStep::wait;
}

// --- fill: while leading, the backend's answer goes to the cache, and the client reads it from there like all others

Step Transaction::begin_filled_response() {
  exchange_.cache.status.forward_status = exchange_.response.status;
  cache::FillDecision decision = exchange_.cache.fill.on_head(response_view(), realtime_ms());
  if (decision.answer) {
    exchange_.cache.stored = std::move(decision.answer);
    exchange_.cache.stored->body.on_ready([this] { resume(); });
  }
  exchange_.cache.status.stored = decision.kind == cache::FillDecision::Kind::store;
  exchange_.cache.status.ttl_s = decision.ttl_s;
  const bool is_kept_back = decision.kind == cache::FillDecision::Kind::freshened && *decision.reason != '\0';
  if (decision.kind == cache::FillDecision::Kind::pass || is_kept_back) exchange_.cache.status.detail = decision.reason;
  switch (decision.kind) {
    case cache::FillDecision::Kind::store:
      exchange_.cache.fill.on_resume([this] { resume_fill(); });
      backend_->accept_head();
      wait_at_most_ns(exchange_.pool->config().idle_timeout_ms * kNsPerMs);
      return Step::fill;
    case cache::FillDecision::Kind::pass:
      exchange_.cache.fill = cache::Fill();
      if (exchange_.client_gone) return fail(Failure::client_gone);
      return exchange_.response.status == 200 && asks_for_less() ? ask_anew_for_less() : begin_passed_response();
    case cache::FillDecision::Kind::freshened:
    case cache::FillDecision::Kind::serve_stale:
      break;
  }
  exchange_.cache.fill = cache::Fill();
  backend_->accept_head();
  release_backend(true);
  if (!exchange_.client_gone) return Step::serve;
  exchange_.outcome.status = exchange_.response.status;
  return Step::log;
}

bool Transaction::asks_for_less() const {
  return std::any_of(exchange_.request.fields.begin(), exchange_.request.fields.end(),
                     [](const Field& field) { return cache::is_conditional_or_range(field.name); });
}

// The request asked for the whole response, because others could have shared it. But the answer is only for this
// client. So the backend is asked once more, with the client's own conditions and range, and may answer 304 or 206.
Step Transaction::ask_anew_for_less() {
  begin_head_deadline();
  release_backend(false);
  return Step::choose;
}

Step Transaction::fill() {
  if (!exchange_.client_gone && !exchange_.head_sent) send_stored_head();
  if (!exchange_.client_gone && own_time_over() != Failure::none) cut_off_client(own_time_over());
  if (exchange_.client_gone) exchange_.cache.stored.reset();    // nobody reads it here any more
  if (backend_ != nullptr && !exchange_.cache.fill.wanted()) {  // the last reader has gone
    exchange_.cache.fill = cache::Fill();
    release_backend(false);
  }
  const bool moved = backend_ != nullptr && pump_fill();
  if (!exchange_.client_gone && !exchange_.cache.stored_ended) {
    const cache::BodyStep step = pump_stored();
    if (step == cache::BodyStep::error) return fail(Failure::backend_truncated);
    if (step == cache::BodyStep::end) {
      exchange_.cache.stored_ended = true;
      end_content();
    }
  }
  if (backend_ == nullptr && (exchange_.client_gone || exchange_.cache.stored_ended)) {
    if (exchange_.client_gone) exchange_.outcome.status = exchange_.response.status;
    if (exchange_.client_gone && !exchange_.background && exchange_.outcome.gone_why != Failure::client_gone)
      exchange_.outcome.failure = exchange_.outcome.gone_why;
    return Step::log;
  }
  if (backend_ == nullptr || exchange_.cache.fill_paused) {
    wait_for_nothing();
  } else if (moved || exchange_.timing.step_deadline_ns == UINT64_MAX) {
    wait_at_most_ns(exchange_.pool->config().idle_timeout_ms * kNsPerMs);
  } else if (expired()) {
    return fail(Failure::body_timeout);
  }
  return Step::suspend;
}

// The time of this client's exchange is over. Others read what this transaction fetches, so it goes on without a
// client.
void Transaction::cut_off_client(Failure why) {
  ClientStream* const client = client_;
  let_client_go(why);
  Timing& timing = exchange_.timing;
  timing.head_deadline_ns = timing.exchange_deadline_ns = timing.call_deadline_ns = UINT64_MAX;
  client->abort_response();
  client->on_transaction_over();
}

void Transaction::resume_fill() {
  exchange_.cache.fill_paused = false;
  resume();
}

// From the backend to the cache. Gives the backend back when everything has come, or when nobody wants the rest.
// Returns true if anything moved.
bool Transaction::pump_fill() {
  bool moved = false;
  for (int pieces = 0; !exchange_.cache.fill_paused; ++pieces) {
    if (pieces == kSlicesPerRound) {
      worker_.resume_later(*this);
      return moved;
    }
    const std::string_view piece = backend_->next_piece();
    if (piece.empty()) break;
    moved = true;
    const cache::FillStep step = exchange_.cache.fill.append(piece);
    if (step == cache::FillStep::pause) exchange_.cache.fill_paused = true;
    if (step == cache::FillStep::stop) {
      exchange_.cache.fill = cache::Fill();
      release_backend(false);
      return true;
    }
  }
  if (backend_->response_ended()) {
    exchange_.cache.fill.finish();
    exchange_.cache.fill = cache::Fill();
    release_backend(true);
  } else if (backend_->failure() != Failure::none) {
    charge_backend(backend_->failure());
    end_fill(backend_->failure());
    release_backend(false);
  }
  return moved;
}

// Tells the requests that share the fill what the table says for `failure`.
void Transaction::end_fill(Failure failure) {
  const auto how = [](Sharers sharers) {
    switch (sharers) {
      case Sharers::nobody_waits:
      case Sharers::next_one_asks:
        return cache::FillFailure::leader_gone;
      case Sharers::few_ask:
        return cache::FillFailure::backend_broke_off;
      case Sharers::fail_too:
        break;
    }
    return cache::FillFailure::backend_failed;
  };
  exchange_.cache.fill.fail(how(info(failure).sharers), info(failure).name);
  exchange_.cache.fill = cache::Fill();
}

// The fetch that this request leads has failed. All waiting requests are told, or get a stale response if that is
// allowed.
std::optional<Step> Transaction::fail_fill(Failure failure) {
  std::optional<cache::Answer> stale = exchange_.cache.fill.stale_answer(realtime_ms());
  end_fill(failure);
  if (!stale || exchange_.client_gone || exchange_.head_sent) return std::nullopt;
  exchange_.outcome.failure = Failure::none;
  exchange_.cache.status.detail = "stale-if-error";
  return serve_stored(std::move(*stale));
}

// RFC 9111 §4.4: after an unsafe request was answered, the stored responses for its target are no longer valid.
void Transaction::invalidate_if_unsafe() {
  if (worker_.cache() == nullptr || !exchange_.route->cache.enabled || is_safe(exchange_.request.method)) return;
  worker_.cache()->invalidate(request_view(), exchange_.route->cache, response_view());
}

}  // namespace tidegate::l7
