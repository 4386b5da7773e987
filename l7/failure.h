// SPDX-License-Identifier: Apache-2.0
// Failures: every way a request can end other than with the answer it asked for. One table gives each its name (counter
// and log), the status the client is told, and the sentence.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tidegate::l7 {

enum class Failure : uint8_t {
  none,
  bad_request,  // the parser or the translation refused it; the fault's own counter says why
  no_route,
  method_not_allowed,
  body_too_large,
  request_timeout,  // the client's body stopped coming
  request_late,     // the whole exchange's time was over while the client still owed its body
  client_too_slow,  // it sent its body, or took its answer, at less than the listener's minimum_rate
  pool_down,        // no backend may be used
  pool_busy,        // every usable backend is at max_connections
  connect_failed,
  connect_timeout,
  tls_failed,        // towards the backend
  backend_closed,    // before a response
  bad_response,      // not HTTP, or HTTP we refuse
  too_many_interim,  // 1xx answers without end
  first_byte_timeout,
  body_timeout,       // the response's body stopped coming
  backend_truncated,  // closed within the body
  total_timeout,
  only_if_cached,       // the client wants nothing else, and nothing usable is stored (RFC 9111 §5.2.1.7)
  shared_fetch_failed,  // the fetch that this request waited for reached no backend
  client_gone,          // it closed or reset before its answer was complete
  out_of_sockets,       // this node has no descriptor, port or memory left for a connection to a backend
  count_,
};
constexpr size_t kFailures = static_cast<size_t>(Failure::count_);

struct FailureInfo {
  const char* name;
  uint16_t status;  // 499: nobody is left to tell
  const char* sentence;
};
const FailureInfo& info(Failure failure);

}  // namespace tidegate::l7
