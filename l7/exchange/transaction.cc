// SPDX-License-Identifier: Apache-2.0
#include "l7/exchange/transaction.h"

#include <algorithm>
#include <memory>

#include <fmt/format.h>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/policy.h"
#include "conf/model/pool.h"
#include "conf/route_pattern.h"
#include "core/assert.h"
#include "core/clock.h"
#include "l7/exchange/conditions.h"
#include "l7/exchange/forwarding.h"
#include "l7/limits.h"
#include "l7/policy/mirror.h"
#include "l7/policy/preflight.h"
#include "l7/worker.h"

namespace tidegate::l7 {

const Transaction::StepEntry Transaction::kSteps[] = {
    {"route", &Transaction::route},     {"policies", &Transaction::policies}, {"buffer", &Transaction::buffer},
    {"lookup", &Transaction::lookup},   {"serve", &Transaction::serve},       {"choose", &Transaction::choose},
    {"queue", &Transaction::queue},     {"connect", &Transaction::connect},   {"exchange", &Transaction::exchange},
    {"deliver", &Transaction::deliver}, {"rest", &Transaction::rest},         {"gather", &Transaction::gather},
    {"discard", &Transaction::discard}, {"fill", &Transaction::fill},         {"answer", &Transaction::answer},
    {"log", &Transaction::log},
};

const char* name(Step step) { return step < Step::over ? Transaction::kSteps[static_cast<size_t>(step)].name : "over"; }

Transaction::Transaction(Worker& worker)
    : worker_(worker),
      arena_(&worker.arena_bytes_),
      timer_(worker.loop(), [this] { resume(); }),
      request_buffer_(worker),
      response_buffer_(worker) {}

void Transaction::begin(ClientStream& client, PlanPin plan) {
  client_ = &client;
  exchange_.plan = std::move(plan);
  exchange_.facts = client.facts();
  // The connection's own text changes with the configuration, so it is copied.
  exchange_.facts.listener_name = arena_.copy(exchange_.facts.listener_name);
  exchange_.timing.started_ns = worker_.loop().now_ns();
  const uint64_t longest_ns = exchange_.facts.exchange_ns;
  exchange_.timing.exchange_deadline_ns = longest_ns == 0 ? UINT64_MAX : exchange_.timing.started_ns + longest_ns;
}

void Transaction::start(ClientStream& client, PlanPin plan) {
  begin(client, std::move(plan));
  step_ = Step::route;
  resume();
}

void Transaction::begin_refused(ClientStream& client, PlanPin plan, const Refusal& refusal) {
  begin(client, std::move(plan));
  choose_request_id();
  exchange_.client_address = exchange_.facts.peer_text;
  exchange_.outcome.failure = Failure::bad_request;
  failure_detail_ = refusal.reason;
  exchange_.outcome.request_line = arena_.copy(refusal.request_line);
}

void Transaction::start_refused(ClientStream& client, PlanPin plan, const Refusal& refusal) {
  begin_refused(client, std::move(plan), refusal);
  if (exchange_.plan) find_policies(kNone);  // the policies may add fields to the answer
  step_ = answer_with(refusal.status, refusal.sentence);
  if (refusal.status == 405) exchange_.response.fields.add_own("Allow", "allow", "", FieldKind::other);
  resume();
}

void Transaction::log_refused(ClientStream& client, PlanPin plan, const Refusal& refusal) {
  begin_refused(client, std::move(plan), refusal);
  let_client_go(Failure::bad_request);
  exchange_.outcome.status = refusal.status;
  step_ = Step::log;
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
    if (client_ != nullptr) client_->flush();  // may find the client gone, so this is the last step
    return;
  }
  ClientStream* client = std::exchange(client_, nullptr);
  reset();
  worker_.give_back(this);
  if (client != nullptr) client->on_transaction_over();
}

void Transaction::client_gone(Failure why) {
  if (why == Failure::bad_request) failure_detail_ = client_->body_fault();
  let_client_go(why);
  // they belonged to the client
  exchange_.timing.exchange_deadline_ns = exchange_.timing.call_deadline_ns = UINT64_MAX;
  resume();
}

// From here on there is no client. Its connection may end, so what the exchange still needs of its facts is copied.
void Transaction::let_client_go(Failure why) {
  client_ = nullptr;
  exchange_.coding.encoder.reset();
  exchange_.client_gone = true;
  exchange_.outcome.gone_why = why;
  exchange_.facts.peer_text = arena_.copy(exchange_.facts.peer_text);
  exchange_.facts.certificate = nullptr;
  exchange_.client_address = arena_.copy(exchange_.client_address);
  if (exchange_.facts.destination != nullptr) {
    exchange_.facts.destination = std::construct_at(
        reinterpret_cast<Endpoint*>(arena_.allocate_aligned(sizeof(Endpoint))), *exchange_.facts.destination);
  }
  // Other requests may wait for this fetch. When the last one leaves, the fetch ends. (The fill step is called anyway.)
  if (exchange_.cache.fill && step_ != Step::fill) exchange_.cache.fill.on_resume([this] { resume_fill(); });
}

