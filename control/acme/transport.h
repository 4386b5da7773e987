// SPDX-License-Identifier: Apache-2.0
// Transport: requests to an authority by libcurl on control's event loop. It speaks HTTPS only, follows no redirect,
// and bounds the time of a request and the size of an answer.
//
// Threads: the loop's.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "control/acme/order_flow.h"
#include "core/curl_loop.h"
#include "core/event_loop.h"
#include "core/result.h"

namespace tidegate::acme {

class Transport {
 public:
  explicit Transport(EventLoop& loop);
  ~Transport();

  // `ca_pem`: the roots that the authority's certificate must have; empty: the system's. One request at a time. `done`
  // comes from the loop, never before the call has returned. An Error: there is no answer.
  void send(const Request& request, const std::string& ca_pem, std::function<void(Result<Answer>)> done);
  // Runs it soon, from the loop, unless this object ends before.
  void later(std::function<void()> then);

 private:
  struct Call;
  void finish(CURLcode code);

  EventLoop& loop_;
  std::shared_ptr<int> life_ = std::make_shared<int>(0);  // nothing is called back after the end of this object
  CurlLoop curl_;
  std::unique_ptr<Call> call_;
};

}  // namespace tidegate::acme
