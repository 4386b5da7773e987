// SPDX-License-Identifier: Apache-2.0
// ServiceManager: reports the state of this daemon to systemd, or to another manager with this protocol (sd_notify(3)).
// The manager names a datagram socket in $NOTIFY_SOCKET. Without it every call does nothing. `tidegate run` also names
// its process in $TIDEGATE_SUPERVISOR_PID: a daemon does not outlive it.
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

  // The daemon serves, or waits for its first version. From now on the loop tells the manager twice in each watchdog
  // time that it still runs. A manager that is not told ends this process and starts another one. `text`: as for
  // status(), or empty.
  void ready(std::string_view text);
  // Tells the manager that this process has begun to serve. `tidegate run` counts an end after this as a crash. Other
  // managers ignore it.
  void serves();
  // One line for `systemctl status`.
  void status(std::string_view text);
  // A reload has begun, or has ended. The manager waits in between.
  void reloading();
  void reloaded();
  void stopping();
  // Another process is the daemon from now on. This process sends the manager nothing more.
  void handed_over(int pid, std::string_view text);
  bool is_there() const { return !path_.empty(); }

  // Asks the manager to keep a copy of the descriptor under this name: at most 255 printable characters, no colon. A
  // manager that keeps no descriptors ignores it.
  void keep(const std::string& name, int fd);
  void forget(const std::string& name);
  // The descriptors that the manager had kept when this process was started, with their names. Later calls return
  // nothing.
  std::vector<std::pair<std::string, UniqueFd>> take_kept() { return std::exchange(kept_, {}); }

  // The environment variables with which a process that this one starts can speak to the manager itself.
  std::vector<std::string> environment() const;

 private:
  struct Watch final : IoHandler {
    explicit Watch(ServiceManager& manager) : owner(manager) {}
    void on_io(uint32_t) override { owner.supervisor_ended(); }
    ServiceManager& owner;
  };
  struct Message {
    std::string text;
    UniqueFd fd;  // empty: the message has no descriptor
  };
  void send(std::string text, UniqueFd fd = {});
  bool send_now(const Message& message);
  void send_waiting();
  void feed_watchdog();
  void watch_supervisor();
  void supervisor_ended();

  EventLoop& loop_;
  std::string path_;  // empty: there is no manager
  UniqueFd socket_;
  bool followed_ = false;        // another process speaks now
  std::deque<Message> waiting_;  // for room in the manager's queue
  Timer again_;
  std::vector<std::pair<std::string, UniqueFd>> kept_;
  std::string supervisor_pid_;  // empty: there is no supervisor
  UniqueFd supervisor_;         // pidfd
  Watch watch_{*this};
  uint64_t watchdog_ns_ = 0;  // 0: the manager does not watch
  Timer watchdog_;
};

}  // namespace tidegate
