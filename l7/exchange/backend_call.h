// SPDX-License-Identifier: Apache-2.0
// BackendCall: a small request of the proxy's own to a backend of a pool, while a client's request waits for its
// answer. It chooses a backend like any request: by the pool's policy, the breakers and the health. It may use kept
// connections, waits in the pool's queue while every backend is full, and tries another backend if the first one fails.
// Its results count for the pool.
//
//   the constructor → fill request() in → begin() → advance(), each time something has moved, until over()
//
// It has no body to send, and the method must be idempotent. The answer's head is put into the arena of the
// transaction. Its body is bounded. Bytes beyond kCallAnswerBytes are taken from the worker's budget for bodies
// (MemoryBudget).
//
// Ownership: the exchange owns it (PolicyUse::call). Destroying it cancels it at any time: an HTTP/1 connection is then
// closed, an HTTP/2 stream is reset. Threads: the worker's.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>

#include "conf/model/route.h"
#include "core/event_loop.h"
#include "l7/backend/stream.h"
#include "l7/exchange/client_stream.h"
#include "l7/exchange/forwarding.h"
#include "l7/exchange/wait_queue.h"
#include "l7/limits.h"
#include "l7/plan.h"
#include "l7/policy/policy.h"

namespace tidegate::l7 {

class Transaction;
class Worker;

class BackendCall final : public policy::Call, private BackendStream::User {
 public:
  // Borrowed. Everything in it lives as long as the exchange.
  struct Terms {
    const BackendPool& pool;
    const std::shared_ptr<TlsContext>& tls;  // of the pool; null: plain text
    const FieldEdits& edits;
    const ClientFacts& facts;  // copied
    std::string_view client;   // the client's address, for X-Forwarded-For and for its share of the queue
    QueuePriority priority;    // of the route
    std::string_view via_node;
    std::string_view request_id;
    uint64_t timeout_ns;
    std::string_view host = {};                 // replaces the request's host; empty: that host is used
    size_t most_body_bytes = kCallAnswerBytes;  // most bytes of the answer's body; a longer body is dropped
  };
  BackendCall(Transaction& transaction, Arena& arena, const Terms& terms);
  ~BackendCall() override;

  RequestHead& request() { return request_; }
  void begin();
  // Does all steps that need no wait. Call it each time the transaction runs.
  void advance();

  bool over() const { return stage_ == Stage::over; }
  // Valid after over().
  Failure failure() const { return failure_; }
  const ResponseHead& response() const { return response_; }
  std::string_view body() const { return body_; }
  // The body was larger than Terms allow, or the worker's budget for bodies had no room for it.
  bool body_dropped() const { return body_dropped_; }

 private:
  enum class Stage : uint8_t { choosing, connecting, asking, reading, over };
  void on_backend() override { move(); }
  void on_interim(ResponseHead&) override {}
  void move();
  bool step();
  bool choose();
  bool wait_for_room();
  bool take_connection(const PoolMember& member);
  std::string_view proxy_header();
  bool connect();
  bool ask();
  bool take_answer();
  bool read();
  bool try_failed(Failure failure);
  bool may_try_again(Failure failure);
  bool others_are_left() const;
  bool give_up_if_late(Failure why);
  bool end(Failure failure);
  void charge(Failure failure);
  bool not_accepted();
  void leave_queue(bool with_its_turn = false);
  void release();
  void keep_answer();
  bool keep_body(std::string_view piece);
  uint64_t now_ns() const;
  void arm(uint64_t longest_ns);

  Transaction& transaction_;
  Worker& worker_;
  Arena& arena_;
  const BackendPool& pool_;
  const std::shared_ptr<TlsContext>& tls_;
  const FieldEdits& edits_;
  ClientFacts facts_;
  const std::string_view via_node_, request_id_, host_;
  const uint64_t timeout_ns_;
  const size_t most_body_bytes_;
  const uint64_t client_hash_;
  const QueuePriority priority_;
  RequestHead request_;
  ResponseHead response_;
  std::string body_;
  size_t budgeted_ = 0;  // bytes of the worker's budget that it has taken
  std::unique_ptr<BackendStream> backend_;
  WaitQueue::Waiter waiter_;
  Timer timer_;
  uint64_t deadline_ns_ = 0;       // deadline of the whole call
  uint64_t step_deadline_ns_ = 0;  // deadline of the present stage; not after deadline_ns_
  uint64_t sent_ns_ = 0;
  uint64_t connecting_since_ns_ = 0;
  const PoolMember* member_ = nullptr;  // member of the present try; it counts as in flight while this is set
  Breaker::Permit permit_;
  std::array<uint32_t, kCallTries> tried_{};  // BackendRuntime::id
  size_t tried_count_ = 0;
  uint32_t tries_ = 0;
  uint32_t not_accepted_ = 0;  // tries that a backend's kernel did not accept; `tries_` does not include them
  uint32_t ordinal_ = 0;       // connections to the present backend when the try began, including its own
  Failure failure_ = Failure::none;
  Stage stage_ = Stage::choosing;
  bool fresh_only_ = false;
  bool past_accepted_ = false;  // as of Attempts
  bool body_dropped_ = false;
  bool bad_status_ = false;  // the status counts as a failure of the backend
};

}  // namespace tidegate::l7
