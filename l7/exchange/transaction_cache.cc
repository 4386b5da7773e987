// SPDX-License-Identifier: Apache-2.0
// The steps of a transaction that deal with the cache: look up, serve what is stored or arriving, fill while leading.
#include <fmt/format.h>

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
  const size_t count = request_.fields.size();
  auto* fields = reinterpret_cast<http1::Field*>(arena_.allocate_aligned(count * sizeof(http1::Field)));
  size_t i = 0;
  for (const Field& field : request_.fields) new (&fields[i++]) http1::Field{field.name, field.value};
  return {request_.method,    client_scheme(request_, client_->facts()),
          request_.authority, request_.path,
          request_.query,     cache::Fields(fields, count)};
}

cache::ResponseView Transaction::response_view() {
  const size_t count = response_.fields.size();
  auto* fields = reinterpret_cast<http1::Field*>(arena_.allocate_aligned(count * sizeof(http1::Field)));
  size_t i = 0;
  for (const Field& field : response_.fields) new (&fields[i++]) http1::Field{field.written_name(), field.value};
  const uint64_t now_ms = realtime_ms();
  cache::ResponseView view;
  view.status = response_.status;
  view.reason = response_.reason;
  view.fields = cache::Fields(fields, count);
  view.request_ms = now_ms - (worker_.loop().now_ns() - sent_ns_) / kNsPerMs;
  view.response_ms = now_ms;
  if (response_.has_content_length) view.content_length = response_.content_length;
  return view;
}

Step Transaction::lookup() {
  if (gone_) return fail(Failure::client_gone);
  if (found_) {
    cache::Lookup found = std::move(*found_);
    found_.reset();
    return follow(std::move(found));
  }
  if (pending_) return expired() ? fail(own_time_over()) : Step::suspend;
  if (worker_.cache() == nullptr || !route_->cache.enabled || !request_.upgrade.empty()) return Step::choose;
  if (request_.body != BodyKind::none && is_safe(request_.method)) {
    // RFC 9110 §9.3.1: content of a GET has no defined meaning, yet an origin may act on it. What comes back is not
    // what the URL alone stands for, and nobody else is to wait for a body that one client owes.
    cache_asked_ = true;
    cache_status_.forward = cache::Forward::request;
    cache_status_.detail = "content";
    return Step::choose;
  }
  cache::Lookup found =
      worker_.cache()->lookup(request_view(), route_->cache, realtime_ms(), worker_.loop(), [this](cache::Lookup late) {
        pending_ = cache::Pending();
        found_ = std::move(late);
        resume();
      });
  if (found.outcome == cache::Outcome::wait) {
    cache_outcome_ = cache::Outcome::wait;
    pending_ = std::move(found.pending);
    wait_for_nothing();
    return Step::suspend;
  }
  return follow(std::move(found));
}

Step Transaction::follow(cache::Lookup found) {
  cache_asked_ = true;
  cache_outcome_ = found.outcome;
  cache_status_ = found.status;
  switch (found.outcome) {
    case cache::Outcome::hit:
    case cache::Outcome::attach:
      return serve_stored(std::move(found.answer));
    case cache::Outcome::stale:
      if (found.fill) revalidate_in_background(std::move(found.fill));
      return serve_stored(std::move(found.answer));
    case cache::Outcome::fetch:
      fill_ = std::move(found.fill);
      return Step::choose;
    case cache::Outcome::refuse:
      return fail(Failure::only_if_cached);
    case cache::Outcome::failed:
      return fail(Failure::shared_fetch_failed);
    case cache::Outcome::bypass:
    case cache::Outcome::wait:
      break;
  }
  return Step::choose;
}

Step Transaction::serve_stored(cache::Answer answer) {
  stored_ = std::move(answer);
  stored_->body.on_ready([this] { resume(); });
  return Step::serve;
}

// A transaction without a client fetches for the cache, with this one's request, less what is this client's alone.
void Transaction::revalidate_in_background(cache::Fill fill) {
  Transaction& other = worker_.take_transaction();
  Arena& arena = other.arena_;
  other.plan_ = plan_;
  other.route_ = route_;
  other.pool_ = pool_;
  other.started_ns_ = worker_.loop().now_ns();
  other.begin_head_deadline();
  other.gone_ = other.background_ = other.cache_asked_ = true;
  other.cache_outcome_ = cache::Outcome::fetch;
  other.request_.method = arena.copy(request_.method);
  other.request_.host = arena.copy(request_.host);
  other.request_.path = arena.copy(request_.path);
  other.request_.query = arena.copy(request_.query);
  other.request_.version = request_.version;
  other.request_id_ = arena.copy(request_id_);
  other.client_address_ = arena.copy(client_address_);
  other.wire_head_ = arena.copy(compose_wire_head(&fill));
  other.fill_ = std::move(fill);
  other.step_ = Step::choose;
  // In its own turn: this one has a client to serve first.
  worker_.resume_later(other);
}