void Transaction::reset() {
  leave_queue();
  timer_.cancel();
  if (exchange_.coding.kept != nullptr) end_keeping(false);
  // Constructed in place: an assignment would build the fresh value first and move each member.
  std::destroy_at(&exchange_);
  std::construct_at(&exchange_);
  failure_detail_.clear();
  kept_body_.clear();
  web_.reset();
  request_buffer_.clear();
  response_buffer_.clear();
  arena_.reset();
}

// --- steps

Step Transaction::route() {
  const ClientFacts& facts = exchange_.facts;
  const Plan& plan = exchange_.plan->plan();
  choose_request_id();
  begin_grpc();
  const bool listener_known = facts.listener < plan.model().listeners.size();
  exchange_.client_address =
      listener_known ? client_address(exchange_.request, facts, plan.model().listeners[facts.listener].trusted_proxies,
                                      arena_, &exchange_.named_client)
                     : facts.peer_text;
  plan.policies.foresee(facts.listener,
                        exchange_.named_client == IpAddress{} ? facts.peer.address : exchange_.named_client);

  if (facts.certificate_fault != ClientCertificateFault::none) {
    failure_detail_ = name(facts.certificate_fault);
    return fail(Failure::client_certificate_refused);
  }
  if (!plan.acme_answers.empty()) {
    if (const std::optional<std::string_view> answer = acme_answer()) return answer_with(200, *answer);
  }
  const std::string_view path = path_for_routes(exchange_.request.path, facts.merge_slashes, arena_);
  const bool preflight = plan.policies.answers_preflights() && policy::is_preflight(exchange_.request);
  const RouteMatch match = preflight ? match_preflight(path) : match_route(exchange_.request.method, path);
  if (match.route != kNone) {
    exchange_.route = &plan.model().routes[match.route];
    exchange_.route_index = match.route;
    exchange_.route_number = plan.route_names[match.route];
    begin_head_deadline();
    if (exchange_.route->grpc_web) begin_grpc_web();
  }
  find_policies(match.route);
  if (exchange_.policies.chain != nullptr) return Step::policies;
  return exchange_.route == nullptr ? refuse_unrouted(match) : take_route();
}

RouteMatch Transaction::match_route(std::string_view method, std::string_view path) {
  const RequestConditions judge(exchange_.request, exchange_.client_address);
  return exchange_.plan->plan().router->match(exchange_.facts.listener, method, exchange_.request.host, path,
                                              exchange_.parameters, &judge);
}

// An authority checks whether a name is ours (RFC 8555 §8.3). It is answered before routes and policies, because those
// are for clients. A path with an unknown token is handled like any other path.
std::optional<std::string_view> Transaction::acme_answer() const {
  const std::optional<std::string_view> token = acme_token(exchange_.request.path);
  if (!token || (exchange_.request.method != "GET" && exchange_.request.method != "HEAD")) return std::nullopt;
  const AcmeAnswers& answers = exchange_.plan->plan().acme_answers;
  const auto found = answers.find(*token);
  if (found == answers.end()) return std::nullopt;
  worker_.stats().acme_answers.add();
  return found->second;
}

Step Transaction::refuse_unrouted(const RouteMatch& match) {
  return match.method_refused ? refuse_method(match) : fail(Failure::no_route);
}

// Does what the route says, after the policies.
Step Transaction::take_route() {
  const ClientFacts& facts = exchange_.facts;
  const Plan& plan = exchange_.plan->plan();
  if (const RouteRedirect* to = exchange_.route->redirect()) return redirect(*to);
  if (const RouteAnswer* answer = exchange_.route->answer()) return answer_with(answer->status, answer->body);
  if (facts.via && own_via_entries(exchange_.request, plan.this_node().name) >= kOwnViaEntries) {
    return fail(Failure::loop_detected);
  }
  if (exchange_.request.body == BodyKind::known && exchange_.request.content_length > facts.max_body_bytes) {
    return fail(Failure::body_too_large);
  }
  exchange_.pool =
      exchange_.split_pool != kNone ? plan.pools[exchange_.split_pool].get() : &plan.pool_of(exchange_.route_index);
  if (!exchange_.request.upgrade.empty()) {
    const Failure failure = take_upgrade();
    if (failure == Failure::bad_request) return refuse_handshake();
    if (failure != Failure::none) return fail(failure);
  }
  // A stream of messages may be slow for good reasons. It uses one stream of a backend, not a connection.
  if (exchange_.grpc && exchange_.pool->config().protocol != BackendProtocol::h1) {
    exchange_.facts.patience.bytes_per_s = 0;
  }
  return buffers_request() ? Step::buffer : Step::lookup;
}

