// SPDX-License-Identifier: Apache-2.0
// ServiceManager: tells systemd, or another manager of this protocol, how this daemon is (sd_notify(3)). The manager
// names a datagram socket in $NOTIFY_SOCKET. Without it every call does nothing. `tidegate run` also names its process
// in $TIDEGATE_SUPERVISOR_PID: a daemon does not outlive it.
//
// The manager can keep descriptors (FileDescriptorStoreMax= of a unit): it has a copy of each, and gives them to the
// next process if this one crashes (sd_listen_fds(3)). Messages go out in order. What the manager has no room for
// waits.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/event_loop.h"
#include "core/fd.h"

namespace tidegate {

class ServiceManager {
 public:
  // Takes $NOTIFY_SOCKET, $WATCHDOG_USEC, $WATCHDOG_PID, $TIDEGATE_SUPERVISOR_PID and $LISTEN_FDS with its kin out of
  // the environment, so that no child speaks for us. Call before any thread is started.
  explicit ServiceManager(EventLoop& loop);
  ~ServiceManager();
  ServiceManager(const ServiceManager&) = delete;
  ServiceManager& operator=(const ServiceManager&) = delete;

  std::function<void()> on_gone;  // the supervisor has ended; on the loop, once

  // The daemon serves, or waits for its first version. From now on the manager hears twice in each watchdog time that
  // the loop turns; if it does not, it ends this process and starts another one. `text`: as of status(), or empty.
  void ready(std::string_view text);
  // It has begun to serve: `tidegate run` takes an end after this for a crash. Other managers do not look.
  void serves();
  // One line for `systemctl status`.
  void status(std::string_view text);
  // Between these two the manager waits: a reload has begun, and it has ended.
  void reloading();
  void reloaded();
  void stopping();
  // Another process is the daemon from now on. The manager hears nothing more from this one.
  void handed_over(int pid, std::string_view text);
  bool is_there() const { return !path_.empty(); }

  // A copy of the descriptor is kept under this name: at most 255 printable characters, no colon. A manager that keeps
  // none ignores it.
  void keep(const std::string& name, int fd);
  void forget(const std::string& name);
  // What was kept when this process was started, with names. Once; nothing afterwards.
  std::vector<std::pair<std::string, UniqueFd>> take_kept() { return std::exchange(kept_, {}); }

  // What a process that this one starts needs in its environment to speak to the manager itself.
  std::vector<std::string> environment() const;

 private:
  struct Watch final : IoHandler {
    explicit Watch(ServiceManager& manager) : owner(manager) {}
    void on_io(uint32_t) override { owner.supervisor_ended(); }
    ServiceManager& owner;
  };
  struct Message {
    std::string text;
    UniqueFd fd;  // empty: none goes with it
  };
  void send(std::string text, UniqueFd fd = {});
  bool send_now(const Message& message);
  void send_waiting();
  void feed_watchdog();
  void watch_supervisor();
  void supervisor_ended();

  EventLoop& loop_;
  std::string path_;  // empty: nobody listens
  UniqueFd socket_;
  bool followed_ = false;        // another process speaks now
  std::deque<Message> waiting_;  // for room in the manager's queue
  Timer again_;
  std::vector<std::pair<std::string, UniqueFd>> kept_;
  std::string supervisor_pid_;  // empty: none that ends its daemons
  UniqueFd supervisor_;         // pidfd
  Watch watch_{*this};
  uint64_t watchdog_ns_ = 0;  // 0: the manager does not watch
  Timer watchdog_;
};

}  // namespace tidegate
