// SPDX-License-Identifier: Apache-2.0
// ServiceManager: tells systemd, or another manager of this protocol, how this daemon is (sd_notify(3)). The manager
// names a datagram socket in $NOTIFY_SOCKET. Without it every call does nothing. `tidegate run` also names its process
// in $TIDEGATE_SUPERVISOR_PID: a daemon does not outlive it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/event_loop.h"
#include "core/fd.h"

namespace tidegate {

class ServiceManager {
 public:
  // Takes $NOTIFY_SOCKET, $WATCHDOG_USEC, $WATCHDOG_PID and $TIDEGATE_SUPERVISOR_PID out of the environment, so that no
  // child speaks for us. Call before any thread is started.
  explicit ServiceManager(EventLoop& loop);
  ~ServiceManager();
  ServiceManager(const ServiceManager&) = delete;
  ServiceManager& operator=(const ServiceManager&) = delete;

  std::function<void()> on_gone;  // the supervisor has ended; on the loop, once

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
  struct Watch final : IoHandler {
    explicit Watch(ServiceManager& manager) : owner(manager) {}
    void on_io(uint32_t) override { owner.supervisor_ended(); }
    ServiceManager& owner;
  };
  void send(const std::string& message);
  void feed_watchdog();
  void watch_supervisor();
  void supervisor_ended();

  EventLoop& loop_;
  std::string path_;  // empty: nobody listens
  UniqueFd socket_;
  std::string supervisor_pid_;  // empty: none that ends its daemons
  UniqueFd supervisor_;         // pidfd
  Watch watch_{*this};
  uint64_t watchdog_ns_ = 0;  // 0: the manager does not watch
  Timer watchdog_;
};

}  // namespace tidegate
