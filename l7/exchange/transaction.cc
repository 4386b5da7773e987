// SPDX-License-Identifier: Apache-2.0
#include "l7/exchange/transaction.h"

#include <algorithm>

#include <fmt/format.h>

#include "core/clock.h"
#include "l7/exchange/forwarding.h"
#include "l7/limits.h"
#include "l7/worker.h"

namespace tidegate::l7 {

const Transaction::StepEntry Transaction::kSteps[] = {
    {"route", &Transaction::route},       {"lookup", &Transaction::lookup},   {"serve", &Transaction::serve},
    {"choose", &Transaction::choose},     {"queue", &Transaction::queue},     {"connect", &Transaction::connect},
    {"exchange", &Transaction::exchange}, {"deliver", &Transaction::deliver}, {"fill", &Transaction::fill},
    {"answer", &Transaction::answer},     {"log", &Transaction::log},
};

const char* name(Step step) { return step < Step::over ? Transaction::kSteps[static_cast<size_t>(step)].name : "over"; }

Transaction::Transaction(Worker& worker)
    : worker_(worker), arena_(&worker.arena_bytes_), timer_(worker.loop(), [this] { resume(); }) {}

void Transaction::begin(ClientStream& client, PlanPin plan) {
  client_ = &client;
  plan_ = std::move(plan);
  started_ns_ = worker_.loop().now_ns();
  const uint64_t longest_ns = client.facts().exchange_ns;
  exchange_deadline_ns_ = longest_ns == 0 ? UINT64_MAX : started_ns_ + longest_ns;
}

void Transaction::start(ClientStream& client, PlanPin plan) {
  begin(client, std::move(plan));
  step_ = Step::route;
  resume();
}

void Transaction::start_refused(ClientStream& client, PlanPin plan, const Refusal& refusal) {
  begin(client, std::move(plan));
  choose_request_id();
  client_address_ = client.facts().peer_text;
  failure_ = Failure::bad_request;
  failure_detail_ = refusal.reason;
  request_line_ = arena_.copy(refusal.request_line);
  step_ = answer_with(refusal.status, refusal.sentence);
  if (refusal.status == 405) response_.fields.add_own("Allow", "allow", "", FieldKind::other);
  resume();
}

void Transaction::abandon() {
  reset();
  worker_.give_back(this);
}

void Transaction::resume() {
  if (running_) {
    again_ = true;
    return;
  }
  running_ = true;
  do {
    again_ = false;
    const StepFunction run = kSteps[static_cast<size_t>(step_)].run;
    const Step next = (this->*run)();
    if (next != Step::suspend) {
      step_ = next;
      again_ = true;
    }
  } while (again_ && step_ != Step::over);
  running_ = false;
  if (step_ != Step::over) {
    if (backend_) backend_->flush();
    if (client_ != nullptr) client_->flush();  // may find the client gone: nothing after this
    return;
  }
  ClientStream* client = std::exchange(client_, nullptr);
  reset();
  worker_.give_back(this);
  if (client != nullptr) client->on_transaction_over();
}

void Transaction::client_gone(Failure why) {
  client_ = nullptr;
  gone_ = true;
  gone_why_ = why;
  exchange_deadline_ns_ = UINT64_MAX;  // it was the client's
  // Others may wait for what this one fetches. When the last of them leaves, it ends. (The fill step is called
  // already.)
  if (fill_ && step_ != Step::fill) fill_.on_resume([this] { resume_fill(); });
  resume();
}

void Transaction::reset() {
  leave_queue();
  timer_.cancel();
  plan_ = PlanPin();
  route_ = nullptr;
  pool_ = nullptr;
  step_deadline_ns_ = head_deadline_ns_ = exchange_deadline_ns_ = UINT64_MAX;
  connected_ns_ = sent_ns_ = first_byte_ns_ = queued_ns_ = 0;
  request_bytes_ = response_bytes_ = 0;
  request_id_ = client_address_ = wire_head_ = answer_body_ = backend_name_ = request_line_ = {};
  tried_count_ = 0;
  tries_ = 0;
  status_ = 0;
  failure_ = Failure::none;
  gone_why_ = Failure::client_gone;
  patience_ = Patience();
  gone_ = head_sent_ = request_sent_ = fresh_only_ = false;
  background_ = cache_asked_ = fill_paused_ = stored_ended_ = false;
  found_.reset();
  pending_ = cache::Pending();
  fill_ = cache::Fill();
  stored_.reset();
  cache_status_ = cache::CacheStatus();
  failure_detail_.clear();
  parameters_.count = 0;
  response_.fields.clear();
  response_.body = BodyKind::none;
  response_.reason = {};
  request_.clear();
  arena_.reset();
}

// --- steps

Step Transaction::route() {
  const ClientFacts& facts = client_->facts();
  const Plan& plan = plan_->plan();
  choose_request_id();
  const bool listener_known = facts.listener < plan.model().listeners.size();
  client_address_ =
      listener_known ? client_address(request_, facts, plan.model().listeners[facts.listener].trusted_proxies, arena_)
                     : facts.peer_text;

  const std::string_view path = path_for_routes(request_.path, facts.merge_slashes, arena_);
  const RouteMatch match = plan.router->match(facts.listener, request_.method, request_.host, path, parameters_);
  if (match.route == kNone) return match.method_refused ? refuse_method(match) : fail(Failure::no_route);
  route_ = &plan.model().routes[match.route];
  begin_head_deadline();
  if (!route_->redirect.empty()) return redirect();
  if (route_->pool == kNone) return answer_with(route_->status, route_->body);
  if (facts.via && own_via_entries(request_, plan.this_node().name) >= kOwnViaEntries) {
    return fail(Failure::loop_detected);
  }
  if (request_.body == BodyKind::known && request_.content_length > facts.max_body_bytes) {
    return fail(Failure::body_too_large);
  }
  pool_ = &plan.pools[route_->pool];
  return Step::lookup;
}

Step Transaction::redirect() {
  const std::string server_name = request_.host.empty() ? client_->server_name() : std::string();
  const std::string_view location = expand_redirect(route_->redirect, request_, parameters_, server_name, arena_);
  response_.fields.add_own("Location", "location", location, FieldKind::other);
  return answer_with(route_->status == 0 ? 302 : route_->status, route_->body);
}

// RFC 9110 §15.5.6: a 405 lists the allowed methods.
Step Transaction::refuse_method(const RouteMatch& match) {
  std::vector<std::string_view> methods;
  const auto add = [&methods](std::string_view method) {
    if (std::find(methods.begin(), methods.end(), method) == methods.end()) methods.push_back(method);
  };
  for (size_t i = 0; i < match.refuser_count; ++i) {
    for (const std::string& method : plan_->plan().model().routes[match.refusers[i]].methods) {
      add(method);
      if (method == "GET") add("HEAD");
    }
  }
  response_.fields.add_own("Allow", "allow", arena_.copy(fmt::format("{}", fmt::join(methods, ", "))),
                           FieldKind::other);
  return fail(Failure::method_not_allowed);
}

Step Transaction::answer() {
  if (gone_) return Step::log;
  compose_answer_fields();
  head_sent_ = true;
  if (status_ == 205) answer_body_ = {};  // RFC 9110 §15.3.6
  const bool no_body = request_.is_head() || status_ == 204 || status_ == 304;
  client_->send_head({.status = status_,
                      .reason = {},
                      .fields = response_.fields,
                      .body = no_body || answer_body_.empty() ? BodyKind::none : BodyKind::known,
                      .content_length = answer_body_.size(),
                      .content_length_known = status_ != 204 && status_ != 304});
  if (!no_body && !answer_body_.empty()) {
    client_->send_piece(answer_body_);
    response_bytes_ = answer_body_.size();
  }
  client_->end_response();
  return Step::log;
}

Step Transaction::log() {
  release_backend(failure_ == Failure::none);
  const uint64_t now_ns = monotonic_ns();
  Stats& stats = worker_.stats();
  stats.count_request(request_.version, status_);
  if (failure_ != Failure::none) stats.count_failure(failure_);
  stats.duration.record_ns(now_ns - started_ns_);
  stats.client_bytes_in.add(request_bytes_);
  stats.client_bytes_out.add(response_bytes_);
  if (worker_.log_enabled()) {
    AccessRecord record;
    record.realtime_ns = realtime_ns();
    record.request_id = request_id_;
    record.client = client_address_;
    record.method = request_.method;
    record.host = request_.host;
    record.path = request_.path;
    record.query = request_.query;
    record.version = request_.version;
    record.status = status_;
    record.failure = failure_;
    if (failure_ != Failure::none) record.failure_detail = failure_detail_;
    record.request_line = request_line_;
    record.request_bytes = request_bytes_;
    record.response_bytes = response_bytes_;
    record.tries = tries_;
    record.backend = backend_name_;
    if (cache_asked_) record.cache = cache::name(cache_outcome_);
    record.background = background_;
    record.config_version = plan_->plan().snapshot->version;
    if (route_ != nullptr) record.route = route_->name;
    if (pool_ != nullptr) record.pool = pool_->config().name;
    if (const Field* agent = request_.fields.find("user-agent")) record.user_agent = agent->value;
    if (client_ != nullptr) {
      const ClientFacts& facts = client_->facts();
      record.peer = facts.peer_text;
      record.listener = facts.listener_name;
      record.tls_version = facts.tls_version;
      record.tls_resumed = facts.tls_resumed;
    }
    const auto since_start = [this](uint64_t at_ns) { return at_ns == 0 ? 0 : at_ns - started_ns_; };
    record.connected_ns = since_start(connected_ns_);
    record.queued_ns = queued_ns_;
    record.first_byte_ns = since_start(first_byte_ns_);
    record.total_ns = now_ns - started_ns_;
    worker_.write_log(record);
  }
  return Step::over;
}

// --- helpers

Step Transaction::fail(Failure failure) {
  failure_ = failure;
  if (failure == Failure::bad_request && client_ != nullptr) failure_detail_ = client_->body_fault();
  leave_queue();
  charge_backend(failure);
  release_backend(false);
  if (fill_) {
    if (const std::optional<Step> served = fail_fill(failure)) return *served;
  }
  if (gone_ || failure == Failure::client_gone) {
    if (!background_) failure_ = gone_why_;
    status_ = info(failure_).status;
    if (!gone_) client_->abort_response();
    return Step::log;
  }
  if (head_sent_) {
    client_->abort_response();
    return Step::log;
  }
  return answer_with(info(failure).status, info(failure).sentence);
}

Step Transaction::answer_with(uint16_t status, std::string_view body) {
  status_ = status;
  answer_body_ = body;
  if (!body.empty()) {
    response_.fields.add_own("Content-Type", "content-type", "text/plain; charset=utf-8", FieldKind::other);
  }
  return Step::answer;
}

// Names what the proxy adds to every answer, its own or a backend's.
void Transaction::compose_answer_fields() {
  FieldList& fields = response_.fields;
  if (fields.find(FieldKind::date) == nullptr) fields.add_own("Date", "date", worker_.http_date(), FieldKind::date);
  fields.remove_named("x-request-id");
  fields.add_own("X-Request-Id", "x-request-id", request_id_, FieldKind::x_request_id);
  if (plan_ && client_->facts().via) {
    const std::string& node = plan_->plan().this_node().name;
    char* via = arena_.allocate(4 + node.size());
    std::memcpy(via, "1.1 ", 4);
    std::memcpy(via + 4, node.data(), node.size());
    fields.add_own("Via", "via", {via, 4 + node.size()}, FieldKind::via);
  }
  if (cache_asked_) {
    // RFC 9211: what this cache did with the request.
    cache_status_text_.clear();
    cache::append_cache_status(cache_status_text_, plan_->plan().this_node().name, cache_status_);
    fields.add_own("Cache-Status", "cache-status", cache_status_text_, FieldKind::other);
  }
  // They name what a purge takes from this cache. That is nothing that clients need to know.
  if (route_ != nullptr && !route_->cache.send_tags) {
    fields.remove_named("cache-tag");
    fields.remove_named("surrogate-key");
  }
  if (route_ != nullptr) apply_edits(route_->response_headers, fields, arena_);
}

// RFC 9110 §15.2: a proxy forwards interim answers. Fields that the route removes are left out.
void Transaction::on_interim(const http1::Head& head) {
  if (client_ == nullptr || head_sent_) return;
  ResponseHead interim;
  if (response_from_http1(head, request_.is_head(), arena_, interim) != MessageFault::none) return;
  for (const auto& [name, value] : route_->response_headers) {
    if (value.empty()) interim.fields.remove_named(arena_.copy_lower(name));
  }
  client_->send_interim(interim.status, interim.fields);
}

void Transaction::choose_request_id() {
  constexpr size_t kLongestKept = 128;
  const Field* given = client_->facts().peer_trusted ? request_.fields.find(FieldKind::x_request_id) : nullptr;
  if (given != nullptr && !given->value.empty() && given->value.size() <= kLongestKept) {
    request_id_ = given->value;
    return;
  }
  worker_.request_ids().next(request_id_space_.data());
  request_id_ = {request_id_space_.data(), request_id_space_.size()};
}

void Transaction::wait_at_most_ns(uint64_t delay_ns) { wait_until_ns(worker_.loop().now_ns() + delay_ns); }

void Transaction::wait_until_ns(uint64_t deadline_ns) {
  step_deadline_ns_ = deadline_ns;
  timer_.arm_at_ns(std::min(step_deadline_ns_, own_deadline_ns()));
}

void Transaction::wait_for_nothing() {
  step_deadline_ns_ = UINT64_MAX;
  if (own_deadline_ns() == UINT64_MAX) {
    timer_.cancel();
  } else {
    timer_.arm_at_ns(own_deadline_ns());
  }
}

bool Transaction::expired() const { return worker_.loop().now_ns() >= std::min(step_deadline_ns_, own_deadline_ns()); }

void Transaction::begin_head_deadline() {
  if (route_->total_timeout_ms != 0) head_deadline_ns_ = started_ns_ + route_->total_timeout_ms * kNsPerMs;
}

Failure Transaction::own_time_over() const {
  const uint64_t now_ns = worker_.loop().now_ns();
  if (now_ns >= exchange_deadline_ns_) return Failure::exchange_timeout;
  return now_ns >= head_deadline_ns_ ? Failure::total_timeout : Failure::none;
}

}  // namespace tidegate::l7
