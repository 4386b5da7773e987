// SPDX-License-Identifier: Apache-2.0
// AuthorityClient: requests to an authority by libcurl on control's event loop. It follows no redirect, and bounds the
// time of a request and the size of an answer. ACME needs HTTPS. OCSP is plain HTTP, because its answers are signed.
//
// Threads: the loop's.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "control/acme/order_flow.h"
#include "control/limits.h"
#include "core/curl_loop.h"
#include "core/event_loop.h"
#include "core/result.h"

namespace tidegate::acme {

struct AuthorityClientRules {
  const char* protocols = "https";  // as CURLOPT_PROTOCOLS_STR takes them
  uint64_t connect_ms = kAcmeConnectMs;
  uint64_t request_ms = kAcmeRequestMs;
  size_t answer_bytes = kMaxAcmeAnswerBytes;
};

class AuthorityClient {
 public:
  explicit AuthorityClient(EventLoop& loop, AuthorityClientRules rules = {});
  ~AuthorityClient();

  // `ca_pem`: the roots for the authority's certificate; empty: the system's. One request at a time. `done` is called
  // from the loop, never before the call has returned. An Error means that there is no answer.
  void send(const Request& request, const std::string& ca_pem, std::function<void(Result<Answer>)> done);
  bool is_busy() const { return call_ != nullptr; }
  // Runs `then` soon, from the loop, unless this object is destroyed before.
  void later(std::function<void()> then);

 private:
  struct Call;
  void finish(CURLcode code);

  EventLoop& loop_;
  const AuthorityClientRules rules_;
  std::shared_ptr<int> life_ = std::make_shared<int>(0);  // so that nothing is called after this object's end
  CurlLoop curl_;
  std::unique_ptr<Call> call_;
};

}  // namespace tidegate::acme
