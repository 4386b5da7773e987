// SPDX-License-Identifier: Apache-2.0
#include "control/health/probe.h"

#include <fmt/format.h>

#include "conf/byte_text.h"
#include "control/health/probe_attempt.h"
#include "control/health/probe_command.h"
#include "core/assert.h"
#include "core/http_client.h"

namespace tidegate {

namespace {

constexpr size_t kMaxProbeBodyBytes = 1 << 20;

// The backend is up if the answer has the expected status.
class HttpAttempt final : public ProbeAttempt {
 public:
  HttpAttempt(EventLoop& loop, const ProbeTarget& target, ProbeDone done) : done_(std::move(done)) {
    HttpTarget to;
    to.endpoint = target.endpoint;
    to.tls = target.type == ProbeType::https;
    to.tls_server_name = target.host.empty() ? target.endpoint.address.to_string() : target.host;
    to.tls_verify = target.tls_verify;
    to.tls_ca_pem = target.tls_ca_pem;
    HttpClientRequest request;
    request.target = target.path;
    request.host = target.host.empty() ? target.endpoint.to_string() : target.host;
    request.headers.emplace_back("User-Agent", "tidegate-probe");
    request.timeout_ms = target.timeout_ms;
    request.max_body_bytes = kMaxProbeBodyBytes;
    // With this deadline, the reason names the time without an answer, in every state of the HTTP client.
    deadline_ = std::make_unique<Deadline>(loop, target.timeout_ms, [this, ms = target.timeout_ms] {
      call_.reset();
      done_({false, timeout_sentence(ms), true, ProbeCause::timeout});
    });
    deadline_->start();
    request.timeout_ms = 0;
    call_ = http_call(loop, to, std::move(request),
                      [this, expect = target.expect_status](const Result<HttpResponse>& response) {
                        deadline_->cancel();
                        ProbeResult result = check(response, expect);
                        result.looked = response || !call_->failed_for_own_limit();
                        done_(std::move(result));
                      });
  }

 private:
  static ProbeResult check(const Result<HttpResponse>& response, uint16_t expect_status) {
    if (!response) {
      const bool refused = response.error().message.find("Connection refused") != std::string::npos;
      return {false, response.error().message, true, refused ? ProbeCause::refused : ProbeCause::connection};
    }
    if (response->status != expect_status) {
      return {false, fmt::format("status {}, expected {}", response->status, expect_status), true, ProbeCause::answer};
    }
    return {true, ""};
  }

  ProbeDone done_;
  std::unique_ptr<Deadline> deadline_;
  std::unique_ptr<HttpCall> call_;
};

std::string bytes_of(const std::string& text) {
  Result<std::string> bytes = bytes_of_text(text);
  TIDEGATE_ASSERT(bytes.has_value(), "validation reads what a probe sends and expects");
  return *std::move(bytes);
}

}  // namespace

ProbeTarget probe_target(const Probe& probe, const Backend& backend, std::shared_ptr<ProbeCommands> commands) {
  ProbeTarget target;
  target.type = probe.type;
  if (!backend.addresses.empty()) target.endpoint.address = backend.addresses.front();
  target.endpoint.port = probe.port != 0 ? probe.port : backend.port;
  target.host = probe.host;
  target.path = probe.path;
  target.tls_verify = probe.tls_verify;
  if (probe.tls_ca.bytes) target.tls_ca_pem = *probe.tls_ca.bytes;
  target.expect_status = probe.expect_status;
  target.send = bytes_of(probe.send);
  target.expect = bytes_of(probe.expect);
  if (probe.type == ProbeType::dns) {
    target.dns_name = probe.dns_name;
    target.dns_type = probe.dns_type;
    target.dns_rcode = probe.dns_rcode;
  }
  target.tls_days = probe.tls_days;
  target.tls = probe.tls;
  target.grpc_service = probe.grpc_service;
  if (probe.type == ProbeType::command) {
    target.command = probe.command;
    target.backend = backend.name;
    target.commands = std::move(commands);
  }
  target.hold_ms = probe.hold_ms;
  target.interval_ms = probe.interval_ms;
  target.timeout_ms = probe.timeout_ms;
  target.rise = probe.rise;
  target.fall = probe.fall;
  return target;
}

std::unique_ptr<ProbeAttempt> start_probe(EventLoop& loop, const ProbeTarget& target, ProbeDone done) {
  if (target.echo) return start_echo_probe(loop, target, std::move(done));
  if (target.type == ProbeType::http || target.type == ProbeType::https) {
    return std::make_unique<HttpAttempt>(loop, target, std::move(done));
  }
  if (target.via_vip) return start_vip_probe(loop, target, std::move(done));
  if (target.type == ProbeType::command) return start_command_probe(loop, target, std::move(done));
  return start_socket_probe(loop, target, std::move(done));
}

}  // namespace tidegate
