// SPDX-License-Identifier: Apache-2.0
// ProbeDesk: accepts orders for probes at the admin socket (POST /probe, probe/order.h). It answers each order when its
// probes have ended, or when its time is over.
//
// Threads: the control thread.
#pragma once

#include <list>
#include <memory>

#include "core/event_loop.h"
#include "core/http_server.h"
#include "core/metrics.h"
#include "l4/dataplane.h"
#include "l4/probe/board.h"
#include "l4/probe/order.h"

namespace tidegate::l4 {

class ProbeDesk final : private IoHandler {
 public:
  // `dataplane` must outlive it.
  ProbeDesk(EventLoop& loop, Dataplane& dataplane);
  ~ProbeDesk();  // orders in progress are answered with 500

  void take(const HttpExchangePtr& exchange, const BackendIds& backends);

 private:
  struct Order;

  void on_io(uint32_t events) override;
  bool place_all(Order& order, const ForwardingTables& tables, BackendId backend);
  bool place(Order& order, size_t index, const ForwardingTables& tables, BackendId backend);
  void end(Order& order, size_t index, ProbeEnd how, std::string_view reply);
  void end_unanswered(Order& order);
  void answer_those_over();

  EventLoop& loop_;
  Dataplane& dataplane_;
  std::list<std::shared_ptr<Order>> orders_;  // orders that were not answered yet
  std::array<Counter*, static_cast<size_t>(ProbeEnd::count_)> ended_{};
  Counter& refused_;
};

}  // namespace tidegate::l4
