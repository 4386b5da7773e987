// SPDX-License-Identifier: Apache-2.0
// HttpClient: one request over a new connection on an event loop, and a blocking form for the command line. It is used
// for probes, for control's requests to planes and to other controls, and for the watch stream. It is not the proxy's
// backend side.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/event_loop.h"
#include "core/http_server.h"
#include "core/ip.h"
#include "core/result.h"

namespace tidegate {

struct HttpTarget {
  std::string unix_path;  // if not empty, used instead of endpoint
  Endpoint endpoint;
  bool tls = false;
  std::string tls_server_name;  // SNI; also verified if tls_verify is set
  bool tls_verify = false;      // against the system's roots or those of `tls_ca_pem`
  std::string tls_ca_pem;
  std::optional<uint32_t> so_mark;  // for probing through one DSR backend
};

struct HttpClientRequest {
  std::string method = "GET";
  std::string target = "/";
  std::string host;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  std::shared_ptr<const std::string> shared_body;  // if set, it counts: one large body for several requests
  uint64_t timeout_ms = 5'000;                     // for the whole exchange; 0: none (streams)
  size_t max_body_bytes = 64 << 20;
};

// A running exchange. Its destructor cancels the exchange without a callback. It may be destroyed inside its own
// callbacks. Callbacks run on the loop's thread, never before the function that started the call has returned.
class HttpCall {
 public:
  virtual ~HttpCall() = default;
  // Valid within `done`: the exchange failed because of a limit of our own (core/open_files.h), which says nothing
  // about the peer.
  virtual bool failed_for_own_limit() const = 0;
};

// Errors are sentences: "connect 10.0.0.1:80: Connection refused", "read 10.0.0.1:80: the status line is malformed". A
// response of any status is a value, not an Error.
using HttpDone = std::function<void(Result<HttpResponse>)>;
std::unique_ptr<HttpCall> http_call(EventLoop& loop, const HttpTarget& target, HttpClientRequest request,
                                    HttpDone done);

// Calls on_data for each piece of the body as it comes. Calls `done` when the stream ends (then the response has an
// empty body) or fails. If the status is not 2xx, the body is not streamed: it is in the response. max_body_bytes does
// not limit a stream.
std::unique_ptr<HttpCall> http_stream(EventLoop& loop, const HttpTarget& target, HttpClientRequest request,
                                      std::function<void(std::string_view)> on_data, HttpDone done);

// Runs its own loop until it is done. For command-line programs and tests.
Result<HttpResponse> http_fetch(const HttpTarget& target, HttpClientRequest request);

}  // namespace tidegate
