// SPDX-License-Identifier: Apache-2.0
// The proxy's counters, declared once at start; counting them costs a plain add.
#pragma once

#include <array>

#include "core/http1.h"
#include "core/metrics.h"
#include "core/tls_clients.h"
#include "l7/exchange/failure.h"
#include "l7/h2/conduct.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

// Why a client's connection was closed as soon as it was accepted.
enum class ConnectionRefusal : uint8_t {
  none,
  max_connections,     // all workers have as many as allowed, and none is idle
  client_connections,  // its address has as many as allowed, and none is idle
  client_rate,         // its address opens them too fast
  descriptors,         // the remaining descriptors are for the admin socket and the log
  count_,
};

class Stats {
 public:
  explicit Stats(Metrics& metrics);

  // tidegate_l7_requests_total{protocol,status}
  void count_request(HttpVersion version, uint16_t status) {
    requests_[static_cast<size_t>(version)][status >= 100 && status < 600 ? status / 100 : 0]->add();
  }
  void count_failure(Failure failure) { failures_[static_cast<size_t>(failure)]->add(); }
  void count_refusal(ConnectionRefusal refusal) { connections_refused_[static_cast<size_t>(refusal)]->add(); }
  // tidegate_l7_client_certificates_refused_total{reason}
  void count_refusal(ClientCertificateFault fault) { certificates_refused_[static_cast<size_t>(fault)]->add(); }
  void count_refusal(http1::Fault fault) { http1_faults_[static_cast<size_t>(fault)]->add(); }
  // tidegate_l7_http2_floods_total{reason}
  void count_flood(Http2Fault fault) { floods_[static_cast<size_t>(fault)]->add(); }
  void count_refusal(MessageFault fault) { message_faults_[static_cast<size_t>(fault)]->add(); }

  LatencyHistogram& duration;    // from the request's head until the answer's last byte was given to the connection
  LatencyHistogram& first_byte;  // of backends: from sending the request's head to receiving the answer's head
  Counter& connections;
  Counter& connections_recycled;  // idle connections that were closed to make room
  Counter& accept_failures;
  Counter& proxy_headers_refused;  // from peers that send them
  Counter& tls_handshakes;
  Counter& tls_resumed;
  Counter& tls_failures;
  Counter& client_certificates;  // accepted certificates, in full or resumed handshakes
  Counter& client_bytes_in;      // bytes of request bodies
  Counter& client_bytes_out;     // bytes of response bodies
  Counter& backend_connections;
  Counter& backend_reuses;
  Counter& backend_http2_connections;  // on which HTTP/2 was chosen
  Counter& backend_goaways;            // received
  Counter& retries;
  Counter& retries_denied;  // retries denied because the budget was used up
  Counter& ejections;
  Counter& acme_answers;
  Counter& log_lines_dropped;    // lines that could not be written fast enough, or not at all
  Counter& fields_dropped;       // fields of requests that applications could confuse with fields that the proxy sets
  Counter& http2_cancelled;      // requests that were reset before their work began
  Counter& requests_buffered;    // bodies buffered completely before a backend was asked
  Counter& requests_unbuffered;  // bodies that were too large to buffer, or had no room in the memory budget
  Counter& responses_buffered;   // bodies buffered completely before their clients had read them
  Counter& grpc_web_calls;
  Counter& tunnels_opened;
  Counter& tunnels_closed;
  Counter& turns_ended;  // connections that had used up their share of a round and continued in the next

 private:
  std::array<std::array<Counter*, 6>, 3> requests_{};
  std::array<Counter*, kFailures> failures_{};
  std::array<Counter*, static_cast<size_t>(ConnectionRefusal::count_)> connections_refused_{};
  std::array<Counter*, static_cast<size_t>(ClientCertificateFault::count_)> certificates_refused_{};
  std::array<Counter*, static_cast<size_t>(http1::Fault::count_)> http1_faults_{};
  std::array<Counter*, static_cast<size_t>(MessageFault::count_)> message_faults_{};
  std::array<Counter*, static_cast<size_t>(Http2Fault::count_)> floods_{};
};

}  // namespace tidegate::l7
