// SPDX-License-Identifier: Apache-2.0
// Transaction: the driver of one Exchange, as a machine of named steps. Each step does one thing and names its
// successor, or suspends. A suspended step is run again when there is progress (client, backend, cache, timer). Every
// way ends in log.
//
//   route ── policies ─┬─ answer (fixed, redirect, refused) ─────────────────────────────┐
//                      ├─ buffer (the body, where the pool says so; then lookup)         │
//                      └─ lookup ─┬─ serve (hit, stale, joined) ─────────────────────────┤
//                                 └─ choose ── connect ── exchange ─┬─ deliver (streamed) ┤
//                                      ↑ │        │          │      └─ fill (led) ────────┴─ log ── over
//                                      │ └─ queue (while every backend has its max_connections)
//                                      └──────────┴──────────┘ on another backend, under the retry budget
//
// Ownership: a ClientStream takes a transaction from the worker's pool, fills request() in and calls start(). From then
// on the transaction holds the stream until on_transaction_over() or client_gone(), whichever comes first. At its end
// the transaction goes back to the pool. The pinned plan keeps all its decisions in one configuration version.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "conf/model/route.h"
#include "core/event_loop.h"
#include "l7/backend/stream.h"
#include "l7/exchange/body_buffer.h"
#include "l7/exchange/client_stream.h"
#include "l7/exchange/exchange.h"
#include "l7/exchange/failure.h"
#include "l7/exchange/grpc_web.h"
#include "l7/exchange/wait_queue.h"
#include "l7/wire/arena.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

class Worker;
struct AccessRecord;

enum class Step : uint8_t {
  route,     // find the route, and the policies that apply there
  policies,  // ask each policy; a policy may make the request wait
  buffer,    // collect the request's body before a backend is asked
  lookup,    // ask the cache; its result may come later
  serve,     // send the client a stored body, or one that is arriving for another transaction
  choose,    // choose a backend by the pool's policy, and a connection to it
  queue,     // wait until a backend has room for one more connection
  connect,   // wait for the connection
  exchange,  // send the request, wait for the response's head
  deliver,   // send the response's body to the client, and the rest of the request's body to the backend
  rest,      // send the buffered rest of the response's body to the client; the backend has finished
  gather,    // collect the whole body of the answer, to change it
  discard,   // read the response to a copied request, and throw it away
  fill,      // give the response's body to the cache, and from there to the client
  answer,    // send a response of our own: fixed, redirect, failure
  log,       // count the request and write it to the log
  over,
  suspend,  // not a step: stay, and run again when there is progress
};
const char* name(Step step);

// The answer to a request that could not be read, and the reason. The views need be valid only during start_refused().
struct Refusal {
  uint16_t status;
  std::string_view sentence;
  std::string_view reason;        // the name of the fault, for the log
  std::string_view request_line;  // as received, possibly incomplete; for the log
};
inline Refusal refusal_of(MessageFault fault, std::string_view request_line) {
  return {info(fault).status, info(fault).sentence, info(fault).name, request_line};
}

// Whether the Content-Type is JSON. If there is a content coding, the bytes are not the text (transaction_json.cc).
bool is_json(const FieldList& fields);
bool has_content_coding(const FieldList& fields);

class Transaction final : public BackendStream::User {
 public:
  explicit Transaction(Worker& worker);
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;

  // --- before start(): the client's side fills the request in
  Arena& arena() { return arena_; }
  RequestHead& request() { return exchange_.request; }
  void start(ClientStream& client, PlanPin plan);
  // Called instead of start(): answers a request that could not be read. The request is counted and logged.
  void start_refused(ClientStream& client, PlanPin plan, const Refusal& refusal);
  // Called instead of start(), for a client whose stream is reset without an answer. The request is counted and logged.
  void log_refused(ClientStream& client, PlanPin plan, const Refusal& refusal);

  // Called instead of start() if the request never became complete. The transaction goes back to the pool.
  void abandon();

  // --- while it runs
  void resume();
  // Call it when the client has gone. After that the stream is not used, and on_transaction_over() is not called.
  void client_gone(Failure why = Failure::client_gone);
  void on_backend() override { resume(); }
  void on_interim(ResponseHead& interim) override;
  Worker& worker() { return worker_; }
  const RequestHead& request() const { return exchange_.request; }
  // For a policy that has an answer of its own (RuleDecision::buffered). Empty until a backend or a policy answers.
  BodyBuffer& answer_buffer() { return response_buffer_; }
  // Whether the transaction has a connection to a backend that an operator took down; and the call that gives the
  // connection up (take_down.cc).
  bool uses_taken_down() const;
  void leave_taken_down();

