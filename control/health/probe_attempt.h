// SPDX-License-Identifier: Apache-2.0
// Code that the attempts of several probe types share. Only their sources include this.
#pragma once

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <string>

#include "control/health/probe.h"
#include "core/clock.h"
#include "core/fd.h"
#include "core/open_files.h"
#include "core/tls.h"

namespace tidegate {

inline ProbeCause cause_of_error(int error) {
  return error == ECONNREFUSED ? ProbeCause::refused : ProbeCause::connection;
}

inline std::string connect_sentence(int error) {
  if (error == ECONNREFUSED) return "connect refused";
  if (error == ECONNRESET) return "connection reset";
  return fmt::format("connect: {}", std::strerror(error));
}

inline std::string timeout_sentence(uint64_t timeout_ms) { return fmt::format("nothing for {} ms", timeout_ms); }

// The deadline of an attempt. If this process was paused, the backend must not be blamed. So a deadline that fires late
// begins again, at most a few times.
class Deadline {
 public:
  Deadline(EventLoop& loop, uint64_t timeout_ms, std::function<void()> on_end)
      : loop_(loop), timeout_ns_(timeout_ms * kNsPerMs), on_end_(std::move(on_end)), timer_(loop, [this] { fire(); }) {}
  void start() {
    ends_ns_ = loop_.now_ns() + timeout_ns_;
    timer_.arm_at_ns(ends_ns_);
  }
  void cancel() { timer_.cancel(); }

 private:
  // If a deadline comes later than this, the process did not run, or had no CPU time.
  static constexpr uint64_t kPausedNs = 20 * kNsPerMs;
  static constexpr int kMaxExtensions = 3;

  void fire() {
    if (loop_.now_ns() > ends_ns_ + kPausedNs && extensions_++ < kMaxExtensions) return start();
    on_end_();
  }
  EventLoop& loop_;
  const uint64_t timeout_ns_;
  const std::function<void()> on_end_;
  uint64_t ends_ns_ = 0;
  int extensions_ = 0;
  Timer timer_;
};

// An attempt over one socket, which is connected without blocking. on_ready() is called for each event after that.
class SocketAttempt : public ProbeAttempt, private IoHandler {
 public:
  ~SocketAttempt() override { unwatch(); }

 protected:
  SocketAttempt(EventLoop& loop, const ProbeTarget& target, ProbeDone done, int type, int protocol = 0);

  // Called when the connection is open, and then for each event that was waited for.
  virtual void on_ready() = 0;
  void wait_for(uint32_t events);
  // Ends the attempt. Nothing of this object may be used afterwards, because the owner may replace it.
  void finish(ProbeResult result);
  int fd() const { return fd_.get(); }

 private:
  void on_io(uint32_t events) override;
  void unwatch();
  void finish_later(ProbeResult result);

  EventLoop& loop_;
  ProbeDone done_;
  uint64_t timeout_ms_;
  UniqueFd fd_;
  Deadline deadline_;
  std::unique_ptr<Timer> at_once_;
  uint32_t events_ = 0;  // the events to wait for; 0: none
};

// Reading the system's authorities takes long, so contexts are kept: one for each set of authorities.
Result<std::shared_ptr<TlsContext>> probe_tls_context(const ProbeTarget& target);

// In probe_vip.cc: a probe via the VIP.
std::unique_ptr<ProbeAttempt> start_vip_probe(EventLoop& loop, const ProbeTarget& target, ProbeDone done);

// In probe_socket.cc: types tcp, udp, dns and tls.
std::unique_ptr<ProbeAttempt> start_socket_probe(EventLoop& loop, const ProbeTarget& target, ProbeDone done);

// In probe_echo.cc: ICMP echo.
std::unique_ptr<ProbeAttempt> start_echo_probe(EventLoop& loop, const ProbeTarget& target, ProbeDone done);

}  // namespace tidegate
