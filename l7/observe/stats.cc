// SPDX-License-Identifier: Apache-2.0
#include "l7/observe/stats.h"

#include <fmt/format.h>

#include <iterator>

namespace tidegate::l7 {

Stats::Stats(Metrics& m)
    : duration(m.latency("tidegate_l7_request_duration_seconds", "From a request's head to the end of its answer")),
      first_byte(m.latency("tidegate_l7_backend_first_byte_seconds", "From a request sent to the head of its answer")),
      connections(m.counter("tidegate_l7_client_connections_total", "Client connections accepted")),
      connections_recycled(m.counter("tidegate_l7_client_connections_recycled_total",
                                     "Idle client connections closed to make room for others")),
      accept_failures(
          m.counter("tidegate_l7_accept_failures_total", "accept(2) failed, mostly for want of descriptors")),
      proxy_headers_refused(m.counter("tidegate_l7_proxy_headers_refused_total",
                                      "Client connections closed because their PROXY header is broken or missing")),
      tls_handshakes(m.counter("tidegate_l7_tls_handshakes_total", "TLS handshakes completed")),
      tls_resumed(m.counter("tidegate_l7_tls_resumed_total", "TLS handshakes that resumed a session")),
      tls_failures(m.counter("tidegate_l7_tls_failures_total", "TLS handshakes that failed")),
      client_certificates(m.counter("tidegate_l7_client_certificates_total",
                                    "TLS handshakes of clients that have shown a certificate, and were accepted")),
      client_bytes_in(m.counter("tidegate_l7_client_received_bytes_total", "Bytes of request bodies")),
      client_bytes_out(m.counter("tidegate_l7_client_sent_bytes_total", "Bytes of response bodies")),
      backend_connections(m.counter("tidegate_l7_backend_connections_total", "Connections opened to backends")),
      backend_reuses(m.counter("tidegate_l7_backend_reuses_total", "Requests sent on a kept-alive backend connection")),
      backend_http2_connections(
          m.counter("tidegate_l7_backend_http2_connections_total", "Connections to backends that speak HTTP/2")),
      backend_goaways(m.counter("tidegate_l7_backend_goaways_total", "GOAWAY frames that backends sent")),
      retries(m.counter("tidegate_l7_retries_total", "Requests tried again on a backend")),
      retries_denied(m.counter("tidegate_l7_retries_denied_total", "Retries that the budget did not allow")),
      ejections(m.counter("tidegate_l7_ejections_total", "Backends ejected for consecutive failures")),
      acme_answers(m.counter("tidegate_l7_acme_answers_total",
                             "Answers to a certificate authority that looks whether a name is ours")),
      log_lines_dropped(
          m.counter("tidegate_l7_log_lines_dropped_total", "Access log lines lost to a disk that is slow or full")),
      fields_dropped(m.counter("tidegate_l7_fields_dropped_total",
                               "Request fields dropped: applications may read them as ones that the proxy sets")),
      http2_cancelled(m.counter("tidegate_l7_http2_cancelled_total", "Requests reset before their work began")),
      requests_buffered(m.counter("tidegate_l7_requests_buffered_total",
                                  "Requests whose body was whole before a backend was asked (buffer_request)")),
      requests_unbuffered(m.counter("tidegate_l7_requests_unbuffered_total",
                                    "Requests to be buffered that were streamed: too large, or no memory was left")),
      responses_buffered(
          m.counter("tidegate_l7_responses_buffered_total",
                    "Responses that their backend was rid of before their client had read them (buffer_response)")),
      grpc_web_calls(m.counter("tidegate_l7_grpc_web_calls_total", "Calls of gRPC-Web, translated to gRPC")),
      tunnels_opened(m.counter("tidegate_l7_tunnels_opened_total", "Tunnels opened: WebSockets and other upgrades")),
      tunnels_closed(m.counter("tidegate_l7_tunnels_closed_total", "Tunnels that have ended since")),
      turns_ended(m.counter("tidegate_l7_turns_ended_total",
                            "Connections that had their share of a round and went on in the next")) {
  constexpr const char* kProtocols[] = {"http/1.0", "http/1.1", "h2"};
  for (size_t protocol = 0; protocol < requests_.size(); ++protocol) {
    for (size_t status = 0; status < 6; ++status) {
      const std::string label = status == 0 ? std::string("other") : fmt::format("{}xx", status);
      requests_[protocol][status] = &m.counter("tidegate_l7_requests_total", "Requests answered",
                                               {{"protocol", kProtocols[protocol]}, {"status", label}});
    }
  }
  for (size_t i = 0; i < kFailures; ++i) {
    failures_[i] = &m.counter("tidegate_l7_failures_total", "Requests that ended other than they should",
                              {{"reason", info(static_cast<Failure>(i)).name}});
  }
  constexpr const char* kRefusals[] = {"none", "max_connections", "client_connections", "client_rate", "descriptors"};
  static_assert(std::size(kRefusals) == static_cast<size_t>(ConnectionRefusal::count_));
  for (size_t i = 1; i < connections_refused_.size(); ++i) {
    connections_refused_[i] =
        &m.counter("tidegate_l7_client_connections_refused_total",
                   "Client connections closed as soon as they were accepted, by reason", {{"reason", kRefusals[i]}});
  }
  for (size_t i = 1; i < certificates_refused_.size(); ++i) {
    certificates_refused_[i] = &m.counter("tidegate_l7_client_certificates_refused_total",
                                          "Clients refused for the certificate that they have shown, or not shown",
                                          {{"reason", name(static_cast<ClientCertificateFault>(i))}});
  }
  constexpr const char* kRefused = "tidegate_l7_requests_refused_total";
  constexpr const char* kRefusedHelp = "Requests refused as malformed or dangerous";
  for (size_t i = 0; i < http1_faults_.size(); ++i) {
    http1_faults_[i] = &m.counter(
        kRefused, kRefusedHelp, {{"protocol", "h1"}, {"reason", http1::fault_info(static_cast<http1::Fault>(i)).name}});
  }
  for (size_t i = 0; i < message_faults_.size(); ++i) {
    message_faults_[i] =
        &m.counter(kRefused, kRefusedHelp, {{"protocol", "any"}, {"reason", name(static_cast<MessageFault>(i))}});
  }
  for (size_t i = 1; i < floods_.size(); ++i) {
    floods_[i] = &m.counter("tidegate_l7_http2_floods_total", "HTTP/2 connections closed for abuse",
                            {{"reason", name(static_cast<Http2Fault>(i))}});
  }
}

}  // namespace tidegate::l7