std::string_view Transaction::compose_wire_head(const cache::Fill* fill) {
  FieldList conditions;
  if (fill != nullptr && *fill) {
    for (const http1::Field& field : fill->conditional_fields()) {
      conditions.add({arena_.copy_lower(field.name), field.value, FieldKind::other, false, field.name});
    }
  }
  const bool shared = fill != nullptr && static_cast<bool>(*fill);
  uint64_t imitations = 0;
  const ClientFacts& facts = client_->facts();
  const std::string_view head = compose_backend_head(
      {.request = request_,
       .facts = facts,
       .edits = route_->request_headers,
       .via_node = facts.via ? std::string_view(plan_->plan().this_node().name) : std::string_view(),
       .request_id = request_id_,
       .fallback_host = request_.authority.empty() ? host_of_backend() : std::string_view(),
       .conditions = shared ? &conditions : nullptr,
       .authorization = !shared || fill->sends("authorization"),
       .cookie = !shared || fill->sends("cookie"),
       .imitations = &imitations},
      arena_);
  if (imitations > 0) worker_.stats().fields_dropped.add(imitations);
  return head;
}

// The Host for a request without one: the pool's tls_server_name, or the address of the chosen backend. If no backend
// is chosen yet, the address of the first.
std::string_view Transaction::host_of_backend() {
  const Pool& pool = pool_->config();
  if (!pool.tls_server_name.empty()) return pool.tls_server_name;
  const Backend& backend = member_ != nullptr ? *member_->config : pool.backends.front();
  const IpAddress& address = backend.addresses.front();
  const std::string host = address.is_v6() ? fmt::format("[{}]", address.to_string()) : address.to_string();
  const bool usual_port = backend.port == (pool.tls ? 443 : 80);
  return arena_.copy(usual_port ? host : fmt::format("{}:{}", host, backend.port));
}

// --- serve: what is stored, or arriving for somebody else

