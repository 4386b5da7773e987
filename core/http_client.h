// SPDX-License-Identifier: Apache-2.0
// HttpClient: one request over a fresh connection on an event loop (probes, control talking to planes and to other
// controls, the watch stream), and a blocking form for the command line. Not the proxy's backend side.
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
  std::string unix_path;  // when not empty, used instead of endpoint
  Endpoint endpoint;
  bool tls = false;
  std::string tls_server_name;  // SNI; also verified when tls_verify
  bool tls_verify = false;      // against the system's or `tls_ca_pem`'s roots
  std::string tls_ca_pem;
  std::optional<uint32_t> so_mark;  // probing through one DSR backend
};

struct HttpClientRequest {
  std::string method = "GET";
  std::string target = "/";
  std::string host;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  uint64_t timeout_ms = 5'000;  // whole exchange; 0: none (streams)
  size_t max_body_bytes = 64 << 20;
};

// An exchange under way. Destroying it cancels without calling back, from inside its own callbacks too. Callbacks run
// on the loop's thread, never before the function that started the call has returned.
class HttpCall {
 public:
  virtual ~HttpCall() = default;
  // Within `done`: it failed for a limit of our own (core/open_files.h), which says nothing of the peer.
  virtual bool failed_for_own_limit() const = 0;
};

// Errors are sentences: "connect 10.0.0.1:80: Connection refused", "read 10.0.0.1:80: the status line is malformed".
// A response of any status is a value.
using HttpDone = std::function<void(Result<HttpResponse>)>;
std::unique_ptr<HttpCall> http_call(EventLoop& loop, const HttpTarget& target, HttpClientRequest request,
                                    HttpDone done);

// Body pieces as they come; `done` when the stream ends (the response then has an empty body) or fails. The body of a
// status other than 2xx is no stream: it is in the response. max_body_bytes does not bound a stream.
std::unique_ptr<HttpCall> http_stream(EventLoop& loop, const HttpTarget& target, HttpClientRequest request,
                                      std::function<void(std::string_view)> on_data, HttpDone done);

// Runs its own loop until done: for command-line programs and tests.
Result<HttpResponse> http_fetch(const HttpTarget& target, HttpClientRequest request);

}  // namespace tidegate
