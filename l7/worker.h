// SPDX-License-Identifier: Apache-2.0
// Worker: one thread with an event loop and its own copy of everything that a request needs and workers do not share:
// listening sockets (SO_REUSEPORT), client and backend connections, TLS contexts, transactions, buffers. Other threads
// reach it by post().
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "cache/cache.h"
#include "core/event_loop.h"
#include "l7/backend/connections.h"
#include "l7/exchange/request_id.h"
#include "l7/exchange/transaction.h"
#include "l7/exchange/wait_queue.h"
#include "l7/h2/session_memory.h"
#include "l7/limits.h"
#include "l7/listener/admission.h"
#include "l7/listener/client_connection.h"
#include "l7/listener/listener.h"
#include "l7/observe/access_log.h"
#include "l7/observe/request_records.h"
#include "l7/observe/stats.h"
#include "l7/plan.h"
#include "l7/policy/encoder.h"
#include "l7/wire/buffer.h"
#include "l7/wire/memory_budget.h"

namespace tidegate::l7 {

// The state that all workers of the process share.
struct WorkerShared {
  Stats& stats;
  AccessLog& log;
  cache::Cache* cache;   // null: this node has no cache
  EventLoop& main_loop;  // objects that a worker has finished with are destroyed there
  AdmissionShared admission;
  RequestRecords* records = nullptr;  // null: no request is remembered
};

// A change of configuration for one worker, as a whole.
struct Adoption {
  std::unique_ptr<LocalPlan> plan;
  std::vector<ListenSocket> open;  // sockets that already listen
  std::vector<Endpoint> close;
  TlsContexts::Staples staples;
};

class Worker {
 public:
  Worker(size_t index, WorkerShared& shared);
  ~Worker();  // call it after stop()

  // --- any thread
  void start();
  void adopt(std::shared_ptr<Adoption> adoption);
  // Stops accepting and lets requests in progress finish. Calls `done` on the main loop when the last connection is
  // gone, at the latest after `timeout_ms`.
  void drain(uint64_t timeout_ms, std::function<void()> done);
  // Like drain, while another process accepts from the same sockets. An idle HTTP/1 connection stays open for one more
  // request, so that none is closed while a request is on its way.
  void leave(uint64_t timeout_ms, std::function<void()> done);
  void stop();  // joins

  // --- the worker's thread
  EventLoop& loop() { return loop_; }
  BlockPool& blocks() { return blocks_; }
  SessionBlocks& session_blocks() { return session_blocks_; }
  MemoryBudget& memory() { return memory_; }
  BackendConnections& backends() { return backends_; }
  Admission& admission() { return admission_; }
  Stats& stats() { return shared_.stats; }
  cache::Cache* cache() { return shared_.cache; }
  EncoderPool& encoders() { return encoders_; }
  RequestIds& request_ids() { return request_ids_; }
  // For parsing. Nothing in it may be used after the call that parses.
  http1::Head& scratch_head() { return scratch_head_; }
  PlanPin plan() const { return plan_; }
  bool draining() const { return draining_; }
  bool leaving() const { return leaving_; }
  // The Date field's value for this second.
  std::string_view http_date();

  // Bytes of the arenas of all its transactions. Any thread.
  uint64_t arena_bytes() const { return arena_bytes_.load(std::memory_order_relaxed); }

  // The queue of a pool's requests that wait for room.
  WaitQueue& queue_of(const PoolRuntime& pool);
  // Lets the first waiter of that pool try again, in the next round of the loop.
  void wake_first(uint32_t pool);

  Transaction& take_transaction();
  void give_back(Transaction* transaction);
  // Runs the transaction again in the next round of the loop.
  void resume_later(Transaction& transaction);

  bool log_enabled() const { return shared_.log.enabled(); }
  const std::vector<std::string>& logged_response_fields() const { return shared_.log.response_fields(); }
  void write_log(const AccessRecord& record);
  // The ring for records of ended requests; null: none are recorded.
  RequestRing* request_ring() { return request_ring_; }

  void accept(UniqueFd fd, const Endpoint& peer, const Endpoint& bind);
  // Frees a descriptor by closing an idle connection to a backend or of a client. Returns false if there is none.
  bool free_a_descriptor();
  // Runs the protocol's on_round_end once, at the end of this round of the loop. So bytes from several events of a
  // round are sent together.
  void call_at_round_end(ClientConnection& connection);
  // Ends a connection from within its own callbacks: it is destroyed at the end of the round.
  void bury(ClientConnection* connection);

 private:
  friend class Transaction;
  void run_adoption(Adoption& adoption);
  void end_taken_down();  // take_down.cc
  void retire(LocalPlan* local);
  void resume_queued();
  void trim_transactions();
  void free_transaction(Transaction* transaction);
  void end_round();
  void begin_drain(uint64_t timeout_ms, std::function<void()> done);
  void finish_drain_if_idle();
  bool trusts(const IpAddress& peer, const Endpoint& bind) const;
  template <class Fn>
  void for_each_connection(Fn fn);

  const size_t index_;
  WorkerShared& shared_;
  EventLoop loop_;
  BlockPool blocks_;
  SessionBlocks session_blocks_;
  EncoderPool encoders_;
  MemoryBudget memory_;
  RequestIds request_ids_;
  RequestRing* const request_ring_;
  http1::Head scratch_head_;
  PlanPin plan_;
  std::atomic<uint64_t> arena_bytes_{0};
  std::vector<std::unique_ptr<Transaction>> transactions_;  // all of them
  std::vector<Transaction*> free_transactions_;
  size_t least_free_ =
      0;  // the least number of free transactions since the trim timer was armed; so many were not needed
  std::vector<Transaction*> queued_;
  std::vector<std::unique_ptr<WaitQueue>> wait_queues_;  // by PoolRuntime::id; null: no request has had to wait
  BackendConnections backends_;
  Admission admission_;
  std::vector<std::unique_ptr<ListenerSocket>> listeners_;
  std::vector<std::unique_ptr<ClientConnection>> connections_;
  std::vector<std::unique_ptr<ClientConnection>> buried_;
  std::vector<ClientConnection*> at_round_end_;
  std::string date_;
  int64_t date_s_ = 0;
  bool draining_ = false;
  bool leaving_ = false;  // draining while another process has the sockets
  std::function<void()> drained_;
  Timer drain_timer_;
  Timer trim_timer_;
  std::thread thread_;
};

}  // namespace tidegate::l7