Step Transaction::serve() {
  if (gone_) return fail(Failure::client_gone);
  if (!head_sent_) send_stored_head();
  switch (pump_stored()) {
    case cache::BodyStep::end:
      client_->end_response();
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
  status_ = stored_->status;
  response_.status = status_;
  response_.fields.clear();
  cache::for_each_field(*stored_, [this](std::string_view name, std::string_view value, std::string_view spelt) {
    if (name == "content-length") return;
    const bool made = name == "age" || name == "content-range";  // the others belong to the stored head
    response_.fields.add({name, made ? arena_.copy(value) : value, classify_field(name), false, spelt});
  });
  compose_answer_fields();
  const bool bodiless = request_.is_head() || status_ == 304 || status_ == 204;
  const bool known = stored_->content_length.has_value();
  const uint64_t length = stored_->content_length.value_or(0);
  const BodyKind body = bodiless || (known && length == 0) ? BodyKind::none
                        : known                            ? BodyKind::known
                                                           : BodyKind::unknown;
  client_->send_head({.status = status_,
                      .reason = status_ == stored_->head->status ? stored_->head->reason : std::string_view(),
                      .fields = response_.fields,
                      .body = body,
                      .content_length = length,
                      .content_length_known = known && status_ != 304});
  head_sent_ = true;
}

// From the cache to the client. data: more can follow at once; wait: the reader, or the client, will call.
cache::BodyStep Transaction::pump_stored() {
  cache::Slice slice;
  for (int slices = 0; client_->ready_for_piece(); ++slices) {
    if (slices == kSlicesPerRound) {
      worker_.resume_later(*this);
      return cache::BodyStep::data;
    }
    const cache::BodyStep step = stored_->body.next(slice);
    if (step != cache::BodyStep::data) return step;
    response_bytes_ += slice.bytes.size();
    client_->send_piece(slice.bytes);
    if (stored_->body.ended()) return cache::BodyStep::end;  // said along with the last piece: one frame, one write
  }
  return cache::BodyStep::wait;
}

// --- fill: leading, the backend's answer goes to the cache, and the client reads it from there like everybody else

Step Transaction::begin_filled_response() {
  cache_status_.forward_status = response_.status;
  cache::FillDecision decision = fill_.on_head(response_view(), realtime_ms());
  if (decision.answer) {
    stored_ = std::move(decision.answer);
    stored_->body.on_ready([this] { resume(); });
  }
  cache_status_.stored = decision.kind == cache::FillDecision::Kind::store;
  cache_status_.ttl_s = decision.ttl_s;
  const bool is_kept_back = decision.kind == cache::FillDecision::Kind::freshened && *decision.reason != '\0';
  if (decision.kind == cache::FillDecision::Kind::pass || is_kept_back) cache_status_.detail = decision.reason;
  switch (decision.kind) {
    case cache::FillDecision::Kind::store:
      fill_.on_resume([this] { resume_fill(); });
      backend_->accept_head();
      wait_at_most_ns(pool_->config().idle_timeout_ms * kNsPerMs);
      return Step::fill;
    case cache::FillDecision::Kind::pass:
      fill_ = cache::Fill();
      if (gone_) return fail(Failure::client_gone);
      return response_.status == 200 && asks_for_less() ? ask_anew_for_less() : begin_passed_response();
    case cache::FillDecision::Kind::freshened:
    case cache::FillDecision::Kind::serve_stale:
      break;
  }
  fill_ = cache::Fill();
  backend_->accept_head();
  release_backend(true);
  if (!gone_) return Step::serve;
  status_ = response_.status;
  return Step::log;
}

bool Transaction::asks_for_less() const {
  return std::any_of(request_.fields.begin(), request_.fields.end(),
                     [](const Field& field) { return cache::is_conditional_or_range(field.name); });
}

// The whole was asked for, since others might have shared it. It is this client's alone: asked again with its own
// conditions and range, once, the backend says 304 or 206 where it can.
Step Transaction::ask_anew_for_less() {
  wire_head_ = compose_wire_head(nullptr);
  begin_head_deadline();
  release_backend(false);
  return Step::choose;
}

Step Transaction::fill() {
  if (!gone_ && !head_sent_) send_stored_head();
  if (!gone_ && own_time_over() != Failure::none) cut_off_client(own_time_over());
  if (gone_) stored_.reset();                    // nobody reads it here any more
  if (backend_ != nullptr && !fill_.wanted()) {  // the last one who read it has gone
    fill_ = cache::Fill();
    release_backend(false);
  }
  const bool moved = backend_ != nullptr && pump_fill();
  if (!gone_ && !stored_ended_) {
    const cache::BodyStep step = pump_stored();
    if (step == cache::BodyStep::error) return fail(Failure::backend_truncated);
    if (step == cache::BodyStep::end) {
      stored_ended_ = true;
      client_->end_response();
    }
  }
  if (backend_ == nullptr && (gone_ || stored_ended_)) {
    if (gone_) status_ = response_.status;
    if (gone_ && !background_ && gone_why_ != Failure::client_gone) failure_ = gone_why_;
    return Step::log;
  }
  if (backend_ == nullptr || fill_paused_) {
    wait_for_nothing();
  } else if (moved || step_deadline_ns_ == UINT64_MAX) {
    wait_at_most_ns(pool_->config().idle_timeout_ms * kNsPerMs);
  } else if (expired()) {
    return fail(Failure::body_timeout);
  }
  return Step::suspend;
}

// The time of this client's exchange is over. Others read what this transaction fetches: it goes on without a client.
void Transaction::cut_off_client(Failure why) {
  ClientStream* client = std::exchange(client_, nullptr);
  gone_ = true;
  gone_why_ = why;
  if (fill_ && step_ != Step::fill) fill_.on_resume([this] { resume_fill(); });
  head_deadline_ns_ = exchange_deadline_ns_ = UINT64_MAX;
  client->abort_response();
  client->on_transaction_over();
}

void Transaction::resume_fill() {
  fill_paused_ = false;
  resume();
}

// From the backend to the cache. Lets go of the backend when all has come, or nobody wants the rest. True when anything
// moved.
bool Transaction::pump_fill() {
  bool moved = false;
  for (int pieces = 0; !fill_paused_; ++pieces) {
    if (pieces == kSlicesPerRound) {
      worker_.resume_later(*this);
      return moved;
    }
    const std::string_view piece = backend_->next_piece();
    if (piece.empty()) break;
    moved = true;
    const cache::FillStep step = fill_.append(piece);
    if (step == cache::FillStep::pause) fill_paused_ = true;
    if (step == cache::FillStep::stop) {
      fill_ = cache::Fill();
      release_backend(false);
      return true;
    }
  }
  if (backend_->response_ended()) {
    fill_.finish();
    fill_ = cache::Fill();
    release_backend(true);
  } else if (backend_->failure() != Failure::none) {
    charge_backend(backend_->failure());
    end_fill(backend_->failure());
    release_backend(false);
  }
  return moved;
}

// Tells those who share the fill what the table says of `failure`.
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
  fill_.fail(how(info(failure).sharers), info(failure).name);
  fill_ = cache::Fill();
}

// No backend could be had while leading: everybody who waits is told, or given what is stale where that is allowed.
std::optional<Step> Transaction::fail_fill(Failure failure) {
  std::optional<cache::Answer> stale = fill_.stale_answer(realtime_ms());
  end_fill(failure);
  if (!stale || gone_ || head_sent_) return std::nullopt;
  failure_ = Failure::none;
  cache_status_.detail = "stale-if-error";
  return serve_stored(std::move(*stale));
}

// RFC 9111 §4.4: an unsafe request that was answered makes what is stored of its target suspect.
void Transaction::invalidate_if_unsafe() {
  if (worker_.cache() == nullptr || !route_->cache.enabled || is_safe(request_.method)) return;
  worker_.cache()->invalidate(request_view(), route_->cache, response_view());
}

}  // namespace tidegate::l7
