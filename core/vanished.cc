// SPDX-License-Identifier: Apache-2.0
#include "core/vanished.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <climits>

#include "core/limits.h"

namespace tidegate {

void end_when_peer_vanishes(int fd, uint64_t pause_ms) {
  const int on = 1, idle_s = kKeepaliveIdleS, interval_s = kKeepaliveIntervalS;
  const int probes = static_cast<int>((kVanishedMs / 1000 - kKeepaliveIdleS) / kKeepaliveIntervalS);
  // The kernel counts a window that stays shut like silence, so a longer pause needs a longer timeout.
  const auto timeout_ms = static_cast<unsigned>(std::min<uint64_t>(std::max(kVanishedMs, pause_ms), INT_MAX));
  ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
  ::setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
}

}  // namespace tidegate
