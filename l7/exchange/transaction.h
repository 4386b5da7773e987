// SPDX-License-Identifier: Apache-2.0
// Transaction: one request's way through the proxy, as a machine of named steps. Each step does one thing and names its
// successor, or suspends; it is run again when something has moved (client, backend, cache, timer). Every way ends in
// log.
//
//   route ─┬─ answer (fixed, redirect, refused) ─────────────────────────────┐
//          └─ lookup ─┬─ serve (hit, stale, joined) ─────────────────────────┤
//                     └─ choose ── connect ── exchange ─┬─ deliver (streamed) ┤
//                          ↑ │        │          │      └─ fill (led) ────────┴─ log ── over
//                          │ └─ queue (while every backend has its max_connections)
//                          └──────────┴──────────┘ on another backend, under the retry budget
//
// Ownership: taken from the worker's pool by a ClientStream, which fills request() in, then start()s it. From then on
// the transaction holds the stream until on_transaction_over() or client_gone(), whichever comes first; then it goes
// back to the pool. A pinned Plan makes all its decisions those of one configuration version.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "cache/cache.h"
#include "core/event_loop.h"
#include "l7/backend/h1_connection.h"
#include "l7/exchange/client_stream.h"
#include "l7/exchange/failure.h"
#include "l7/exchange/request_id.h"
#include "l7/exchange/wait_queue.h"
#include "l7/plan.h"
#include "l7/wire/arena.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

class Worker;

enum class Step : uint8_t {
  route,     // find the route; refuse what has none
  lookup,    // ask the cache; it may take a while
  serve,     // what is stored, or arriving for another transaction, to the client
  choose,    // a backend, by the pool's policy, and a connection to it
  queue,     // wait until a backend has room for one more connection
  connect,   // wait for the connection
  exchange,  // send the request, wait for the response's head
  deliver,   // the response's body to the client, the rest of the request's to the backend
  fill,      // the response's body to the cache, and from there to the client
  answer,    // a response of our own: fixed, redirect, failure
  log,       // count and write down
  over,
  suspend,  // not a step: stay, and run again when something moved
};
const char* name(Step step);

// How a request that could not be read is answered, and why. The views must be valid only during start_refused().
struct Refusal {
  uint16_t status;
  std::string_view sentence;
  std::string_view reason;        // for the log: the name of the fault
  std::string_view request_line;  // for the log: as received, maybe incomplete
};
inline Refusal refusal_of(MessageFault fault, std::string_view request_line) {
  return {info(fault).status, info(fault).sentence, info(fault).name, request_line};
}

class Transaction final : public BackendConnection::User {
 public:
  explicit Transaction(Worker& worker);
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;

  // --- before start(): the client's side fills the request in
  Arena& arena() { return arena_; }
  RequestHead& request() { return request_; }
  void start(ClientStream& client, PlanPin plan);
  // Instead of start(): answers a request that could not be read, so that it is counted and logged.
  void start_refused(ClientStream& client, PlanPin plan, const Refusal& refusal);

  // Instead of start(): the request never became whole. Goes back to the pool.
  void abandon();

  // --- while it runs
  void resume();
  // The client is no more; the stream is not touched again, nor is on_transaction_over() called.
  void client_gone(Failure why = Failure::client_gone);
  void on_backend() override { resume(); }
  void on_interim(const http1::Head& head) override;
  const RequestHead& request() const { return request_; }
  // Whether it has a connection to a backend that an operator took down, and what ends that (take_down.cc).
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
  Step lookup();
  Step serve();
  Step choose();
  Step queue();
  Step connect();
  Step exchange();
  Step deliver();
  Step fill();
  Step answer();
  Step log();

  // transaction.cc
  void begin(ClientStream& client, PlanPin plan);
  void reset();
  Step fail(Failure failure);
  Step answer_with(uint16_t status, std::string_view body);
  Step redirect();
  Step refuse_method(const RouteMatch& match);
  void compose_answer_fields();
  void wait_at_most_ns(uint64_t delay_ns);
  void wait_until_ns(uint64_t deadline_ns);
  void wait_for_nothing();
  uint64_t own_deadline_ns() const { return std::min(head_deadline_ns_, exchange_deadline_ns_); }
  bool expired() const;
  // total_timeout or exchange_timeout when that time is over, else none.
  Failure own_time_over() const;
  // The backend has answered: what is left has all the time that it needs.
  void end_head_deadline() { head_deadline_ns_ = UINT64_MAX; }
  void begin_head_deadline();
  void choose_request_id();