 private:
  friend class Worker;
  using StepFunction = Step (Transaction::*)();
  struct StepEntry {
    const char* name;
    StepFunction run;
  };
  static const StepEntry kSteps[];
  friend const char* name(Step step);

  // The steps.
  Step route();
  Step policies();
  Step buffer();
  Step lookup();
  Step serve();
  Step choose();
  Step queue();
  Step connect();
  Step exchange();
  Step deliver();
  Step rest();
  Step gather();
  Step discard();
  Step fill();
  Step answer();
  Step log();

  // transaction.cc
  void begin(ClientStream& client, PlanPin plan);
  void begin_refused(ClientStream& client, PlanPin plan, const Refusal& refusal);
  void reset();
  void let_client_go(Failure why);
  Step fail(Failure failure);
  Step answer_with(uint16_t status, std::string_view body);
  Step take_route();
  std::optional<std::string_view> acme_answer() const;
  Step refuse_unrouted(const RouteMatch& match);
  Step redirect(const RouteRedirect& to);
  Step refuse_method(const RouteMatch& match);
  void compose_answer_fields();
  void wait_at_most_ns(uint64_t delay_ns);
  void wait_until_ns(uint64_t deadline_ns);
  void wait_for_nothing();
  uint64_t own_deadline_ns() const {
    const Timing& timing = exchange_.timing;
    return std::min({timing.head_deadline_ns, timing.exchange_deadline_ns, timing.call_deadline_ns});
  }
  bool expired() const;
  // The failure of the time that is over: total_timeout, exchange_timeout or deadline_exceeded; otherwise none.
  Failure own_time_over() const;
  // The backend has answered. The time limit for the head does not apply any more.
  void end_head_deadline() { exchange_.timing.head_deadline_ns = UINT64_MAX; }
  void begin_head_deadline();
  void choose_request_id();

  // transaction_record.cc
  void remember(uint64_t now_ns);

  // transaction_log.cc
  void keep_logged_fields();
  void write_access_log(uint64_t now_ns);
  void log_client(AccessRecord& record) const;
  void log_times(AccessRecord& record, uint64_t now_ns) const;

  // transaction_policies.cc
  Step ask_policies();
  RouteMatch match_preflight(std::string_view path);
  RouteMatch match_route(std::string_view method, std::string_view path);
  void find_policies(uint32_t route);
  Step end_by_policy(const policy::RuleDecision& decision);
  Step after_policies();
  Failure change_request();
  void end_policies_of_answer();
  void end_policies(uint64_t now_ns);
  std::string_view time_left();
  std::string_view words_of_policies();

  // transaction_fetch.cc
  // True if the client left and no other request waits for the fetch that this transaction leads.
  bool nobody_waits() const {
    return exchange_.client_gone && !exchange_.mirrored && !(exchange_.cache.fill && exchange_.cache.fill.wanted());
  }
  // The next step: connect, or the step that fails. Nothing if every backend is full.
  std::optional<Step> take_backend();
  std::optional<Step> take_backend_past_accepted();
  const PoolMember* choose_member(BackendPool::Choice& choice);
  std::string_view proxy_header();
  bool acquire_connection(const PoolMember& member);
  void begin_request();
  Step await_connection();
  bool use_successor();
  void choose_again();
  std::string_view host_of_backend();
  uint64_t pick_hash() const;
  void release_backend(bool keep);
  bool pump_request();
  std::string_view next_request_piece();
  bool is_whole_body(std::string_view piece) const;
  bool pump_response();
  Step await_body();
  void await_more(bool response_moved);
  bool client_owes_body() const { return !exchange_.attempts.request_sent && backend_->ready_for_piece(); }
  uint64_t silence_ns() const;
  uint64_t backend_wait_ns() const;
  Failure silence_failure() const;
  Step begin_response();
  Step begin_passed_response();
  Failure request_body_failure() const;

  // transaction_buffer.cc
  bool buffers_request();
  Step end_buffer();
  Step to_lookup();
  bool pump_buffered_response();
  bool send_buffered_piece();
  Step leave_backend();

