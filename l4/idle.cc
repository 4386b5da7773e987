// SPDX-License-Identifier: Apache-2.0
#include "l4/idle.h"

#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cassert>

#include "core/clock.h"

namespace tidegate::l4 {
namespace {

constexpr unsigned kSpins = 4'096;  // a few hundred microseconds of empty bursts on a NIC
constexpr uint64_t kShortestNapNs = 20'000, kLongestNapNs = kNsPerMs;
constexpr uint64_t kBrokenNapNs = 10 * kNsPerMs;  // an interface that is down makes poll(2) return at once

}  // namespace

Idle::Idle() : wake_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  assert(wake_);
  watch({}, true);
}

void Idle::watch(const std::vector<int>& fds, bool all_pollable) {
  all_pollable_ = all_pollable;
  fds_.assign(1, {wake_.get(), POLLIN, 0});
  for (const int fd : fds) fds_.push_back({fd, POLLIN, 0});
}

void Idle::wait(unsigned empty_bursts, uint64_t max_wait_ns) {
  uint64_t wait_ns = max_wait_ns;
  if (!all_pollable_) {
    if (empty_bursts < kSpins) return;
    const unsigned doublings = std::min(empty_bursts - kSpins, 6u);
    wait_ns = std::min({max_wait_ns, kShortestNapNs << doublings, kLongestNapNs});
  }
  const timespec timeout{static_cast<time_t>(wait_ns / kNsPerS), static_cast<long>(wait_ns % kNsPerS)};
  const int ready = ::ppoll(fds_.data(), fds_.size(), &timeout, nullptr);
  if (ready <= 0) return;
  if ((fds_[0].revents & POLLIN) != 0) {
    uint64_t count;
    [[maybe_unused]] const ssize_t drained = ::read(wake_.get(), &count, sizeof count);
  }
  const bool broken = std::any_of(fds_.begin(), fds_.end(),
                                  [](const pollfd& p) { return (p.revents & (POLLERR | POLLHUP | POLLNVAL)) != 0; });
  if (broken) {
    // The socket of an interface that was set down reports it until it is asked. Another one may have frames.
    for (const pollfd& p : fds_) {
      int error = 0;
      socklen_t bytes = sizeof error;
      if ((p.revents & POLLERR) != 0) ::getsockopt(p.fd, SOL_SOCKET, SO_ERROR, &error, &bytes);
    }
    const timespec nap{0, static_cast<long>(kBrokenNapNs)};
    ::nanosleep(&nap, nullptr);
  }
}

void Idle::wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof one);
}

}  // namespace tidegate::l4