  // transaction_fetch.cc
  // The client left and no other waits for what this transaction leads.
  bool nobody_waits() const { return gone_ && !(fill_ && fill_.wanted()); }
  // connect, or pool_down; nothing where every backend is full.
  std::optional<Step> take_backend();
  bool acquire_connection(const PoolMember& member);
  uint64_t pick_hash() const;
  void release_backend(bool keep);
  bool pump_request();
  bool pump_response();
  Step await_body();
  void await_more(bool response_moved);
  bool client_owes_body() const { return !request_sent_ && backend_->ready_for_piece(); }
  uint64_t silence_ns() const;
  uint64_t backend_wait_ns() const;
  Failure silence_failure() const;
  Step begin_response();
  Step begin_passed_response();
  Failure request_body_failure() const;

  // transaction_queue.cc
  bool others_wait_first();
  bool join_queue();
  void leave_queue();
  uint64_t client_hash() const;

  // transaction_retry.cc
  Step attempt_failed(Failure failure);
  Failure what_happened(Failure failure) const;
  void charge_backend(Failure failure);
  bool was_waited_for() const;
  bool may_retry(Failure failure);
  bool others_are_left(Retry retry) const;

  // transaction_cache.cc
  cache::RequestView request_view();
  cache::ResponseView response_view();
  Step follow(cache::Lookup found);
  Step serve_stored(cache::Answer answer);
  void revalidate_in_background(cache::Fill fill);
  std::string_view compose_wire_head(const cache::Fill* fill);
  std::string_view host_of_backend();
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
  RequestHead request_;
  ResponseHead response_;
  RouteParameters parameters_;
  PlanPin plan_;
  ClientStream* client_ = nullptr;
  const Route* route_ = nullptr;
  const BackendPool* pool_ = nullptr;
  const PoolMember* member_ = nullptr;  // counted as in flight while set
  std::unique_ptr<BackendConnection> backend_;
  WaitQueue::Waiter waiter_{this};
  std::optional<cache::Lookup> found_;  // brought by the cache, not yet looked at
  cache::Pending pending_;
  cache::Fill fill_;                     // while leading
  std::optional<cache::Answer> stored_;  // what is served from the cache
  cache::CacheStatus cache_status_;
  cache::Outcome cache_outcome_ = cache::Outcome::bypass;
  std::string cache_status_text_;  // kept for its storage
  Timer timer_;
  uint64_t started_ns_ = 0;
  uint64_t step_deadline_ns_ = UINT64_MAX;
  uint64_t head_deadline_ns_ = UINT64_MAX;      // the route's total_timeout; none once the backend has answered
  uint64_t exchange_deadline_ns_ = UINT64_MAX;  // the listener's request_timeout: for the whole exchange
  uint64_t connected_ns_ = 0, first_byte_ns_ = 0;
  uint64_t queued_since_ns_ = 0, queued_ns_ = 0;  // while it waits; how long it has waited in all
  uint64_t sent_ns_ = 0;  // since when the backend is waited for: connected to, or given more of the request
  uint64_t request_bytes_ = 0, response_bytes_ = 0;
  std::array<char, RequestIds::kBytes> request_id_space_;
  std::string_view request_id_;
  std::string_view client_address_;
  std::string_view wire_head_;  // of the request, as backends get it
  std::string_view answer_body_;
  std::string_view backend_name_;         // the last one tried, for the log
  std::string_view request_line_;         // of a request that was refused, for the log
  std::string failure_detail_;            // what the last one said of its failure, for the log; kept for its storage
  Failure last_failure_ = Failure::none;  // of the try before this one
  std::array<uint32_t, 17> tried_;        // backends that failed this request: retry_attempts is at most 16
  size_t tried_count_ = 0;
  uint32_t tries_ = 0;
  uint16_t status_ = 0;
  Failure failure_ = Failure::none;
  Failure gone_why_ = Failure::client_gone;
  Patience patience_;             // with the client, while its body is waited for
  uint64_t patience_end_ns_ = 0;  // while the deliver step waits for both sides
  Step step_ = Step::over;
  bool running_ = false;
  bool again_ = false;
  size_t place_ = 0;     // among the worker's
  bool queued_ = false;  // in the worker's list of those to resume in the next round
  bool gone_ = false;    // the client left
  bool head_sent_ = false;
  bool request_sent_ = false;  // whole, towards the present backend
  bool background_ = false;    // revalidates for the cache; never had a client
  bool cache_asked_ = false;
  bool fill_paused_ = false;   // the cache is behind
  bool stored_ended_ = false;  // all of stored_ was handed to the client
  bool fresh_only_ = false;    // a kept-alive connection failed this request once
};

}  // namespace tidegate::l7