  // transaction_tunnel.cc
  Failure take_upgrade();
  Step refuse_handshake();
  // The request to the member needs HTTP/1.1, although the pool lets TLS choose the protocol.
  bool tunnels_by_http1_alone(const PoolMember& member) const;
  std::optional<Step> choose_tunnel();
  Failure judge_upgrade();
  void judge_connect();
  void begin_tunnel();
  void refuse_tunnel_of_ours();

  // transaction_coding.cc
  // Offers the content to policies that compress. Call it before the head is composed.
  void offer_content(BodyKind body, std::optional<uint64_t> length);
  void send_answer_head(std::string_view reason, BodyKind body, uint64_t length, bool length_known);
  // `last`: nothing follows it. It may be false for the last one.
  void send_content(std::string_view piece, bool last = false) {
    if (exchange_.coding.encoder == nullptr) {
      exchange_.outcome.response_bytes += piece.size();
      client_->send_piece(piece);
    } else {
      encode_content(piece, last ? Encoder::End::finish : Encoder::End::none);
    }
  }
  void flush_content() {
    if (exchange_.coding.unflushed) encode_content({}, Encoder::End::flush);
  }
  void end_content(const Trailers& trailers = {});
  bool take_stored_coding();
  void begin_keeping();
  void keep_coded(std::string_view piece);
  void end_keeping(bool whole);
  void encode_content(std::string_view piece, Encoder::End end);

  // transaction_grpc.cc
  void begin_grpc();
  void begin_grpc_web();
  void begin_call();
  std::string_view grpc_time_left();
  Step answer_grpc(Failure failure);
  void end_grpc(Failure failure);
  std::string_view next_web_piece();
  void send_web_piece(std::string_view bytes);
  Step end_grpc_web();

  // transaction_json.cc
  Failure change_request_json();
  std::optional<Step> begin_gather();
  Step end_gather();
  Step fail_json(policy::JsonFault fault);

  // transaction_mirror.cc
  void begin_mirror();
  Step begin_discard();

  // transaction_queue.cc
  bool others_wait_first();
  bool join_queue();
  // `with_its_turn`: it was next and got a backend.
  void leave_queue(bool with_its_turn = false);
  uint64_t client_hash() const;

  // transaction_retry.cc
  Step attempt_failed(Failure failure);
  Failure what_happened(Failure failure) const;
  void charge_backend(Failure failure);
  void note_backend_failure();
  void judge_answer();
  void settle_breaker(Breaker::Result result);
  bool was_waited_for() const;
  bool was_silent() const;
  bool not_accepted();
  void note_not_accepted();
  bool may_retry(Failure failure);
  // True if the route throws this answer away and another backend can be asked.
  bool retries_status();
  BackendPool::Question question_of_retry() const;
  bool others_are_left(Retry retry) const;
  bool another_is_free() const;
  Failure failure_of_tries(Failure now) const;

  // transaction_cache.cc
  cache::RequestView request_view();
  cache::ResponseView response_view();
  Step follow(cache::Lookup found);
  Step serve_stored(cache::Answer answer);
  void revalidate_in_background(cache::Fill fill);
  void begin_without_client(const Exchange& from);
  void send_stored_head();
  cache::BodyStep pump_stored();
  Step begin_filled_response();
  bool asks_for_less() const;
  Step ask_anew_for_less();
  bool pump_fill();
  void cut_off_client(Failure why);
  void end_fill(Failure failure);
  void resume_fill();
  std::optional<Step> fail_fill(Failure failure);
  void invalidate_if_unsafe();

  Worker& worker_;
  Arena arena_;
  Exchange exchange_;
  ClientStream* client_ = nullptr;
  std::unique_ptr<BackendStream> backend_;
  WaitQueue::Waiter waiter_{this};
  Timer timer_;
  std::string cache_status_text_;  // a member only so that its memory is used again
  // the request's body so far, if no part is missing; a member only to use its memory again
  std::string kept_body_;
  std::unique_ptr<GrpcWeb> web_;  // set for a call of gRPC-Web
  BodyBuffer request_buffer_;     // the request's body, from its first byte
  BodyBuffer response_buffer_;    // the part of the response's body that the client has not taken
  // details of the last try's failure, for the log; a member only to use its memory again
  std::string failure_detail_;
  Step step_ = Step::over;
  bool running_ = false;
  bool again_ = false;
  bool queued_ = false;  // in the worker's list of transactions to resume in the next round
  size_t place_ = 0;     // position among the worker's transactions
};

}  // namespace tidegate::l7