Step Transaction::redirect(const RouteRedirect& to) {
  const std::string server_name = exchange_.request.host.empty() ? client_->server_name() : std::string();
  const uint16_t port = exchange_.request.host.empty() ? client_->destination().port : uint16_t{0};
  const bool default_port = port == (exchange_.facts.tls_version.empty() ? 80 : 443);
  const ServerAuthority server{server_name, default_port ? uint16_t{0} : port};
  const std::string_view path = path_for_routes(exchange_.request.path, exchange_.facts.merge_slashes, arena_);
  const std::string_view rest = rest_of_path(path, exchange_.route->path);
  const std::string_view location =
      expand_redirect(to.location, exchange_.request, exchange_.parameters, rest, server, arena_);
  exchange_.response.fields.add_own("Location", "location", location, FieldKind::other);
  return answer_with(to.status, {});
}

// RFC 9110 §15.5.6: a 405 lists the allowed methods.
Step Transaction::refuse_method(const RouteMatch& match) {
  std::vector<std::string_view> methods;
  const auto add = [&methods](std::string_view method) {
    if (std::find(methods.begin(), methods.end(), method) == methods.end()) methods.push_back(method);
  };
  for (size_t i = 0; i < match.refuser_count; ++i) {
    for (const std::string& method : exchange_.plan->plan().model().routes[match.refusers[i]].methods) {
      add(method);
      if (method == "GET") add("HEAD");
    }
  }
  exchange_.response.fields.add_own("Allow", "allow", arena_.copy(fmt::format("{}", fmt::join(methods, ", "))),
                                    FieldKind::other);
  return fail(Failure::method_not_allowed);
}

Step Transaction::answer() {
  if (exchange_.client_gone) return Step::log;
  if (exchange_.request.extended_connect) refuse_tunnel_of_ours();
  compose_answer_fields();
  exchange_.head_sent = true;
  if (exchange_.outcome.status == 205) exchange_.answer_body = {};  // RFC 9110 §15.3.6
  const bool no_body =
      exchange_.request.is_head() || exchange_.outcome.status == 204 || exchange_.outcome.status == 304;
  keep_logged_fields();
  client_->send_head(
      {.status = exchange_.outcome.status,
       .reason = {},
       .fields = exchange_.response.fields,
       .body = no_body || exchange_.answer_body.empty() ? BodyKind::none : BodyKind::known,
       .content_length = exchange_.answer_body.size(),
       .content_length_known = exchange_.outcome.status != 204 && exchange_.outcome.status != 304 && !exchange_.grpc});
  if (!no_body && !exchange_.answer_body.empty()) {
    client_->send_piece(exchange_.answer_body);
    exchange_.outcome.response_bytes = exchange_.answer_body.size();
  }
  client_->end_response();
  return Step::log;
}

Step Transaction::log() {
  release_backend(exchange_.outcome.failure == Failure::none);
  const uint64_t now_ns = monotonic_ns();
  if (exchange_.policies.chain != nullptr && exchange_.policies.chain->watches_end) end_policies(now_ns);
  if (exchange_.mirror != nullptr) {
    const bool answered = exchange_.outcome.failure == Failure::none;
    exchange_.mirror->end(exchange_.mirrored, answered ? exchange_.outcome.status : 0);
  }
  Stats& stats = worker_.stats();
  stats.count_request(exchange_.request.version, exchange_.outcome.status);
  if (exchange_.outcome.failure != Failure::none) stats.count_failure(exchange_.outcome.failure);
  stats.duration.record_ns(now_ns - exchange_.timing.started_ns);
  if (exchange_.tunnel) stats.tunnels_closed.add();
  stats.client_bytes_in.add(exchange_.outcome.request_bytes);
  stats.client_bytes_out.add(exchange_.outcome.response_bytes);
  if (worker_.log_enabled()) write_access_log(now_ns);
  if (worker_.request_ring() != nullptr) remember(now_ns);
  return Step::over;
}

// --- helpers

Step Transaction::fail(Failure failure) {
  TIDEGATE_ASSERT(failure != Failure::none, "a request ends as failed, without a failure");
  exchange_.outcome.failure = failure;
  if (failure == Failure::bad_request && client_ != nullptr) {
    failure_detail_ = client_->body_failure() == Failure::none && web_ ? "bad_base64" : client_->body_fault();
  }
  leave_queue();
  charge_backend(failure);
  release_backend(false);
  if (exchange_.cache.fill) {
    if (const std::optional<Step> served = fail_fill(failure)) return *served;
  }
  if (exchange_.client_gone || failure == Failure::client_gone) {
    if (!exchange_.background) exchange_.outcome.failure = exchange_.outcome.gone_why;
    exchange_.outcome.status = info(exchange_.outcome.failure).status;
    if (!exchange_.client_gone) client_->abort_response();
    return Step::log;
  }
  if (exchange_.head_sent) {
    if (exchange_.grpc) {
      end_grpc(failure);
    } else {
      client_->abort_response();
    }
    return Step::log;
  }
  if (exchange_.grpc) return answer_grpc(failure);
  return answer_with(info(failure).status, info(failure).sentence);
}

