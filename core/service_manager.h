// SPDX-License-Identifier: Apache-2.0
// ServiceManager: tells systemd, or another manager of this protocol, how this daemon is (sd_notify(3)). The manager
// names a datagram socket in $NOTIFY_SOCKET. Without it every call does nothing.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/event_loop.h"
#include "core/fd.h"

namespace tidegate {

class ServiceManager {
 public:
  // Takes $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID out of the environment, so that no child speaks for us. Call
  // before any thread is started.
  explicit ServiceManager(EventLoop& loop);

  // The daemon serves, or waits for its first version. From now on the manager hears twice in each watchdog time that
  // the loop turns; if it does not, it ends this process and starts another one. `text`: as of status(), or empty.
  void ready(std::string_view text);
  // One line for `systemctl status`.
  void status(std::string_view text);
  // Between these two the manager waits: a reload has begun, and it has ended.
  void reloading();
  void reloaded();
  void stopping();
  // Another process is the daemon from now on. The manager hears nothing more from this one.
  void handed_over(int pid, std::string_view text);
  // What a process that this one starts needs in its environment to speak to the manager itself.
  std::vector<std::string> environment() const;

 private:
  void send(const std::string& message);
  void feed_watchdog();

  std::string path_;  // empty: nobody listens
  UniqueFd socket_;
  uint64_t watchdog_ns_ = 0;  // 0: the manager does not watch
  Timer watchdog_;
};

}  // namespace tidegate
