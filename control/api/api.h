// SPDX-License-Identifier: Apache-2.0
// Api: passes a request to its handler in these steps: route -> auth -> role -> leader? -> parameters -> body type ->
// idempotency -> handler. Every refusal is a problem+json and is counted.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "control/api/auth.h"
#include "control/api/idempotency.h"
#include "control/api/route_table.h"
#include "core/metrics.h"

namespace tidegate {

class Api {
 public:
  Api(const RouteTable& table, Auth& auth, HostState& host_state)
      : table_(table), auth_(auth), idempotency_(host_state) {}

  // `refusal` says whether writes are refused now: it returns the answer, or nothing.
  void refuse_writes(std::function<std::optional<HttpResponse>()> refusal) { refusal_ = std::move(refusal); }
  // If `leader` is not empty, this control follows that control. Writes are refused with 421 and the leader's name.
  void set_leader(std::string leader) { leader_ = std::move(leader); }

  void dispatch(const HttpExchangePtr& exchange);

 private:
  void refuse(const HttpExchangePtr& exchange, std::string_view code, HttpResponse response);
  void refuse(const HttpExchangePtr& exchange, int status, std::string_view code, std::string_view detail,
              std::string_view allow = {});
  bool check_parameters(const HttpExchangePtr& exchange, const ApiRoute& route);
  bool check_body(const HttpExchangePtr& exchange, const ApiRoute& route);
  // For a call with an Idempotency-Key. Returns false if it is a repetition, which is answered here.
  bool admit_once(ApiCall& call, const ApiRoute& route);

  const RouteTable& table_;
  Auth& auth_;
  std::string leader_;
  std::function<std::optional<HttpResponse>()> refusal_;
  Idempotency idempotency_;
  Counter& calls_ = metrics().counter("tidegate_control_api_calls_total", "Calls that reached a handler.");
};

}  // namespace tidegate