Step Transaction::answer_with(uint16_t status, std::string_view body) {
  exchange_.outcome.status = status;
  exchange_.answer_body = body;
  if (!body.empty()) {
    exchange_.response.fields.add_own("Content-Type", "content-type", "text/plain; charset=utf-8", FieldKind::other);
  }
  return Step::answer;
}

// Composes the fields that the proxy adds to every answer, its own or a backend's.
void Transaction::compose_answer_fields() {
  FieldList& fields = exchange_.response.fields;
  if (fields.find(FieldKind::date) == nullptr) fields.add_own("Date", "date", worker_.http_date(), FieldKind::date);
  fields.remove_named("x-request-id");
  fields.add_own("X-Request-Id", "x-request-id", exchange_.request_id, FieldKind::x_request_id);
  if (exchange_.plan && exchange_.facts.via) {
    const std::string& node = exchange_.plan->plan().this_node().name;
    char* via = arena_.allocate(4 + node.size());
    std::memcpy(via, "1.1 ", 4);
    std::memcpy(via + 4, node.data(), node.size());
    fields.add_own("Via", "via", {via, 4 + node.size()}, FieldKind::via);
  }
  if (exchange_.cache.asked) {
    // RFC 9211: what this cache did with the request.
    cache_status_text_.clear();
    cache::append_cache_status(cache_status_text_, exchange_.plan->plan().this_node().name, exchange_.cache.status);
    fields.add_own("Cache-Status", "cache-status", cache_status_text_, FieldKind::other);
  }
  // These fields name the tags for purges of this cache. Clients need not know them.
  if (exchange_.route != nullptr && !exchange_.route->cache.send_tags) {
    fields.remove_named("cache-tag");
    fields.remove_named("surrogate-key");
  }
  if (exchange_.policies.chain != nullptr) end_policies_of_answer();
  if (exchange_.route != nullptr) apply_edits(exchange_.route->response_headers, fields, arena_);
}

// RFC 9110 §15.2: a proxy forwards interim answers. Fields that the route removes are left out.
void Transaction::on_interim(ResponseHead& interim) {
  if (client_ == nullptr || exchange_.head_sent) return;
  for (const auto& [name, value] : exchange_.route->response_headers) {
    if (value.empty()) interim.fields.remove_named(arena_.copy_lower(name));
  }
  client_->send_interim(interim);
}

void Transaction::choose_request_id() {
  const Field* given = exchange_.facts.peer_trusted ? exchange_.request.fields.find(FieldKind::x_request_id) : nullptr;
  if (given != nullptr && !given->value.empty() && given->value.size() <= kLongestRequestId) {
    exchange_.request_id = given->value;
    return;
  }
  char* const made = arena_.allocate(RequestIds::kBytes);
  exchange_.request_key = worker_.request_ids().next(made);
  exchange_.request_id = {made, RequestIds::kBytes};
}

void Transaction::wait_at_most_ns(uint64_t delay_ns) { wait_until_ns(worker_.loop().now_ns() + delay_ns); }

void Transaction::wait_until_ns(uint64_t deadline_ns) {
  exchange_.timing.step_deadline_ns = deadline_ns;
  timer_.arm_at_ns(std::min(exchange_.timing.step_deadline_ns, own_deadline_ns()));
}

void Transaction::wait_for_nothing() {
  exchange_.timing.step_deadline_ns = UINT64_MAX;
  if (own_deadline_ns() == UINT64_MAX) {
    timer_.cancel();
  } else {
    timer_.arm_at_ns(own_deadline_ns());
  }
}

bool Transaction::expired() const {
  return worker_.loop().now_ns() >= std::min(exchange_.timing.step_deadline_ns, own_deadline_ns());
}

void Transaction::begin_head_deadline() {
  if (exchange_.route->total_timeout_ms != 0)
    exchange_.timing.head_deadline_ns = exchange_.timing.started_ns + exchange_.route->total_timeout_ms * kNsPerMs;
}

Failure Transaction::own_time_over() const {
  const uint64_t now_ns = worker_.loop().now_ns();
  if (now_ns >= exchange_.timing.call_deadline_ns) return Failure::deadline_exceeded;
  if (now_ns >= exchange_.timing.exchange_deadline_ns) return Failure::exchange_timeout;
  return now_ns >= exchange_.timing.head_deadline_ns ? Failure::total_timeout : Failure::none;
}

}  // namespace tidegate::l7
